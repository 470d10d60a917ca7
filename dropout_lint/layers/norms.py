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
        momentum: the share of each batch in the running statistics; None where all batches count alike, or
            there are none.
    """

    kind: str
    family: str
    tracks: bool
    frozen: bool = False
    channels: int | None = None
    eps: float = 1e-5
    momentum: float | None = None

    @property
    def shifts(self) -> bool:
        """Whether dropout upstream makes its test-mode input differ from what it remembers."""
        return self.tracks and not self.frozen


# Class names of other packages whose norm always uses its stored statistics.
FROZEN_NAMES = frozenset(
    {"FrozenBatchNorm2d", "FrozenBatchNormAct2d", "FrozenBatchNorm", "FrozenBatchNorm3d"}
)

# torch's own classes that normalise by what they see, and the attribute that holds the channels.
_STATELESS: tuple[tuple[type[nn.Module], str, str], ...] = (
    (nn.GroupNorm, "group", "num_channels"),
    (nn.LayerNorm, "layer", "normalized_shape"),
    (nn.RMSNorm, "rms", "normalized_shape"),
    (nn.LocalResponseNorm, "local-response", ""),
)


def describe_norm(module: nn.Module) -> NormSpec | None:
    """The norm that `module` is, decided by `isinstance` (frozen ones by name), or None if it is none."""
    kind = type(module).__name__
    eps = _eps(module)
    if FROZEN_NAMES & {base.__name__ for base in type(module).__mro__}:
        channels = getattr(module, "num_features", None)
        return NormSpec(kind, "batch", tracks=True, frozen=True, channels=channels, eps=eps)
    if isinstance(module, _NormBase):
        family = "sync-batch" if isinstance(module, nn.SyncBatchNorm) else "batch"
        family = "instance" if isinstance(module, _InstanceNorm) else family
        channels = module.num_features or None
        tracks = module.track_running_stats
        if family != "instance":  # test mode goes by what is stored, whether or not it is still updated
            tracks = module.running_var is not None
        momentum = module.momentum if tracks else None
        return NormSpec(kind, family, tracks=tracks, channels=channels, eps=eps, momentum=momentum)
    for cls, family, attribute in _STATELESS:
        if isinstance(module, cls):
            size = getattr(module, attribute, None)
            return NormSpec(
                kind, family, tracks=False, channels=size[-1] if isinstance(size, tuple) else size, eps=eps
            )
    return None


def _eps(module: nn.Module) -> float:
    """What the norm adds to the variance; others call other things `eps` (GIN: a weight)."""
    eps = getattr(module, "eps", None)
    return float(eps) if isinstance(eps, int | float) and eps else 1e-5
