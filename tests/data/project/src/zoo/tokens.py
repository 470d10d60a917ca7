from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 16)
        self.drop = nn.Dropout(0.2)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 2)

    def forward(self, ids, mask=None):
        x = self.norm(self.drop(self.embed(ids)))
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        return self.head(x.mean(1))
