import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.drop = nn.Dropout(0.3)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.drop(self.bn(self.conv(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = Body()
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))
