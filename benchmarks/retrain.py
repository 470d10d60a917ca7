"""Does it help? One network trained with dropout misplaced, moved, as Uout, without, and healed afterwards.

    OMP_NUM_THREADS=1 python benchmarks/retrain.py               the bundled digits, 8 seeds, about 8 minutes
    python benchmarks/retrain.py --task synthetic --device cuda  20 classes of 32×32 images in noise, 5 seeds
    … --task synthetic --seeds 2 --epochs 1 --train 250 --depth 8 --width 4    only shows that it runs

All runs have the same budget, data order and initial weights for a seed; only the noise differs. The settings
are those of Li et al. 2019, Tables 3 and 4 and Fig. 6, and of Kim et al. 2023, Table 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.remedy_tables import difference, made_with, save, spread, table
from dropout_lint.remedies.monte_carlo import monte_carlo
from dropout_lint.remedies.recalibrate import recalibrate
from fixtures.preresnet import build

# label → position of the dropout, its kind, and its ratio (β for Uout)
SETTINGS: dict[str, tuple[str | None, str, float]] = {
    "no dropout": (None, "Dropout", 0.0),
    "misplaced P0": ("P0", "Dropout", 0.5),
    "misplaced (a), P4": ("P4", "Dropout", 0.5),
    "misplaced (b), P3": ("P3", "Dropout", 0.5),
    "fixed by move, P6": ("P6", "Dropout", 0.5),
    "fixed by Uout 0.5, P3": ("P3", "Uout", 0.5),
}
MISPLACED = ("misplaced P0", "misplaced (a), P4", "misplaced (b), P3")
HEALINGS: dict[str, Callable[[nn.Module, list[Tensor]], object]] = {
    "recalibrated": recalibrate,
    "recalibrated, pooled": lambda model, batches: recalibrate(model, batches, method="pooled"),
    "recalibrated by stages": lambda model, batches: recalibrate(model, batches, method="stages"),
    "recalibrated, variance only": lambda model, batches: recalibrate(model, batches, variance_only=True),
    "swa_utils.update_bn (dropout on)": lambda model, batches: update_bn(batches, model),
}
SAMPLES = (1, 3, 10, 30)

# What each task takes unless told otherwise; the larger one is meant for some ten minutes of a GPU.
BUDGETS = {
    "digits": {"seeds": 8, "epochs": 30, "batch": 50, "train": 600},
    "synthetic": {"seeds": 5, "epochs": 15, "batch": 250, "train": 20_000},
}

Data = tuple[Tensor, Tensor, Tensor, Tensor]


def digits(device: str, train: int) -> Data:
    """scikit-learn's 1797 bundled 8×8 digits, as three equal channels; a fixed split."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8)[order] / 16
    x = ((x - x[:train].mean()) / x[:train].std()).expand(-1, 3, -1, -1).contiguous().to(device)
    y = torch.tensor(labels)[order].to(device)
    return x[:train], y[:train], x[train:], y[train:]


