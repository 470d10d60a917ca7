# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        layers = [nn.Conv2d(3, 8, 3), nn.Identity(), nn.BatchNorm2d(8), nn.Sequential(nn.ReLU(), nn.Dropout(p)), nn.Conv2d(8, 4, 3)]
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)
