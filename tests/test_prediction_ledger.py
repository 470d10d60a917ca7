"""The ledger as a whole: what must hold for every prediction, and what networks that were run show."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from brute_force import deltas, measured, now, predicted, untrained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import dropout_lint as dl
from dropout_lint.errors import UsageError
from dropout_lint.prediction import available_basis
from dropout_lint.prediction.equations import hendrycks_factors, li_eq6
from fixtures import densenet, mlp_bn, preresnet, resnetv1, vgg_bn
from fixtures.noise import DropPath, Uout

ratios = st.floats(0.05, 0.9)
few = settings(max_examples=12, deadline=None)


def images(size: int = 8, channels: int = 3) -> Tensor:
    return torch.randn(4, channels, size, size)


def chain(*middle: nn.Module, width: int = 16) -> nn.Module:
    """A norm that makes its output standard normal, then `middle`, then the norm that is looked at."""
    return nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), *middle, nn.BatchNorm1d(width))


NETWORKS = {
    "preresnet": lambda p: (preresnet.build("P6" if p else None, p, depth=8, width=8), images()),
    "resnetv1": lambda p: (resnetv1.build("end" if p else None, p, depth=8, width=8), images()),
    "densenet": lambda p: (densenet.build(p, depth=10, growth_rate=4), images()),
    "vgg": lambda p: (vgg_bn.build(p, p), images(16)),
    "mlp": lambda p: (mlp_bn.build(p), torch.randn(16, 20)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("basis", ["initialisation", "weights"])
def test_without_dropout_nothing_shifts(name: str, basis: str) -> None:
    model, x = NETWORKS[name](0.0)
    prediction = predicted(model, x, basis=basis)
    assert prediction.norms
    assert all(now(shift) == pytest.approx(1, abs=1e-6) for shift in prediction.norms)
    assert all(shift.delta == pytest.approx(1) for shift in prediction.norms)
    assert all(shift.interval == pytest.approx((1, 1)) for shift in prediction.norms)
    assert all(not shift.shares for shift in prediction.norms)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("basis", ["initialisation", "weights"])
def test_shares_add_up_to_one_and_shifts_grow_with_p(name: str, basis: str) -> None:
    weights = NETWORKS[name](0.1)[0].state_dict()
    before: dict[str, float] = {}
    for p in (0.1, 0.3, 0.6):
        model, x = NETWORKS[name](p)
        model.load_state_dict(weights)
        prediction = predicted(model, x, basis=basis)
        assert any(now(shift) < 0.99 for shift in prediction.norms)
        for shift in prediction.norms:
            assert 0 < now(shift) <= 1 + 1e-9
            assert now(shift) <= before.get(shift.norm, 1.0) + 1e-9
            if shift.delta < 1 - 1e-9:
                assert sum(shift.shares.values()) == pytest.approx(1)
                assert all(share > 0 for share in shift.shares.values())
        before = {shift.norm: now(shift) for shift in prediction.norms}


@few
@given(ratios, ratios)
def test_delta_falls_as_p_grows(one: float, other: float) -> None:
    low, high = sorted((one, other))
    torch.manual_seed(0)
    layers = [nn.ReLU(), nn.Dropout(low), nn.Linear(16, 16)]
    model = chain(*layers)
    first = deltas(model, torch.randn(4, 8))["5"]
    layers[1].p = high  # type: ignore[assignment]
    assert deltas(model, torch.randn(4, 8))["5"] <= first + 1e-9


POINTWISE = {
    "ReLU": nn.ReLU, "GELU": nn.GELU, "Tanh": nn.Tanh, "ELU": nn.ELU, "SiLU": nn.SiLU, "Sigmoid": nn.Sigmoid,
    "LeakyReLU": nn.LeakyReLU, "Hardswish": nn.Hardswish, "Softplus": nn.Softplus, "Mish": nn.Mish,
}  # fmt: skip


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_behind_any_pointwise_function_is_equation_6(name: str, p: float) -> None:
    factors = hendrycks_factors(POINTWISE[name]())
    found = deltas(chain(POINTWISE[name](), nn.Dropout(p)), torch.randn(4, 8), basis="initialisation")
    assert found["4"] == pytest.approx(li_eq6(factors.mean, factors.variance, 1 - p), abs=2e-4)


@pytest.mark.parametrize("name", ["ReLU", "LeakyReLU"])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_the_mask_commutes_with_homogeneous_functions(name: str, p: float) -> None:
    before = deltas(chain(nn.Dropout(p), POINTWISE[name]()), torch.randn(4, 8), basis="initialisation")
    behind = deltas(chain(POINTWISE[name](), nn.Dropout(p)), torch.randn(4, 8), basis="initialisation")
    assert before["4"] == pytest.approx(behind["4"], abs=1e-6)


@pytest.mark.parametrize("name", ["Tanh", "GELU", "Sigmoid", "Hardswish"])
def test_dropout_ahead_of_a_function_that_does_not_commute(name: str) -> None:
    torch.manual_seed(0)
    z = torch.randn(400_000, dtype=torch.float64)
    function = POINTWISE[name]()
    mask = (torch.rand_like(z) >= 0.4) / 0.6
    truth = float(function(z).var() / function(z * mask).var())
    found = deltas(chain(nn.Dropout(0.4), function), torch.randn(4, 8), basis="initialisation")
    assert found["4"] == pytest.approx(truth, abs=0.01)


def test_uout_is_the_exact_form_of_equation_13() -> None:
    found = deltas(chain(nn.ReLU(), Uout(0.5)), torch.randn(4, 8), basis="initialisation")
    assert found["4"] == pytest.approx(0.891, abs=1e-3)


@pytest.mark.parametrize("basis", ["initialisation", "weights"])
def test_zero_mean_weights_make_case_a_and_b_alike(basis: str) -> None:
    torch.manual_seed(0)
    width = 128
    model = chain(nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, width), width=width)
    assert deltas(model, torch.randn(4, 8), basis=basis)["5"] == pytest.approx(0.4054, abs=0.01)


def test_frozen_statistics_let_the_shortfall_travel_on() -> None:
    model = nn.Sequential(
        nn.Linear(8, 64), nn.BatchNorm1d(64), nn.Dropout(0.3), nn.Linear(64, 64), nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64),
    )  # fmt: skip
    found = deltas(model, torch.randn(4, 8), basis="initialisation")
    assert found["1"] == pytest.approx(1)
    assert all(found[name] < 0.75 for name in ("4", "7", "10"))


class LayerNormed(nn.Module):
    """A layer norm between a dropout and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.second = nn.Linear(8, 64), nn.Dropout(0.5), nn.Linear(64, 64)
        self.layer, self.batch = nn.LayerNorm(64), nn.BatchNorm1d(64)

    def forward(self, x: Tensor) -> Tensor:
        return self.batch(self.second(self.layer(self.drop(self.first(x).relu()))))  # type: ignore[no-any-return]


