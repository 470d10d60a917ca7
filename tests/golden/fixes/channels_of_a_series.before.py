import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 6, 24),)


class Net(nn.Module):
    def __init__(self, p=0.2):
        super().__init__()
        self.conv1 = nn.Conv1d(6, 8, 3)
        self.drop = nn.Dropout2d(p)
        self.conv2 = nn.Conv1d(8, 4, 3)

    def forward(self, x):
        return self.conv2(self.drop(F.relu(self.conv1(x))))
