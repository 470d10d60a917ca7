"""The signal through 20 layers without norms: He, Xavier, and Hendrycks and Gimpel's corrections.

    OMP_NUM_THREADS=1 python benchmarks/initialisation.py        40 seeds, about 9 minutes of CPU time
    python benchmarks/initialisation.py --seeds 5 --no-training  a quick look
    python benchmarks/initialisation.py --many 160               ReLU and GELU without dropout: there
                                                                 all samples of a network share a deviation

The network of the paper's Fig. 1 and 5: 15 layers of 500 units, then 5 of 250, fed with standard normal
noise in train mode. Recorded: the second moment of every layer's pre-activations, pooled over units and
samples, and that of the error signal that comes back when standard normal noise is fed into the output. Then
a short training of a deep narrow network on the bundled digits.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.remedy_tables import RESULTS, made_with, save, spread, table
from dropout_lint.remedies import correct_init_

WIDTHS = [500] * 15 + [250] * 5
ACTIVATIONS: dict[str, type[nn.Module]] = {"ReLU": nn.ReLU, "GELU": nn.GELU, "tanh": nn.Tanh, "ELU": nn.ELU}
KEEPS = (1.0, 0.6, 0.3)


def network(activation: type[nn.Module], keep: float, widths: list[int], inputs: int) -> nn.Sequential:
    """Linear layers with activation and dropout between them."""
    layers: list[nn.Module] = [nn.Linear(inputs, widths[0])]
    for before, after in itertools.pairwise(widths):
        layers += [activation(), nn.Dropout(1 - keep), nn.Linear(before, after)]
    return nn.Sequential(*layers).train()


def plain(function: Callable[[Tensor], object]) -> Callable[[nn.Sequential, Tensor], None]:
    """One of torch's own initialisations, biases 0."""

    def initialise(model: nn.Sequential, x: Tensor) -> None:
        for layer in linears(model):
            function(layer.weight)
            nn.init.zeros_(layer.bias)

    return initialise


def corrected(**how: object) -> Callable[[nn.Sequential, Tensor], object]:
    """`correct_init_` with these options."""
    return lambda model, x: correct_init_(model, x, **how)  # type: ignore[arg-type]


SCHEMES: dict[str, Callable[[nn.Sequential, Tensor], object]] = {
    "He": plain(lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu")),
    "Xavier": plain(nn.init.xavier_normal_),
    "forward term, as printed": corrected(backward=False, finite_width=False),
    "forward term": corrected(backward=False),
    "both terms": corrected(backward=True),
}


def linears(model: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in model if isinstance(layer, nn.Linear)]


def signals(model: nn.Sequential, x: Tensor) -> tuple[list[float], list[float]]:
    """Second moments of each layer's pre-activations, and of the error signal there."""
    kept = []
    for layer in model:
        x = layer(x)
        if isinstance(layer, nn.Linear):
            x.retain_grad()
            kept.append(x)
    x.backward(torch.randn_like(x))
    return [float(z.detach().pow(2).mean()) for z in kept], [
        float(z.grad.pow(2).mean()) for z in kept if z.grad is not None
    ]


def propagate(seeds: int, batch: int) -> dict[tuple[str, float, str], tuple[Tensor, Tensor]]:
    """(activation, k, scheme) → forward and backward second moments, (seeds, layers) each."""
    found = {}
    for activation, kind in ACTIVATIONS.items():
        for keep in KEEPS:
            for scheme, initialise in SCHEMES.items():
                forward, backward = [], []
                for seed in range(seeds):
                    torch.manual_seed(seed)
                    model = network(kind, keep, WIDTHS, 500)
                    initialise(model, torch.randn(2, 500))
                    there, back = signals(model, torch.randn(batch, 500))
                    forward.append(there)
                    backward.append(back)
                found[activation, keep, scheme] = torch.tensor(forward), torch.tensor(backward)
            print(activation, keep, flush=True)
    return found


def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32) / 16
    return (x - x.mean()) / x.std(), torch.tensor(labels)


def training(seeds: int, steps: int = 250) -> list[tuple[str, ...]]:
    """Train-mode loss after a few steps of Adam, at the best of three learning rates."""
    x, y = digits()
    rows = []
    for activation, keep in (("ReLU", 1.0), ("ReLU", 0.6), ("GELU", 0.6), ("tanh", 0.6)):
        cells = []
        for scheme in SCHEMES:
            by_rate = {
                rate: [
                    short_run(x, y, activation, keep, scheme, rate=rate, seed=seed, steps=steps)
                    for seed in range(seeds)
                ]
                for rate in (3e-4, 1e-3, 3e-3)
            }
            rate = min(by_rate, key=lambda rate: sum(by_rate[rate]))
            cells.append(f"{spread(by_rate[rate])} ({rate:g})")
        rows.append((f"{activation}, k = {keep:g}", *cells))
        print(rows[-1], flush=True)
    return rows


