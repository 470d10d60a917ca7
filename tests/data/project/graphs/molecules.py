from torch import nn
from torch_geometric.nn import GCNConv, global_mean_pool


class GCN(nn.Module):
    def __init__(self, width=16, drop=0.3):
        super().__init__()
        self.first = GCNConv(7, width)
        self.drop = nn.Dropout(drop)
        self.second = GCNConv(width, width)
        self.bn = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x, edge_index, batch=None):
        x = self.first(x, edge_index).relu()
        x = self.bn(self.second(self.drop(x), edge_index)).relu()
        return self.head(global_mean_pool(x, batch))
