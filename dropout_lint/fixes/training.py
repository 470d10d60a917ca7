"""Proof of training: every dropout that a fix does not name acts in train mode exactly as before.

Both models run in train mode on the same inputs. A dropout that the fix names is off in the original; every
other one draws its mask from a seed that its noise, its ratio and the bits of its input give. In the fixed
model a call with the same noise, ratio and input bits gets the same mask, and what is left over is off, and
must be what the fix says. Then outputs have to be bit-identical, and gradients reach the same parameters.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from dropout_lint.errors import FixError
from dropout_lint.fixes.graph.dropmodules import make
from dropout_lint.fixes.plan.steps import DELETING, Step
from dropout_lint.fixes.values import equal
from dropout_lint.inputs.values import walk
from dropout_lint.layers import STANDARD, Catalogue, Noise
from dropout_lint.layers.dropouts import FUNCTIONS, TRAINING_DEFAULT, is_dropout_function
from dropout_lint.trace.traced import DropoutSite, Trace

Where = tuple[str, int]
"""A dropout call of a run: the module's qualified name and its how-manieth call, or "" and the how-manieth
functional one; "@attention" and a number for the ratio of an attention function."""
Key = tuple[str, float, str]
"""What a dropout call is to the proof: its noise, its ratio, and a digest of its input."""
ATTENTION = ("scaled_dot_product_attention", "multi_head_attention_forward")
ATTENTION_CALL = "@attention"


@dataclass(frozen=True)
class Named:
    """The dropout calls that a fix names, and what they are afterwards.

    Attributes:
        calls: where they are in the original.
        functional: how many functional calls the trace has; the run must have as many, where one is named.
        after: noise and ratio of each that is still there when it is fixed.
    """

    calls: tuple[Where, ...] = ()
    functional: int = 0
    after: tuple[tuple[str, float], ...] = ()


@dataclass
class Run:
    """One pass in train mode.

    Attributes:
        outputs: the tensors that it returned.
        reached: the parameters that got a gradient.
        kept: the calls that dropped as they always do, with how often.
        others: noise and ratio of the calls that were off.
        functional: number of functional calls that drop.
    """

    outputs: list[Tensor] = field(default_factory=list)
    reached: tuple[str, ...] = ()
    kept: Counter[Key] = field(default_factory=Counter)
    others: list[tuple[str, float]] = field(default_factory=list)
    functional: int = 0


def named_by(trace: Trace, steps: Sequence[Step]) -> Named:
    """What a plan names of the dropouts of a trace."""
    functional = function_calls(trace)
    calls, after = [], []
    for step in steps:
        site = step.site
        if not (site.active_in_train and site.spec.is_noisy):
            continue
        calls.append(place_of(trace, site, functional))
        if step.action in DELETING:
            continue
        p = site.spec.p if step.value is None else step.value
        spec = site.spec if step.kind is None else STANDARD.dropout(make(step.kind, p, site.spec))
        after.append(((spec or site.spec).noise.value, p))
    return Named(tuple(calls), len(functional), tuple(after))


def place_of(trace: Trace, site: DropoutSite, functional: Sequence[fx.Node]) -> Where:
    """Where a dropout of a trace is in a run of its model."""
    if site.inside:
        inner = [other for other in trace.dropouts if other.inside and other.spec.noise is Noise.ATTENTION]
        return ATTENTION_CALL, inner.index(site)
    if site.functional or site.module is None:
        return "", functional.index(site.node)
    calls = [other.node for other in trace.dropouts if other.module == site.module and not other.inside]
    return site.module, calls.index(site.node)


def function_calls(trace: Trace) -> list[fx.Node]:
    """The functional dropouts of a trace that drop in train mode, those that make masks by hand too."""
    sites = {site.node: site for site in trace.dropouts if not site.by_hand}
    found = []
    for node in trace.graph.nodes:
        site = sites.get(node)
        if site is not None:
            wanted = site.functional and not site.inside and site.active_in_train and site.spec.is_noisy
        else:
            wanted = node.op == "call_function" and is_dropout_function(node.target) and node.users
        if wanted:
            found.append(node)
    return found


class Replay(TorchFunctionMode):
    """Runs each dropout with a mask of its own, or not at all.

    Args:
        model: what runs; while this mode is entered, its dropout modules are watched.
        decides: whether a call drops, from its key and where it is.
        catalogue: which modules are dropouts.
    """

    def __init__(
        self, model: nn.Module, decides: Callable[[Key, Where], bool], catalogue: Catalogue = STANDARD
    ) -> None:
        super().__init__()
        self.run = Run()
        self._decides = decides
        self._counts: Counter[str] = Counter()
        self._nested = False
        self._watched = [
            (name, module, spec)
            for name, module in model.named_modules()
            if (spec := catalogue.dropout(module)) is not None
        ]

    def __enter__(self) -> Any:
        for name, module, spec in self._watched:
            plain = module.forward
            watched = partial(self._module, module, name, (spec.noise.value, spec.p), plain)
            module.__dict__["forward"] = watched
        return super().__enter__()  # type: ignore[no-untyped-call]  # untyped in torch

    def __exit__(self, *error: Any) -> None:
        for _, module, _ in self._watched:
            module.__dict__.pop("forward", None)
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # untyped in torch

    def _module(
        self,
        module: nn.Module,
        name: str,
        noise: tuple[str, float],
        plain: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        number = self._counts[name]
        self._counts[name] += 1
        if self._nested or not module.training or noise[1] == 0:
            return plain(*args, **kwargs)
        data = args[0] if args else next(iter(kwargs.values()))
        inplace = bool(getattr(module, "inplace", False))
        return self._drop(noise, (name, number), data, inplace, lambda: plain(*args, **kwargs))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._nested:
            return func(*args, **kwargs)
        if is_dropout_function(func):
            return self._function(func, args, kwargs)
        if getattr(func, "__name__", "") in ATTENTION:
            return self._attention(func, args, kwargs)
        return func(*args, **kwargs)

    def _function(self, func: Any, args: Any, kwargs: Any) -> Any:
        label, noise = FUNCTIONS[func]
        given = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | kwargs
        on = given.get("training", given.get("train", TRAINING_DEFAULT.get(label, True)))
        p = float(given.get("p", 0.5))
        if not on or p == 0:
            return func(*args, **kwargs)
        where = ("", self._counts[""])
        self._counts[""] += 1
        self.run.functional += 1
        inplace = bool(given.get("inplace", False)) or label.endswith("_")
        return self._drop((noise.value, p), where, given["input"], inplace, lambda: func(*args, **kwargs))

    def _attention(self, func: Any, args: Any, kwargs: Any) -> Any:
        names = attention_arguments(func)
        given = dict(zip(names, args, strict=False)) | kwargs
        p = float(given.get("dropout_p") or 0.0)
        if not p or not given.get("training", True):
            return func(*args, **kwargs)
        where = (ATTENTION_CALL, self._counts[ATTENTION_CALL])
        self._counts[ATTENTION_CALL] += 1
        key = ("attention", p, digest(given["query"], given["key"], given["value"]))
        if self._decides(key, where):
            self.run.kept[key] += 1
            with seeded((*key, self.run.kept[key])):
                return self._plain(lambda: func(*args, **kwargs))
        self.run.others.append(key[:2])
        return func(**{**given, "dropout_p": 0.0})

    def _drop(
        self,
        noise: tuple[str, float],
        where: Where,
        data: Any,
        inplace: bool,
        call: Callable[[], Any],
    ) -> Any:
        key = (noise[0], round(noise[1], 9), digest(data))
        if self._decides(key, where):
            self.run.kept[key] += 1
            with seeded((*key, self.run.kept[key])):
                return self._plain(call)
        self.run.others.append(key[:2])
        return data if inplace or not isinstance(data, Tensor) else data.clone()

    def _plain(self, call: Callable[[], Any]) -> Any:
        self._nested = True
        try:
            return call()
        finally:
            self._nested = False


def attention_arguments(func: Any) -> Sequence[str]:
    """The names of the parameters of an attention function, by position."""
    try:
        return tuple(inspect.signature(func).parameters)
    except (TypeError, ValueError):  # a builtin has no signature; its order is part of its documentation
        return "query", "key", "value", "attn_mask", "dropout_p", "is_causal"


def digest(*values: Any) -> str:
    """A digest of the bits, shapes and dtypes of all tensors in some values."""
    found = hashlib.blake2b(digest_size=16)
    for tensor in walk(values):
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return found.hexdigest()


@contextmanager
def seeded(value: object) -> Iterator[None]:
    """Draw from a seed that a value gives, and leave the random state as it was."""
    state = torch.get_rng_state()
    torch.manual_seed(int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=7).digest(), "big"))
    try:
        yield
    finally:
        torch.set_rng_state(state)


@contextmanager
def from_zero() -> Iterator[None]:
    """Start torch's, Python's and numpy's random numbers from 0, and leave them as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def watched(
    model: nn.Module,
    args: Any,
    kwargs: Any,
    decides: Callable[[Key, Where], bool],
    catalogue: Catalogue = STANDARD,
) -> Run:
    """One pass in train mode, forward and backward; what the model raises is raised."""
    model.train()
    with from_zero(), Replay(model, decides, catalogue) as replay:
        out = model(*copy.deepcopy(args), **copy.deepcopy(kwargs))
        run: Run = replay.run
    run.outputs = [tensor.detach() for tensor in walk(out)]
    parts = [part.float().sum() for part in walk(out) if part.requires_grad]
    try:
        if parts:
            torch.stack(parts).sum().backward()  # type: ignore[no-untyped-call, unused-ignore]  # untyped in some torch
        run.reached = tuple(
            name for name, parameter in model.named_parameters() if parameter.grad is not None
        )
    finally:
        model.zero_grad(set_to_none=True)
    return run


