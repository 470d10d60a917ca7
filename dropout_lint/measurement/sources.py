"""Batches for the command line: the user's loader by name, example inputs, or noise of their shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropout_lint.errors import InputError, MeasureError, TargetError, UsageError
from dropout_lint.guard.untouched import untouched
from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.guess import guess_inputs
from dropout_lint.inputs.shapes import materialise, why_inputs_failed
from dropout_lint.inputs.values import walk
from dropout_lint.loading.arguments import called, with_names
from dropout_lint.loading.build import functions_in, look_up
from dropout_lint.loading.importing import import_target
from dropout_lint.loading.parse import parse_target
from dropout_lint.loading.usercode import user_code
from dropout_lint.measurement.batches import samples_of, to_device

# Samples of a random batch where nobody said how many: batch statistics of 2 samples are mostly noise.
RANDOM_SAMPLES = 16
# Random batches where nobody said how many: as many as the first look at the intervals needs, and some.
RANDOM_BATCHES = 16


def load_batches(text: str, notes: list[str]) -> Iterable[Any]:
    """What `--data` names: `pkg.mod:loader` or `file.py:loader`, an iterable or something that returns one.

    Args:
        text: what was typed; `loader(root="data", size=8)` passes arguments, as a target's call does.
        notes: gets what is to be said aloud.

    Raises:
        TargetError: it cannot be found or imported.
        MeasureError: it is no iterable, or the call fails.
    """
    spec = parse_target(text)
    if spec.call is None or not spec.call.attrs:
        raise TargetError(
            f"`{text}` does not name a loader", "write `package.module:loader` or `file.py:loader`"
        )
    module = import_target(spec, notes)
    value = look_up(module, spec.call, spec.source)
    call = with_names(spec.call, lambda inner: look_up(module, inner, spec.source), text)
    if spec.call.called or (callable(value) and not isinstance(value, Iterable)) or isinstance(value, type):
        with user_code(f"calling `{text}`"):
            value = called(value, call)
    if not isinstance(value, (Iterable, Tensor)):
        raise MeasureError(
            f"`{text}` is a {type(value).__name__}, not an iterable of batches",
            "name a DataLoader, a list of tensors, or a function that returns one",
        )
    return value


def load_function(text: str, option: str, of: str, *, made: bool = False) -> Callable[..., Any]:
    """The function that an option names: `pkg.mod:fn`.

    Args:
        text: what was typed.
        option: its name, for messages.
        of: what the function takes, in words.
        made: `pkg.mod:make(weight=2)`, which returns one, is allowed too.

    Raises:
        TargetError: it cannot be found or imported.
        UsageError: it cannot be called.
    """
    spec = parse_target(text)
    if spec.call is None or (spec.call.called and not made):
        raise UsageError(f"{option} {text} names no function", f"write {option} package.module:function")
    module = import_target(spec, [])
    value = look_up(module, spec.call, spec.source, others=functions_in)
    if spec.call.called:
        call = with_names(spec.call, lambda inner: look_up(module, inner, spec.source), text)
        with user_code(f"calling `{text}`"):
            value = called(value, call)
    if not callable(value):
        raise UsageError(
            f"{option} {text} is no function but of type {type(value).__name__}", f"name a function of {of}"
        )
    found: Callable[..., Any] = value
    return found


def find_inputs(model: nn.Module, inputs: Inputs | None, device: torch.device) -> Inputs:
    """Inputs that the model really runs on: the given ones, else the first guess that works.

    Raises:
        InputError: the given inputs do not fit, or no guess does.
    """
    candidates = [inputs] if inputs is not None else guess_inputs(model)
    last: InputError | None = None
    for candidate in candidates:
        filled = materialise(candidate, device)
        error = _run(model, filled, device)
        if error is None:
            return candidate
        last = why_inputs_failed(model, candidate, error)
    raise last or InputError(
        f"no inputs for {type(model).__name__} could be guessed", "give them: `--input 8x3x32x32`"
    )


def _run(model: nn.Module, inputs: Inputs, device: torch.device) -> Exception | None:
    """Whether the model runs on `inputs` in train mode; it is left as it was."""
    with untouched(model, device), torch.no_grad():
        model.train()
        own = to_device(inputs, device, copy=True)
        try:
            model(*own.args, **own.kwargs)
        except Exception as error:
            return error
    return None


class RandomBatches(Sequence[Inputs]):
    """Batches of noise in the shapes of `inputs`; batch `i` is the same whenever and wherever it is read.

    Floating-point tensors are standard normal. Integers are drawn below what the model's smallest embedding
    takes, or from the range of the example's own values; booleans stay as they are.

    Args:
        model: tells how many indices its embeddings have.
        inputs: example inputs.
        count: how many batches.
        samples: size of the first dimension, for the tensors that share that of the first one; None keeps it.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, count: int, samples: int | None = None) -> None:
        sizes = [m.num_embeddings for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
        self.inputs, self._size = inputs, count
        self._below = min(sizes, default=None)
        self._from = samples_of(inputs)
        self._to = samples or self._from

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._size))]
        if not 0 <= index < self._size:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(int(index))
        return Inputs(
            self._filled(self.inputs.args, generator),
            self._filled(dict(self.inputs.kwargs), generator),
            self.inputs.guessed,
            self.inputs.origin,
        )

    def __iter__(self) -> Iterator[Inputs]:
        return (self[index] for index in range(self._size))

    def _filled(self, value: Any, generator: torch.Generator) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value, generator)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(self._filled(item, generator) for item in value))
        if isinstance(value, (tuple, list)):
            return type(value)(self._filled(item, generator) for item in value)
        if isinstance(value, dict):
            return {key: self._filled(item, generator) for key, item in value.items()}
        return value

    def _tensor(self, value: Tensor, generator: torch.Generator) -> Tensor:
        shape = list(value.shape)
        resized = bool(shape) and shape[0] == self._from and self._to != self._from
        if resized:
            shape[0] = self._to
        if value.is_floating_point() or value.is_complex():
            return torch.randn(shape, generator=generator, dtype=value.dtype)
        if value.dtype is torch.bool:
            if value.is_meta:
                return torch.ones(shape, dtype=torch.bool)
            return value[torch.arange(shape[0]) % len(value)] if resized else value
        if value.dim() == 0:
            return torch.zeros((), dtype=value.dtype) if value.is_meta else value
        below = self._below if self._below is not None else 1 if value.is_meta else int(value.max()) + 1
        return torch.randint(max(1, below), shape, generator=generator, dtype=value.dtype)


