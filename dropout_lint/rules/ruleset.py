"""Matches rules against a survey."""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dropout_lint.errors import RuleError
from dropout_lint.rules.conditions import Condition, compile_match, suggestion
from dropout_lint.rules.findings import Finding, ProgramFinding, Rule
from dropout_lint.survey.facts import Facts, of_shift
from dropout_lint.terms import SEVERITIES, Noise, nearness
from dropout_lint.words import with_interval

if TYPE_CHECKING:
    from dropout_lint.survey.deployed import InProgram
    from dropout_lint.survey.placements import Placement, Survey
    from dropout_lint.trace.traced import NormSite

APART = 0.05
"""A dropout's own channels are named beside the norm's where their Δ is lower by this much."""
MESSAGE_EXTRAS = (
    "dropout",
    "norm_name",
    "norm_kind",
    "threshold",
    "weight_layers",
    "shift",
    "ratio",
    "modes",
)
"""What a message may name besides the facts."""

SHARES = frozenset(("share", "own_delta"))
"""The facts that take each dropout's share to tell."""

DEFAULT_THRESHOLD = 0.95


@dataclass(frozen=True)
class RuleSet:
    """Rules, ready to be matched."""

    rules: tuple[Rule, ...]
    _conditions: Mapping[str, tuple[Condition, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        compiled = {}
        for rule in self.rules:
            match = rule.match if "subject" in rule.match else {**rule.match, "subject": "dropout"}
            compiled[rule.code] = compile_match(match)
        object.__setattr__(self, "_conditions", compiled)

    def __iter__(self) -> Any:
        return iter(self.rules)

    def get(self, word: str) -> Rule:
        """The rule with this code or name, upper or lower case.

        Raises:
            RuleError: there is none.
        """
        for rule in self.rules:
            if word.upper() == rule.code or word.lower() == rule.name:
                return rule
        codes = [rule.code for rule in self.rules]
        names = [rule.name for rule in self.rules]
        hint = suggestion(word.upper(), codes) or suggestion(word.lower(), names)
        raise RuleError(f'there is no rule "{word}"', hint + "`dropout-lint rule` lists them all.")

    def family(self, word: str) -> list[Rule]:
        """The rules whose code begins with `word`; none where it is a whole code or name."""
        upper = word.upper()
        whole = any(upper == rule.code or word.lower() == rule.name for rule in self.rules)
        return [] if whole or not word else [rule for rule in self.rules if rule.code.startswith(upper)]

    def selected(self, select: Iterable[str] | None = None, ignore: Iterable[str] = ()) -> tuple[Rule, ...]:
        """The rules that run.

        Args:
            select: codes, names, or prefixes of codes (`DL2`); None or `ALL` for all but those that are off,
                which run only when named by their code or name.
            ignore: the same, taken away again.

        Raises:
            RuleError: a word that is no code, name or prefix.
        """
        if select is None:
            chosen = {rule.code for rule in self.rules if rule.severity != "off"}
        else:
            chosen = set[str]().union(*(self._codes(word) for word in select))
        dropped = set[str]().union(*(self._codes(word, off=True) for word in ignore))
        return tuple(rule for rule in self.rules if rule.code in chosen - dropped)

    def _codes(self, word: str, *, off: bool = False) -> set[str]:
        upper = word.upper()
        exact = {rule.code for rule in self.rules if upper == rule.code or word.lower() == rule.name}
        if exact:
            return exact
        found = [rule for rule in self.rules if upper == "ALL" or (upper and rule.code.startswith(upper))]
        if not found:
            self.get(word)  # raises, with the nearest code
        return {rule.code for rule in found if off or rule.severity != "off"}

    def match(
        self,
        survey: Survey,
        *,
        select: Iterable[str] | None = None,
        ignore: Iterable[str] = (),
        threshold: float = DEFAULT_THRESHOLD,
    ) -> tuple[Finding, ...]:
        """The findings about `survey`, in the order of the data.

        A dropout call is reported once by the placement rules, whatever number of norms it reaches: by the
        severest that matches any of them; among equals by `precedence`, number of `match` keys and code. The
        finding shows the nearest norm that the rule matches. Rules with `report = "always"` are reported
        beside that. A dropout with p = 0 does nothing and is never reported; one that never drops in train
        mode, or drops all, shifts nothing that a move could help, so only the `always` rules look at it.

        Args:
            survey: the facts.
            select: see `selected`.
            ignore: see `selected`.
            threshold: Δ below which a shift counts; in rules, "threshold".
        """
        rules = self.selected(select, ignore)
        findings: list[Finding] = []
        for placements in _by_call(survey.placements):
            findings.extend(self._of_call(rules, placements, threshold))
        findings.extend(self._of_unused(rules, survey, threshold))
        findings.extend(self._of_norms(rules, survey, threshold))
        return tuple(findings)

    def weigh_shares(
        self,
        survey: Survey,
        *,
        select: Iterable[str] | None = None,
        ignore: Iterable[str] = (),
        threshold: float = DEFAULT_THRESHOLD,
    ) -> bool:
        """Whether what `match` finds depends on shares, of a survey that may be without them: a rule compares
        or tells one, and all else is as it says.
        """
        rules = [
            rule
            for rule in self.selected(select, ignore)
            if not SHARES.isdisjoint((*rule.match, *named_in(rule.message)))
        ]
        return any(
            all(
                condition.holds(place.facts, threshold)
                for condition in self._conditions[rule.code]
                if condition.fact not in SHARES
            )
            for rule in rules
            for place in survey.placements
        )

    def match_program(
        self,
        survey: Iterable[InProgram],
        *,
        select: Iterable[str] | None = None,
        ignore: Iterable[str] = (),
        threshold: float = DEFAULT_THRESHOLD,
    ) -> tuple[ProgramFinding, ...]:
        """The findings about the dropouts of a deployed program; the arguments are as for `match`."""
        rules = self.selected(select, ignore)
        found = []
        for place in survey:
            norm = place.norm
            names = {
                "dropout": place.dropout.name,
                "norm_name": norm.name if norm else None,
                "norm_kind": norm.kind if norm else None,
            }
            for rule in rules:
                if self._holds(rule, place.facts, threshold):
                    message = render_message(rule, place.facts, threshold, **names)
                    severity = rule.severity_of(place.facts)
                    found.append(ProgramFinding(rule, severity, message, place.dropout, norm, place.path))
        return tuple(found)

    def _holds(self, rule: Rule, facts: Facts, threshold: float) -> bool:
        for condition in self._conditions[rule.code]:  # noqa: SIM110 - a generator takes twice as long
            if not condition.holds(facts, threshold):
                return False
        return True

    def _of_call(
        self, rules: Sequence[Rule], placements: Sequence[Placement], threshold: float
    ) -> list[Finding]:
        facts = placements[0].facts
        if facts.p == 0:
            return []
        found = []
        best: tuple[tuple[Any, ...], Rule, Placement] | None = None
        for rule in rules:
            nearest = next((place for place in placements if self._holds(rule, place.facts, threshold)), None)
            if nearest is None:
                continue
            if rule.report == "always":
                found.append(_placed(rule, nearest, threshold))
                continue
            rank = (SEVERITIES.index(rule.reported_severity), -rule.precedence, -len(rule.match), rule.code)
            if facts.active_in_train and not facts.degenerate and (best is None or rank < best[0]):
                best = (rank, rule, nearest)
        if best is not None:
            found.insert(0, _placed(best[1], best[2], threshold))
        return found

    def _of_unused(self, rules: Sequence[Rule], survey: Survey, threshold: float) -> list[Finding]:
        found = []
        for unused in survey.unused:
            spec = unused.spec
            if not spec.is_noisy:
                continue
            facts = Facts(
                kind=spec.kind, noise=spec.noise.value, p=spec.p, inplace=spec.inplace, subject="unused"
            )
            for rule in rules:
                if self._holds(rule, facts, threshold):
                    message = render_message(rule, facts, threshold, dropout=unused.name)
                    found.append(Finding(rule, rule.severity_of(facts), message, unused, None, (), facts))
        return found

    def _of_norms(self, rules: Sequence[Rule], survey: Survey, threshold: float) -> list[Finding]:
        sites = {site.node.name: site for site in survey.trace.norms}
        found = []
        for shift in survey.shifts:
            site = sites.get(shift.node)
            if site is None or not site.spec.shifts:
                continue
            facts = replace(norm_facts(site), **of_shift(shift))
            for rule in rules:
                if self._holds(rule, facts, threshold):
                    names = {"norm_name": site.name, "norm_kind": site.spec.kind}
                    message = render_message(rule, facts, threshold, **names)
                    path = (site.node.name,)
                    found.append(Finding(rule, rule.severity_of(facts), message, None, site, path, facts))
        return found


def norm_facts(site: NormSite) -> Facts:
    """The facts about a norm, but for its shift."""
    spec = site.spec
    return Facts(
        kind=spec.kind,
        norm=spec.family,
        width=spec.channels,
        momentum=spec.momentum,
        recomputed=site.recomputed,
        subject="norm",
    )


def _by_call(placements: Iterable[Placement]) -> list[list[Placement]]:
    """Placements of one dropout call together."""
    calls: dict[int, list[Placement]] = {}
    for placement in placements:
        calls.setdefault(id(placement.dropout), []).append(placement)
    return list(calls.values())


def _placed(rule: Rule, placement: Placement, threshold: float) -> Finding:
    norm = placement.norm
    message = render_message(
        rule,
        placement.facts,
        threshold,
        dropout=placement.dropout.name,
        norm_name=norm.name if norm else None,
        norm_kind=norm.spec.kind if norm else None,
    )
    return Finding(
        rule,
        rule.severity_of(placement.facts),
        message,
        placement.dropout,
        norm,
        placement.path,
        placement.facts,
        placement,
    )


def distinct(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """For reports: `findings` less repeats that read the same; an unrolled loop makes one a round."""
    kept: dict[tuple[Any, ...], Finding] = {}
    for finding in findings:
        dropout = finding.dropout
        key = (
            finding.rule.code,
            dropout.name if dropout else None,
            finding.norm.name if finding.norm else None,
            getattr(dropout, "call", None),
        )
        kept.setdefault(key, finding)
    return tuple(kept.values())


def named_in(message: str) -> list[str]:
    """The names that a rule's message fills in.

    Raises:
        ValueError: it is no format.
    """
    return [name for _, name, _, _ in string.Formatter().parse(message) if name is not None]


class _Formatter(string.Formatter):
    """Formats facts; one that is unknown reads "unknown" whatever its format."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "unknown"
        return str(format(value, format_spec))


def render_message(rule: Rule, facts: Facts, threshold: float, **names: str | None) -> str:
    """The rule's message with the facts, and the names in `MESSAGE_EXTRAS`, filled in."""
    known: dict[str, Any] = dict.fromkeys(MESSAGE_EXTRAS)
    words = {
        "weight_layers": _weight_layers(facts),
        "shift": _shift(facts, threshold),
        "ratio": _ratio(facts),
        "modes": _modes(facts),
    }
    return _Formatter().vformat(
        rule.message, (), known | asdict(facts) | words | names | {"threshold": threshold}
    )


def _ratio(facts: Facts) -> str | None:
    """`p = 0.5`; of a DropBlock also what its blocks make of it."""
    if not facts.noise:
        return None
    ratio = f"{Noise(facts.noise).mask.symbol} = {facts.p:g}"
    if facts.zeroed is None:
        return ratio
    means = f"{facts.mean_low:.2f} to {facts.mean_high:.2f}"
    return f"{ratio}, zeroes {facts.zeroed:.2f} of the elements, whose means are {means} by position"


def _modes(facts: Facts) -> str | None:
    """`it drops, the norm goes by its stored statistics`."""
    if facts.norm_trains is None:
        return None
    dropout = "it drops" if facts.active_in_eval else "it drops nothing"
    norm = "normalises by the batch" if facts.norm_trains else "goes by its stored statistics"
    return f"{dropout}, the norm {norm}"


def _weight_layers(facts: Facts) -> str | None:
    """`1 weight layer`, `2 weight layers`."""
    amount = facts.weights_between
    return None if amount is None else f"{amount} weight layer{'' if amount == 1 else 's'}"


def _shift(facts: Facts, threshold: float) -> str:
    """`Δ = 0.70 (0.50–0.85)`; where the interval reaches over the threshold, that it may be harmless."""
    low, high = facts.delta_low, facts.delta_high
    interval = None if low is None or high is None else (low, high)
    text = f"Δ = {with_interval(facts.delta, interval)}"
    fed = facts.fed_delta
    if facts.delta is not None and fed is not None and abs(facts.delta - fed) >= APART:
        return f"{text}, {fed:.2f} on the channels that it feeds"
    ends = interval or (0.0, 0.0)
    reaches = ends[0] < 1 < ends[1] or max(nearness(end) for end in ends) >= threshold
    unsure = facts.delta is not None and nearness(facts.delta) < threshold and reaches
    return f"{text}, may be harmless" if unsure else text
