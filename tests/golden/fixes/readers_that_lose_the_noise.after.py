# note: d: aux no longer sees its noise
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.d = nn.Dropout(0.3)
        self.bn = nn.BatchNorm2d(8)
        self.aux = nn.Conv2d(8, 2, 1)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        h = torch.relu(self.conv(x))
        aux = self.aux(h)
        h = self.bn(h)
        return self.out(self.d(h)), aux, h.shape[0]
