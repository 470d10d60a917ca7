"""`resolve`: from the text that names a target to what can be traced."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

from dropout_lint.deployed import Program, is_program, read_file, read_program
from dropout_lint.errors import InputError, TargetError
from dropout_lint.guard.wrappers import unwrapped
from dropout_lint.inputs.example import Built, Inputs
from dropout_lint.inputs.first_layers import fits_first_layer
from dropout_lint.inputs.shapes import as_inputs, check_inputs, parse_inputs
from dropout_lint.loading import birthplace
from dropout_lint.loading.arguments import with_names
from dropout_lint.loading.build import Made, look_up, make
from dropout_lint.loading.checkpoint import load_checkpoint
from dropout_lint.loading.compat import plain_python, with_schemas
from dropout_lint.loading.discover import discover
from dropout_lint.loading.exported import one_mode, refuse_exported
from dropout_lint.loading.hydra import instantiated, is_configuration
from dropout_lint.loading.importing import import_target
from dropout_lint.loading.parse import PROGRAMS, Spec, parse_target

HOLLOW = ("hollow", "meta", "cpu")
TO_LOAD = ("hollow-small", "cpu")
WITH_WEIGHTS = ("weights",)

TRACED = (
    "torch.jit.trace is given this model in train mode: what it makes keeps dropping after .eval(); "
    "linted is the module that it was to be made from"
)


@dataclass(frozen=True)
class Deployed:
    """A target that is a program already: nothing of it is built or run.

    Attributes:
        target: the text that the user typed.
        program: what was read.
        notes: things to say aloud.
    """

    target: str
    program: Program
    notes: tuple[str, ...] = ()


def resolve(
    target: str, *, inputs: Sequence[str] = (), checkpoint: str | None = None, prefer_meta: bool = True
) -> list[Built]:
    """Build what a target names.

    Args:
        target: `pkg.module:attr`, `pkg.module:attr(kw=literal)`, `file.py:attr`, `file.py` or a folder;
            `attr(Config(drop=0.5))` calls another name of the module for an argument. `conf/model.yaml:key`
            is what a Hydra configuration says under `_target_`. An attr is a factory,
            a class, a model, or a pair of one of these and example inputs; attrs may be chained with dots. A
            file without an attr and a folder stand for every model in them (see `discover`).
        inputs: `--input` texts, `[name=]8x3x32x32[:dtype]`; they go before any other example inputs.
        checkpoint: safetensors, or a file that `torch.load(weights_only=True)` reads; the model has its
            weights.
        prefer_meta: build without giving weights values, so that any size fits in memory. False: build as the
            user's code says, on the CPU, from seed 0.

    Returns:
        One `Built` for each model, `inputs` None where they are to be guessed.

    Raises:
        TargetError: it cannot be found, imported or built.
        InputError: the inputs do not fit `forward`'s signature.
        CheckpointError: the checkpoint cannot be read or does not fit.
        TraceError: it is a program that was exported already, or holds one.
    """
    found = built_or_deployed(target, inputs=inputs, checkpoint=checkpoint, prefer_meta=prefer_meta)
    built = [item for item in found if isinstance(item, Built)]
    for item in found:
        if isinstance(item, Deployed):
            raise one_mode(f"`{item.target}`", item.program.form)
    return built


def built_or_deployed(
    target: str, *, inputs: Sequence[str] = (), checkpoint: str | None = None, prefer_meta: bool = True
) -> list[Built | Deployed]:
    """`resolve`, but what is a program already is read, and not refused.

    Raises:
        TargetError, InputError, CheckpointError: as `resolve`, or a program cannot be read.
    """
    given = parse_inputs(inputs)
    spec = parse_target(target)
    if spec.path is not None and spec.path.suffix in PROGRAMS and spec.path.is_file():
        if given or checkpoint is not None:
            raise TargetError(
                f"`{target}` is a deployed program, which holds its weights and is not run",
                "leave out --input and --checkpoint",
            )
        return [Deployed(target, read_file(spec.path))]
    ways = TO_LOAD if checkpoint is not None else HOLLOW if prefer_meta else WITH_WEIGHTS
    with plain_python() as traced, birthplace.watched():
        apart = spec.call is None or is_configuration(spec)  # no model of its file is named
        if is_configuration(spec):
            found = [_described(spec, ways)]
        else:
            found = discover(spec, ways) if spec.call is None else [_named(spec, ways)]
        if checkpoint is not None and len(found) > 1:
            names = ", ".join(f"`{text}`" for text, _, _ in found[:6])
            raise TargetError(
                f"`{target}` holds {len(found)} models, and a checkpoint fits one", f"name it: {names}"
            )
        for _, _, made in found:
            made.notes += [TRACED] * any(made.model is model for model in traced)
        return [
            _finished(text, module, made, given, checkpoint, discovered=apart) for text, module, made in found
        ]


def _named(spec: Spec, ways: Sequence[str]) -> tuple[str, ModuleType, Made]:
    assert spec.call is not None
    notes: list[str] = []
    module = import_target(spec, notes)
    wanted = spec.call
    value = with_schemas(lambda: look_up(module, wanted, spec.source), notes)
    call = with_names(spec.call, lambda inner: look_up(module, inner, spec.source), spec.text)
    made = make(value, call, spec.text, ways)
    made.notes[:0] = notes
    return spec.text, module, made


def _described(spec: Spec, ways: Sequence[str]) -> tuple[str, ModuleType, Made]:
    made = instantiated(spec, ways)
    return spec.text, sys.modules[type(made.model).__module__], made


def _finished(
    text: str,
    module: ModuleType,
    made: Made,
    given: Inputs | None,
    checkpoint: str | None,
    *,
    discovered: bool,
) -> Built | Deployed:
    model = unwrapped(made.model)
    if is_program(model):
        return Deployed(text, read_program(model), tuple(dict.fromkeys(made.notes)))
    refuse_exported(model)
    inputs = given or _own_inputs(model, module, made.inputs, discovered)
    if inputs is not None:
        check_inputs(model, inputs)
    if checkpoint is not None:
        load_checkpoint(model, checkpoint)
    return Built(
        target=text,
        model=model,
        inputs=inputs,
        constructed=birthplace.harvest(model),
        on_meta=_on_meta(model),
        checkpoint=checkpoint,
        notes=tuple(dict.fromkeys(made.notes)),
        unseen=tuple(made.unseen),
    )


def _own_inputs(model: nn.Module, module: ModuleType, beside: Any, discovered: bool) -> Inputs | None:
    """What the user's code gives: returned with the model, kept on the model, or beside the attr."""
    if beside is not None:
        return as_inputs(beside, model, "example inputs beside the model")
    for name in ("example_inputs", "example_input_array"):
        value = getattr(model, name, None)
        if value is not None:
            return as_inputs(value, model, name)
    value = module.__dict__.get("example_inputs")
    if value is None:
        return None
    inputs = as_inputs(value, model, "example_inputs")
    if discovered:
        # They stand beside every model of the file, and may be another one's.
        try:
            check_inputs(model, inputs)
        except InputError:
            return None
        return inputs if fits_first_layer(model, inputs) else None
    return inputs


def _on_meta(model: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in model.parameters())
