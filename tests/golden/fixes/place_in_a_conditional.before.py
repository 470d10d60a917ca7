import torch
from torch import nn

example_inputs = (torch.randn(8, 12),)


class HeadMixin:
    def init_head(self, dim, num_classes, drop_rate):
        self.head_fc = nn.Linear(dim, dim)
        self.head_drop = nn.Dropout(drop_rate)
        self.head_bn = nn.BatchNorm1d(dim)
        self.fc = nn.Linear(dim, num_classes)

    def forward_head(self, x, pre_logits: bool = False):
        x = self.head_bn(self.head_drop(self.head_fc(x))).relu()
        return x if pre_logits else self.fc(x)


class Net(HeadMixin, nn.Module):
    def __init__(self):
        super().__init__()
        self.init_head(12, 4, 0.3)

    def forward(self, x):
        return self.forward_head(x)
