"""The last resorts: symbolic tracing with our leaves, and tracing the children where the root can't be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from torch import fx, nn

from dropout_lint.errors import DropoutLintError
from dropout_lint.guard.alone import LoneTracer, at_rest
from dropout_lint.inputs.example import Inputs
from dropout_lint.layers import Catalogue
from dropout_lint.trace.failure import OTHER_INPUTS, Failure, tried
from dropout_lint.trace.leaves import Leaves
from dropout_lint.trace.record import Recording
from dropout_lint.trace.staging import preserved
from dropout_lint.trace.traced import DropoutSite, NormSite, Opaque, Trace, UnusedDropout

_Site = TypeVar("_Site", DropoutSite, NormSite)


class _Tracer(LoneTracer):
    """`fx.Tracer` whose leaves are the recorder's."""

    def __init__(self, leaves: Leaves) -> None:
        super().__init__()
        self._leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self._leaves.is_leaf(m)


def trace_symbolically(
    model: nn.Module, catalogue: Catalogue, failures: Sequence[Failure] = ()
) -> Recording | None:
    """A graph without shapes, from symbolic tracing; None where the model branches on values or shapes.

    `failures` are the inputs that did not fit.
    """
    try:
        with preserved(model):
            model.train()
            with at_rest(model):
                graph = _Tracer(Leaves(model, catalogue)).trace(model)
    except Exception:
        return None
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        node.meta.setdefault("owner", next(reversed(stack), "") if node.op != "call_module" else "")
        node.meta.setdefault("call", None)
    note = (
        f"no input was found that fits{_and_tried(failures)}: traced without shapes, so that Δ is not known "
        f"behind a dropout; give one with --input, {OTHER_INPUTS}"
    )
    return Recording(graph, {}, {}, {}, frozenset(), True, (note,))


def trace_children(
    model: nn.Module, catalogue: Catalogue, trace: Callable[[nn.Module], Trace], failures: list[Failure]
) -> Trace | None:
    """The parts of `model` that can be traced on their own, side by side in one graph; None without any.

    What stands between the parts is not known: the trace is partial, and names what is opaque.
    """
    parts: list[tuple[str, Trace]] = []
    opaque = [Opaque(type(model).__name__, _reason(failures))]
    for name, child in _large_children(model):
        try:
            parts.append((name, trace(child)))
        except DropoutLintError as error:
            opaque.append(Opaque(name, error.message))
    if not any(part.dropouts or part.norms for _, part in parts):
        return None
    graph = fx.Graph()
    dropouts: list[DropoutSite] = []
    norms: list[NormSite] = []
    unused: list[UnusedDropout] = []
    results: list[Any] = []
    constants: dict[str, Any] = {}
    idle: list[Opaque] = []
    for name, part in parts:
        idle += [Opaque(_join(name, item.name), item.reason) for item in part.idle]
        result, sites = _splice(graph, name, part)
        results.append(result)
        dropouts += sites[0]
        norms += sites[1]
        unused += [UnusedDropout(f"{name}.{item.name}", item.spec, item.constructed) for item in part.unused]
        constants |= part.constants
    graph.output(tuple(results))
    return Trace(
        model=model,
        graph=graph,
        method="children",
        inputs=Inputs(guessed=True, origin="part by part"),
        dropouts=tuple(dropouts),
        norms=tuple(norms),
        unused=tuple(unused),
        opaque=tuple(opaque),
        idle=tuple(idle),
        constants=constants,
        exact=False,
        notes=(f"the whole could not be traced{_and_tried(failures)}: its parts were traced one by one",),
    )


def _large_children(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Children that call something; a list of modules has no forward of its own, so its items are taken."""
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from _large_children(child, f"{path}.")
        elif any(True for _ in child.children()):
            yield path, child


def _splice(graph: fx.Graph, name: str, part: Trace) -> tuple[Any, tuple[list[DropoutSite], list[NormSite]]]:
    """Copy `part` into `graph` with the part's name before every qualified name."""
    copied: dict[fx.Node, fx.Node] = {}
    result: Any = None
    for node in part.graph.nodes:
        if node.op == "output":
            result = fx.map_arg(node.args[0], lambda argument: copied[argument])
            continue
        copy = graph.node_copy(node, lambda argument: copied[argument])
        if node.op in ("call_module", "get_attr") and node.target not in part.constants:
            copy.target = f"{name}.{node.target}"
        copy.meta = {**node.meta, "owner": _join(name, node.meta.get("owner", ""))}
        copied[node] = copy
    dropouts = [_moved(site, name, copied) for site in part.dropouts]
    norms = [_moved(site, name, copied) for site in part.norms]
    return result, (dropouts, norms)


def _moved(site: _Site, name: str, copied: dict[fx.Node, fx.Node]) -> _Site:
    return dataclasses.replace(
        site,
        node=copied[site.node],
        name=_join(name, site.name),
        module=None if site.module is None else _join(name, site.module),
        owner=_join(name, site.owner),
    )


def _join(prefix: str, name: str) -> str:
    separator = "" if not name or name.startswith("@") else "."
    return f"{prefix}{separator}{name}"


def _and_tried(failures: Sequence[Failure]) -> str:
    guesses = tried(failures)
    return f" ({guesses})" if guesses else ""


def _reason(failures: list[Failure]) -> str:
    if not failures:
        return "no example input could be guessed"
    error = failures[0].error
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
