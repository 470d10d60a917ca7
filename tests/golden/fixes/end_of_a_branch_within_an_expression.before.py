import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 16, 16),)


class Unit(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)
        self.bn = nn.BatchNorm2d(c)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class Block(nn.Module):
    def __init__(self, c, p=0.3, drop=True, n=2):
        super().__init__()
        self.dropout = nn.Dropout2d(p) if drop else None
        self.ops = nn.Sequential(*[Unit(c) for _ in range(n)])

    def forward(self, x):
        if self.dropout is not None:
            out = self.dropout(x)
        else:
            out = x

        x = torch.relu(x + self.ops(out))
        return x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Unit2(3, 8)
        self.a = Block(8, n=1, drop=False)
        self.b = Block(8)
        self.c = Block(8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.c(self.b(self.a(self.stem(x))))
        return self.fc(x.mean((2, 3)))


class Unit2(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv = nn.Conv2d(a, b, 3, padding=1)
        self.bn = nn.BatchNorm2d(b)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()
