"""Recordings with real tensors: what a model reads is plausible, and few are made of a big one."""

from __future__ import annotations

import contextlib
import gc

import pytest
import torch
from torch import nn

from dropout_lint.errors import TraceError
from dropout_lint.inputs.example import Inputs
from dropout_lint.trace import trace

SEEN: list[float] = []


class Reads(nn.Module):
    """It reads values, of more weights than there are different numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.deep = nn.Linear(512, 3000, bias=False), nn.Linear(3000, 512, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.wide, self.deep):
            x = layer(x)
            SEEN.append(x.std().item())
        SEEN.append(torch.corrcoef(self.wide.weight).triu(1).abs().amax().item())
        return x


def test_signals_keep_their_size_and_no_two_rows_are_alike() -> None:
    with torch.device("meta"):
        model = Reads()
    assert trace(model, Inputs((torch.randn(64, 512),))).method == "cpu"
    wide, deep, alike = SEEN[-3:]
    assert wide == pytest.approx(1, abs=0.1)
    assert deep == pytest.approx(1, abs=0.1)
    assert alike < 0.5


TRIED: list[tuple[int, ...]] = []


class Refuses(nn.Module):
    """It takes no guess, and tells of each that came with real tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with contextlib.suppress(Exception):
            self.fc.weight.sum().item()
            TRIED.append(tuple(int(size) for size in x.shape))
        raise ValueError("not these")


@pytest.mark.parametrize(("made", "tries"), [(1, 1), (3 * 72, 3), (10**9, None)])
def test_real_tensors_are_made_for_the_best_guesses_alone(
    made: int, tries: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dropout_lint.trace.chain.REAL_GUESSES", made)
    TRIED.clear()
    with pytest.raises(TraceError, match="not these"):
        trace(Refuses())
    shapes = list(dict.fromkeys(TRIED))
    assert shapes[0] == (2, 8)
    assert len(shapes) == tries if tries else len(shapes) > 3


class Big(Refuses):
    """A try costs 64 MB for its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(4000, 4000)


def test_a_try_that_failed_keeps_no_tensors() -> None:
    with torch.device("meta"):
        model = Big()
    kept: list[int] = []
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(TraceError):
            trace(model)
        kept = [
            id(held) for held in gc.get_objects() if type(held) is nn.Parameter and held.shape == (4000, 4000)
        ]
    finally:
        gc.enable()
    assert kept == [id(model.wide.weight)]
