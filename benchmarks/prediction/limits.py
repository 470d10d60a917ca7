"""What a prediction without data can reach: trained networks, run on other images than those they know.

Each trained image network of `twelve.py` whose noises are modules is itself run in train and in test mode, on
Gaussian images whose pixels correlate as the digits' do on average, and Δ is measured as on the digits.
Nothing is assumed about the network then: what this misses by, the data alone decide. *Corrected* is the same
run with each norm's input given the mean and the variance that the norm holds, where noise keeps its size:
all that weights and running statistics tell. Beside them stand the errors of the report, which runs nothing.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .judged import number, reported
from .kinds import KINDS
from .page import RESULTS
from .settings import Data, Setting
from .shares import drawing
from .tables import mean, quantile
from .truth import known, norms_of, prepare, ratios

PAGE = RESULTS / "prediction-limits.md"
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
        if isinstance(module, (nn.modules.dropout._DropoutNd, *KINDS.values())):
            module.forward = functools.partial(masked, drop=module)
    for name, module in norms_of(net).items():
        module.forward = functools.partial(normalised, name=name, norm=module)
    with torch.no_grad():
        net(torch.cat([images] * (DRAWS + 1)))
    return found


def errors_of(setting: Setting, cache: Path) -> tuple[Setting, list[float], list[float], list[float]]:
    """Errors at the norms of a setting: of the run, as it is and corrected, and of the report."""
    _, net, _, found = known(setting, prepare(setting, cache))
    torch.manual_seed(0)
    digits = setting.network.data()
    images = alike(digits.inputs[0])
    run = ratios(net, Data((images,), digits.labels[:SAMPLES]), 2 * SAMPLES)
    informed = corrected(net, images[:CORRECTED_SAMPLES])
    told = {name: number(entry["delta"]) for name, entry in reported(net, (images[:4],)).items()}
    true = {name: norm["delta"] for name, norm in found["norms"].items()}
    sides = ([abs(side[name] - value) for name, value in true.items()] for side in (run, informed, told))
    return (setting, *sides)  # type: ignore[return-value]


def applies(setting: Setting) -> bool:
    """Whether the network reads images and each of its noises is a module that draws element by element."""
    model = setting.network.build(setting.kind, setting.p)
    kinds = (nn.modules.dropout._DropoutNd, *KINDS.values())
    return setting.network.data().inputs[0].dim() == 4 and all(
        isinstance(model.get_submodule(name), kinds) for name in drawing(model)
    )


def row(label: str, found: Sequence[tuple[Setting, list[float], list[float], list[float]]]) -> str:
    """A row of the table."""
    columns = [[e for entry in found for e in entry[side] if math.isfinite(e)] for side in (1, 2, 3)]
    figures = (f"{mean(c):.4f} | {quantile(c, 0.95):.3f}" for c in columns)
    return f"| {label} | {len(columns[0])} | {' | '.join(figures)} |"


def main(cache: Path) -> None:
    """Writes benchmarks/results/prediction-limits.md."""
    from .sets import chosen

    torch.set_num_threads(1)
    found = []
    for setting in chosen("twelve"):
        if applies(setting):
            found.append(errors_of(setting, cache))
            print(row(setting.key, found[-1:]), flush=True)
    assert __doc__ is not None
    lines = ["# What a prediction without data can reach", "", "`python -m benchmarks.prediction limits`", ""]
    lines += [__doc__.split("\n\n", 1)[1].strip(), ""]
    lines += [
        "| trained networks | norms | run on other images: mean | 95 % | corrected: mean | 95 % "
        "| the report: mean | 95 % |",
        "|" + "---|" * 8,
        row("all", found),
    ]
    lines += [row(f"p = {p:g}", [e for e in found if e[0].p == p]) for p in sorted({e[0].p for e in found})]
    lines += [row(entry[0].key, [entry]) for entry in found]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
