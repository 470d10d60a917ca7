"""Uout against nn.Dropout: time of a training step's forward and backward pass, and the shift that it causes.

    OMP_NUM_THREADS=1 python benchmarks/uout.py
    python benchmarks/uout.py --device cuda

Rounds are interleaved, so that a busy machine slows all of them; the fastest counts.
Aim: at most 1.5 × nn.Dropout.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.remedy_tables import made_with, save, table
from dropout_lint.noise.equations import li_eq6, li_eq13, li_eq13_exact
from dropout_lint.remedies import Uout

SHAPES = ((64, 64, 32, 32), (128, 512), (32, 128, 768))
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "nn.Dropout(0.3)": lambda: nn.Dropout(0.3),
    "nn.Dropout2d(0.3)": lambda: nn.Dropout2d(0.3),
    "Uout(0.3)": lambda: Uout(0.3),
    "Uout(0.3, inplace)": lambda: Uout(0.3, inplace=True),
    "Uout(0.3, channelwise)": lambda: Uout(0.3, channelwise=True),
}


def once(layer: nn.Module, x: Tensor, gradient: Tensor, backward: bool) -> float:
    """Milliseconds of one pass."""
    synchronise(x)
    # the CPU time of one thread does not count what other processes take
    clock = time.perf_counter if x.is_cuda or torch.get_num_threads() > 1 else time.process_time
    start = clock()
    if backward:
        # multiplied by 1, so that an in-place layer does not write into a leaf
        layer(x.requires_grad_() * 1.0).backward(gradient)
    else:
        with torch.no_grad():
            layer(x.detach())
    synchronise(x)
    x.grad = None
    return 1e3 * (clock() - start)


def synchronise(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize()


def fastest(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, backward: bool, rounds: int
) -> list[float]:
    """Milliseconds of each layer."""
    x = torch.randn(shape, device=device).to(dtype)
    gradient = torch.randn(shape, device=device).to(dtype)
    layers = [make().train() for make in LAYERS.values()]
    best = [float("inf")] * len(layers)
    for _ in range(rounds):
        for index, layer in enumerate(layers):
            flat = len(shape) < 3 and isinstance(layer, nn.Dropout2d)
            if not flat:
                best[index] = min(best[index], once(layer, x.detach(), gradient, backward))
    return best


def shift(x: Tensor, layer: nn.Module) -> float:
    """Measured Δ of a norm that follows the layer."""
    return float(x.var() / layer.train()(x).var())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for shape in SHAPES:
            for backward in (False, True):
                times = fastest(shape, dtype, options.device, backward, options.rounds)
                name = f"{'×'.join(map(str, shape))} {str(dtype).removeprefix('torch.')}"
                name += ", forward and backward" if backward else ", forward"
                shown = [f"{ms:.3f}" if ms < 1e9 else "—" for ms in times]
                rows.append((name, *shown, f"{times[2] / times[0]:.2f}"))
    speed = table(("milliseconds", *LAYERS, "Uout / Dropout"), rows)

    normal = torch.randn(4_000_000)
    shifts = []
    for name, x in (("N(0, 1)", normal), ("ReLU of it", normal.relu()), ("N(1, 1)", normal + 1)):
        c, v = float(x.double().mean()), float(x.double().var())
        for beta in (0.1, 0.3, 0.5, 1.0):
            measured = shift(x, Uout(beta))
            shifts.append(
                (
                    f"{name}, β = {beta}",
                    f"{measured:.4f}",
                    f"{li_eq13_exact(c, v, beta):.4f}",
                    f"{li_eq13(beta):.4f}",
                )
            )
        shifts.append(
            (f"{name}, dropout 0.5", f"{shift(x, nn.Dropout(0.5)):.4f}", f"{li_eq6(c, v, 0.5):.4f}", "—")
        )
    delta = table(("Δ behind", "measured", "exact", "Li Eq. 13 (mean 0)"), shifts)
    where = "cuda" if options.device.startswith("cuda") else options.device
    save(f"uout-{where}.md", f"# Uout\n\n{speed}\n\n{delta}\n\n{made_with(options.device)}")


if __name__ == "__main__":
    main()
