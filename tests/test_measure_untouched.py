"""After `measure` the model is bit-identical, whatever happened in between."""

from __future__ import annotations

import copy
import io
import os
import pickle
import random
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dropout_lint.errors import MeasureError
from dropout_lint.loading.resolving import resolve
from dropout_lint.measurement import measure


class Stateful(nn.Module):
    """Does what a forward should not: rewrites weights, keeps counts and caches, writes into its input."""

    def __init__(self, fail_in: str | None = None) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.clamped = nn.Parameter(torch.randn(8))
        self.norm = nn.utils.spectral_norm(nn.Linear(8, 8))
        self.drop = nn.Dropout(0.5, inplace=True)
        self.bn = nn.BatchNorm1d(8)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("memory", None)
        self.calls = 0
        self.fail_in = fail_in

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.cache = x
        self.steps += 1
        self.memory = x.mean(0)
        self.fc.weight.data = torch.renorm(self.fc.weight.data, 2, 0, 0.1)  # EEGNet's max-norm constraint
        self.clamped.data.clamp_(-0.01, 0.01)
        x.sub_(0.5)  # the caller's own batch
        out: Tensor = self.bn(self.drop(self.norm(self.fc(x) + self.clamped)))
        np.random.rand()
        random.random()
        if self.calls == 3 and self.fail_in is not None:
            raise {"error": ValueError, "interrupt": KeyboardInterrupt}[self.fail_in]("on purpose")
        return out


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """All that must not change: values, identities, memory, modes, hooks and attributes."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found[f"{name} mode"] = module.training
        found[f"{name} attributes"] = {
            key: id(value)
            for key, value in module.__dict__.items()
            if not isinstance(value, (int, bool, float))
        } | {key: value for key, value in module.__dict__.items() if isinstance(value, (int, bool, float))}
        found[f"{name} hooks"] = {
            key: list(value) for key, value in module.__dict__.items() if key.endswith("_hooks")
        }
        found[f"{name} tables"] = [list(module._parameters), list(module._buffers), list(module._modules)]
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[f"{name} tensor"] = (id(tensor), tensor.data_ptr(), tensor.shape, tensor.dtype)
        found[f"{name} values"] = tensor.detach().numpy().tobytes()
        found[f"{name} gradient"] = None if tensor.grad is None else tensor.grad.numpy().tobytes()
    return found


def generators() -> tuple[bytes, int, Any, bytes]:
    return (
        torch.get_rng_state().numpy().tobytes(),
        torch.initial_seed(),
        random.getstate(),
        pickle.dumps(np.random.get_state()),
    )


def loader(count: int = 4) -> Iterator[Tensor]:
    for _ in range(count):
        yield torch.randn(16, 8)
        random.random()


@pytest.mark.parametrize("statistics", ["stored", "measured"])
@pytest.mark.parametrize("fail_in", [None, "error", "interrupt"])
def test_nothing_is_left_behind(fail_in: str | None, statistics: str) -> None:
    model = Stateful()
    model(torch.randn(16, 8)).sum().backward()
    model.calls = 0
    model.fail_in = fail_in
    model.train()
    model.drop.eval()  # a mode of its own
    model.bn.register_forward_hook(lambda *_: None)
    before, state = fingerprint(model), generators()
    if fail_in is None:
        measure(model, loader(), statistics=statistics, per_dropout=True, device="cpu")
    else:
        with pytest.raises(KeyboardInterrupt if fail_in == "interrupt" else MeasureError):
            measure(model, loader(), statistics=statistics, per_dropout=True, device="cpu")
    after = fingerprint(model)
    # renorm and clamp write through .data: the same storage, or the old one put back
    assert {key for key in before if before[key] != after[key]} == set()
    assert generators() == state


def test_nothing_is_left_behind_when_a_loader_fails_or_ctrl_c_meets_it() -> None:
    def failing(error: type[BaseException]) -> Iterator[Tensor]:
        yield torch.randn(16, 8)
        raise error("on purpose")

    for error, seen in ((RuntimeError, MeasureError), (KeyboardInterrupt, KeyboardInterrupt)):
        model = Stateful()
        before, state = fingerprint(model), generators()
        with pytest.raises(seen):
            measure(model, failing(error), device="cpu")
        assert fingerprint(model) == before
        assert generators() == state


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_at_any_moment() -> None:
    """A real SIGINT at lines all over the run, also while things are being put back."""
    counted = 0
    strike = -1

    def tracer(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal counted
        if f"{os.sep}measurement{os.sep}" not in frame.f_code.co_filename:
            return None
        if event == "line":
            counted += 1
            if counted == strike:
                signal.raise_signal(signal.SIGINT)
        return tracer

    def run(model: nn.Module) -> None:
        nonlocal counted
        counted = 0
        sys.settrace(tracer)
        try:
            measure(model, [torch.randn(8, 8)], statistics="measured", per_dropout=True, device="cpu")
        finally:
            sys.settrace(None)

    model = Stateful()
    run(model)
    lines, interrupted = counted, 0
    assert lines > 1000
    random.seed(1)
    for strike in sorted(random.sample(range(lines), 60)) + list(range(lines - 80, lines, 4)):
        before = fingerprint(model)
        try:
            run(model)
        except KeyboardInterrupt:
            interrupted += 1
        assert fingerprint(model) == before, strike
        assert torch.is_grad_enabled(), strike
    assert interrupted > 60
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_callers_batches_are_not_changed_by_a_model_that_writes_into_its_input() -> None:
    batches = [torch.randn(16, 8) for _ in range(3)]
    copies = [batch.clone() for batch in batches]
    measure(Stateful(), batches, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(batches, copies, strict=True))


def test_a_pending_backward_of_the_callers_still_works() -> None:
    plain = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval()
    loss = plain(torch.randn(4, 8)).sum()
    measure(plain, [torch.randn(16, 8)], device="cpu")
    loss.backward()
    assert plain[0].weight.grad is not None


def test_measuring_twice_gives_the_same_numbers() -> None:
    (built,) = resolve("fixtures.preresnet:build(depth=8)", prefer_meta=False)
    data = [torch.randn(4, *built.inputs.args[0].shape[1:]) for _ in range(2)]
    first = measure(built.model, data, device="cpu")
    assert measure(built.model, data, device="cpu").delta == first.delta
    clone = copy.deepcopy(built.model)
    assert measure(clone, data, device="cpu").delta == first.delta


def test_the_models_file_is_the_same_byte_for_byte() -> None:
    (built,) = resolve("fixtures.wide_resnet:build(depth=10, widen_factor=1)", prefer_meta=False)
    data = [torch.randn(4, *built.inputs.args[0].shape[1:])]

    def saved() -> bytes:
        file = io.BytesIO()
        torch.save(built.model, file)
        return file.getvalue()

    before = saved()
    measure(built.model, data, per_dropout=True, device="cpu")
    assert saved() == before


def test_a_norm_that_already_has_a_forward_of_its_own_keeps_it() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(8))
    original = model[1].forward

    def own(x: Tensor) -> Tensor:
        out: Tensor = original(x)
        return out

    model[1].forward = own
    shift = measure(model, [torch.randn(32, 8)], per_dropout=True, device="cpu")
    assert model[1].forward is own
    assert "forward" not in model[0].__dict__
    assert "1" in shift.delta
