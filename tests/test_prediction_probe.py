"""Δ from a checkpoint alone, by a run on recovered inputs, against the trained network on its own data."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable

import pytest
import torch
from brute_force import measured, predicted
from torch import Tensor, nn
from torch.nn import functional as F

import dropout_lint as dl
from dropout_lint.inputs.example import Inputs
from dropout_lint.prediction import predict
from dropout_lint.trace import trace
from fixtures.noise import DropPath


def classes(*shape: int, count: int = 768, kinds: int = 6) -> tuple[Tensor, Tensor]:
    """Inputs that are far from standard normal: noise around a few positive prototypes, and their classes."""
    prototypes = torch.rand(kinds, *shape).pow(3) * 4
    labels = torch.randint(0, kinds, (count,))
    return prototypes[labels] + 0.4 * torch.randn(count, *shape), labels


def drawings() -> tuple[Tensor, Tensor]:
    """The same as images of 8×8, smooth as images are."""
    x, labels = classes(2, 3, 3)
    return F.interpolate(x, (8, 8), mode="bilinear"), labels


def fitted(model: nn.Module, x: Tensor, labels: Tensor, steps: int = 150) -> nn.Module:
    """The model after some training."""
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    for index in torch.randint(0, len(x), (steps, 64)):
        optimiser.zero_grad()
        F.cross_entropy(model(x[index]), labels[index]).backward()
        optimiser.step()
    with torch.no_grad():  # statistics of the weights as they are at last
        for _ in range(60):
            model(x[torch.randint(0, len(x), (256,))])
    return model


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(64, 48), nn.ReLU(), nn.BatchNorm1d(48), nn.Dropout(0.5),
        nn.Linear(48, 48), nn.BatchNorm1d(48), nn.Tanh(), nn.Linear(48, 6),
    )  # fmt: skip


def images() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(inplace=True), nn.Dropout(0.4),
        nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24), nn.SiLU(), nn.MaxPool2d(2),
        nn.Dropout2d(0.2, inplace=True),
        nn.Conv2d(24, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 6),
    )  # fmt: skip


class Paths(nn.Module):
    """Residual blocks with a functional dropout inside and stochastic depth at their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(12, 32)
        self.norms = nn.ModuleList(nn.BatchNorm1d(32) for _ in range(4))
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
        self.path = DropPath(0.2)
        self.head = nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=False):
            x = x + self.path(layer(F.dropout(F.gelu(norm(x)), 0.3, self.training)))
        return self.head(self.norms[-1](x))  # type: ignore[no-any-return]  # a module's call is Any


