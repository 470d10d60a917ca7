"""A small CREPE (Kim et al. 2018): convolution over a waveform, ReLU, batch norm, max-pool, dropout."""

import torch.nn.functional as F
from torch import nn


class ConvBlock(nn.Module):
    def __init__(self, in_channels, out_channels, width, stride, dropout):
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, width, stride, padding=width // 2)
        self.bn = nn.BatchNorm1d(out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = F.max_pool1d(self.bn(F.relu(self.conv(x))), 2)
        return self.dropout(x)


class Crepe(nn.Module):
    def __init__(self, dropout=0.25, classes=12):
        super().__init__()
        self.block1 = ConvBlock(1, 64, 33, 2, dropout)
        self.block2 = ConvBlock(64, 32, 9, 1, dropout)
        self.block3 = ConvBlock(32, 32, 9, 1, dropout)
        self.block4 = ConvBlock(32, 64, 9, 1, dropout)
        self.classifier = nn.Linear(64 * 8, classes)

    def forward(self, x):
        x = self.block4(self.block3(self.block2(self.block1(x))))
        return self.classifier(x.flatten(1))
