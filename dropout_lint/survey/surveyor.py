"""Puts the facts about every dropout together."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from torch import nn

from dropout_lint.graph.flow import Flow
from dropout_lint.graph.operations import Kind, is_mutation
from dropout_lint.layers import Noise
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.shifts import Prediction
from dropout_lint.survey.branches import Branch, Branches
from dropout_lint.survey.facts import Facts, of_shift
from dropout_lint.survey.heads import HeadPlace, head_place
from dropout_lint.survey.initialisation import is_plain
from dropout_lint.survey.placements import Placement, Survey
from dropout_lint.survey.positions import position_in_branch
from dropout_lint.survey.reach import Reach, Way
from dropout_lint.terms import nearness
from dropout_lint.trace.traced import DropoutSite, NormSite, Trace, UnusedDropout, module_of, shape_of

SAME_MEAN = 0.02
"""Means of a mask that are nearer to 1 than this keep the mean."""
RANKS = {"Dropout1d": 3, "Dropout2d": 4, "Dropout3d": 5}


def survey(trace: Trace, prediction: Prediction | None = None) -> Survey:
    """The facts about every dropout of `trace`.

    Args:
        trace: one recorded forward pass.
        prediction: Δ at every norm; without one the facts about Δ are None.

    Returns:
        For each dropout call one placement for each norm that it reaches first, the nearest one first, or one
        placement without a norm.
    """
    return Surveyor(trace, prediction).survey()


class Surveyor:
    """Works on one trace; each method answers one group of facts."""

    def __init__(self, trace: Trace, prediction: Prediction | None) -> None:
        self._trace = trace
        self._prediction = prediction
        self._flow = Flow(trace)
        self._branches = Branches(trace, self._flow)
        self._reach = Reach(self._flow)
        self._norms = {site.node: site for site in trace.norms}
        self._shifts = {shift.node: shift for shift in self._prediction.norms} if self._prediction else {}
        self._inside = {site for site in trace.dropouts if site.inside or self._weighs_positions(site)}
        self._around: dict[DropoutSite, Branch | None] = {}
        self._crowd: Counter[Branch] = Counter()

    def survey(self) -> Survey:
        """The survey of the whole trace."""
        for site in self._trace.dropouts:
            number = self._flow.index.get(site.node)
            branch = None if number is None else self._branches.around(number)
            self._around[site] = branch
            counts = site.active_in_train and site.spec.is_noisy and site not in self._inside
            if branch is not None and counts and not site.spec.noise.whole_branch:
                self._crowd[branch] += 1
        placements = [placement for site in self._trace.dropouts for placement in self._placements(site)]
        shifts = self._prediction.norms if self._prediction else ()
        return Survey(self._trace, tuple(placements), self._unused(), shifts)

    def _unused(self) -> tuple[UnusedDropout, ...]:
        """Dropouts that nothing calls, less those whose ratio an attention call of the same owner takes."""
        taken = {
            (site.owner, site.spec.p) for site in self._trace.dropouts if site.spec.noise is Noise.ATTENTION
        }
        return tuple(
            unused
            for unused in self._trace.unused
            if (unused.name.rpartition(".")[0], unused.spec.p) not in taken
        )

    def _placements(self, site: DropoutSite) -> list[Placement]:
        facts = self._own_facts(site)
        number = self._flow.index.get(site.node)
        if number is None:  # not on the way from any input, so that no data flows through it
            return [Placement(site, None, (site.node.name,), facts)]
        ways = self._reach.ways(number)
        facts = self._placed(facts, site, number, ways[0] if ways else None)
        if not ways:
            path = tuple(self._flow.nodes[step].name for step in self._reach.to_output(number))
            return [Placement(site, None, path, facts)]
        return [self._on_way(site, facts, way) for way in ways]

    # the dropout itself ---------------------------------------------------------------------------------

    def _own_facts(self, site: DropoutSite) -> Facts:
        spec = site.spec
        source = site.node.all_input_nodes[0] if site.node.all_input_nodes else None
        shape = shape_of(source) if source is not None else None
        rank = None if shape is None else len(shape)
        means = spec.element_means(shape or ())
        return Facts(
            kind=spec.kind,
            noise=spec.noise.value,
            drops=spec.noise.drops,
            whole_branch=spec.noise.whole_branch,
            p=spec.p,
            zeroed=spec.at(shape).p if means and shape else None,
            mean_low=means[0] if means else None,
            mean_high=means[1] if means else None,
            functional=site.functional,
            inplace=spec.inplace,
            inside=site in self._inside,
            active_in_train=site.active_in_train,
            active_in_eval=site.active_in_eval,
            input_rank=rank,
            degenerate=self._is_degenerate(site),
            keeps_mean=not abs(spec.mask_mean - 1) > SAME_MEAN,
            wrong_rank=rank is not None and self._expected_rank(site) not in (None, rank),
            skip_shares_inplace=spec.inplace and source is not None and self._is_read_again(site),
        )

    def _weighs_positions(self, site: DropoutSite) -> bool:
        number = self._flow.index.get(site.node)
        return number is not None and self._flow.weighs_positions(number)

    def _is_degenerate(self, site: DropoutSite) -> bool:
        if not site.spec.noise.drops:
            return False
        if math.isnan(site.spec.p):  # unreadable, unless the layer itself says so
            module = module_of(self._trace.model, site.node)
            given = [*vars(module).values()] if module is not None else []
            given += [*site.node.args[1:2], site.node.kwargs.get("p")]
            return any(isinstance(value, float) and math.isnan(value) for value in given)
        return site.spec.p >= 1

    def _expected_rank(self, site: DropoutSite) -> int | None:
        module = module_of(self._trace.model, site.node)
        bases = [base.__name__ for base in type(module).__mro__] if isinstance(module, nn.Module) else []
        for name, rank in RANKS.items():
            if name in bases or site.spec.kind.removeprefix("F.") in (name, name.lower()):
                return rank
        return None

    def _is_read_again(self, site: DropoutSite) -> bool:
        """Whether something else reads the tensor that an in-place dropout overwrites, afterwards.

        A recording shows the overwritten tensor as `mutated(input, dropout)`, beside the dropout's own result
        (nobody reads that where the call is a statement of its own); in a symbolic graph the input is used
        again further down.
        """
        source = site.node.all_input_nodes[0]
        readers = {is_mutation(user) for user in site.node.users if user.users or user.op == "output"}
        if readers == {True, False}:
            return True
        order = self._flow.index
        here = order.get(site.node, -1)
        return any(
            order.get(user, -1) > here and not is_mutation(user)
            for user in source.users
            if user is not site.node
        )

    # the placement --------------------------------------------------------------------------------------

    def _placed(self, facts: Facts, site: DropoutSite, number: int, way: Way | None) -> Facts:
        branch = self._around[site]
        flow = self._flow
        any_norm = flow.any_norms[number] > 0 or flow.any_norm_after[number]
        # weights matter, and are looked at, only where no norm makes up for their scale
        facts = replace(facts, any_norm=any_norm, plain_weights=not any_norm and self._plain_weights(number))
        if branch is not None:
            place = position_in_branch(flow, self._branches, number, branch)
            facts = replace(
                facts,
                position=None if facts.inside else place.label,
                at_guideline=place.at_guideline or (way is None and not place.at_branch_end),
                at_branch_end=place.at_branch_end,
                in_branch=True,
                branch_style=branch.style,
                branch_join=branch.by,
                branch_norms=branch.norms,
                dropouts_in_branch=self._crowd[branch],
            )
        if facts.inside:  # it cannot be moved, and has none of the positions
            return replace(facts, at_guideline=facts.at_guideline or way is None)
        if self._branches.forked_by(number) is not None and way is not None:
            return replace(facts, position="P0", at_guideline=False, at_branch_end=False)
        if branch is not None:
            return facts
        if self._trace.by_parts:  # where the model ends was not seen
            return replace(facts, at_guideline=way is None)
        head = head_place(
            flow,
            number,
            joins_after=self._branches.join_after[number],
            norm=way.norm if way else None,
            weights_to_norm=way.weights if way else 0,
        )
        return with_head(facts, head, guideline=way is None)

    def _plain_weights(self, number: int) -> bool:
        """Whether every way on leads first to a weight layer that no correction has touched."""
        for user in self._flow.users[number]:
            current = user
            while Kind.WEIGHT not in self._flow.kinds[current]:
                following = self._flow.users[current]
                if len(following) != 1:
                    return False
                current = following[0]
            if not is_plain(module_of(self._trace.model, self._flow.nodes[current])):
                return False
        return bool(self._flow.users[number])

    # the way --------------------------------------------------------------------------------------------

    def _on_way(self, site: DropoutSite, facts: Facts, way: Way) -> Placement:
        flow = self._flow
        norm = self._norms[flow.nodes[way.norm]]
        between = way.steps[1:-1]
        kinds = [flow.kinds[step] for step in between]
        inner = 1 if site.inside and Kind.WEIGHT in flow.kinds[way.steps[0]] else 0
        weights = way.weights + inner
        facts = replace(
            facts,
            norm=norm.spec.family,
            weights_between=weights,
            adds_between=self._merges(between, Kind.ADD),
            concats_between=self._merges(between, Kind.CONCAT),
            norms_between=sum(1 for kind in kinds if Kind.OTHER_NORM in kind),
            residual_add_between=self._meets_clean_skip(way.steps[0], between),
            width=self._width(way, norm),
            **self._predicted(site, norm, weights),
        )
        return Placement(site, norm, tuple(flow.nodes[step].name for step in way.steps), facts)

    def _merges(self, between: tuple[int, ...], kind: Kind) -> int:
        flow = self._flow
        return sum(1 for step in between if kind in flow.kinds[step] and len(flow.sources[step]) > 1)

    def _meets_clean_skip(self, start: int, between: tuple[int, ...]) -> bool:
        flow = self._flow
        return any(
            step in self._branches.adds
            and flow.parent[step] != start
            and flow.dominates(flow.parent[step], start)
            for step in between
        )

    def _width(self, way: Way, norm: NormSite) -> int | None:
        for step in way.steps[1:-1]:
            if Kind.WEIGHT in self._flow.kinds[step]:
                return channels_into(module_of(self._trace.model, self._flow.nodes[step]), self._flow, step)
        return norm.spec.channels or channels_into(None, self._flow, way.norm)

    def _predicted(self, site: DropoutSite, norm: NormSite, weights: int) -> dict[str, Any]:
        """The facts about Δ at a norm, `weights` weight layers behind a dropout."""
        shift = self._shifts.get(norm.node.name)
        if shift is None or shift.delta is None:
            return {}
        left_out = self._prediction is None or self._prediction.shared is not None
        share = None if left_out else shift.shares.get(site.name, 0.0)
        delta = shift.delta
        own = shift.left_by((site.name,)) if share is not None and shift.shares else None
        if weights == 0 and site.name in shift.fed:
            fed, part = shift.fed[site.name]
            if nearness(fed) < nearness(delta):
                delta, own = fed, None if own is None else min(own, max(fed, 0.0) ** part, key=nearness)
        return {**of_shift(shift), "share": share, "fed_delta": delta, "own_delta": own}


def with_head(facts: Facts, head: HeadPlace, *, guideline: bool) -> Facts:
    """`facts` with the facts about the head."""
    predictions = head.label in ("H5", "H6", "H7")
    return replace(
        facts,
        position=head.label,
        in_head=head.in_head,
        at_guideline=head.at_guideline or (guideline and not predictions),
        pooled_before=head.pooled_before,
        on_logits=head.on_logits,
    )


def channels_into(module: nn.Module | None, flow: Flow, number: int) -> int | None:
    """Number of channels that the node `number` reads."""
    for attribute in ("in_channels", "in_features", "input_size", "embed_dim", "in1_features"):
        value = getattr(module, attribute, None)
        if isinstance(value, int):
            return value
    sources = flow.nodes[number].all_input_nodes
    shape = shape_of(sources[0]) if sources else None
    if shape is None or len(shape) < 2:
        return None
    return shape[1] if len(shape) in (2, 4, 5) else shape[-1]
