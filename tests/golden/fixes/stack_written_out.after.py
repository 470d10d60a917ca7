# left: a milder rule than before speaks of it at its new place; drop1, drop2 and drop3 have weight layers between them, and their place (H4, before mean) is for one dropout
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 16, 16),)


class Net(nn.Module):
    def __init__(self, p=0.2):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.drop1 = nn.Dropout2d(p)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(32)
        self.drop2 = nn.Dropout2d(p)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(32)
        self.drop3 = nn.Dropout2d(p)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        # one step a line
        x = self.conv1(x)
        x = self.bn1(x)
        x = F.relu(x)
        x = self.drop1(x)  # before the norm
        x = F.max_pool2d(x, 2)
        # all in one
        x = F.max_pool2d(self.drop2(F.relu(self.bn2(self.conv2(x)))), 2)
        x = F.relu(self.bn3(self.conv3(x)))
        return self.fc(self.drop3(x).mean((2, 3)))
