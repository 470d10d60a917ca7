"""One dropout call with everything that was found about it, and what may be tried for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from dropout_lint.fixes.graph.dropmodules import class_name
from dropout_lint.fixes.plan.flags import flag_of
from dropout_lint.fixes.plan.steps import Action, Anchor, Step
from dropout_lint.rules.findings import Finding
from dropout_lint.trace.traced import DropoutSite

SDPA = "F.scaled_dot_product_attention"
RANKS = {3: "Dropout1d", 4: "Dropout2d", 5: "Dropout3d"}
WRONG_RANK = "DL405"
ALWAYS_ON = "DL401"


def can_be_fixed(finding: Finding) -> bool:
    """Whether a step could answer a finding: it is about a dropout call, and its rule names a fix."""
    site = finding.dropout
    if not isinstance(site, DropoutSite) or finding.rule.fix is None:
        return False
    if site.translated:
        return False
    if site.inside:
        return finding.rule.code == ALWAYS_ON and site.functional and site.spec.kind == SDPA
    if is_always_on_by_hand(site):
        return False
    if finding.rule.code == WRONG_RANK:
        known = class_name(site.spec) in RANKS.values()
        return known and kind_for(site, rank_of(finding)) in RANKS.values()
    return not site.rooted


def is_always_on_by_hand(site: DropoutSite) -> bool:
    """Whether the call says `training=True` itself, or hands on a flag that is not the module's mode."""
    return site.functional and not site.inside and site.active_in_eval and bool(flag_of(site))


def rank_of(finding: Finding) -> int | None:
    """Number of dimensions of the dropout's input."""
    return finding.facts.input_rank if finding.facts is not None else None


def kind_for(site: DropoutSite, rank: int | None) -> str | None:
    """The class that drops whole channels of an input of `rank` dimensions, or elements of a vector's.

    None where that is what the dropout does already, or a class of somebody's own, which knows its input.
    """
    if rank is None or not site.spec.noise.channelwise:
        return None
    kind = class_name(site.spec)
    if kind is None and rank in RANKS:
        return None
    if site.spec.noise.mask.keeps_moments:
        return "AlphaDropout" if rank < 3 else None
    wanted = RANKS.get(rank, "Dropout" if rank < 3 else None)
    return None if wanted == kind else wanted


@dataclass
class Case:
    """One dropout call with everything that was found about it."""

    site: DropoutSite
    findings: list[Finding] = field(default_factory=list)
    action: Action | None = None
    anchors: list[Anchor] = field(default_factory=list)
    tried: int = 0

    @property
    def codes(self) -> tuple[str, ...]:
        """The rules that found it."""
        return tuple(dict.fromkeys(finding.rule.code for finding in self.findings))

    @property
    def repairs(self) -> bool:
        """Whether something is to be repaired where it stands."""
        return any(finding.rule.fix == "repair" for finding in self.findings)

    @property
    def places(self) -> list[Finding]:
        """What was found about its place, its ratio or its number."""
        return [finding for finding in self.findings if finding.rule.fix != "repair"]

    @property
    def first_rule_fix(self) -> Action:
        """What the first rule that found its place names."""
        return next((finding.rule.fix for finding in self.places if finding.rule.fix), "repair")

    @property
    def movable(self) -> bool:
        """Whether its noise may go to another place."""
        return self.site.spec.noise.movable

    def repair(self) -> Step | None:
        """The step that repairs it where it stands, None where torch has no module for its noise."""
        spec = self.site.spec
        kind = kind_for(self.site, rank_of(self.findings[0]))
        if kind is None and not self.site.inside and class_name(spec) is None and self.site.functional:
            return None
        codes = tuple(finding.rule.code for finding in self.findings if finding.rule.fix == "repair")
        return Step(self.site, "repair", kind=kind, codes=tuple(dict.fromkeys(codes)))
