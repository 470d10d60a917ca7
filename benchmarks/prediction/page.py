"""The page, and the log of looks at the held-out set."""

from __future__ import annotations

import datetime
import json
import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from . import tables
from .judged import BASES, Judged, of
from .sets import chosen
from .shares import Verdict

RESULTS = Path(__file__).parents[1] / "results"
PAGE = RESULTS / "prediction.md"
NORMS = RESULTS / "prediction.json"
LOOKS = RESULTS / "prediction-looks.json"
MISSES = Path(__file__).with_name("misses.md")
README = Path(__file__).parents[2] / "README.md"
MARKS = (
    "<!-- how good predictions are: written by `python -m benchmarks.prediction page` -->",
    "<!-- end -->",
)
PUBLISHED = "published weights"

PROTOCOL = (
    "Measured Δ is the variance of a norm's input in test mode over its running variance, each averaged over "
    "channels (Li et al. 2019, Sec. 4). The running statistics are those of train-mode passes with "
    "dropout on, "
    "over the training data, with the final weights; what small batches alone do (the same without "
    "dropout) is "
    "divided out. Every norm whose input depends on a mask is counted. *unknown*: the report gives "
    "no figure, "
    "which enters no error. *bias*: predicted less measured. *wrong side*: predicted above 0.95 and measured "
    "below it, or the other way round. *in interval* should be 90 %. *closed forms*: the mean error of the "
    "papers' own equations (Li Eq. 6, Kim Eq. 29 and 31) on the same norms."
)


def commit() -> str:
    """The commit that last touched the package, with `+` where files differ from it."""
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "dropout_lint")
    return (git("log", "-1", "--format=%h", "--", "dropout_lint") or "unknown") + ("+" if changed else "")


def checkpoint_error(rows: Sequence[Judged], network: str) -> float:
    """Mean error from a network's checkpoint."""
    return tables.figures([row for row in of(rows, "checkpoint") if row.network == network])["mean"]


def log_look(why: str, rows: Sequence[Judged], found: Sequence[Verdict]) -> None:
    """Add a look at the held-out set to the log."""
    looks = json.loads(LOOKS.read_text(encoding="utf-8")) if LOOKS.exists() else []
    ours = [row for row in rows if row.family != PUBLISHED]
    names = dict.fromkeys(row.network for row in rows if row.family == PUBLISHED)
    published = {name: round(checkpoint_error(rows, name), 3) for name in names}
    apart = [v for v in found if v.apart]
    look = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": commit(),
        "why": why,
        "settings": len({row.key for row in rows}),
        "figures": {
            basis: {k: round(v, 4) for k, v in tables.figures(of(ours, basis)).items() if not math.isnan(v)}
            for basis in BASES
        },
        "published": published,
        "shares": [sum(v.predicted == v.best for v in apart), len(apart)],
    }
    if looks and looks[-1]["figures"] == look["figures"]:  # the same look, with its shares
        look["date"], look["why"] = looks.pop()["date"], why
    looks.append(look)
    LOOKS.write_text(json.dumps(looks, indent=1) + "\n", encoding="utf-8")


def looks_table() -> list[str]:
    """The log as a table."""
    looks: list[dict[str, Any]] = json.loads(LOOKS.read_text(encoding="utf-8")) if LOOKS.exists() else []
    lines = [
        "| date (UTC) | commit | why | settings | checkpoint | shapes | wrong side | in interval, width "
        "| untrained | published | shares |",
        "|" + "---|" * 11,
    ]
    for look in looks:
        f = look["figures"]
        pair = {basis: f"{f[basis]['mean']:.3f} / {f[basis]['most']:.3f}" for basis in BASES}
        shapes = f["shapes"]
        inside = f"{shapes['covered']:.0%}, {shapes['width']:.2f}" if "covered" in shapes else "–"
        published = ", ".join(f"{name} {value:.3f}" for name, value in look["published"].items()) or "–"
        right, count = look["shares"]
        lines.append(
            f"| {look['date']} | {look['commit']} | {look['why']} | {look['settings']} | "
            f"{pair['checkpoint']} "
            f"| {pair['shapes']} | {shapes['wrong']:.1%} | {inside} | {pair['initial']} | {published} "
            f"| {right} of {count} |"
        )
    return lines


def published_section(rows: Sequence[Judged]) -> list[str]:
    """Published weights, norm by norm."""
    lines = ["| network | norm | measured | from the checkpoint | from shapes |", "|---|---|---|---|---|"]
    shapes = {(row.key, row.norm): row for row in of(rows, "shapes")}
    for row in of(rows, "checkpoint"):
        other = shapes[row.key, row.norm]
        interval = "" if math.isnan(other.low) else f" ({other.low:.2f} to {other.high:.2f})"
        lines.append(
            f"| {row.network} | `{row.norm}` | {row.true:.3f} | {row.predicted:.3f} "
            f"| {other.predicted:.3f}{interval} |"
        )
    for network in dict.fromkeys(row.network for row in rows):
        error = checkpoint_error(rows, network)
        lines.append(f"| {network} | mean error (aim ≤ {tables.PUBLISHED}) | | {error:.3f} | |")
    return lines


