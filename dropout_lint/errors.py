"""The one family of exceptions: each names the cause and the next step."""

from __future__ import annotations


class DropoutLintError(Exception):
    """Something the tool could not do, said in one line, with the next step in another.

    Args:
        message: what is wrong, naming the thing that is wrong.
        hint: what the reader can do about it, or None where the message says it all.
        details: the user's own exception as text with their own lines, shown under the message.
    """

    def __init__(self, message: str, hint: str | None = None, *, details: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class UsageError(DropoutLintError):
    """A wrong option, argument or combination of them."""


class ConfigError(DropoutLintError):
    """`pyproject.toml`, a baseline or a settings file says something that is not allowed."""


class TargetError(DropoutLintError):
    """A target cannot be found, imported or built."""


class MissingImportError(TargetError):
    """A target needs a package that is not installed here."""


class NoModelError(TargetError):
    """A file or folder that holds no model which can be built without arguments.

    Args:
        passed: what was passed over and why, one sentence each.
        unseen: those of them that tell of what could not be looked at.
    """

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        details: str | None = None,
        passed: tuple[str, ...] = (),
        unseen: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, hint, details=details)
        self.passed = passed
        self.unseen = unseen


class InputError(DropoutLintError):
    """The example inputs do not fit the model, or none could be guessed."""


class CheckpointError(DropoutLintError):
    """A checkpoint cannot be read, or does not fit the model."""


class TraceError(DropoutLintError):
    """Nothing of the model could be traced."""


class RuleError(DropoutLintError):
    """A rule file is malformed, or a rule code is unknown."""


class FixError(DropoutLintError):
    """A fix could not be proven harmless, so it was not made."""


class MeasureError(DropoutLintError):
    """A measurement could not give a number that is one."""
