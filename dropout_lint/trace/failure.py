"""What went wrong in each way of tracing, and the one error that tells the user."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dropout_lint.errors import DropoutLintError, InputError
from dropout_lint.inputs.example import Inputs
from dropout_lint.words import numbered

_TORCH = str(Path(torch.__file__).parent) + "/"
_OWN = str(Path(__file__).parent) + "/"
# for inputs that --input cannot say
OTHER_INPUTS = "lists and other objects as `example_inputs = (…,)` in the model's file"


MOST_TOLD = 4


@dataclass(frozen=True)
class Failure:
    """One way that did not work."""

    method: str
    inputs: Inputs
    error: Exception

    def __post_init__(self) -> None:
        """Let go of what the frames of the error hold: the tensors of a whole model, for each failed try."""
        error: BaseException | None = self.error
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__context__

    @property
    def needs_values(self) -> bool:
        """Whether the inputs fit, but the model reads values that these materials do not have."""
        names = {"ValueRead", "DataDependentOutputException", "DynamicOutputShapeException"}
        return bool(names & {base.__name__ for base in type(self.error).__mro__})

    def looks_like_wrong_inputs(self, model: nn.Module) -> bool:
        """Whether the inputs do not bind to `forward`, or a layer refused their shape or dtype."""
        try:
            inspect.signature(model.forward).bind(*self.inputs.args, **self.inputs.kwargs)
        except TypeError:
            return True
        except ValueError:
            pass
        return isinstance(self.error, (RuntimeError, TypeError, IndexError, ValueError))


def explain(model: nn.Module, failures: list[Failure], kind: type[DropoutLintError]) -> DropoutLintError:
    """One error for all that was tried: the model's own exception, with the user's own line."""
    name = type(model).__name__
    if not failures:
        return kind(
            f"no example input could be guessed for {name}",
            "give its shape with --input, for example --input 8x3x32x32",
        )
    # real values give the truest message; without them, the first attempt's
    failure = next((failure for failure in failures if failure.method == "cpu"), failures[0])
    error = failure.error
    text = str(error).strip().splitlines()
    shown = f"{type(error).__name__}: {text[0] if text else ''}"
    given = ", ".join(failure.inputs.describe()) or "no arguments"
    guesses = tried(failures)
    signature = _signature(model)
    if kind is InputError or failure.inputs.guessed:
        hint = (
            f"{guesses + '; ' if guesses else ''}forward is {signature}; give inputs that fit it with "
            f"--input (AxBxC, AxB:int64, name=AxB, dict.key=AxB), {OTHER_INPUTS}"
        )
    else:
        hint = "the model's own forward raised this; run it on these inputs outside the linter"
    return kind(f"{name} could not be run on {given}: {shown}", hint, details=_users_line(error))


def tried(failures: Sequence[Failure]) -> str:
    """The guesses that were tried and did not run, in one phrase; "" where fewer than two were."""
    found = dict.fromkeys(item.inputs.describe() for item in failures if item.inputs.guessed)
    shown = [words[0] if len(words) == 1 else f"({', '.join(words)})" for words in found]
    return f"tried {numbered(shown, MOST_TOLD)}" if len(shown) > 1 else ""


def _signature(model: nn.Module) -> str:
    try:
        return f"forward{inspect.signature(model.forward)}"
    except (TypeError, ValueError):
        return "forward(...)"


def _users_line(error: Exception) -> str | None:
    """The deepest frame of the traceback that is neither torch's nor the tracer's, as Python shows it."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_TORCH, _OWN, "<"))
    ]
    if not frames:
        return None
    frame = frames[-1]
    return f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n    {frame.line}'
