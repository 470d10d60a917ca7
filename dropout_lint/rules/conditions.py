"""The `match` table of a rule: checked against the facts' types when it is read, compared when it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from dropout_lint.survey.facts import VALUES, Facts

THRESHOLD = "threshold"
"""Stands in a rule for `--delta-threshold`."""
SHORTFALL = "shortfall"
"""Stands in a rule for 1 − `--delta-threshold`: a directly fed norm of zero-mean input has Δ = 1 − p."""

Check = Callable[[Any, float], bool]
ORDERINGS: Mapping[str, Callable[[float, float], bool]] = {
    "below": lambda fact, limit: fact < limit,
    "above": lambda fact, limit: fact > limit,
    "at_least": lambda fact, limit: fact >= limit,
    "at_most": lambda fact, limit: fact <= limit,
    # a ratio that is off in either direction, as in Li et al.'s shift ratio max(Δ, 1/Δ)
    "outside": lambda fact, limit: fact < limit or fact * limit > 1,
}
LISTS = ("any_of", "none_of")
SCALARS = ("is", "not")
FLAGS = ("known", "or_unknown")
COMPARISONS = (*ORDERINGS, *SCALARS, *LISTS, *FLAGS)


class Malformed(Exception):
    """A `match` table, or one entry of it, says something that is not allowed: the reason and what is."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class FactType:
    """The type of one fact: `str`, `int`, `float` or `bool`, and whether it may be unknown (None)."""

    name: str
    base: str
    optional: bool

    def accepts(self, value: Any) -> bool:
        """Whether `value` can be compared with the fact for equality."""
        match self.base:
            case "bool":
                return isinstance(value, bool)
            case "int":
                return isinstance(value, int) and not isinstance(value, bool)
            case "float":
                return isinstance(value, (int, float)) and not isinstance(value, bool)
            case _:
                return isinstance(value, str)

    def describe(self) -> str:
        """What may stand for it in a rule."""
        words = {"str": "a string", "int": "a whole number", "float": "a number", "bool": "true or false"}
        values = VALUES.get(self.name)
        return words[self.base] if values is None else "one of " + ", ".join(values)


def fact_types() -> dict[str, FactType]:
    """Every fact that a rule may name."""
    types = {}
    for name, annotation in Facts.__annotations__.items():
        parts = [part.strip() for part in str(annotation).split("|")]
        types[name] = FactType(name, parts[0], "None" in parts)
    return types


def suggestion(word: str, words: list[str] | tuple[str, ...]) -> str:
    """`Did you mean "…"? ` for the nearest of `words`, else nothing."""
    near = get_close_matches(word, words, n=1)
    return f'Did you mean "{near[0]}"? ' if near else ""


@dataclass(frozen=True)
class Condition:
    """One compiled entry of a `match` table."""

    fact: str
    checks: tuple[Check, ...]
    unknown: bool | None

    def holds(self, facts: Facts, threshold: float) -> bool:
        """Whether the fact is as the rule says; a fact that is unknown meets only what allows for it."""
        value = getattr(facts, self.fact)
        if value is None or value != value:  # noqa: PLR0124 - NaN
            return bool(self.unknown)
        for check in self.checks:  # noqa: SIM110 - a generator takes twice as long
            if not check(value, threshold):
                return False
        return True


def compile_match(match: Mapping[str, Any]) -> tuple[Condition, ...]:
    """The conditions of a `match` table.

    Raises:
        Malformed: a name that is no fact, a comparison that does not exist, or a value of the wrong type.
    """
    types = fact_types()
    conditions = []
    for name, wanted in match.items():
        if name not in types:
            hint = suggestion(name, list(types)) + "The facts are: " + ", ".join(types) + "."
            raise Malformed(f'match.{name}: there is no fact "{name}"', hint)
        conditions.append(compile_condition(types[name], wanted))
    return tuple(conditions)


def compile_condition(kind: FactType, wanted: Any) -> Condition:
    """One entry of a `match` table."""
    if isinstance(wanted, list):
        wanted = {"any_of": wanted}
    if not isinstance(wanted, dict):
        wanted = {"is": wanted}
    if not wanted:
        raise Malformed(f"match.{kind.name}: an empty table", "Comparisons: " + ", ".join(COMPARISONS) + ".")
    checks: list[Check] = []
    unknown: bool | None = None
    for comparison, value in wanted.items():
        place = f"match.{kind.name}.{comparison}"
        if comparison not in COMPARISONS:
            hint = suggestion(comparison, COMPARISONS) + "Comparisons: " + ", ".join(COMPARISONS) + "."
            raise Malformed(f'{place}: there is no comparison "{comparison}"', hint)
        if comparison in FLAGS:
            if not isinstance(value, bool):
                raise Malformed(f"{place}: {value!r} is not true or false", f"Write {comparison} = true.")
            if comparison == "known":
                checks.append(_always if value else _never)
                unknown = not value
            else:
                unknown = value
        elif comparison in ORDERINGS:
            checks.append(_ordering(place, kind, comparison, value))
        else:
            checks.append(_membership(place, kind, comparison, value))
            if comparison in ("not", "none_of") and unknown is None:
                unknown = True
    return Condition(kind.name, tuple(checks), unknown)


def _always(fact: Any, threshold: float) -> bool:
    return True


def _never(fact: Any, threshold: float) -> bool:
    return False


def _ordering(place: str, kind: FactType, comparison: str, value: Any) -> Check:
    if kind.base not in ("int", "float"):
        raise Malformed(
            f"{place}: {kind.name} is no number, so it cannot be ordered",
            f"{kind.name} takes {kind.describe()}; use is, not, any_of or none_of.",
        )
    compare = ORDERINGS[comparison]
    if value == THRESHOLD and kind.base == "float":
        return compare
    if value == SHORTFALL and kind.base == "float":
        return lambda fact, threshold: compare(fact, 1 - threshold)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        allowed = f'a number, "{THRESHOLD}" or "{SHORTFALL}"' if kind.base == "float" else "a whole number"
        raise Malformed(f"{place}: {value!r} is not {allowed}", f"Write {allowed}.")
    limit = float(value)
    return lambda fact, threshold: compare(fact, limit)


def _membership(place: str, kind: FactType, comparison: str, value: Any) -> Check:
    if comparison in LISTS and not isinstance(value, list):
        raise Malformed(
            f"{place}: {value!r} is not a list", f"Write a list of values, each {kind.describe()}."
        )
    values = value if comparison in LISTS else [value]
    if not values:
        raise Malformed(f"{place}: an empty list", f"Write a list of values, each {kind.describe()}.")
    for item in values:
        _check_value(place, kind, item)
    if comparison in ("is", "any_of"):
        return lambda fact, threshold: fact in values
    return lambda fact, threshold: fact not in values


def _check_value(place: str, kind: FactType, item: Any) -> None:
    if not kind.accepts(item):
        raise Malformed(
            f"{place}: {item!r} is not {kind.describe()}", f"{kind.name} takes {kind.describe()}."
        )
    known = VALUES.get(kind.name)
    if known is not None and item not in known:
        hint = suggestion(item, known) + f"{kind.name} takes {kind.describe()}."
        raise Malformed(f'{place}: "{item}" is no value of {kind.name}', hint)
