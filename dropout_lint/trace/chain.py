"""The chain of ways to trace a model: the cheapest that works is taken, and the trace says which it was."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from types import CodeType

import torch
from torch import nn

from dropout_lint.errors import InputError, TraceError
from dropout_lint.guard.alone import at_rest
from dropout_lint.guard.arguments import MADE_FROM
from dropout_lint.guard.wrappers import bare, unwrapped
from dropout_lint.inputs.example import Inputs, Location
from dropout_lint.inputs.guess import guess_inputs
from dropout_lint.layers import STANDARD, Catalogue
from dropout_lint.loading.exported import refuse_exported
from dropout_lint.trace.arrivals import arrivals
from dropout_lint.trace.build_and_call import protocol_layers, unseen_layers
from dropout_lint.trace.chance import Chance
from dropout_lint.trace.failure import Failure, explain
from dropout_lint.trace.idle import idle_parts, unused_dropouts
from dropout_lint.trace.lazy import has_lazy_parameters, with_shapes
from dropout_lint.trace.materials import Fake, Materials, Real
from dropout_lint.trace.observer import Sight
from dropout_lint.trace.parts import trace_children, trace_symbolically
from dropout_lint.trace.record import Recording, always_on_dropouts, record
from dropout_lint.trace.redrawn import redrawn
from dropout_lint.trace.sites import dropout_sites, functional_dropout, norm_sites
from dropout_lint.trace.traced import Opaque, Trace, module_of
from dropout_lint.trace.translated import is_translated

# Above this many parameters a recording with real tensors is not tried: it would need their memory.
REAL_PARAMETER_LIMIT = 400_000_000
# Above this many they are not tried again and again, to see what chance does.
REDRAWN_PARAMETER_LIMIT = 30_000_000
# Guessed inputs are tried in turn; each costs one failing forward pass.
GUESS_LIMIT = 24
# Where each guess costs real tensors for all parameters, so many numbers are made: for the best guesses.
REAL_GUESSES = 1_000_000_000


def trace(
    model: nn.Module,
    inputs: Inputs | None = None,
    *,
    catalogue: Catalogue = STANDARD,
    constructed: Mapping[int, Location] | None = None,
) -> Trace:
    """Trace `model` into one torch.fx graph (TRACING.md, "The approach").

    Args:
        model: any module, its weights real or on the meta device; it is left as it was, but must not run in
            another thread meanwhile. Wrappers around it (DDP, DataParallel, `torch.compile`) are taken off.
        inputs: example inputs, or None to guess them.
        catalogue: which classes are dropouts and norms.
        constructed: `id(module)` → the line that constructed it.

    Raises:
        InputError: the given inputs do not fit the model's forward.
        TraceError: nothing of the model could be traced.
    """
    model = unwrapped(model)
    refuse_exported(model)
    with at_rest(model):
        return replace(_trace(model, inputs, catalogue, constructed), catalogue=catalogue)


def _trace(
    model: nn.Module,
    inputs: Inputs | None,
    catalogue: Catalogue,
    constructed: Mapping[int, Location] | None,
) -> Trace:
    places = {
        name: constructed[id(module)]
        for name, module in model.named_modules(remove_duplicate=False)
        if constructed and id(module) in constructed
    }
    subject = with_shapes(model, _candidates(model, inputs)) if has_lazy_parameters(model) else model
    failures: list[Failure] = []
    recorded = _first_that_works(subject, inputs, catalogue, failures)
    if recorded is not None:
        method, recording, fitting = recorded
        blind = _training_only(failures) if method.endswith("-eval") else ()
        return _assemble(subject, method, recording, fitting, catalogue, places, blind)
    given = inputs is not None and not inputs.guessed
    if given and failures and failures[0].looks_like_wrong_inputs(subject):
        raise explain(subject, failures, InputError)
    whole = trace_symbolically(subject, catalogue, failures)
    if whole is not None:
        none = Inputs(guessed=True, origin="none fits")
        return _assemble(subject, "symbolic", whole, none, catalogue, places)
    parts = trace_children(subject, catalogue, lambda child: trace(child, catalogue=catalogue), failures)
    if parts is None:
        raise explain(subject, failures, TraceError)
    return parts


def _first_that_works(
    model: nn.Module, inputs: Inputs | None, catalogue: Catalogue, failures: list[Failure]
) -> tuple[str, Recording, Inputs] | None:
    """The first recording that works: materials in the order of their cost, then test mode alone.

    Test mode does not show what a model does only in training (`if self.training: x = self.drop(x)`), so it
    comes behind every way to run train mode.
    """
    size = _size_of(model)
    real = size <= REAL_PARAMETER_LIMIT
    # Keras takes a tensor without memory for a shape, and goes on with another one
    meta = [] if protocol_layers(model) else [("meta", Materials, True)]
    ways: list[tuple[str, type[Materials], bool]] = [*meta, ("fake", Fake, True)]
    ways += [("cpu", Real, True)] if real else []
    ways += [("meta-eval", Materials, False)] if meta else []
    ways += [("cpu-eval", Real, False)] if real else []
    fitting: Inputs | None = None  # inputs that only lacked values
    for method, materials, train in ways:
        limit = max(1, REAL_GUESSES // max(1, size)) if materials is Real else GUESS_LIMIT
        for candidate in islice(_candidates(model, fitting or inputs), limit):
            try:
                recording = _recorded(model, candidate, catalogue, materials, train=train)
            except Exception as error:
                failures.append(Failure(method, candidate, error))
                if failures[-1].needs_values:
                    fitting = candidate
                    break
            else:
                return method, recording, candidate
    return None


def _size_of(model: nn.Module) -> int:
    """How many numbers a model's parameters hold."""
    return sum(parameter.numel() for parameter in model.parameters())


