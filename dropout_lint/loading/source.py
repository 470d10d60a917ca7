"""What the source of a file says of its classes, factories and models, before it is imported."""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Iterator, Sequence
from typing import TypeGuard

from torch import nn

from dropout_lint.loading.naming import WITHOUT_MODELS, suggests_model
from dropout_lint.loading.returns import May, of_unknown_call, what_returns

_OTHER_BASES = (
    "object", "Exception", "Error", "Warning", "Enum", "Flag", "ABC", "Protocol", "NamedTuple", "TypedDict",
    "Dataset", "Sampler", "Loader", "Callback", "TestCase", "Optimizer", "Scheduler", "Function", "Config",
    "Struct",
)  # fmt: skip
SKIPPED_FUNCTIONS = ("main", "train", "test", "evaluate", "demo", "run")
# files of torch.nn.modules whose classes have no parameters, but for those with `reset_parameters`
_PARAMETERLESS = {
    "activation", "channelshuffle", "distance", "dropout", "flatten", "fold", "loss", "padding",
    "pixelshuffle", "pooling", "upsampling",
}  # fmt: skip

_LOADERS = {"torch.load", "torch.hub.load", "torch.jit.load"}
_BUILTINS = frozenset(dir(builtins)) - {"getattr", "next", "eval"}
_WITH_MODELS = {"torch", "torchvision", "timm", "transformers", "lightning", "pytorch_lightning", "hydra"}
_PLAIN_ANNOTATIONS = {
    "None", "int", "float", "str", "bool", "dict", "list", "set", "bytes", "Path", "Callable", "Iterator",
    "Iterable", "torch.Tensor", "Tensor", "torch.device", "DataLoader", "argparse.Namespace", "Namespace",
}  # fmt: skip


class Source:
    """What the source of a file says of its classes, factories and models, before it is imported."""

    def __init__(self, tree: ast.Module) -> None:
        self.nodes = list(_at_module_level(tree.body))
        self.known = _names_of_imports(self.nodes)
        self.functions = {node.name: node for node in self.nodes if isinstance(node, ast.FunctionDef)}
        self.classes = {node.name: node for node in self.nodes if isinstance(node, ast.ClassDef)}

    def may_hold_models(self) -> bool:
        """Whether it defines what could be a candidate, or builds a model of torch.nn."""
        return any(self._may_be_model(node) for node in self.nodes)

    def untold(self) -> tuple[list[str], list[str]]:
        """Functions and names that may give a model in a file that is not worth its import; none where the
        file has nothing to do with torch.
        """
        if not any(meant.partition(".")[0] in _WITH_MODELS for meant in self.known.values()):
            return [], []
        functions = [name for name, node in self.functions.items() if self._may_give(node) is May.PERHAPS]
        return functions, [name for node in self.nodes for name in self._models_by_name(node)]

    def _may_be_model(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.ClassDef):
            return _may_be_module(node)
        if isinstance(node, ast.FunctionDef):
            may = self._may_give(node)
            by_name = suggests_model(node.name) and may is May.PERHAPS
            return _is_annotated(node) or may > May.PERHAPS or by_name
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            values = [_unchained(value) for value in _items(node.value)]
            return bool(_public_names(node)) and any(self._judged(value) is May.SURELY for value in values)
        return False

    def _models_by_name(self, node: ast.stmt) -> list[str]:
        """Names that are bound to what a builder of models gives: `model = timm.create_model(…)`."""
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or not isinstance(node.value, ast.Call):
            return []
        given = self._judged(_unchained(node.value))
        return [name for name in _public_names(node) if given is May.LIKELY and suggests_model(name)]

    def _may_give(self, node: ast.FunctionDef) -> May:
        """What calling a function without arguments may give."""
        return self._returns(node, ()) if _may_be_factory(node) else May.NOT

    def _returns(self, node: ast.FunctionDef, path: tuple[str, ...]) -> May:
        if _is_annotated(node):
            return May.SURELY
        if node.returns is not None and ast.unparse(node.returns).partition("[")[0] in _PLAIN_ANNOTATIONS:
            return May.NOT
        given = May.PERHAPS if path else May.NOT
        return what_returns(node, lambda item: self._judged(item, (*path, node.name)), given)

    def _judged(self, node: ast.expr, path: tuple[str, ...] = ()) -> May:
        if not isinstance(node, ast.Call):
            return May.PERHAPS
        called = ast.unparse(node.func)
        head, dot, rest = called.partition(".")
        if called in self.functions:
            return May.NOT if called in path else self._returns(self.functions[called], path)
        if called in self.classes:
            return May.SURELY if _may_be_module(self.classes[called]) else May.NOT
        if head not in self.known:
            return May.NOT if called in _BUILTINS else of_unknown_call(called)
        meant = f"{self.known[head]}{dot}{rest}"
        package = meant.partition(".")[0]
        if package == "torch":
            return _of_torch(meant)
        return May.NOT if package in WITHOUT_MODELS else of_unknown_call(meant)


