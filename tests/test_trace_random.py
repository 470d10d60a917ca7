"""Random networks of random operations: a norm whose input changes with the draw is never called harmless."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_operations import ASIDE, CARRY, NOISE, WIDTH, Net

from dropout_lint.inputs.example import Inputs
from dropout_lint.prediction.bases import predict
from dropout_lint.trace import trace

CANCELS = {"permuted"}
"""Noise that a later operation may take away again: a sort, or a mean over the rows."""
BY_CHANCE = {"python_scale", "python_branch", "value_of_a_draw", "branch_on_a_draw", "numpy_mask"}
"""Draws that become values in Python: what lies behind them is taken to depend on them."""
SOMETIMES = {"rrelu"}
"""Draws that change some values only, negative ones, of which there may be none."""
SMALLER = {"mask_without_a_scale"}
"""Noise that makes the variance of train mode smaller, which other noise may take back to the digit."""
DRAWS = 6

noise = st.sampled_from(sorted(NOISE))
on = st.sampled_from(sorted(CARRY))
steps = st.lists(st.one_of(on, on, noise, st.sampled_from([*sorted(ASIDE), "norm"])), max_size=6)


def changing(net: Net, x: torch.Tensor) -> list[bool]:
    """For each norm, whether its input differs between draws in train mode."""
    inputs: list[list[torch.Tensor]] = [[] for _ in net.bns]
    hooks = [
        norm.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].clone()))
        for norm, seen in zip(net.bns, inputs, strict=True)
    ]
    with torch.no_grad():
        for seed in range(DRAWS):
            random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
            net.train()(x)
    for hook in hooks:
        hook.remove()
    return [any(not torch.equal(seen[0], other) for other in seen) for seen in inputs]


def check(names: list[str]) -> None:
    torch.manual_seed(0)
    net, x = Net(names), torch.randn(16, WIDTH)
    found = trace(net, Inputs((x,)))
    shifts = {shift.norm: shift for shift in predict(found).norms}
    cancels = bool(SMALLER.intersection(names)) and sum(name in NOISE for name in names) > 1
    cancels |= names.count("layer_norm") > 1  # each divides by its mode's own deviation: Δ is 1 to the digit
    exact = (BY_CHANCE | CANCELS | SOMETIMES).isdisjoint(names)
    for index, changes in enumerate(changing(net, x)):
        shift = shifts[f"bns.{index}"]
        known = shift.delta is not None and not math.isnan(shift.delta)
        harmless = known and abs(shift.delta - 1) < 1e-9
        # behind a layer that chance leaves out both ways may be as loud; Δ is said to be approximate
        cancels |= any("LayerDrop" in said for said in shift.approximate)
        assert known is not bool(shift.unknown)
        if changes:
            assert not harmless or cancels, f"{names}: bns.{index} changes, and is shown as harmless"
        elif exact:
            assert harmless, f"{names}: bns.{index} never changes, but is {shift}"


@pytest.mark.parametrize("way", sorted(CARRY))
def test_every_way_carries_the_noise_on(way: str) -> None:
    check(["linear", "dropout_module", way])


@pytest.mark.parametrize("kind", sorted(NOISE))
def test_every_kind_of_noise_is_seen(kind: str) -> None:
    check(["linear", kind, "norm", "linear", "activation"])


@pytest.mark.parametrize("aside", sorted(ASIDE))
def test_noise_that_goes_nowhere_is_none(aside: str) -> None:
    check(["linear", aside, "linear"])


@settings(max_examples=25)
@given(steps)
@example(["norm", "through_a_buffer", "dropout_module", "norm"])
@example(["overwritten", "sparse_product"])
@example(["mapped", "numpy_mask"])
@example(["linear", "shape_of_noise", "distribution"])
@example(["overwritten", "mapped"])
@example(["distribution", "mask_without_a_scale"])
def test_a_norm_that_noise_reaches_is_never_harmless(names: list[str]) -> None:
    check(names)


@pytest.mark.slow
@settings(max_examples=1500)
@given(st.lists(st.one_of(on, on, noise, st.sampled_from([*sorted(ASIDE), "norm"])), max_size=10))
def test_the_long_sweep(names: list[str]) -> None:
    check(names)
