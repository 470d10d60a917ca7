"""Operations that have no rule: the operation itself is run, on samples that have the states' moments.

A tensor is drawn once as test mode shows it, and twice in train mode over the same data, with masks and older
noise drawn apart. With y, y' the two results of train mode, Cov(y, y') is the data's part; where in y' the
noise of one source alone is that of y, Cov(y, y') less the data's part is what this source causes
(first-order index of Sobol' 1993). Samples are normal within a component of the mask, and independent of one
another but for what all positions of a channel have in common: the result is approximate, and says so.

What depends on no data at all, such as `torch.eye(n)` or a table of indices, is worked out as it is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from dropout_lint.prediction.ops.base import Call, Parameter
from dropout_lint.prediction.ops.indices import followed_indices, sizes_of
from dropout_lint.prediction.ops.samples import (
    ALL,
    NONE,
    Sample,
    Unrunnable,
    draw,
    leaves,
    untrained,
)
from dropout_lint.prediction.ops.together import steps_before
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import State, constant, fresh
from dropout_lint.trace.traced import TensorInfo, function_of

MOST_ELEMENTS = 1 << 21
"""Largest tensor that an operation is run on."""
ELEMENTS = 1 << 19
"""Small tensors are drawn so many times that they have this many elements, but `MOST_RUNS` at most."""
MOST_RUNS = 128
MOST_SOURCES = 6
"""Above this number of dropouts, noise is shared out as it came in."""
SEED = 20


def constant_of(call: Call) -> Parameter | None:
    """The result of a call that depends on no data and no random draw, None where it depends on some; of a
    parameter without values that is given another form, that form.
    """
    if call.node.op not in ("call_function", "call_method") or not isinstance(call.value, TensorInfo):
        return None
    if math.prod(call.shape) > MOST_ELEMENTS:
        return None
    fill = _FILLS.get(call.name)
    if fill is not None and not (call.name == "new" and _has_values(call)):
        return Parameter(torch.full(call.shape, fill, dtype=call.value.dtype))
    sources, known = call.node.all_input_nodes, call.ledger.results
    if sources and call.name != "mutated" and all(isinstance(known.get(node), State) for node in sources):
        return None  # not all of them are functions of the others
    try:
        inner = steps_before(call)
        given = _arguments(call, inner)
    except Unrunnable:
        return None
    constant = all(_is_constant(value) for value in leaves(tuple(given.values())))
    return _run_once(call, inner, given) if constant else _reformed(call)


def _run_once(call: Call, inner: Sequence[fx.Node], given: Mapping[fx.Node, Any]) -> Parameter | None:
    """The result of a call of constants, None where it draws, or does not take them."""
    tensors = {n: v.tensor.detach() if isinstance(v, Parameter) else v for n, v in given.items()}
    before = torch.random.get_rng_state()
    try:
        with torch.no_grad():
            result = _runner(call, inner)(tensors, True)
    except Exception:  # what was given on the way is not what the operation takes
        return None
    finally:
        after = torch.random.get_rng_state()
        torch.random.set_rng_state(before)
    taken = isinstance(result, Tensor) and tuple(result.shape) == call.shape and torch.equal(before, after)
    return Parameter(result) if taken else None


_FILLS = {
    **dict.fromkeys(("empty", "empty_like", "new", "new_empty", "zeros_like", "new_zeros"), 0),
    **dict.fromkeys(("ones_like", "new_ones"), 1),
}


def _reformed(call: Call) -> Parameter | None:
    """A parameter without values in another form, None of other calls; tensors beside it give a size."""
    of = call.args[0] if call.args else None
    if not isinstance(of, Parameter) or of.known or call.name not in _FORMS:
        return None
    if call.name == "getitem" and any(isinstance(item, State) for item in leaves(call.args[1:])):
        return None

    def formed(tensor: Tensor) -> Tensor:
        given = {
            node: torch.empty(sizes_of(node), device=tensor.device) if sizes_of(node) else node.meta["value"]
            for node in call.node.all_input_nodes
        }
        given |= {call.node.all_input_nodes[0]: tensor}
        result: Tensor = _runner(call, ())(given, True)
        return result

    try:
        with torch.no_grad():
            return Parameter(formed(of.tensor), None if of.start is None else formed(of.start.detach()))
    except Exception:  # what was given on the way is not what the operation takes
        return None


_FORMS = frozenset(
    {
        *("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "unsqueeze", "squeeze"),
        *("expand", "expand_as", "broadcast_to", "permute", "transpose", "swapaxes", "movedim", "t"),
        *("contiguous", "clone", "detach", "to", "type_as", "float", "getitem", "getattr"),
    }
)
"""Operations that only give a tensor another form."""


def _has_values(call: Call) -> bool:
    """Whether `x.new` was given values, and not sizes."""
    return not all(isinstance(value, int) for value in call.args[1:])


def _is_constant(value: Any) -> bool:
    if isinstance(value, Parameter):
        return value.known
    return value is not None and not isinstance(value, (State, TensorInfo))


def _trusts_indices(call: Call) -> bool:
    """Whether it is a private operation, which whoever calls it gives indices that fit."""
    name = str(getattr(call.node.target, "__name__", call.node.target))
    infos = [node.meta.get("value") for node in call.node.all_input_nodes]
    kinds = [info.dtype for info in infos if isinstance(info, TensorInfo)]
    indices = not all(kind.is_floating_point or kind.is_complex for kind in kinds)
    return call.module is None and name.startswith("_") and indices


def sampled(call: Call) -> Any:
    """What the operation makes of samples of its arguments.

    Raises:
        Unrunnable: it is too large, or does not take the samples.
    """
    if _trusts_indices(call):
        raise Unrunnable("private, it may not check its indices")  # and end the process
    inner = steps_before(call)
    results = _arguments(call, inner)
    sizes = [math.prod(sizes_of(node)) for node in results if sizes_of(node)] + [math.prod(call.shape)]
    if max(sizes) > MOST_ELEMENTS:
        raise Unrunnable("too large")
    runs = max(1, min(ELEMENTS // max(*sizes, 1), MOST_RUNS))
    rows = sorted({int(r) for s in _states(results.values()) for r in np.flatnonzero(s.noise.any(1))})
    apart = rows if len(rows) <= MOST_SOURCES else []
    run = _runner(call, inner)
    indices = {node: followed_indices(node, call.ledger) for node in results if node not in inner}
    drawn: list[Sample | tuple[Sample, ...]] = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        spreads = {node: torch.randn(sizes_of(node)[s.axis]) for node, s in _placed(results)}
        try:
            for _ in range(runs):
                samples = {n: draw(n, v, spreads.get(n), apart, indices[n]) for n, v in results.items()}
                drawn.append(_results(run, samples, (ALL, NONE, *apart)))
        except Exception as error:  # any operation at all, on values that it may not be made for
            raise Unrunnable(f"{type(error).__name__}: {error}") from error
    return _read(call, drawn, list(_states(results.values())), apart)


def by_samples(call: Call) -> Any:
    """`sampled`, said to be approximate where noise comes to it.

    Raises:
        Unrunnable: as `sampled`.
    """
    result = sampled(call)
    if call.node in call.ledger.noisy:
        call.rough()
    return result


def _arguments(call: Call, inner: Sequence[fx.Node]) -> dict[fx.Node, Any]:
    """What was worked out for each node among the arguments, of the call or of what it does inside."""
    known = call.ledger.results
    steps = inner if call.name == "mutated" else (*inner, call.node)
    nodes = [n for step in steps for n in step.all_input_nodes if n not in inner]
    here = torch.device("cpu")
    return {n: here if _is_device(n) else known.get(n, n.meta.get("value")) for n in nodes}


def _is_device(node: fx.Node) -> bool:
    """Whether a node reads where a tensor is."""
    return node.op == "call_function" and node.target is getattr and node.args[1:2] == ("device",)


def _states(values: Iterable[Any]) -> Iterable[State]:
    for value in leaves(tuple(values)):
        if isinstance(value, State):
            yield value


def _placed(results: Mapping[fx.Node, Any]) -> Iterable[tuple[fx.Node, State]]:
    for node, value in results.items():
        if isinstance(value, State) and value.axis < len(sizes_of(node)):
            yield node, value


def _runner(call: Call, inner: Sequence[fx.Node]) -> Callable[[Mapping[fx.Node, Any], bool], Any]:
    """The operation, given its arguments by node and whether in train mode."""
    if call.module is not None:
        modules = {mode: _ready(call.module).train(mode) for mode in (True, False)}

    def operate(node: fx.Node, given: Mapping[fx.Node, Any], train: bool) -> Any:
        args = fx.map_arg(node.args, given.__getitem__)
        kwargs = dict(fx.map_arg(dict(node.kwargs), given.__getitem__))
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        if node.op == "call_module":
            return modules[train](*args, **kwargs)
        return function_of(node)(*args, **kwargs)

    def run(given: Mapping[fx.Node, Any], train: bool) -> Any:
        known = {node: v.clone() if isinstance(v, Tensor) else v for node, v in given.items()}
        for node in inner:
            known[node] = operate(node, known, train)
        if call.name == "mutated":
            return known[call.node.all_input_nodes[0]]
        return operate(call.node, known, train)

    return run


def _ready(module: nn.Module) -> nn.Module:
    """A copy that can be run, with untrained weights where it has none."""
    twin = copy.deepcopy(module)
    for holder in twin.modules():
        for name, tensor in holder._parameters.items():
            if tensor is not None and tensor.is_meta:
                vector = torch.full(tensor.shape, float(name == "weight"))  # scales and biases
                values = vector if tensor.dim() < 2 else untrained(tensor)
                holder._parameters[name] = nn.Parameter(values, requires_grad=False)
        for buffer in holder._buffers.values():
            if buffer is not None and buffer.is_meta:
                raise Unrunnable("a buffer without values")
    return twin


def _results(
    run: Callable[[Mapping[fx.Node, Any], bool], Any], samples: Mapping[fx.Node, Any], keys: Sequence[int]
) -> Any:
    """The operation's results in test mode and under each draw, as one `Sample` for each tensor of it."""

    def given(key: int | None) -> dict[fx.Node, Any]:
        return {
            n: (s.test if key is None else s.train[key]) if isinstance(s, Sample) else s
            for n, s in samples.items()
        }

    test = run(given(None), False)
    train = {key: run(given(key), True) for key in keys}
    if isinstance(test, Tensor):
        return Sample(test, train)
    if isinstance(test, (tuple, list)):
        return tuple(Sample(t, {key: train[key][i] for key in keys}) for i, t in enumerate(test))
    raise Unrunnable("it returns no tensor")


