# left: a milder rule than before speaks of it at its new place, and its module has no better one
# left: layers.0@dense_layers.py:22 and layers.0@dense_layers.py:25 have weight layers between them, and their place (P6, before layers.0.conv2) is for one dropout
# left: layers.1@dense_layers.py:22 and layers.1@dense_layers.py:25 have weight layers between them, and their place (P6, before layers.1.conv2) is for one dropout
# left: layers.2@dense_layers.py:22 and layers.2@dense_layers.py:25 have weight layers between them, and their place (P6, before layers.2.conv2) is for one dropout
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 6, 8, 8),)


class Bottleneck(nn.Module):
    def __init__(self, channels, growth, drop_rate):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * growth, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1)
        self.drop_rate = drop_rate

    def forward(self, x):
        out = self.conv1(F.relu(self.bn1(x)))
        out = F.relu(self.bn2(out))
        if self.drop_rate > 0:
            out = F.dropout(out, p=self.drop_rate, training=self.training)
        out = self.conv2(out)
        if self.drop_rate > 0:
            out = F.dropout(out, p=self.drop_rate, training=self.training)
        return torch.cat([x, out], 1)


class Net(nn.Module):
    def __init__(self, drop_rate=0.3):
        super().__init__()
        self.layers = nn.Sequential(*[Bottleneck(6 + 3 * i, 3, drop_rate) for i in range(3)])
        self.bn, self.fc = nn.BatchNorm2d(15), nn.Linear(15, 2)

    def forward(self, x):
        return self.fc(F.relu(self.bn(self.layers(x))).mean((2, 3)))
