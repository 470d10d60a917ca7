# note: trunk.2: cannot move in source: a layer behind left.0 would move the index of the next one in checkpoints; give the layers names (an OrderedDict), or use `dropout_lint.fix(model, inputs)`
# note: the model imports dropout_lint from now on (Uout); --vendor-uout writes the class into your project
import torch
from dropout_lint import Uout
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Uout(0.3))
        self.left = nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))

    def forward(self, x):
        return self.left(self.trunk(x))