def test_layer_norm_shifts_nothing_but_does_not_stop_the_noise() -> None:
    prediction = predicted(LayerNormed(), torch.randn(4, 8))
    shifts = {shift.norm: shift for shift in prediction.norms}
    assert not shifts["layer"].shifts
    assert shifts["batch"].shifts
    assert now(shifts["batch"]) < 0.95
    assert shifts["batch"].shares == {"drop": pytest.approx(1)}


def test_behind_a_layer_norm_trained_weights_raise_the_variance() -> None:
    """Measured after training of this net, Δ was 1.85; DL102 speaks of it as of a Δ below 1."""
    torch.manual_seed(0)
    report = dl.lint(LayerNormed(), torch.randn(64, 8))
    shift = next(item for item in report.predictions if item.norm == "batch")
    assert shift.delta == pytest.approx(1.85, abs=0.15)
    assert shift.shares == {"drop": pytest.approx(1)}
    assert [(item.code, item.severity) for item in report.findings] == [("DL102", "error")]


class Skip(nn.Module):
    """`branch` beside an identity, with `where` behind the fork or ahead of it."""

    def __init__(self, ahead: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.stem, self.first, self.ahead = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), ahead
        self.branch, self.last = branch, nn.BatchNorm2d(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ahead(self.first(self.stem(x)))
        return self.last(x + self.branch(x))  # type: ignore[no-any-return]  # a module's call is Any


def test_a_mask_on_both_sides_of_an_add_is_one_mask() -> None:
    # x·m + x·m = 2·x·m, so Δ is that of the mask alone; added as independent noise it would be nearer to 1
    found = deltas(Skip(nn.Dropout(0.4), nn.Identity()), images(), basis="initialisation")
    assert found["last"] == pytest.approx(0.6, abs=1e-3)
    rectified = deltas(Skip(nn.Dropout(0.4), nn.ReLU()), images(), basis="initialisation")
    # x·m + ReLU(x·m) = m·(x + ReLU(x))
    mean, var = math.sqrt(1 / (2 * math.pi)), 1 + (0.5 - 1 / (2 * math.pi)) + 2 * 0.5
    assert rectified["last"] == pytest.approx(li_eq6(mean, var, 0.6), abs=0.08)


def test_a_skip_dilutes_the_noise_of_its_branch() -> None:
    branch = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(32, 32, 3, padding=1))
    alone = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), branch, nn.BatchNorm2d(32))
    assert deltas(Skip(nn.Identity(), branch), images())["last"] > deltas(alone, images())["3"] + 0.1


