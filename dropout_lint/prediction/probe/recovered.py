"""Inputs that a trained network's norms remember: recovered from their statistics, without any data.

Yin et al. 2020 ("Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", CVPR, Eq. 4): the
inputs are moved until the mean and the variance that every norm sees are those that it holds.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from dropout_lint.inputs.shapes import device_of, materialise
from dropout_lint.inputs.values import replaced, walk
from dropout_lint.prediction.ops.indices import any_indices
from dropout_lint.prediction.ops.samples import Unrunnable
from dropout_lint.prediction.probe.graph_run import Beside, GraphRun, moments
from dropout_lint.trace.traced import NormSite, TensorInfo, Trace, module_of

STEPS = 20
"""Of Adam in one round, each a pass forward and one backward."""
ROUNDS = 3
"""At the most; one is enough for most networks."""
ENOUGH = 0.02
"""Loss for each norm at which no further round is made."""
RATE, LAST_RATE = 0.3, 0.03
"""Adam's step at the begin and at the end of a round, in deviations of a standardised input."""
SMOOTH = 0.75
"""Inputs start as Gaussian fields whose amplitude at spatial frequency f falls as (1 + f²)^-SMOOTH: smoother
than white noise, as all that is filmed, recorded or drawn is."""
EPSILON = 1e-8
"""Added to variances whose logarithm is taken: a channel may be dead."""
Values = dict[fx.Node, object]
Statistics = Mapping[fx.Node, tuple[Tensor, Tensor]]


def placeholders(trace: Trace) -> Values:
    """The value of every placeholder as the model was traced; tensors without values get some."""
    inputs = materialise(trace.inputs, device_of(trace.model))
    given = (*inputs.args, *inputs.kwargs.values())
    return dict(zip(trace.graph.find_nodes(op="placeholder"), given, strict=True))


def widened(trace: Trace, values: Values, rows: int) -> Values | None:
    """Inputs of the same kinds with `rows` samples; None where dimension 0 does not count samples throughout
    (a graph's edges), or there are as many already.
    """
    counts = {tensor.shape[0] if tensor.dim() else 0 for value in values.values() for tensor in walk(value)}
    if len(counts) != 1 or not 0 < min(counts) < rows:
        return None
    if not all(isinstance(value, Tensor) for value in values.values()):
        return None
    wide: Values = {}
    for node, tensor in values.items():
        assert isinstance(tensor, Tensor)
        shape = (rows, *tensor.shape[1:])
        if tensor.is_floating_point():
            wide[node] = torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
        else:
            wide[node] = _indices(trace, node, TensorInfo(shape, tensor.dtype)).to(tensor.device)
    return wide


def _indices(trace: Trace, node: fx.Node, info: TensorInfo) -> Tensor:
    """Any that the embeddings have that read them; else what other uses allow."""
    modules = (module_of(trace.model, user) for user in node.users)
    sizes = [
        module.num_embeddings for module in modules if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    ]
    if not sizes or info.dtype == torch.bool:
        return any_indices(node, info)
    return torch.randint(0, min(sizes), info.shape).to(info.dtype)


def smooth(like: Tensor) -> Tensor:
    """Standard normal values, smooth over the positions of (N, C, …)."""
    drawn = torch.randn(like.shape, dtype=torch.float32)
    if like.dim() > 2 and like.numel():
        axes = tuple(range(2, like.dim()))
        square = torch.zeros(like.shape[2:])
        for axis in axes:
            frequency = torch.fft.fftfreq(like.shape[axis]) * like.shape[axis]
            square = square + frequency.square().view([-1 if a == axis else 1 for a in axes])
        field = torch.fft.fftn(drawn, dim=axes) * (1 + square) ** -SMOOTH
        drawn = torch.fft.ifftn(field, dim=axes).real
        drawn = drawn / drawn.std().clamp(min=1e-12)
    return drawn.to(like)


def recovered(trace: Trace, values: Values, statistics: Statistics, rounds: int = ROUNDS) -> Values:
    """`values` with every floating-point tensor replaced by one for which the norms see what they remember.

    Args:
        trace: a graph that computes what the model computes.
        values: of the placeholders; says shapes, and the values of all that is not floating-point.
        statistics: norm node → (C,) mean and variance.
        rounds: how many may be made.

    Raises:
        Unrunnable: an operation does not take such values, or has no derivative.
    """
    free: list[Tensor] = []

    def start(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        free.append(smooth(tensor).requires_grad_(True))
        return free[-1]

    values = {node: replaced(value, start) for node, value in values.items()}
    if not free:
        return values
    losses: list[Tensor] = []

    def compare(site: NormSite, beside: Beside) -> Beside:
        mean, variance = statistics[site.node]
        seen_mean, seen_variance = moments(beside[0], len(mean))
        apart = (seen_mean - mean).square() / variance
        ratio = ((seen_variance + EPSILON) / (variance + EPSILON)).log()
        losses.append(apart.mean() + ratio.square().mean())
        return beside

    run = GraphRun(trace, [True], compare)
    optimiser = torch.optim.Adam(free, RATE)
    for _ in range(rounds):
        rates = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, LAST_RATE / RATE, STEPS)
        for _ in range(STEPS):
            losses.clear()
            with torch.enable_grad():
                run.run({node: replaced(value, _plus_zero) for node, value in values.items()})
                loss = torch.stack(losses).sum()
            if not loss.requires_grad:  # nothing that leads to a norm is differentiable
                return {node: replaced(value, Tensor.detach) for node, value in values.items()}
            try:
                gradients = torch.autograd.grad(loss, free, allow_unused=True)
            except RuntimeError as error:  # an operation of the user's has no derivative
                raise Unrunnable(str(error)) from error
            for tensor, gradient in zip(free, gradients, strict=True):
                tensor.grad = gradient
            optimiser.step()
            rates.step()
        if float(loss.detach()) < ENOUGH * len(losses):
            break
        for group in optimiser.param_groups:
            group["lr"] = RATE
    return {node: replaced(value, Tensor.detach) for node, value in values.items()}


def _plus_zero(tensor: Tensor) -> Tensor:
    """A tensor that may be changed in place."""
    return tensor + 0 if tensor.requires_grad else tensor
