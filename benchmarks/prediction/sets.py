"""The sets by name, and which settings of them are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence

from .settings import Network, Setting, settings

SETS = ("heldout", "tuning", "twelve")


def networks_of(name: str) -> Sequence[Network]:
    """The networks of a set; the module is read only now, so that nothing asks for data it does not use."""
    found: Sequence[Network] = importlib.import_module(f".{name}", __package__).NETWORKS
    return found


def chosen(name: str, only: Iterable[str] = ()) -> list[Setting]:
    """The set's settings; with `only` those of these networks, or with these keys.

    Raises:
        SystemExit: a name in `only` is neither a network nor a setting of the set.
    """
    every = list(settings(networks_of(name)))
    wanted = set(only)
    unknown = wanted - {s.key for s in every} - {s.network.name for s in every}
    if unknown:
        names = ", ".join(dict.fromkeys(s.network.name for s in every))
        raise SystemExit(
            f"no such network or setting in {name}: {', '.join(sorted(unknown))} (one of {names})"
        )
    return [s for s in every if not wanted or {s.key, s.network.name} & wanted]
