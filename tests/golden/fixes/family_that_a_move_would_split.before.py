# target: Base
# strategy: move
# left: features and forward of Base would change together, and Wide overrides only forward and Other overrides only features
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.drop = nn.Dropout(0.3)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)

    def features(self, x):
        return self.bn(self.drop(self.conv(x)))

    def forward(self, x):
        return self.fc(self.features(x).relu().mean((-2, -1)))


class Same(Base):
    def extra(self, x):
        return x

    def features(self, x):
        return super().features(x) * 2


class Other(Same):
    def features(self, x):
        return self.bn(self.conv(x)) + 1


class Wide(Base):
    def forward(self, x):
        return self.features(x).relu().sum()
