"""Where a dropout belongs by the guidelines: Kim et al. 2023, Guidelines 1 and 2, and plain chains.

Every function looks only at the graph. Candidates come best first; the planner takes the first one at which
the dropout is found by no rule any more.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import cast

from torch import fx, nn

from dropout_lint.fixes.modules import is_torch_forward, module_at
from dropout_lint.fixes.plan.steps import OWN_PLACE, Anchor
from dropout_lint.graph.ancestry import Ancestry, numel_of, returns_tensor
from dropout_lint.graph.operations import Kind
from dropout_lint.trace.traced import DropoutSite, shape_of, value_of


@dataclass(frozen=True)
class Branch:
    """One residual (or concatenated) branch: the nodes that only its side of `join` uses."""

    join: fx.Node
    end: fx.Node
    mask: int


def anchors_for(flow: Ancestry, site: DropoutSite, *, anywhere: bool = False) -> list[Anchor]:
    """Places for one dropout, best first, without duplicates; the one that `settles` comes last.

    Args:
        flow: the graph.
        site: the dropout.
        anywhere: those outside of the module whose author wrote the dropout as well.
    """
    found: list[Anchor] = []
    branches = [branch_with(flow, site.node), *branches_fed(flow, site)]
    for branch in branches:
        anchor = branch_anchor(flow, branch) if branch is not None else None
        if anchor is not None:
            found.append(anchor)
    found += tail_anchor(flow, site.node)
    home, fed = author(flow, site.node), _fed(flow, site.node)
    unique = [
        anchor
        for anchor in {anchor.key: anchor for anchor in found}.values()
        if anywhere
        or _within(flow, home, anchor)
        or (anchor.norm in fed and author(flow, anchor.producer) == home)
    ]
    own = own_anchor(flow, site.node)
    if own is None or author(flow, own.producer) != home:
        first = unique[0] if unique and unique[0].place == "P6" and fed else None
        return unique if first is None else [*unique, replace(first, settles=True)]
    known = next((anchor for anchor in unique if anchor.key == own.key), None)
    if known is None:
        guided = sum(anchor.place == "P6" for anchor in unique)
        unique.insert(guided if len(own.users) == 1 else len(unique), own)
    return [*unique, replace(known or own, settles=True)]


def _within(flow: Ancestry, home: str, anchor: Anchor) -> bool:
    """Whether a place is in a module's own forward: before an operation of it, or at its end.

    The end of a block that a network has several of is no place: only the last one would get the dropout.
    """
    if home in (author(flow, user) for user in anchor.users):
        return True
    if home != author(flow, anchor.producer):
        return False
    kind = type(module_at(flow.model, home))
    return sum(type(module) is kind for module in flow.model.modules()) == 1


def author(flow: Ancestry, node: fx.Node) -> str:
    """The module whose author wrote the call of a node: containers hold, and wrappers of a dropout pass on.

    A dropout never leaves it: what another module computes, a pretrained encoder say, is not its business.
    """
    owner = str(node.meta.get("owner") or "")
    if node.op == "placeholder":
        return owner
    if isinstance(module_at(flow.model, owner), fx.GraphModule):  # one forward for all modules below it
        owner = _callers(flow).get(node, owner)
    while owner and (owner in flow.wrappers or _only_runs(flow, module_at(flow.model, owner))):
        owner = owner.rpartition(".")[0]
    return owner


def _callers(flow: Ancestry) -> dict[fx.Node, str]:
    """The modules in whose forward the nodes of a `GraphModule` stood, by what feeds them; remembered.

    What several modules feed was computed where all of them were called.
    """
    if _callers not in flow.memory:
        found: dict[fx.Node, str] = {}
        for node in flow.nodes:
            names = [found[source].split(".") for source in flow.tensors(node) if source in found]
            if node.op == "call_module":
                found[node] = str(node.target).rpartition(".")[0]
            elif names:
                found[node] = ".".join(level[0] for level in takewhile(_alike, zip(*names, strict=False)))
        flow.memory[_callers] = found
    return cast("dict[fx.Node, str]", flow.memory[_callers])


def _alike(names: Collection[str]) -> bool:
    return len(set(names)) == 1


def _only_runs(flow: Ancestry, module: nn.Module) -> bool:
    """Whether a module is one of torch's containers, or holds a dropout and nothing else."""
    if is_torch_forward(module):
        return True
    children = [child for child in module._modules.values() if child is not None]
    dropouts = [child for child in children if flow.trace.catalogue.dropout(child) is not None]
    return bool(children) and len(dropouts) == len(children) and not module._parameters


