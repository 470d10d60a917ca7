"""The time that a prediction takes against an eval forward of one input of the usual size."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from prediction_evaluated import BASES
from prediction_networks import models

from dropout_lint.noise import predict
from dropout_lint.target.types import Inputs
from dropout_lint.trace import trace

CALLS = 7
RATIO = 0.3
PLACES = {"preresnet20": "P6", "bottleneck": "P6", "resnetv1_20": "P3", "resnext11": "a"}


def fastest(call: Callable[[], Any], times: int = CALLS) -> float:
    """Least seconds of some calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def timed(name: str) -> str:
    """A row: seconds of an eval forward of one input, and predictions as multiples of it."""
    model = models()[name]
    place = PLACES.get(name, model.places[0])
    net = model.build(place, model.kinds[0], RATIO)
    x = torch.randn(1, *model.usual)
    traced = trace(net, Inputs((torch.randn(2, *model.usual),)))
    net.eval()
    with torch.no_grad():
        net(x)
        forward = fastest(lambda: net(x))
    net.train()
    for buffer_name, buffer in net.named_buffers():
        if buffer_name.endswith("running_var"):
            buffer.fill_(0.9)
    ratios = [fastest(lambda basis=basis: predict(traced, basis=basis)) / forward for basis in BASES]  # type: ignore[misc]
    shape = " × ".join(str(size) for size in model.usual)
    return (
        f"| {name} | {place} | {shape} | {1000 * forward:.2f} | "
        + " | ".join(f"{r:.1f}" for r in ratios)
        + " |"
    )


def section() -> str:
    """The page's section."""
    lines = ["## Time at usual input sizes", ""]
    lines.append(
        f"Fastest of {CALLS}, both; one thread; one input, eval mode, p = {RATIO}. Running variances are set "
        "to 0.9 so that `checkpoint` takes the path of a trained network."
    )
    head = "| model | place | input | forward, ms | " + " | ".join(f"{b}, × forward" for b in BASES)
    lines += ["", head + " |", "|" + "---|" * (4 + len(BASES))]
    lines += [timed(name) for name, model in models().items() if not model.held_out]
    return "\n".join([*lines, "", "Aim: at most 1 for `weights` and `checkpoint`."])
