"""A witness of what is random: which draws reach which tensor, whatever carries them there.

It sees the operations that torch really dispatches and keeps, for each storage, the set of draws that reached
it. Views share a storage and writes in place name what they write, so that slices, `index_add_`, custom
functions and scripted code are followed without a rule for each. It says that noise arrives and from which
line, not how much: that is the ledger's business, which it is independent of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from dropout_lint.inputs.example import Location
from dropout_lint.trace.frames import location_of, user_frame
from dropout_lint.trace.values import tensors_in

_BORROWS_SHAPE = ("new_", "empty", "zeros", "ones", "full", "rand")
"""Operations whose tensor arguments lend their shape alone start like this, or end in `_like`."""
_OVERWRITES = frozenset(
    {
        *("fill_", "zero_", "copy_", "normal_", "uniform_", "bernoulli_", "random_", "exponential_"),
        *("cauchy_", "log_normal_", "geometric_"),
    }
)
_RATIOS = ("dropout_p", "p", "dropout")
_MODES = ("training", "train")


@dataclass
class Draw:
    """One random draw while a model was recorded.

    Attributes:
        operation: what drew, as `torch.randn_like` or `random.random`.
        call: the user's line.
        turn: 0 for the first such draw on this line, 1 for the second, …
        node: the node of the graph that holds it, None where it is in none.
        chance: it became a value in Python, of which nothing further is seen: it may decide what runs.
        trial: it was drawn while a layer was tried in test mode, and is no part of the recording.
    """

    operation: str
    call: Location | None
    turn: int
    node: fx.Node | None = None
    chance: bool = False
    trial: bool = False

    def __str__(self) -> str:
        place = f"{Path(self.call.file).name}:{self.call.line} " if self.call else ""
        return f"{place}{self.operation}"

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for the same draw in another recording of the model."""
        return self.operation, self.call and (self.call.file, self.call.line), self.turn


class _Kind:
    """What the witness has to know of one operator, read from its schema."""

    __slots__ = (
        "borrows",
        "defaults",
        "mode",
        "name",
        "overwrites",
        "positions",
        "ratio",
        "seeded",
        "written",
    )

    def __init__(self, func: Any) -> None:
        schema = getattr(func, "_schema", None)
        arguments = list(schema.arguments) if schema is not None else []
        self.name = str(getattr(func, "__name__", func)).split(".")[0]
        self.seeded = torch.Tag.nondeterministic_seeded in getattr(func, "tags", ())
        self.borrows = self.name.endswith("_like") or (
            self.name.startswith(_BORROWS_SHAPE) and not self.name.endswith("_")
        )
        self.overwrites = self.name in _OVERWRITES
        self.positions = {argument.name: place for place, argument in enumerate(arguments)}
        self.defaults = {
            argument.name: argument.default_value for argument in arguments if argument.has_default_value()
        }
        self.written = tuple(
            argument.name
            for argument in arguments
            if argument.alias_info is not None and argument.alias_info.is_write
        )
        self.mode = next((name for name in _MODES if name in self.positions), None)
        self.ratio = next((name for name in _RATIOS if name in self.positions), None)

    def given(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value of an argument, its default where none is given."""
        place = self.positions[name]
        return args[place] if place < len(args) else kwargs.get(name, self.defaults.get(name))

    def draws(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call of an operator that can draw does: in training, at a ratio that is not 0."""
        if self.mode is not None and self.given(self.mode, args, kwargs) is False:
            return False
        return self.ratio is None or self.given(self.ratio, args, kwargs) not in (0, 0.0)


_kinds: dict[Any, _Kind] = {}


def kind_of(func: Any) -> _Kind:
    """What there is to know of an operator, read once."""
    kind = _kinds.get(func)
    if kind is None:
        kind = _kinds[func] = _Kind(func)
    return kind


class Witness(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped in torch
    """Which draws reached which storage. Sets of draws are bits of an integer, by their place in `draws`.

    Attributes:
        draws: all draws so far.
        behind: what chance decided in Python for the code that runs now; it reaches whatever this code makes.
        batch_statistics: whether the last batch normalisation used the statistics of its batch.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self.draws: list[Draw] = []
        self.behind = 0
        self.batch_statistics: bool | None = None
        self._reached: dict[int, int] = {}
        self._kept: dict[int, Any] = {}
        self._turns: dict[tuple[str, Location | None], int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to be skipped, torch would load dynamo at the first operation, which takes over a second."""
        return False

    @property
    def idle(self) -> bool:
        """Whether nothing random has happened yet, so that there is nothing to follow."""
        return not self.draws

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = kind_of(func)
        if kind.mode is not None and "batch_norm" in kind.name:
            self.batch_statistics = bool(kind.given(kind.mode, args, kwargs))
        draws = kind.seeded and kind.draws(args, kwargs)
        if not draws and not self._reached:
            return func(*args, **kwargs)
        bits = self._into(kind, args, kwargs)
        result = func(*args, **kwargs)
        if draws:
            bits |= 1 << self.draw(f"torch.{kind.name}")
        for name in kind.written:
            for tensor in tensors_in(kind.given(name, args, kwargs)):
                if kind.overwrites and _is_whole(tensor):
                    self._forget(tensor)
                self.reach(tensor, bits)
        if bits:
            for tensor in tensors_in(result):
                self.reach(tensor, bits)
        return result

    def _into(self, kind: _Kind, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """The draws that an operation's result depends on."""
        if kind.borrows or not self._reached:
            return 0
        read = args[1:] if kind.overwrites else args
        return self.of_all((*read, *kwargs.values()))

    def draw(self, operation: str, node: fx.Node | None = None, *, chance: bool = False) -> int:
        """Note a draw on the user's line that runs now; returns its place in `draws`."""
        call = location_of(user_frame(2))
        turn = self._turns.get((operation, call), 0)
        self._turns[operation, call] = turn + 1
        self.draws.append(Draw(operation, call, turn, node, chance))
        return len(self.draws) - 1

    def reach(self, tensor: torch.Tensor, bits: int) -> None:
        """Say that `bits` reached `tensor`, and whatever shares its storage."""
        if bits:
            key = self._key(tensor)
            if key not in self._reached:
                self._keep(key, tensor)
            self._reached[key] = self._reached.get(key, 0) | bits

    def of(self, tensor: torch.Tensor) -> int:
        """The draws that reached `tensor`."""
        return self._reached.get(self._key(tensor), 0) if self._reached else 0

    def of_all(self, value: Any) -> int:
        """The draws that reached some tensor inside `value`."""
        bits = 0
        if self._reached:
            for tensor in tensors_in(value):
                bits |= self._reached.get(self._key(tensor), 0)
        return bits

    def _forget(self, tensor: torch.Tensor) -> None:
        self._reached.pop(self._key(tensor), None)

    @staticmethod
    def _key(tensor: torch.Tensor) -> int:
        with torch._C.DisableTorchFunction():
            try:
                return int(tensor.untyped_storage()._cdata)
            except (NotImplementedError, RuntimeError):  # sparse, and others without a storage
                return -id(tensor)

    def _keep(self, key: int, tensor: torch.Tensor) -> None:
        """Hold what `key` names, so that no other storage takes its place; of a storage not its memory."""
        if key not in self._kept:
            with torch._C.DisableTorchFunction():
                if key < 0:
                    self._kept[key] = tensor
                else:
                    self._kept[key] = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]  # untyped in torch


def _is_whole(tensor: torch.Tensor) -> bool:
    """Whether `tensor` covers its storage."""
    with torch._C.DisableTorchFunction():
        try:
            return tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes()
        except (NotImplementedError, RuntimeError):
            return False
