"""Monte-Carlo averaging against one pass on a batch that many times larger, and against pass after pass.

    OMP_NUM_THREADS=1 python benchmarks/monte_carlo.py
    python benchmarks/monte_carlo.py --device cuda --batch 128

Three ways to the same number of noisy predictions, dropout on and norms in test mode in all of them:

    one pass     the model on the batch repeated `samples` times, made beforehand; its outputs, no mean
    monte_carlo  `dropout_lint.monte_carlo`: repeats the batch, runs, takes mean and spread
    a loop       `samples` passes over the batch, stacked, mean and spread taken

Rounds are paired: each runs all three, in changing order, and the ratios are of the same round, so that a
busy machine slows all of them; on the CPU one thread's CPU time is taken. Aim: monte_carlo ≤ one pass.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.remedy_tables import made_with, save, table
from dropout_lint.layers import STANDARD
from dropout_lint.remedies.monte_carlo import monte_carlo
from fixtures import preresnet, wide_resnet


class FunctionalNet(nn.Module):
    """A perceptron whose dropout is called as a function."""

    def __init__(self, inputs: int = 64, width: int = 512) -> None:
        super().__init__()
        self.first, self.second, self.head = (
            nn.Linear(inputs, width),
            nn.Linear(width, width),
            nn.Linear(width, 10),
        )
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.norm(self.first(x)).relu(), 0.5, self.training)
        return self.head(F.dropout(self.second(x).relu(), 0.5, self.training))


# How it is built, one sample's shape, and the sizes of the batches.
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "PreResNet-20, width 16, dropout at P6": (
        lambda: preresnet.build("P6", 0.3, depth=20),
        (3, 32, 32),
        (8,),
    ),
    "WRN-16-4": (lambda: wide_resnet.build(depth=16, widen_factor=4), (3, 32, 32), (8,)),
    "perceptron, functional dropout": (FunctionalNet, (64,), (8, 128)),
}


def noisy(model: nn.Module) -> nn.Module:
    """Everything in train mode but the norms, without the library's help."""
    model.train()
    for module in model.modules():
        if STANDARD.norm(module) is not None:
            module.eval()
    return model


def seconds(work: Callable[[], object], device: torch.device) -> float:
    clock = time.process_time
    if device.type == "cuda":
        clock = time.perf_counter
        torch.cuda.synchronize()
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def rounds_of(
    model: nn.Module, batch: Tensor, samples: int, rounds: int
) -> tuple[dict[str, list[float]], float]:
    """Seconds of each way by round, and how far the two means are apart, in standard errors."""
    forward = noisy(model)
    many = batch.repeat(samples, *[1] * (batch.dim() - 1))

    def loop() -> tuple[Tensor, Tensor]:
        stacked = torch.stack([forward(batch) for _ in range(samples)])
        return stacked.mean(0), stacked.std(0)

    ways: dict[str, Callable[[], object]] = {
        "one pass": lambda: forward(many),
        "monte_carlo": lambda: monte_carlo(model, batch, samples),
        "a loop": loop,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    with torch.no_grad():
        for work in ways.values():
            work()
        for _ in range(rounds):
            random.shuffle(order)
            for name in order:
                found[name].append(seconds(ways[name], batch.device))
        result, (mean, std) = monte_carlo(model, batch, samples), loop()
        apart = (result.mean - mean) / (result.std.square() + std.square()).div(samples).sqrt()
    return found, float(apart.square().mean().sqrt())


def ratios(times: list[float], base: list[float]) -> tuple[str, str]:
    """Median of the paired ratios, and their quartiles."""
    found = [a / b for a, b in zip(times, base, strict=True)]
    low, middle, high = statistics.quantiles(found, n=4)
    return f"{middle:.3f}", f"{low:.3f} to {high:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--batch", type=int, nargs="*", help="sizes of the batches; 8, and 128 for the perceptron too"
    )
    parser.add_argument("--samples", type=int, nargs="*", default=[10, 30])
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    random.seed(0)
    torch.manual_seed(0)
    rows = []
    for label, (build, shape, sizes) in MODELS.items():
        for size, samples in itertools.product(options.batch or sizes, options.samples):
            model = build().to(options.device)
            batch = torch.randn(size, *shape, device=options.device)
            found, apart = rounds_of(model, batch, samples, options.rounds)
            against, quartiles = ratios(found["monte_carlo"], found["one pass"])
            rows.append(
                (
                    f"{label}, {samples} samples of {size}",
                    *(f"{1e3 * statistics.median(times):.1f}" for times in found.values()),
                    against,
                    quartiles,
                    ratios(found["a loop"], found["monte_carlo"])[0],
                    f"{apart:.2f}",
                )
            )
            print(rows[-1], flush=True)
    head = (
        *("milliseconds", "one pass", "monte_carlo", "a loop"),
        *("monte_carlo / one pass", "quartiles", "a loop / monte_carlo", "difference, standard errors"),
    )
    where = "cuda" if options.device.startswith("cuda") else options.device
    text = f"""# Monte-Carlo averaging

{table(head, rows)}

"One pass" is a single pass on a batch as many times larger as there are samples; it takes no mean. Ratios are
medians over {options.rounds} paired rounds. The last column compares the mean predictions of `monte_carlo`
with those of the loop: near 1 where both estimate the same. What a call costs beyond its pass (finding the
dropouts, setting modes, the mean and spread) is some tenths of a millisecond, and shows where a pass takes
two.

{made_with(options.device)}"""
    save(f"monte-carlo-{where}.md", text)


if __name__ == "__main__":
    main()
