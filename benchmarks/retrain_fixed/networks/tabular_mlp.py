"""A wide perceptron for tables, as it is mostly written: linear, batch norm, ReLU, dropout."""

from torch import nn


class MLP(nn.Module):
    def __init__(self, in_features=30, hidden=(512, 256, 128), out_features=2, dropout=0.3):
        super().__init__()
        layers = []
        for units in hidden:
            layers.append(nn.Linear(in_features, units))
            layers.append(nn.BatchNorm1d(units))
            layers.append(nn.ReLU())
            layers.append(nn.Dropout(dropout))
            in_features = units
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.out(self.layers(x))
