from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.line = nn.Linear(5, 8)
        self.drop = nn.Dropout(0.3)
        self.bn = nn.BatchNorm1d(8)

    def forward(self, batch):
        tokens = self.embed(batch["text"]["tokens"]).mean(1)
        return self.bn(self.drop(tokens + self.line(batch["features"])))
