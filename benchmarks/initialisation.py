"""The signal through 20 layers without norms: He, Xavier, and Hendrycks and Gimpel's corrections.

    OMP_NUM_THREADS=1 python benchmarks/initialisation.py                        200 networks, table and plot
    python benchmarks/initialisation.py --seeds 20 --no-training                 a quick look

The network of the paper's Fig. 1 and 5: 15 layers of 500 units, then 5 of 250, fed with standard normal
noise in train mode. Recorded: the second moment of every layer's pre-activations, pooled over units and
samples, and that of the error signal that comes back when standard normal noise is fed into the output. Then
a short training of a deep narrow network on the bundled digits.

The schemes differ only in how a layer's random weights are drawn and in what they are divided by, so each
seed's draws serve all activations, keep probabilities and schemes; that this is the same as initialising
every network on its own is checked first.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.remedy_tables import RESULTS, made_with, save, spread, table
from dropout_lint.remedies.initialisation import correct_init_

WIDTHS = [500] * 15 + [250] * 5
ACTIVATIONS: dict[str, type[nn.Module]] = {"ReLU": nn.ReLU, "GELU": nn.GELU, "tanh": nn.Tanh, "ELU": nn.ELU}
KEEPS = (1.0, 0.6, 0.3)
CASES = [(activation, keep) for activation in ACTIVATIONS for keep in KEEPS]
AIM = 0.2

Initialise = Callable[[nn.Sequential, Tensor], object]


def network(activation: type[nn.Module], keep: float, widths: list[int], inputs: int) -> nn.Sequential:
    """Linear layers with activation and dropout between them."""
    layers: list[nn.Module] = [nn.Linear(inputs, widths[0])]
    for before, after in itertools.pairwise(widths):
        layers += [activation(), nn.Dropout(1 - keep), nn.Linear(before, after)]
    return nn.Sequential(*layers).train()


def linears(model: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in model if isinstance(layer, nn.Linear)]


def plain(function: Callable[[Tensor], object]) -> Initialise:
    """One of torch's own initialisations, biases 0."""

    def initialise(model: nn.Sequential, x: Tensor) -> None:
        for layer in linears(model):
            function(layer.weight)
            nn.init.zeros_(layer.bias)

    return initialise


def corrected(**how: object) -> Initialise:
    """`correct_init_` with these options."""
    return lambda model, x: correct_init_(model, x, **how)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Scheme:
    """A way to initialise, and which draws its weights are multiples of."""

    initialise: Initialise
    draws: str


SCHEMES = {
    "He": Scheme(plain(lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu")), "normal"),
    "Xavier": Scheme(plain(nn.init.xavier_normal_), "normal"),
    "forward term, as printed": Scheme(corrected(backward=False, finite_width=False), "sphere"),
    "forward term": Scheme(corrected(backward=False), "sphere"),
    "forward term, orthonormal": Scheme(corrected(backward=False, weights="orthogonal"), "orthogonal"),
    "both terms": Scheme(corrected(backward=True), "sphere"),
}
CORRECTED = ("forward term", "forward term, orthonormal")
DRAWS: dict[str, Initialise] = {
    "normal": plain(nn.init.normal_),
    "sphere": corrected(backward=False, finite_width=False),
    "orthogonal": corrected(backward=False, finite_width=False, weights="orthogonal"),
}


def drawn(kind: str, seed: int) -> list[Tensor]:
    """Each layer's weights before anything divides them: a linear network's, which needs no correction."""
    torch.manual_seed(seed)
    model = linear_network()
    torch.manual_seed(seed)
    DRAWS[kind](model, torch.zeros(2, 500))
    return [layer.weight.detach() for layer in linears(model)]


def linear_network() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(*sizes) for sizes in itertools.pairwise([500, *WIDTHS])))


