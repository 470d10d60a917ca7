# strategy: remove
# note: `p` of Net is taken and does nothing any more
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.bn1, self.bn2, self.fc = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.Linear(8, 2)
        self.drop1, self.drop2 = nn.Dropout(p), nn.Dropout(p)

    def forward(self, x):
        x = F.relu(self.bn1(self.drop1(self.conv1(x))))
        x = F.relu(self.bn2(self.drop2(self.conv2(x))))
        return self.fc(x.mean((2, 3)))
