"""What is read off at a norm: Δ, each dropout's noise and share, Δ on the channels that a dropout feeds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import fx

from dropout_lint.prediction.ops import Call, Ledger
from dropout_lint.prediction.ops.base import RAISE
from dropout_lint.prediction.parts import quotient, replace
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.removal import Removal, follow
from dropout_lint.prediction.state import State

LEAST_CAUSE = 0.01
"""Least part of a dropout's noise that counts as its share, even where its removal would lower Δ."""


def record(call: Call, ledger: Ledger) -> None:
    """Note a norm's Δ, and the noise that each dropout makes there."""
    x = call.x
    ledger.noise_at[call.node] = noise = x.noise @ x.counts
    ledger.shifts[call.node] = (_within_batches(x, ledger).delta, noise)


def note_fed(call: Call) -> None:
    """Note what each dropout's own channels see at a norm."""
    call.ledger.fed[call.node] = _on_fed_channels(_within_batches(call.x, call.ledger))


def blame(call: Call, removals: Mapping[fx.Node, Any]) -> None:
    """Note how much the removal of each dropout would raise a norm's Δ, up to a common factor."""
    x, ledger = call.x, call.ledger
    delta, noise = ledger.shifts[call.node]
    removal = next((found for n in call.node.all_input_nodes if (found := removals.get(n))), None)
    if isinstance(removal, Removal) and removal.seen.state is x:
        least = LEAST_CAUSE * noise / max(float(x.counts @ x.train_var), 1e-300)
        raised = removal.raised if delta < 1 else noise
        causes = np.where(noise > 0, np.maximum(raised, least), 0.0)
        ledger.shifts[call.node] = (delta, causes)


def _within_batches(x: State, ledger: Ledger) -> State:
    """`x` as a norm sees it that normalises by the batch: a mask that whole batches share moves the mean of a
    batch, which is no variance within it.
    """
    rows = ledger.batch_wide
    if not rows:
        return x
    if x.components > 1 and x.source in rows:
        between = x.prob @ ((x.mean - x.train_mean) ** 2 + (x.dev - x.train_dev) ** 2)
    else:
        between = (x.sample_mask_slopes[rows] ** 2).sum(0)
    x = x.collapse()
    return replace(x, var=np.maximum(x.var - between, 0.0))


def _on_fed_channels(x: State) -> tuple[Array, Array]:
    """(S,) Δ on the channels that each dropout's noise reaches, and its share of the noise there.

    Beside a concat's other parts a dropout's own channels are few, whatever it does to them.
    """
    train = x.train_var
    reached = ((x.noise > LEAST_CAUSE * train) & (train > 0)) * x.counts
    total = reached @ train
    delta = quotient(reached @ x.t_var, total, 1.0)
    noise, all_noise = (reached * x.noise).sum(1), reached @ x.noise.sum(0)
    return delta, quotient(noise, all_noise)


def note_removals(call: Call, removals: dict[fx.Node, Any]) -> None:
    """Note what removals change at the result of a node, where several dropouts are to be told apart."""
    ledger = call.ledger
    if len(ledger.dropouts) <= 1 or not ledger.shifting:
        return
    try:
        removal = follow(call, ledger.results[call.node], removals, ledger.results)
    except (ArithmeticError, IndexError, TypeError, ValueError):  # as with a transfer function: Δ stands
        if os.environ.get(RAISE):
            raise
        ledger.rough(call.node, f"shares at {call.name}")
        return
    if removal:
        removals[call.node] = removal
