"""Which modules have to be in train mode for a model to make the noise of training, norms in test mode.

Found by running it: once with everything but its norms in train mode, for the draws that there are to be, and
with ever more of it in train mode until they are all made. A call behind `if self.training:`, a mask written
by hand, a ratio that is 0 in test mode and a layer's own random numbers are thus all seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import nn

from dropout_lint.guard.modes import test_mode
from dropout_lint.guard.untouched import seed_everything, untouched
from dropout_lint.layers import Catalogue
from dropout_lint.remedies.draws import Draws, Site
from dropout_lint.remedies.modes import DropoutSwitch

SEED = 0
# by model, what was found for settings and shapes that were the same
_FOUND: WeakKeyDictionary[nn.Module, dict[object, Noise]] = WeakKeyDictionary()

Sizes: TypeAlias = "dict[Site, list[int | None]]"
Run = Callable[[int], Any]
"""Runs the model on the batch, repeated so many times."""


@dataclass(frozen=True)
class Noise:
    """What makes a model's noise.

    Attributes:
        gates: modules that have to be in train mode, besides its dropouts, so that all noise is made.
        left: the draws of train mode that are not made all the same.
        draws: how many are.
        shared: some draw does not grow with the batch: all samples see the same, or the same weights.
        unknown: why train mode could not be looked at, "" where it was.
    """

    gates: tuple[nn.Module, ...] = ()
    left: tuple[Site, ...] = ()
    draws: int = 0
    shared: bool = False
    unknown: str = ""

    def told(self, name: str) -> str:
        """What a user has to know of it, "" for nothing."""
        way = "name the module whose mode decides in `also`"
        if self.unknown:
            return (
                f"train mode of {name} could not be run, so that noise which it makes in train mode alone may"
                f" be missing ({self.unknown}): {way}"
            )
        if self.left:
            shown = ", ".join(map(str, self.left))
            return f"noise of {name} in train mode could not be switched on: {shown}; {way}"
        return ""


@dataclass
class _Search:
    """The search for the gates of one model."""

    model: nn.Module
    run: Run
    on: Callable[[nn.Module], bool]
    catalogue: Catalogue
    device: torch.device
    names: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = {id(module): name for name, module in self.model.named_modules()}

    def found(self, *, twice: bool) -> Noise:
        try:
            wanted = self._in_train_mode()
        except Exception as error:
            unknown = f"{type(error).__name__}: {error}".splitlines()[0]
            return self._noise({}, (), self._made({}), twice=twice, unknown=unknown)
        depth: dict[Site, int] = {}
        made = self._made({})
        missing = [site for site in wanted if site not in made]
        steps = max((len(self._ways(site)) for site in missing), default=0)
        for step in range(1, steps + 1):
            for site in missing:
                if site not in made:
                    depth[site] = step
            made = self._made(depth)
            if all(site in made for site in missing):
                break
        seen = {site.line for site in made}
        left = tuple(dict.fromkeys(site for site in missing if site not in made and site.line not in seen))
        helped = {site: deep for site, deep in depth.items() if site in made}
        if len(helped) < len(depth):  # what did not help is not to stay in train mode
            made = self._made(helped)
        return self._noise(helped, left, made, twice=twice)

    def _noise(
        self, depth: dict[Site, int], left: tuple[Site, ...], made: Sizes, *, twice: bool, unknown: str = ""
    ) -> Noise:
        shared = False
        if twice:
            more = self._made(depth, 2)
            shared = any(
                None in sizes or more.get(site) != [2 * size for size in sizes if size is not None]
                for site, sizes in made.items()
            )
        return Noise(self._gates(depth), left, sum(map(len, made.values())), shared, unknown)

    def _ways(self, site: Site) -> list[nn.Module]:
        """The module that draws and those that hold it, the innermost first; norms stay in test mode."""
        parts = site.owner.split(".") if site.owner else []
        holders = [self.model.get_submodule(".".join(parts[:end])) for end in range(len(parts), -1, -1)]
        return [module for module in holders if self.catalogue.norm(module) is None]

    def _gates(self, depth: dict[Site, int]) -> tuple[nn.Module, ...]:
        found = {id(module): module for site, deep in depth.items() for module in self._ways(site)[:deep]}
        return tuple(module for module in found.values() if not self.on(module))

    def _made(self, depth: dict[Site, int], times: int = 1) -> Sizes:
        """The draws with so many of each site's ways in train mode."""
        chosen = {id(module) for module in self._gates(depth)}
        with test_mode(self.model, lambda module: self.on(module) or id(module) in chosen):
            return self._seen(times)

    def _in_train_mode(self) -> Sizes:
        with untouched(self.model, self.device), test_mode(self.model):
            self.model.train()  # the user's own, which may set more than modes
            for module in self.model.modules():
                if self.catalogue.norm(module) is not None:
                    module.training = False
            return self._seen(1)

    def _seen(self, times: int) -> Sizes:
        with untouched(self.model, self.device), torch.no_grad(), DropoutSwitch(on=True):
            seed_everything(SEED, self.device)
            draws = Draws(self.model, self.names)
            with draws.watching():
                self.run(times)
            return draws.sizes


def find_noise(
    model: nn.Module,
    run: Run,
    on: Callable[[nn.Module], bool],
    catalogue: Catalogue,
    device: torch.device,
    *,
    key: object,
    twice: bool = False,
) -> tuple[Noise, bool]:
    """What makes the noise of `model`, and whether that is news.

    The model and the random state are left as they were. What was found is remembered for this model, as it
    is set now, and `key`.

    Args:
        model: already unwrapped.
        run: one pass on copies of what the model is called with.
        on: says of a module whether it is in train mode anyway.
        catalogue: which classes are norms.
        device: where the model runs.
        key: what else the answer depends on, such as the shapes of the batch.
        twice: look also at a batch that is twice as large, for `Noise.shared`.
    """
    chosen = tuple(index for index, module in enumerate(model.modules()) if on(module))
    key = (key, twice, chosen, _settings(model))
    known = _FOUND.setdefault(model, {})
    if key in known:
        return known[key], False
    known[key] = _Search(model, run, on, catalogue, device).found(twice=twice)
    return known[key], True


def _settings(model: nn.Module) -> tuple[object, ...]:
    """The numbers and words that modules are set by: rates may be changed between two calls."""
    return tuple(
        (name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, (bool, int, float, str)) and name != "training"
    )


@contextmanager
def gated(gates: tuple[nn.Module, ...]) -> Iterator[None]:
    """These modules in train mode, and afterwards as they were."""
    before = [(module, module.training) for module in gates]
    try:
        for module, _ in before:
            module.training = True
        yield
    finally:
        for module, mode in before:
            module.training = mode
