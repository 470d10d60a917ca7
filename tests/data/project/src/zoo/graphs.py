from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Batch:
    x: Tensor
    edge_index: Tensor


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(7, 16)
        self.drop = nn.Dropout(0.4)
        self.bn = nn.BatchNorm1d(16)

    def forward(self, data: Batch):
        source, target = data.edge_index
        x = self.line(data.x)
        return self.bn(self.drop(torch.zeros_like(x).index_add(0, target, x[source])))
