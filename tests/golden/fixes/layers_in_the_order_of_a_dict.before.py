# left: one line runs it and its new place, in an order that is made elsewhere
import torch
from torch import nn


class Net(nn.Module):
    """Layers in a ModuleDict, run in a loop by name; two heads."""

    def __init__(self, width: int = 32, p: float = 0.4):
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                "fc1": nn.Linear(10, width),
                "drop1": nn.Dropout(p),
                "bn1": nn.BatchNorm1d(width),
                "act1": nn.ReLU(),
                "fc2": nn.Linear(width, width),
                "drop2": nn.Dropout(p),
                "bn2": nn.BatchNorm1d(width),
                "act2": nn.ReLU(),
            }
        )
        self.heads = nn.ModuleDict({"a": nn.Linear(width, 2), "b": nn.Linear(width, 3)})

    def forward(self, x):
        for layer in self.layers.values():
            x = layer(x)
        return {name: head(x) for name, head in self.heads.items()}


example_inputs = (torch.randn(32, 10),)
