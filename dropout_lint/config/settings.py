"""Settings: what `[tool.dropout-lint]` and the options of the command line say, under the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from dropout_lint.terms import Noise, Severity

Threshold = Annotated[float, msgspec.Meta(gt=0, le=1)]
Ratio = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Jobs = Annotated[int, msgspec.Meta(ge=1)]
SHOWN = {
    "targets", "strict", "exit_zero", "output_format", "output_file", "baseline",
    "show_predictions", "cache", "cache_dir", "jobs", "timeout", "own_code",
}  # fmt: skip
"""Settings that change what is looked at or how it is shown; all others decide what is found in a target."""
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Struct(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """Base of all settings."""


class DropoutClass(Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """A further dropout class of the project: `[tool.dropout-lint.dropouts]`, class name → this.

    Attributes:
        noise: what shares one draw of the mask.
        p: the attribute that holds the ratio.
        keeps: that attribute is the keep probability instead of the drop ratio.
    """

    noise: Noise = Noise.ELEMENT
    p: str = "p"
    keeps: bool = False


class TargetSettings(Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """One configured target and what differs for it; None means: as for all targets.

    `optional`: where a package that it imports is not installed, that is noted, and no failure.
    """

    target: str
    input: list[str] = []
    checkpoint: str | None = None
    select: list[str] | None = None
    ignore: list[str] | None = None
    delta_threshold: Threshold | None = None
    fail_on: Severity | None = None
    strict: bool | None = None
    assume_p: Ratio | None = None
    optional: bool = False


class Settings(Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """All settings, the command line's already laid over the file's.

    Attributes:
        targets: what is linted when no target is named.
        select: rule codes or prefixes that run, none: those that are on by default.
        ignore: rule codes or prefixes that do not run.
        rules: folders or files with further rules.
        dropouts: further dropout classes, by class name or `module.Class`.
        pythonpath: folders that modules are imported from, before those that are found by themselves.
        input: example inputs, `8x3x32x32[:dtype]` or `name=…`.
        checkpoint: weights to load.
        delta_threshold: the Δ below which a shift counts.
        assume_p: the ratio that dropouts are judged at whose own is 0 when the model is built.
        fail_on: the least severity that sets exit status 1.
        strict: a partly traced target, an unused ignore, and what of a file or folder could not be looked at
            count as findings do.
        allow_empty: a file or folder without a model is no error.
        exit_zero: findings leave the exit status at 0.
        own_code: findings in installed packages are left out.
        output_format: `FORMAT` or `FORMAT=FILE`.
        output_file: where the one format without a file of its own goes.
        baseline: file of the known findings.
        show_predictions: the text report lists Δ at every norm.
        cache: results of unchanged targets are reused.
        cache_dir: where they are kept.
        jobs: number of processes.
        timeout: seconds that one target may take, its fixes included.
    """

    targets: list[str | TargetSettings] = []
    select: list[str] = []
    ignore: list[str] = []
    rules: list[str] = []
    dropouts: dict[str, DropoutClass] = {}
    pythonpath: list[str] = []
    input: list[str] = []
    checkpoint: str | None = None
    delta_threshold: Threshold = 0.95
    assume_p: Ratio | None = None
    fail_on: Severity = "warning"
    strict: bool = False
    exit_zero: bool = False
    own_code: bool = False
    allow_empty: bool = False
    output_format: list[str] = []
    output_file: str | None = None
    baseline: str | None = None
    show_predictions: bool = False
    cache: bool = True
    cache_dir: str = ".dropout_lint_cache"
    jobs: Jobs = 1
    timeout: Seconds | None = None

    def for_target(self, target: str) -> Settings:
        """These settings with the overrides of the configured target that `target` is, or is found in."""
        own = next(
            (
                item
                for item in self.targets
                if isinstance(item, TargetSettings) and holds(item.target, target)
            ),
            None,
        )
        if own is None:
            return self
        changes = {
            name: value
            for name in ("checkpoint", "select", "ignore", "delta_threshold", "fail_on", "strict", "assume_p")
            if (value := getattr(own, name)) is not None
        }
        if own.input:
            changes["input"] = own.input
        return msgspec.structs.replace(self, **changes)

    def is_optional(self, target: str) -> bool:
        """Whether a target is configured as one whose packages may be missing."""
        return any(
            isinstance(item, TargetSettings) and item.optional and holds(item.target, target)
            for item in self.targets
        )

    def target_names(self) -> list[str]:
        """The configured targets, as they are written."""
        return [item if isinstance(item, str) else item.target for item in self.targets]


def holds(configured: str, target: str) -> bool:
    """Whether `target` is the configured one, or a model that was discovered in that file or folder."""
    return target == configured or target.startswith((f"{configured}:", f"{configured.rstrip('/')}/"))


class Loaded(msgspec.Struct, frozen=True):
    """Settings, where they were read and the folder that their paths are relative to.

    Attributes:
        settings: the settings; paths in them are absolute or relative to the current directory.
        file: the file they were read from, None where there is none.
        root: the folder of that file, else the current directory.
        given: kebab-case names of the keys that the file sets.
        roots: absolute folders that modules are imported from, beside the current one.
    """

    settings: Settings
    file: Path | None
    root: Path
    given: frozenset[str] = frozenset()
    roots: tuple[Path, ...] = ()
