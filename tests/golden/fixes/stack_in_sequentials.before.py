# left: a milder rule than before speaks of it at its new place; features.0.2, features.1.2 and features.2.2 have weight layers between them, and their place (H4, before mean) is for one dropout
# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


def conv_block(channels_in, channels, p):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(p),
        nn.BatchNorm2d(channels),
    )


class Net(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        self.features = nn.Sequential(conv_block(3, 16, p), conv_block(16, 16, p), conv_block(16, 16, p))
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))
