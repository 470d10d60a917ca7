# left: a milder rule than before speaks of it at its new place, and its module has no better one
import torch
from torch import nn

example_inputs = (torch.randn(4, 16, 24),)


class CNNBlock(nn.Module):
    def __init__(self, cin, cout, args):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, padding=1)
        self.dropout = nn.Dropout(p=args["dropout"])
        self.norm = nn.BatchNorm2d(cout)
        self.pool = nn.MaxPool2d(2)
        self.args = args

    def forward(self, x):
        x = self.conv(x)
        if self.args["drop_before_norm"]:
            x = self.dropout(x)
        x = self.norm(x)
        x = x.relu()
        x = self.pool(x)
        if not self.args["drop_before_norm"]:
            x = self.dropout(x)
        return x


class Net(nn.Module):
    """Attention weighs what the last block makes, and reads it too."""

    def __init__(self, dropout=0.3):
        super().__init__()
        args = {"dropout": dropout, "drop_before_norm": True}
        self.blocks = nn.Sequential(CNNBlock(1, 8, args), CNNBlock(8, 16, args))
        self.att = nn.Linear(16, 1)
        self.out = nn.Linear(16, 4)

    def forward(self, x):
        h = self.blocks(x.unsqueeze(1)).mean(2).transpose(1, 2)
        w = torch.softmax(self.att(h), dim=1)
        return self.out((w * h).sum(1))
