"""What the fixer says to people."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from torch import fx

from dropout_lint.fixes.plan.case import is_always_on_by_hand
from dropout_lint.fixes.plan.steps import OWN_PLACE, Action, Anchor, Step
from dropout_lint.rules.findings import Finding
from dropout_lint.terms import nearness
from dropout_lint.trace.traced import DropoutSite
from dropout_lint.words import count, listed, numbered, severity_of_shift

PLACES = {
    "P6": "after the branch's last norm and before its last weight layer; Kim et al. 2023, Guideline 1",
    OWN_PLACE: "where the next norm sees its noise through a weight layer; Li et al. 2019, case (b)",
    "H4": "before global pooling and after the last norm; Kim et al. 2023, Guideline 2",
}
"""What the papers' names of places mean."""
SEVERE = (
    "Nearly every network that was trained with a Δ below 0.5 lost test error by it, and none did with Uout "
    "or without dropout (benchmarks/results/retrain-fixed.md)"
)
MILDER = "a milder rule than before speaks of it at its new place"
BETTER_OFF = f"{MILDER}, and its module has no better one"
ADVICE = {
    "DL403": ("the drop ratio is no ratio", "give it a p with 0 < p < 1, or delete the dropout"),
    "DL402": (
        "switching it on would change training",
        "pass `training=self.training` if it should drop, else delete the call",
    ),
    "DL405": (
        "what it should drop is not written anywhere",
        "use nn.Dropout for vectors, or give the input its channel dimension",
    ),
    "DL501": (
        "the weights are fine, the stored statistics are not",
        "re-estimate them: `dropout-lint recalibrate TARGET --checkpoint IN --data mod:loader --output OUT`",
    ),
    "DL502": ("initialisation is not part of the graph", "call `dropout_lint.correct_init_(model, inputs)`"),
    "DL503": ("the weights are fine, the momentum is not", "give it one minus its momentum"),
    "DL504": (
        "where a norm is called is part of the model",
        "call it outside of the block, or give it the momentum 1 - (1 - m)**0.5",
    ),
}


def advice_for(finding: Finding, strategy: str = "auto") -> tuple[str, str]:
    """Why a finding was left, and what to do by hand."""
    code = finding.rule.code
    if code in ADVICE:
        return ADVICE[code]
    site = finding.dropout
    if site is not None and not isinstance(site, DropoutSite):
        return "it is built but never called", "call it where it belongs, or delete it"
    if site is not None and is_always_on_by_hand(site):
        return (
            "`training` is True at this call, by hand or by a flag of yours, which may be meant",
            "if it is (Monte-Carlo dropout), write `# dropout-lint: ignore[DL401] reason` on that line; "
            "else pass `self.training`, or call forward with the flag off",
        )
    if site is not None and site.rooted:
        return _advice_for_rooted(site)
    return _advice_for_strategy(finding, strategy)


def _advice_for_strategy(finding: Finding, strategy: str) -> tuple[str, str]:
    """The same where strategies were tried and none was good enough."""
    code = finding.rule.code
    if finding.rule.fix is None:
        return f"{code} has no automatic fix", f"see `dropout-lint rule {code}`"
    if strategy != "auto":
        return f"`{strategy}` does not answer {code} here", "try `--strategy auto`, or another strategy"
    return (
        f"no other place in its module, and no ratio of at least half of today's, answers {code}",
        "`--strategy uout`, `reduce` or `remove` change the noise itself: `dropout-lint fix` says which of "
        "them would answer it",
    )


def taken_place(anchor: Anchor, sites: Sequence[DropoutSite]) -> str:
    """Why dropouts do not go to one place: those of several blocks are there, go there or lie between."""
    if len({site.name for site in sites}) == 1:
        return (
            f"its calls have weight layers between them, and their place ({anchor.place}, before "
            f"{_before(anchor)}) is for one dropout"
        )
    names = list(dict.fromkeys(site.name for site in sites))
    shown = listed(names) if len(names) < 5 else numbered(names, 3)
    return (
        f"{shown} have weight layers between them, and their place ({anchor.place}, before "
        f"{_before(anchor)}) is for one dropout"
    )


def what_would(
    worst: Mapping[Action, float], in_graph: Collection[Action] = (), *, now: float | None = None
) -> str:
    """Which strategies would answer a finding that `auto` leaves, as advice, and what leaving it costs.

    Args:
        worst: the worst Δ of the whole network with each strategy.
        in_graph: the strategies that source cannot say.
        now: Δ at the norm that the finding is about.
    """
    how = {"move": "would, with one dropout for all"}
    ways = []
    for name, delta in worst.items():
        what = f'`dl.fix(…, strategy="{name}")`' if name in in_graph else f"`--strategy {name}`"
        alone = ", in the graph alone" if name in in_graph else ""
        ways.append(f"{what} {how.get(name, 'would')}{alone} (worst Δ {delta:.2f})")
    dear = f". {SEVERE}" if severity_of_shift(now) == "severe" else ""
    return "; ".join(ways) + f": they change the noise itself, so that is for you to decide{dear}"


def nothing_would(codes: Sequence[str]) -> str:
    """Advice where each strategy was tried."""
    return f"no strategy answers it without shifting another norm; see `dropout-lint rule {codes[0]}`"