class Tokens(nn.Module):
    """Attention with dropout inside over tokens, then norms over channels; nothing of the input is float."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 32)
        self.attention = nn.MultiheadAttention(32, 4, dropout=0.2, batch_first=True)
        self.first, self.second = nn.BatchNorm1d(32), nn.BatchNorm1d(32)
        self.drop, self.mix, self.head = nn.Dropout(0.3), nn.Linear(32, 32), nn.Linear(32, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        x = x + self.drop(self.attention(x, x, x, need_weights=False)[0])
        x = self.first(x.transpose(1, 2)).relu().transpose(1, 2)
        x = self.second(self.mix(self.drop(x)).transpose(1, 2))
        return self.head(x.mean(2))  # type: ignore[no-any-return]  # a module's call is Any


def sequences() -> tuple[Tensor, Tensor]:
    labels = torch.randint(0, 6, (768,))
    return (torch.randint(0, 12, (768, 10)) + 5 * labels[:, None]) % 40, labels


@pytest.mark.parametrize(
    ("build", "data"),
    [
        (dense, lambda: classes(12)),
        (images, drawings),
        (Paths, lambda: classes(12)),
    ],
    ids=["dense", "images", "paths"],
)
def test_a_checkpoint_tells_delta_on_its_own_data(
    build: Callable[[], nn.Module], data: Callable[[], tuple[Tensor, Tensor]]
) -> None:
    torch.manual_seed(3)
    x, labels = data()
    model = fitted(build(), x, labels)
    truth, shifts = measured(model, x, passes=8), predicted(model, x[:4]).norms
    assert any(shift.probed for shift in shifts)
    for shift in shifts:
        assert shift.delta == pytest.approx(truth[shift.norm], abs=0.05), shift.norm
    errors = [abs(shift.delta - truth[shift.norm]) for shift in shifts if shift.delta is not None]
    assert sum(errors) / len(errors) < 0.03


@pytest.mark.parametrize(
    ("build", "data"),
    [(dense, lambda: classes(12)), (images, drawings)],
    ids=["dense", "images"],
)
def test_shares_are_what_removals_do_to_the_trained_network(
    build: Callable[[], nn.Module], data: Callable[[], tuple[Tensor, Tensor]]
) -> None:
    torch.manual_seed(5)
    x, labels = data()
    model = fitted(build(), x, labels)
    shifts = [shift for shift in predicted(model, x[:4]).norms if shift.probed and len(shift.shares) > 1]
    assert shifts
    with_all = measured(model, x, passes=8)
    raised = {}
    for name in shifts[-1].shares:
        changed = copy.deepcopy(model)
        changed.get_submodule(name).p = 0.0  # type: ignore[assignment]
        raised[name] = measured(changed, x, passes=8)
    for shift in shifts:
        logs = {name: math.log(raised[name][shift.norm] / with_all[shift.norm]) for name in shift.shares}
        truth = {name: log / sum(logs.values()) for name, log in logs.items()}
        assert sum(shift.shares.values()) == pytest.approx(1)
        assert shift.shares == pytest.approx(truth, abs=0.12), shift.norm


def test_integer_inputs_are_any_and_the_run_is_still_nearer_than_moments() -> None:
    torch.manual_seed(3)
    x, labels = sequences()
    model = fitted(Tokens(), x, labels)
    truth = measured(model, x, passes=8)
    by_run, by_moments = (
        predict(trace(model, Inputs((x[:4],))), probe_at_most=limit).norms for limit in (1e11, 0)
    )
    for run, moments in zip(by_run, by_moments, strict=True):
        assert run.delta is not None
        assert moments.delta is not None
        assert abs(run.delta - truth[run.norm]) < abs(moments.delta - truth[run.norm])


def test_the_run_leaves_model_gradients_and_random_numbers_alone() -> None:
    torch.manual_seed(0)
    x, labels = drawings()
    model = fitted(images(), x, labels, steps=20).eval()
    F.cross_entropy(model(x[:8]), labels[:8]).backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    modes = [module.training for module in model.modules()]
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    shifts = predicted(model, x[:2]).norms
    assert any(shift.probed for shift in shifts)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    kept = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(gradients, kept, strict=True))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_the_same_model_gives_the_same_report_whatever_the_threads() -> None:
    torch.manual_seed(0)
    model = fitted(images(), *drawings(), steps=20)
    reports = []
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        found = json.loads(dl.lint(model, torch.zeros(2, 2, 8, 8)).to_json())["targets"][0]["predictions"]
        reports.append([(item["norm"], item["delta"], item["probed"]) for item in found])
    torch.set_num_threads(threads)
    assert reports[0] == reports[1]
    assert any(probed for *_, probed in reports[0])


class Spelled(nn.Module):
    """One network, its norm called in different ways."""

    def __init__(self, call: Callable[[nn.BatchNorm1d, Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call
        self.first, self.drop, self.second = nn.Linear(12, 24), nn.Dropout(0.4), nn.Linear(24, 16)
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 6)
        self.last = nn.BatchNorm1d(6)  # a module in any case: its statistics say that the network is trained

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.head(self.call(self.norm, self.second(self.drop(self.first(x).relu())))))  # type: ignore[no-any-return]


SPELLINGS: dict[str, Callable[[nn.BatchNorm1d, Tensor], Tensor]] = {
    "module": lambda norm, x: norm(x),
    "keyword": lambda norm, x: norm(input=x),
    "F.batch_norm": lambda norm, x: F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training
    ),
    "torch.batch_norm": lambda norm, x: torch.batch_norm(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.training, 0.1, 1e-5, False
    ),
}


def test_however_a_norm_is_called_its_statistics_are_found() -> None:
    torch.manual_seed(0)
    trained = fitted(Spelled(SPELLINGS["module"]), *classes(12))
    found = {}
    for name, call in SPELLINGS.items():
        twin = Spelled(call)
        twin.load_state_dict(trained.state_dict())
        found[name] = [shift.delta for shift in predicted(twin, torch.randn(4, 12)).norms]
    for deltas in found.values():
        assert deltas == pytest.approx(found["module"], abs=1e-6)
    assert all(delta is not None and delta < 0.97 for delta in found["module"])


class TwoSamples(nn.Module):
    """Its code has the number of samples that it was written for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(4)
        self.inner, self.drop, self.second = nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.inner(self.first(x).relu())).view(2, 4, 4)
        return self.norm(self.second(x).transpose(1, 2))  # type: ignore[no-any-return]


def test_a_network_that_cannot_be_run_on_other_inputs_keeps_the_figures_of_its_moments() -> None:
    torch.manual_seed(0)
    model = TwoSamples().train()
    for _ in range(30):
        model(torch.randn(2, 8))
    (_, last) = predicted(model, torch.randn(2, 8)).norms
    assert not last.probed
    assert last.delta is not None
    assert math.isfinite(last.delta)


def test_a_large_network_is_not_run() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Dropout(0.2), nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64)
    )
    model(torch.randn(2, 3, 64, 64))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.fill_(1000)
    shifts = predicted(model, torch.randn(1, 3, 512, 512)).norms
    assert not any(shift.probed for shift in shifts)
    assert shifts[-1].delta is not None


def test_case_a_stays_what_the_file_tells_exactly() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.25), nn.BatchNorm1d(16))
    nn.init.constant_(model[2].running_mean, 0.5)
    nn.init.constant_(model[2].running_var, 2.0)
    (shift,) = predicted(model, torch.randn(4, 8)).norms
    assert not shift.probed
    assert shift.delta == pytest.approx(1 - 0.25 * (2.0 + 0.25) / 2.0, abs=1e-3)