def positions_of(flow: Ancestry, anchor: Anchor) -> int:
    """How many positions of one channel a pooling right behind a place averages, 1 where none does."""
    pooled = [user for user in anchor.users if flow.is_pool(user)]
    if len(pooled) < len(anchor.users):
        return 1
    return max(1, numel_of(anchor.producer) // max(1, min(numel_of(pool) for pool in pooled) or 1))


# residual branches


def split(flow: Ancestry, join: fx.Node) -> list[Branch]:
    """The sides of a join with what each has for itself; [] where they share no fork."""
    sides = flow.sides(join)
    shared = flow.activation_mask
    for side in sides:
        shared &= flow.masks[side]
    if not shared:
        return []
    return [
        Branch(
            join, side, flow.masks[side] & ~union(flow.masks[other] for other in sides if other is not side)
        )
        for side in sides
    ]


def sides_of(flow: Ancestry, join: fx.Node) -> list[Branch]:
    """`split`, remembered."""
    if join not in flow.memory:
        flow.memory[join] = split(flow, join)
    return cast("list[Branch]", flow.memory[join])


def union(masks: Iterable[int]) -> int:
    """Bitwise or of masks."""
    result = 0
    for mask in masks:
        result |= mask
    return result


def heavier(flow: Ancestry, branches: list[Branch]) -> Branch:
    """The side with the most weight layers: the residual branch; the others are skips."""
    return max(branches, key=lambda branch: (flow.weights_in(branch.mask), branch.mask.bit_count()))


def branch_with(flow: Ancestry, node: fx.Node) -> Branch | None:
    """The innermost branch that holds `node`; for a node on a skip that is added, the branch beside it.

    What is concatenated stays apart: noise of the one part is not that of the other.
    """
    bit = 1 << flow.index[node]
    for join in flow.joins:
        if not flow.reaches(node, join):
            continue
        branches = sides_of(flow, join)
        mine = next((branch for branch in branches if branch.mask & bit), None)
        if mine is None:
            continue
        if flow.weights_in(mine.mask):
            return mine
        best = heavier(flow, branches)
        return best if flow.weights_in(best.mask) and not flow.is_concat(join) else None
    return None


def branches_fed(flow: Ancestry, site: DropoutSite) -> list[Branch | None]:
    """Branches of the block whose input or output the dropout is on (P0), the dropout's own block first."""
    before = after = None
    for best, fork in residual_branches(flow):
        if best.mask >> flow.index[site.node] & 1:
            continue
        if flow.reaches(best.join, site.node):
            if _plain(flow, best.join, site.node):
                before = best
        elif after is None and _plain(flow, site.node, fork):
            after = best
    own = before is not None and author(flow, before.join) == author(flow, site.node)
    return [before, after] if own else [after, before]


def residual_branches(flow: Ancestry) -> list[tuple[Branch, fx.Node]]:
    """The residual branch of every add, with the node that its sides fork at; remembered."""
    if residual_branches not in flow.memory:
        best = [
            heavier(flow, branches)
            for join in flow.joins
            if not flow.is_concat(join) and (branches := sides_of(flow, join))
        ]
        flow.memory[residual_branches] = [
            (branch, fork_of(flow, branch.join)) for branch in best if flow.weights_in(branch.mask)
        ]
    return cast("list[tuple[Branch, fx.Node]]", flow.memory[residual_branches])


def fork_of(flow: Ancestry, join: fx.Node) -> fx.Node:
    """The last node that all sides of a join share."""
    shared = flow.activation_mask
    for side in flow.sides(join):
        shared &= flow.masks[side]
    return flow.nodes[shared.bit_length() - 1]


def _plain(flow: Ancestry, upper: fx.Node, lower: fx.Node) -> bool:
    """Whether one way leads from `upper` to `lower` that passes no weight layer, norm, pooling or join."""
    key = _plain, lower
    if key not in flow.memory:
        flow.memory[key] = frozenset(_plainly_above(flow, lower))
    return upper in cast("frozenset[fx.Node]", flow.memory[key])


def _plainly_above(flow: Ancestry, node: fx.Node | None) -> Iterator[fx.Node]:
    """A node, and those from which a plain way leads to it."""
    while node is not None:
        yield node
        if flow.is_weight(node) or flow.is_norm(node) or flow.is_pool(node) or len(flow.sides(node)) > 1:
            return
        node = flow.source(node)


def branch_anchor(flow: Ancestry, branch: Branch) -> Anchor | None:
    """After the branch's last norm and before its last weight layer, or its end where none follows."""
    node: fx.Node | None = branch.end
    norms = [norm for norm in flow.shifting if branch.mask >> flow.index[norm] & 1]
    while node is not None and branch.mask >> flow.index[node] & 1:
        if flow.is_norm(node) or flow.is_concat(node):
            return Anchor(skip_dropouts(flow, branch.end), (branch.join,), "the end of the branch", norm=node)
        if flow.is_weight(node):
            last = max(
                (norm for norm in norms if flow.reaches(norm, node)), key=flow.index.__getitem__, default=None
            )
            return before_weight(flow, node, "P6", last)
        tensors = flow.tensors(node)
        if not tensors:
            return None
        gated = flow.is_gate(node)
        node = max(tensors, key=numel_of) if gated else tensors[0]
    return None


def before_weight(flow: Ancestry, weight: fx.Node, place: str, norm: fx.Node | None) -> Anchor | None:
    """The edge into a weight layer."""
    source = flow.source(weight)
    if source is None:
        return None
    return Anchor(skip_dropouts(flow, source), (weight,), place, norm=norm)


def skip_dropouts(flow: Ancestry, node: fx.Node) -> fx.Node:
    """`node`, or what feeds it if it is a dropout itself (which the planner merges or moves)."""
    while node in flow.dropouts:
        source = flow.source(node)
        if source is None:
            return node
        node = source
    return node


# heads and plain chains


def own_anchor(flow: Ancestry, node: fx.Node) -> Anchor | None:
    """For a dropout directly before a norm (case a): behind that norm and its activation (case b).

    Weight layers have to follow: trained, they add up what the data have in common, and average the noise
    (Li et al. 2019, Eq. 10).
    """
    norm: fx.Node | None = None
    while len(node.users) == 1:
        (node,) = node.users
        if flow.is_weight(node) or flow.is_pool(node):
            break
        if flow.is_norm(node):
            norm = node
        elif norm is not None and flow.is_concat(node):
            break
        elif len(flow.sides(node)) > 1:
            return None
    if norm is None:
        return None
    end = skip_dropouts(flow, _activated(flow, norm))
    return Anchor(end, tuple(end.users), OWN_PLACE, norm=norm) if _weighed(flow, end) else None


def _weighed(flow: Ancestry, node: fx.Node) -> bool:
    """Whether what a node makes comes to norms by way of weight layers alone.

    Not where a skip carries it beside the branch that reads it (P0), where it only gates, or is handed out.
    """
    kinds = _readers(flow, node)
    through = Kind.WEIGHT in kinds or (Kind.ADD in kinds and Kind.MULTIPLY not in kinds)
    fork = Kind.WEIGHT in kinds and Kind.ADD in kinds
    handed_on = bool(flow.below(node, flow.weights)) or bool(flow.below(node, flow.pools))
    return through and handed_on and not fork and Kind.PLAIN not in kinds and not _fed(flow, node)


def _readers(flow: Ancestry, node: fx.Node) -> set[Kind]:
    """What reads a value: weight layers, pooling and concatenations; adds; gates; plain is all else."""
    kinds: set[Kind] = set()
    for user in node.users:
        if flow.is_weight(user) or flow.is_pool(user) or flow.is_concat(user):
            kinds.add(Kind.WEIGHT)
        elif user.op == "output" or flow.is_norm(user):
            kinds.add(Kind.PLAIN)
        elif len(flow.sides(user)) > 1:
            kinds.add(Kind.ADD)
        elif returns_tensor(user):
            gates = len(flow.tensors(user)) > 1
            kinds |= {Kind.MULTIPLY if flow.is_gate(user) else Kind.PLAIN} if gates else _readers(flow, user)
    return kinds


def _fed(flow: Ancestry, node: fx.Node) -> set[fx.Node]:
    """The norms that see the noise of a dropout with no weight layer between, on some way."""
    seen, pending, norms = {node}, [node], set()
    while pending:
        for user in pending.pop().users:
            if flow.is_norm(user):
                norms.add(user)
            elif user not in seen and not flow.is_weight(user) and returns_tensor(user):
                seen.add(user)
                pending.append(user)
    return norms


def tail_anchor(flow: Ancestry, node: fx.Node) -> list[Anchor]:
    """Before global pooling (H4) if no norm follows it; else behind the last norm, before a weight layer, or
    where the features of a network without a head go.
    """
    norms = flow.below(node, flow.shifting)
    last = norms[-1] if norms else None
    if last is None:
        last = next((other for other in reversed(flow.shifting) if flow.reaches(other, node)), None)
    found: list[Anchor | None] = []
    pool = _pool_after(flow, last, node)
    if pool is not None:
        source = flow.source(pool)
        if source is not None:
            pools = tuple(user for user in source.users if flow.is_pool(user)) or (pool,)
            found.append(Anchor(skip_dropouts(flow, source), pools, "H4", norm=last))
    weight = _weight_after(flow, last, node, bool(norms))
    place = "after the last norm" if last is not None else "before the classifier"
    if weight is not None:
        found.append(before_weight(flow, weight, place, last))
    elif norms and last is not None:
        end = _activated(flow, last)
        if end.users and not _may_be_logits(end):
            found.append(Anchor(end, tuple(end.users), place, norm=last))
    near = [anchor for anchor in found if anchor is not None and not _decoded(flow, node, anchor.producer)]
    return [whole for anchor in near if (whole := _for_all(flow, node, anchor))]


def _decoded(flow: Ancestry, node: fx.Node, end: fx.Node) -> bool:
    """Whether a decoder is between two nodes: a layer that makes more positions of what it is given.

    Noise on the features of an encoder, which nobody asked of the image that is made of them, stays there.
    """
    return any(flow.reaches(other, end) for other in flow.below(node, _decoders(flow)))


def _decoders(flow: Ancestry) -> list[fx.Node]:
    """The layers that make more positions of what they are given; remembered."""
    if _decoders not in flow.memory:
        flow.memory[_decoders] = [
            node for node in flow.resizes if _positions(node) > _positions(flow.source(node))
        ]
    return cast("list[fx.Node]", flow.memory[_decoders])


def _positions(node: fx.Node | None) -> int:
    """Number of positions of each channel of a map, 1 for a vector."""
    shape = None if node is None else shape_of(node)
    return 1 if shape is None else math.prod(shape[2:])


def _for_all(flow: Ancestry, node: fx.Node, anchor: Anchor) -> Anchor | None:
    """The place, or the next one above it in the same value's way, that all noise of a dropout comes to; what
    reads it before the last norm is noted (`reader_notes`).
    """
    if anchor.norm is not None and flow.reaches(node, anchor.norm):
        node = anchor.norm
    while _passed_by(node, anchor):
        source = flow.source(anchor.producer)
        part = len(flow.tensors(anchor.producer)) == 1 and not flow.is_weight(anchor.producer)
        if source is None or not part or anchor.producer is anchor.norm:
            return None
        end = skip_dropouts(flow, source)
        if not flow.reaches(node, end):
            return None
        anchor = replace(anchor, producer=end, users=tuple(end.users))
    return anchor


def _passed_by(node: fx.Node, anchor: Anchor) -> bool:
    """Whether what a node makes also comes to the output by a way that does not lead through a place.

    Of two poolings that read two parts of a map, a dropout in front of one leaves the other without noise.
    """
    seen, pending, passed, met = {node}, [node], False, False
    while pending:
        current = pending.pop()
        for user in current.users:
            if current is anchor.producer and user in anchor.users:
                met = True
                continue
            passed = passed or user.op == "output"
            if user not in seen and not isinstance(value_of(user), int):
                seen.add(user)
                pending.append(user)
    return met and passed


def _activated(flow: Ancestry, norm: fx.Node) -> fx.Node:
    """The end of the chain of one-input operations of one shape behind a norm: its activation."""
    node = norm
    while len(node.users) == 1:
        (user,) = node.users
        if (
            user.op == "output"
            or user in flow.dropouts
            or len(flow.tensors(user)) != 1
            or shape_of(user) != shape_of(norm)
            or user in flow.norms
            or flow.is_weight(user)
        ):
            break
        node = user
    return node


def _pool_after(flow: Ancestry, last: fx.Node | None, node: fx.Node) -> fx.Node | None:
    """The first global pooling after the last norm that the dropout's path meets."""
    for other in flow.pools:
        after_norm = last is None or (other is not last and flow.reaches(last, other))
        on_path = flow.reaches(node, other) or flow.reaches(other, node)
        if after_norm and on_path and not _feeds_gate(flow, other) and not flow.below(other, flow.shifting):
            return other
    return None


def _feeds_gate(flow: Ancestry, pool: fx.Node) -> bool:
    """Whether a pooling only makes gates that multiply a larger map (squeeze and excitation)."""
    size = numel_of(pool)
    return any(numel_of(gate) > size for gate in flow.below(pool, flow.gates))


def _weight_after(flow: Ancestry, last: fx.Node | None, node: fx.Node, below: bool) -> fx.Node | None:
    """The first weight layer after the last norm; for a dropout behind that, the last one before it."""
    if last is not None and below:
        return next(iter(flow.below(last, flow.weights)), None)
    above = [
        other
        for other in flow.weights
        if other is not node and flow.reaches(other, node) and (last is None or flow.reaches(last, other))
    ]
    return above[-1] if above else None


def _may_be_logits(node: fx.Node) -> bool:
    """Whether it is vectors that no weight layer reads: they may be predictions, or what is compared."""
    shape = shape_of(node)
    return shape is not None and len(shape) == 2
