import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 4, 3)
        self.p = p

    def forward(self, x):
        out = self.conv1(x)
        out = torch.relu(self.bn(out))
        # drop some
        if self.p > 0:
            out = F.dropout(out, self.p, self.training)
        out = self.conv2(out)
        return out