def multiples(activation: str, keep: float, scheme: str) -> list[float]:
    """What a scheme multiplies each layer's drawn weights by.

    Raises:
        SystemExit: the scheme's weights are no multiple of the draws, so they must not be shared.
    """
    model = network(ACTIVATIONS[activation], keep, WIDTHS, 500)
    x = torch.zeros(2, 500)
    torch.manual_seed(0)
    SCHEMES[scheme].initialise(model, x)
    found = []
    for layer, draw in zip(linears(model), drawn(SCHEMES[scheme].draws, 0), strict=True):
        factor = float((layer.weight.detach() * draw).sum() / draw.square().sum())
        if not torch.allclose(layer.weight, factor * draw, rtol=1e-4, atol=1e-6):
            raise SystemExit(f"{scheme} does not multiply the same draws")
        found.append(factor)
    return found


def signals(
    x: Tensor, weights: list[Tensor], factors: list[float], case: tuple[str, float], *, backward: bool
) -> tuple[list[float], list[float]]:
    """Second moments of each layer's pre-activations, and of the error signal (NaN if not asked for)."""
    activation, keep = case
    kept: list[Tensor] = []
    nonlinear = ACTIVATIONS[activation]()
    with torch.set_grad_enabled(backward):
        for index, (weight, factor) in enumerate(zip(weights, factors, strict=True)):
            if index > 0:
                x = F.dropout(nonlinear(x), 1 - keep) if keep < 1 else nonlinear(x)
            x = (x @ weight.T) * factor
            if backward:
                x.requires_grad_().retain_grad()
            kept.append(x)
        if backward:
            x.backward(torch.randn_like(x))
    errors = [float(z.grad.square().mean()) if z.grad is not None else math.nan for z in kept]
    return [float(z.detach().square().mean()) for z in kept], errors


@dataclass(frozen=True)
class Found:
    """Second moments for one activation, k and scheme: (seeds, layers), backward of fewer seeds."""

    forward: Tensor
    backward: Tensor

    def mean(self) -> Tensor:
        return self.forward.mean(0)

    def error(self) -> Tensor:
        """Standard error of the mean, by layer."""
        return self.forward.std(0) / len(self.forward) ** 0.5


Results = dict[tuple[str, float, str], Found]


def propagate(seeds: int, backward_seeds: int, batch: int) -> Results:
    """Every activation, k and scheme."""
    keys = [(*case, scheme) for case in CASES for scheme in SCHEMES]
    factors = {key: multiples(*key) for key in keys}
    forward: dict[tuple[str, float, str], list[list[float]]] = {key: [] for key in keys}
    backward: dict[tuple[str, float, str], list[list[float]]] = {key: [] for key in keys}
    for seed in range(seeds):
        weights = {kind: drawn(kind, seed) for kind in DRAWS}
        x = torch.randn(batch, 500)
        for key in keys:
            own = weights[SCHEMES[key[2]].draws]
            there, back = signals(x, own, factors[key], key[:2], backward=seed < backward_seeds)
            forward[key].append(there)
            if seed < backward_seeds:
                backward[key].append(back)
        if (seed + 1) % 20 == 0:
            print(f"{seed + 1} networks", flush=True)
    return {key: Found(torch.tensor(forward[key]), torch.tensor(backward[key])) for key in keys}


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
    SCHEMES[scheme].initialise(model, x[:2])
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


