"""What is run together with an operation on samples, so that samples of its arguments go together."""

from __future__ import annotations

import math

from torch import fx

from dropout_lint.graph.operations import is_mutation
from dropout_lint.prediction.ops.base import Call, Parameter, function_name
from dropout_lint.prediction.ops.indices import sizes_of
from dropout_lint.prediction.ops.samples import Unrunnable
from dropout_lint.prediction.state import State
from dropout_lint.trace.draws import is_random
from dropout_lint.trace.traced import TensorInfo

DEEP = 40
"""How far back an in-place change is followed to the tensor that it changes."""
MOST_STEPS = 16
"""How many operations lead from one tensor to all arguments of another that they are run together with."""
FEW_VALUES = 32
"""Over more values than this a reduction is as good as independent of each."""
_REDUCES = frozenset(
    {"sum", "mean", "amax", "amin", "max", "min", "norm", "vector_norm", "std", "var", "logsumexp"}
)
FEW = 4
"""How far back an argument is followed to the other ones."""


def steps_before(call: Call) -> list[fx.Node]:
    """What is run before the operation, so that samples of its arguments go together: changes in place, and
    arguments that are functions of the other ones.
    """
    if call.name == "mutated":
        return _changes(call)
    if reads_complex(call):
        return _in_order(call, _complex(call))
    whole = over_few(call)
    if whole:
        return _in_order(call, whole)
    arguments, ledger = set(call.node.all_input_nodes), call.ledger
    found: set[fx.Node] = set()

    def leads(node: fx.Node, others: set[fx.Node], left: int, on_way: set[fx.Node]) -> bool:
        if node in others or node.op == "get_attr":
            return True
        drawn = node in ledger.at_dropout or is_random(node)
        if left <= 0 or drawn or node.op not in ("call_function", "call_method") or not node.all_input_nodes:
            return False
        on_way.add(node)
        return all(leads(source, others, left - 1, on_way) for source in node.all_input_nodes)

    for node in call.node.all_input_nodes:
        on_way: set[fx.Node] = set()
        others = arguments.difference({node}, found)
        if sizes_of(node) and any(sizes_of(other) for other in others) and leads(node, others, FEW, on_way):
            found |= on_way
    return _in_order(call, found)


def is_complex(node: fx.Node) -> bool:
    """Whether a node is a tensor of complex numbers."""
    info = node.meta.get("value")
    return isinstance(info, TensorInfo) and info.dtype.is_complex


def reads_complex(call: Call) -> bool:
    """Whether a call makes something else of complex numbers."""
    return not is_complex(call.node) and any(is_complex(node) for node in call.node.all_input_nodes)


def _complex(call: Call) -> set[fx.Node]:
    """All that was done from real numbers to the complex ones that a call reads."""
    pending, found = [node for node in call.node.all_input_nodes if is_complex(node)], set[fx.Node]()
    while pending:
        node = pending.pop()
        if node in found or isinstance(call.ledger.results.get(node), Parameter):
            continue
        if (
            node in call.ledger.at_dropout
            or is_random(node)
            or node.op not in ("call_function", "call_method")
        ):
            raise Unrunnable("noise in complex numbers")
        found.add(node)
        pending += [n for n in node.all_input_nodes if is_complex(n) or is_mutation(node)]
    return found


def over_few(call: Call) -> set[fx.Node]:
    """What was done from one tensor to all that a call reads, if something on the way reduces a few of its
    values: x / x.norm(), softmax(x)·x. What is left is no product of independent tensors. Else nothing.
    """
    ledger, found = call.ledger, set[fx.Node]()
    left = {node for node in call.node.all_input_nodes if isinstance(ledger.results.get(node), State)}
    if len(left) < 2:
        return set()
    while len(left) > 1:
        latest = max(left, key=ledger.order.__getitem__)
        noise = latest in ledger.at_dropout or is_random(latest) or latest in ledger.measured
        if noise or len(found) == MOST_STEPS or latest.op not in ("call_function", "call_method"):
            return set()
        found.add(latest)
        more = {node: ledger.results.get(node) for node in latest.all_input_nodes}
        if any(sizes_of(node) and not isinstance(value, (State, Parameter)) for node, value in more.items()):
            return set()
        left = (left - {latest}) | {n for n, value in more.items() if isinstance(value, (State, tuple))}
    whole = all(isinstance(ledger.results[root], State) for root in left)
    return found if whole and any(_reduces_few(node) for node in found) else set()


def _reduces_few(node: fx.Node) -> bool:
    """Whether a node takes together a few values of a tensor."""
    if function_name(node.target) == "softmax":
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else -1)
        return isinstance(dim, int) and bool(sizes_of(node)) and sizes_of(node)[dim] <= FEW_VALUES
    before = next((math.prod(size) for n in node.all_input_nodes if (size := sizes_of(n))), 0)
    after = sizes_of(node) or sizes_of(next(iter(node.users), node))  # of `max`, the values
    return (
        function_name(node.target) in _REDUCES and bool(after) and 1 < before / math.prod(after) <= FEW_VALUES
    )


def _in_order(call: Call, nodes: set[fx.Node]) -> list[fx.Node]:
    return sorted(nodes, key=call.ledger.order.__getitem__)


def _changes(call: Call) -> list[fx.Node]:
    """The nodes that change a tensor in place, and the views through which they do."""
    root, pending = call.node.all_input_nodes[0], list(call.node.all_input_nodes[1:])
    found: set[fx.Node] = set()

    def from_root(node: fx.Node, left: int) -> bool:
        if node is root:
            return True
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        if left <= 0 or source is None or not from_root(source, left - 1):
            return False
        found.add(node)
        return True

    for change in pending:
        if not from_root(change, DEEP):
            raise Unrunnable("a change whose way to the tensor is not seen")
    return _in_order(call, found)
