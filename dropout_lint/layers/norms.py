"""Normalisation layers, and which of them remember the training variance."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm


@dataclass(frozen=True)
class NormSpec:
    """One norm as the rules and formulas need it.

    Attributes:
        kind: the class name, as the user wrote it.
        family: `batch`, `sync-batch`, `instance`, `layer`, `group`, `rms` or `local-response`.
        tracks: it normalises by running statistics in test mode.
        frozen: it normalises by running statistics in train mode as well, so that nothing can shift.
        channels: number of channels, None where it is not fixed.
        eps: added to the variance.
    """

    kind: str
    family: str
    tracks: bool
    frozen: bool = False
    channels: int | None = None
    eps: float = 1e-5

    @property
    def shifts(self) -> bool:
        """Whether dropout upstream makes its test-mode input differ from what it remembers."""
        return self.tracks and not self.frozen


# Class names of other packages whose norm always uses its stored statistics.
FROZEN_NAMES = frozenset(
    {"FrozenBatchNorm2d", "FrozenBatchNormAct2d", "FrozenBatchNorm", "FrozenBatchNorm3d"}
)
NAMED_FAMILIES = {
    "LayerNorm2d": "layer",
    "LayerNormFp32": "layer",
    "RmsNorm": "rms",
    "RMSNorm": "rms",
    "LlamaRMSNorm": "rms",
    "T5LayerNorm": "rms",
    "GlobalResponseNorm": "rms",
    "EvoNorm2dB0": "batch",
}


def describe_norm(module: nn.Module) -> NormSpec | None:
    """The norm that `module` is, decided by `isinstance`, or None if it is none."""
    kind = type(module).__name__
    names = {base.__name__ for base in type(module).__mro__}
    eps = float(getattr(module, "eps", 1e-5) or 1e-5)
    if names & FROZEN_NAMES:
        channels = getattr(module, "num_features", None)
        return NormSpec(kind, "batch", tracks=True, frozen=True, channels=channels, eps=eps)
    if isinstance(module, _NormBase):
        if isinstance(module, _InstanceNorm):
            family = "instance"
        elif isinstance(module, nn.SyncBatchNorm):
            family = "sync-batch"
        else:
            family = "batch"
        channels = module.num_features or None
        return NormSpec(kind, family, tracks=module.track_running_stats, channels=channels, eps=eps)
    if isinstance(module, nn.GroupNorm):
        return NormSpec(kind, "group", tracks=False, channels=module.num_channels, eps=eps)
    if isinstance(module, nn.LayerNorm):
        return NormSpec(kind, "layer", tracks=False, channels=module.normalized_shape[-1], eps=eps)
    if hasattr(nn, "RMSNorm") and isinstance(module, nn.RMSNorm):
        return NormSpec(kind, "rms", tracks=False, channels=module.normalized_shape[-1], eps=eps)
    if isinstance(module, nn.LocalResponseNorm):
        return NormSpec(kind, "local-response", tracks=False)
    return None
