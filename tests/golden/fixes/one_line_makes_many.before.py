# strategy: move
# left: one line makes mlp.3, mlp.7 and 3 more, and only 4 of them are wrong
import torch
from torch import nn

example_inputs = (torch.randn(64, 20),)


class Net(nn.Module):
    def __init__(self, width=32, p=0.3):
        super().__init__()
        layers = []
        for size in (20, width, width, width, width):
            layers += [nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(p)]
        self.mlp = nn.Sequential(*layers, nn.Linear(width, 4))

    def forward(self, x):
        return self.mlp(x)
