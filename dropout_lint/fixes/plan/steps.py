"""What the fix room hands on: steps, what they did, what was left and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import fx, nn

from dropout_lint.prediction.shifts import Prediction
from dropout_lint.trace.traced import DropoutSite

Action = Literal["move", "merge", "uout", "reduce", "remove", "repair"]
DELETING: tuple[Action, ...] = ("merge", "remove")
"""Actions after which there is one dropout less."""
ERASING: tuple[Action, ...] = ("move", *DELETING)
"""Actions after which no dropout is where it was."""

OWN_PLACE = "after its block's norm"


@dataclass(frozen=True)
class Anchor:
    """A place in the graph for a dropout: on the edges from `producer` to `users`.

    Attributes:
        producer: the node whose output is dropped.
        users: the consumers that see the dropped value; the others see the value as it was.
        place: the guideline's name of the place (`P6`, `H4`, `end of branch`, `after the last norm`).
        norm: the last norm before the place, None where there is none.
        settles: a milder rule may speak of the dropout there: it is better than where it was, not right.
    """

    producer: fx.Node
    users: tuple[fx.Node, ...]
    place: str
    norm: fx.Node | None = None
    settles: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for two anchors that are one place."""
        return (self.producer.name, *(user.name for user in self.users))


@dataclass(frozen=True)
class Step:
    """What happens to one dropout call.

    Attributes:
        site: the call.
        action: what is done to it; `merge` erases it because another one of its branch stays.
        anchor: where a moved dropout goes.
        into: the dropout that stays, for `merge`.
        value: new drop ratio (`move`, `reduce`) or β (`uout`); None keeps the ratio.
        kind: module class of the dropout afterwards, None where it stays what it is.
        codes: the rules that it answers.
        why: one line for people.
        gathered: for `merge`: the dropout that stays moves as well.
    """

    site: DropoutSite
    action: Action
    anchor: Anchor | None = None
    into: DropoutSite | None = None
    value: float | None = None
    kind: str | None = None
    codes: tuple[str, ...] = ()
    why: str = ""
    gathered: bool = False

    @property
    def settles(self) -> bool:
        """Whether a milder rule may still speak of the dropout afterwards."""
        return self.anchor is not None and self.anchor.settles


Way = Literal["dropout-lint fix", "dl.fix"]
"""In the user's source, or in the graph."""


@dataclass(frozen=True)
class Promise:
    """What a fix would do about one finding.

    Attributes:
        applicability: `automatic`, `manual` (advice alone) or `none`.
        strategy: how, None where nothing is done.
        title: the same in words, or the advice.
        delta_after: Δ at the finding's norm after all fixes, None where it is not known.
        by: what does it, None where nothing does.
    """

    applicability: Literal["automatic", "manual", "none"]
    strategy: str | None
    title: str
    delta_after: float | None = None
    by: Way | None = None


@dataclass(frozen=True)
class Applied:
    """One dropout that was fixed.

    Attributes:
        dropout: its name in the model that was linted.
        action: what was done.
        codes: the rules that it answers.
        title: one line for people.
        place: the guideline's name of the new place, for a move.
    """

    dropout: str
    action: Action
    codes: tuple[str, ...]
    title: str
    place: str | None = None


@dataclass(frozen=True)
class Skipped:
    """One finding that was left, why, and what to do by hand."""

    dropout: str | None
    codes: tuple[str, ...]
    reason: str
    advice: str


@dataclass(frozen=True)
class Weighed:
    """One strategy that `auto` weighed.

    Attributes:
        strategy: its name.
        kept: share of the mask variance of the dropouts in question that stays.
        worst_delta: the predicted Δ that is farthest from 1, None where there is no norm that shifts.
        remaining: how many of the findings would stay.
        chosen: whether it was taken.
    """

    strategy: str
    kept: float
    worst_delta: float | None
    remaining: int
    chosen: bool = False

    def describe(self) -> str:
        """One line: `move keeps 100 % of the noise, worst Δ 0.98 expected after training`."""
        delta = "no norm that shifts" if self.worst_delta is None else f"worst Δ {self.worst_delta:.2f}"
        findings = "finding" if self.remaining == 1 else "findings"
        left = f", {self.remaining} {findings} left" if self.remaining else ""
        return f"{self.strategy} keeps {self.kept:.0%} of the noise, {delta}{left}"


@dataclass(frozen=True)
class Fixed:
    """A fixed model.

    Attributes:
        model: a trainable module; the model that was passed in is untouched.
        applied: what was changed.
        skipped: what was left, with the reason and what to do by hand.
        strategy: the strategy that was asked for.
        method: `graph` for a rewritten torch.fx graph, `modules` where the model's own `forward` could be
            kept and only submodules were exchanged, `none` where nothing was changed.
        before: predicted Δ of the model that was passed in.
        after: predicted Δ of `model`.
        weighed: what `auto` weighed.
        checks: the proofs that were run, in words.
        notes: what is left to do with `model`, in words.
    """

    model: nn.Module
    applied: tuple[Applied, ...]
    skipped: tuple[Skipped, ...]
    strategy: str
    method: Literal["graph", "modules", "none"]
    before: Prediction
    after: Prediction
    weighed: tuple[Weighed, ...] = field(default=())
    checks: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    def to_code(self) -> str:
        """The `forward` of the fixed model as Python."""
        code = getattr(self.model, "code", None)
        return code.strip() + "\n" if isinstance(code, str) else repr(self.model) + "\n"

    def __str__(self) -> str:
        lines = [f"{type(self.model).__name__}: {len(self.applied)} fixed, {len(self.skipped)} left"]
        lines += [f"  {item.title}" for item in self.applied]
        lines += [
            f"  left: {item.dropout or 'model'} ({', '.join(item.codes)}): {item.reason}"
            for item in self.skipped
        ]
        lines += [f"  weighed: {item.describe()}" for item in self.weighed]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)
