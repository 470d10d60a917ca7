# left: a milder rule than before speaks of it at its new place; features.1, features.5, features.10 and features.15 have weight layers between them, and their place (H4, before mean) is for one dropout
# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 16, 16),)


class Net(nn.Module):
    def __init__(self, p=0.3, cfg=(8, 8, "M", 16, "M", 16)):
        super().__init__()
        self.features = self._make_layers(cfg, p)
        self.fc = nn.Linear(16, 4)

    def _make_layers(self, cfg, p):
        layers = []
        in_channels = 3
        for v in cfg:
            if v == "M":
                layers += [nn.MaxPool2d(2, 2)]
                continue
            layers += [nn.Conv2d(in_channels, v, 3, padding=1), nn.Identity(), nn.BatchNorm2d(v), nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(p))]
            in_channels = v
        return nn.Sequential(*layers)

    def forward(self, x):
        x = self.features(x)
        return self.fc(x.mean((2, 3)))
