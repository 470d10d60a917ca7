"""One recording: a model, inputs, materials and a mode in; a graph and what was seen beside it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from dropout_lint.guard.eager import eager
from dropout_lint.guard.uncached import uncached
from dropout_lint.guard.unloaded import unloaded
from dropout_lint.inputs.example import Inputs
from dropout_lint.layers import Catalogue
from dropout_lint.trace.chance import Chance, Read
from dropout_lint.trace.gradients import Gradients
from dropout_lint.trace.materials import Materials
from dropout_lint.trace.observer import Sight
from dropout_lint.trace.recorder import Recorder
from dropout_lint.trace.sizes import Comparison
from dropout_lint.trace.staging import staged
from dropout_lint.trace.trials import Behaviour
from dropout_lint.trace.witness import Draw


@dataclass(frozen=True)
class Recording:
    """What one forward pass left behind; `sight` is what the witness saw, None where there was none, and
    `reads` what the model asked of chance.
    """

    graph: fx.Graph
    training: Mapping[fx.Node, bool]
    made_in_forward: Mapping[fx.Node, nn.Module]
    constants: Mapping[str, Any]
    always_on: frozenset[str]
    exact: bool
    notes: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()
    test_mode: Mapping[fx.Node, Behaviour] = field(default_factory=dict)
    sight: Sight | None = None
    reads: tuple[Read, ...] = ()

    def form_of(self, name: str) -> object:
        """Shape and type of the numbers of a constant; of what is no array, its class."""
        value = self.constants[name]
        arrays = isinstance(value, (torch.Tensor, np.ndarray))
        return (tuple(value.shape), value.dtype) if arrays else type(value)


def record(
    model: nn.Module,
    inputs: Inputs,
    catalogue: Catalogue,
    materials: Materials,
    *,
    train: bool,
    follow_dispatch: bool = False,
    gradients: bool = True,
    chance: Chance | None = None,
) -> Recording:
    """Record one forward pass of `model`; the model is left as it was.

    With `gradients` a tensor says of itself that it requires one where it would in training; a model that
    asks for one then, which is not there, is recorded without. `chance` answers what the model asks of it.

    Raises:
        Exception: whatever the model's own code raises with these materials.
    """
    chance = chance or Chance()
    chance.reads.clear()
    with staged(model, materials, train, chance.seed) as names, eager(), unloaded(), uncached():
        always_on = frozenset[str]() if train else _training_dropouts(model, catalogue)
        asker = Gradients(model, told=train and gradients)
        recorder = Recorder(model, catalogue, materials, names, asker, chance=chance)
        asked = follow_dispatch, gradients
        try:
            recorder.run(inputs, follow_dispatch=follow_dispatch)
        except Exception:
            if not recorder.gradients.answered:
                raise
            gradients = False
        else:
            follow_dispatch = follow_dispatch or recorder.writer.lost
    if (follow_dispatch, gradients) != asked:
        return record(
            model,
            inputs,
            catalogue,
            materials,
            train=train,
            follow_dispatch=follow_dispatch,
            gradients=gradients,
            chance=chance,
        )
    writer = recorder.writer
    notes = dict.fromkeys(writer.notes)
    if not writer.exact:
        notes["part of the model runs code that can't be followed; its results are tied to what went in"] = (
            None
        )
    if writer.reads_values:
        notes["the model reads values of tensors: what it does at other values was not seen"] = None
    notes.update(dict.fromkeys(chance_notes(recorder.witness.draws)))
    return Recording(
        writer.graph,
        recorder.training,
        recorder.made_in_forward,
        writer.constants,
        always_on,
        writer.exact and not writer.reads_values and not chance.reads,
        tuple(notes),
        tuple(writer.comparisons),
        recorder.test_mode,
        recorder.observer.sight(),
        tuple(chance.reads),
    )


def chance_notes(draws: Sequence[Draw]) -> Iterator[str]:
    """Where a random value may have decided which way the recording took."""
    for draw in draws:
        if draw.chance and not draw.trial:
            yield (
                f"{draw} becomes a value in Python, which may decide what the model does: "
                "the graph shows one outcome"
            )


def always_on_dropouts(model: nn.Module, catalogue: Catalogue) -> frozenset[str]:
    """Names of dropout modules that are in train mode after `model.eval()` (an overridden `train()`)."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        return _training_dropouts(model, catalogue)
    finally:
        for module, mode in modes:
            module.__dict__["training"] = mode


def _training_dropouts(model: nn.Module, catalogue: Catalogue) -> frozenset[str]:
    return frozenset(
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if module.training and catalogue.dropout(module) is not None
    )
