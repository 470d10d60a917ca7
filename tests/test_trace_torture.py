"""The torture suite: small modules written the way models really are, with a dropout→norm path or without.

Every module with a path must be traced, the path found, and no path be found where there is none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn
from torch.nn.utils import parametrizations, rnn

from dropout_lint.inputs.example import Inputs
from dropout_lint.trace import Trace, trace

CASES: dict[str, tuple[Callable[[], nn.Module], Any, bool]] = {}


def case(*inputs: Any, path: bool = True, **keywords: Any) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Register a module of the suite with the inputs of its forward, and whether a dropout reaches a norm."""

    def register(cls: type[nn.Module]) -> type[nn.Module]:
        CASES[cls.__name__] = (cls, Inputs(inputs, keywords), path)
        return cls

    return register


VECTOR = torch.randn(4, 8)
IMAGE = torch.randn(2, 3, 8, 8)
SEQUENCE = torch.randn(4, 6, 8)


class Base(nn.Module):
    """The layers that most cases share."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)
        self.bn = nn.BatchNorm1d(8)


# -- reused modules and call sites ---------------------------------------------------------------------------


@case(VECTOR)
class Reused(Base):
    def forward(self, x):
        x = self.drop(self.fc(x))
        return self.drop(self.bn(x))


@case(VECTOR)
class SharedUnderTwoNames(Base):
    def __init__(self):
        super().__init__()
        self.alias = self.drop

    def forward(self, x):
        return self.bn(self.alias(self.fc(x)))


@case(VECTOR)
class LoopOverOneLine(nn.Module):
    def __init__(self):
        super().__init__()
        self.fcs = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.bns = nn.ModuleList(nn.BatchNorm1d(8) for _ in range(3))
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        for fc, bn in zip(self.fcs, self.bns, strict=True):
            x = torch.relu(bn(self.drop(fc(x))))
        return x


@case(VECTOR)
class TiedWeights(Base):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(8, 8)
        self.other.weight = self.fc.weight

    def forward(self, x):
        return self.bn(self.other(self.drop(self.fc(x))))


@case(VECTOR)
class ForwardCalledDirectly(Base):
    def forward(self, x):
        return self.bn.forward(self.drop.forward(self.fc.forward(x)))


@case(VECTOR)
class Recursion(Base):
    def forward(self, x, depth=2):
        x = self.bn(self.drop(self.fc(x)))
        return self.forward(x, depth - 1) if depth else x


# -- functional forms ----------------------------------------------------------------------------------------


@case(VECTOR)
class Functional(Base):
    def forward(self, x):
        return self.bn(F.dropout(self.fc(x), 0.5, self.training))


@case(VECTOR)
class FunctionalNorm(Base):
    def forward(self, x):
        x = F.dropout(self.fc(x), p=0.5, training=self.training)
        return F.batch_norm(x, self.bn.running_mean, self.bn.running_var, training=self.training)


@case(VECTOR)
class TorchDropout(Base):
    def forward(self, x):
        return self.bn(torch.dropout(self.fc(x), 0.5, train=self.training))


@case(VECTOR)
class MadeInForward(Base):
    def forward(self, x):
        return self.bn(nn.Dropout(0.5)(self.fc(x)))


@case(VECTOR)
class Partial(Base):
    def forward(self, x):
        drop = functools.partial(F.dropout, p=0.5, training=self.training)
        return self.bn(drop(self.fc(x)))


def _helper(x: torch.Tensor, training: bool) -> torch.Tensor:
    return F.dropout(x, 0.5, training)


torch.fx.wrap("_helper")


@case(VECTOR)
class FxWrapped(Base):
    def forward(self, x):
        return self.bn(_helper(self.fc(x), self.training))


@case(IMAGE)
class Dropout2dFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(F.dropout2d(self.conv(x), 0.2, self.training))


# -- control flow --------------------------------------------------------------------------------------------


@case(VECTOR)
class BranchOnShape(Base):
    def forward(self, x):
        if x.shape[0] > 2 and x.dim() == 2:
            x = self.drop(x)
        return self.bn(self.fc(x))


@case(SEQUENCE)
class LoopOverSize(Base):
    def forward(self, x):
        steps = [self.drop(x[:, t]) for t in range(x.size(1))]
        return self.bn(torch.stack(steps, dim=1).mean(dim=1))


@case(VECTOR)
class BranchOnDevice(Base):
    def forward(self, x):
        x = self.fc(x)
        if x.is_cuda:
            return x
        return self.bn(self.drop(x))


@case(VECTOR)
class BranchOnValue(Base):
    def forward(self, x):
        if x.abs().sum().item() >= 0:
            x = self.drop(x)
        return self.bn(self.fc(x))


@case(VECTOR)
class BoolOfTensor(Base):
    def forward(self, x):
        if x.isfinite().all():
            x = self.drop(x)
        return self.bn(x)


@case(VECTOR)
class Asserts(Base):
    def forward(self, x):
        assert x.ndim == 2 and x.shape[1] == self.fc.in_features
        assert len(x) > 1, "needs a batch"
        return self.bn(self.drop(self.fc(x)))


@case(VECTOR)
class GuardedByTraining(Base):
    def forward(self, x):
        if self.training:
            x = F.dropout(x, 0.5)
        return self.bn(self.fc(x))


@case(VECTOR)
class RaisesAndCatches(Base):
    def forward(self, x):
        try:
            x = self.missing(x)
        except AttributeError:
            x = self.drop(x)
        return self.bn(x)


@case(VECTOR)
class DevicesMoved(Base):
    def forward(self, x):
        mask = torch.ones(x.shape, device=x.device, dtype=x.dtype)
        return self.bn(self.drop(self.fc(x)).to(x.device) * mask.cpu().to("cpu"))


# -- inputs and outputs --------------------------------------------------------------------------------------


@case({"image": VECTOR, "mask": None})
class DictInput(Base):
    def forward(self, batch):
        x = batch["image"]
        if batch["mask"] is not None:
            x = x * batch["mask"]
        return {"logits": self.bn(self.drop(self.fc(x)))}


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor | None = None


@case(VECTOR)
class DataclassOutput(Base):
    def forward(self, x):
        return Output(logits=self.bn(self.drop(self.fc(x))))


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@case(VECTOR)
class NamedTupleBetween(Base):
    def forward(self, x):
        pair = Pair(self.drop(self.fc(x)), x)
        return self.bn(pair.first)


@case(VECTOR, VECTOR, scale=2.0)
class VariadicInputs(Base):
    def forward(self, *xs, **options):
        x = sum(xs) * options["scale"]
        return self.bn(self.drop(self.fc(x)))


@case([VECTOR, VECTOR])
class ListInput(Base):
    def forward(self, xs):
        return [self.bn(self.drop(self.fc(x))) for x in xs]


@case(VECTOR, path=True)
class OptionalArgument(Base):
    def forward(self, x, mask=None):
        x = self.drop(self.fc(x))
        return self.bn(x if mask is None else x * mask)


@case(VECTOR)
class NestedTuples(Base):
    def helper(self, x):
        return (self.drop(x), (x, {"skip": x}))

    def forward(self, x):
        a, (b, rest) = self.helper(self.fc(x))
        return self.bn(a + b + rest["skip"])


# -- in place, views, out= -----------------------------------------------------------------------------------


@case(VECTOR)
class InplaceAdd(Base):
    def forward(self, x):
        y = self.fc(x)
        y += self.drop(x)
        return self.bn(y)


@case(VECTOR)
class InplaceDropout(Base):
    def forward(self, x):
        y = self.fc(x)
        F.dropout(y, 0.5, self.training, inplace=True)
        return self.bn(y)


@case(VECTOR)
class ViewMutation(Base):
    def forward(self, x):
        y = self.fc(x)
        half = y[:, :4]
        half.mul_(self.drop(torch.ones_like(half)))
        return self.bn(y)


@case(VECTOR)
class SetItem(Base):
    def forward(self, x):
        y = self.fc(x).clone()
        y[:, 0] = self.drop(x)[:, 0]
        return self.bn(y)


@case(VECTOR)
class OutArgument(Base):
    def forward(self, x):
        y = torch.empty_like(x)
        torch.add(self.drop(x), x, out=y)
        return self.bn(y)


@case(VECTOR)
class DataAttribute(Base):
    def forward(self, x):
        y = self.drop(self.fc(x))
        return self.bn(y.T.T)


# -- hooks, decorators, wrappers -----------------------------------------------------------------------------


@case(VECTOR)
class ForwardHook(Base):
    def __init__(self):
        super().__init__()
        self.fc.register_forward_hook(lambda module, args, output: self.drop(output))

    def forward(self, x):
        return self.bn(self.fc(x))


@case(VECTOR)
class PreHook(Base):
    def __init__(self):
        super().__init__()
        self.bn.register_forward_pre_hook(lambda module, args: (self.drop(args[0]),))

    def forward(self, x):
        return self.bn(self.fc(x))


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        with contextlib.nullcontext():
            return function(*args, **kwargs)

    return wrapper


@case(VECTOR)
class DecoratedForward(Base):
    @decorated
    def forward(self, x):
        return self.bn(self.drop(self.fc(x)))


@case(VECTOR)
class NoGradAutocast(Base):
    @torch.no_grad()
    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.bn(self.drop(self.fc(x)))


@case(VECTOR)
class Checkpointed(Base):
    def block(self, x):
        return self.drop(self.fc(x))

    def forward(self, x):
        return self.bn(torch.utils.checkpoint.checkpoint(self.block, x, use_reentrant=False))


@case(VECTOR)
class CheckpointedReentrant(Base):
    def forward(self, x):
        return self.bn(
            torch.utils.checkpoint.checkpoint(lambda y: self.drop(self.fc(y)), x, use_reentrant=True)
        )


@case(VECTOR)
class Compiled(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.compile(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)))

    def forward(self, x):
        return self.body(x)


@case(VECTOR)
class CompiledInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))
        self.body.compile()

    def forward(self, x):
        return self.body(x)


@case(VECTOR)
class Parallel(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.DataParallel(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)))

    def forward(self, x):
        return self.body(x)


@case(VECTOR)
class TracedByFx(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.fx.symbolic_trace(
            nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))
        )

    def forward(self, x):
        return self.body(x)


# -- containers, parametrisations, lazy ----------------------------------------------------------------------


@case(VECTOR)
class DictByKey(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"drop": nn.Dropout(0.5), "bn": nn.BatchNorm1d(8)})
        self.order = ("drop", "bn")

    def forward(self, x):
        for name in self.order:
            x = self.parts[name](x)
        return x


@case(VECTOR)
class OrderedSequential(nn.Sequential):
    def __init__(self):
        super().__init__(OrderedDict(fc=nn.Linear(8, 8), drop=nn.Dropout(0.5), bn=nn.BatchNorm1d(8)))


@case(VECTOR)
class Parametrised(Base):
    def __init__(self):
        super().__init__()
        self.fc = parametrizations.weight_norm(nn.Linear(8, 8))
        self.fc2 = parametrizations.spectral_norm(nn.Linear(8, 8))

    def forward(self, x):
        return self.bn(self.fc2(self.drop(self.fc(x))))


@case(VECTOR)
class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.drop, self.bn = nn.LazyLinear(8), nn.Dropout(0.5), nn.LazyBatchNorm1d()

    def forward(self, x):
        return self.bn(self.drop(self.fc(x)))


class OwnNorm(nn.BatchNorm1d):
    """A user's subclass."""