def example_batches(inputs: Inputs, count: int | None) -> list[Inputs] | None:
    """The example inputs that the user's code gives, as often as there are to be batches.

    Args:
        inputs: what the model is called with.
        count: how many batches; each draws masks of its own.

    Returns:
        None where their values say nothing: shapes alone, guesses, or tensors of one value each, as
        placeholders are.
    """
    tensors = list(walk((inputs.args, dict(inputs.kwargs))))
    if inputs.guessed or any(tensor.is_meta for tensor in tensors):
        return None
    varies = any(tensor.numel() > 1 and bool((tensor != tensor.flatten()[0]).any()) for tensor in tensors)
    return [inputs] * (count or RANDOM_BATCHES) if varies else None


def random_batches(
    model: nn.Module, inputs: Inputs, device: torch.device, *, count: int | None, samples: int | None
) -> RandomBatches:
    """Random batches that the model runs on; guessed inputs get `RANDOM_SAMPLES` samples if it takes them."""
    count = count or RANDOM_BATCHES
    if samples is not None:
        return RandomBatches(model, inputs, count, samples)
    if inputs.guessed:
        larger = RandomBatches(model, inputs, count, RANDOM_SAMPLES)
        if _run(model, larger[0], device) is None:
            return larger
    return RandomBatches(model, inputs, count)