def plot(found: Results) -> None:
    """Second moment by layer, one panel for each activation and k; a band for 95 % of the mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(KEEPS), len(ACTIVATIONS), figsize=(13, 8), sharex=True, sharey="row")
    layers = range(1, len(WIDTHS) + 1)
    for row, keep in enumerate(KEEPS):
        for column, activation in enumerate(ACTIVATIONS):
            panel = axes[row][column]
            panel.axhspan(1 - AIM, 1 + AIM, color="0.9")
            for scheme in SCHEMES:
                one = found[activation, keep, scheme]
                (line,) = panel.semilogy(layers, one.mean(), label=scheme)
                if scheme in CORRECTED:
                    low, high = one.mean() - 1.96 * one.error(), one.mean() + 1.96 * one.error()
                    panel.fill_between(layers, low, high, color=line.get_color(), alpha=0.3)
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


def worst(one: Found) -> str:
    """Largest deviation in any layer, and the far end of the 95 % intervals of the means."""
    off = (one.mean() - 1).abs()
    if not bool((one.mean() < 10).all() and (one.mean() > 0.1).all()):
        return "—"
    far = float((off + 1.96 * one.error()).max())
    if far > 1:
        return f"{float(off.max()):.0%}"
    return f"{float(off.max()):.1%} (≤ {far:.1%})"


def last(one: Found) -> str:
    return number(float(one.mean()[-1]))


def error_signal(one: Found) -> str:
    return number(float((one.backward[:, 0] / one.backward[:, -1]).mean()))


def fives(one: Found) -> str:
    """How many means of five networks are within the aim in every layer."""
    groups = one.forward[: len(one.forward) // 5 * 5].view(-1, 5, one.forward.shape[1]).mean(1)
    return f"{int(((groups - 1).abs() < AIM).all(1).sum())} of {len(groups)}"


def spreads(found: Results) -> str:
    """How far single networks lie from each other, by depth."""
    shown = (5, 10, 15, 20)
    head = ("network", *(f"layer {layer}" for layer in shown), "5 % to 95 %, layer 20", "means of five")
    rows = []
    for activation, keep in CASES:
        for scheme in CORRECTED:
            one = found[activation, keep, scheme]
            logs = one.forward.log().std(0)
            low, high = torch.quantile(one.forward[:, -1], torch.tensor([0.05, 0.95])).tolist()
            label = f"{activation}, k = {keep:g}" + (", orthonormal" if "ortho" in scheme else "")
            deviations = [f"{float(logs[layer - 1]):.2f}" for layer in shown]
            rows.append((label, *deviations, f"{low:.2f} to {high:.2f}", fives(one)))
    return table(head, rows)


def report(found: Results, trained: list[tuple[str, ...]], backward_seeds: int, seconds: float) -> str:
    """All tables."""
    head = ("network", *SCHEMES)

    def cells(pick: Callable[[Found], str]) -> str:
        rows = [
            (f"{activation}, k = {keep:g}", *(pick(found[activation, keep, scheme]) for scheme in SCHEMES))
            for activation, keep in CASES
        ]
        return table(head, rows)

    seeds = len(next(iter(found.values())).forward)
    parts = [
        "# Initialisation",
        f"""15 layers of 500 units and 5 of 250, no norms, train mode, dropout after every activation; {seeds}
networks. k is the keep probability. "forward term" is `correct_init_(backward=False)`, "as printed" the
paper's √(E[f²]/k) without the correction for finite width (`finite_width=False`), "orthonormal" has
`weights="orthogonal"`, "both terms" is the paper's sum √(E[f²]/k + k·E[f′²]).""",
        "![Second moment by layer](initialisation.png)",
        "## Largest deviation of the mean of E[z²] from 1 in any layer",
        """In brackets the far end of the 95 % confidence intervals of the layers' means over networks.
— where the mean is more than tenfold off.""",
        cells(worst),
        "## E[z²] in the last layer, mean over networks",
        cells(last),
        "## How far single networks lie apart",
        f"""Standard deviation over networks of log E[z²], and how many means of five networks are within
{AIM:.0%} of 1 in every layer.""",
        spreads(found),
        "## Error signal: E[δ²] in the first layer over E[δ²] in the last",
        f"Mean over {backward_seeds} networks.",
        cells(error_signal),
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=200, help="networks [200]")
    parser.add_argument("--backward-seeds", type=int, default=20, help="of these with error signal [20]")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--no-training", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    found = propagate(options.seeds, options.backward_seeds, options.batch)
    RESULTS.mkdir(exist_ok=True)
    plot(found)
    trained = [] if options.no_training else training(3)
    text = report(found, trained, min(options.seeds, options.backward_seeds), time.process_time() - start)
    save("initialisation.md", text)


if __name__ == "__main__":
    main()
