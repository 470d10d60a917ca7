"""The page of the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from .records import Measured, Record, Verdict

Verdicts = Mapping[tuple[str, str], Verdict]

HEAD = """# What `fix --write` writes for models of public packages

Written by `python -m benchmarks.fixes_third_party`. Each package ({packages})
was copied as published into a scratch project, and `check`, then `fix --write`, ran there by the command line
on models of it with dropout switched on. The question is issue 18's: of the diffs that are written, how many
would the package's maintainer merge as they are? Not writing is better than a diff that would be refused.

- **asked**: findings at warning or above. **done**: how many dropouts the diff changes.
- **worst Δ**: lowest Var_test / Var_train over all batch norms by brute force (untrained weights, train-mode
  passes with dropout on, statistics taken anew), as published → with the diff; see
  `benchmarks/third_party/measured.py`.
- **promise**: whether `fix` did what `check --fixes` had promised of each finding, with the promised Δ
  to 1e-9.
- **verdict**: of one reader, on the diff as it lies in [fixes-third-party/](fixes-third-party/). One that has
  changed since it was read has none.
"""


def report(records: Sequence[Record], verdicts: Verdicts) -> str:
    """The page as Markdown."""
    asked = [item for item in records if item.asked and not item.trouble]
    written = [item for item in asked if item.diff]
    judged = {item.model: verdicts.get((item.model, item.key)) for item in written}
    read = [verdict for verdict in judged.values() if verdict is not None]
    merged = sum(verdict.merge for verdict in read)
    kept = sum(not item.broken_promises for item in asked)
    packages = sorted({item.model.split("/")[0] for item in asked})
    lines = [
        HEAD.format(packages=", ".join(packages)),
        f"Of {len(records)} models, {len(asked)} of {len(packages)} packages have something to fix. "
        f"A diff was written for {len(written)}: **{merged} of {len(read)} that were read would be merged"
        + (f" ({merged / len(read):.0%})" if read else "")
        + f"**, {len(written) - len(read)} were not read. The promise was kept for {kept} of {len(asked)}.",
        "",
        "| model | asked | done | worst Δ | promise | verdict | why |",
        "|---|---|---|---|---|---|---|",
        *(row(item, judged.get(item.model)) for item in written),
        "",
        "## Nothing written",
        "",
        "| model | asked | promise | why nothing was written |",
        "|---|---|---|---|",
        *(unwritten(item) for item in asked if not item.diff),
        "",
        *promises(asked),
        *others(records),
    ]
    return "\n".join(lines).rstrip() + "\n"


def row(item: Record, verdict: Verdict | None) -> str:
    """A model with a diff."""
    judged = (
        ("not read", "") if verdict is None else ("merge" if verdict.merge else "**refuse**", verdict.why)
    )
    shift = f"{worst(item.before)} → {worst(item.after)}"
    cells = (link(item), codes(item), str(len(item.did)), shift, promise(item), *judged)
    return f"| {' | '.join(cells)} |"


def unwritten(item: Record) -> str:
    """A model without one, and the tool's own reasons."""
    left = [line.partition(": ")[2] for line in item.said if ": left " in line]
    reasons = Counter(line.partition("): ")[2] for line in left)
    why = "; ".join(f"{reason} ({count}×)" if count > 1 else reason for reason, count in reasons.items())
    cells = (item.model, codes(item), promise(item), why.replace("|", "\\|"))
    return f"| {' | '.join(cells)} |"


def promises(records: Sequence[Record]) -> list[str]:
    """Each promise that was not kept."""
    broken = [(item.model, line) for item in records for line in item.broken_promises]
    if not broken:
        return []
    return ["## Promises not kept", "", *(f"- {model}: {line}" for model, line in broken), ""]


def others(records: Sequence[Record]) -> list[str]:
    """Models with nothing to fix, and those that gave no answer."""
    sound = [item.model for item in records if not item.asked and not item.trouble]
    lines = ["## Nothing to fix", "", ", ".join(sound) + ".", ""] if sound else []
    troubled = [f"- {item.model}: {item.trouble}" for item in records if item.trouble]
    return [*lines, "## No answer", "", *troubled] if troubled else lines


def link(item: Record) -> str:
    """The model's name, leading to its diff."""
    return f"[{item.model}](fixes-third-party/{item.model.replace('/', '--')}.diff)"


def codes(item: Record) -> str:
    """What was asked: `3 DL101, 1 DL303`."""
    counted = Counter(finding.code for finding in item.asked)
    return ", ".join(f"{count} {code}" for code, count in sorted(counted.items()))


def worst(measured: Sequence[Measured]) -> str:
    """The lowest Δ."""
    return f"{min(one.delta for one in measured):.3f}" if measured else "–"


def promise(item: Record) -> str:
    """Whether it was kept."""
    return "kept" if not item.broken_promises else f"{len(item.broken_promises)} not kept"
