"""Layer, RMS or group norm between a dropout and a batch norm: Δ of trained networks, expected and measured.

    python -m benchmarks.per_sample_norms        six minutes of one core, and what was trained is kept

Such a norm divides by what it sees, in either mode, so it makes what dropout leaves of the data in training
as loud as all of it is in test mode. Weights and pools behind it add up the data and not the noise: Δ is
above 1. Each network learns what a random function makes of sequences, or of vectors; it is trained, measured
and judged as in `benchmarks.prediction`. No constant of the prediction was chosen by these networks.

It writes benchmarks/results/per-sample-norms.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .prediction.judged import Judged, judge
from .prediction.settings import Data, Network, settings

PAGE = Path(__file__).parent / "results" / "per-sample-norms.md"
CACHE = Path(__file__).parent / "prediction" / "cache" / "per-sample-norms"
ROWS, LENGTH, FEATURES, WIDTH = 3000, 10, 16, 32


def sequences() -> Data:
    """(N, L, C) walks that forget where they were, and which of three random readings of each is largest."""
    draw = torch.Generator().manual_seed(5)
    steps = torch.randn(ROWS, LENGTH, FEATURES, generator=draw)
    for place in range(1, LENGTH):
        steps[:, place] = 0.7 * steps[:, place - 1] + 0.714 * steps[:, place]
    readings = steps @ torch.randn(FEATURES, 3, generator=draw)
    return Data((steps,), (readings.mean(1) + readings[:, :5].amax(1) / 2).argmax(1))


def vectors() -> Data:
    """(N, C) normals, and the class that a random network of two layers gives each."""
    draw = torch.Generator().manual_seed(5)
    x, first, last = (
        torch.randn(*sizes, generator=draw) for sizes in ((ROWS, FEATURES), (FEATURES, 64), (64, 5))
    )
    return Data((x,), (torch.tanh(x @ first) @ last).argmax(1))


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


def _network(
    name: str, build: Callable[[float], nn.Module], data: Callable[[], Data], *ratios: float
) -> Network:
    """Eleven epochs of AdamW."""
    return Network(
        name,
        "a norm of each sample before a batch norm",
        lambda _, p: build(p),
        data,
        "adamw",
        rate=2e-3,
        epochs=11,
        settings=tuple(("Dropout", p) for p in ratios),
        decay=0.01,
        seen=4 * ROWS,
    )


NETWORKS = (
    _network("layer norm", Plain, vectors, 0.2, 0.5),
    _network("RMS norm", lambda p: Plain(p, nn.RMSNorm), vectors, 0.3),
    _network("group norm", lambda p: Plain(p, group_norm), vectors, 0.3),
    _network("encoder, post-norm", lambda p: Encoder(p, first=False), sequences, 0.2),
    _network("encoder, pre-norm", lambda p: Encoder(p, first=True), sequences, 0.2),
    _network("Conformer", Conformer, sequences, 0.1, 0.2, 0.4),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Train and measure what the cache lacks, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder that keeps trained networks")
    cache = parser.parse_args(argv).cache
    rows = [row for setting in settings(NETWORKS) for row in judge(setting, cache)]
    expected = [row for row in rows if row.basis == "weights"]
    of: dict[tuple[str, str], dict[str, Judged]] = {}
    for row in rows:
        of.setdefault((f"{row.network}, p = {row.p:g}", row.norm), {})[row.basis] = row
    PAGE.write_text(
        f"""# A norm of each sample before a batch norm

`python -m benchmarks.per_sample_norms`, torch {torch.__version__}.

Layer, RMS and group norm make what dropout leaves of the data as loud as it was. What follows adds up the
data and not the noise, so that a batch norm behind sees more variance in test mode than in training: Δ is
above 1. No constant of the prediction was chosen by these networks. Mean error of what is expected from
untrained weights: {sum(row.error for row in expected) / len(expected):.3f}; in the interval:
{sum(row.low <= row.true <= row.high for row in expected)} of {len(expected)}.

| network | batch norm | Δ, trained | expected | from the checkpoint | of the start | predicted |
|---|---|---|---|---|---|---|
"""
        + "".join(f"| {name} | `{norm}` | {_figures(found)} |\n" for (name, norm), found in of.items()),
        encoding="utf-8",
    )


def _figures(found: dict[str, Judged]) -> str:
    """The cells of one norm, by basis."""
    known, expected, start = found["checkpoint"], found["weights"], found["initial"]
    trained = f"{known.true:.2f} | {expected.predicted:.2f} ({expected.low:.2f}–{expected.high:.2f})"
    return f"{trained} | {known.predicted:.2f} | {start.true:.2f} | {start.predicted:.2f}"


if __name__ == "__main__":
    main()
