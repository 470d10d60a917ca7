"""What a prediction costs against an eval forward pass of one input of the usual size."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from dropout_lint.inputs.example import Inputs
from dropout_lint.prediction import predict
from dropout_lint.trace import trace

from .page import RESULTS
from .twelve import NETWORKS

CALLS = 7
BASES = ("initialisation", "weights", "checkpoint")
USUAL = {
    "preresnet20-P6": (3, 32, 32),
    "resnetv1_20-P3": (3, 32, 32),
    "bottleneck-P6": (3, 32, 32),
    "wrn16_4": (3, 32, 32),
    "densenet_bc40": (3, 32, 32),
    "resnext11-a": (3, 32, 32),
    "vgg_bn": (3, 32, 32),
    "mlp_bn": (20,),
    "tdnn": (200, 24),
    "resnet18-P3": (3, 224, 224),
    "densenet121": (3, 224, 224),
    "efficientnet_b0": (3, 224, 224),
}
PAGE = RESULTS / "prediction-times.md"


def fastest(call: Callable[[], Any], times: int = CALLS) -> float:
    """Least seconds of some calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def row(name: str, shape: tuple[int, ...]) -> str:
    """A row: milliseconds of an eval forward of one input, and predictions as multiples of it."""
    network = next(network for network in NETWORKS if network.name == name)
    net = network.build(*network.settings[0])
    x = torch.randn(1, *shape)
    traced = trace(net, Inputs((torch.randn(2, *shape),)))
    net.eval()
    with torch.no_grad():
        net(x)
        forward = fastest(lambda: net(x))
    net.train()
    for buffer_name, buffer in net.named_buffers():
        if buffer_name.endswith("running_var"):
            buffer.fill_(0.9)
    ratios = [fastest(lambda basis=basis: predict(traced, basis=basis)) / forward for basis in BASES]  # type: ignore[misc]
    sizes = " × ".join(str(size) for size in shape)
    return f"| {name} | {sizes} | {1000 * forward:.2f} | " + " | ".join(f"{r:.1f}" for r in ratios) + " |"


def main() -> None:
    """Writes benchmarks/results/prediction-times.md."""
    torch.set_num_threads(1)
    lines = ["# What a prediction costs", "", "`python -m benchmarks.prediction times`", ""]
    lines.append(
        f"Fastest of {CALLS}, both; one thread; one input, eval mode. Running variances are set to "
        "0.9 so that "
        "`checkpoint` takes the path of a trained network."
    )
    lines += ["", "| model | input | forward, ms | " + " | ".join(f"{b}, × forward" for b in BASES) + " |"]
    lines.append("|" + "---|" * (3 + len(BASES)))
    for name, shape in USUAL.items():
        lines.append(row(name, shape))
        print(lines[-1], flush=True)
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
