"""The tables of `prediction.py`."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Sequence

import torch
from prediction_evaluated import Result

TARGETS = {"initialisation": (0.05, 0.12), "weights": (0.03, 0.08), "checkpoint": (0.02, 0.06)}


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(q * len(ordered)) - 1))] if ordered else math.nan


def grouped(results: Sequence[Result], heads: Sequence[str]) -> dict[tuple[str, ...], list[Result]]:
    """Results by basis or parts of their case."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        key = tuple(result.basis if head == "basis" else str(getattr(result.case, head)) for head in heads)
        groups.setdefault(key, []).append(result)
    return groups


def aims(results: Sequence[Result]) -> dict[str, str]:
    """How many norms lie within the aims, for each basis."""
    found = {}
    for basis, (mean, most) in TARGETS.items():
        errors = [e for r in results if r.basis == basis for e in r.errors()]
        if errors:
            near = sum(e <= mean for e in errors) / len(errors)
            within = sum(e <= most for e in errors) / len(errors)
            found[basis] = (
                f"mean {statistics.fmean(errors):.4f} (aim {mean}), 95 % quantile "
                f"{quantile(errors, 0.95):.3f} (aim {most}); {within:.1%} of {len(errors)} norms within "
                f"{most}, {near:.1%} within {mean}."
            )
    return found


def beaten(results: Sequence[Result], heads: Sequence[str]) -> str:
    """Rows that the papers' closed forms predict as well or better."""
    rows = {
        key: [
            statistics.fmean(e for r in group for e in r.errors(which)) for which in ("predicted", "closed")
        ]
        for key, group in grouped(results, heads).items()
    }
    # where no dropout reaches a norm, both say Δ = 1
    lost = [f"{' '.join(key)} ({a:.3f}, {b:.3f})" for key, (a, b) in rows.items() if a >= b and a > 0.0005]
    return (
        f"{len(rows) - len(lost)} of {len(rows)} rows beat the papers' closed forms, or are right to 0.0005. "
        f"The others (mean error of the prediction, of the closed forms): {', '.join(lost) or 'none'}."
    )


def by(results: Sequence[Result], heads: Sequence[str]) -> list[str]:
    """A Markdown table of errors."""
    groups = grouped(results, heads)
    lines = [
        "| "
        + " | ".join(
            [*heads, "norms", "mean abs error", "95 %", "bias", "closed forms", "seconds", "× forward"]
        )
        + " |"
    ]
    lines.append("|" + "---|" * (len(heads) + 7))
    for key, group in groups.items():
        errors = [e for r in group for e in r.errors()]
        closed = [e for r in group for e in r.errors("closed")]
        bias = [r.predicted[n] - r.measured[n] for r in group for n in r.measured if n in r.predicted]
        seconds = statistics.median(r.seconds for r in group)
        ratio = statistics.median(r.seconds / r.forward_seconds for r in group)
        lines.append(
            "| "
            + " | ".join(key)
            + f" | {len(errors)} | {statistics.fmean(errors):.4f} | {quantile(errors, 0.95):.3f} "
            f"| {statistics.fmean(bias):+.3f} | {statistics.fmean(closed):.3f} | {seconds:.3f} "
            f"| {ratio:.1f} |"
        )
    return lines


