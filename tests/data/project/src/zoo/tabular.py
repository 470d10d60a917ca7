import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, sizes=(10, 7, 4), continuous=6):
        super().__init__()
        self.embeds = nn.ModuleList(nn.Embedding(size, 4) for size in sizes)
        self.drop = nn.Dropout(0.2)
        self.bn_cont = nn.BatchNorm1d(continuous)
        self.body = nn.Sequential(
            nn.Linear(4 * len(sizes) + continuous, 32), nn.Dropout(0.3), nn.BatchNorm1d(32)
        )

    def forward(self, x_cat, x_cont):
        cats = torch.cat([embed(x_cat[:, index]) for index, embed in enumerate(self.embeds)], 1)
        return self.body(torch.cat([self.drop(cats), self.bn_cont(x_cont)], 1))
