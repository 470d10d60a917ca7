import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Block(nn.Sequential):
    def __init__(self):
        super().__init__()
        self.add_module("conv1", nn.Conv2d(3, 8, 3))
        self.add_module("norm", nn.BatchNorm2d(8))
        self.add_module("relu", nn.ReLU())
        self.add_module("drop", nn.Dropout(0.5))
        self.add_module("conv2", nn.Conv2d(8, 4, 3))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()

    def forward(self, x):
        return self.block(x)
