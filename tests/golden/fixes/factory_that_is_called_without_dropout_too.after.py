# left: a milder rule than before speaks of it at its new place, and its module has no better one
# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
import torch
from torch import nn

example_inputs = (torch.randn(4, 1, 16, 16),)


def conv_block(in_ch: int, out_ch: int, dropout: float = 0.0) -> nn.Sequential:
    """Two convolutions, the first followed by dropout."""
    return nn.Sequential(
        nn.Conv2d(in_ch, out_ch, 3, padding=1, bias=False),
        nn.Identity(),
        nn.BatchNorm2d(out_ch),
        nn.Sequential(nn.ReLU(inplace=True), nn.Dropout2d(dropout)),
        nn.Conv2d(out_ch, out_ch, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_ch),
        nn.ReLU(inplace=True),
    )


class Stage(nn.Module):
    def __init__(self, in_ch: int, out_ch: int, dropout: float) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.conv = conv_block(in_ch, out_ch, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.pool(x))


class Net(nn.Module):
    def __init__(self, base: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.inc = conv_block(1, base)  # no dropout on the full resolution
        self.stage1 = Stage(base, base * 2, dropout)
        self.stage2 = Stage(base * 2, base * 2, dropout)
        self.head = nn.Linear(base * 2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stage2(self.stage1(self.inc(x))).mean((2, 3)))