# --- reading ----------------------------------------------------------------------------------------------


def _read(call: Call, drawn: Sequence[Any], states: Sequence[State], apart: Sequence[int]) -> Any:
    value = call.value
    if isinstance(value, TensorInfo):
        return _moments(call, value, drawn, states, apart)
    if isinstance(value, (tuple, list)):
        return tuple(
            _moments(call, info, [one[i] for one in drawn], states, apart)
            if isinstance(info, TensorInfo)
            else info
            for i, info in enumerate(value)
        )
    raise Unrunnable("it returns no tensor")


def _moments(
    call: Call, info: TensorInfo, drawn: Sequence[Sample], states: Sequence[State], apart: Sequence[int]
) -> State:
    shape, rows = tuple(int(size) for size in info.shape), len(call.ledger.dropouts)
    parts = [part for sample in drawn for part in (sample.test, sample.train[ALL], sample.train[NONE])]
    if any(tuple(part.shape) != shape for part in parts):  # a size may depend on the values
        raise Unrunnable("the result has another shape")
    if drawn[0].test.is_complex():
        raise Unrunnable("its result is complex")
    if drawn[0].test.layout != torch.strided:
        raise Unrunnable("its result is sparse")
    if not drawn[0].test.numel():
        raise Unrunnable("its result is empty")
    loudest = max(
        states, key=lambda s: (float(s.noise.sum()), float(s.t_var.sum())), default=constant(0.0, rows)
    )
    axis = _channel_axis(loudest, shape)

    def by_channel(pick: Callable[[Sample], Tensor]) -> Tensor:
        """(C, M): all values of each channel."""
        whole = torch.stack([pick(sample) for sample in drawn]).double()
        return whole.movedim(axis + 1, 0).flatten(1) if shape else whole[None]

    test, one, two = (
        by_channel(p) for p in (lambda s: s.test, lambda s: s.train[ALL], lambda s: s.train[NONE])
    )
    if not all(bool(part.isfinite().all()) for part in (test, one, two)):
        raise Unrunnable("its results are not finite")
    count = test.shape[1]

    def covariance(a: Tensor, b: Tensor) -> float:
        product = (a - a.mean(1, keepdim=True)) * (b - b.mean(1, keepdim=True))
        return float(product.mean()) * count / max(count - 1, 1)

    def mean_and_spread(values: Tensor, variance: float) -> tuple[float, float]:
        means = values.mean(1)
        spread = float(means.var(correction=0)) - variance / count
        return float(means.mean()), math.sqrt(max(spread, 0.0))

    t_var, var = covariance(test, test), (covariance(one, one) + covariance(two, two)) / 2
    exact = torch.equal(one, two)
    data = var if exact else min(max(covariance(one, two), 0.0), var)
    t_mean, t_dev = mean_and_spread(test, t_var)
    mean, dev = mean_and_spread((one + two) / 2, var)
    came = sum((s.noise @ s.counts / s.counts.sum() for s in states), np.zeros(rows))
    noise = came.copy()

    def alone(row: int) -> Tensor:
        return by_channel(lambda s: s.train[row])

    for row in apart:
        noise[row] = max(covariance(one, alone(row)) - data, 0.0)
    if not noise.any():
        noise = came

    def shared(name: str) -> Array:
        parts = [(s.noise * getattr(s, name)) @ s.counts / s.counts.sum() for s in states]
        part = sum(parts, np.zeros(rows))
        return np.divide(part, came, out=np.zeros(rows), where=came > 0)[:, None]

    like = loudest.merged()
    channels = shape[axis] if shape else 1
    y = fresh(rows, axis=axis, channels=channels, mean=t_mean, var=t_var, dev=t_dev, rho=like.rho)
    return replace(
        y,
        mean=np.array([[mean]]),
        dev=np.array([[dev]]),
        sig=np.array([[math.sqrt(data)]]),
        var=np.array([[var]]),
        data=np.array([data]),
        noise=noise[:, None],
        shared_by_positions=shared("shared_by_positions"),
        shared_by_channels=shared("shared_by_channels"),
        data_correlation=like.data_correlation,
        channel_correlation=like.channel_correlation,
    ).balanced()


def _channel_axis(s: State, shape: tuple[int, ...]) -> int:
    """Where the channels of `s` are in a result of `shape`: in their dimension, else in one of that size."""
    if s.axis < len(shape) and shape[s.axis] == s.channels:
        return s.axis
    alike = [axis for axis, size in enumerate(shape) if size == s.channels and s.channels > 1]
    return alike[-1] if alike else min(1, max(len(shape) - 1, 0))
