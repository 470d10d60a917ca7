# strategy: move
# note: `rate` of Body is taken and does nothing any more
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Body(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.drop = nn.Dropout(rate)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.bn(self.drop(self.conv(x))).relu()


class Head(nn.Module):
    def __init__(self, p, c=8):
        super().__init__()
        self.conv = nn.Conv2d(c, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))


class Net(nn.Module):
    def __init__(self, drop_rate=0.4):
        super().__init__()
        self.body = Body(drop_rate)
        self.head = Head(p=drop_rate)

    def forward(self, x):
        return self.head(self.body(x))
