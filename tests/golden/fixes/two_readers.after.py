import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 24),)


class Net(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        self.conv, self.drop, self.bn = nn.Conv1d(3, 8, 1), nn.Dropout(p), nn.BatchNorm1d(8)
        self.fc = nn.Linear(16, 2)

    def forward(self, x):
        x = self.conv(x)
        x = F.relu(self.bn(x))
        x = self.drop(x)
        high = torch.max(x, 2)[0]
        mean = torch.mean(x, 2)
        return self.fc(torch.cat([high, mean], 1))
