"""Layer, RMS or group norm between a dropout and a batch norm: Δ of trained networks, expected and measured.

    python -m benchmarks.per_sample_norms        six minutes of one core

Such a norm divides by what it sees, in either mode, so it makes what dropout leaves of the data in training
as loud as all of it is in test mode. Weights and pools behind it add up the data and not the noise: Δ is
above 1. Each network learns what a random function makes of smooth sequences, or of vectors; then Δ is
measured as in `benchmarks.prediction`. No constant of the prediction was chosen by these networks.

It writes benchmarks/results/per-sample-norms.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropout_lint as dl

from .prediction.settings import Data
from .prediction.truth import behind, measured

PAGE = Path(__file__).parent / "results" / "per-sample-norms.md"
ROWS, STEPS, BATCH = 3000, 500, 64
LENGTH, FEATURES, WIDTH = 10, 16, 32


def sequences() -> Data:
    """(N, L, C) walks that forget where they were, and which of three random readings of each is largest."""
    steps = torch.randn(ROWS, LENGTH, FEATURES)
    for place in range(1, LENGTH):
        steps[:, place] = 0.7 * steps[:, place - 1] + 0.714 * steps[:, place]
    readings = steps @ torch.randn(FEATURES, 3)
    return Data((steps,), (readings.mean(1) + readings[:, :5].amax(1) / 2).argmax(1))


def vectors() -> Data:
    """(N, C) normals, and the class that a random network of two layers gives each."""
    x = torch.randn(ROWS, FEATURES)
    return Data((x,), (torch.tanh(x @ torch.randn(FEATURES, 64)) @ torch.randn(64, 5)).argmax(1))


class Plain(nn.Module):
    """Dropout, a norm, a layer, a batch norm."""

    def __init__(self, p: float, norm: Callable[[int], nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.first, self.drop, self.norm = nn.Linear(FEATURES, 64), nn.Dropout(p), norm(64)
        self.second, self.batch, self.head = nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.norm(self.drop(torch.relu(self.first(x)))))
        out: Tensor = self.head(torch.relu(self.batch(h)))
        return out


class Encoder(nn.Module):
    """A transformer's encoder, the mean of its tokens, a batch norm."""

    def __init__(self, p: float, first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, p, batch_first=True, norm_first=first)
        last = nn.LayerNorm(WIDTH) if first else None
        self.embed = nn.Linear(FEATURES, WIDTH)
        self.layers = nn.TransformerEncoder(layer, 2, norm=last, enable_nested_tensor=False)
        self.batch, self.head = nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.batch(self.layers(self.embed(x)).mean(1))))
        return out


class Half(nn.Sequential):
    """The feed-forward part of a Conformer, of which half is added."""

    def __init__(self, p: float) -> None:
        inner = (
            nn.Linear(WIDTH, 2 * WIDTH),
            nn.SiLU(),
            nn.Dropout(p),
            nn.Linear(2 * WIDTH, WIDTH),
            nn.Dropout(p),
        )
        super().__init__(nn.LayerNorm(WIDTH), *inner)