@pytest.mark.parametrize(
    ("layer", "kept"), [(nn.Dropout(0.5), False), (nn.Dropout2d(0.5), True), (DropPath(0.5), True)]
)
def test_pooling_averages_away_masks_of_elements_but_not_of_channels(layer: nn.Module, kept: bool) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), layer,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(32),
    )  # fmt: skip
    found = deltas(model, images(16), basis="initialisation")["6"]
    assert (found < 0.5) if kept else (found > 0.6)


def test_the_maximum_of_dropped_values_shifts_more_than_the_values() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(16),
    )
    smooth = torch.nn.functional.interpolate(torch.randn(256, 3, 4, 4), (8, 8), mode="bilinear")
    truth = measured(model, smooth)["5"]
    assert deltas(model, images(), basis="initialisation")["5"] == pytest.approx(truth, abs=0.06)


@pytest.mark.parametrize("size", [2, 4])
def test_padding_on_small_maps(size: int) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.4), nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64),
    )  # fmt: skip
    truth = measured(model, torch.randn(2000, 3, size, size))["5"]
    assert deltas(model, images(size), basis="weights")["5"] == pytest.approx(truth, abs=0.02)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.Conv2d(32, 32, 3, padding=2, dilation=2),
        nn.Conv2d(32, 32, 3, padding=1, groups=4),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1),
    ],
    ids=["stride", "dilation", "groups", "depthwise", "transposed"],
)
@pytest.mark.parametrize("basis", ["initialisation", "weights"])
def test_every_kind_of_convolution_against_a_run(layer: nn.Module, basis: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.4), layer, nn.BatchNorm2d(32)
    )
    truth = measured(model, torch.randn(256, 3, 8, 8))["5"]
    assert deltas(model, images(), basis=basis)["5"] == pytest.approx(truth, abs=0.05)


@pytest.mark.parametrize("basis", ["initialisation", "weights"])
@pytest.mark.parametrize("position", ["P0", "P3", "P6"])
def test_a_residual_network_against_a_run(position: str, basis: str) -> None:
    torch.manual_seed(0)
    model = preresnet.build(position, 0.3, depth=8, width=16)
    x = torch.nn.functional.interpolate(torch.randn(128, 3, 4, 4), (8, 8), mode="bilinear")
    x = x / x.std()
    truth, found = measured(model, x), deltas(model, x[:4], basis=basis)
    errors = [abs(found[name] - truth[name]) for name in truth]
    assert sum(errors) / len(errors) < 0.05


@few
@given(st.floats(0.05, 0.8), st.floats(-1.0, 1.0), st.floats(0.2, 4.0).filter(lambda v: v != 1))
def test_a_checkpoint_gives_case_a_from_the_file_alone(p: float, mean: float, variance: float) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(p), nn.BatchNorm1d(16))
    floor = p * (variance + mean**2)
    nn.init.constant_(model[2].running_mean, mean)
    nn.init.constant_(model[2].running_var, variance)
    prediction = predicted(model, torch.randn(4, 8))
    assert prediction.basis == "checkpoint"
    if floor < 0.9 * variance:
        assert prediction.norms[0].delta == pytest.approx(1 - floor / variance, abs=1e-3)


