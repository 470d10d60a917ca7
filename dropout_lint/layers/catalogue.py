"""The catalogue of dropout and norm classes: torch's, the well-known ones, and those a project names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import nn

from dropout_lint.layers.dropouts import MODULES, NAMED_MODULES, DropoutSpec, Noise, ratio_of
from dropout_lint.layers.norms import NormSpec, describe_norm


@dataclass(frozen=True)
class ExtraDropout:
    """A dropout class that a project names in its configuration.

    Attributes:
        noise: what shares one draw of the mask.
        p: the attribute that holds the ratio.
        keeps: whether that attribute is the keep probability instead of the drop ratio.
    """

    noise: Noise = Noise.ELEMENT
    p: str = "p"
    keeps: bool = False


@dataclass(frozen=True)
class Catalogue:
    """Decides by `isinstance` (and, for other packages, by class name) what a module is.

    Attributes:
        extra_dropouts: class name, or `module.Class`, to how its ratio is read.
    """

    extra_dropouts: Mapping[str, ExtraDropout] = field(default_factory=lambda: MappingProxyType({}))

    def dropout(self, module: nn.Module) -> DropoutSpec | None:
        """The dropout that `module` is, or None. A dropout has no parameters and no children of its own."""
        kind = type(module).__name__
        inplace = bool(getattr(module, "inplace", False))
        for base in type(module).__mro__:
            extra = self.extra_dropouts.get(base.__name__) or self.extra_dropouts.get(
                f"{base.__module__}.{base.__qualname__}"
            )
            if extra is not None:
                return DropoutSpec(kind, extra.noise, ratio_of(module, (extra.p,), extra.keeps), inplace)
        for cls, noise in MODULES.items():
            if isinstance(module, cls):
                return DropoutSpec(kind, noise, ratio_of(module, ("p",)), inplace)
        if module._modules or module._parameters:
            return None
        for base in type(module).__mro__:
            named = NAMED_MODULES.get(base.__name__)
            if named is not None:
                noise, attributes, keeps = named
                if base.__name__ == "StochasticDepth" and getattr(module, "mode", "row") == "batch":
                    noise = Noise.BATCH
                channelwise = bool(getattr(module, "channelwise", False))
                return DropoutSpec(kind, noise, ratio_of(module, attributes, keeps), inplace, channelwise)
        return None

    def norm(self, module: nn.Module) -> NormSpec | None:
        """The norm that `module` is, or None."""
        return describe_norm(module)


STANDARD = Catalogue()
