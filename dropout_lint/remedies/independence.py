"""Whether a batch's first dimension is a set of samples that do not see each other.

Only then does one pass on a batch many times larger stand for many passes. It does not where the first
dimension is a sequence (`nn.LSTM` without `batch_first`), where a layer mixes the samples (a graph's edges,
centring over the batch), or where a tensor merely happens to be as long as the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dropout_lint.guard.modes import test_mode
from dropout_lint.guard.untouched import untouched
from dropout_lint.measurement.forward import is_out_of_memory
from dropout_lint.remedies.modes import DropoutSwitch
from dropout_lint.remedies.trees import flatten

# How far two runs of the same sample may lie apart, as a share of the largest value: convolutions choose
# their algorithm by the size of the batch, and on GPUs TF32 is less exact than float32.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3}
TF32 = 1e-2
HALF = 5e-2

# By model, what was found for inputs of given shapes: None, or why the samples are not independent.
_FOUND: WeakKeyDictionary[nn.Module, dict[object, str | None]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Call:
    """How a model is run on a batch.

    Attributes:
        model: already unwrapped.
        leaves: the parts of its inputs, on its device.
        build: makes positional and keyword arguments of such leaves.
        size: the first dimension of the batch; tensors of another length are shared by all samples.
        transform: applied to the output, see `monte_carlo`.
    """

    model: nn.Module
    leaves: list[Any]
    build: Callable[[list[Any]], Any]
    size: int
    transform: Callable[[Any], Any] | None

    def __call__(self, change: Callable[[Tensor], Tensor]) -> Any:
        """The output, transformed; `change` is applied to each part that has one row for each sample."""
        args, kwargs = self.build([change(leaf) if self._is_batched(leaf) else leaf for leaf in self.leaves])
        output = self.model(*args, **kwargs)
        return output if self.transform is None else self.transform(output)

    @property
    def shapes(self) -> tuple[object, ...]:
        """Shape and dtype of each part."""
        return shapes_of(self.leaves)

    def _is_batched(self, leaf: Any) -> bool:
        return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == self.size


def shapes_of(leaves: Iterable[Any]) -> tuple[object, ...]:
    """Shape and dtype of each, None of what is no tensor."""
    return tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else None for leaf in leaves)


def why_dependent(call: Call) -> tuple[str | None, bool]:
    """Why the samples of a batch are not independent (None where they are), and whether that is news.

    Found by running the model in test mode, without dropout, on the batch and on one twice as large; it is
    remembered for this model and these shapes. The model and the random state are left as they were.
    """
    # a lambda in a loop is a new function each time, of the same code
    key = (call.shapes, getattr(call.transform, "__code__", None))
    found = _FOUND.setdefault(call.model, {})
    if key in found:
        return found[key], False
    if any(map(is_lazy, itertools.chain(call.model.parameters(), call.model.buffers()))):
        with torch.no_grad(), test_mode(call.model):
            call(torch.clone)  # its first pass gives it its sizes, which are to stay
    device = next((leaf.device for leaf in call.leaves if isinstance(leaf, Tensor)), torch.device("cpu"))
    with untouched(call.model, device), torch.no_grad(), test_mode(call.model), DropoutSwitch(on=False):
        found[key] = _compare(call)
    return found[key], True


def _compare(call: Call) -> str | None:
    own, _ = flatten(call(torch.clone))  # copies, as a layer may work in place
    if any(isinstance(value, Tensor) and value.shape[:1] != (call.size,) for value in own):
        return None  # an error of its own, which the caller words
    rows, twins = _rows(call.size)
    try:
        more, _ = flatten(call(lambda leaf: _longer(leaf, rows)))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines()
        return f"it fails on a larger batch ({type(error).__name__}: {lines[0] if lines else ''})"
    if len(more) != len(own):
        return "its output has another structure for a larger batch"
    for alone, beside in zip(own, more, strict=True):
        if not isinstance(alone, Tensor):
            continue
        if not isinstance(beside, Tensor) or beside.shape != (len(rows), *alone.shape[1:]):
            return (
                f"it gives a tensor of shape {tuple(alone.shape)} for a batch of {call.size}, and not one row"
                f" for each of {len(rows)}"
            )
        kept = [place for place, twin in enumerate(twins) if twin is not None]
        if not _alike(beside[kept], alone[[twin for twin in twins if twin is not None]]):
            return (
                "it gives other values for a sample when further samples are beside it (or draws random"
                " numbers in test mode too)"
            )
    return None


def _rows(size: int) -> tuple[list[int], list[int | None]]:
    """The rows of the larger batch, −1 for one that is made up, and the row whose output each must have.

    What is added is not the batch once more, for attention over twice the same keys gives the same: the first
    row stands for those of the first half, which moves a mean of many rows far enough to be seen, and the
    others stay, since a graph's edges are missing only at rows that have some.
    """
    if size > 1:
        half = size // 2 + 1
        rows = [*range(size), *[0] * half, *range(half, size)]
        return rows, [*rows]
    return [0, -1, 0], [0, None, 0]


def _longer(leaf: Tensor, rows: list[int]) -> Tensor:
    # values from elsewhere in the only sample, so that tokens stay tokens
    made_up = leaf[:1].roll(1, -1) if leaf.dim() > 1 else leaf[:1]
    return torch.cat([leaf, made_up])[rows]


def _alike(a: Tensor, b: Tensor) -> bool:
    tolerance = HALF if torch.is_autocast_enabled(a.device.type) else TOLERANCE.get(a.dtype, HALF)
    if a.device.type != "cpu" and a.dtype == torch.float32:
        tolerance = max(tolerance, TF32)
    if not a.dtype.is_floating_point and not a.dtype.is_complex:
        return torch.equal(a, b)
    wide = torch.float64 if a.device.type == "cpu" else torch.float32
    a, b = (value if value.is_complex() else value.to(wide) for value in (a, b))
    finite = b[b.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(a, b, rtol=0.0, atol=tolerance * scale, equal_nan=True)
