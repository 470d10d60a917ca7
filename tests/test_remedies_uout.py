"""Uout: x·(1 + r), r ~ U(−β, β), in training; the identity in test mode (Li et al. Sec. 5)."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dropout_lint.errors import DropoutLintError, UsageError
from dropout_lint.inputs.example import Inputs
from dropout_lint.layers import STANDARD, Noise
from dropout_lint.remedies.uout import Uout, uout
from dropout_lint.trace import trace

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@settings(max_examples=50, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=5),
    beta=st.floats(0, 1),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 999),
)
def test_any_shape_and_dtype_stays_within_beta(shape, beta, dtype, seed):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    torch.manual_seed(seed)
    y = uout(x, beta)
    assert y.shape == x.shape
    assert y.dtype == dtype
    slack = 2 * torch.finfo(dtype).eps * x.double().abs() + torch.finfo(dtype).tiny
    assert ((y.double() - x.double()).abs() <= beta * x.double().abs() + slack).all()
    torch.manual_seed(seed)
    assert torch.equal(uout(x, beta), y)


def test_is_the_identity_in_test_mode():
    x = torch.randn(4, 3)
    assert Uout(0.5).eval()(x) is x
    assert Uout(0.0)(x) is x
    assert uout(x, 0.5, training=False) is x


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_mask_is_uniform_with_mean_one_and_variance_beta_squared_by_three(dtype):
    torch.manual_seed(0)
    mask = Uout(0.5)(torch.ones(400_000, dtype=dtype)).double()
    assert mask.min() >= 0.5
    assert mask.max() <= 1.5
    # 4 standard errors of the mean of 400 000 draws
    assert abs(mask.mean() - 1) < 4 * (0.25 / 3 / 400_000) ** 0.5
    assert abs(mask.var() - 0.25 / 3) < 0.001
    quarters = torch.histc(mask, 4, 0.5, 1.5) / 400_000
    # values on a border fall to one side: a whole step of the dtype's grid
    tolerance = 0.004 + torch.finfo(dtype).eps
    wanted = torch.full((4,), 0.25, dtype=torch.float64)
    torch.testing.assert_close(quarters, wanted, atol=tolerance, rtol=0)


@pytest.mark.parametrize("beta", [0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("name", ["identity", "relu", "shifted"])
def test_measured_shift_is_the_exact_formula(beta, name):
    torch.manual_seed(1)
    z = torch.randn(1_000_000)
    x = {"identity": z, "relu": z.relu(), "shifted": z + 2}[name]
    c, v = x.mean().item(), x.var().item()
    measured = v / uout(x, beta).var().item()
    assert measured == pytest.approx(v / (v + beta**2 * (c**2 + v) / 3), abs=0.004)


def test_figures_of_the_theory():
    torch.manual_seed(2)
    x = torch.randn(1_000_000).relu()
    assert x.var().item() / uout(x, 0.5).var().item() == pytest.approx(0.891, abs=0.004)
    z = torch.randn(1_000_000)  # Eq. 13 is for mean 0 only
    assert z.var().item() / uout(z, 0.5).var().item() == pytest.approx(0.923, abs=0.004)


def test_gradient_is_the_incoming_one_times_the_same_mask():
    torch.manual_seed(3)
    x = torch.randn(6, 5, requires_grad=True)
    y = uout(x, 0.4)
    g = torch.randn_like(y)
    y.backward(g)
    torch.testing.assert_close(x.grad, g * (y / x).detach())
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        uout(x, 0.4)
    assert [t.shape for t in saved] == [x.shape]  # the mask alone, not the input
    assert not torch.equal(saved[0], x)


def test_channelwise_draws_once_for_each_channel_of_each_sample():
    torch.manual_seed(4)
    mask = Uout(0.5, channelwise=True)(torch.ones(64, 8, 5, 7))
    assert (mask.flatten(2).std(-1) == 0).all()
    assert mask[:, :, 0, 0].unique().numel() > 500
    assert mask[:, :, 0, 0].var().item() == pytest.approx(0.25 / 3, rel=0.15)
    flat = Uout(0.5, channelwise=True)(torch.ones(16, 8))
    assert flat.unique().numel() > 100
    with pytest.raises(DropoutLintError, match="channelwise"):
        Uout(0.5, channelwise=True)(torch.ones(8))


def test_in_place_overwrites_and_backpropagates():
    torch.manual_seed(5)
    leaf = torch.randn(4, 6, requires_grad=True)
    hidden = leaf * 2
    y = Uout(0.5, inplace=True)(hidden)
    assert y.data_ptr() == hidden.data_ptr()
    y.sum().backward()
    torch.testing.assert_close(leaf.grad, 2 * (y / (2 * leaf)).detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_in_a_network(dtype):
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(4, 8), Uout(0.3), nn.ReLU(), nn.Linear(8, 2))
    with torch.autocast("cpu", dtype=dtype):
        out = model(torch.randn(5, 4))
    assert out.dtype == dtype
    out.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_compiles_into_one_graph_and_keeps_its_modes():
    layer = Uout(0.5)
    compiled = torch.compile(copy.deepcopy(layer), backend="aot_eager", fullgraph=True)
    x = torch.randn(300, 40, requires_grad=True)
    torch.manual_seed(7)
    y = compiled(x)
    ratio = (y / x).detach()
    assert 0.5 <= ratio.min() < 0.6
    assert 1.4 < ratio.max() <= 1.5001
    y.sum().backward()
    torch.testing.assert_close(x.grad, ratio, rtol=1e-4, atol=1e-4)
    compiled.eval()
    assert torch.equal(compiled(x), x)


def test_dynamic_shapes_compile_once_for_small_and_large():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(Uout(0.5), backend=counter, fullgraph=True, dynamic=True)
    for rows in (10, 100, 1000, 10_000, 40_000):
        compiled(torch.randn(rows, 4))
    assert counter.frame_count <= 2  # a size of our own to guard on would make it three


@pytest.mark.parametrize("shape", [(300, 400), (30, 40, 10)])
@pytest.mark.parametrize("channelwise", [False, True])
def test_meta_tensors_have_shapes_alone(shape, channelwise):
    for inplace in (False, True):
        x = torch.empty(shape, device="meta", dtype=torch.bfloat16)
        y = uout(x, 0.3, channelwise=channelwise, inplace=inplace)
        assert (y.device.type, y.shape, y.dtype) == ("meta", x.shape, x.dtype)


def test_jit_tracing_and_functional_transforms_of_large_tensors():
    ones = torch.ones(40_000)
    traced = torch.jit.trace(Uout(0.5), ones, check_trace=False)
    assert traced(torch.ones(50_000)).std().item() == pytest.approx(0.5 / 3**0.5, rel=0.03)
    _, tangent = torch.func.jvp(lambda x: uout(x, 0.5), (ones,), (ones,))
    assert tangent.std().item() == pytest.approx(0.5 / 3**0.5, rel=0.03)
    masks = torch.vmap(lambda x: uout(x, 0.5), randomness="different")(ones.expand(2, -1))
    assert not torch.equal(*masks)


def test_checkpointing_draws_the_same_mask_again():
    x = torch.randn(300, 400, requires_grad=True)
    y = checkpoint(lambda t: uout(t, 0.5), x, use_reentrant=False)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / x).detach())


def test_double_backward():
    x = torch.randn(300, 400, requires_grad=True)
    y = uout(x**2, 0.5)
    (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    gradient.sum().backward()
    torch.testing.assert_close(x.grad, 2 * (y / x**2).detach(), rtol=1e-4, atol=1e-5)


def test_large_tensors_take_another_way_to_the_same_distribution():
    torch.manual_seed(11)
    ones = torch.ones(1 << 20)
    bits, plain = uout(ones, 0.6), uout(ones.double(), 0.6)  # 16 random bits each, and torch's own draw
    for mask in (bits.double(), plain):
        assert mask.min() >= 0.4
        assert mask.max() <= 1.6
        assert abs(mask.mean() - 1) < 4 * (0.36 / 3 / len(mask)) ** 0.5
        tenths = torch.histc(mask, 10, 0.4, 1.6) / len(mask)
        torch.testing.assert_close(tenths, torch.full((10,), 0.1, dtype=mask.dtype), atol=0.0015, rtol=0)
    # neighbours, which share one 64-bit draw, are independent
    centred = bits - 1
    for lag in (1, 2, 3, 4):
        assert (centred[:-lag] * centred[lag:]).mean().abs() < 5 * 0.12 / len(bits) ** 0.5
    torch.manual_seed(11)
    assert torch.equal(uout(ones, 0.6), bits)
    odd = uout(torch.ones(200_001), 0.6)
    assert odd.shape == (200_001,)


def test_channels_last_and_expanded_inputs():
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert uout(x, 0.3).is_contiguous(memory_format=torch.channels_last)
    torch.manual_seed(8)
    assert uout(torch.ones(1, 1).expand(50, 50), 0.5).unique().numel() > 2000  # each element its own draw


@pytest.mark.parametrize("beta", [-0.1, 1.5, float("nan"), float("inf"), "0.3", None, True])
def test_a_wrong_beta_is_refused(beta):
    with pytest.raises(DropoutLintError, match="beta") as caught:
        Uout(beta)
    assert caught.value.hint


def test_integers_are_refused():
    with pytest.raises(DropoutLintError, match="floating-point"):
        uout(torch.ones(3, dtype=torch.int64))


def test_is_a_dropout_to_the_catalogue():
    spec = STANDARD.dropout(Uout(0.5, channelwise=True))
    assert spec.noise is Noise.UNIFORM
    assert spec.channelwise
    assert spec.mask_variance == pytest.approx(0.25 / 3)
    assert "beta=0.5" in repr(Uout(0.5))


def test_a_traced_call_of_the_function_is_a_dropout_too():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(uout(x, 0.4, self.training, channelwise=True))

    (site,) = trace(Net(), Inputs((torch.randn(3, 4),))).dropouts
    assert site.functional
    assert site.active_in_train
    assert not site.active_in_eval
    assert (site.spec.noise, site.spec.p, site.spec.channelwise) == (Noise.UNIFORM, 0.4, True)


def test_shifts_a_batch_norm_far_less_than_dropout():
    torch.manual_seed(9)
    x = torch.randn(20_000, 16).relu()
    shifts = {}
    for name, noisy in (("uout", uout(x, 0.5)), ("dropout", F.dropout(x, 0.5))):
        norm = nn.BatchNorm1d(16, momentum=1.0)
        norm(noisy)
        shifts[name] = (x.var(0).mean() / norm.running_var.mean()).item()
    assert shifts["uout"] == pytest.approx(0.891, abs=0.01)
    assert shifts["dropout"] == pytest.approx(0.405, abs=0.01)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("channelwise", [False, True])
def test_it_can_be_scripted(dtype, channelwise):
    torch.manual_seed(0)
    scripted = torch.jit.script(nn.Sequential(Uout(0.5, channelwise=channelwise)))
    x = torch.ones(200, 30, 4, dtype=dtype)
    y = scripted(x)
    assert y.dtype == dtype
    assert y.shape == x.shape
    noise = y.real.double() if dtype.is_complex else y.double()
    assert 0.5 <= noise.min() < 0.52
    assert 1.48 < noise.max() <= 1.5
    assert abs(float(noise.mean()) - 1) < 0.02
    assert bool((noise == noise[..., :1]).all()) is channelwise
    assert torch.equal(scripted.eval()(x), x)
    in_place = torch.jit.script(Uout(0.5, inplace=True))
    in_place(x)
    assert not torch.equal(x, torch.ones_like(x))


@pytest.mark.parametrize("value", [None, 3.0, [1.0]])
def test_what_is_no_tensor_is_refused(value):
    with pytest.raises(UsageError, match="needs a tensor"):
        Uout()(value)
