"""What is reported of a target that could not be linted, fixed or measured. No torch here."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

import msgspec

from dropout_lint.errors import DropoutLintError, MissingImportError, NoModelError
from dropout_lint.loading.usercode import UserCodeError
from dropout_lint.report.convert import error_info
from dropout_lint.report.outcome import Outcome
from dropout_lint.report.schema import TargetInfo


def empty(target: str, problem: NoModelError) -> list[Outcome]:
    """What a file or folder that may hold no model gives: nothing, unless a part could not be looked at."""
    if not problem.unseen:
        return []
    info = TargetInfo(target=target, status="partial", notes=list(problem.passed))
    return [Outcome(info=info, unseen=list(problem.unseen))]


def failure(
    target: str, problem: Exception, notes: Sequence[str] = (), unseen: Sequence[str] = ()
) -> Outcome:
    """The outcome of a target that could not be linted, with the notes of its model where one was built."""
    if isinstance(problem, DropoutLintError):
        hint = problem.hint or "run again with -v for the traceback"
        info = error_info(target, problem.message, hint, notes)
        details = problem.details
    else:
        info = error_info(
            target,
            internal(problem),
            "this is a bug in dropout-lint; run again with -v for the traceback and report it",
            notes,
        )
        details = None
    trouble = "".join(traceback.format_exception(problem))
    return Outcome(info=info, details=details, trouble=trouble, unseen=list(unseen))


def is_missing_import(problem: Exception) -> bool:
    """Whether a target could not be built since a package is not installed, at its import or later."""
    lazily = isinstance(problem, UserCodeError) and isinstance(problem.__cause__, ModuleNotFoundError)
    return lazily or isinstance(problem, MissingImportError)


def skipped(target: str, problem: Exception) -> Outcome:
    """The outcome of an optional target that needs what is not installed."""
    return Outcome(info=TargetInfo(target=target, status="partial", skipped=cause(problem)))


def unfixed(target: TargetInfo, problem: Exception | str) -> TargetInfo:
    """A target with the note that its model got no fix in source, and why."""
    return _noted(target, f"no fix in source: {cause(problem)}")


def unmeasured(target: TargetInfo, problem: Exception | str) -> TargetInfo:
    """A target with the note that its model was not measured, and why."""
    return _noted(target, f"not measured: {cause(problem)}")


def cause(problem: Exception | str) -> str:
    """What went wrong, in one line."""
    if isinstance(problem, str):
        return problem
    return problem.message if isinstance(problem, DropoutLintError) else internal(problem)


def internal(problem: Exception) -> str:
    """A fault of the tool itself, in one line."""
    return f"internal error: {type(problem).__name__}: {problem}"


def _noted(target: TargetInfo, note: str) -> TargetInfo:
    return msgspec.structs.replace(target, notes=[*target.notes, note])
