"""What other threads, other modes and other readers of the weights see of a lint: nothing."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import dropout_lint as dl
from dropout_lint.fixes.graph.module import _LeafTracer
from dropout_lint.guard.eager import eager
from dropout_lint.inputs.example import Inputs
from dropout_lint.trace import trace
from dropout_lint.trace.parts import trace_symbolically
from fixtures import preresnet

X = torch.randn(4, 3, 8, 8)


class Twice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


def convolutions() -> nn.Module:
    first = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.4))
    return nn.Sequential(*first, Twice(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))


def at_once(*jobs: Callable[[], None]) -> None:
    """Run jobs in threads of their own; the first failure is raised here."""
    failures: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_threads_lint_at_once_while_others_run_models() -> None:
    model = preresnet.build(position="P4", p=0.5, depth=8, width=8)
    expected = dl.lint(model, preresnet.example_inputs).to_json()
    before = nn.Module.__call__, torch.manual_seed  # dynamo, which the first lint loads, wraps the second
    running = convolutions().eval()
    with torch.no_grad():
        output = running(X)
    done = threading.Event()
    linting = threading.Barrier(4)

    def lint() -> None:
        own = copy.deepcopy(model)
        linting.wait()
        for linted in (own, model):  # one of their own, and one that they share
            assert dl.lint(linted, preresnet.example_inputs).to_json() == expected

    def infer() -> None:
        while not done.is_set():
            with torch.no_grad():
                assert torch.equal(running(X), output)

    def lint_all() -> None:
        try:
            at_once(lint, lint, lint, lint)
        finally:
            done.set()

    at_once(lint_all, infer, infer)
    assert (nn.Module.__call__, torch.manual_seed) == before


class Elsewhere(nn.Module):
    """Something happens in another thread in the middle of its forward."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self.happens = happens
        self.drop = nn.Dropout(0.2)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        at_once(self.happens)
        return self.norm(self.drop(x))


@pytest.mark.parametrize("way", ["recorded", "symbolic", "unpickled"])
def test_a_call_in_another_thread_is_not_recorded(way: str) -> None:
    other = nn.Dropout(0.5)
    seen: list[torch.Tensor] = []
    model = Elsewhere(lambda: seen.append(other(torch.ones(100))))
    if way == "recorded":
        found = trace(model, Inputs((torch.randn(2, 4),)))
        assert [site.name for site in found.dropouts] == ["drop"]
        graph = found.graph
    elif way == "unpickled":
        graph = _LeafTracer().trace(model)
    else:
        recording = trace_symbolically(model, dl.layers.STANDARD)
        assert recording is not None
        graph = recording.graph
    assert [node.target for node in graph.nodes if node.op == "call_module"] == ["drop", "norm"]
    assert all(set(values.tolist()) == {0.0, 2.0} for values in seen)


def test_threads_that_want_compiled_code_off_put_it_back_once() -> None:
    doubled = torch.compile(lambda x: x * 2, backend=lambda graph, inputs: lambda x: (x * 3,))
    assert doubled(torch.ones(2)).tolist() == [3, 3]
    inside, gone = threading.Event(), threading.Event()

    def first() -> None:
        with eager():
            inside.set()
            gone.wait()
        assert doubled(torch.ones(2)).tolist() == [3, 3]

    def second() -> None:
        inside.wait()
        with eager():
            pass
        gone.set()

    at_once(first, second)
    assert doubled(torch.ones(2)).tolist() == [3, 3]


def spectral() -> nn.Module:
    return nn.Sequential(spectral_norm(nn.Linear(8, 8)), nn.Dropout(0.3), nn.BatchNorm1d(8))


CALLS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "lint": dl.lint,
    "fix": lambda model, x: dl.fix(model, x, strategy="uout"),
    "correct_init_": dl.correct_init_,
    "symbolic": lambda model, x: trace_symbolically(model, dl.layers.STANDARD),
}


@pytest.mark.parametrize("call", CALLS)
def test_reading_weights_takes_no_step_of_a_spectral_norm(call: str) -> None:
    model = spectral()
    model[2].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    made = CALLS[call](model, torch.randn(4, 8))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    if call == "fix":
        assert made.applied
        state = made.model.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in before.items())
        assert all(
            module.training == dict(model.named_modules())[name].training
            for name, module in made.model.named_modules()
        )


@pytest.mark.parametrize("call", ["lint", "fix", "correct_init_"])
@pytest.mark.parametrize("inside", [False, True])
def test_inference_mode_makes_no_difference(call: str, inside: bool) -> None:
    model = convolutions()
    torch.manual_seed(3)
    expected = CALLS[call](convolutions(), X)
    torch.manual_seed(3)
    with torch.inference_mode():
        if inside:  # then its weights are inference tensors as well
            model = convolutions()
        found = CALLS[call](model, X + 0)
        assert torch.is_inference_mode_enabled()
    if call == "lint":
        assert [item.code for item in found.findings] == [item.code for item in expected.findings]
        assert found.target.trace == expected.target.trace
    elif call == "fix":
        assert found.applied == expected.applied
        assert not any(parameter.is_inference() for parameter in found.model.parameters())
    else:
        assert found == expected
