# left: no other place in its module, and no ratio of at least half of today's, answers DL303
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.drop = nn.Conv2d(3, 8, 1), nn.Dropout(0.1)
        self.conv = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return F.relu(self.conv(self.drop(self.embed(x)))).mean((2, 3))


class Net(nn.Module):
    def __init__(self, p=0.4):
        super().__init__()
        self.encoder = Encoder()
        self.drop, self.bn, self.fc = nn.Dropout(p), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.encoder(x)
        x = self.drop(x)
        x = self.bn(x)
        return self.fc(x)
