# left: a milder rule than before speaks of it at its new place; net.1 and net.5 have weight layers between them, and their place (after the last norm, before net.8) is for one dropout
# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
from typing import Optional, Sequence

import torch
from torch import nn

example_inputs = (torch.randn(16, 20),)


class Net(nn.Module):
    def __init__(self, hidden: Sequence[int] = (32, 16), dropout: Optional[float] = 0.3):
        super().__init__()
        layers = []
        prev = 20
        for h in hidden:
            layers.append(nn.Linear(prev, h))
            if dropout:
                layers.append(nn.Identity())
            layers.append(nn.BatchNorm1d(h))
            layers.append(nn.Sequential(nn.ReLU(), nn.Dropout(dropout or 0.0)))
            prev = h
        layers.append(nn.Linear(prev, 3))
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)
