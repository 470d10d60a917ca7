"""`fix_source`: plan, write the plan as edits, prove them in a process of their own, hand back the diff."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from dropout_lint.analysis import Analysis
from dropout_lint.config.load import display
from dropout_lint.errors import DropoutLintError, FixError, UsageError
from dropout_lint.fixes.graph.fix import applied, check_options
from dropout_lint.fixes.plan.anchors import anchors_for
from dropout_lint.fixes.plan.case import can_be_fixed
from dropout_lint.fixes.plan.ladder import Barred
from dropout_lint.fixes.plan.planner import Plan, Planner
from dropout_lint.fixes.plan.steps import Action, Applied, Skipped, Step, Weighed
from dropout_lint.fixes.plan.trials import Trials
from dropout_lint.fixes.source import vendor
from dropout_lint.fixes.source.arguments import Dead, dead_arguments, refuse_dead
from dropout_lint.fixes.source.diff import shown_name, unified
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.express import Expression
from dropout_lint.fixes.source.locate import Sources
from dropout_lint.fixes.source.places import holder_of, new_place, old_key
from dropout_lint.fixes.source.prover import Original, Proof, Prover, Question, shared
from dropout_lint.fixes.source.readers import reader_notes
from dropout_lint.fixes.source.users import other_users
from dropout_lint.fixes.source.write import Change, write_all
from dropout_lint.fixes.training import named_by
from dropout_lint.graph.ancestry import Ancestry
from dropout_lint.inputs.example import Built
from dropout_lint.prediction.shifts import Prediction
from dropout_lint.rules.findings import Finding
from dropout_lint.terms import Strategy
from dropout_lint.trace.traced import DropoutSite
from dropout_lint.words import numbered

ROUNDS = 24
NEEDS_US = (
    "the model imports dropout_lint from now on (Uout); --vendor-uout writes the class into your project"
)
GRAPH_FIX = "use `dropout_lint.fix(model, inputs)`"


@dataclass(frozen=True)
class SourceFix:
    """A fix of the user's files, proven and not yet written.

    Attributes:
        changes: the edited files.
        applied: what the edits do.
        skipped: what was left, why, and what to do by hand.
        notes: why a dropout got another fix than the first choice, and what the edits change besides.
        checks: the proofs that were passed, in words.
        before: predicted Δ as it is.
        after: predicted Δ with the edits.
        weighed: what `auto` weighed.
        measured: measured Δ at every norm, before and after, where that was asked for.
        left: what is still found with the edits.
    """

    changes: tuple[Change, ...]
    applied: tuple[Applied, ...]
    skipped: tuple[Skipped, ...]
    before: Prediction
    after: Prediction
    notes: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    weighed: tuple[Weighed, ...] = field(default=())
    measured: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {})
    left: tuple[Finding, ...] = ()

    @property
    def diff(self) -> str:
        """All edits as one unified diff that `git apply` accepts."""
        return "".join(
            unified(change.before, change.after, shown_name(change.path), new=change.raw is None)
            for change in self.changes
        )

    def write(self) -> None:
        """Write the files, all or none.

        Raises:
            FixError: a file changed meanwhile, or cannot be written.
        """
        write_all(self.changes)


def fix_source(
    built: Built,
    analysis: Analysis,
    findings: Sequence[Finding] | None = None,
    *,
    resolve: str | None = None,
    strategy: Strategy = "auto",
    beta: float | None = None,
    compare: bool = True,
    texts: Sequence[str] = (),
    batches: int = 0,
    vendor_uout: bool = False,
    prover: Prover | None = None,
) -> SourceFix:
    """Fix what was found in the user's own files; nothing is written before `SourceFix.write`.

    Args:
        built: the target as it was resolved.
        analysis: the target as it was linted, its trace with the lines that constructed its modules.
        findings: what of its findings to fix; None for all.
        resolve: the target as the user typed it, where that names several models.
        strategy: see `fix_graph`.
        beta: β for Uout.
        compare: weigh every strategy for `weighed`, though none could do better than the one before it.
        texts: the `--input` options.
        batches: random batches to measure Δ with, before and after.
        vendor_uout: Uout comes from a file beside the edited one, which is written, not from dropout_lint;
            `auto` takes it where nothing else helps.
        prover: the proof process; None for the shared one.

    Returns:
        the edits that passed every proof, and what could not be expressed in source.

    Raises:
        UsageError: an unknown strategy, β outside (0, 1], or a file that stands where Uout would be written.
    """
    check_options(strategy, beta)
    trials = Trials(analysis)
    found = tuple(findings) if findings is not None else analysis.findings
    blank = Question(
        resolve=resolve or built.target,
        target=built.target,
        inputs=analysis.trace.inputs,
        files={},
        expected=(),
        texts=texts,
        checkpoint=built.checkpoint,
        meta=built.on_meta,
        options=analysis.options,
        batches=batches,
    )

    def plan(barred: Barred) -> Plan:
        return Planner(
            trials,
            found,
            writable=search.writable,
            strategy=strategy,
            beta=beta,
            barred=barred,
            compare=compare,
            uout=vendor_uout,
        ).plan()

    search = _Search(Sources(analysis.trace), trials.flow, found, plan, strategy == "auto", vendor_uout)
    prover = prover or shared()
    with prover.originals() as original:
        return search.run(prover, original, blank)


def draft_source(trials: Trials, findings: Sequence[Finding]) -> Plan:
    """What `fix_source` will do, as far as it is known before the proofs: a plan that source can say.

    Args:
        trials: of the target as it was linted.
        findings: what of its findings is to be fixed.
    """

    def plan(barred: Barred) -> Plan:
        return Planner(trials, findings, barred=barred, compare=False).plan()

    return _Search(Sources(trials.trace), trials.flow, findings, plan).draft()


@dataclass
class _Search:
    """The way to a plan that source can say and that passes every proof.

    Attributes:
        sources: the user's files.
        flow: the graph.
        found: what is to be fixed.
        plan: the best plan without what did not go.
        auto: whether the tool chose the strategy itself, so that it leaves nothing that does nothing.
        vendor_uout: see `fix_source`.
        barred: what did not go.
        tried: places that the dropouts of a line were kept to, or went to, and did not go.
        refusals: what source said first about a dropout that was then kept to another place.
        reasons: why a dropout is left, and what to do by hand, by its name.
        notes: why a dropout got another fix than the first choice.
    """

    sources: Sources
    flow: Ancestry
    found: Sequence[Finding]
    plan: Callable[[Barred], Plan]
    auto: bool = True
    vendor_uout: bool = False
    barred: Barred = field(default_factory=Barred)
    tried: set[tuple[object, ...]] = field(default_factory=set)
    refusals: dict[str, CannotExpress] = field(default_factory=dict)
    reasons: dict[str, tuple[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def writable(self, steps: Sequence[Step]) -> bool:
        """Whether source can say these steps."""
        try:
            self._changes(steps)
        except (CannotExpress, DropoutLintError):
            return False
        return True

    def draft(self) -> Plan:
        """The first plan that can be written, without any proof."""
        self._bar_foreign()
        for _ in range(ROUNDS):
            plan = self.plan(self.barred)
            if not plan.steps:
                break
            try:
                self._written(plan.steps)
                break
            except CannotExpress as error:
                self._bar(plan, error)
        return replace(plan, skipped=self._skipped(plan))

    def run(self, prover: Prover, original: Original, blank: Question) -> SourceFix:
        """Plan, write and prove, each time without what did not go before.

        Args:
            prover: the proof process.
            original: what the unedited model gave it.
            blank: the question to prove, without the edits.

        Raises:
            FixError: no edit could be proven harmless.
        """
        if self._bar_foreign():
            prover.start()  # it loads torch while the strategies are weighed
        for _ in range(ROUNDS):
            plan = self.plan(self.barred)
            if not plan.steps:
                return self._result(plan, (), Proof(()))
            try:
                changes, expression, dead = self._written(plan.steps)
                orphans = len(expression.orphans)
                proof = prover.ask(self._question(blank, plan, changes, orphans), original)
            except CannotExpress as error:
                self._bar(plan, error)
                continue
            except FixError as error:
                self._fail(plan, error)
                continue
            if orphans:
                self.notes.append(
                    "a constructor stays, since other lines of its class still use the dropout (DL406)"
                )
            self.notes += [*expression.notes, *reader_notes(self.flow, plan.steps)]
            self.notes += [f"{item} does nothing any more" for item in dead if not item.stored]
            if expression.uout.needs_us:
                self.notes.append(NEEDS_US)
            self.notes += other_users(expression.edits, self.sources.trace.model, blank.target)
            return self._result(plan, changes, proof)
        raise FixError(
            "no edit of the source could be proven harmless", "the files stay as they were; " + GRAPH_FIX
        )

    def _written(self, steps: Sequence[Step]) -> tuple[tuple[Change, ...], Expression, list[Dead]]:
        """`_changes`, and the arguments that do nothing afterwards.

        Raises:
            CannotExpress: as `_changes`; or there are some, and the tool chose the strategy.
        """
        changes, expression = self._changes(steps)
        dead = dead_arguments(changes)
        if self.auto:
            refuse_dead(self.sources, steps, dead)
        return changes, expression, dead

    def _changes(self, steps: Sequence[Step]) -> tuple[tuple[Change, ...], Expression]:
        """The edited files, and the edits that made them, with what is to be noted about them.

        Raises:
            CannotExpress: a step cannot be written, or nothing would change.
            UsageError: what holds Uout has to be written, and a file of that name is there.
        """
        wrong = [finding.dropout.node for finding in self.found if isinstance(finding.dropout, DropoutSite)]
        expression = Expression(self.sources, steps, wrong, vendor_uout=self.vendor_uout)
        try:
            edits = expression.write()
        except DropoutLintError as error:
            raise CannotExpress(error.message, error.hint or GRAPH_FIX, steps[0]) from error
        taken = expression.uout.taken
        if taken is not None:
            raise UsageError(
                f"{display(taken)} is there already, and is not what --vendor-uout would write",
                "rename it, or leave --vendor-uout out",
            )
        changes = []
        for edit in edits.values():
            after = edit.result()
            if after != edit.source.raw.text:
                changes.append(Change(edit.source.path, edit.source.raw, after))
        if not changes:
            raise CannotExpress(
                "one line runs it and its new place, in an order that is made elsewhere", GRAPH_FIX, steps[0]
            )
        changes += [Change(path, None, vendor.text()) for path in sorted(expression.uout.new)]
        return tuple(changes), expression

    def _question(self, blank: Question, plan: Plan, changes: Sequence[Change], orphans: int) -> Question:
        return replace(
            blank,
            files={str(change.path): change.after for change in changes},
            expected=[*(item.rule.code for item in plan.after.findings), *(["DL406"] * orphans)],
            repaired=any("DL401" in step.codes for step in plan.steps),
            named=named_by(self.sources.trace, plan.steps),
        )

    def _bar_foreign(self) -> bool:
        """Bar the dropouts that no edit can change, before anything is weighed; whether one is left."""
        refused: dict[tuple[str, str], list[str]] = {}
        fixable = [item.dropout for item in self.found if can_be_fixed(item)]
        sites = {site.node: site for site in fixable if isinstance(site, DropoutSite)}
        for node, site in sites.items():
            error = self.sources.refusal(site)
            if error is None:
                continue
            self.barred.actions |= {(node.name, action) for action in get_args(Action)}
            self.reasons[site.name] = (error.reason, error.advice)
            refused.setdefault((error.reason, error.advice), []).append(site.name)
        self.notes += [
            f"{numbered(names, 3)}: cannot be changed in source: {reason}; {advice}"
            for (reason, advice), names in refused.items()
        ]
        return sum(map(len, refused.values())) < len(sites)

    def _bar(self, plan: Plan, error: CannotExpress) -> None:
        """Keep a step that source cannot say, and all that share its line, out of the next plan."""
        step = error.step or plan.steps[0]
        if step.action == "move" and self._another_place(plan, step, error):
            return
        action = "move" if step.action == "merge" else step.action
        same = [site for site in self.sources.trace.dropouts if _shares_line(step.site, site)]
        sites = {site.node.name: site for site in (*same, step.site)}
        if step.action == "merge" and step.into is not None:
            sites[step.into.node.name] = step.into
        for name in sites:
            self.barred.actions.add((name, action))
        if step.action == "reduce" and step.anchor is not None:
            return  # it moves all the same, and the plan says what is left of it
        other = {item.site.node.name for item in plan.steps if item.action not in (action, "merge")}
        planned = {item.site.name for item in plan.steps}
        own = {item.dropout: (item.reason, item.advice) for item in plan.skipped}
        for name in sites.keys() - other:  # the first choice's counts
            site, why = sites[name], (error.reason, error.advice)
            self.reasons.setdefault(site.name, why if site.name in planned else own.get(site.name, why))
        self.notes.append(f"{step.site.name}: cannot {action} in source: {error.reason}; {error.advice}")

    def _another_place(self, plan: Plan, step: Step, error: CannotExpress) -> bool:
        """Keep the dropouts of a line to the best place that one edit makes for all of them, if one is left.

        Each would have gone to its own: one edit is what a person would write, where each has the place.
        """
        line = old_key(self.sources, step.site)
        found = {
            item.dropout.node: item.dropout for item in self.found if isinstance(item.dropout, DropoutSite)
        }
        sites = [site for site in found.values() if old_key(self.sources, site) == line]
        ranks: dict[tuple[object, ...], dict[str, list[tuple[int, tuple[str, ...]]]]] = {}
        gone: set[tuple[object, ...]] = set()
        for site in sites:
            planned = [item.anchor for item in plan.steps if item.site is site]
            for rank, anchor in enumerate(anchors_for(self.flow, site)):
                with contextlib.suppress(CannotExpress):
                    place = (line, new_place(self.sources, anchor, site).key)
                    ranks.setdefault(place, {}).setdefault(site.node.name, []).append((rank, anchor.key))
                    gone |= {place for item in planned if item is not None and item.key == anchor.key}
        self.tried |= gone if len(gone) == 1 else set()
        places = [place for place, names in ranks.items() if len(names) == len(sites)]
        left = [place for place in places if place not in self.tried]
        if not left:
            return False
        best = min(left, key=lambda place: sorted((r[0][0] for r in ranks[place].values()), reverse=True))
        self.tried.add(best)
        for site in sites:
            self.barred.places[site.node.name] = frozenset(key for _, key in ranks[best][site.node.name])
            self.refusals.setdefault(site.name, error)
        return True

    def _fail(self, plan: Plan, error: FixError) -> None:
        """A proof failed: the most far-reaching kind of step of this plan is not tried again."""
        order = ("move", "merge", "remove", "repair", "uout", "reduce")
        kind = min((step.action for step in plan.steps), key=order.index)
        action = "move" if kind == "merge" else kind
        tried = [step for step in plan.steps if step.action in (kind, "merge" if action == "move" else kind)]
        listed = [step for step in tried if holder_of(self.sources, step.site) is not None]
        for step in listed or tried:  # lists of layers are where an edit goes wrong first
            self.barred.actions.add((step.site.node.name, action))
            self.reasons[step.site.name] = (error.message, GRAPH_FIX)
        self.notes.append(f"a source edit ({action}) was thrown away: {error.message}")

    def _skipped(self, plan: Plan) -> tuple[Skipped, ...]:
        """What the plan leaves, with the reasons that the source gave."""
        first = {name: (error.reason, error.advice) for name, error in self.refusals.items()}
        done = {step.site.name for step in plan.steps}
        reasons = self.reasons | {name: why for name, why in first.items() if name not in done}
        skipped = []
        for item in plan.skipped:
            reason = reasons.get(item.dropout or "")
            skipped.append(Skipped(item.dropout, item.codes, *reason) if reason is not None else item)
        return tuple(skipped)

    def _result(self, plan: Plan, changes: tuple[Change, ...], proof: Proof) -> SourceFix:
        return SourceFix(
            changes=changes,
            applied=tuple(applied(step) for step in plan.steps) if changes else (),
            skipped=self._skipped(plan),
            before=plan.before.whole.prediction,
            after=plan.after.whole.prediction,
            notes=tuple(dict.fromkeys(self.notes)),
            checks=proof.checks,
            weighed=plan.weighed,
            measured=(proof.before, proof.after),
            left=plan.after.whole.findings,
        )


def _shares_line(site: DropoutSite, other: DropoutSite) -> bool:
    if site.call is not None and site.call == other.call and site.functional == other.functional:
        return True
    return site.constructed is not None and site.constructed == other.constructed
