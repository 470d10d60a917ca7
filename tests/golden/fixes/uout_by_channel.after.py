# strategy: uout
# beta: 0.3
# note: the model imports dropout_lint from now on (Uout); --vendor-uout writes the class into your project
import torch
from dropout_lint import Uout
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.drop = Uout(0.3, channelwise=True)
        self.conv2 = nn.Conv2d(8, 4, 3)

    def forward(self, x):
        return self.conv2(torch.relu(self.bn(self.drop(self.conv1(x)))))


class Net(Base):
    pass