class Convolution(nn.Module):
    """The convolution part of a Conformer, with its batch norm (Gulati et al. 2020, Fig. 2)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.norm, self.gate = nn.LayerNorm(WIDTH), nn.Conv1d(WIDTH, 2 * WIDTH, 1)
        self.depthwise = nn.Conv1d(WIDTH, WIDTH, 5, padding=2, groups=WIDTH)
        self.batch, self.out, self.drop = nn.BatchNorm1d(WIDTH), nn.Conv1d(WIDTH, WIDTH, 1), nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:
        h = self.depthwise(F.glu(self.gate(self.norm(x).transpose(1, 2)), 1))
        out: Tensor = self.drop(self.out(F.silu(self.batch(h)))).transpose(1, 2)
        return out


class Block(nn.Module):
    """A block of a Conformer."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.before, self.after, self.convolution = Half(p), Half(p), Convolution(p)
        self.norm, self.last, self.drop = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.Dropout(p)
        self.attention = nn.MultiheadAttention(WIDTH, 4, dropout=p, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.before(x) / 2
        h = self.norm(x)
        x = x + self.drop(self.attention(h, h, h, need_weights=False)[0])
        x = x + self.convolution(x)
        out: Tensor = self.last(x + self.after(x) / 2)
        return out


class Conformer(nn.Module):
    """Three blocks and the mean over time."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.embed, self.drop, self.head = nn.Linear(FEATURES, WIDTH), nn.Dropout(p), nn.Linear(WIDTH, 3)
        self.blocks = nn.Sequential(*(Block(p) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.drop(self.embed(x))).mean(1))
        return out


def group_norm(channels: int) -> nn.Module:
    """Of four groups."""
    return nn.GroupNorm(4, channels)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Data]]] = {
    "layer norm, p = 0.2": (lambda: Plain(0.2), vectors),
    "layer norm, p = 0.5": (lambda: Plain(0.5), vectors),
    "RMS norm, p = 0.3": (lambda: Plain(0.3, nn.RMSNorm), vectors),
    "group norm, p = 0.3": (lambda: Plain(0.3, group_norm), vectors),
    "encoder, post-norm, p = 0.2": (lambda: Encoder(0.2, first=False), sequences),
    "encoder, pre-norm, p = 0.2": (lambda: Encoder(0.2, first=True), sequences),
    "Conformer, p = 0.1": (lambda: Conformer(0.1), sequences),
    "Conformer, p = 0.2": (lambda: Conformer(0.2), sequences),
    "Conformer, p = 0.4": (lambda: Conformer(0.4), sequences),
}


def rows() -> Iterator[tuple[str, str, float, float, tuple[float, float], float, float]]:
    """Network, norm, Δ measured when trained, expected, its interval, from the checkpoint, of the start."""
    for name, (build, data) in NETWORKS.items():
        torch.manual_seed(0)
        model, known = build(), data()
        few = tuple(x[:BATCH] for x in known.inputs)
        expected = {shift.norm: shift for shift in dl.lint(model, few).predictions}
        optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
        for _ in range(STEPS):
            inputs, labels = known.rows(torch.randint(ROWS, (BATCH,)))
            optimiser.zero_grad()
            F.cross_entropy(model(*inputs), labels).backward()
            optimiser.step()
        truth, _ = measured(model, known, behind(model, known), 4 * ROWS)
        trained = {shift.norm: shift for shift in dl.lint(model, few).predictions}
        for norm, delta in truth.items():
            shift, after = expected[norm], trained[norm].delta
            assert shift.delta is not None and shift.interval is not None
            assert shift.delta_initial is not None and after is not None
            yield name, norm, delta, shift.delta, shift.interval, after, shift.delta_initial


def main() -> None:
    """Train, measure, and write the page."""
    torch.set_num_threads(1)
    lines, off, inside = list[str](), list[float](), list[bool]()
    for name, norm, truth, delta, (low, high), after, start in rows():
        off.append(abs(delta - truth))
        inside.append(low <= truth <= high)
        figures = f"{truth:.2f} | {delta:.2f} ({low:.2f}–{high:.2f}) | {after:.2f} | {start:.2f}"
        line = f"| {name} | `{norm}` | {figures} |"
        print(line, flush=True)
        lines.append(line)
    text = f"""# A norm of each sample before a batch norm

`python -m benchmarks.per_sample_norms`, torch {torch.__version__}.

Layer, RMS and group norm make what dropout leaves of the data as loud as it was. What follows adds up the
data and not the noise, so that a batch norm behind sees more variance in test mode than in training: Δ is
above 1. Networks learn for {STEPS} steps; no constant of the prediction was chosen by them. Mean error of
what is expected from untrained weights: {sum(off) / len(off):.3f}; in the interval: {sum(inside)} of
{len(inside)}.

| network | batch norm | Δ measured, trained | expected after training | from the checkpoint | of the start |
|---|---|---|---|---|---|
"""
    PAGE.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
