"""DenseNet-BC (Huang et al. 2017) with dropout behind every convolution, as in the authors' Lua code."""

import torch
import torch.nn.functional as F
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, in_planes, growth_rate, drop_rate=0.0):
        super().__init__()
        inter_planes = growth_rate * 4
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_planes, inter_planes, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inter_planes)
        self.conv2 = nn.Conv2d(inter_planes, growth_rate, kernel_size=3, padding=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, x):
        out = self.conv1(self.relu(self.bn1(x)))
        if self.drop_rate > 0:
            out = F.dropout(out, p=self.drop_rate, training=self.training)
        out = self.conv2(self.relu(self.bn2(out)))
        if self.drop_rate > 0:
            out = F.dropout(out, p=self.drop_rate, training=self.training)
        return torch.cat([x, out], 1)


class Transition(nn.Module):
    def __init__(self, in_planes, out_planes, drop_rate=0.0):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_planes, out_planes, kernel_size=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, x):
        out = self.conv1(self.relu(self.bn1(x)))
        if self.drop_rate > 0:
            out = F.dropout(out, p=self.drop_rate, training=self.training)
        return F.avg_pool2d(out, 2)


class DenseNet(nn.Module):
    def __init__(self, layers=3, growth_rate=6, reduction=0.5, drop_rate=0.2, num_classes=10):
        super().__init__()
        in_planes = 2 * growth_rate
        self.conv1 = nn.Conv2d(1, in_planes, kernel_size=3, padding=1, bias=False)
        self.block1 = self._make_block(layers, in_planes, growth_rate, drop_rate)
        in_planes = in_planes + layers * growth_rate
        self.trans1 = Transition(in_planes, int(in_planes * reduction), drop_rate)
        in_planes = int(in_planes * reduction)
        self.block2 = self._make_block(layers, in_planes, growth_rate, drop_rate)
        in_planes = in_planes + layers * growth_rate
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(in_planes, num_classes)

    def _make_block(self, layers, in_planes, growth_rate, drop_rate):
        return nn.Sequential(
            *[Bottleneck(in_planes + i * growth_rate, growth_rate, drop_rate) for i in range(layers)]
        )

    def forward(self, x):
        out = self.conv1(x)
        out = self.trans1(self.block1(out))
        out = self.block2(out)
        out = self.relu(self.bn1(out))
        out = F.adaptive_avg_pool2d(out, 1).flatten(1)
        return self.fc(out)
