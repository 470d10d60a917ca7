# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
# left: a milder rule than before speaks of it at its new place; mlp.1 and mlp.5 have weight layers between them, and their place (after the last norm, before mlp.8) is for one dropout
import torch
from torch import nn


class Net(nn.Module):
    """MLP built in a loop with optional norm and dropout, the commonest of all."""

    def __init__(self, input_dim=10, hidden_dims=(32, 16), output_dim=2, dropout=0.2, batch_norm=True):
        super().__init__()
        layers = []
        prev = input_dim
        for h in hidden_dims:
            layers.append(nn.Linear(prev, h))
            if dropout:
                layers.append(nn.Dropout(dropout))
            if batch_norm:
                layers.append(nn.BatchNorm1d(h))
            layers.append(nn.ReLU())
            prev = h
        layers.append(nn.Linear(prev, output_dim))
        self.mlp = nn.Sequential(*layers)

    def forward(self, x):
        return self.mlp(x)


example_inputs = (torch.randn(32, 10),)
