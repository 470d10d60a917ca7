"""The user's batches: read once or several times, shared over ranks, turned into forward's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from dropout_lint.errors import MeasureError
from dropout_lint.guard.untouched import RngState
from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.values import describe_value, holds_tensor, replaced, walk
from dropout_lint.loading.usercode import own_traceback

# Batches of an iterator that are kept for a second pass, in bytes of host memory.
KEEP_LIMIT = 2 * 2**30


class Batches:
    """The same batches in every pass, in the same order, as far as the source allows.

    A list or tuple is read again. Anything else is kept while it is below `KEEP_LIMIT`, and a pass that goes
    further than those before it reads on where they stopped; beyond the limit a loader is iterated again with
    the random state that it started from (so a shuffling `DataLoader` gives the same batches, also one with a
    generator of its own), and an iterator that can be read only once stops there. The loader draws from the
    caller's random state, not from the one that the forward passes use.

    Args:
        source: any iterable of batches. A single tensor or mapping counts as one batch.
        limit: most batches to read, over all ranks together.
        rank, world: this process and how many there are.
        shard: the source is the same on every rank, and each takes every `world`-th batch of it; without it,
            each rank's source is its own part of the data.
        keep: the batches are read more than once.
    """

    def __init__(
        self,
        source: Iterable[Any],
        *,
        limit: int | None = None,
        rank: int = 0,
        world: int = 1,
        shard: bool = False,
        keep: bool = True,
    ) -> None:
        if isinstance(source, (Tensor, Mapping, Inputs)):
            source = [source]
        if not isinstance(source, Iterable):
            raise MeasureError(
                f"batches must be an iterable of batches, not {type(source).__name__}",
                "pass a DataLoader, a list of tensors, or any other iterable",
            )
        self.source = source
        self.limit, self.rank, self.world, self.shard = limit, rank, world, shard
        self.notes: list[str] = []
        self._kept: list[Any] | None = [] if keep and not isinstance(source, (list, tuple)) else None
        self._bytes = 0
        self._rng = RngState.capture()
        self._generators = [(one, one.get_state()) for one in _generators(source)]
        self._live: Iterator[Any] | None = None  # what is not kept yet

    def read(self, most: int | None = None) -> Iterator[tuple[int, Any]]:
        """One pass: the index of each batch over all ranks, and the batch.

        Args:
            most: batches of this rank to read at most.
        """
        mine = None if self.limit is None else max(0, -(-(self.limit - self.rank) // self.world))
        bounds = [bound for bound in (mine, most) if bound is not None]
        for local, batch in enumerate(islice(self._pass(), min(bounds, default=None))):
            yield local * self.world + self.rank, batch

    def _pass(self) -> Iterator[Any]:
        kept = self._kept
        if kept is None:
            yield from self._shared(self._iterate())
            return
        if self._live is None:
            self._live = self._shared(self._iterate())
        at = 0
        while True:
            if at < len(kept):
                yield kept[at]
                at += 1
                continue
            more = list(islice(self._live, 1))
            if not more:
                return
            kept += more
            self._bytes += _size(more)
            if self._bytes <= KEEP_LIMIT:
                continue
            if isinstance(self.source, Iterator):
                self.notes.append(
                    f"the iterator can be read only once, so its first {len(kept)} batches"
                    f" ({KEEP_LIMIT / 2**30:g} GiB) were kept and the rest left out;"
                    " a loader can be read again"
                )
                self._live = iter(())
                continue
            self._kept = None
            yield from more
            yield from self._live
            return

    def _shared(self, batches: Iterator[Any]) -> Iterator[Any]:
        for index, batch in enumerate(batches):
            if not self.shard or index % self.world == self.rank:
                yield batch

    def _iterate(self) -> Iterator[Any]:
        """The source's batches, with the loader's own random state around each step, and its errors named."""
        if isinstance(self.source, (list, tuple)):
            yield from self.source
            return
        state, index = self._rng, 0
        for generator, start in self._generators:
            generator.set_state(start)
        iterator: Iterator[Any] | None = None
        while True:
            ours = RngState.capture()
            state.restore()
            try:
                if iterator is None:
                    iterator = iter(self.source)
                batch = next(iterator)
            except StopIteration:
                return
            except Exception as error:
                raise MeasureError(
                    f"the loader failed at batch {index}: {type(error).__name__}: {error}",
                    "iterate over it once on its own to see the whole traceback",
                    details=own_traceback(error),
                ) from error
            finally:
                state = RngState.capture()
                ours.restore()
            yield batch
            index += 1


def _generators(source: Any) -> list[torch.Generator]:
    """The generators that a `DataLoader` was given."""
    held = [getattr(one, "generator", None) for one in (source, getattr(source, "sampler", None))]
    return list({id(one): one for one in held if isinstance(one, torch.Generator)}.values())


def _size(value: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in walk(value))


class Picker:
    """Gives each batch's parts to forward's parameters, by name or by position.

    A tensor is the first argument. Of a tuple or list, as many elements as forward *requires* are passed by
    position (labels, which come last, are left out). Of a mapping, the keys that are parameters of forward
    are passed by name; where no key is one, its first tensors are passed by position, or the whole mapping
    where its tensors lie deeper. `Inputs` are passed as they stand.
    """

    def __init__(self, model: nn.Module) -> None:
        self.notes: list[str] = []
        self._required, self._names, self._any_name, self._text = _signature(model)

    def __call__(self, batch: Any) -> Inputs:
        """The arguments that `batch` stands for.

        Raises:
            MeasureError: the batch holds fewer parts than forward requires.
        """
        if isinstance(batch, Inputs):
            return batch
        if isinstance(batch, Mapping):
            return self._from_mapping(batch)
        if isinstance(batch, (list, tuple)):
            wanted = max(1, len(self._required))
            if len(batch) < wanted:
                raise MeasureError(
                    f"a batch has {len(batch)} parts, and forward{self._text} requires {wanted}",
                    "yield one tensor for each argument, or a dict with the argument names as keys",
                )
            if len(batch) > wanted:
                self._say(
                    f"of each batch's {len(batch)} parts the first {wanted} went to forward{self._text}"
                )
            return Inputs(tuple(batch[:wanted]))
        return Inputs((batch,))

    def _from_mapping(self, batch: Mapping[Any, Any]) -> Inputs:
        chosen = {key: value for key, value in batch.items() if key in self._names}
        missing = [name for name in self._required if name not in chosen]
        if not missing and (chosen or not self._any_name):
            return Inputs((), chosen)
        if chosen and missing:
            raise MeasureError(
                f"a batch has the keys {', '.join(map(repr, batch))}, and forward{self._text} also requires"
                f" {', '.join(missing)}",
                "yield a dict with forward's argument names as keys",
            )
        if self._any_name and not self._required:
            return Inputs((), dict(batch))
        values = [value for value in batch.values() if isinstance(value, Tensor)]
        if not values and len(self._required) == 1 and holds_tensor(batch):
            return Inputs((batch,))
        if len(values) < len(self._required):
            raise MeasureError(
                f"no key of a batch ({', '.join(map(repr, batch))}) is an argument of forward{self._text}",
                "yield a dict with forward's argument names as keys, or a tuple",
            )
        keys = [repr(key) for key, value in batch.items() if isinstance(value, Tensor)][: len(self._required)]
        self._say(f"of each batch's keys {', '.join(keys)} went to forward{self._text} by position")
        return Inputs(tuple(values[: len(self._required)]))

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _signature(model: nn.Module) -> tuple[list[str], set[str], bool, str]:
    """Required positional parameters of forward, all names, whether it takes any keyword, and it as text."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return [], set(), True, "(…)"
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature.parameters.values()
    required = [p.name for p in parameters if p.kind in positional and p.default is p.empty]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {p.name for p in parameters if p.kind in named}
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    text = ", ".join(p.name if p.default is p.empty else f"{p.name}=…" for p in parameters)
    return required, names, anything, f"({text})"


