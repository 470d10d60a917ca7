"""correct_init_: weights that allow for dropout and activation (Hendrycks and Gimpel Sec. 2)."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dropout_lint.errors import DropoutLintError
from dropout_lint.remedies.initialisation import correct_init_
from dropout_lint.remedies.uout import Uout

# E[f²] and E[f′²] on a standard normal variable, as in THEORY; three of the paper's Table 1 are misprints
MOMENTS = {
    nn.Identity: (1.0, 1.0),
    nn.ReLU: (0.5, 0.5),
    nn.GELU: (0.4252, 0.4559),
    nn.Tanh: (0.3943, 0.4644),
    nn.ELU: (0.6449, 0.6681),
    nn.SiLU: (0.3558, 0.3795),
}


def rows(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().flatten(1).norm(dim=1)


@pytest.mark.parametrize("activation", MOMENTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("backward", [True, False])
def test_the_divisor_is_the_papers_formula(activation, p, backward):
    model = nn.Sequential(nn.Linear(6, 8), activation(), nn.Dropout(p), nn.Linear(8, 5))
    result = correct_init_(model, torch.randn(2, 6), backward=backward, finite_width=False)
    energy, slope = MOMENTS[activation]
    k = 1 - p
    wanted = math.sqrt(energy / k + (k * slope if backward else 0))
    assert result.layers[1].divisor == pytest.approx(wanted, abs=2e-4)
    assert result.layers[1].keep == pytest.approx(k)
    torch.testing.assert_close(rows(model[3].weight), torch.full((5,), 1 / wanted), rtol=1e-3, atol=0)
    # the first layer is fed with the input itself
    assert result.layers[0].activation == "input"
    assert result.layers[0].divisor == pytest.approx(math.sqrt(2 if backward else 1))
    assert (model[0].bias == 0).all()


def test_convolutions_take_the_forward_term_alone():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Dropout2d(0.5),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    result = correct_init_(model, torch.randn(2, 3, 5, 5))
    assert [layer.backward for layer in result.layers] == [False, False, True]
    assert [layer.divisor for layer in result.layers] == pytest.approx([1, 1, math.sqrt(2)])
    torch.testing.assert_close(rows(model[3].weight), torch.ones(8))


class Functional(nn.Module):
    """Everything by function: dropout, activation, weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.table = nn.Parameter(torch.randn(5, 6))
        self.kernel = nn.Parameter(torch.randn(7, 5, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(F.gelu(self.first(x)), 0.5, self.training)
        x = F.linear(x, self.table)
        x = F.alpha_dropout(F.selu(x), 0.5, self.training).view(-1, 5, 1)
        return F.conv1d(x, self.kernel)


def test_functional_layers_are_read_too():
    model = Functional()
    result = correct_init_(model, torch.randn(3, 4), backward=False, finite_width=False)
    found = {layer.name: layer for layer in result.layers}
    assert set(found) == {"first.weight", "table", "kernel"}
    assert found["table"].divisor == pytest.approx(math.sqrt(0.4252 / 0.5), abs=1e-3)
    assert found["table"].activation == "gelu"
    assert found["kernel"].keep == 1  # alpha dropout keeps the moments
    assert found["kernel"].divisor == pytest.approx(1, abs=1e-3)  # and SELU's second moment is 1
    torch.testing.assert_close(rows(model.table), torch.full((5,), 1 / found["table"].divisor))


@pytest.mark.parametrize(
    ("before", "label", "energy", "keep"),
    [
        ([nn.BatchNorm1d(8), nn.Dropout(0.2)], "norm", 1.0, 0.8),
        ([nn.ReLU(), nn.Dropout(0.2), nn.Dropout(0.5)], "ReLU", 0.5, 0.4),
        ([nn.Dropout(0.2), nn.ReLU()], "ReLU", 0.5, 0.8),
        ([nn.Tanh(), Uout(0.6)], "Tanh", 0.3943, 1 / 1.12),
        ([nn.LeakyReLU(0.2)], "LeakyReLU", 0.52, 1.0),
        ([nn.PReLU()], "PReLU", (1 + 0.25**2) / 2, 1.0),
        ([nn.Hardtanh(-2, 2)], "Hardtanh", 0.9205, 1.0),
        ([nn.ReLU(inplace=True), nn.Identity(), nn.Unflatten(1, (2, 4)), nn.Flatten()], "ReLU", 0.5, 1.0),
        ([nn.Softmax(-1)], "unknown (Softmax)", 0.5, 1.0),
        ([nn.GLU(), nn.Linear(4, 8), nn.Dropout(0.5)], "weights", 1.0, 0.5),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_feeds_a_layer(before, label, energy, keep):
    model = nn.Sequential(nn.Linear(4, 8), *before, nn.Linear(8, 3))
    layer = correct_init_(model, torch.randn(4, 4), backward=False, finite_width=False).layers[-1]
    assert layer.activation == label
    assert layer.keep == pytest.approx(keep)
    assert layer.divisor == pytest.approx(math.sqrt(energy / keep), abs=1e-3)


def second_moments(model: nn.Sequential, width: int, seed: int) -> list[float]:
    torch.manual_seed(seed)
    x = torch.randn(400, width)
    found = []
    with torch.no_grad():
        for layer in model:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                found.append(x.pow(2).mean().item())
    return found


def network(activation: type[nn.Module], p: float, width: int = 250, depth: int = 12) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(width, width)]
    for _ in range(depth - 1):
        layers += [activation(), nn.Dropout(p), nn.Linear(width, width)]
    return nn.Sequential(*layers).train()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Tanh, nn.ELU])
@pytest.mark.parametrize("weights", ["sphere", "orthogonal"])
def test_the_forward_term_keeps_the_second_moment_through_depth(activation, weights):
    # the full size of Fig. 1, five seeds and three ratios are in benchmarks/initialisation.py
    moments = []
    for seed in range(4):
        torch.manual_seed(100 + seed)
        model = network(activation, 0.6)
        correct_init_(model, torch.randn(2, 250), backward=False, weights=weights)
        moments.append(second_moments(model, 250, seed))
    mean = torch.tensor(moments).mean(0)
    assert (mean - 1).abs().max() < 0.2


@pytest.mark.parametrize(("activation", "sign"), [(nn.ReLU, 0), (nn.GELU, 1), (nn.SiLU, 1), (nn.Tanh, -1)])
def test_finite_width_is_a_small_correction_that_grows_with_depth_and_goes_with_width(activation, sign):
    def corrections(width: int) -> list[float]:
        model = network(activation, 0.4, width=width, depth=8)
        both = [
            correct_init_(model, torch.randn(2, width), backward=False, finite_width=on)
            for on in (True, False)
        ]
        pairs = zip(both[0].layers, both[1].layers, strict=True)
        return [math.log(with_it.divisor / without.divisor) for with_it, without in pairs]

    narrow, wide = corrections(30), corrections(480)
    assert narrow[0] == pytest.approx(0, abs=1e-9)  # the input layer
    assert narrow[1] == pytest.approx(0, abs=3e-4)  # normal inputs make its outputs exactly normal
    assert narrow[2] * sign > 0 if sign else narrow[2] == pytest.approx(0, abs=3e-4)
    if sign == 0:
        assert max(map(abs, narrow + wide)) < 1e-3  # E[f²] is proportional to q
    else:
        assert abs(wide[-1]) < abs(narrow[-1]) / 4
    if sign == 1:
        assert narrow[1:] == sorted(narrow[1:])


@pytest.mark.parametrize("weights", ["sphere", "orthogonal"])
def test_the_mean_over_many_narrow_networks_stays_at_one(weights):
    torch.manual_seed(0)
    widths, count = [48] * 7 + [24] * 2, 1500
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.GELU()]
    divisors = {}
    for on in (True, False):
        model = nn.Sequential(*layers)
        done = correct_init_(model, torch.randn(2, 48), backward=False, weights=weights, finite_width=on)
        divisors[on] = [layer.divisor for layer in done.layers]
    last = {}
    signal = dict.fromkeys((True, False), torch.randn(count, 2, 48))
    for layer, (before, after) in enumerate(itertools.pairwise(widths)):
        matrix = torch.randn(count, before, after)
        if weights == "sphere":
            matrix = F.normalize(matrix, dim=1)
        else:  # before >= after: orthonormal columns, which are the rows of the layer's weight
            matrix, r = torch.linalg.qr(matrix)
            matrix = matrix * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]
        for on in (True, False):
            z = signal[on] @ matrix / divisors[on][layer]
            last[on] = z.pow(2).mean((1, 2))
            signal[on] = F.gelu(z)
    assert abs(last[True].mean() - 1) < 4 * last[True].std() / count**0.5 < 0.2
    without = last[False] - last[True]  # the same networks by the paper's formula
    assert without.mean() > 5 * without.std() / count**0.5
    assert last[False].mean() > 1.1


