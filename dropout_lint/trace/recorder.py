"""The recorder: runs a model's forward once and writes a node for each thing that happens."""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.values import replaced
from dropout_lint.layers import Catalogue, is_dropout_function
from dropout_lint.layers.assumed import idle_call
from dropout_lint.trace.build_and_call import is_told
from dropout_lint.trace.chance import Chance
from dropout_lint.trace.frames import in_checkpoint
from dropout_lint.trace.generators import watched
from dropout_lint.trace.gradients import HOOKS, Gradients
from dropout_lint.trace.leaves import SHAPE_KEEPING_FUNCTIONS, Leaves, recurrent_output
from dropout_lint.trace.materials import Materials, ValueRead, device_constructors
from dropout_lint.trace.observer import Observer
from dropout_lint.trace.origins import Origins
from dropout_lint.trace.sites import functional_dropout, functional_name, inner_dropout, is_active
from dropout_lint.trace.sizes import Comparison, SizeInt
from dropout_lint.trace.translated import Translation, translations
from dropout_lint.trace.trials import Behaviour, Trials
from dropout_lint.trace.values import describe, tensors_in
from dropout_lint.trace.witness import Witness
from dropout_lint.trace.writer import Writer

_VALUE_READS = frozenset(
    {
        *("item", "tolist", "numpy", "__array__", "equal", "allclose"),
        *("__bool__", "__int__", "__float__", "__index__", "__contains__"),
    }
)
_CHECKS = frozenset({"__bool__", "equal", "allclose", "__contains__"})
_HOLDERS = (nn.RNNBase, nn.MultiheadAttention)
_HOLDING_FUNCTIONS = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
"""What may hold a dropout of its own: findings name the column of their calls."""
_REMEMBERING = frozenset({"batch_norm", "instance_norm"})
"""Functions that may update running statistics."""
_TENSOR_PROPERTIES = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})


