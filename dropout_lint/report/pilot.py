"""A pilot as text: the networks that were trained, side by side."""

from __future__ import annotations

from dropout_lint.report.schema import CandidateInfo, PilotInfo
from dropout_lint.report.style import Style
from dropout_lint.report.words import prose
from dropout_lint.words import count, numbered, severity_of_shift

AS_IT_IS = "as it is"
_HEADS = ("worst Δ", "training loss", "held: train", "held: test")
_LONGEST = 24


def pilot_lines(pilot: PilotInfo, *, width: int = 80, color: bool = False) -> list[str]:
    """What was trained and what came of it, in lines of `width` columns."""
    style = Style(color)
    lines = [*prose(said(pilot), width), ""]
    labels = [label(one) for one in pilot.candidates]
    cells = [cells_of(one) for one in pilot.candidates]
    sizes = [max(len(head), *(len(row[at]) for row in cells)) for at, head in enumerate(_HEADS)]
    norms = [one.worst_norm for one in pilot.candidates]
    room = max(len("network"), *(len(name) for name in labels))
    least = max(8, width - room - sum(sizes) - 2 * (len(sizes) + 1))
    norm_room = min(least, _LONGEST, max(2, *(len(name) for name in norms)))
    head = [f"{'network':<{room}}", f"{_HEADS[0]:>{sizes[0]}}", f"{'at':<{norm_room}}"]
    head += [f"{name:>{size}}" for name, size in zip(_HEADS[1:], sizes[1:], strict=True)]
    lines.append(style.strong("  ".join(head)))
    for one, name, row in zip(pilot.candidates, labels, cells, strict=True):
        at = one.worst_norm
        at = at if len(at) <= norm_room else "…" + at[len(at) - norm_room + 1 :]
        shown = [f"{name:<{room}}", f"{row[0]:>{sizes[0]}}", f"{at:<{norm_room}}"]
        shown += [f"{cell:>{size}}" for cell, size in zip(row[1:], sizes[1:], strict=True)]
        lines.append(style.shift("  ".join(shown), severity_of_shift(one.worst_delta)))
    lines.append("")
    for one in fixed_once(pilot):
        lines += prose(f"{one.strategy}: {numbered(one.fixes, 3)}", width)
    for strategy, reason in pilot.skipped.items():
        lines += prose(f"{strategy}: not trained: {reason}", width)
    return lines if lines[-1] else lines[:-1]


def fixed_once(pilot: PilotInfo) -> list[CandidateInfo]:
    """The fixed networks, each once."""
    return [one for one in pilot.candidates if one.strategy is not None and one.same_as is None]


def said(pilot: PilotInfo) -> str:
    """How the networks were trained, and what their figures are."""
    held = (
        f"held back, the mean over {count(pilot.held_back_batches, 'batch', 'batches')}"
        f" ({count(pilot.held_back_samples, 'sample')}) in train mode and in test mode"
        if pilot.held_back_batches
        else "no batch was held back"
    )
    copies = "a copy" if len(pilot.candidates) == 1 else "a copy of each network"
    return (
        f"Pilot: {copies} was trained for {count(pilot.steps, 'step')} ({pilot.optimizer}, learning rate"
        f" {pilot.learning_rate:g}, seed {pilot.seed}), and Δ was measured there."
        f" Loss ({pilot.loss}): training, the mean over the last {count(pilot.loss_steps, 'step')}; {held}."
    )


def label(candidate: CandidateInfo) -> str:
    """The strategy of a candidate, and the other one that comes to the same."""
    if candidate.strategy is None:
        return AS_IT_IS
    return candidate.strategy + (f" = {candidate.same_as}" if candidate.same_as else "")


def cells_of(candidate: CandidateInfo) -> list[str]:
    """The numbers of a candidate as text."""
    losses = (candidate.training_loss, candidate.held_back_train_mode, candidate.held_back_test_mode)
    return [f"{candidate.worst_delta:.3f}", *("-" if loss is None else f"{loss:.4g}" for loss in losses)]
