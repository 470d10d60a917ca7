"""What the fixer says to people."""

from __future__ import annotations

from torch import fx

from dropout_lint.fixes.plan.steps import Step
from dropout_lint.rules.findings import Finding
from dropout_lint.trace.traced import DropoutSite
from dropout_lint.words import count

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
}


def advice_for(finding: Finding, strategy: str = "auto") -> tuple[str, str]:
    """Why a finding was left, and what to do by hand."""
    code = finding.rule.code
    if code in ADVICE:
        return ADVICE[code]
    site = finding.dropout
    if site is not None and not isinstance(site, DropoutSite):
        return "it is built but never called", "call it where it belongs, or delete it"
    if site is not None and site.rooted:
        return _advice_for_rooted(site)
    if finding.rule.fix is None:
        return f"{code} has no automatic fix", f"see `dropout-lint rule {code}`"
    if strategy != "auto":
        return f"`{strategy}` does not answer {code} here", "try `--strategy auto`, or another strategy"
    return f"no strategy answers {code} here", f"see `dropout-lint rule {code}`"


def _advice_for_rooted(site: DropoutSite) -> tuple[str, str]:
    """The same for a dropout that no step can take out."""
    if site.inside:
        return (
            f"this dropout is inside {site.name} and cannot be moved out of it",
            "lower the `dropout` argument of that layer",
        )
    return (
        "its mask is written by hand, and what scales the values may stand elsewhere",
        "write `nn.Dropout` in its place, and fix again",
    )


def describe_step(step: Step) -> str:
    """One line: `move layer1.0.drop (p = 0.5) to P6, before layer1.0.conv2`."""
    site = step.site
    symbol = {"Uout": "β", "GaussianDropout": "α"}.get(site.spec.kind, "p")
    name = f"{site.name} ({site.spec.kind}, {symbol} = {site.spec.p:g})"
    codes = f" [{', '.join(step.codes)}]" if step.codes else ""
    match step.action:
        case "move":
            where = step.anchor.place if step.anchor is not None else "its place"
            before = (
                ", ".join(target_name(user) for user in step.anchor.users) if step.anchor is not None else ""
            )
            text = f"move {name} to {where}" + (f", before {before}" if before != "output" else "")
            if step.kind is not None and step.kind != site.spec.kind:
                text += f", as {step.kind}"
        case "merge":
            other = step.into.name if step.into is not None else "another one"
            text = f"delete {name}: {other} is the one dropout of this place"
        case "uout":
            text = f"exchange {name} for Uout(beta={step.value:g})"
        case "reduce":
            text = f"reduce {name} to p = {step.value:g}"
        case "remove":
            text = f"remove {name}"
        case "repair":
            text = (
                f"make {name} "
                + (f"a {step.kind} " if step.kind else "a module ")
                + "that follows train() and eval()"
            )
            if site.spec.inplace:
                text += ", not in place"
    return text + codes


def linted_again(what: str, left: int) -> str:
    """What linting the result showed, where nothing was found that the plan did not expect."""
    rest = (
        f"{count(left, 'finding')} {'is' if left == 1 else 'are'} left" if left else "the findings are gone"
    )
    return f"the {what} was linted again: {rest}, nothing new is found"


def target_name(node: fx.Node) -> str:
    """What a graph node calls, for people."""
    return str(node.target) if node.op == "call_module" else node.name