class OwnDropout(nn.Dropout):
    """A user's subclass."""


@case(VECTOR)
class Subclasses(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.drop, self.bn = nn.Linear(8, 8), OwnDropout(0.5), OwnNorm(8)

    def forward(self, x):
        return self.bn(self.drop(self.fc(x)))


@case(VECTOR)
class BufferUpdated(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self.cache = []

    def forward(self, x):
        self.steps += 1
        self.cache.append(x)
        self.last = self.drop(self.fc(self.cache[-1]))
        return self.bn(self.last)


@case(VECTOR)
class PlainTensorAttribute(Base):
    def __init__(self):
        super().__init__()
        self.scale = torch.full((8,), 2.0)

    def forward(self, x):
        return self.bn(self.drop(self.fc(x)) * self.scale)


@case(VECTOR)
class SyncNorm(Base):
    def __init__(self):
        super().__init__()
        self.bn = nn.SyncBatchNorm(8)

    def forward(self, x):
        return self.bn(self.drop(self.fc(x)))


# -- sequences, attention, recurrent -------------------------------------------------------------------------


@case(SEQUENCE, torch.tensor([6, 5, 4, 3]))
class Packed(Base):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(8, 8, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x, lengths):
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=True)
        output, _ = self.rnn(packed)
        padded, _ = rnn.pad_packed_sequence(output, batch_first=True)
        return self.bn(padded[:, 0])


@case(SEQUENCE)
class Recurrent(Base):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(8, 8, num_layers=2, dropout=0.3, batch_first=True)

    def forward(self, x):
        return self.bn(self.rnn(x)[0][:, -1])


@case(SEQUENCE)
class Attention(Base):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)

    def forward(self, x):
        return self.bn(self.attention(x, x, x, need_weights=False)[0].mean(1))