def test_the_best_basis_is_taken_and_named() -> None:
    model = preresnet.build("P6", 0.5, depth=8, width=8)
    assert available_basis(model) == "weights"
    with torch.device("meta"):
        hollow = preresnet.build("P6", 0.5, depth=8, width=8)
    assert available_basis(hollow) == "initialisation"
    prediction = predicted(hollow, images())
    assert prediction.basis == "trained-estimate"
    assert all(shift.basis == "trained-estimate" for shift in prediction.norms)
    same = predicted(model, images(), basis="initialisation")
    assert [now(s) for s in prediction.norms] == pytest.approx([now(s) for s in same.norms])
    real = predicted(model, images())  # weights of the start tell nothing of trained ones
    assert [s.delta for s in real.norms] == pytest.approx([s.delta for s in prediction.norms])
    model.train()
    with torch.no_grad():
        model(images())  # as a constructor does that tries its shapes out
        assert available_basis(model) == "weights"
        for _ in range(19):
            model(images())
    assert available_basis(model) == "checkpoint"
    reset = model.state_dict() | {
        name: torch.zeros(()) for name in model.state_dict() if "num_batches" in name
    }
    model.load_state_dict(reset)  # weights of another framework: nobody counted batches
    assert available_basis(model) == "checkpoint"


def test_a_basis_that_cannot_be_had_is_said_aloud() -> None:
    with torch.device("meta"):
        hollow = mlp_bn.build(0.5)
    with pytest.raises(UsageError, match="meta device"):
        predicted(hollow, torch.randn(4, 20), basis="weights")
    with pytest.raises(UsageError, match="unknown basis"):
        predicted(mlp_bn.build(0.5), torch.randn(4, 20), basis="tea leaves")


def test_the_model_is_left_as_it_was() -> None:
    model = preresnet.build("P2", 0.5, depth=8, width=8)
    before = copy.deepcopy(model.state_dict())
    for basis in ("initialisation", "weights", "checkpoint"):
        predicted(model, images(), basis=basis)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(tensor.is_meta for tensor in after.values())


def test_an_operation_without_a_transfer_function_is_counted() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.drop, self.norm = nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(torch.addcmul(self.drop(self.linear(x)), x, x))  # type: ignore[no-any-return]

    prediction = predicted(Odd(), torch.randn(4, 8))
    assert prediction.fallbacks == {"addcmul": 1}
    assert now(prediction.norms[0]) < 1