def test_plain_initialisations_explode_or_vanish_under_dropout():
    torch.manual_seed(0)
    he = network(nn.ReLU, 0.6)
    for layer in he[::3]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    assert second_moments(he, 250, 0)[-1] > 1000
    xavier = network(nn.Tanh, 0.0)
    for layer in xavier[::3]:
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert second_moments(xavier, 250, 0)[-1] < 0.2


def test_both_terms_shrink_the_forward_signal_by_half_a_layer():
    torch.manual_seed(1)
    model = network(nn.ReLU, 0.0, depth=8)
    correct_init_(model, torch.randn(2, 250))
    found = second_moments(model, 250, 1)
    for depth, value in enumerate(found):
        assert value == pytest.approx(0.5 ** (depth + 1), rel=0.35)


@pytest.mark.parametrize(("fan_in", "fan_out"), [(12, 12), (12, 5), (5, 12)])
def test_orthonormal_weights(fan_in, fan_out):
    model = nn.Sequential(nn.Linear(fan_in, fan_out))
    correct_init_(model, torch.randn(2, fan_in), backward=False, weights="orthogonal")
    weight = model[0].weight.detach()
    if fan_out <= fan_in:
        torch.testing.assert_close(weight @ weight.T, torch.eye(fan_out), atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(weight.T @ weight, fan_out / fan_in * torch.eye(fan_in), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(32, 24, 4, stride=2),
        nn.ConvTranspose1d(32, 24, 6, stride=3, groups=4),
        nn.Conv2d(32, 24, 3, groups=8),
        nn.Conv3d(16, 8, 2),
    ],
    ids=str,
)
def test_every_convolution_gives_unit_second_moments(layer):
    torch.manual_seed(2)
    dims = layer.weight.dim() - 2
    x = torch.randn(64, layer.in_channels, *[8] * dims)
    correct_init_(layer, x)
    out = layer(x)
    inner = out[(..., *[slice(4, -4) if out.shape[-1] > 12 else slice(None)] * dims)]
    assert inner.pow(2).mean().item() == pytest.approx(1, rel=0.1)


