"""Uout against nn.Dropout: time of a training step's forward and backward pass, and the shift that it causes.

    OMP_NUM_THREADS=2 python benchmarks/uout.py
    python benchmarks/uout.py --device cuda

Rounds are paired: each runs every layer, in changing order, and ratios are of the same round, so that a busy
machine slows all of them. With one thread the CPU time of the process is taken, with several that of the
wall clock. Aim: at most 1.5 × the dropout of the same kind.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.remedy_tables import made_with, save, table
from dropout_lint.prediction.equations import li_eq6, li_eq13, li_eq13_exact
from dropout_lint.remedies.uout import Uout

SHAPES = ((64, 64, 32, 32), (32, 128, 768), (128, 512), (16, 64))
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
KINDS = ("elementwise", "in place", "channelwise")


def pairs(dims: int) -> dict[str, tuple[nn.Module, nn.Module]]:
    """For each kind the dropout to compare with, and ours; for tensors of `dims` dimensions."""
    found: dict[str, tuple[nn.Module, nn.Module]] = {
        "elementwise": (nn.Dropout(0.3), Uout(0.3)),
        "in place": (nn.Dropout(0.3, inplace=True), Uout(0.3, inplace=True)),
    }
    if dims > 2:
        channels = nn.Dropout1d(0.3) if dims == 3 else nn.Dropout2d(0.3)
        found["channelwise"] = channels, Uout(0.3, channelwise=True)
    return found


def once(layer: nn.Module, x: Tensor, gradient: Tensor, *, backward: bool, calls: int) -> float:
    """Milliseconds of one pass."""
    if backward:
        # multiplied by 1, so that an in-place layer does not write into a leaf
        inputs = [x.detach().requires_grad_() * 1.0 for _ in range(calls)]
    else:
        inputs = [x.detach().clone() for _ in range(calls)]
    synchronise(x)
    # the CPU time of one thread does not count what other processes take
    clock = time.perf_counter if x.is_cuda or torch.get_num_threads() > 1 else time.process_time
    start = clock()
    with torch.set_grad_enabled(backward):
        for one in inputs:
            y = layer(one)
            if backward:
                y.backward(gradient)
    synchronise(x)
    return 1e3 * (clock() - start) / calls


def synchronise(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize()


def row(shape: tuple[int, ...], dtype: torch.dtype, device: str, rounds: int, *, backward: bool) -> list[str]:
    """Milliseconds of dropout and Uout, and the ratio for each pair: median and third quartile."""
    x = torch.randn(shape, device=device).to(dtype)
    gradient = torch.randn(shape, device=device).to(dtype)
    calls = max(1, min(50, 200_000 // x.numel()))
    layers = {
        (label, index): layer.train()
        for label, pair in pairs(len(shape)).items()
        for index, layer in enumerate(pair)
    }
    times: dict[tuple[str, int], list[float]] = {key: [] for key in layers}
    order = list(layers)
    for round_ in range(rounds + 1):
        random.shuffle(order)
        for key in order:
            taken = once(layers[key], x, gradient, backward=backward, calls=calls)
            if round_ > 0:  # the first one warms up
                times[key].append(taken)
    cells = [f"{statistics.median(times['elementwise', index]):.3f}" for index in (0, 1)]
    for label in KINDS:
        if (label, 0) not in times:
            cells.append("—")
            continue
        ratios = [ours / theirs for theirs, ours in zip(times[label, 0], times[label, 1], strict=True)]
        cells.append(f"{statistics.median(ratios):.2f} ({statistics.quantiles(ratios, n=4)[2]:.2f})")
    return cells


def speed(device: str, rounds: int, threads: list[int]) -> str:
    """The table of times."""
    rows = []
    for count in threads if device == "cpu" else [1]:
        torch.set_num_threads(count)
        for shape, dtype, backward in itertools.product(SHAPES, DTYPES, (False, True)):
            name = f"{'×'.join(map(str, shape))} {str(dtype).removeprefix('torch.')}"
            name += ", forward and backward" if backward else ", forward"
            name += f", {count} thread{'s' * (count > 1)}" if device == "cpu" else ""
            rows.append((name, *row(shape, dtype, device, rounds, backward=backward)))
            print(rows[-1], flush=True)
    worst = max(float(cell.split()[0]) for found in rows for cell in found[3:] if cell != "—")
    return f"Largest ratio: {worst:.2f}.\n\n" + table(
        ("", "nn.Dropout, ms", "Uout, ms", *(f"ratio, {label}" for label in KINDS)), rows
    )


def shift(x: Tensor, layer: nn.Module) -> float:
    """Measured Δ of a norm that follows the layer."""
    return float(x.var() / layer.train()(x).var())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2], help="threads on the CPU")
    options = parser.parse_args()
    torch.manual_seed(0)
    random.seed(0)
    times = speed(options.device, options.rounds, options.threads)

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
    text = f"""# Uout

β = 0.3 against dropout of ratio 0.3; the channelwise one against nn.Dropout1d and 2d. Ratios are Uout over
dropout, medians over {options.rounds} paired rounds, in brackets the third quartile. Aim: at most 1.5.

{times}

{delta}

{made_with(options.device)}"""
    save(f"uout-{where}.md", text)


if __name__ == "__main__":
    main()