def _recorded(
    model: nn.Module, inputs: Inputs, catalogue: Catalogue, materials: type[Materials], *, train: bool
) -> Recording:
    """One recording, with what chance decided in it."""

    def run(chance: Chance) -> Recording:
        return record(model, inputs, catalogue, materials(), train=train, chance=chance)

    first = run(Chance())
    dear = issubclass(materials, Real) and _size_of(model) > REDRAWN_PARAMETER_LIMIT
    return first if dear else redrawn(first, run)


def _candidates(model: nn.Module, inputs: Inputs | None) -> Iterable[Inputs]:
    if inputs is not None:
        return (inputs,)
    return islice(guess_inputs(model), GUESS_LIMIT)


def _assemble(  # noqa: PLR0917 - what the trace is put together from
    model: nn.Module,
    method: str,
    recording: Recording,
    inputs: Inputs,
    catalogue: Catalogue,
    places: Mapping[str, Location],
    blind: tuple[Opaque, ...] = (),
) -> Trace:
    """The trace of one recording; `blind` is what is known not to be in it."""
    in_eval = method.endswith("-eval")
    test = None if in_eval else _test_recording(model, method, recording, inputs, catalogue)
    dropouts = tuple(
        dropout_sites(
            recording.graph,
            model,
            catalogue,
            constructed=places,
            training=recording.training,
            made_in_forward=recording.made_in_forward,
            always_on=recording.always_on if in_eval else always_on_dropouts(model, catalogue),
            eval_graph=test.graph if test is not None else None,
            recorded_in_eval=in_eval,
            test_mode=recording.test_mode,
        )
    )
    find_norms = functools.partial(norm_sites, model=model, catalogue=catalogue, constructed=places)
    test_norms = (
        tuple(find_norms(test.graph, training={}, recorded_in_eval=True, test_mode={}))
        if test is not None
        else ()
    )
    norms = tuple(
        find_norms(
            recording.graph,
            training=recording.training,
            recorded_in_eval=in_eval,
            test_mode=recording.test_mode,
            in_test=frozenset((norm.name, norm.call_index) for norm in test_norms)
            if test is not None
            else None,
        )
    )
    draws = {}
    if recording.sight is not None and not in_eval:
        test_sight = test.sight if test is not None else None
        draws = arrivals(recording.sight, test_sight, dropouts, norms, test_norms)
    # in test mode what is only called in training looks as if nothing called it
    idle = [] if in_eval else idle_parts(model, recording.graph, catalogue)
    called = [site.module for site in dropouts if site.module]
    unused = [] if in_eval else unused_dropouts(model, catalogue, called, idle, places)
    named = [(bare(part.name), part.held) for part in idle]
    unseen = [Opaque(name, f"{held}; the guessed inputs do not run it") for name, held in named]
    told = [f"the inputs do not run {name} ({held}): nothing is known of it" for name, held in named]
    return Trace(
        model=model,
        graph=recording.graph,
        method=method,
        inputs=inputs,
        dropouts=dropouts,
        norms=norms,
        unused=tuple(unused),
        opaque=(*blind, *_scripted(model), *unseen_layers(model, is_translated)),
        idle=tuple(unseen) if inputs.guessed else (),
        constructed=places,
        constants=recording.constants,
        exact=recording.exact,
        comparisons=recording.comparisons,
        notes=(*recording.notes, *(() if inputs.guessed else told)),
        draws=draws,
        witnessed=recording.sight is not None and not in_eval,
    )


