# strategy: uout
# beta: 0.3
# note: the model imports dropout_lint from now on (Uout); --vendor-uout writes the class into your project
import torch
from dropout_lint import Uout
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
        self.uout = Uout(0.3 if rate else 0.0)

    def forward(self, x):
        out = self.conv(x)
        out = self.uout(out)
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
