# left: a milder rule than before speaks of it at its new place, and its module has no better one
import torch
import torch.nn as nn
import torch.nn.functional as F

example_inputs = (torch.randn(4, 8, 8, 8),)


class DenseLayer(nn.Module):
    def __init__(self, in_features, growth_rate, drop_rate):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_features)
        self.conv1 = nn.Conv2d(in_features, 4 * growth_rate, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth_rate)
        self.conv2 = nn.Conv2d(4 * growth_rate, growth_rate, kernel_size=3, padding=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, x):
        new_features = self.conv1(F.relu(self.norm1(x)))
        new_features = self.conv2(F.relu(self.norm2(new_features)))
        if self.drop_rate > 0:
            new_features = F.dropout(new_features, p=self.drop_rate, training=self.training)
        return torch.cat([x, new_features], 1)


class Net(nn.Module):
    def __init__(self, drop_rate=0.3):
        super().__init__()
        self.block1 = nn.Sequential(DenseLayer(8, 6, drop_rate), DenseLayer(14, 6, drop_rate))
        self.transition = nn.Sequential(nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 10, 1), nn.AvgPool2d(2))
        self.block2 = nn.Sequential(DenseLayer(10, 6, drop_rate), DenseLayer(16, 6, drop_rate))
        self.norm = nn.BatchNorm2d(22)
        self.classifier = nn.Linear(22, 4)

    def forward(self, x):
        x = self.norm(self.block2(self.transition(self.block1(x))))
        return self.classifier(F.relu(x).mean((2, 3)))
