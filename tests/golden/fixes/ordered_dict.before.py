from collections import OrderedDict

import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            OrderedDict(
                [
                    ("conv1", nn.Conv2d(3, 8, 3)),
                    ("drop", nn.Dropout(0.5)),
                    ("bn", nn.BatchNorm2d(8)),
                    ("relu", nn.ReLU()),
                    ("conv2", nn.Conv2d(8, 4, 3)),
                ]
            )
        )

    def forward(self, x):
        return self.net(x)
