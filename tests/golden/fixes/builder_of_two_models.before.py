# target: Wrong
# left: no other place in its module, and no ratio of at least half of today's, answers DL101
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Body(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.conv, self.drop = nn.Conv2d(3, 8, 3), nn.Dropout(p)

    def forward(self, x):
        return self.drop(F.relu(self.conv(x)))


class Wrong(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.bn, self.fc = Body(0.3), nn.BatchNorm2d(8), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.bn(self.body(x)).mean((2, 3)))


class Sound(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.fc = Body(0.3), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))
