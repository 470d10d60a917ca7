"""Wide ResNet (Zagoruyko and Komodakis 2016) in the copy that went round: dropout before `bn2`."""

import torch.nn.functional as F
from torch import nn


class WideBasic(nn.Module):
    def __init__(self, in_planes, planes, dropout_rate, stride=1):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = nn.Conv2d(in_planes, planes, kernel_size=3, padding=1, bias=True)
        self.dropout = nn.Dropout(p=dropout_rate)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=stride, padding=1, bias=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_planes, planes, kernel_size=1, stride=stride, bias=True)
            )

    def forward(self, x):
        out = self.dropout(self.conv1(F.relu(self.bn1(x))))
        out = self.conv2(F.relu(self.bn2(out)))
        out += self.shortcut(x)
        return out


class WideResNet(nn.Module):
    def __init__(self, depth=16, widen_factor=1, dropout_rate=0.3, num_classes=10):
        super().__init__()
        self.in_planes = 8
        n = (depth - 4) // 6
        stages = [8 * widen_factor, 16 * widen_factor, 32 * widen_factor]
        self.conv1 = nn.Conv2d(1, self.in_planes, kernel_size=3, padding=1, bias=True)
        self.layer1 = self._wide_layer(WideBasic, stages[0], n, dropout_rate, stride=1)
        self.layer2 = self._wide_layer(WideBasic, stages[1], n, dropout_rate, stride=2)
        self.layer3 = self._wide_layer(WideBasic, stages[2], n, dropout_rate, stride=2)
        self.bn1 = nn.BatchNorm2d(stages[2])
        self.linear = nn.Linear(stages[2], num_classes)

    def _wide_layer(self, block, planes, num_blocks, dropout_rate, stride):
        strides = [stride] + [1] * (num_blocks - 1)
        layers = []
        for stride in strides:
            layers.append(block(self.in_planes, planes, dropout_rate, stride))
            self.in_planes = planes
        return nn.Sequential(*layers)

    def forward(self, x):
        out = self.conv1(x)
        out = self.layer1(out)
        out = self.layer2(out)
        out = self.layer3(out)
        out = F.relu(self.bn1(out))
        out = F.avg_pool2d(out, out.shape[-1])
        out = out.view(out.size(0), -1)
        return self.linear(out)
