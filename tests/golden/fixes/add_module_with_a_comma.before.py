import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Layer(nn.Sequential):
    def __init__(self, channels_in, channels, p):
        super(Layer, self).__init__()
        self.add_module("conv", nn.Conv2d(channels_in, channels, 3, padding=1)),
        self.add_module("relu", nn.ReLU(inplace=True)),
        self.add_module("drop", nn.Dropout(p)),
        self.add_module("norm", nn.BatchNorm2d(channels)),

    def forward(self, x):
        return super(Layer, self).forward(x)


class Net(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.layer, self.fc = Layer(3, 8, p), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.layer(x).mean((2, 3)))