def run_original(
    model: nn.Module, args: Any, kwargs: Any, named: Named, catalogue: Catalogue = STANDARD
) -> Run:
    """The original in train mode, with the dropouts off that the fix names.

    Raises:
        FixError: it cannot be told which calls those are.
    """
    calls = resolved(model, named.calls)
    run = watched(model, args, kwargs, lambda _, where: where not in calls, catalogue)
    by_order = any(not name for name, _ in named.calls)
    if by_order and run.functional != named.functional:
        raise FixError(
            f"in train mode {run.functional} functional dropouts run, and {named.functional} were traced: "
            "it cannot be proven that the others act as before",
            "give the model inputs like those that it is trained with",
        )
    return run


def resolved(model: nn.Module, calls: Sequence[Where]) -> set[Where]:
    """Calls by the first name that a module has: it may be registered under several."""
    first = {id(module): name for name, module in model.named_modules()}
    modules: Mapping[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    return {(first[id(modules[name])] if name in modules and name else name, n) for name, n in calls}


def run_fixed(
    model: nn.Module, args: Any, kwargs: Any, original: Counter[Key], catalogue: Catalogue = STANDARD
) -> Run:
    """The fixed model in train mode: what dropped in the original drops again, all else is off."""
    left = Counter(original)

    def decides(key: Key, _: Where) -> bool:
        left[key] -= 1
        return left[key] >= 0

    return watched(model, args, kwargs, decides, catalogue)


def difference(original: Run, fixed: Run, named: Named) -> str:
    """What a fix changed in training besides what it names, in words; "" where it is nothing."""
    lost = original.kept - fixed.kept
    if lost:
        (noise, p, _), *more = lost.elements()
        others = f", and {len(more)} more" if more else ""
        return (
            f"changes a dropout in training that it does not name ({noise} noise of {p:g}{others}): "
            "it is gone, or gets another input"
        )
    found, wanted = Counter(rounded(fixed.others)), Counter(rounded(named.after))
    if found != wanted:
        planned = wanted.total()
        return f"has dropouts in places that were not planned: {found.total()}, where {planned} were planned"
    missing = [name for name in original.reached if name not in fixed.reached]
    if missing:
        return f"trains no more what it trained: {', '.join(missing[:4])}"
    grown = [name for name in fixed.reached if name not in original.reached]
    if grown:
        return f"trains what it did not train: {', '.join(grown[:4])}"
    if len(original.outputs) != len(fixed.outputs) or not all(
        equal(a, b) for a, b in zip(original.outputs, fixed.outputs, strict=True)
    ):
        return "computes something else in training, with the dropouts off that it names"
    return ""


def rounded(items: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Noise and ratio, the ratio as source would print it."""
    return [(noise, float(f"{p:.6g}")) for noise, p in items]
