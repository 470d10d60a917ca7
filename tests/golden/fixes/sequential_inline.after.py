# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.Identity(),
            nn.BatchNorm2d(8),
            nn.Sequential(nn.ReLU(), nn.Dropout(0.5)),  # regularise
            nn.Conv2d(8, 4, 3),
        )

    def forward(self, x):
        return self.net(x)
