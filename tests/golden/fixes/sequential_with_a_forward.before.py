# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Down(nn.Sequential):
    def __init__(self, channels_in, channels, p):
        super().__init__(
            nn.Conv2d(channels_in, channels, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(p),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return super().forward(x)


class Net(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.down, self.fc = Down(3, 8, p), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.down(x).mean((2, 3)))
