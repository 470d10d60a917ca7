"""`plan`: for every finding, what a fix would do about it, cheaply enough for every lint run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import fx

from dropout_lint.analysis import Analysis
from dropout_lint.fixes.graph.dropmodules import beta_for
from dropout_lint.fixes.graph.rewrite import Rewriter
from dropout_lint.fixes.plan.anchors import anchors_for
from dropout_lint.fixes.plan.merging import at_place
from dropout_lint.fixes.plan.steps import Action, Anchor, Promise, Step
from dropout_lint.fixes.plan.words import advice_for, target_name
from dropout_lint.graph.ancestry import Ancestry
from dropout_lint.rules.findings import Finding
from dropout_lint.trace.traced import DropoutSite

# Above this many nodes Δ after the fix is not predicted in a lint run: it costs a second prediction.
PREDICT_LIMIT = 1500

WEIGHED = "no first choice answers all findings; other places, Uout, a lower ratio and removal are weighed"


def plan(analysis: Analysis) -> Mapping[int, Promise]:
    """What the graph fix can do about each finding, by `id(finding)`.

    The strategy is the rule's own where the dropout can follow it. `delta_after` is Δ at the finding's norm
    after all of these fixes, from one more prediction; None where no norm is concerned or the graph is large.
    Where the rules still find something about these dropouts then, or something new, the title promises no
    more than that the strategies are weighed (one plan holds for all), and `delta_after` is None.
    """
    findings = analysis.findings
    if not findings:
        return {}
    flow = Ancestry(analysis.trace)
    infos: dict[int, Promise] = {}
    steps: dict[fx.Node, Step] = {}
    for finding in findings:
        info, step = _of(flow, finding)
        infos[id(finding)] = info
        if step is not None:
            steps.setdefault(step.site.node, step)
    if steps and len(flow.nodes) <= PREDICT_LIMIT:
        after, left = _after(analysis, list(steps.values()))
        sites = ((item.dropout, item.rule.code) for item in findings)
        known = {(site.node, code) for site, code in sites if isinstance(site, DropoutSite)}
        undecided = any(node in steps or (node, code) not in known for node, code in left)
        for finding in findings:
            norm = finding.norm
            info = infos[id(finding)]
            site = finding.dropout
            if undecided and isinstance(site, DropoutSite) and site.node in steps:
                infos[id(finding)] = Promise(applicability=info.applicability, strategy="auto", title=WEIGHED)
            elif norm is not None and info.applicability == "automatic" and norm.node.name in after:
                infos[id(finding)] = Promise(
                    applicability=info.applicability,
                    strategy=info.strategy,
                    title=info.title,
                    delta_after=after[norm.node.name],
                )
    return infos


def _of(flow: Ancestry, finding: Finding) -> tuple[Promise, Step | None]:
    site, fix = finding.dropout, finding.rule.fix
    if not isinstance(site, DropoutSite) or fix is None or site.rooted:
        _, advice = advice_for(finding)
        kind: Literal["manual", "none"] = "manual" if finding.rule.code != "DL502" else "none"
        return Promise(applicability=kind, strategy=None, title=advice), None
    action: Action = fix
    if action == "move" and not site.spec.noise.movable:
        action = "reduce"
    if action == "move":
        anchors = anchors_for(flow, site)
        if not anchors:
            beta = beta_for(site.spec)
            step = Step(site, "uout", value=beta, kind="Uout")
            return Promise(
                applicability="automatic", strategy="uout", title=f"exchange it for Uout(beta={beta:g})"
            ), step
        return _move(flow, site, anchors[0])
    titles = {
        "repair": "make it follow train() and eval(), out of place",
        "reduce": "lower its ratio until Δ is above the threshold",
        "remove": "remove it",
        "uout": "exchange it for Uout",
    }
    return Promise(applicability="automatic", strategy=action, title=titles[action]), None


def _move(flow: Ancestry, site: DropoutSite, anchor: Anchor) -> tuple[Promise, Step]:
    resident = next((other for other in at_place(flow, anchor) if other.node is not site.node), None)
    users = ", ".join(dict.fromkeys(target_name(user) for user in anchor.users))
    if resident is not None and resident.spec.is_noisy:
        title = f"delete it: {resident.name} already is the one dropout there"
        return Promise(applicability="automatic", strategy="move", title=title), Step(
            site, "merge", anchor, into=resident
        )
    title = (
        f"move it to {anchor.place}, before {users}" if users != "output" else f"move it to {anchor.place}"
    )
    return Promise(applicability="automatic", strategy="move", title=title), Step(site, "move", anchor)


def _after(analysis: Analysis, steps: Sequence[Step]) -> tuple[dict[str, float], set[tuple[fx.Node, str]]]:
    """Δ after these steps by the norms' old node names, one dropout for each place; and what is found then,
    as old nodes of dropouts with rule codes."""
    places: set[tuple[str, ...]] = set()
    kept: list[Step] = []
    for step in steps:
        if step.action == "move" and step.anchor is not None:
            if step.anchor.key in places:
                kept.append(Step(step.site, "merge", step.anchor))
                continue
            places.add(step.anchor.key)
        kept.append(step)
    rewriter = Rewriter(analysis.trace)
    rewritten = rewriter.apply(kept)
    old = {rewriter.mapped[site.node].name: site.node.name for site in analysis.trace.norms}
    after = analysis.again(rewritten)
    deltas = {
        old[shift.node]: shift.delta
        for shift in after.prediction.norms
        if shift.node in old and shift.delta is not None
    }
    found = {
        (rewriter.origin.get(item.dropout.node, item.dropout.node), item.rule.code)
        for item in after.findings
        if isinstance(item.dropout, DropoutSite)
    }
    return deltas, found
