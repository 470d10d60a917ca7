import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = self.dropout(x)  # always on
        return self.fc(x.flatten(1))
