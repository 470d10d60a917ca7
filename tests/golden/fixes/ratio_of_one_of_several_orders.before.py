# target: Net(order="DCNA")
# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 16, 16),)


class Net(nn.Module):
    def __init__(self, p=0.3, order="CNDA", channels=16):
        super().__init__()
        layers = []
        if order == "CNDA":
            layers += [nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.Dropout(p), nn.ReLU()]
        elif order == "DCNA":
            layers += [nn.Dropout(p), nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, 4)

    def forward(self, x):
        x = self.features(x)
        return self.fc(x.mean((2, 3)))
