# strategy: move
# left: one line makes blocks.0.3, blocks.1.3 and blocks.2.3, and only blocks.0.3 and blocks.1.3 are wrong
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


def block(channels_in, channels):
    conv = nn.Conv2d(channels_in, channels, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.4))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(block(3, 8), block(8, 8), block(8, 8))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.blocks(x).mean((2, 3)))