def section(rows: Sequence[Judged]) -> list[str]:
    """The tables of one set by family, kind and ratio."""
    return [
        *("### By family", "", *tables.by(rows, "family", lambda row: row.family), ""),
        *("### By kind of noise", "", *tables.by(rows, "kind", lambda row: row.kind), ""),
        *("### By ratio", "", *tables.by(rows, "p", lambda row: f"{row.p:g}"), ""),
    ]


def page(found: Mapping[str, Sequence[Judged]], verdicts: Sequence[Verdict], command: str) -> str:
    """The whole page; `found` has the rows of each set."""
    import numpy

    everything = found["heldout"]
    published = [row for row in everything if row.family == PUBLISHED]
    held = [row for row in everything if row.family != PUBLISHED]
    families = len({row.family for row in held})
    lines = ["# Predicted against measured Δ", "", f"`{command}`", ""]
    lines.append(
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}, "
        f"{platform.machine()}, one thread for each setting."
    )
    lines += ["", PROTOCOL, "", "## Held out", ""]
    networks, measured = len({row.network for row in held}), len({row.key for row in everything})
    lines.append(
        f"{networks} networks of {families} families; no constant of the ledger was chosen while looking at "
        "them, and families, data and optimisers are others than those of the networks that constants were "
        f"chosen on. {measured} of the set's {len(chosen('heldout'))} settings have been trained and "
        "measured so far; `python -m benchmarks.prediction train` goes on with the rest."
    )
    lines += ["", *tables.judged_by_aims(held)]
    lines += [tables.share_line(verdicts)] if verdicts else []
    if published:
        lines += ["", "### Published weights", "", *published_section(published)]
    lines += ["", "### Looks at this set", "", *looks_table()]
    if MISSES.exists():
        lines += ["", MISSES.read_text(encoding="utf-8").strip()]
    lines += ["", *section(held), "### The norms that miss most", "", *tables.worst(held), ""]
    if verdicts:
        lines += ["### Shares", "", *tables.shares_section(verdicts), ""]
    inside = [row for name in ("tuning", "twelve") for row in found.get(name, ())]
    if inside:
        lines += ["## The networks that constants were chosen on", ""]
        lines.append(
            f"{len({row.network for row in inside})} networks in {len({row.key for row in inside})} "
            "settings. "
            "These figures say how well the constants fit, not how good predictions are."
        )
        lines += ["", *tables.judged_by_aims(inside), "", *section(inside)]
    return "\n".join(lines).rstrip() + "\n"


def for_readme(found: Mapping[str, Sequence[Judged]], verdicts: Sequence[Verdict]) -> str:
    """The README's paragraph: held-out figures, then those of the networks that constants were chosen on."""
    held = [row for row in found["heldout"] if row.family != PUBLISHED]
    inside = [row for name in ("tuning", "twelve") for row in found.get(name, ())]
    lines = [
        f"On {len({row.network for row in held})} networks of {len({row.family for row in held})} "
        "families that "
        f"no constant was chosen on ({len({row.key for row in held})} settings, p from 0.1 to 0.5; "
        "families, data",
        "and optimisers are others than those of the networks that constants were chosen on):",
        "",
        *tables.judged_by_aims(held),
    ]
    lines += [tables.share_line(verdicts)] if verdicts else []
    for network in dict.fromkeys(row.network for row in found["heldout"] if row.family == PUBLISHED):
        error = checkpoint_error(found["heldout"], network)
        lines.append(
            f"| published weights, {network}: mean error from the checkpoint "
            f"| {len([r for r in of(found['heldout'], 'checkpoint') if r.network == network])} | {error:.3f} "
            f"| ≤ {tables.PUBLISHED} | {tables.yes(error <= tables.PUBLISHED)} |"
        )
    if inside:
        told = ", ".join(
            f"{f['mean']:.3f} / {f['most']:.3f} {tables.TITLES[basis].replace(', of', ' of')}"
            for basis in BASES
            if (f := tables.figures(of(inside, basis)))
        )
        lines += ["", f"On those that constants were chosen on, mean error / 95 %: {told}."]
    return "\n".join(lines)


def into_readme(text: str, marks: tuple[str, str] = MARKS) -> None:
    """Put the paragraph between the README's marks."""
    start, end = marks
    whole = README.read_text(encoding="utf-8")
    before, rest = whole.split(start, 1)
    after = rest.split(end, 1)[1]
    README.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")


def as_json(found: Mapping[str, Sequence[Judged]]) -> str:
    """Every norm of every set: measured, predicted, low and high by basis."""

    def figure(value: float) -> float | None:
        return round(value, 4) if math.isfinite(value) else None

    data: dict[str, dict[str, dict[str, dict[str, list[float | None]]]]] = {}
    for name, rows in found.items():
        for row in rows:
            norms = data.setdefault(name, {}).setdefault(row.key, {})
            norms.setdefault(row.norm, {})[row.basis] = [
                figure(v) for v in (row.true, row.predicted, row.low, row.high)
            ]
    lines = [
        f' "{name}": {{\n'
        + ",\n".join(f"  {json.dumps(key)}: {json.dumps(norms)}" for key, norms in settings.items())
        + "\n }"
        for name, settings in data.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"
