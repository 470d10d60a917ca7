"""Whether removing the dropout with the largest share raises a norm's measured Δ the most.

Δ is measured by a train-mode pass with fixed weights, whose statistics are then frozen, and a test-mode pass:
once with all dropouts and once without each. Every dropout draws its masks by a seed of its own, so that all
removals see the same masks of the dropouts that remain, and differences between removals are paired over the
seeds.
"""

from __future__ import annotations

import copy
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from prediction_measured import Case, measure, prepared
from prediction_networks import data_of, models
from torch import nn

from dropout_lint.noise import predict
from dropout_lint.target.types import Inputs
from dropout_lint.trace import trace
from dropout_lint.trace.types import DropoutSite

ROWS = 512
SEEDS = 5
RATIO = 0.3
NETWORKS = (
    "preresnet20",
    "bottleneck",
    "resnetv1_20",
    "densenet_bc40",
    "wrn16_4",
    "resnext11",
    "vgg_bn",
    "mlp_bn",
    "tdnn",
)


@dataclass(frozen=True)
class Verdict:
    """One norm behind two dropouts or more.

    Attributes:
        shares: dropout → predicted share.
        raised: dropout → by how much its removal raises measured Δ, mean over the seeds.
        predicted: the dropout with the largest share.
        best: the one whose removal raises Δ the most.
        loss: what removing `best` raises Δ by more than removing `predicted` does.
        error: standard error of `loss` over the seeds.
    """

    case: Case
    state: str
    norm: str
    shares: dict[str, float]
    raised: dict[str, float]
    predicted: str
    best: str
    loss: float
    error: float

    @property
    def wrong(self) -> bool:
        """Another removal is better by two standard errors or more."""
        return self.predicted != self.best and self.loss >= 2 * self.error

    @property
    def apart(self) -> bool:
        """The two largest predicted shares differ by more than a tenth of the largest."""
        first, second = sorted(self.shares.values(), reverse=True)[:2]
        return second < 0.9 * first


def settings(names: Sequence[str] | None) -> list[tuple[Case, str]]:
    """The settings that are looked at, untrained and trained: all places of these networks at one ratio."""
    table = models()
    return [
        (Case(name, place, "Dropout", RATIO), state)
        for name in (NETWORKS if names is None else names)
        for place in table[name].places
        for state in ("fresh", "trained")
    ]


def holder(net: nn.Module, site: DropoutSite) -> nn.Module:
    """The module that holds a dropout's ratio: itself, or for a function the one that calls it."""
    return net.get_submodule(site.owner if site.module is None else site.module)


def without(net: nn.Module, site: DropoutSite) -> nn.Module:
    """A copy of the network in which this dropout drops nothing."""
    copied = copy.deepcopy(net)
    setattr(holder(copied, site), "drop_rate" if site.module is None else "p", 0.0)
    return copied


def seeded(net: nn.Module, sites: Sequence[DropoutSite], seed: int) -> None:
    """Let every dropout draw its masks by its own row of seeds, whatever the others draw."""
    for row, site in enumerate(sites):
        calls = iter(range(seed * 1_000_000 + row * 1000, seed * 1_000_000 + (row + 1) * 1000))

        def draw(_module: nn.Module, _inputs: object, calls: Iterator[int] = calls) -> None:
            torch.manual_seed(next(calls))

        holder(net, site).register_forward_pre_hook(draw)


def shift(net: nn.Module, case: Case, sites: Sequence[DropoutSite], seed: int) -> dict[str, float]:
    """Measured Δ at every norm with the masks of one seed."""
    net = copy.deepcopy(net)
    seeded(net, sites, seed)
    return measure(net, data_of(case.model)[0][:ROWS], False, 1)


def shifts(
    net: nn.Module,
    setting: tuple[Case, str],
    sites: Sequence[DropoutSite],
    tried: Sequence[str],
    cache: Path | None,
) -> dict[str, list[dict[str, float]]]:
    """Dropout → measured Δ at every norm without it, for each seed; "" with all. The cache keeps them."""
    case, state = setting
    file = cache / f"{case.key}-{state}.shares-{ROWS}-{SEEDS}.json" if cache else None
    known: dict[str, list[dict[str, float]]] = json.loads(file.read_text()) if file and file.exists() else {}
    named = {site.name: site for site in sites}
    for name in ("", *tried):
        if name not in known:
            changed = without(net, named[name]) if name else net
            known[name] = [shift(changed, case, sites, seed) for seed in range(SEEDS)]
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(known))
        part.replace(file)  # whole, or not there
    return known


