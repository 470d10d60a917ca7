# strategy: move
# note: block.l2@class_outside_of_the_model.py:22: Deeper, outside of this model, loses the dropout that is moved
# note: Layer is used outside of this model as well, by Deeper (class_outside_of_the_model.py:42), which changes along with it
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Layer(nn.Module):
    def __init__(self, c, k, rate):
        super().__init__()
        self.rate = rate
        pass
        self.conv = nn.Conv2d(c, k, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(k)

    def forward(self, x):
        out = self.conv(x)
        if self.rate > 0:
            out = F.dropout(out, p=self.rate, training=self.training)
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

    def forward(self, x):
        return self.fc(F.relu(self.norm(self.block(self.stem(x)))).mean([2, 3]))


class Deeper(Layer):
    pass
