# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Body(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(p), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x):
        return self.net(x)


class Net(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.body, self.fc = Body(p), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))
