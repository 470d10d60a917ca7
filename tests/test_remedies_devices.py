"""The remedies on every device that is here: what holds on the CPU must hold on a GPU as well."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dropout_lint.measurement import measure
from dropout_lint.measurement.streaming import Moments
from dropout_lint.remedies.initialisation import correct_init_
from dropout_lint.remedies.monte_carlo import monte_carlo
from dropout_lint.remedies.recalibrate import recalibrate
from dropout_lint.remedies.uout import Uout, uout

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]

pytestmark = pytest.mark.parametrize("device", DEVICES)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("channelwise", "inplace"), [(False, False), (False, True), (True, False)])
def test_uout_draws_there(*, device, dtype, layout, channelwise, inplace):
    ones = torch.ones(64, 32, 8, 8, dtype=dtype, device=device).to(memory_format=layout)
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(uout(ones.clone(), 0.5, channelwise=channelwise, inplace=inplace))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    mask = masks[0]
    assert (mask.device.type, mask.dtype) == (torch.device(device).type, dtype)
    assert mask.is_contiguous(memory_format=layout)
    draws = 64 * 32 * (1 if channelwise else 64)
    assert 0.5 <= mask.min() <= mask.max() <= 1.5
    assert abs(mask.double().mean() - 1) < 5 * (0.25 / 3 / draws) ** 0.5
    assert mask.double().var().item() == pytest.approx(0.25 / 3, rel=0.1 if channelwise else 0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_uout_under_autocast_and_its_gradient(device, dtype):
    layer = nn.Linear(16, 400, device=device)
    x = noise(300, 16).to(device)
    with torch.autocast(device, dtype=dtype):
        hidden = layer(x)
        hidden.retain_grad()
        out = Uout(0.3)(hidden)
    assert out.dtype == dtype
    out.float().sum().backward()
    # the gradient is the mask, which the output shows up to its own rounding
    ratio = (out.float() / hidden.float()).detach()
    torch.testing.assert_close(hidden.grad.float(), ratio, rtol=0.02, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", [{}, {"channelwise": True}, {"inplace": True}], ids=str)
def test_uout_compiled_for_real(device, dtype, how):
    torch.compiler.reset()
    compiled = torch.compile(Uout(0.5, **how), fullgraph=True)
    ones = torch.ones(64, 300, 5, dtype=dtype, device=device, requires_grad=True)
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(compiled(ones * 1))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    masks[2].sum().backward()
    torch.testing.assert_close(ones.grad, masks[2].detach())
    assert masks[0].double().var().item() == pytest.approx(0.25 / 3, rel=0.05)
    assert torch.equal(compiled.eval()(ones), ones)


def test_uout_in_a_cuda_graph_draws_anew_at_each_replay(device):
    if device != "cuda":
        pytest.skip("CUDA graphs")
    x, layer = torch.ones(300, 400, device=device), Uout(0.5)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        layer(x)  # warm up, as capturing asks for
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = layer(x)
    seen = []
    for _ in range(2):
        graph.replay()
        seen.append(y.clone())
    assert not torch.equal(*seen)
    assert seen[0].std().item() == pytest.approx(0.5 / 3**0.5, rel=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_moments_of_a_large_mean(device, dtype, layout):
    x = (noise(500, 4, 6, 6) * 8 + 300).to(device, dtype, memory_format=layout)
    moments = Moments(4, device)
    for part in x.split(37):
        moments.update(part)
    truth = x.double()  # after rounding to `dtype`
    torch.testing.assert_close(moments.mean, truth.mean((0, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(moments.variance(), truth.var((0, 2, 3)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("how", ["float32", "float64", "bfloat16", "float16", "autocast"])
@pytest.mark.parametrize("method", ["batch", "stages"])
def test_recalibrate_finds_what_the_cpu_finds(device, how, method):
    x = noise(64, 3, 8, 8)
    exact, model = network(), network().to(device)
    recalibrate(exact, x.split(16), method=method)
    if how != "autocast":
        model = model.to(getattr(torch, how))
        x = x.to(getattr(torch, how))
    before = copy.deepcopy(model.state_dict())
    with torch.autocast(device, dtype=torch.bfloat16, enabled=how == "autocast"):
        result = recalibrate(model, x.split(16), method=method)  # the batches come from the CPU
    for name in ("1", "5"):
        norm, wanted = model.get_submodule(name), exact.get_submodule(name)
        assert norm.running_var.device.type == device
        rtol = {"float64": 1e-4, "float32": 5e-3}.get(how, 0.02)  # GPUs convolve in TF32
        torch.testing.assert_close(norm.running_var.cpu().float(), wanted.running_var, rtol=rtol, atol=0)
    assert [move.name for move in result.moved] == ["1", "5"]
    model.cpu()
    result.undo()
    assert all(torch.equal(value, before[key].cpu()) for key, value in model.state_dict().items())


def test_monte_carlo_stays_there(device):
    model = network().to(device)
    result = monte_carlo(model, noise(4, 3, 8, 8), 30, chunk=7)  # the batch comes from the CPU
    assert result.mean.device.type == result.std.device.type == device
    assert result.std.min() > 0
    assert model.training


@pytest.mark.parametrize("weights", ["sphere", "orthogonal"])
@pytest.mark.parametrize("own", [False, True], ids=["default generator", "generator of the CPU"])
def test_initial_weights_lie_there(device, weights, own):
    model = nn.Sequential(nn.Linear(20, 30), nn.GELU(), nn.Dropout(0.4), nn.Linear(30, 10)).to(device)
    generator = torch.Generator().manual_seed(0) if own else None
    result = correct_init_(
        model, torch.randn(2, 20, device=device), backward=False, weights=weights, generator=generator
    )
    weight = model[3].weight.detach()
    assert weight.device.type == device
    wanted = torch.full((10,), 1 / result.layers[1].divisor, device=device)
    torch.testing.assert_close(weight.norm(dim=1), wanted)


def test_measured_shifts_are_those_of_the_cpu(device):
    batches = list(noise(512, 3, 8, 8).split(64))
    here, there = (
        measure(network(), batches, device=place, statistics="measured", tolerance=None)
        for place in ("cpu", device)
    )
    assert here.delta.keys() == there.delta.keys()
    for name, delta in here.delta.items():
        assert there.delta[name] == pytest.approx(delta, abs=0.03)  # other masks
