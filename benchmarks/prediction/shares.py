"""Whether removing the dropout with the largest share raises a trained norm's measured Δ the most.

Δ is measured by train-mode passes with fixed weights, whose statistics are then frozen, and a test-mode pass:
once with all dropouts and once without each. Every layer draws its masks by a seed of its own, so that all
removals see the same masks of the dropouts that remain, and differences between removals are paired over the
seeds.
"""

from __future__ import annotations

import copy
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .judged import Judged
from .kinds import KINDS
from .settings import Data, Setting
from .truth import known, prepare, ratios

ROWS = 256
SEEDS = 3
FILE = "removals.json"
RATIO_NAMES = ("p", "beta", "alpha", "drop_prob", "drop_rate", "dropout")


@dataclass(frozen=True)
class Verdict:
    """One norm behind two dropouts or more.

    Attributes:
        shares: dropout → predicted share.
        raised: dropout → by how much its removal raises measured Δ, mean over the seeds.
    """

    key: str
    norm: str
    shares: Mapping[str, float]
    raised: Mapping[str, float]

    @property
    def predicted(self) -> str:
        """The dropout with the largest share."""
        return max(self.shares, key=self.shares.__getitem__)

    @property
    def best(self) -> str:
        """The one whose removal raises Δ the most."""
        return max(self.raised, key=self.raised.__getitem__)

    @property
    def loss(self) -> float:
        """What removing `best` raises Δ by more than removing `predicted` does."""
        return self.raised[self.best] - self.raised[self.predicted]

    @property
    def apart(self) -> bool:
        """The two largest predicted shares differ by more than a tenth of the largest."""
        first, second = sorted(self.shares.values(), reverse=True)[:2]
        return second < 0.9 * first


def looked_at(settings: Iterable[Setting]) -> list[Setting]:
    """One setting of each network: the second, which has a middling ratio."""
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        groups.setdefault(setting.network.name, []).append(setting)
    return [group[min(1, len(group) - 1)] for group in groups.values()]


def drawing(model: nn.Module) -> list[str]:
    """Modules that draw masks, by qualified name: dropouts, and layers with a dropout of their own."""
    kinds = (nn.modules.dropout._DropoutNd, *KINDS.values())
    return [
        name
        for name, m in model.named_modules()
        if isinstance(m, kinds)
        or type(m).__name__ in ("DropPath", "StochasticDepth")
        or (isinstance(m, (nn.RNNBase, nn.MultiheadAttention)) and m.dropout)
        or getattr(m, "drop_rate", 0)
    ]


def without(model: nn.Module, name: str) -> nn.Module:
    """A copy of the network in which this module drops nothing."""
    copied = copy.deepcopy(model)
    module: Any = copied.get_submodule(name)
    for ratio in RATIO_NAMES:
        if isinstance(getattr(module, ratio, None), float):
            setattr(module, ratio, 0.0)
    return copied


def seeded(model: nn.Module, names: Sequence[str], seed: int) -> nn.Module:
    """A copy in which each of these modules draws by its own row of seeds, whatever the others draw."""
    copied = copy.deepcopy(model)
    for row, name in enumerate(names):
        calls = iter(range(seed * 1_000_000 + row * 1000, seed * 1_000_000 + (row + 1) * 1000))

        def draw(_module: nn.Module, _inputs: object, calls: Any = calls) -> None:
            torch.manual_seed(next(calls))

        copied.get_submodule(name).register_forward_pre_hook(draw)
    return copied


def removals(setting: Setting, cache: Path) -> dict[str, list[dict[str, float]]]:
    """Dropout → Δ at every norm without it, for each seed; "" with all. The cache keeps them."""
    folder = prepare(setting, cache)
    file = folder / FILE
    if file.exists():
        found: dict[str, list[dict[str, float]]] = json.loads(file.read_text(encoding="utf-8"))
        return found
    torch.set_num_threads(1)
    _, trained, _, _ = known(setting, folder)
    data = setting.network.data()
    if not data.whole:
        data = Data(tuple(x[:ROWS] for x in data.inputs), data.labels[:ROWS])
    names = drawing(trained)
    found = {}
    for name in ("", *names):
        changed = without(trained, name) if name else trained
        found[name] = [ratios(seeded(changed, names, seed), data, 1) for seed in range(SEEDS)]
    part = file.with_suffix(".part")
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(file)  # whole, or not there
    return found


def verdicts(setting: Setting, rows: Sequence[Judged], cache: Path) -> list[Verdict]:
    """One for each norm of a setting behind two dropouts or more, from its rows of basis `checkpoint`."""
    mine = [
        row for row in rows if row.key == setting.key and row.basis == "checkpoint" and len(row.shares) > 1
    ]
    if not mine:
        return []
    known_to = removals(setting, cache)
    found = []
    for row in mine:
        raised = {
            name: statistics.fmean(
                one[row.norm] - every[row.norm] for one, every in zip(without_it, known_to[""], strict=True)
            )
            for name, without_it in known_to.items()
            if name
        }
        if set(row.shares) <= set(raised):  # a function's share is named after its line, not its module
            found.append(Verdict(row.key, row.norm, row.shares, raised))
    return found