def synthetic(device: str, train: int, size: int = 32, classes: int = 20, test: int = 4000) -> Data:
    """Smooth random class images, shifted, mixed with a second class and covered with noise."""
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(classes, 3, size // 4, size // 4, generator=generator)
    templates = F.interpolate(small, size=size, mode="bicubic")
    total = train + test
    y = torch.randint(classes, (total,), generator=generator)
    other = torch.randint(classes, (total,), generator=generator)
    x = templates[y] + 0.8 * templates[other]
    shifts = torch.randint(-4, 5, (total, 2), generator=generator).tolist()
    x = torch.stack([torch.roll(image, shift, (1, 2)) for image, shift in zip(x, shifts, strict=True)])
    x = x + 1.5 * torch.randn(x.shape, generator=generator)
    x, y = (x / x.std()).to(device), y.to(device)
    return x[:train], y[:train], x[train:], y[train:]


def train(model: nn.Module, x: Tensor, y: Tensor, *, epochs: int, batch: int, seed: int) -> None:
    """SGD with momentum, weight decay and a cosine schedule; the data order depends on the seed alone."""
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps, pct_start=0.2)
    model.train()
    for _ in range(epochs):
        shuffled = torch.randperm(len(x), generator=order).to(x.device)
        for rows in shuffled[: len(x) // batch * batch].split(batch):
            optimiser.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
            schedule.step()


@torch.no_grad()
def error(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Test error in percent."""
    model.eval()
    wrong = sum(int((model(a).argmax(1) != b).sum()) for a, b in zip(x.split(500), y.split(500), strict=True))
    return 100 * wrong / len(x)


def averaged_error(model: nn.Module, x: Tensor, y: Tensor, samples: int) -> float:
    """Test error of the averaged softmax outputs of `samples` passes with dropout on."""
    wrong = 0
    for a, b in zip(x.split(500), y.split(500), strict=True):
        result = monte_carlo(model, a, samples, transform=lambda out: out.softmax(1), chunk=5)
        wrong += int((result.mean.argmax(1) != b).sum())
    return 100 * wrong / len(x)


def shifts(model: nn.Module, batches: list[Tensor]) -> float:
    """Mean over norms of max(Δ, 1/Δ), from what re-estimation finds; the model is left as it was."""
    result = recalibrate(model, batches)
    result.undo()
    ratios = [move.variance_ratio for move in result.moved]
    return sum(max(ratio, 1 / ratio) for ratio in ratios) / len(ratios)


def one_seed(data: Data, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Every figure of one seed."""
    x, y, test_x, test_y = data
    batches = list(x.split(options.batch))
    found: dict[str, float] = {}
    for label, (position, kind, p) in SETTINGS.items():
        torch.manual_seed(seed)
        classes = int(y.max()) + 1
        model = build(
            position, p, depth=options.depth, width=options.width, dropout=kind, num_classes=classes
        )
        model.to(x.device)
        train(model, x, y, epochs=options.epochs, batch=options.batch, seed=seed)
        found[label] = error(model, test_x, test_y)
        found[f"shift: {label}"] = shifts(model, batches)
        trained = {name: value.clone() for name, value in model.state_dict().items()}
        if label in MISPLACED:
            for healing, heal in HEALINGS.items():
                torch.manual_seed(seed)
                heal(model, batches)
                found[f"{label} + {healing}"] = error(model, test_x, test_y)
                model.load_state_dict(trained)
        if label == "misplaced (b), P3":
            for samples in SAMPLES:
                torch.manual_seed(seed)
                found[f"samples: {samples}"] = averaged_error(model, test_x, test_y, samples)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=["digits", "synthetic"], default="digits")
    parser.add_argument("--device", default="cpu")
    for name in BUDGETS["digits"]:
        usual = ", ".join(f"{budget[name]} for {task}" for task, budget in BUDGETS.items())
        parser.add_argument(f"--{name}", type=int, help=f"[{usual}]")
    parser.add_argument("--depth", type=int, default=14)
    parser.add_argument("--width", type=int, default=16)
    options = parser.parse_args()
    for name, usual_value in BUDGETS[options.task].items():
        if getattr(options, name) is None:
            setattr(options, name, usual_value)
    if options.train < options.batch:
        parser.error(f"--train {options.train} is less than a batch of {options.batch}")
    make = digits if options.task == "digits" else synthetic
    data = make(options.device, options.train)

    if options.device == "cpu":
        torch.set_num_threads(1)
    start = time.process_time()
    seeds = []
    for seed in range(options.seeds):
        seeds.append(one_seed(data, seed, options))
        print(
            f"seed {seed}: { ({k: round(v, 2) for k, v in seeds[-1].items() if ':' not in k}) }", flush=True
        )
    found = {label: [one[label] for one in seeds] for label in seeds[0]}
    save(f"retrain-{options.task}.md", report(found, options, data, time.process_time() - start))


def report(found: dict[str, list[float]], options: argparse.Namespace, data: Data, seconds: float) -> str:
    """The tables of Li and Kim, from these runs."""
    base = found["no dropout"]
    trained = table(
        ("setting", "test error %", "against no dropout", "shift ratio"),
        [
            (label, spread(found[label]), difference(found[label], base), spread(found[f"shift: {label}"]))
            for label in SETTINGS
        ],
    )
    healed = table(
        ("after training", *MISPLACED),
        [
            ("as trained", *(spread(found[label]) for label in MISPLACED)),
            *(
                (healing, *(spread(found[f"{label} + {healing}"]) for label in MISPLACED))
                for healing in HEALINGS
            ),
        ],
    )
    gains = table(
        ("change by", *MISPLACED),
        [
            (healing, *(difference(found[f"{label} + {healing}"], found[label]) for label in MISPLACED))
            for healing in HEALINGS
        ],
    )
    samples = table(
        ("passes averaged", "test error %", "against test mode (weight scaling)"),
        [
            (
                n,
                spread(found[f"samples: {n}"]),
                difference(found[f"samples: {n}"], found["misplaced (b), P3"]),
            )
            for n in SAMPLES
        ],
    )
    x, _, test_x, _ = data
    return f"""# Retraining: {options.task}

PreResNet-{options.depth}, width {options.width}, {options.epochs} epochs of {len(x)} images of
{"×".join(map(str, x.shape[2:]))} in batches of {options.batch}, tested on {len(test_x)};
{options.seeds} seeds.
Dropout ratio 0.5 in every block. Mean ± standard deviation over seeds; differences are paired by seed, mean ±
standard error of the mean.

## Training with each setting (Kim Table 1, Li Table 4)

{trained}

Shift ratio: mean over norms of max(Δ, 1/Δ), test-mode variance on the training data over the running variance
(Li Table 2).

## Statistics re-estimated after training (Li Table 3, Hendrycks Table 2)

{healed}

{gains}

## Monte-Carlo averaging of "misplaced (b), P3" (Li Fig. 6)

{samples}

What agrees with the papers and what does not: [remedies-notes.md](remedies-notes.md).

{made_with(options.device)} {seconds / 60:.1f} minutes of CPU time.
"""


if __name__ == "__main__":
    main()
