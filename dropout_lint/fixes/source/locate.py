"""From a node of the graph to the expression that made it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import libcst as cst
from torch import fx, nn

from dropout_lint.config.installed import is_installed
from dropout_lint.fixes.modules import is_torch_forward, module_at
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.syntax import SourceFile, is_super
from dropout_lint.inputs.example import Location
from dropout_lint.trace.traced import DropoutSite, Trace


def is_foreign(path: str) -> bool:
    """Whether a file belongs to an installed package, or is none, so that it is never edited."""
    return path.startswith("<") or is_installed(path)


def own_file(name: str) -> str | None:
    """The path of a file that may be edited; None where an installed package has it, or it is none."""
    path = str(Path(name).resolve())
    return None if is_foreign(path) or not Path(path).is_file() else path


class Sources:
    """The user's files, looked up and parsed once each."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.files: dict[str, SourceFile] = {}
        self._own_file = cache(own_file)

    def own_path(self, location: Location | None) -> str:
        """The file of a location.

        Raises:
            CannotExpress: the location is unknown, or in a file that is not the user's.
        """
        if location is None:
            raise CannotExpress(
                "the line that makes it is not known",
                "use `dropout_lint.fix(model, inputs)`",
            )
        path = self._own_file(location.file)
        if path is None:
            name = Path(location.file).name
            raise CannotExpress(
                f"it is made in {name}, an installed package, which is never edited",
                "use `dropout_lint.fix(model, inputs)`, or subclass the block with the change",
            )
        return path

    def file(self, location: Location | None) -> SourceFile:
        """The file of a location, parsed.

        Raises:
            CannotExpress: the location is unknown, or in a file that is not the user's.
        """
        path = self.own_path(location)
        if path not in self.files:
            self.files[path] = SourceFile(Path(path))
        return self.files[path]

    def refusal(self, site: DropoutSite) -> CannotExpress | None:
        """Why no edit can change a dropout call; None where its line, or its constructor's, is the user's.

        Every way to write a step edits one of the two.
        """
        made = None if site.module is None else self.trace.constructed.get(site.module)
        first: CannotExpress | None = None
        for place in dict.fromkeys([made or site.node.meta.get("call"), site.node.meta.get("call")]):
            try:
                self.own_path(place)
            except CannotExpress as error:
                first = first or error
            else:
                return None
        return first

    # nodes

    def user_owner(self, node: fx.Node) -> str:
        """Qualified name of the module whose `forward` the user wrote and that makes the call of a node."""
        owner = str(node.meta.get("owner") or "")
        while owner and is_torch_forward(module_at(self.trace.model, owner)):
            owner = owner.rpartition(".")[0]
        return owner

    def container(self, node: fx.Node) -> str | None:
        """Outermost torch container (Sequential, …) that runs a node, None where user code calls it."""
        direct = str(node.meta.get("owner") or "")
        outer = self.user_owner(node)
        if direct == outer:
            return direct if self._is_container(direct) or self._runs_itself(node, direct) else None
        rest = direct.removeprefix(outer).lstrip(".") if outer else direct
        names = rest.split(".")
        for length in range(1, len(names) + 1):
            name = ".".join(filter(None, [outer, *names[:length]]))
            if is_torch_forward(module_at(self.trace.model, name)):
                return name
        return direct

    def _is_container(self, name: str) -> bool:
        return is_torch_forward(module_at(self.trace.model, name))

    def _runs_itself(self, node: fx.Node, name: str) -> bool:
        """Whether the call is of `super().forward(…)` in the forward of a Sequential of the user's."""
        if not isinstance(module_at(self.trace.model, name), nn.Sequential) or node.op != "call_module":
            return False
        location: Location | None = node.meta.get("call")
        try:
            source = self.file(location)
        except CannotExpress:
            return False
        assert location is not None
        here = [call for call in source.calls if source.range_of(call).start.line == location.line]
        return any(is_super(call, "forward") for call in here)

    def call(self, node: fx.Node) -> tuple[SourceFile, cst.Call]:
        """The call expression of a node in the user's forward; of its container where one runs it.

        Raises:
            CannotExpress: it cannot be told which expression it is.
        """
        location: Location | None = node.meta.get("call")
        source = self.file(location)
        assert location is not None
        call = source.call_at(location, self.callees(node)) or self._by_loop(source, location, node)
        if call is None and all(site.node is not node for site in self.trace.dropouts):
            call = source.only_call(location)
        if call is None:
            raise CannotExpress(
                f"line {location.line} of {source.path.name} has more than one call that this could be",
                "write the calls on lines of their own",
            )
        return source, call

    def callees(self, node: fx.Node) -> tuple[str, ...]:
        """How the callee of a node may read in source, the best first."""
        container = self.container(node)
        if container is not None:
            return self._names(container, self.user_owner(node))
        if node.op == "call_module":
            return self._names(str(node.target), str(node.meta.get("owner") or ""))
        if node.op == "call_method":
            return (str(node.target),)
        name = str(getattr(node.target, "__name__", node.target))
        site = next((site for site in self.trace.dropouts if site.node is node), None)
        return (name,) if site is None else (name, site.spec.kind.rpartition(".")[2])

    @staticmethod
    def _names(target: str, owner: str) -> tuple[str, ...]:
        relative = target.removeprefix(f"{owner}.") if owner else target
        text = "self"
        for part in relative.split("."):
            text += f"[{part}]" if part.isdigit() else f".{part}"
        last = relative.rpartition(".")[2]
        exact = (text, f"{text}.forward")
        return (*exact, last) if last.isidentifier() else exact

    def _by_loop(self, source: SourceFile, location: Location, node: fx.Node) -> cst.Call | None:
        """The only call of the line that can be of a list's item: `self.convs[i](…)` or a loop variable."""
        owner = str(node.meta.get("owner") or "")
        relative = str(node.target).removeprefix(f"{owner}.") if owner else str(node.target)
        base = relative.split(".")[0]
        here = [call for call in source.calls if source.range_of(call).start.line == location.line]
        indexed = [
            call
            for call in here
            if isinstance(call.func, cst.Subscript) and source.code(call.func.value) == f"self.{base}"
        ]
        if len(indexed) == 1:
            return indexed[0]
        if indexed and location.column > 1:
            column = source.column(location)
            return next((call for call in indexed if source.range_of(call).start.column == column), None)
        function = source.function(here[0]) if here else None
        if function is None:
            return None
        loops = loop_variables(function)
        named = [call for call in here if isinstance(call.func, cst.Name) and call.func.value in loops]
        return named[0] if len(named) == 1 else None

    def construction(self, name: str) -> tuple[SourceFile, cst.Call]:
        """The call that constructs a module.

        Raises:
            CannotExpress: it cannot be told which expression it is, or it is in an installed package.
        """
        location = self.trace.constructed.get(name)
        source = self.file(location)
        assert location is not None
        module = module_at(self.trace.model, name)
        kind = type(module).__name__
        call = source.call_at(location, (f"nn.{kind}", kind))
        if call is None:
            raise CannotExpress(
                f"the class of {name} is chosen elsewhere than on line {location.line} of {source.path.name}",
                "change it where the class is chosen, or use `dropout_lint.fix(model, inputs)`",
            )
        return source, call

    def check_static(self, name: str, call: cst.Call) -> None:
        """Refuse to exchange a constructor whose class is a variable: other users of the line need it.

        Raises:
            CannotExpress: the callee is not the class of the module.
        """
        kind = type(module_at(self.trace.model, name)).__name__
        callee = call.func
        last = callee.attr.value if isinstance(callee, cst.Attribute) else getattr(callee, "value", "")
        if last != kind:
            raise CannotExpress(
                f"the class of {name} comes from data, not from the line that constructs it",
                "change it where the class is chosen, or use `dropout_lint.fix(model, inputs)`",
            )

    def made_at(self, location: Location) -> list[str]:
        """All modules that one line constructs, in the order of the model."""
        return [name for name, place in self.trace.constructed.items() if place == location]


def loop_variables(function: cst.FunctionDef) -> set[str]:
    """Names that `for` binds in a function."""
    names: set[str] = set()

    class Visitor(cst.CSTVisitor):
        def visit_For(self, node: cst.For) -> None:
            collect(node.target)

    def collect(target: cst.CSTNode) -> None:
        if isinstance(target, cst.Name):
            names.add(target.value)
        for child in target.children:
            collect(child)

    function.visit(Visitor())
    return names
