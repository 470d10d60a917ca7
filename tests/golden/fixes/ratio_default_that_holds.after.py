# strategy: move
# note: a constructor stays, since other lines of its class still use the dropout (DL406)
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Layer(nn.Module):
    def __init__(self, c, k, rate, use=True):
        super().__init__()
        self.rate = rate
        self.use = use
        self.drop = nn.Dropout(rate) if rate else nn.Identity()
        self.conv = nn.Conv2d(c, k, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(k)

    def forward(self, x):
        out = self.conv(x)
        return torch.cat([x, F.relu(self.norm(out))], 1)


class Net(nn.Module):
    def __init__(self, layers=3, k=8, rate=0.2, scale=2, use=True):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.block = nn.Sequential()
        c = 16
        for i in range(layers):
            self.block.add_module(f"l{i}", Layer(c, k, rate))
            c += k
        self.norm = nn.BatchNorm2d(c)
        self.fc = nn.Linear(c, 10)
        self.dropout = nn.Dropout(rate or 0.0)

    def forward(self, x):
        return self.fc(self.dropout(F.relu(self.norm(self.block(self.stem(x))))).mean([2, 3]))
