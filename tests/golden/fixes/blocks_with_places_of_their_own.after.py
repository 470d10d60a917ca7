# left: a milder rule than before speaks of it at its new place, and its module has no better one
# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
import torch
from torch import nn

example_inputs = (torch.randn(4, 8, 8, 8),)


class ConvBNReLU(nn.Sequential):
    def __init__(self, in_planes, out_planes, groups=1, dropout=0.0):
        super().__init__(
            nn.Conv2d(in_planes, out_planes, 3, padding=1, groups=groups, bias=False),
            nn.Identity(),
            nn.BatchNorm2d(out_planes),
            nn.ReLU6(inplace=True),
            nn.Dropout(dropout),
        )


class InvertedResidual(nn.Module):
    """A residual block has a place that a plain one has not; one edit serves both."""

    def __init__(self, inp, oup, dropout):
        super().__init__()
        self.use_res_connect = inp == oup
        self.conv = nn.Sequential(
            ConvBNReLU(inp, inp * 2, dropout=dropout),
            ConvBNReLU(inp * 2, inp * 2, groups=inp * 2),
            nn.Conv2d(inp * 2, oup, 1, bias=False),
            nn.BatchNorm2d(oup),
        )

    def forward(self, x):
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class Net(nn.Module):
    def __init__(self, dropout=0.2):
        super().__init__()
        self.features = nn.Sequential(InvertedResidual(8, 12, dropout), InvertedResidual(12, 12, dropout))
        self.classifier = nn.Linear(12, 4)

    def forward(self, x):
        return self.classifier(self.features(x).mean([2, 3]))
