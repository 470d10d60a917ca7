"""What a forward pass leaves out: dropouts that nothing calls, and whole parts of a model that do not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from torch import fx, nn

from dropout_lint.guard.wrappers import bare, stood_for
from dropout_lint.inputs.example import Location
from dropout_lint.layers import Catalogue
from dropout_lint.trace.traced import UnusedDropout
from dropout_lint.words import count, listed


@dataclass(frozen=True)
class IdlePart:
    """A submodule with weights or statistics of which nothing runs, and no more than its parent does.

    Attributes:
        name: its qualified name.
        dropouts: how many dropouts it holds that would draw.
        norms: how many norms that remember what they saw in training.
    """

    name: str
    dropouts: int
    norms: int

    @property
    def held(self) -> str:
        """`10 norms and 40 dropouts`."""
        held = [(self.norms, "norm"), (self.dropouts, "dropout")]
        return listed([count(amount, what) for amount, what in held if amount])


def idle_parts(model: nn.Module, graph: fx.Graph, catalogue: Catalogue) -> list[IdlePart]:
    """The outermost parts that hold a norm or a dropout, and of which the graph has nothing.

    A dropout alone is no part, nor is what wraps it: without weights there is nothing to run but the dropout.
    """
    return list(_idle(model, "", _running(model, graph), catalogue))


def unused_dropouts(
    model: nn.Module,
    catalogue: Catalogue,
    called: Sequence[str],
    idle: Sequence[IdlePart],
    places: Mapping[str, Location],
) -> Iterator[UnusedDropout]:
    """Dropouts that are never called, outside of `idle`.

    Args:
        called: names of the dropouts that are.
        places: the line that constructed a module, by its name.
    """
    seen = {id(stood_for(model.get_submodule(name))) for name in called}
    seen |= {id(module) for part in idle for module in model.get_submodule(part.name).modules()}
    for name, module in model.named_modules():
        spec = catalogue.dropout(module)
        if spec is not None and name and id(module) not in seen:
            seen.add(id(module))
            yield UnusedDropout(bare(name), spec, places.get(name))


def _running(model: nn.Module, graph: fx.Graph) -> set[int]:
    """Ids of the modules whose forward makes something, that are called, or whose tensors are read."""
    modules = dict(model.named_modules(remove_duplicate=False))
    running: set[int] = set()
    for node in graph.nodes:
        held = [str(node.target)] if node.op in ("call_module", "get_attr") else []
        for name in (node.meta.get("owner") or "", *held):
            paths = accumulate(name.split("."), lambda path, part: f"{path}.{part}")
            running.update(id(stood_for(modules[path])) for path in paths if path in modules)
    return running


def _idle(module: nn.Module, prefix: str, running: set[int], catalogue: Catalogue) -> Iterator[IdlePart]:
    for name, child in module.named_children():
        if id(stood_for(child)) in running:
            yield from _idle(child, f"{prefix}{name}.", running, catalogue)
        elif next(chain(child.parameters(), child.buffers()), None) is not None:
            specs = [catalogue.dropout(part) for part in child.modules()]
            norms = [catalogue.norm(part) for part in child.modules()]
            part = IdlePart(
                f"{prefix}{name}",
                sum(spec is not None and spec.is_noisy for spec in specs),
                sum(spec is not None and spec.shifts for spec in norms),
            )
            if part.dropouts or part.norms:
                yield part