def test_dropout_that_is_off_or_always_on_shifts_nothing() -> None:
    assert deltas(chain(nn.Dropout(0.0)), torch.randn(4, 8))["3"] == pytest.approx(1)

    class Always(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(nn.functional.dropout(x, 0.5, training=True))  # type: ignore[no-any-return]

    assert deltas(Always(), torch.randn(4, 8))["norm"] == pytest.approx(1)


def test_removing_the_dropout_with_the_largest_share_helps_most() -> None:
    torch.manual_seed(0)
    model = preresnet.build("P6", 0.3, depth=8, width=16)
    blocks = {"layer1.0.drop": 0.5, "layer2.0.drop": 0.2, "layer3.0.drop": 0.05}
    for name, p in blocks.items():
        model.get_submodule(name).p = p  # type: ignore[assignment]
    shares = untrained(model, images())["bn"].shares
    raised = {}
    for name in blocks:
        without = copy.deepcopy(model)
        without.get_submodule(name).p = 0.0  # type: ignore[assignment]
        raised[name] = measured(without, torch.randn(128, 3, 8, 8))["bn"]
    assert max(shares, key=lambda name: shares[name]) == max(raised, key=lambda name: raised[name])


class Bounded(nn.Module):
    """Limits that are tensors, and a call that its transfer function cannot read."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3))
        self.last = nn.BatchNorm1d(16)
        self.register_buffer("low", torch.tensor(-2.0))
        self.register_buffer("high", torch.full((16,), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x).clamp(min=self.low).clamp(max=self.high)
        return self.last(F.max_pool1d(x[:, None], (1,), stride=(1,))[:, 0])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_limits_that_are_tensors_do_not_end_the_prediction(device: str) -> None:
    with torch.device(device):
        model, x = Bounded(), torch.randn(4, 8)
    result = predicted(model, x)
    last = result.norms[-1]
    assert last.unknown if device == "meta" else 0.5 < now(last) < 0.95 and last.approximate == ("clamp",)


def test_a_shared_mask_on_a_map_smaller_than_the_kernel() -> None:
    """At 1×1 a 3×3 kernel sees one tap: noise that a channel shares is no more than any other."""
    torch.manual_seed(0)
    one = nn.Sequential(nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64), nn.ReLU())
    model = nn.Sequential(*one, nn.Dropout2d(0.5), nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64))
    x = torch.randn(256, 64, 1, 1)
    got = deltas(model, x, basis="weights")["5"]
    assert got == pytest.approx(measured(model, x, 8)["5"], abs=0.03)


def test_an_activation_inside_a_norm_module_is_applied() -> None:
    class BatchNormAct2d(nn.BatchNorm2d):
        def __init__(self, width: int) -> None:
            super().__init__(width)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(super().forward(x))

    def network(*middle: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(8, 16, 1), *middle, nn.Dropout(0.5), nn.BatchNorm2d(16))

    inside, outside = (
        now(predicted(network(*middle), images(4, 8)).norms[-1])
        for middle in ([BatchNormAct2d(16)], [nn.BatchNorm2d(16), nn.ReLU()])
    )
    assert inside == pytest.approx(outside)
    assert inside == pytest.approx(li_eq6(1 / math.sqrt(2 * math.pi), 0.5 - 1 / (2 * math.pi), 0.5), abs=0.02)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("where", ["0.weight", "2.running_var"])
def test_values_that_are_not_finite_leave_the_shapes(value: float, where: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.4), nn.BatchNorm1d(8))
    model.state_dict()[where].flatten()[0] = value
    report = dl.lint(model, torch.randn(4, 8))
    assert "DL101" in [finding.code for finding in report.findings]
    (shift,) = report.predictions
    if value < math.inf and where == "2.running_var":  # one channel that is large beyond all others
        assert shift.basis == "checkpoint"
    else:
        assert shift.basis == "trained-estimate"
        assert shift.delta is not None and 0.5 < shift.delta < 0.65
        assert "weights or statistics are not finite: Δ is predicted from shapes alone" in report.target.notes


def test_an_operation_without_a_rule_is_told_in_the_report() -> None:
    class Scattering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.drop, self.bn = nn.Linear(8, 8), nn.Dropout(0.4), nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn(self.drop(self.first(x)).cumsum(1).cumsum(1))
            return out

    report = dl.lint(Scattering(), torch.randn(4, 8))
    told = "Δ is approximate behind cumsum (2 times): there is no rule for what it makes of noise"
    assert told in report.target.notes


def test_the_result_of_an_operation_without_a_rule_may_be_empty() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.drop, self.bn = nn.Linear(8, 8), nn.Dropout(0.4), nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.drop(self.first(x))
            out: Tensor = self.bn(x + torch.combinations(x[0, :1], 2).sum())
            return out

    (shift,) = dl.lint(Pairs(), torch.randn(4, 8)).predictions
    assert shift.delta is None
    assert [line.partition(" ")[2] for line in shift.unknown] == ["combinations (its result is empty)"]


def test_what_no_norm_depends_on_is_not_worked_out() -> None:
    """Behind the last norm there may be anything, also what takes minutes on samples."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Dropout(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).kthvalue(2, 1)[0]

    found = predicted(Net(), torch.randn(4, 8))
    assert [shift.norm for shift in found.norms] == ["body.2"]
    assert not found.fallbacks


class NormedBranch(nn.Module):
    """A branch that is dropped whole, a norm over channels, a depthwise convolution, and so once more."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.drop, self.depthwise = DropPath(0.3), nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm1, self.head, self.norm2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.norm1(self.depthwise(over_channels(x + self.drop(self.branch(x)))))
        return self.norm2(self.head(over_channels(x)))  # type: ignore[no-any-return]


def over_channels(x: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)


@pytest.mark.parametrize("seed", range(4))
def test_correlations_that_are_about_right_leave_no_noise_below_zero(seed: int) -> None:
    torch.manual_seed(seed)
    found = predicted(NormedBranch(), images())
    assert not found.fallbacks, "its weights are finite"
