"""Write the steps of a plan as edits of the user's files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import libcst as cst
from torch import fx

from dropout_lint.fixes.graph.dropmodules import class_name
from dropout_lint.fixes.plan.steps import DELETING, ERASING, Step
from dropout_lint.fixes.source import constructor, erasing, forward, functional, leftovers, sequences
from dropout_lint.fixes.source.edits import Edits
from dropout_lint.fixes.source.errors import CannotExpress, blamed_on
from dropout_lint.fixes.source.guards import asks_for, lost_conditions, positive, run_together
from dropout_lint.fixes.source.hoist import Hoist, hoisted
from dropout_lint.fixes.source.locate import Sources
from dropout_lint.fixes.source.mode import mode_at
from dropout_lint.fixes.source.places import (
    BY_HAND,
    New,
    Old,
    new_places,
    old_key,
    old_place,
    users_at,
)
from dropout_lint.fixes.source.rates import Rates, Scope
from dropout_lint.fixes.source.siblings import (
    Method,
    check_siblings,
    method_at,
)
from dropout_lint.fixes.source.syntax import SourceFile
from dropout_lint.fixes.source.vendor import UoutHome
from dropout_lint.trace.traced import DropoutSite
from dropout_lint.words import count, listed, numbered

NAMED = 4
"""As many dropouts of one line are named; of more the first ones."""


def partly_wrong(
    wrong: Sequence[DropoutSite], right: Sequence[DropoutSite], fixed: Sequence[DropoutSite] = ()
) -> CannotExpress:
    """One expression makes several calls, of which some are wrong and others (`right`, if any) are not.

    Args:
        wrong: the calls that something was found about.
        right: the others.
        fixed: those of the wrong ones that have a fix.
    """
    sites = (*wrong, *right)
    if len({site.name for site in sites}) > 1:
        verb, label = "makes", _name
    elif len({site.owner for site in sites}) > 1:
        verb, label = "calls it", _owner
    else:
        verb, label = "runs it", _number
    wrongs, fixes = _labels(wrong, label), _labels(fixed, label)
    every = list(dict.fromkeys([*wrongs, *_labels(right, label)]))
    told = wrongs if len(every) > len(wrongs) else fixes
    many = len(every) > NAMED
    shown = f"{len(told)} of them" if many else listed(told)
    if len(every) > len(wrongs):
        why = f"only {shown} {'is' if len(wrongs) == 1 else 'are'} wrong"
    elif 0 < len(fixes) < len(wrongs):
        why = f"only for {shown} is there a fix"
    else:
        why = "they need different fixes"
    return CannotExpress(
        f"one line {verb} {numbered(every, 2) if many else listed(every)}, and {why}",
        "give the class an argument that says whether it drops there, or use `dropout_lint.fix`",
    )


def _name(site: DropoutSite) -> str:
    return site.name


def _owner(site: DropoutSite) -> str:
    return f"in {site.owner}"


def _number(site: DropoutSite) -> str:
    return f"as call {site.call_index + 1}"


def _labels(sites: Sequence[DropoutSite], label: Callable[[DropoutSite], str]) -> list[str]:
    return list(dict.fromkeys(label(site) for site in sites))


class Expression:
    """Edits for one plan.

    Args:
        sources: the user's files, and the trace of the model that was linted.
        steps: what is to be done.
        found: the dropout calls that something was found about, whether a step answers it or not.
        vendor_uout: see `fix_source`.
    """

    def __init__(
        self,
        sources: Sources,
        steps: Sequence[Step],
        found: Collection[fx.Node] = (),
        *,
        vendor_uout: bool = False,
    ) -> None:
        self.sources = sources
        self.uout = UoutHome(vendor_uout)
        self.trace = sources.trace
        self.found = {*found, *(step.site.node for step in steps)}
        self.steps = tuple(steps)
        self.edits: dict[Path, Edits] = {}
        self.by_node = {step.site.node: step for step in steps}
        self.taken: set[str] = set()
        self.erased_calls: list[Old] = []
        self.orphans: set[str] = set()
        self.wrapped: dict[int, tuple[object, ...]] = {}  # layers with a dropout behind them, by whose it was
        self.called_again: set[str] = set()  # modules that a moved call still needs
        self.hoists: dict[tuple[object, ...], Hoist] = {}  # lines that keep their last call alone
        self.rates = Rates(sources)
        self.notes: list[str] = []

    def write(self) -> dict[Path, Edits]:
        """The edits by file.

        Raises:
            CannotExpress: a step cannot be written; its `step` says which.
        """
        done: set[tuple[object, ...]] = set()
        for step in self.steps:
            if step.action in ERASING:
                continue
            with blamed_on(step):
                key = (step.action, step.value, step.kind, *old_key(self.sources, step.site))
                if key not in done:
                    done.add(key)
                    self._exchange(step)
        for step in self.steps:
            if step.action == "move" and step.value is not None:
                with blamed_on(replace(step, action="reduce")):
                    self._check_lower(step)
        self._move_all()
        for edits in self.edits.values():
            erasing.pass_on(edits)
        leftovers.take_away_unused(self)
        return {path: edits for path, edits in self.edits.items() if edits}

    def stays(self, site: DropoutSite) -> bool:
        """Whether a dropout is where it was after the steps."""
        step = self.by_node.get(site.node)
        return step is None or step.action not in ERASING

    def of(self, source: SourceFile) -> Edits:
        """The edits of a file."""
        return self.edits.setdefault(source.path, Edits(source, self.uout))

    # taking away and putting in

    def _move_all(self) -> None:
        groups: dict[tuple[object, ...], list[Step]] = {}
        for step in self.steps:
            if step.action in ERASING:
                groups.setdefault(old_key(self.sources, step.site), []).append(step)
        places: dict[tuple[object, ...], list[tuple[Step, New]]] = {}
        for group in groups.values():
            with blamed_on(group[0]):
                self._check_all_erased(group)
            moved = [
                (step, step.anchor) for step in group if step.action == "move" and step.anchor is not None
            ]
            with blamed_on(group[0]):
                found = new_places(self.sources, [(anchor, step.site) for step, anchor in moved])
            for (step, _), place in zip(moved, found, strict=True):
                places.setdefault(place.key, []).append((step, place))
        self._check_classes(places)
        used: set[int] = set()
        for moves in places.values():
            step, place = moves[0]
            with blamed_on(step):
                self._check_all_used(moves)
                self._put(step, place, used)
        for group in groups.values():
            with blamed_on(group[0]):
                self._erase(group[0], used)

    def _check_all_erased(self, group: Sequence[Step]) -> None:
        key = old_key(self.sources, group[0].site)
        kept = [
            site
            for site in self.trace.dropouts
            if not site.inside and old_key(self.sources, site) == key and self.stays(site)
        ]
        if not kept or all(step.action == "move" for step in group):
            return
        hoist = self._hoist(group, kept)
        if hoist is None:
            raise self.partly_wrong([*(step.site for step in group), *kept])
        self.hoists[key] = hoist

    def _hoist(self, group: Sequence[Step], kept: Sequence[DropoutSite]) -> Hoist | None:
        """How one line keeps its last call alone: behind the loop that it ends; None where it cannot."""
        old = old_place(self.sources, group[0].site)
        sites = [*(step.site for step in group), *kept]
        last = max(sites, key=lambda site: site.call_index)
        if [last] != list(kept) or old.holder is not None or len({site.owner for site in sites}) > 1:
            return None
        return hoisted(old.source, old.call) if {step.action for step in group} <= set(DELETING) else None

    def partly_wrong(self, sites: Sequence[DropoutSite]) -> CannotExpress:
        """Why one line for these calls cannot be edited: which of them are wrong and which are not."""
        order = {site.node: number for number, site in enumerate(self.trace.dropouts)}
        sites = sorted(dict.fromkeys(sites), key=lambda site: order[site.node])
        wrong = [site for site in sites if site.node in self.found]
        right = [site for site in sites if site.node not in self.found]
        return partly_wrong(wrong, right, [site for site in wrong if site.node in self.by_node])

    def _check_classes(self, places: Mapping[tuple[object, ...], Sequence[tuple[Step, New]]]) -> None:
        """Note, or refuse, what the moves do to classes outside of the model.

        Raises:
            CannotExpress: a subclass overrides one of two methods that would change together.
        """
        moved = {step.site.node: (step, place) for moves in places.values() for step, place in moves}
        checked: set[tuple[Method | None, Method | None]] = set()
        for step in self.steps:
            new = moved[step.site.node][1] if step.site.node in moved else step.into
            if isinstance(new, DropoutSite) and new.node in moved:
                new = moved[new.node][1]
            pair = (self._method_of(step.site), self._method_of(new)) if new is not None else (None, None)
            if pair not in checked:
                checked.add(pair)
                with blamed_on(step):
                    self.notes += check_siblings(self.trace.model, step.site.name, *pair)

    def _method_of(self, place: New | DropoutSite) -> Method | None:
        """The method that a dropout is in now, or that its new place is in; None where that is not known."""
        model = self.trace.model
        if isinstance(place, New):
            inside = str(place.graph.target) if place.holder is not None else place.owner
            return method_at(model, place.source, place.node, inside)
        try:
            old = old_place(self.sources, place)
        except CannotExpress:
            return None
        return method_at(
            model, old.source, old.call, place.owner if old.holder is None else place.module or ""
        )

    def _check_all_used(self, moves: Sequence[tuple[Step, New]]) -> None:
        place = moves[0][1]
        users = users_at(self.sources, place)
        olds = {old_key(self.sources, step.site) for step, _ in moves}
        sites = [site for site in self.trace.dropouts if old_key(self.sources, site) in olds]
        everywhere = len(users) == len(sites) and all(self._moves(site) for site in sites)
        if not everywhere and any(site.spec.is_noisy and self.stays(site) for site in sites):
            raise self.partly_wrong(sites)
        if len(users) != len(moves) and not everywhere and not self._goes_along(*moves[0]):
            raise CannotExpress(
                f"the line of the new place runs {count(len(users), 'time')}, and {len(moves)} should drop",
                "give the class an argument that says whether it drops, or use `dropout_lint.fix`",
            )
        if len(olds) > 1:
            raise CannotExpress("several lines would move to one place", BY_HAND)

    def _goes_along(self, step: Step, place: New) -> bool:
        """Whether the line of the new place runs where the call does: what made no noise there makes none.

        So does a dropout with an `if` of its own, which goes with it: where it did not run, it will not.
        """
        old = old_place(self.sources, step.site)
        here = old.source.function(old.call)
        if old.holder is not None or here is None or here is not old.source.function(place.node):
            return False
        return forward.call_of(old.source, old.call).guarded or run_together(old.source, old.call, place.node)

    def _moves(self, site: DropoutSite) -> bool:
        """Whether a call is moved, or left alone because nothing was found about it."""
        step = self.by_node.get(site.node)
        return site.node not in self.found if step is None else step.action == "move"

    def _put(self, step: Step, place: New, used: set[int]) -> None:
        old = old_place(self.sources, step.site)
        edits = self.of(place.source)
        if place.holder is not None:
            sequences.put_element(self, step, old, place, used)
            return
        call = self._call_for(step, old, place, edits, used)
        assert isinstance(place.node, cst.BaseExpression)
        if place.form == "operand":
            forward.drop_operand(edits, place.node, call)
        elif isinstance(place.node, cst.Call) and place.form == "input":
            forward.drop_input(edits, place.node, call)
        else:
            forward.drop_output(edits, place.node, call)

    def _call_for(self, step: Step, old: Old, place: New, edits: Edits, used: set[int]) -> forward.Call:
        """How the dropout is called at its new place: as it was within one class, else by a new attribute."""
        source = place.source
        old_class = old.source.klass(old.call)
        new_class = source.klass(place.node)
        if old.holder is None and old_class is not None and old_class is new_class:
            kind, ratio = step.kind, step.value
            mode = mode_at(source, place.node) if "DL401" in step.codes else None
            adjust = (
                (lambda call: functional.adjusted(call, kind=kind, mode=mode, ratio=ratio))
                if old.site.functional
                else None
            )
            found = forward.call_of(old.source, old.call, adjust)
            for part in (found.whole, found.test):
                if part is not None:
                    self.rates.check_names(old, part, place.node)
            self._note_conditions(step, old, found, place)
            used.add(id(old.call))
            if not old.site.functional:
                self.called_again.add(old.site.module or "")
                self._calm(step, old)
            return found
        if new_class is None:
            raise CannotExpress("the new place is in no class", BY_HAND)
        name = constructor.free_attribute(source, new_class, "dropout", self.taken)
        self.taken.add(name)
        value = self.made_anew(step, old, Scope(source, constructor.init_of(new_class), place.owner), edits)
        constructor.add_attribute(edits, new_class, name, value, self._near(place))
        callee = cst.Attribute(cst.Name("self"), cst.Name(name))
        return forward.Call(lambda data: cst.Call(callee, [cst.Arg(data)]), old.call, new=True)

    def _note_conditions(self, step: Step, old: Old, found: forward.Call, place: New) -> None:
        """Say what a dropout depended on and does not any more, where that is not its ratio or the mode.

        Raises:
            CannotExpress: that was whether there is a dropout at all.
        """
        argument = functional.ratio_of_call(old.call) if old.site.functional else None
        told = ("self.training", *(positive(argument.value) if argument is not None else ()))
        tests = lost_conditions(old.source, found.whole, place.node)
        name = "" if old.site.functional else old.source.code(old.call.func)
        lost = [old.source.code(test) for test in tests]
        kept = None if found.test is None else old.source.code(found.test)
        lost = [test for test in lost if test not in (*told, kept)]
        if name and any(asks_for(old.source, test, name) for test in tests if old.source.code(test) in lost):
            raise CannotExpress(
                f"there may be no `{name}` at its new place, outside of the `if` for it", BY_HAND
            )
        if lost:
            joined = " and ".join(lost)
            self.notes.append(f"{step.site.name}: it stood under `if {joined}`, and does not where it is now")

    def made_anew(self, step: Step, old: Old, scope: Scope, edits: Edits) -> cst.Call:
        """A constructor for a dropout in another function, with the ratio that the old one was given.

        Raises:
            CannotExpress: that function cannot know the ratio, or whether the dropout should drop.
        """
        kind = step.kind or class_name(step.site.spec) or "Dropout"
        rate = self.rates.carried(old, scope)
        if rate.constant and rate.was:
            self.notes.append(
                f"{step.site.name}: the ratio was `{rate.was}` in the source; it is now the constant "
                f"{step.site.spec.p:g}, which is all that the source passes for it"
            )
        value = rate.value if step.value is None else constructor.lowered(rate.value, step.value)
        return constructor.new_dropout(edits, kind, value, step.site.spec)

    def ratio_in_init(self, step: Step) -> cst.BaseExpression:
        """The ratio of a dropout as an expression of the `__init__` of the class that calls it.

        Raises:
            CannotExpress: `__init__` cannot know it.
        """
        source, call = self.sources.call(step.site.node)
        old = Old(old_key(self.sources, step.site), source, call, None, step.site)
        klass = source.klass(call)
        init = None if klass is None else constructor.init_of(klass)
        try:
            return self.rates.ratio(old, Scope(source, init, step.site.owner)).value
        except CannotExpress:
            argument = functional.ratio_of_call(call)
            if argument is None or not source.code(argument.value).startswith("self."):
                raise
            return argument.value  # `__init__` has set it by its end, where the new dropout is made

    def _near(self, place: New) -> cst.Call | None:
        """Constructor of the layer that the dropout is put before."""
        if place.graph.op != "call_module":
            return None
        name = self.sources.container(place.graph) or str(place.graph.target)
        try:
            source, call = self.sources.construction(name)
        except CannotExpress:
            return None
        return call if source is place.source else None

    def _calm(self, step: Step, old: Old) -> None:
        """A moved module keeps its line, but for another class (before pooling), a ratio, and `inplace`."""
        spec = step.site.spec
        if step.kind is None and step.value is None and not spec.inplace:
            return
        assert step.site.module is not None
        source, call = self.sources.construction(step.site.module)
        edits = self.of(source)
        if step.kind is not None and step.kind != spec.kind:
            kind = step.kind
            self.sources.check_static(step.site.module, call)
            edits.change(call, lambda updated: constructor.rename_class(edits, updated, kind))
        if step.value is not None:
            self._lower(step, edits, call)
        if spec.inplace:
            edits.change(call, constructor.without_inplace)

    def _lower(self, step: Step, edits: Edits, call: cst.Call) -> None:
        value = step.value
        assert value is not None
        constructor.lower_ratio(call, value)  # raises now, for this step, what it cannot say
        edits.change(call, lambda updated: constructor.lower_ratio(cst.ensure_type(updated, cst.Call), value))

    def _check_lower(self, step: Step) -> None:
        """A dropout that moves may get a lower ratio as well, where that is a number that stands there.

        Raises:
            CannotExpress: it is none, or the ratio of other dropouts too.
        """
        assert step.value is not None
        if step.site.functional:
            functional.with_lower_ratio(self.sources.call(step.site.node)[1], step.value)
            return
        assert step.site.module is not None
        if self._made_with_it(step):
            raise CannotExpress(
                "its constructor makes other dropouts as well", "give it a constructor of its own"
            )
        constructor.lower_ratio(self.sources.construction(step.site.module)[1], step.value)

    def _made_with_it(self, step: Step) -> list[DropoutSite]:
        """The dropouts that the same line makes, and that are not to be changed alike."""
        assert step.site.module is not None
        location = self.trace.constructed.get(step.site.module)
        made = self.sources.made_at(location) if location is not None else {step.site.module}
        return [
            other
            for other in self.trace.dropouts
            if other.module in made and not self._alike(step, self.by_node.get(other.node))
        ]

    # taking away

    def _erase(self, step: Step, used: set[int]) -> None:
        old = old_place(self.sources, step.site)
        edits = self.of(old.source)
        if old.key in self.hoists:
            self.hoists[old.key].write(edits)
            return
        if old.holder is None:
            erasing.erase(edits, old.call, moved=id(old.call) in used)
            if id(old.call) not in used:
                self.erased_calls.append(old)
            return
        sequences.take_element_out(self, step, old, kept=id(old.call) in used)

    # changing in place

    def _exchange(self, step: Step) -> None:
        site = step.site
        if step.action == "repair":
            functional.repair(self, step)
            return
        assert step.value is not None
        if site.functional:
            functional.exchange(self, step)
            return
        assert site.module is not None
        if self._made_with_it(step):
            functional.split(self, step)
            return
        source, call = self.sources.construction(site.module)
        edits = self.of(source)
        if step.action == "uout":
            self.sources.check_static(site.module, call)
            constructor.swap_for_uout(edits, call, step.value, site.spec)
        else:
            self._lower(step, edits, call)

    @staticmethod
    def _alike(step: Step, other: Step | None) -> bool:
        return other is not None and (other.action, other.value) == (step.action, step.value)