def _test_recording(
    model: nn.Module, method: str, recording: Recording, inputs: Inputs, catalogue: Catalogue
) -> Recording | None:
    """The forward pass in test mode, recorded only where it may differ by more than its layers do."""
    by_call = bool(recording.made_in_forward) or any(
        functional_dropout(node) is not None for node in recording.graph.nodes
    )
    draws = recording.sight is not None and (
        recording.sight.by_hand or _layers_draw(model, recording.sight, catalogue)
    )
    if not by_call and not draws and not _asks_for_mode(model, catalogue):
        return None
    materials: type[Materials] = {"fake": Fake, "cpu": Real}.get(method, Materials)
    try:
        return _recorded(model, inputs, catalogue, materials, train=False)
    except Exception:  # test mode may need other inputs; then only train mode is known
        return None


def _layers_draw(model: nn.Module, sight: Sight, catalogue: Catalogue) -> bool:
    """Whether a layer drew that is no dropout and holds none, as fractional pooling does in either mode."""
    layers = (module_of(model, draw.node) for draw in sight.draws if draw.node is not None)
    return any(
        layer is not None and catalogue.dropout(layer) is None and not hasattr(layer, "dropout")
        for layer in layers
    )


def _asks_for_mode(model: nn.Module, catalogue: Catalogue) -> bool:
    """Whether code of the model's own classes, dropouts and norms aside, reads `training`."""
    kinds = {
        type(module)
        for module in model.modules()
        if catalogue.dropout(module) is None and catalogue.norm(module) is None
    }
    bases = {base for kind in kinds for base in kind.__mro__}
    return any(
        _reads_training(code)
        for base in bases
        if base.__module__.partition(".")[0] != "torch"
        for value in vars(base).values()
        if (code := getattr(value, "__code__", None)) is not None
    )


def _reads_training(code: CodeType) -> bool:
    return "training" in code.co_names or any(
        _reads_training(inner) for inner in code.co_consts if isinstance(inner, CodeType)
    )


def _training_only(failures: list[Failure]) -> tuple[Opaque, ...]:
    """What a recording in test mode does not show, and the error that kept train mode from running."""
    in_train = [failure for failure in failures if not failure.method.endswith("-eval")]
    # real values give the truest message
    told = next((failure for failure in in_train if failure.method == "cpu"), in_train[0])
    text = str(told.error).strip().splitlines()
    error = f"{type(told.error).__name__}{': ' + text[0] if text else ''}"
    return (Opaque("code that runs only in training", f"train mode could not be run: {error}"),)


SCRIPTED = f"a scripted module runs outside Python: {MADE_FROM}"


def _scripted(model: nn.Module) -> Iterator[Opaque]:
    """The outermost scripted modules: what they do runs in C++ and is not seen."""
    inner: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and id(module) not in inner:
            inner |= {id(part) for part in module.modules()}
            yield Opaque(name or type(model).__name__, SCRIPTED)
