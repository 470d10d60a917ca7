"""Apply steps to a trace: a new graph on a copy of the model's module tree."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from dropout_lint.fixes.graph.dropmodules import class_name, copy_with, free_name, make
from dropout_lint.fixes.modules import Places, module_at
from dropout_lint.fixes.plan.steps import ERASING, Step
from dropout_lint.guard.wrappers import stood_for
from dropout_lint.trace.traced import DropoutSite, Trace


def share_tree(model: nn.Module) -> nn.Module:
    """A copy of the module tree that shares every parameter and buffer: cheap, and free to be rearranged."""
    memo: dict[int, nn.Module] = {}

    def twin(module: nn.Module) -> nn.Module:
        module = stood_for(module)
        known = memo.get(id(module))
        if known is not None:
            return known
        new = module.__class__.__new__(module.__class__)
        new.__dict__ = dict(module.__dict__)
        memo[id(module)] = new
        for kind in ("_parameters", "_buffers"):
            new.__dict__[kind] = dict(module.__dict__[kind])
        new.__dict__["_modules"] = {
            name: None if child is None else twin(child) for name, child in module._modules.items()
        }
        return new

    return twin(model)


def untrained_tree(model: nn.Module) -> nn.Module:
    """As `share_tree`, with running statistics that nothing has been averaged into."""
    new = share_tree(model)
    for module in new.modules():
        for name, fresh in (("running_mean", torch.zeros_like), ("running_var", torch.ones_like)):
            buffer = module._buffers.get(name)
            if buffer is not None:
                module._buffers[name] = fresh(buffer)
    return new


def own_tree(model: nn.Module) -> nn.Module:
    """A deep copy of the model, with nothing shared."""
    return copy.deepcopy(model)


class Rewriter:
    """One pass over a copy of a trace's graph and module tree.

    Args:
        trace: what is rewritten; neither its graph nor its model changes.
        tree: how the model is copied: `share_tree` to weigh a plan, `own_tree` for the result.
    """

    def __init__(self, trace: Trace, tree: Callable[[nn.Module], nn.Module] = share_tree) -> None:
        self.old = trace
        self.model = tree(trace.model)
        self.places = Places(self.model)
        self.graph, self.mapped = copy_graph(trace.graph)
        self.sites: dict[fx.Node, list[DropoutSite]] = {}
        for site in trace.dropouts:
            self.sites.setdefault(self.mapped[site.node], []).append(
                dataclasses.replace(site, node=self.mapped[site.node])
            )
        self.made: dict[tuple[object, ...], str] = {}
        self.origin: dict[fx.Node, fx.Node] = {new: old for old, new in self.mapped.items()}
        self.placed: set[fx.Node] = set()  # dropouts where the trace has none
        self.gone: set[fx.Node] = set()  # dropouts of the trace that were taken out

    def apply(self, steps: Sequence[Step]) -> Trace:
        """The rewritten trace; steps may be given in any order.

        Raises:
            ValueError: torch has no module for the noise of a functional dropout, or a user's dropout class
                hides its ratio.
        """
        for step in steps:
            if step.action in ("uout", "reduce", "repair"):
                self._exchange(step, steps)
        moves = [(step, self._erase(step.site)) for step in steps if step.action in ERASING]
        for step, site in moves:
            if step.action == "move":
                self._insert(step, site)
        self._retire()
        self.graph.lint()
        return self._trace()

    # steps

    def _exchange(self, step: Step, steps: Sequence[Step]) -> None:
        node = self.mapped[step.site.node]
        if step.site.inside:  # the ratio of an attention call, which `follow_mode` makes follow the mode
            self.sites[node] = [dataclasses.replace(site, active_in_eval=False) for site in self.sites[node]]
            return
        name = self._module(step, step.site, [other for other in steps if self._alike(step, other)])
        source = node.all_input_nodes[0]
        with self.graph.inserting_before(node):
            new = self.graph.call_module(name, (source,))
        new.meta = dict(node.meta)
        self._record(step.site, new, name)
        self.origin[new] = step.site.node
        self.sites.pop(node)
        node.replace_all_uses_with(new)
        self.graph.erase_node(node)
        self.mapped[step.site.node] = new

    def _erase(self, site: DropoutSite) -> DropoutSite:
        node = self.mapped[site.node]
        (current,) = self.sites.pop(node)
        node.replace_all_uses_with(node.all_input_nodes[0])
        self.graph.erase_node(node)
        self.gone.add(site.node)
        return current

    def _insert(self, step: Step, site: DropoutSite) -> None:
        if step.anchor is None:
            raise ValueError("a move needs an anchor")
        producer = self.mapped[step.anchor.producer]
        users = list(dict.fromkeys(self.mapped[user] for user in self._readers(step.anchor.users)))
        edges = [(user, self._edge(user, producer)) for user in users]
        source = edges[0][1]
        follows = site.active_in_train and not site.active_in_eval
        with self.graph.inserting_before(min(users)):
            if site.functional and not follows and "DL401" not in step.codes:  # stays as the user wrote it
                old = step.site.node
                data = old.all_input_nodes[0]
                new = self.graph.node_copy(old, lambda node: source if node is data else self.mapped[node])
                self.sites[new] = [dataclasses.replace(site, node=new)]
            else:
                name = self._module(step, site, [step])
                new = self.graph.call_module(name, (source,))
                self._record(site, new, name)
        for user, edge in edges:
            user.replace_input_with(edge, new)
        new.meta = {"value": source.meta.get("value"), "owner": site.owner}
        self.origin[new] = step.site.node
        self.placed.add(new)

    def _readers(self, users: Iterable[fx.Node]) -> Iterator[fx.Node]:
        """The nodes; what read a dropout stands for one that was taken out."""
        for user in users:
            if user in self.gone:
                yield from self._readers(user.users)
            else:
                yield user

    def _edge(self, user: fx.Node, producer: fx.Node) -> fx.Node:
        """The input of `user` that carries what `producer` made, maybe through a dropout that stays."""
        for node in user.all_input_nodes:
            back = node
            while back is not producer and back in self.sites and back.all_input_nodes:
                back = back.all_input_nodes[0]
            if back is producer:
                return node
        raise ValueError(f"{user.name} does not use {producer.name}")

    # modules

    def _alike(self, step: Step, other: Step) -> bool:
        """Whether two steps make the same module of the same module."""
        return (
            other.site.module == step.site.module
            and not other.site.functional
            and (other.action, other.value, other.kind) == (step.action, step.value, step.kind)
        )

    def _callers(self, module: nn.Module) -> list[fx.Node]:
        found = (
            self.graph.find_nodes(op="call_module", target=name, sort=False)
            for name in self.places.of(module)
        )
        return [node for nodes in found for node in nodes]

    def _module(self, step: Step, site: DropoutSite, alike: Sequence[Step]) -> str:
        """Qualified name of the module for a step: the old one, it exchanged, or a new one beside it."""
        old = None if site.module is None or site.functional else module_at(self.model, site.module)
        calm = not getattr(old, "inplace", False)
        if old is not None and site.module is not None and step.value is None and step.kind is None and calm:
            return site.module
        key = (site.module, step.action, step.value, step.kind)
        if old is not None and key in self.made:
            return self.made[key]
        if old is None or step.kind is not None:
            kind = step.kind or class_name(site.spec)
            if kind is None:
                raise ValueError(f"torch has no module for the noise of {site.spec.kind}")
            module = make(kind, site.spec.p if step.value is None else step.value, site.spec)
        else:
            module = copy_with(old, self.old.catalogue, step.value, inplace=False)
        nodes = {self.mapped[other.site.node] for other in alike}
        if old is not None and site.module is not None and all(node in nodes for node in self._callers(old)):
            name = site.module
        else:
            owner = module_at(self.model, site.owner)
            wish = site.module.rpartition(".")[2] if site.module else "dropout"
            free = free_name(owner, wish if wish.isidentifier() else "dropout")
            name = f"{site.owner}.{free}" if site.owner else free
        self.places.put(name, module)
        if old is not None:
            self.made[key] = name
        return name

    def _record(self, site: DropoutSite, new: fx.Node, name: str) -> None:
        spec = self.old.catalogue.dropout(module_at(self.model, name)) or site.spec
        self.sites[new] = [
            dataclasses.replace(
                site,
                node=new,
                name=site.name if site.functional else name,
                spec=spec,
                module=name,
                functional=False,
                active_in_train=True,
                active_in_eval=False,
            )
        ]

    def _retire(self) -> None:
        """Dropout modules that are called no more become `nn.Identity`, so that none is left unused."""
        for site in self.old.dropouts:
            if site.module is None or site.inside or site.functional:
                continue
            module = module_at(self.model, site.module)
            if self.old.catalogue.dropout(module) is not None and not self._callers(module):
                self.places.put(site.module, nn.Identity())

    def _trace(self) -> Trace:
        order = {node: position for position, node in enumerate(self.graph.nodes)}
        dropouts = sorted(
            (site for sites in self.sites.values() for site in sites), key=lambda site: order[site.node]
        )
        norms = [dataclasses.replace(site, node=self.mapped[site.node]) for site in self.old.norms]
        return dataclasses.replace(
            self.old, model=self.model, graph=self.graph, dropouts=tuple(dropouts), norms=tuple(norms)
        )


def plain_number(value: Any) -> Any:
    """A numpy scalar as Python's number: generated code has no name for numpy."""
    return value.item() if isinstance(value, np.generic) else value


def copy_graph(graph: fx.Graph) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """A copy of a graph, and where each node went."""
    new = fx.Graph(tracer_cls=getattr(graph, "_tracer_cls", None))
    mapped: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        copied = new.node_copy(node, mapped.__getitem__)
        copied.args = fx.node.map_aggregate(copied.args, plain_number)
        copied.kwargs = fx.node.map_aggregate(copied.kwargs, plain_number)
        mapped[node] = copied
    new._codegen = copy.deepcopy(graph._codegen)
    return new, mapped
