"""What a pilot minimises: cross-entropy with the labels of a batch, or a function of the user's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dropout_lint.errors import UsageError
from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.values import describe_value, walk
from dropout_lint.loading.usercode import own_traceback
from dropout_lint.measurement.forward import is_out_of_memory, one_line

LABELS = ("labels", "label", "targets", "target", "y")
"""Keys of a batch that hold its labels."""
CROSS_ENTROPY = "cross-entropy"
_IGNORED = -100  # the label that `F.cross_entropy` leaves out
_GIVE = "give a loss of your own: `--loss package.module:fn`, in Python loss=fn, called as fn(output, batch)"

LossFunction = Callable[[Any, Any], Any]


class Loss:
    """The loss of a batch as a scalar tensor.

    Args:
        function: called with the model's output and the batch on its device; None for cross-entropy.
        name: for messages and reports; None takes the function's own.

    Raises:
        UsageError: `function` cannot be called with two arguments.
    """

    def __init__(self, function: LossFunction | None, name: str | None = None) -> None:
        self.function = function
        own = str(getattr(function, "__name__", type(function).__name__))
        self.name = CROSS_ENTROPY if function is None else name or own
        if function is not None:
            _check_callable(function, self.name)

    def __call__(self, output: Any, batch: Any, inputs: Inputs, when: str, *, training: bool) -> Tensor:
        """The loss.

        Args:
            output: what the model returned.
            batch: the whole batch, on the model's device.
            inputs: what of it the model was given.
            when: `at step 3`, for messages.
            training: a gradient is needed.

        Raises:
            UsageError: there are no labels that fit, or the value is no finite scalar with a gradient.
        """
        if self.function is None:
            value: Any = cross_entropy(output, batch, inputs)
        else:
            try:
                value = self.function(output, batch)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                raise UsageError(
                    f"the loss `{self.name}` failed {when}: {one_line(error)}",
                    f"it is called as fn(output, batch), here with {describe_value(output)}"
                    f" and {describe_value(batch)}",
                    details=own_traceback(error),
                ) from error
        return self._checked(value, when, training)

    def _checked(self, value: Any, when: str, training: bool) -> Tensor:
        if not isinstance(value, Tensor):
            raise UsageError(
                f"the loss `{self.name}` returned {_a(value)} {when}, not a tensor",
                "return the scalar tensor itself, without `.item()`",
            )
        if value.numel() != 1:
            raise UsageError(
                f"the loss `{self.name}` returned a tensor of {describe_value(value)} {when}, not a scalar",
                "average it over the batch: `.mean()`",
            )
        if training and not value.requires_grad:
            raise UsageError(
                f"the loss `{self.name}` needs no gradient {when}: no parameter of the model is in it",
                "compute it from the output, without `.item()`, `.detach()`, `argmax` or `no_grad`",
            )
        return value.reshape(())


def _check_callable(function: Any, name: str) -> None:
    if not callable(function):
        raise UsageError(f"the loss must be a function fn(output, batch), not {_a(function)}")
    if isinstance(function, type):
        raise UsageError(
            f"the loss `{name}` is a class, and is called as fn(output, batch)",
            f"give an instance, or a function: `{name}(…)`",
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise UsageError(
            f"the loss `{name}` cannot be called as fn(output, batch): {error}", f"it takes {signature}"
        ) from None


def cross_entropy(output: Any, batch: Any, inputs: Inputs) -> Tensor:
    """Cross-entropy of the logits in `output` and the labels in `batch`.

    Logits are the output, what it calls `logits`, or its first tensor: (N, C, …). Labels are what follows
    forward's arguments in a tuple, or stand under a key of `LABELS`: class indices (N, …), or
    probabilities (N, C, …).

    Raises:
        UsageError: there are no logits or no labels, or they do not fit.
    """
    labels = labels_of(batch, inputs)
    if labels is None:
        raise UsageError(
            f"a batch of the loader has no labels: it holds {_held(batch)}, and forward takes"
            f" {', '.join(inputs.describe()) or 'nothing'}",
            f"yield (x, labels), or a dict with `labels`; or {_GIVE}",
        )
    logits = logits_of(output)
    if logits is None or not logits.is_floating_point():
        raise UsageError(f"the model returned {_a(output)} without logits for a cross-entropy", _GIVE)
    if not isinstance(labels, Tensor):
        try:
            labels = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError):
            raise UsageError(f"the labels of a batch are {_a(labels)}, not a tensor", _GIVE) from None
    labels = labels.to(logits.device)
    shapes = f"an output of {describe_value(logits)} and labels of {describe_value(labels)}"
    if logits.dim() >= 2 and logits.shape[1] < 2:
        raise UsageError(f"{shapes} have no cross-entropy: there is one logit, not one for each class", _GIVE)
    if labels.is_floating_point():
        if logits.dim() < 2 or labels.shape != logits.shape or not _are_probabilities(labels):
            raise UsageError(f"{shapes} have no cross-entropy: the labels are neither classes nor"
                             " probabilities of them", _GIVE)  # fmt: skip
        return F.cross_entropy(logits, labels)
    if logits.dim() < 2 or labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise UsageError(f"{shapes} have no cross-entropy: logits are (N, C, …) and labels (N, …)", _GIVE)
    labels = labels.long()
    meant = labels[labels != _IGNORED]
    if meant.numel() and not 0 <= int(meant.min()) <= int(meant.max()) < logits.shape[1]:
        raise UsageError(
            f"labels go from {int(meant.min())} to {int(meant.max())}, and the output has"
            f" {logits.shape[1]} classes, 0 to {logits.shape[1] - 1}",
            f"build the model for that many classes, or let the loader count from 0; or {_GIVE}",
        )
    return F.cross_entropy(logits, labels)


def labels_of(batch: Any, inputs: Inputs) -> Any:
    """The labels of a batch, None where it has none."""
    held = batch.kwargs if isinstance(batch, Inputs) else batch
    if isinstance(held, Mapping):
        return next((held[key] for key in LABELS if held.get(key) is not None), None)
    if isinstance(batch, (list, tuple)) and len(batch) > len(inputs.args):
        return batch[len(inputs.args)]
    return None


def logits_of(output: Any) -> Tensor | None:
    """The output itself, what it calls its logits, or its first tensor."""
    if isinstance(output, Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return named if isinstance(named, Tensor) else next(walk(output), None)


def _are_probabilities(labels: Tensor) -> bool:
    return bool((labels >= 0).all()) and bool(((labels.sum(1) - 1).abs() < 1e-2).all())


def _held(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"the keys {', '.join(map(repr, batch))}"
    return describe_value(batch)


def _a(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