def to_device(value: Any, device: torch.device, *, copy: bool) -> Any:
    """`value` with every tensor on `device`; a copy where the caller's own tensor would be handed on."""

    def moved(tensor: Tensor) -> Tensor:
        if tensor.device == device or (tensor.device.type == device.type and device.index is None):
            return tensor.clone() if copy else tensor
        return tensor.to(device, non_blocking=True)

    def placed(part: Any) -> Any:
        if holds_tensor(part):
            return replaced(part, moved)
        move: Callable[..., Any] | None = getattr(part, "to", None)
        return move(device) if callable(move) else part

    if isinstance(value, Inputs):
        kwargs = {name: placed(part) for name, part in value.kwargs.items()}
        return Inputs(tuple(map(placed, value.args)), kwargs, value.guessed, value.origin)
    return placed(value)


def samples_of(inputs: Inputs) -> int:
    """The size of the first dimension of the first tensor, also inside dicts, lists and tuples; 0 for none.

    A list of tensors at the top, as detectors take it, holds one sample in each.
    """
    return _samples(inputs) or 0


def is_empty(inputs: Inputs) -> bool:
    """Whether the first tensor of a batch holds no sample."""
    return _samples(inputs) == 0


def _samples(inputs: Inputs) -> int | None:
    for value in (*inputs.args, *inputs.kwargs.values()):
        if isinstance(value, Sequence) and value and isinstance(value[0], Tensor):
            return len(value)
        size = _first_size(value)
        if size is not None:
            return size
    return None


def _first_size(value: Any) -> int | None:
    return next((int(tensor.shape[0]) for tensor in walk(value) if tensor.dim() > 0), None)


def describe(inputs: Inputs) -> str:
    """The shapes of a batch, for messages."""
    return ", ".join(inputs.describe()) or describe_value(None)
