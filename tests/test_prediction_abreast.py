"""Several trainings abreast: each comes out as it does alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from random_operations import ASIDE, CARRY, NOISE, WIDTH, Net
from torch import nn
from torch.nn import functional as F

from dropout_lint.inputs.example import Inputs
from dropout_lint.prediction.expected import STRONG, TYPICAL, WEAK, Trainings
from dropout_lint.prediction.ledger import walked
from dropout_lint.trace import Trace, trace
from fixtures import densenet, preresnet, resnetv1

EACH = (TYPICAL, WEAK, STRONG, None)
STEPS = [*CARRY, *CARRY, *NOISE, *ASIDE, "norm"]


def check(traced: Trace) -> int:
    """Compare a walk of all trainings with one of each; the number of norms."""
    singles = walked(traced, training=Trainings(EACH)).ledger.singles
    for training, one in zip(EACH, singles, strict=True):
        alone = walked(traced, training=training, shares=one is singles[0]).ledger
        assert one.shifts.keys() == alone.shifts.keys()
        for norm, (delta, causes) in alone.shifts.items():
            assert one.shifts[norm][0] == pytest.approx(delta, abs=1e-11, nan_ok=True)
            if one is singles[0]:
                np.testing.assert_allclose(one.shifts[norm][1], causes, rtol=1e-9, atol=1e-11)
    first = walked(traced, training=TYPICAL).ledger
    assert singles[0].unknown == first.unknown
    assert singles[0].fallbacks == first.fallbacks
    return len(singles[0].shifts)


@pytest.mark.parametrize("seed", range(1, 5))
def test_of_random_operations(seed):
    drawn = random.Random(seed)
    torch.manual_seed(seed)
    steps = ["dropout_module", *(drawn.choice(STEPS) for _ in range(drawn.randint(1, 7)))]
    assert check(trace(Net(steps), Inputs((torch.randn(16, WIDTH),))))


@pytest.mark.parametrize(
    "model",
    [
        preresnet.build(position="P4", depth=20),
        preresnet.build(position="P2", depth=20),
        resnetv1.build(position="P2"),
        densenet.build(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_of_whole_networks(model):
    assert check(trace(model, Inputs((torch.zeros(2, 3, 32, 32),)))) > 1


class Mixed(nn.Module):
    """Adds and joins what training changes and what it does not, under masks of whole samples."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (
            nn.Conv2d(c, c, 3, padding=1, groups=g) for c, g in ((4, 1), (8, 8), (8, 1))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))

    def forward(self, x):
        keep = torch.bernoulli(torch.full((len(x), 1, 1, 1), 0.7)) / 0.7
        y = F.relu(x + keep * self.one(x) + 1.0)
        y = self.norms[0](torch.cat([F.dropout2d(x, 0.3, self.training), y], 1))
        y = self.norms[1](self.two(F.dropout(F.silu(y), 0.2, self.training)))
        return self.norms[2](self.three(F.alpha_dropout(y, 0.2, self.training) * y.sigmoid()))


def test_of_what_training_changes_and_does_not():
    assert check(trace(Mixed(), Inputs((torch.zeros(2, 4, 8, 8),)))) == 3