@case(SEQUENCE)
class ScaledDotProduct(Base):
    def forward(self, x):
        y = F.scaled_dot_product_attention(x, x, x, dropout_p=0.2 if self.training else 0.0)
        return self.bn(y.mean(1))


@case(SEQUENCE)
class Encoder(Base):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True), 2)

    def forward(self, x):
        return self.bn(self.encoder(x).mean(1))


@case(SEQUENCE)
class Einops(Base):
    def forward(self, x):
        from einops import rearrange

        return self.bn(rearrange(self.drop(x), "b t c -> (b t) c"))


# -- noise made by hand --------------------------------------------------------------------------------------


@case(VECTOR)
class Bernoulli(Base):
    def forward(self, x):
        x = self.fc(x)
        if self.training:
            x = x * torch.bernoulli(torch.full_like(x, 0.8)) / 0.8
        return self.bn(x)


@case(VECTOR)
class RandCompared(Base):
    def forward(self, x):
        x = self.fc(x)
        mask = (torch.rand_like(x) > 0.3).float()
        return self.bn(x * mask / 0.7)


@case(IMAGE)
class DropPathByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)

    def drop_path(self, x, p):
        if not self.training:
            return x
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        mask = x.new_empty(shape).bernoulli_(1 - p)
        return x * mask.div_(1 - p)

    def forward(self, x):
        return self.bn(x + self.drop_path(self.conv(x), 0.2))


