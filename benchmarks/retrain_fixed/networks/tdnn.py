"""x-vectors (Snyder et al. 2018) in the PyTorch copies: convolution over time, ReLU, dropout, batch norm."""

import torch
from torch import nn


class TDNN(nn.Module):
    def __init__(self, input_dim, output_dim, context_size, dilation=1, dropout_p=0.2):
        super().__init__()
        self.kernel = nn.Conv1d(input_dim, output_dim, context_size, dilation=dilation)
        self.nonlinearity = nn.ReLU()
        self.drop = nn.Dropout(p=dropout_p)
        self.bn = nn.BatchNorm1d(output_dim)

    def forward(self, x):
        x = self.kernel(x)
        x = self.nonlinearity(x)
        x = self.drop(x)
        x = self.bn(x)
        return x


class XVector(nn.Module):
    def __init__(self, input_dim=12, num_speakers=9, dropout_p=0.2):
        super().__init__()
        self.frame1 = TDNN(input_dim, 64, 5, dropout_p=dropout_p)
        self.frame2 = TDNN(64, 64, 3, dilation=2, dropout_p=dropout_p)
        self.frame3 = TDNN(64, 64, 3, dilation=3, dropout_p=dropout_p)
        self.frame4 = TDNN(64, 64, 1, dropout_p=dropout_p)
        self.frame5 = TDNN(64, 96, 1, dropout_p=dropout_p)
        self.segment6 = nn.Linear(192, 64)
        self.bn6 = nn.BatchNorm1d(64)
        self.segment7 = nn.Linear(64, 64)
        self.bn7 = nn.BatchNorm1d(64)
        self.output = nn.Linear(64, num_speakers)

    def forward(self, x):
        x = self.frame1(x)
        x = self.frame2(x)
        x = self.frame3(x)
        x = self.frame4(x)
        x = self.frame5(x)
        stats = torch.cat((x.mean(dim=2), x.std(dim=2)), dim=1)
        x = self.bn6(torch.relu(self.segment6(stats)))
        x = self.bn7(torch.relu(self.segment7(x)))
        return self.output(x)