def verdicts(setting: tuple[Case, str], cache: Path | None = None, passes: int = 4) -> list[Verdict]:
    """One for each norm of a setting behind two dropouts or more."""
    case, state = setting
    net, _ = prepared(case, state, cache, passes)
    traced = trace(net, Inputs((data_of(case.model)[0][:4],)))
    prediction = predict(traced, basis="checkpoint" if state == "trained" else "weights")
    shares = {s.norm: dict(s.shares) for s in prediction.norms if len(s.shares) > 1}
    sites = list({site.name: site for site in traced.dropouts if site.spec.is_noisy}.values())
    tried = [site.name for site in sites if any(site.name in parts for parts in shares.values())]
    if not tried:
        return []
    known = shifts(net, setting, sites, tried, cache)
    raised = {
        name: [{n: s[n] - w[n] for n in s} for s, w in zip(known[name], known[""], strict=True)]
        for name in tried
    }
    found = []
    for norm, parts in shares.items():
        means = {name: statistics.fmean(run[norm] for run in raised[name]) for name in tried}
        predicted, best = max(parts, key=parts.__getitem__), max(means, key=means.__getitem__)
        gaps = [b[norm] - a[norm] for a, b in zip(raised[predicted], raised[best], strict=True)]
        error = statistics.stdev(gaps) / math.sqrt(SEEDS)
        found.append(Verdict(case, state, norm, parts, means, predicted, best, statistics.fmean(gaps), error))
    return found


def row(label: str, found: Sequence[Verdict]) -> str:
    """A row of the table."""
    strict = sum(v.predicted == v.best for v in found)
    wrong = sum(v.wrong for v in found)
    loss = statistics.fmean(v.loss for v in found)
    most = statistics.fmean(v.raised[v.best] for v in found)
    return (
        f"| {label} | {len(found)} | {strict} ({strict / len(found):.1%}) "
        f"| {len(found) - wrong} ({1 - wrong / len(found):.1%}) | {wrong} | {loss:.4f} | {most:.3f} |"
    )


def miss(v: Verdict) -> str:
    """One clear miss."""

    def told(name: str) -> str:
        return f"{name} share {v.shares.get(name, 0.0):.3f}, raises {v.raised[name]:+.4f}"

    return (
        f"- {v.case.model} {v.case.place}, {v.state}, `{v.norm}`: predicted {told(v.predicted)}; "
        f"measured {told(v.best)}; difference {v.loss:.4f} ± {v.error:.4f}"
    )


def section(found: Sequence[Verdict]) -> str:
    """The page's section."""
    lines = ["## Shares", ""]
    lines.append(
        f"Dropout, p = {RATIO}, every norm behind two dropouts or more: each dropout that has a share at one "
        "of these norms is removed in turn, and what that raises measured Δ by (a train-mode pass with fixed "
        f"weights over {ROWS} digits, then a test-mode pass) is compared over {SEEDS} seeds, the same masks "
        "for all removals. *largest*: removing the dropout with the largest share raises Δ the most. *not "
        "clearly wrong*: no other removal is better by two standard errors or more. *loss*: what the best "
        "removal raises Δ by more than the predicted one, mean over norms; *raise*: what the best one raises "
        "it by. WRN's dropout is a function: the ratio that its block reads is set to 0. The three large "
        "networks are left out for the time they take. "
        "Untrained networks are predicted from weights, trained ones from the checkpoint."
    )
    head = "| | norms | largest | not clearly wrong | clearly wrong | loss | raise |"
    lines += ["", head, "|" + "---|" * 7, row("all", found)]
    for state in dict.fromkeys(v.state for v in found):
        lines.append(row(state, [v for v in found if v.state == state]))
    groups = {
        "two largest shares > 10 % apart": [v for v in found if v.apart],
        "two largest shares within 10 %": [v for v in found if not v.apart],
    }
    lines += [row(label, group) for label, group in groups.items() if group]
    for name in dict.fromkeys(v.case.model for v in found):
        for state in ("fresh", "trained"):
            group = [v for v in found if v.case.model == name and v.state == state]
            lines += [row(f"{name}, {state}", group)] if group else []
    lines += ["", "Aim: *largest* at 95 %. The clear misses, largest loss first (at most 20):", ""]
    misses = sorted((v for v in found if v.wrong), key=lambda v: -v.loss)
    lines += [miss(v) for v in misses[:20]] or ["none"]
    return "\n".join(lines)
