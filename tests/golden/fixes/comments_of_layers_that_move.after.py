# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
# left: a milder rule than before speaks of it at its new place; features.1 and named.drop have weight layers between them, and their place (H4, before mean) is for one dropout
from collections import OrderedDict

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, drop=0.3):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),  # stem
            nn.Identity(),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Dropout(drop),  # see the paper, Sec. 3
        )
        self.named = nn.Sequential(
            OrderedDict(
                [
                    ("conv", nn.Conv2d(16, 16, 3, padding=1)),
                    ("norm", nn.BatchNorm2d(16)),
                    ("act", nn.ReLU()),
                    ("drop", nn.Dropout(drop)),
                ]
            )
        )
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        return self.fc(self.named(self.features(x)).mean((2, 3)))


example_inputs = (torch.randn(4, 3, 12, 12),)
