# left: a milder rule than before speaks of it at its new place; its calls have weight layers between them, and their place (after the last norm, before convs.2.lin) is for one dropout
import torch
import torch.nn as nn
import torch.nn.functional as F

example_inputs = (torch.randn(20, 12), torch.eye(20))


class GraphConv(nn.Module):
    def __init__(self, in_feats, out_feats):
        super().__init__()
        self.lin = nn.Linear(in_feats, out_feats, bias=False)

    def forward(self, x, adj):
        return torch.matmul(adj, self.lin(x))


class Net(nn.Module):
    """The last layer runs the class's line without a dropout before it."""

    def __init__(self, dropout=0.5):
        super().__init__()
        self.convs = nn.ModuleList([GraphConv(12, 32), GraphConv(32, 32), GraphConv(32, 5)])
        self.bns = nn.ModuleList([nn.BatchNorm1d(32), nn.BatchNorm1d(32)])
        self.dropout = dropout

    def forward(self, x, adj):
        for i, conv in enumerate(self.convs[:-1]):
            x = conv(x, adj)
            x = F.dropout(x, p=self.dropout, training=self.training)
            x = self.bns[i](x)
            x = F.relu(x)
        x = self.convs[-1](x, adj)
        return x.log_softmax(dim=-1)
