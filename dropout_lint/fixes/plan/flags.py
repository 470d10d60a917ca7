"""The flag that a functional dropout is given, as it is written: a recording holds only what it came to."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

from dropout_lint.trace.traced import DropoutSite

FLAGS = ("training", "train")
POSITION = 2


@lru_cache(maxsize=64)
def calls_in(path: str) -> tuple[ast.Call, ...]:
    """All calls of a file, () where it cannot be read."""
    try:
        tree = ast.parse(Path(path).read_text())
    except (OSError, SyntaxError, ValueError):
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.Call))


def flag_of(site: DropoutSite) -> str:
    """What a functional dropout gets for `training`, as source; "" where it is not given, or not known."""
    if site.call is None or not site.functional:
        return ""
    name = site.spec.kind.rpartition(".")[2]
    here = [
        call
        for call in calls_in(site.call.file)
        if call.lineno <= site.call.line <= (call.end_lineno or call.lineno) and _name(call) == name
    ]
    flags = {_flag(call) for call in here}
    return flags.pop() if len(flags) == 1 else ""


def _name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _flag(call: ast.Call) -> str:
    for keyword in call.keywords:
        if keyword.arg in FLAGS:
            return ast.unparse(keyword.value)
    return ast.unparse(call.args[POSITION]) if len(call.args) > POSITION else ""
