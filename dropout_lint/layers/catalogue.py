"""The catalogue of dropout and norm classes: torch's, the well-known ones, and those a project names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import nn

from dropout_lint.layers.blocks import block_of
from dropout_lint.layers.dropouts import MODULES, NAMED_MODULES, DropoutSpec, ratio_of
from dropout_lint.layers.norms import NormSpec, describe_norm
from dropout_lint.terms import Noise


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
        extra = self._extra(module)
        if extra is not None:
            return DropoutSpec(kind, extra.noise, ratio_of(module, (extra.p,), extra.keeps), inplace)
        for cls, noise in MODULES.items():
            if isinstance(module, cls):
                if type(module).__module__.startswith("torch.ao.nn.quantized"):  # the identity in either mode
                    return DropoutSpec(kind, noise, 0.0, inplace)
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
                ratio = ratio_of(module, attributes, keeps)
                rescales = bool(getattr(module, "scale_by_keep", True))
                block = block_of(module) if noise is Noise.BLOCK else None
                return DropoutSpec(kind, noise, ratio, inplace, channelwise, rescales, block)
        return None

    def set_ratio(self, module: nn.Module, value: float) -> None:
        """Set the drop ratio of a dropout module, under the attribute that `dropout` reads it from.

        Raises:
            ValueError: no attribute of it holds the ratio, or it is computed.
        """
        for attribute, keeps in self._ratio_attributes(module):
            old = getattr(module, attribute, None)
            if isinstance(old, (int, float)) and not isinstance(old, bool):
                setattr(module, attribute, 1 - value if keeps else value)
                spec = self.dropout(module)
                if spec is not None and math.isclose(spec.p, value):
                    return
                setattr(module, attribute, old)
        raise ValueError(f"the ratio of a {type(module).__name__} cannot be set")

    def _extra(self, module: nn.Module) -> ExtraDropout | None:
        """How the project says that a module of this class, or of one that it is made from, is read."""
        for base in type(module).__mro__:
            extra = self.extra_dropouts.get(base.__name__) or self.extra_dropouts.get(
                f"{base.__module__}.{base.__qualname__}"
            )
            if extra is not None:
                return extra
        return None

    def _ratio_attributes(self, module: nn.Module) -> Iterator[tuple[str, bool]]:
        """Attributes that may hold the ratio, and whether it is the keep probability there."""
        extra = self._extra(module)
        if extra is not None:
            yield extra.p, extra.keeps
        for base in type(module).__mro__:
            named = NAMED_MODULES.get(base.__name__)
            if named is not None:
                yield from ((attribute, named[2]) for attribute in named[1])
        yield "p", False

    def norm(self, module: nn.Module) -> NormSpec | None:
        """The norm that `module` is, or None."""
        return describe_norm(module)


STANDARD = Catalogue()