def test_a_weight_used_twice_gets_the_mean_variance():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(F.dropout(self.layer(x).relu(), 0.5, self.training))

    result = correct_init_(Twice(), torch.randn(2, 6), backward=False)
    assert len(result.layers) == 1
    assert result.layers[0].divisor == pytest.approx(math.sqrt((1 + 0.5 / 0.5) / 2))


def test_what_is_left_alone_is_said():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 6)
            self.frozen = nn.Linear(6, 6)
            self.frozen.weight.requires_grad_(False)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
            self.lstm = nn.LSTM(6, 6, batch_first=True)
            self.spare = nn.Linear(6, 6)
            self.plain = nn.Linear(6, 6)
            self.head = nn.Linear(6, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.lstm(self.normed(self.frozen(self.embed(ids))))[0]
            return self.head(self.plain(x))

    model = Mixed()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = correct_init_(model, torch.randint(0, 10, (2, 4)))
    assert [layer.name for layer in result.layers] == ["plain.weight"]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"plain.weight", "plain.bias"}
    reasons = " ".join(f"{name}: {reason}" for name, reason in result.skipped.items())
    for words in ("frozen.weight: frozen", "Embedding", "spare.weight: not called", "lstm: LSTM"):
        assert words in reasons
    assert any(name.startswith("normed") for name in result.skipped)
    assert "left alone" in str(result)
    assert "divided by" in str(result)


def test_a_dropout_that_is_never_on_does_not_count():
    class Off(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(F.dropout(x, 0.5, training=False))

    assert correct_init_(Off(), torch.randn(2, 4)).layers[0].keep == 1


def test_a_generator_makes_it_repeatable_and_the_mode_stays():
    weights = []
    for _ in range(2):
        model = network(nn.ReLU, 0.3, width=20, depth=3).eval()
        correct_init_(model, torch.randn(2, 20), generator=torch.Generator().manual_seed(5))
        assert not model.training
        weights.append(model[0].weight)
    assert torch.equal(*weights)


def test_a_compiled_model_is_initialised():
    inner = network(nn.ReLU, 0.5, width=20, depth=3)
    result = correct_init_(torch.compile(inner, backend="eager"), torch.randn(2, 20), backward=False)
    assert [layer.name for layer in result.layers] == ["0.weight", "3.weight", "6.weight"]
    torch.testing.assert_close(rows(inner[3].weight), torch.full((20,), 1.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_keep_theirs(dtype):
    model = network(nn.ReLU, 0.5, width=20, depth=3).to(dtype)
    correct_init_(model, torch.randn(2, 20, dtype=dtype), backward=False, weights="orthogonal")
    assert model[3].weight.dtype == dtype
    torch.testing.assert_close(rows(model[3].weight.double()), torch.ones(20).double(), rtol=0.01, atol=0)


def test_an_error_leaves_no_model_half_initialised():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(1.0), nn.Linear(4, 2))
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(DropoutLintError, match="drops everything"):
        correct_init_(model, torch.randn(2, 4))
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))


def test_bad_input_says_what_to_do():
    for call in (
        lambda: correct_init_(nn.Linear(2, 2, device="meta"), torch.randn(1, 2)),
        lambda: correct_init_(nn.LazyLinear(2), torch.randn(1, 2)),
        lambda: correct_init_(nn.Linear(2, 2), "text"),
    ):
        with pytest.raises(DropoutLintError) as caught:
            call()
        assert caught.value.hint
