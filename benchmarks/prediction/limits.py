"""What a prediction without data can reach: trained networks, run on other images than those they know.

    python benchmarks/prediction_limits.py --cache DIR            all trained settings of some networks
    python benchmarks/prediction_limits.py --models preresnet20

Each trained network of `prediction.py` is itself run in train and in test mode, on Gaussian images
whose pixels correlate as the digits' do on average, and Δ is measured as on the digits. Nothing is
assumed about the network then: what this misses by, the data alone decide. *Corrected* is the same run
with each norm's input given the mean and the variance that the norm holds, where noise keeps its size:
all that weights and running statistics tell. Beside them stand the errors of the ledger, which runs
nothing.

Writes benchmarks/results/prediction-limits.md.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from prediction import command_line, in_order, listed
from prediction_evaluated import compared
from prediction_measured import Case, batch_norms, cases, measure, prepared
from prediction_networks import KINDS, RATIOS, ROOT, data_of, models
from prediction_tables import quantile
from torch import Tensor, nn

from fixtures.noise import NOISES

NETWORKS = ("preresnet20", "resnetv1_20", "bottleneck", "resnext11", "vgg_bn")
SAMPLES = 512
CORRECTED_SAMPLES = 128
DRAWS = 8
"""Of the masks, for each of `CORRECTED_SAMPLES` images."""
MOST_CORRECTION = 4.0
"""Largest factor for a channel's signal: some see nothing in Gaussian images."""
LEAST_SIGNAL = 0.05
"""Least share of a norm's variance that is left to the signal."""


def alike(x: Tensor) -> Tensor:
    """(SAMPLES, C, H, W) Gaussian images with the mean correlation between pixels that images `x` have, by
    distance; all colours the same.
    """
    grey = x[:, 0].flatten(1).double()
    grey = (grey - grey.mean()) / grey.std()
    size = x.shape[-1]
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    place = torch.stack([rows.flatten(), columns.flatten()], 1).double()
    step = torch.cdist(place, place).mul(2).round().long()
    found = grey.T @ grey / len(grey)
    counts = torch.bincount(step.flatten())
    by_distance = torch.bincount(step.flatten(), weights=found.flatten()) / counts.clamp(min=1)
    values, vectors = torch.linalg.eigh(by_distance[step])
    root = vectors * values.clamp(min=0).sqrt()
    images = torch.randn(SAMPLES, len(root), dtype=torch.double) @ root.T
    images = (images / images.std()).float().view(SAMPLES, 1, size, size)
    return images.expand(-1, x.shape[1], -1, -1)


def corrected(net: nn.Module, images: Tensor) -> dict[str, float]:
    """Δ at every batch norm in a run that takes each norm's statistics for true.

    One batch holds `DRAWS` copies of the images, which see masks, and one that sees none. What the copies
    differ in is noise; the signal is scaled so that both together have the norm's running variance.
    """
    net = copy.deepcopy(net).train()
    count = len(images)
    found: dict[str, float] = {}

    def masked(x: Tensor, drop: nn.Module) -> Tensor:
        return torch.cat([type(drop).forward(drop, x[:-count]), x[-count:]])

    def normalised(x: Tensor, name: str, norm: nn.modules.batchnorm._BatchNorm) -> Tensor:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        shape = (1, -1) + (1,) * (x.dim() - 2)
        train, test = x[:-count].unflatten(0, (DRAWS, count)), x[-count:]
        signal = train.mean(0)
        noise = train - signal
        flat = [channels.transpose(0, 1).flatten(1) for channels in (signal, noise.flatten(0, 1))]
        noisy = flat[1].var(1, correction=0) * DRAWS / (DRAWS - 1)
        own = (flat[0].var(1, correction=0) - noisy / DRAWS).clamp(min=1e-9)
        room = torch.maximum(norm.running_var - noisy, LEAST_SIGNAL * norm.running_var)
        louder = (room / own).sqrt().clamp(max=MOST_CORRECTION).view(shape)
        fewer = ((norm.running_var - room) / noisy.clamp(min=1e-30)).clamp(0, 1).sqrt().view(shape)
        centre = flat[0].mean(1).view(shape)
        test = (test - centre) * louder
        found[name] = float(
            test.transpose(0, 1).flatten(1).var(1, correction=0).mean() / norm.running_var.mean()
        )
        moved = torch.cat([((signal - centre) * louder + noise * fewer).flatten(0, 1), test])
        scaled = moved / (norm.running_var + norm.eps).sqrt().view(shape)
        return scaled * norm.weight.view(shape) + norm.bias.view(shape)

    for module in net.modules():
        if isinstance(module, (nn.modules.dropout._DropoutNd, *NOISES.values())):
            module.forward = functools.partial(masked, drop=module)
    for name, module in batch_norms(net).items():
        module.forward = functools.partial(normalised, name=name, norm=module)
    with torch.no_grad():
        net(torch.cat([images] * (DRAWS + 1)))
    return found


def errors_of(case: Case, cache: Path | None) -> tuple[Case, list[float], list[float], list[float]]:
    """Errors at the norms of a setting: of the run, as it is and corrected, and of the ledger."""
    net, measured = prepared(case, "trained", cache, 4)
    torch.manual_seed(0)
    images = alike(data_of(case.model)[0])
    runs = measure(net, images, False, 4), corrected(net, images[:CORRECTED_SAMPLES])
    (result,) = compared(case, "trained", net, measured)
    run, informed = ([abs(found[name] - value) for name, value in measured.items()] for found in runs)
    return case, run, informed, result.errors()


def row(label: str, found: Sequence[tuple[Case, list[float], list[float], list[float]]]) -> str:
    """A row of the table."""
    columns = [[e for entry in found for e in entry[side]] for side in (1, 2, 3)]
    figures = (f"{statistics.fmean(c):.4f} | {quantile(c, 0.95):.3f}" for c in columns)
    return f"| {label} | {len(columns[0])} | {' | '.join(figures)} |"


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", help="comma-separated; default: " + ", ".join(NETWORKS))
    parser.add_argument("--jobs", type=int, default=1, help="settings at a time")
    parser.add_argument("--cache", type=Path, help="folder that keeps weights and measurements")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results" / "prediction-limits.md"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = listed(options.models or ",".join(NETWORKS), models(), "model", parser)
    work = functools.partial(errors_of, cache=options.cache)
    found = []
    for entry in in_order(work, list(cases(models(), names, RATIOS, KINDS)), options.jobs):
        found.append(entry)
        print(row(entry[0].key, [entry]), flush=True)
    lines = ["# What a prediction without data can reach", "", f"`{command_line(sys.argv)}`", ""]
    assert __doc__ is not None
    lines += [__doc__.split("\n\n")[2], ""]
    lines += [
        "| trained networks | norms | run on other images: mean | 95 % | corrected: mean | 95 % "
        "| the ledger: mean | 95 % |",
        "|" + "---|" * 8,
        row("all", found),
        row("all but P0", [entry for entry in found if entry[0].place != "P0"]),
    ]
    lines += [row(f"p = {p}", [e for e in found if e[0].p == p]) for p in RATIOS]
    lines += [row(kind, group) for kind in KINDS if (group := [e for e in found if e[0].kind == kind])]
    lines += [row(name, [e for e in found if e[0].model == name]) for name in names]
    options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