def short_run(
    x: Tensor, y: Tensor, activation: str, keep: float, scheme: str, *, rate: float, seed: int, steps: int
) -> float:
    """Mean train-mode loss of the last 25 steps."""
    torch.manual_seed(seed)
    model = network(ACTIVATIONS[activation], keep, [100] * 15 + [10], 64)
    SCHEMES[scheme](model, x[:2])
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    losses = []
    for step in range(steps):
        rows = torch.randint(len(x), (64,))
        loss = F.cross_entropy(model(x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step >= steps - 25:
            value = loss.item()
            losses.append(min(value, 99.0) if math.isfinite(value) else 99.0)
    return sum(losses) / len(losses)


def plot(found: dict[tuple[str, float, str], tuple[Tensor, Tensor]]) -> None:
    """Second moment by layer, one panel for each activation and k."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(KEEPS), len(ACTIVATIONS), figsize=(13, 8), sharex=True, sharey="row")
    for row, keep in enumerate(KEEPS):
        for column, activation in enumerate(ACTIVATIONS):
            panel = axes[row][column]
            panel.axhspan(0.8, 1.2, color="0.9")
            for scheme in SCHEMES:
                forward, _ = found[activation, keep, scheme]
                panel.semilogy(range(1, len(WIDTHS) + 1), forward.mean(0), label=scheme)
            panel.set_title(f"{activation}, k = {keep:g}", fontsize=10)
            panel.set_ylim(1e-7, 1e10)
    for panel in axes[-1]:
        panel.set_xlabel("layer")
    for panel in axes[:, 0]:
        panel.set_ylabel("E[z²]")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(RESULTS / "initialisation.png", dpi=80)


def number(value: float) -> str:
    return f"{value:.2f}" if 0.005 <= value < 100 else f"{value:.0e}"


def report(
    found: dict[tuple[str, float, str], tuple[Tensor, Tensor]],
    trained: list[tuple[str, ...]],
    seeds: int,
    seconds: float,
) -> str:
    """All tables."""
    cases = [(activation, keep) for activation in ACTIVATIONS for keep in KEEPS]

    def cells(pick: Callable[[Tensor, Tensor], str]) -> list[tuple[str, ...]]:
        return [
            (f"{activation}, k = {keep:g}", *(pick(*found[activation, keep, scheme]) for scheme in SCHEMES))
            for activation, keep in cases
        ]

    def last(forward: Tensor, backward: Tensor) -> str:
        return number(float(forward.mean(0)[-1]))

    def worst(forward: Tensor, backward: Tensor) -> str:
        mean = forward.mean(0)
        return (
            f"{float((mean - 1).abs().max()):.1%}" if bool((mean < 10).all() and (mean > 0.1).all()) else "—"
        )

    def error(forward: Tensor, backward: Tensor) -> str:
        sd = forward.std(0, correction=1)[-1] / forward.shape[0] ** 0.5
        return number(float(sd))

    def back(forward: Tensor, backward: Tensor) -> str:
        return number(float((backward[:, 0] / backward[:, -1]).mean()))

    head = ("network", *SCHEMES)
    parts = [
        "# Initialisation",
        f"""15 layers of 500 units and 5 of 250, no norms, train mode, dropout after every activation; {seeds}
seeds. k is the keep probability. "forward term" is `correct_init_(backward=False)`, "as printed" the paper's
√(E[f²]/k) without the correction for finite width (`finite_width=False`), "both terms" the paper's sum
√(E[f²]/k + k·E[f′²]).""",
        "![Second moment by layer](initialisation.png)",
        "## Largest deviation of E[z²] from 1 in any layer (— where it is more than tenfold)",
        table(head, cells(worst)),
        "## E[z²] in the last layer",
        table(head, cells(last)),
        "Standard error of that mean over seeds:",
        table(head, cells(error)),
        "## Error signal: E[δ²] in the first layer over E[δ²] in the last",
        table(head, cells(back)),
    ]
    if trained:
        parts += [
            "## A short training",
            """16 layers of 100 units on the bundled digits, 250 steps of Adam with batches of 64, 3 seeds:
train-mode loss of the last 25 steps, in brackets the learning rate that did best of 3e-4, 1e-3 and 3e-3.
Chance is 2.30.""",
            table(head, trained),
        ]
    parts.append(f"{made_with()} {seconds / 60:.1f} minutes of CPU time.")
    return "\n\n".join(parts)


def many(seeds: int, batch: int = 30) -> str:
    """ReLU and GELU at k = 1, forward only, seeds that the other tables have not used."""
    rows = []
    for activation in ("ReLU", "GELU"):
        for scheme in ("forward term, as printed", "forward term"):
            found = []
            for seed in range(1000, 1000 + seeds):
                torch.manual_seed(seed)
                model = network(ACTIVATIONS[activation], 1.0, WIDTHS, 500)
                SCHEMES[scheme](model, torch.randn(2, 500))
                x, moments = torch.randn(batch, 500), []
                with torch.no_grad():
                    for layer in model:
                        x = layer(x)
                        if isinstance(layer, nn.Linear):
                            moments.append(float(x.pow(2).mean()))
                found.append(moments)
            values = torch.tensor(found)
            mean, last = values.mean(0), values[:, -1]
            error = float(last.std()) / seeds**0.5
            rows.append(
                (
                    f"{activation}, {scheme}",
                    f"{float((mean - 1).abs().max()):.1%}",
                    f"{float(mean[-1]):.2f} ± {error:.2f}",
                    f"{float(last.min()):.2f} to {float(last.max()):.2f}",
                )
            )
            print(rows[-1], flush=True)
    head = ("k = 1", "largest deviation of E[z²] from 1", "last layer, ± standard error", "single networks")
    return f"# Initialisation without dropout, {seeds} seeds\n\n{table(head, rows)}\n\n{made_with()}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--no-training", action="store_true")
    parser.add_argument("--many", type=int, metavar="SEEDS")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.many:
        save("initialisation-many-seeds.md", many(options.many))
        return
    start = time.process_time()
    found = propagate(options.seeds, options.batch)
    RESULTS.mkdir(exist_ok=True)
    plot(found)
    trained = [] if options.no_training else training(3)
    save("initialisation.md", report(found, trained, options.seeds, time.process_time() - start))


if __name__ == "__main__":
    main()
