"""The grammar of a target: `pkg.mod:attr(kw=literal)`, `file.py:attr(Config(…))`, `file.py`, a folder."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dropout_lint.errors import TargetError

_FORMS = (
    "a target is `pkg.module:attr`, `pkg.module:attr(kw=literal)`, `file.py:attr`, `file.py`, a folder or an "
    "exported program (`file.onnx`, `.pt2`, `.pt`)"
)
CONFIGURATIONS = (".yaml", ".yml")
PROGRAMS = (".onnx", ".pt2", ".pt", ".ts")
"""What is deployed and not built: read as it is."""
FILES = (".py", *CONFIGURATIONS, *PROGRAMS)
_ARGUMENTS = (
    "only literals (numbers, strings, True, None, lists, dicts) and calls of the module's own names, such as "
    "`Config(drop=0.5)`, go here; for more, write a factory without arguments and name that"
)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True)
class Call:
    """What stands after the colon: a chain of attributes and, for a call, its arguments.

    They are literals, and calls of other names of the same module, as a `Call` each. `text` is what was typed
    there.
    """

    attrs: tuple[str, ...]
    called: bool = False
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    text: str = field(default="", compare=False)

    @property
    def path(self) -> str:
        """`Class.method`."""
        return ".".join(self.attrs)


@dataclass(frozen=True)
class Spec:
    """A parsed target.

    Attributes:
        text: what was typed.
        module: dotted module name, or None where `path` is given.
        path: a Python file or a folder, or None where `module` is given.
        call: what to take from it, or None: discover.
    """

    text: str
    module: str | None
    path: Path | None
    call: Call | None

    @property
    def source(self) -> str:
        """What stands before the colon."""
        return self.module if self.module is not None else str(self.path)


def parse_target(text: str) -> Spec:
    """Split a target into its source and what to take from it.

    Raises:
        TargetError: the text has none of the forms, names a file that does not exist, or has arguments that
            are neither literals nor calls.
    """
    text = text.strip()
    if not text:
        raise TargetError("the target is empty", _FORMS)
    if not text.isprintable():
        raise TargetError(f"the target {text!r} holds line breaks or control characters", _FORMS)
    whole = Path(text)
    if whole.is_dir():
        return Spec(text, None, whole, None)
    left, right = _split(text)
    if right is None and "(" in left:
        raise TargetError(f"`{text}` has no colon before the attribute", _FORMS)
    if left.endswith(".ipynb"):
        script = str(Path(left).with_suffix(".py"))
        raise TargetError(
            f"`{left}` is a notebook, which cannot be imported",
            f"export it with `jupyter nbconvert --to script {left}` and lint {script}",
        )
    call = None if right is None else _parse_call(text, right)
    bare = call is None and left.endswith(PROGRAMS)  # `pkg.pt:attr` is a module
    if bare or _looks_like_path(left):
        return Spec(text, None, _existing_file(left, call), call)
    if not left or not all(part.isidentifier() for part in left.split(".")):
        raise TargetError(f"`{left}` is no module name and no Python file", _FORMS)
    if call is None:
        raise TargetError(f"`{text}` names no attribute", _bare_module_hint(left))
    return Spec(text, left, None, call)


def _split(text: str) -> tuple[str, str | None]:
    """Left and right of the first colon that is not a drive letter's."""
    start = 2 if _DRIVE.match(text) else 0
    at = text.find(":", start)
    if at < 0:
        return text, None
    return text[:at], text[at + 1 :]


def _looks_like_path(left: str) -> bool:
    return left.endswith((".py", *CONFIGURATIONS)) or "/" in left or "\\" in left or left.startswith("~")


def _existing_file(left: str, call: Call | None) -> Path:
    path = Path(left).expanduser()
    if path.is_dir():
        raise TargetError(
            f"`{left}` is a folder, and a folder has no attributes", f"name the file: {left}/file.py:attr"
        )
    if path.suffix in PROGRAMS and call is not None:
        raise TargetError(f"`{left}` is a deployed program, and has no attributes", f"name the file: {left}")
    if not path.exists():
        raise TargetError(f"there is no file or folder `{left}`", _near_file(path))
    if path.suffix not in FILES:
        raise TargetError(f"`{left}` is not a Python file", _FORMS)
    return path


def _near_file(path: Path) -> str:
    from difflib import get_close_matches

    folder = path.parent
    if not folder.is_dir():
        return f"the folder `{folder}` does not exist; paths are relative to {Path.cwd()}"
    names = [entry.name for entry in folder.iterdir() if entry.suffix in FILES and entry.exists()]
    near = get_close_matches(path.name, names, n=1)
    if near:
        return f"did you mean `{folder / near[0]}`?"
    return f"paths are relative to {Path.cwd()}"


def _bare_module_hint(left: str) -> str:
    parent, _, last = left.rpartition(".")
    if parent:
        return f"put a colon before the attribute: `{parent}:{last}`, or `{left}:attr`"
    return f"name what to build: `{left}:attr`"


def _parse_call(text: str, right: str) -> Call:
    if not right.strip():
        raise TargetError(f"`{text}` has nothing after the colon", _FORMS)
    try:
        tree = ast.parse(right.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise TargetError(
            f"`{right}` is not `attr` or `attr(kw=literal)`: {_syntax(error)}", _FORMS
        ) from None
    if isinstance(tree, ast.Call):
        return _call(text, tree, right.strip())
    return Call(_chain(text, tree), text=right.strip())


def _call(text: str, tree: ast.Call, typed: str) -> Call:
    attrs = _chain(text, tree.func)
    args = tuple(_argument(text, argument) for argument in tree.args)
    kwargs: dict[str, Any] = {}
    for keyword in tree.keywords:
        if keyword.arg is None:
            raise TargetError(f"`{text}` unpacks its arguments with **", "write each argument out")
        kwargs[keyword.arg] = _argument(text, keyword.value)
    return Call(attrs, True, args, kwargs, text=typed)


def _syntax(error: Exception) -> str:
    return (error.msg if isinstance(error, SyntaxError) else str(error)) or "syntax error"


def _chain(text: str, node: ast.expr) -> tuple[str, ...]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise TargetError(f"`{ast.unparse(node)}` in `{text}` is no attribute name", _FORMS)
    parts.append(node.id)
    return tuple(reversed(parts))


def _argument(text: str, node: ast.expr) -> Any:
    """A literal, a call of a name, or a list, tuple or dict of these."""
    if _is_literal(node):
        return ast.literal_eval(node)
    if isinstance(node, ast.Call):
        call = _call(text, node, ast.unparse(node))
        hidden = next((name for name in call.attrs if name.startswith("__")), None)
        if hidden is not None:
            raise TargetError(f"the argument `{call.text}` in `{text}` calls `{hidden}`", _ARGUMENTS)
        return call
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_argument(text, item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        keys = [ast.literal_eval(key) for key in node.keys if key is not None]
        return dict(zip(keys, [_argument(text, value) for value in node.values], strict=True))
    raise TargetError(f"the argument `{ast.unparse(node)}` in `{text}` is not a literal", _ARGUMENTS)


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """An argument with `change` applied to it, or to what a list, tuple or dict of them holds."""
    if type(value) in (list, tuple):
        return type(value)(mapped(item, change) for item in value)
    if type(value) is dict:
        return {key: mapped(item, change) for key, item in value.items()}
    return change(value)


def _is_literal(node: ast.expr) -> bool:
    """Whether Python's own reader of literals knows it: `set()` is one."""
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True