class _Identity(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x * 1.0

    @staticmethod
    def backward(context, gradient):
        return gradient


@case(VECTOR)
class CustomFunction(Base):
    def forward(self, x):
        return self.bn(_Identity.apply(self.drop(self.fc(x))))


@case(VECTOR)
class Vmapped(Base):
    def forward(self, x):
        return self.bn(torch.vmap(lambda row: row * 2 + 1)(self.drop(self.fc(x))))


@case(VECTOR)
class Unrolled(nn.Module):
    """A hundred blocks: what a loop over a deep stack gives."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.BatchNorm1d(8)) for _ in range(100)
        )

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


# -- no path -------------------------------------------------------------------------------------------------


@case(VECTOR, path=False)
class AfterTheNorm(Base):
    def forward(self, x):
        return self.fc(self.drop(self.bn(x)))


@case(VECTOR, path=False)
class OtherBranch(Base):
    def forward(self, x):
        return self.bn(self.fc(x)), self.drop(x)


@case(VECTOR, path=False)
class ReturnsItsInput(Base):
    def forward(self, x):
        y = x.contiguous().to(torch.float32)
        normed = self.bn(y)
        return self.drop(y) + normed


@case(VECTOR, path=False)
class OnlyItsShape(Base):
    def forward(self, x):
        dropped = self.drop(x)
        return self.bn(x.new_zeros(dropped.shape) + x) + dropped


def reaches_norm(found: Trace) -> bool:
    """Whether any dropout has a way to any norm along the graph."""
    norms = {site.node for site in found.norms}
    for site in found.dropouts:
        queue, seen = [site.node], set()
        while queue:
            node = queue.pop()
            for user in node.users:
                if user in norms:
                    return True
                if user not in seen and not isinstance(user.meta.get("value"), int):
                    seen.add(user)
                    queue.append(user)
        if site.node in norms:
            return True
    return False


@pytest.mark.parametrize("name", CASES)
def test_the_path_is_found_and_only_where_there_is_one(name: str) -> None:
    cls, inputs, path = CASES[name]
    found = trace(cls(), inputs)
    assert not found.opaque
    assert found.dropouts, "no dropout was seen"
    assert found.norms, "no norm was seen"
    assert reaches_norm(found) is path


@pytest.mark.parametrize("name", CASES)
def test_every_call_has_the_users_own_line(name: str) -> None:
    cls, inputs, _ = CASES[name]
    found = trace(cls(), inputs)
    for site in (*found.dropouts, *found.norms):
        assert site.call is not None and site.call.file == __file__, site