MISSES = """## How to read this, and where rows miss

The ledger's assumed numbers (`DECAY`, `INPUT_ALIKE`; for trained networks `STRANGE`, `LEAST_KIN`,
`POINT_GAIN`, `AGREEMENT`, `PAIR`, `UNREST`) were chosen while looking at the networks of `prediction.md`,
so the errors there are in-sample for them; for those of `prediction-held-out.md` no number was chosen,
though their sum was in view. Numbers of train-mode passes differ (2 to 4). The column `× forward` is
against a forward pass of these small images; for usual sizes see the page's end, where it was made with
`--times`.

Each trained network was compared with the prediction at every node of its graph: the mean over masks
(data), the noise, and test mode. What the running variance alone gives, one minus noise over Var_train,
is right to one or two hundredths nearly everywhere. What misses is how the data's own variance changes
from train to test mode ("growth") once noise ahead of ReLUs is gone and frozen norms no longer fit; it
adds up with depth. `prediction-limits.md` says how far a run of the very network gets without its data.

- *Pre-activation networks, dropout within the branch (P1, P4), p = 0.5*: growth 1.36 and 1.30 in the mean
  of the norms of a PreResNet-20, predicted 1.31 and 1.20. What skip and branch have in common grows by more
  than either; the ledger lets it grow as both do, and each block adds a few hundredths.
- *Post-activation networks with dropout at the branch's end*: variances differ from channel to channel
  behind an add that no norm reads, and their growth with them; a file does not tell them apart.
- *DropPath at P0*, where a mask drops everything that the network has of a sample: from p = 0.3 on
  nothing is left of the data behind the third block, and small errors add up. Nobody should build it.
- *efficientnet_b0, trained, p = 0.1*: variances of test mode stay 6 % above those of train mode in the mean,
  and 11 % in the last third, where dropout is switched off in train mode too. That is no noise: its running
  statistics do not fit its weights after few steps. At p = 0.3 and 0.5 it is one of several causes.
- *Max pooling (VGG), trained*: which value is the largest depends on noise and data together.
- *Untrained*: predictions are 0.015 too high in the mean. The digits are a few bits in eight by eight
  pixels, and features of them are more alike and more uneven than those of the smooth images that are
  assumed.
- *Last stages at 32 pixels* (densenet121, efficientnet_b0, resnet18 untrained): maps of one position,
  where the input's assumed smoothness decides what is left of the signal.
- *WRN from shapes alone*: its builder initialises by He's rule, shapes only know torch's default, so
  the branch's size against its skip is off. With the weights' values the error is a quarter.
- *resnet26 and regnetx_002 from shapes alone*: timm starts the last norm of each branch at a weight of
  zero, so that the untrained branch is nothing. Shapes do not tell, and it does not stay so.
- *resnet34, trained, p = 0.5*: 0.34 to 0.55 predicted, 0.04 to 0.25 measured in the last block. In test mode
  its features nearly vanish there, though the train-mode variances and means say nothing of it; from p =
  0.3 on the same begins.
- *Trained, few steps*: running variances are averages over steps in which the weights still move, and
  over batches of 64. For most networks that costs 0.003 to 0.01 in the mean, for the MLP at p = 0.5 and
  efficientnet_b0 more.
- *Time*: predictions take 0.1 to 0.3 milliseconds for each node of the graph, whatever the image size,
  and read all weights three times. Where no norm lies behind a dropout nothing is worked out.
"""


def report(results: Sequence[Result], command: str) -> str:
    """The whole page."""
    import numpy

    lines = ["# Predicted against measured Δ", "", f"`{command}`", ""]
    lines.append(
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}, "
        f"{platform.machine()}, {torch.get_num_threads()} thread(s)."
    )
    lines += [
        "",
        "One error for each norm: |predicted Δ - measured Δ|. `closed forms` is the mean error of the "
        "papers' own "
        "equations (Li Eq. 6, Kim Eq. 29 and 31) on the same norms.",
        "",
    ]
    lines += ["## By basis", "", *by(results, ["basis"]), ""]
    lines += [f"- {basis}: {text}" for basis, text in aims(results).items()]
    lines += ["", "## By model", "", *by(results, ["basis", "model"])]
    lines += ["", "## By kind", "", *by(results, ["basis", "kind"])]
    lines += ["", "## By ratio", "", *by(results, ["basis", "p"])]
    lines += ["", "## By place", "", *by(results, ["basis", "model", "place", "kind"]), ""]
    lines += [beaten(results, ["basis", "model", "place", "kind"]), ""]
    missed = {name: count for r in results for name, count in r.fallbacks.items()}
    lines += [MISSES]
    lines.append(f"Operations passed by the stated fallback: {missed or 'none'}.")
    return "\n".join(lines) + "\n"