def _of_torch(meant: str) -> May:
    """What a call of something of torch gives; a loss has no parameters, and is no model."""
    package, _, name = meant.rpartition(".")
    if package == "torch.nn" or package.startswith("torch.nn.modules"):
        return May.SURELY if _may_have_parameters(vars(nn).get(name)) else May.NOT
    return May.PERHAPS if meant in _LOADERS else May.NOT


def _at_module_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that an import runs, those inside `if`, `try` and `with` too."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)) and not is_main_guard(node):
            yield from _at_module_level(node.body)
        if isinstance(node, (ast.If, ast.Try)) and not is_main_guard(node):
            yield from _at_module_level(node.orelse)
        if isinstance(node, ast.Try):
            for part in (*(handler.body for handler in node.handlers), node.finalbody):
                yield from _at_module_level(part)


def is_main_guard(node: ast.stmt) -> bool:
    """Whether it is `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def _may_be_module(node: ast.ClassDef) -> bool:
    bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    return any(not base.endswith(_OTHER_BASES) for base in bases)


def _is_annotated(node: ast.FunctionDef) -> bool:
    return node.returns is not None and "Module" in ast.unparse(node.returns)


def _may_be_factory(node: ast.FunctionDef) -> bool:
    """Whether it is public and can be called without arguments."""
    given = node.args
    optional = (
        len(given.defaults) == len(given.posonlyargs) + len(given.args) and None not in given.kw_defaults
    )
    return optional and not node.name.startswith(("_", *SKIPPED_FUNCTIONS))


def _public_names(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [item for target in targets for item in _items(target) if isinstance(item, ast.Name)]
    return [name.id for name in names if not name.id.startswith("_")]


def _items(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, (ast.Tuple, ast.List)) else [node]


def _unchained(value: ast.expr) -> ast.expr:
    """`nn.Sequential(…)` of `nn.Sequential(…).eval()`."""
    while (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Attribute)
        and isinstance(value.func.value, ast.Call)
    ):
        value = value.func.value
    return value


def _names_of_imports(nodes: Sequence[ast.stmt]) -> dict[str, str]:
    """Names that a file's imports bind → what they are; those of relative imports begin with a dot."""
    known: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                known[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            home = "." * node.level + (node.module or "")
            for alias in node.names:
                names = list(vars(nn)) if alias.name == "*" and home == "torch.nn" else [alias.name]
                known.update({(alias.asname or name): f"{home}.{name}" for name in names})
    return known


def _may_have_parameters(kind: object) -> TypeGuard[type[nn.Module]]:
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        return False
    resets = hasattr(kind, "reset_parameters") or hasattr(kind, "_reset_parameters")
    return resets or kind.__module__.rpartition(".")[2] not in _PARAMETERLESS
