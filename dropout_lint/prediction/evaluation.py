"""What one operation makes of the states that it reads: as a dropout, by its rule, or run on samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import fx

from dropout_lint.graph.operations import Kind, name_of, named
from dropout_lint.prediction.abreast import Apart, Each, OfOne, abreast, everywhere
from dropout_lint.prediction.ops import Call, Ledger, find_function
from dropout_lint.prediction.ops.base import (
    RAISE,
    NoRule,
    Transfer,
    takes_several,
    transfer_of,
)
from dropout_lint.prediction.ops.dropout import drop, without_layer
from dropout_lint.prediction.ops.filters import note_filter
from dropout_lint.prediction.ops.indices import code
from dropout_lint.prediction.ops.one_tensor import as_one_function
from dropout_lint.prediction.ops.sampled import by_samples
from dropout_lint.prediction.ops.samples import Unrunnable
from dropout_lint.prediction.ops.together import is_complex, reads_complex
from dropout_lint.prediction.state import State, constant
from dropout_lint.trace.draws import is_random
from dropout_lint.trace.traced import DropoutSite, given_for

MOST_DROPPED_BEFORE = 0.05
"""Least part of a variance that the same draw has caused before, and no weights have turned about since, of
which a second mask of that draw is not independent.
"""


def worked_out(call: Call) -> Any:
    """What the operation makes of its arguments, for all trainings: at once where it takes them abreast."""
    if not call.ledger.singles:
        return _evaluate(call)
    if _takes_several(call):
        with suppress(Apart):
            return _evaluate(call)
    singles = call.ledger.singles
    taken = [one.results for one in singles if isinstance(one.results, OfOne)]
    return abreast([_evaluate(call.of(one)) for one in singles], taken)


def _takes_several(call: Call) -> bool:
    drops = call.node in call.ledger.sites or call.node in call.ledger.silent
    apart = any(isinstance(call.ledger.results.get(node), Each) for node in call.node.all_input_nodes)
    return not apart and (drops or takes_several(_transfer(call)))


def _transfer(call: Call) -> Transfer | None:
    """The rule of an operation; of a norm that the table does not have, that of its family."""
    node, norms = call.node, call.ledger.norms
    found = None if is_complex(node) or reads_complex(call) else transfer_of(call)
    if found is None and node in norms:
        return find_function("batch_norm" if "batch" in norms[node].spec.family else "layer_norm")
    return found


def _evaluate(call: Call) -> Any:
    """What the operation makes of its arguments' states."""
    node, ledger = call.node, call.ledger
    if node in ledger.sites:
        return _dropping(call, ledger.sites[node])
    if node in ledger.silent:
        return call.x
    note_filter(call)
    transfer = _transfer(call)
    if transfer is None:
        # a draw has no data in it; where it makes a mask, the product with it is the dropout
        return constant(0.0, len(ledger.dropouts)) if is_random(node) else _without_rule(call)
    try:
        whole = as_one_function(call)
        return transfer(call) if whole is None else whole
    except NoRule:
        return _without_rule(call)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        # a fault of the rule: it must not end a user's prediction, nor pass for a figure
        if os.environ.get(RAISE):
            raise
        return _without_rule(call)


def _dropping(call: Call, row: int) -> State:
    """What a dropout makes of its argument's state; its noise goes to `row`."""
    node, ledger, site = call.node, call.ledger, call.ledger.dropouts[row]
    x, spec = _dropped(call, site), site.spec.at(call.shape)
    ledger.at_dropout[node] = x
    if spec.noise.mask.of_calls:
        ledger.meet(row, "sample")
        _say(ledger.approximate, node, f"{_line(call)}{site.spec.kind}")
        return without_layer(x, call.state(call.args[1]), spec.p, row)
    over = spec.shared_over(x.axis, call.shape)
    if over is None:
        _say(
            ledger.unknown,
            node,
            f"{_line(call)}{call.name} (its mask is shared by samples, or by some positions)",
        )
    elif _dropped_before(row, x, ledger):
        _say(ledger.unknown, node, f"{_line(call)}{call.name} (its mask has dropped this before)")
    elif _moves_whole_batches(call, x):
        _say(ledger.unknown, node, f"{_line(call)}{call.name} (one mask for all samples)")
    ledger.meet(row, over or "element")
    return drop(x, spec, row, over or "element")


def _dropped_before(row: int, x: State, ledger: Ledger) -> bool:
    """Whether a mask by hand drops what an earlier mask of the same draws has dropped."""
    sources = set(ledger.dropouts[row].sources)
    if not sources:
        return False
    others = [
        r for r, site in enumerate(ledger.dropouts) if r != row and not sources.isdisjoint(site.sources)
    ]
    before = (x.noise * (1 - x.shared_by_channels))[..., others, :].sum(-2)
    return everywhere(x, before @ x.counts > MOST_DROPPED_BEFORE * (x.train_var @ x.counts))


def _moves_whole_batches(call: Call, x: State) -> bool:
    """Whether a dropout drops entries of a vector that all samples share, and that is not only multiplied:
    added, its noise moves the mean of a batch, which is no variance within it (`_within_batches`).
    """
    long = sum(size > 1 for size in call.shape)
    fixed = not x.t_var.any() and not x.var.any()
    scales = all(Kind.MULTIPLY in named(name_of(user)) for user in call.node.users)
    return long <= 1 and fixed and not scales


def _line(call: Call) -> str:
    place = call.node.meta.get("call")
    return f"{Path(place.file).name}:{place.line} " if place is not None else ""


def _dropped(call: Call, site: DropoutSite) -> State:
    """What a dropout drops: its input, of a mask that is written by hand the other factor."""
    if not site.operand:
        return call.x
    given = given_for(call.node.all_input_nodes[site.operand], call.node, call.args, call.kwargs)
    return call.x if given is None else call.state(given)


def _without_rule(call: Call) -> Any:
    """An operation without a rule is run on samples; where that fails, the noise behind it is unknown.

    Complex numbers are worked out where something else is made of them.
    """
    if call.ledger.singles:
        raise Apart
    ledger, states = call.ledger, call.states()
    if is_complex(call.node):
        return _passed(call, states)
    known = code(call)
    if known is not None:
        return known
    try:
        return by_samples(call)
    except Unrunnable as error:
        if call.node in ledger.noisy and not _is_clean(call):
            _say(ledger.unknown, call.node, f"{_line(call)}{call.name} ({error})")
        return _passed(call, states)


def _is_clean(call: Call) -> bool:
    """Whether all that a call reads was worked out and holds no noise: dropped values may be overwritten."""
    given = [call.ledger.results.get(node) for node in call.node.all_input_nodes]
    return bool(given) and all(isinstance(value, State) and not value.noise.any() for value in given)


def _say(said: dict[fx.Node, frozenset[str]], node: fx.Node, what: str) -> None:
    said[node] = said.get(node, frozenset()) | {what}


def _passed(call: Call, states: Sequence[State]) -> Any:
    """The moments of the loudest argument, in the result's shape."""
    if not states:
        rows = len(call.ledger.dropouts)
        return constant(0.0, rows) if not isinstance(call.value, (tuple, list)) else call.value
    x = max(states, key=lambda s: float(s.noise.sum())).collapse()
    shape = call.shape
    if shape and not (x.axis < len(shape) and shape[x.axis] == x.channels):
        axis = min(max(x.axis, 0), len(shape) - 1)
        x = x.on(axis, shape[axis])
    return tuple(x for _ in call.value) if isinstance(call.value, (tuple, list)) else x