def not_worth_it(before: float, after: float) -> str:
    """Why a fix is not made though a rule would be content with it."""
    if nearness(after) < nearness(before):
        return f"it would shift another norm more than this one is now: worst Δ {before:.2f} → {after:.2f}"
    return (
        f"it would not bring the norm nearer by enough to be told from the prediction's error: "
        f"Δ {before:.2f} → {after:.2f}"
    )


def held_by_others(norm: str, before: float, after: float) -> str:
    """Why a move is not made that helps the norm it was found at, and not the worst that its noise shifts."""
    return (
        f"it would help the norm that it is found at, and the worst that its noise shifts is then {norm}: "
        f"Δ {before:.2f} → {after:.2f}"
    )


def _advice_for_rooted(site: DropoutSite) -> tuple[str, str]:
    """The same for a dropout that no step can take out."""
    if site.inside:
        return (
            f"this dropout is inside {site.name} and cannot be moved out of it",
            "lower the `dropout` argument of that layer",
        )
    if site.translated:
        return (
            "it is a layer of Keras, which only its own model can be built of",
            "move it, or lower its rate, where the model is built",
        )
    if site.spec.noise.whole_branch:
        return (
            "its mask is written by hand, and drops whole branches, for which there is no better place",
            "lower its ratio, most of all in the first blocks, where the skip dilutes it least",
        )
    return (
        "its mask is written by hand, and what scales the values may stand elsewhere",
        "write `nn.Dropout` in its place, or name a class that does nothing else in "
        "`[tool.dropout-lint.dropouts]`, and fix again",
    )


def titled(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Steps with a line for people each; what the name of a place means is said once."""
    told: set[str] = set()
    result = []
    moved = {step.site.node for step in steps if step.action == "move"}
    for step in steps:
        place = step.anchor.place if step.anchor is not None and step.action == "move" else ""
        told_of = replace(step, gathered=step.into is not None and step.into.node in moved)
        result.append(replace(told_of, why=describe_step(told_of, explain=place not in told)))
        told.add(place)
    return tuple(result)


def describe_step(step: Step, *, explain: bool = True) -> str:
    """One line: what is done, and why: `move drop (Dropout, p = 0.5) to P6, before conv2`."""
    site = step.site
    name = f"{site.name} ({site.spec.kind}, {site.spec.noise.mask.symbol} = {site.spec.p:g})"
    codes = f" [{', '.join(step.codes)}]" if step.codes else ""
    return f"{_doing(step, name, explain)}{codes}"


def _doing(step: Step, name: str, explain: bool) -> str:  # noqa: PLR0911 - one for each action
    match step.action:
        case "move":
            return f"move {name} to {destination(step, explain=explain)}"
        case "merge":
            other = step.into.name if step.into is not None else "another one"
            does = "goes where both belong" if step.gathered else "already drops where it belongs"
            if other == step.site.name:
                return f"delete one call of {name}: another call of it {does}"
            return f"delete {name}: {other} {does}, and one dropout is enough there"
        case "uout":
            by_channel = ", channelwise=True" if step.site.spec.by_channel else ""
            return f"exchange {name} for Uout(beta={step.value:g}{by_channel})"
        case "reduce" if step.value is not None and step.value < step.site.spec.p / 2:
            return f"reduce {name} to p = {step.value:g}, which all but removes it"
        case "reduce":
            return f"reduce {name} to p = {step.value:g}"
        case "remove":
            return f"remove {name}"
        case "repair":
            return _repairing(step, name)


def _repairing(step: Step, name: str) -> str:
    if step.site.inside:
        return f"make {name} follow train() and eval(): its ratio is 0 in test mode"
    if "DL405" in step.codes:
        return f"make {name} a {step.kind}, which is made for inputs like its own"
    text = f"make {name} " + (f"a {step.kind} that follows" if step.kind else "follow")
    return text + " train() and eval()" + (", not in place" if step.site.spec.inplace else "")


def destination(step: Step, *, explain: bool = True) -> str:
    """Where a dropout moves to: `P6 (what that is), before conv2`, with a new class and its reason."""
    assert step.anchor is not None
    meaning = PLACES.get(step.anchor.place, "") if explain else ""
    before = _before(step.anchor)
    text = step.anchor.place + (f", before {before}" if before != "output" else "")
    text += f" ({meaning})" if meaning else ""
    if step.kind is not None and step.kind != step.site.spec.kind:
        text += f", as {step.kind}, which is made for the input there"
    if step.value is not None:
        text += f", with p = {step.value:g}"
    return text


def _before(anchor: Anchor) -> str:
    return ", ".join(dict.fromkeys(target_name(user) for user in anchor.users))


def linted_again(what: str, left: int) -> str:
    """What linting the result showed, where nothing was found that the plan did not expect."""
    rest = (
        f"{count(left, 'finding')} {'is' if left == 1 else 'are'} left" if left else "the findings are gone"
    )
    return f"the {what} was linted again: {rest}, nothing new is found"


def target_name(node: fx.Node) -> str:
    """What a graph node calls, for people."""
    return str(node.target) if node.op == "call_module" else node.name
