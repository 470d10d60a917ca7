import torch
from torch.nn import BatchNorm1d, Conv1d, Dropout2d, Linear, Module

example_inputs = (torch.randn(4, 3, 12),)


class Net(Module):
    """Whole channels of a series: Dropout2d takes them for samples."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = Conv1d(3, 8, 3), BatchNorm1d(8), Linear(8, 2)
        self.drop = torch.nn.Dropout1d(0.3)

    def forward(self, x):
        return self.fc(self.drop(self.bn(self.conv(x)).relu()).mean(2))
