# strategy: move
# left: i of the call is not the same at the new place
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)])
        self.bns = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        for i, conv in enumerate(self.convs):
            x = F.dropout(conv(x), 0.2 * i, self.training)
            x = self.bns[i](x).relu()
        return self.fc(x.mean((2, 3)))