class Recorder(TorchFunctionMode):
    """Records one forward pass of `model` into the graph of its `writer`.

    Attributes:
        writer: holds the graph so far.
        made_in_forward: node → dropout module that the user's forward made and called.
        training: node of a leaf module → its `training` flag at the call.
        observer: what the witness saw of each node.
        test_mode: node of a dropout or norm whose class has a forward of its own → what that does.
        gradients: which tensors would require a gradient in training.
    """

    def __init__(
        self,
        model: nn.Module,
        catalogue: Catalogue,
        materials: Materials,
        names: Mapping[int, str],
        gradients: Gradients,
        *,
        chance: Chance,
    ) -> None:
        super().__init__()
        self.model = model
        self.witness = Witness()
        self.writer = Writer(materials, names, self.witness)
        self.observer = Observer(self.witness, self.writer)
        self.made_in_forward: dict[fx.Node, nn.Module] = {}
        self.training: dict[fx.Node, bool] = {}
        self.test_mode: dict[fx.Node, Behaviour] = {}
        self.gradients = gradients
        self._chance = chance
        self._catalogue = catalogue
        self._materials = materials
        self._leaves = Leaves(model, catalogue)
        self._calls: dict[str, int] = {}
        self._depth_inside_leaf = 0
        self._constructors = device_constructors()
        self._trials = Trials(catalogue, self.witness)

    # -- running ---------------------------------------------------------------------------------------------

    def run(self, inputs: Inputs, *, follow_dispatch: bool = False) -> Any:
        """Run the model's forward on stand-ins for `inputs`; returns what it returned.

        With `follow_dispatch`, tensors made by code that no function call shows are traced to their origins.
        """
        origins = Origins(self.writer.bindings) if follow_dispatch else None
        self.writer.origins = origins
        args, kwargs = self._placeholders(inputs)
        original_call = nn.Module.__call__
        thread = threading.get_ident()

        def call(module: nn.Module, *call_args: Any, **call_kwargs: Any) -> Any:
            if threading.get_ident() != thread:  # another thread's model
                return original_call(module, *call_args, **call_kwargs)
            return self._call_unregistered(original_call, module, call_args, call_kwargs)

        self._wrap_forwards()
        translated = list(translations(self.model))
        if is_told(self.model):
            kwargs = {**kwargs, "training": self.model.training}
        try:
            for name, layer, translation in translated:
                layer.__dict__["call"] = self._translated((name, type(layer).__name__), translation)
            nn.Module.__call__ = call  # type: ignore[method-assign]  # exchanged while this lasts
            with (
                torch.no_grad(),
                self._materials.active(),
                origins or contextlib.nullcontext(),
                self.witness,
                watched(self.model, self._told, self._chance.seed),
                self,
            ):
                output = self.model(*args, **kwargs)
            self.writer.graph.output(self.writer.argument(output))
        finally:
            nn.Module.__call__ = original_call  # type: ignore[method-assign]  # as it was
            for _, layer, _ in translated:
                layer.__dict__.pop("call", None)
        return output

    def _placeholders(self, inputs: Inputs) -> tuple[list[Any], dict[str, Any]]:
        names = _positional_names(self.model, len(inputs.args))
        args = [self._placeholder(name, value) for name, value in zip(names, inputs.args, strict=True)]
        return args, {name: self._placeholder(name, value) for name, value in inputs.kwargs.items()}

    def _placeholder(self, name: str, value: Any) -> Any:
        stand_in = replaced(value, self._materials.input)
        node = self.writer.graph.placeholder(name)
        node.meta.update(value=describe(stand_in), owner="", call=None)
        self.writer.bindings.bind(stand_in, node)
        if self.writer.device_source is None and isinstance(stand_in, torch.Tensor):
            self.writer.device_source = node
        return stand_in

    # -- modules ---------------------------------------------------------------------------------------------

    def _wrap_forwards(self) -> None:
        """Replace `forward` on every instance: hooks still run, and `layer.forward(x)` is seen as well."""
        for name, module in self.model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            unwrapped = getattr(module, "_orig_mod", None)  # torch.compile's wrapper
            parallel = isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel))
            if isinstance(unwrapped, nn.Module):
                forward: Callable[..., Any] = unwrapped.__call__
            elif parallel:
                forward = module.module.__call__
            else:
                forward = module.forward
            if module.__dict__.get("_compiled_call_impl") is not None:
                module.__dict__["_compiled_call_impl"] = None
            wrap = self._leaf if self._leaves.is_leaf(module) else self._entered
            module.__dict__["forward"] = wrap(name, module, forward)

    def _entered(self, name: str, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def entered(*args: Any, **kwargs: Any) -> Any:
            self.writer.stack.append(name)
            before = self.witness.behind
            try:
                result = forward(*args, **kwargs)
                behind = self.witness.behind & ~before
            finally:
                self.writer.stack.pop()
                self.witness.behind = before
            if behind:
                self.observer.leave(result, behind)
            return result

        return entered

    @property
    def _unrecorded(self) -> bool:
        """Whether what runs now is no call of the graph: in a leaf, or in a function of `torch.func`, whose
        tensors stand for others; the witness sees what these do.
        """
        return self._depth_inside_leaf > 0 or torch._C._are_functorch_transforms_active()

    def _told(self, name: str, call: Callable[[], Any]) -> Any:
        """Python's `random` or numpy draws: a dropout's own draw, or a value that may decide what runs."""
        inside = self._depth_inside_leaf > 0
        place = self.witness.draw(name, chance=not inside)
        if inside:
            return call()
        self.witness.behind |= 1 << place
        return self._chance.of_python(call, place, len(self.writer.graph.nodes))

    def _translated(self, name: tuple[str, str], translation: Translation) -> Callable[..., Any]:
        def call(inputs: torch.Tensor, training: bool | None = False, mask: Any = None) -> torch.Tensor:
            self.writer.layer = name
            try:
                return translation(inputs, bool(training))
            finally:
                self.writer.layer = None

        return call

    def _leaf(self, name: str, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        shortcut = self._leaves.keeps_shape(module) and not self._materials.has_values
        contiguous = isinstance(module, nn.LayerNorm)
        make = self._materials.contiguous_like if contiguous else self._materials.like
        is_dropout = id(module) in self._leaves.dropouts
        tried = self._trials.of(module, is_dropout or id(module) in self._leaves.norms)
        exact_place = is_dropout or id(module) in self._leaves.norms or isinstance(module, _HOLDERS)

        @functools.wraps(forward)
        def leaf(*args: Any, **kwargs: Any) -> Any:
            if self._unrecorded:
                return forward(*args, **kwargs)
            source = next(
                (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None
            )
            inplace = bool(getattr(module, "inplace", False)) and source is not None
            came = self.observer.read(tensors_in((args, kwargs)))
            came |= self.witness.of_all(vars(module))  # weights, whatever was set in their place
            node_args = self.writer.argument(args), self.writer.argument(kwargs)
            since, ran = len(self.witness.draws), False
            self._depth_inside_leaf += 1
            try:
                with torch._C.DisableTorchFunction():
                    if shortcut and source is not None:
                        self._require_floating(source, name)
                        result: Any = source if inplace and not is_dropout else make(source)
                    elif (
                        isinstance(module, nn.RNNBase)
                        and not self._materials.has_values
                        and source is not None
                        and source is args[0]
                    ):
                        result = recurrent_output(module, source)
                    else:
                        ran = True
                        result = _run_leaf(module, forward, args, kwargs)
                        if is_dropout and result is source:
                            result = source.view_as(source)
                    spec = self._catalogue.dropout(module) if is_dropout else inner_dropout(module)
                    if not ran and spec is not None and spec.is_noisy and module.training:
                        self.witness.draw(type(module).__name__)
                    own = (1 << len(self.witness.draws)) - (1 << since)
                    results = tensors_in(result)
                    for tensor in results:
                        self.witness.reach(tensor, came | own)
                    behaviour = self._trials.run(module, forward, args, kwargs) if tried else None
            finally:
                self._depth_inside_leaf -= 1
            if result is source and not inplace:
                return result
            node = self.writer.graph.call_module(name, *node_args)
            self.writer.annotate(node, result, column=exact_place)
            node.meta |= {
                "dropout": spec if is_dropout else None,
                "call_index": self._calls.get(name, 0),
                "recomputed": id(module) in self._leaves.norms and in_checkpoint(),
            }
            self._calls[name] = self._calls.get(name, 0) + 1
            self.training[node] = module.training
            with torch._C.DisableTorchFunction():
                self.observer.note(node, since, came, results, type(module).__name__)
                if behaviour is not None:
                    self.test_mode[node] = behaviour
                if inplace and source is not None:
                    self.writer.bindings.mutate(source, node)
                self.writer.bindings.bind(result, node)
            return result

        return leaf

    @staticmethod
    def _require_floating(source: torch.Tensor, name: str) -> None:
        if not (source.is_floating_point() or source.is_complex()):
            raise TypeError(f"{name} was given a tensor of {source.dtype}")

    def _call_unregistered(
        self, original: Callable[..., Any], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A module that is not part of the model: made in `forward`. If it is a dropout, it is one node."""
        if "forward" in module.__dict__ or self._unrecorded or not args:
            return original(module, *args, **kwargs)
        spec = self._catalogue.dropout(module)
        source = args[0]
        if spec is None or not isinstance(source, torch.Tensor):
            return original(module, *args, **kwargs)
        node = self.writer.graph.call_function(
            F.dropout,
            (self.writer.argument(source),),
            {"p": spec.p, "training": module.training, "inplace": spec.inplace},
        )
        with torch._C.DisableTorchFunction():
            came, since = self.observer.read([source]), len(self.witness.draws)
            result = self._materials.like(source) if not self._materials.has_values else source.clone()
            bits = 1 << self.witness.draw(spec.kind) if module.training and spec.is_noisy else 0
            self.witness.reach(result, came | bits)
            self.observer.note(node, since, came, [result])
            self.writer.annotate(node, result, column=True)
            self.made_in_forward[node] = module
            self.writer.bindings.bind(result, node)
        return result

    # -- functions -------------------------------------------------------------------------------------------

    def __torch_function__(  # noqa: PLR0911 - one return for each kind of call
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._unrecorded:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._property(func, args)
        if name in ("size", "__len__") and isinstance(args[0], torch.Tensor):
            return self._size(args[0], func, args, kwargs)
        if name in HOOKS and not args[0].requires_grad:
            return RemovableHandle({})
        if name == "__iter__":
            return iter(self.__torch_function__(torch.Tensor.unbind, types, (args[0],)))
        if name in _VALUE_READS:
            drawn = self._value_read(name, args)
            if drawn is not None:
                return drawn
        return self._record(func, name, args, kwargs)

    def _value_read(self, name: str, args: tuple[Any, ...]) -> Any:
        """What a random tensor's value decides is not followed here. A check of data that dropout has touched
        (`if x.isnan().any()`) counts as no decision.

        Returns:
            the number that is read from a tensor which draws alone have made, None where it is to be read.
        """
        bits = self.witness.of_all(args)
        drawn = None
        if bits:
            node, nodes = self.writer.bindings.lookup(args[0]), len(self.writer.graph.nodes)
            drawn = self._chance.of_tensor(name, node, bits.bit_length() - 1, nodes)
        if drawn is None:
            if not self._materials.has_values:
                raise ValueRead(f"the model reads a value of a tensor (`{name}`)")
            self.writer.reads_values = True
        for place, draw in enumerate(self.witness.draws):
            if bits >> place & 1:
                if name in _CHECKS and draw.node is not None and self._is_dropout_node(draw.node):
                    continue
                draw.chance = True
                self.witness.behind |= 1 << place
        return drawn

    def _is_dropout_node(self, node: fx.Node) -> bool:
        return node.op == "call_module" or functional_dropout(node) is not None

    def _property(self, func: Any, args: tuple[Any, ...]) -> Any:
        attribute = getattr(func.__self__, "__name__", "")
        tensor = args[0]
        if attribute == "shape":
            return self._size(tensor, func, args, {})
        if attribute == "device":
            return torch.device("cpu") if self._materials.device.type == "meta" else func(*args)
        value = func(*args)
        if attribute == "requires_grad" and not value:
            return self.gradients.required(self.writer.bindings.lookup(tensor))
        if attribute in _TENSOR_PROPERTIES and isinstance(value, torch.Tensor) and value is not tensor:
            node = self.writer.graph.call_function(getattr, (self.writer.argument(tensor), attribute))
            self.writer.annotate(node, value)
            self.writer.bindings.bind(value, node)
        return value

    def _size(
        self, tensor: torch.Tensor, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        value = func(*args, **kwargs)
        node = self.writer.bindings.lookup(tensor)
        if node is None:
            return value
        noted = self.writer.comparisons
        if isinstance(value, torch.Size):
            return torch.Size([SizeInt.read(int(size), node, dim, noted) for dim, size in enumerate(value)])
        dim = 0
        if getattr(func, "__name__", "") == "size":
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        size = SizeInt.read(int(value), node, int(dim), noted)
        if getattr(func, "__name__", "") == "__len__":  # `len` makes a plain int of it, which is not followed
            noted.append(Comparison(operator.eq, (size, int(value)), True))
        return size

    def _record(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if name == "new" and len(args) == 2 and isinstance(args[1], torch.Size):
            args = (args[0], *args[1])  # as a plain tuple it would be values
        dropout = is_dropout_function(func)
        idle, args = idle_call(args, kwargs) if dropout else (None, args)
        run, run_args, run_kwargs, tensors = self._runnable(func, args, kwargs)
        versions = [tensor._version for tensor in tensors]
        came, since = self.observer.read(tensors), len(self.witness.draws)
        short = (
            func in SHAPE_KEEPING_FUNCTIONS
            and not self._materials.has_values
            and _is_plain(run_args, run_kwargs)
        )
        if short:
            self._require_floating(run_args[0], name)
            make = self._materials.contiguous_like if func is F.layer_norm else self._materials.like
            result: Any = make(run_args[0])
            self.witness.reach(result, came)
        else:
            result = run(*run_args, **run_kwargs)
        changed = [
            tensor for tensor, version in zip(tensors, versions, strict=True) if tensor._version != version
        ]
        found = tensors_in(result)
        if not changed and (not found or (len(found) == 1 and any(found[0] is tensor for tensor in tensors))):
            # what is contiguous here need not be so with other materials
            if not (found and (dropout or name == "contiguous")):
                return result
            result = found[0].view_as(found[0])
        node = self.writer.function(func, name, args, kwargs)
        spec = functional_dropout(node) if short and dropout else None
        if spec is not None and spec.is_noisy and is_active(node):
            self.witness.reach(result, 1 << self.witness.draw(f"F.{name}"))
        if dropout and any(result is tensor for tensor in changed):
            result = result.view_as(
                result
            )  # so that a use of the input after an in-place dropout is told apart
        self.writer.annotate(node, result, column=dropout or name in _HOLDING_FUNCTIONS)
        if idle is not None and is_active(node):
            idle.met(functional_name(node))
        if name in _REMEMBERING:
            node.meta["recomputed"] = in_checkpoint()
        self.observer.note(node, since, came, [*found, *changed], operation_name(func, name))
        for tensor in changed:
            if tensor is not result or tensor._base is not None or self.writer.bindings.knows(tensor):
                self.writer.bindings.mutate(tensor, node)
        self.writer.bindings.bind(result, node)
        return result

    def _runnable(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], list[torch.Tensor]]:
        """What to run: stand-ins for tensors from outside, and this recording's device."""
        tensors: list[torch.Tensor] = []
        materials = self._materials

        def fit(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                if not materials.fits(value):
                    self.writer.argument(value)  # a constant from outside: bind its stand-in
                    twin = materials.twin(value)
                    self.witness.reach(twin, self.witness.of(value))
                    value = twin
                tensors.append(value)
                return value
            kind = type(value)
            if kind in (list, tuple):
                return kind(fit(item) for item in value)
            if kind is torch.device:
                return materials.device
            if kind is SizeInt:
                return int(value)
            if kind is torch.Size:
                return tuple(int(item) for item in value)
            return value

        run_args = tuple(fit(value) for value in args)
        run_kwargs = {key: fit(value) for key, value in kwargs.items()}
        name = getattr(func, "__name__", "")
        if func in self._constructors or isinstance(run_kwargs.get("device"), str):
            run_kwargs["device"] = materials.device
        elif name == "to":
            run_args = tuple(materials.device if _names_a_device(value) else value for value in run_args)
        elif name in ("cuda", "cpu") and tensors:
            func, run_args, run_kwargs = torch.Tensor.to, (tensors[0], materials.device), {}
        return func, run_args, run_kwargs, tensors


def operation_name(func: Callable[..., Any], name: str) -> str:
    """`torch.rand_like`, `F.gumbel_softmax` or `Tensor.normal_`: what a reader looks for on the line."""
    if getattr(torch.Tensor, name, None) is func:
        return f"Tensor.{name}"
    return f"F.{name}" if getattr(func, "__module__", "") == "torch.nn.functional" else f"torch.{name}"


def _is_plain(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return (
        bool(args)
        and isinstance(args[0], torch.Tensor)
        and not kwargs.get("inplace")
        and not any(value is True for value in args[1:])
    )


def _names_a_device(value: Any) -> bool:
    return isinstance(value, str) and value.split(":")[0] in ("cuda", "cpu", "mps", "xpu", "meta")


def _run_leaf(
    module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if isinstance(module, nn.SyncBatchNorm):  # its forward refuses CPU tensors; one process normalises alike
        return F.batch_norm(args[0], None, None, module.weight, module.bias, training=True, eps=module.eps)
    return forward(*args, **kwargs)


def _positional_names(model: nn.Module, count: int) -> list[str]:
    """The names of `forward`'s first `count` positional parameters, made unique."""
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    variadic = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "input")
    return [names[i] if i < len(names) else f"{variadic}_{i}" for i in range(count)]
