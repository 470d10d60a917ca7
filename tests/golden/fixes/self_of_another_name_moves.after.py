import torch
from torch import nn

example_inputs = (torch.randn(16, 8),)


class Net(nn.Module):
    def __init__(self, p=0.4):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 2)
        self.drop, self.bn = nn.Dropout(p), nn.BatchNorm1d(16)

    def forward(net, x):
        x = torch.relu(net.a(x))
        return net.c(net.drop(torch.relu(net.bn(net.b(x)))))
