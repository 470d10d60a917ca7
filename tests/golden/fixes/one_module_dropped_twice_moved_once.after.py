import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.drop = nn.Dropout(0.1)
        self.rate = 0.5
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = self.conv(x)
        x = self.drop(x)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        x = self.fc(x)
        return x
