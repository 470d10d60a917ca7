# left: no other place in its module, and no ratio of at least half of today's, answers DL102
import torch
import torch.nn.functional as F
from torch import nn

example_inputs = (torch.randn(8, 16, 4, 4),)


class Net(nn.Module):
    """What a face is compared by comes out of the last norm: no dropout belongs there."""

    def __init__(self, drop_ratio=0.6):
        super().__init__()
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(16),
            nn.Dropout(drop_ratio),
            nn.Flatten(),
            nn.Linear(16 * 4 * 4, 64),
            nn.BatchNorm1d(64),
        )

    def forward(self, x):
        return F.normalize(self.output_layer(x))
