# note: d: it stood under `if self.use`, and does not where it is now
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self, use=True):
        super().__init__()
        self.use = use
        self.conv = nn.Conv2d(3, 8, 3)
        self.d = nn.Dropout(0.3)
        self.bn = nn.BatchNorm2d(8)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.conv(x)
        if self.use:
            x = self.bn(x)
        return self.out(self.d(x))
