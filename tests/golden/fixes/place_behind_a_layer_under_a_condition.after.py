# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
import torch
from torch import nn

example_inputs = (torch.randn(8, 3, 8, 8),)


class ClassBlock(nn.Module):
    def __init__(self, input_dim, class_num, droprate, relu=False, bnorm=True, linear=16, return_f=False):
        super().__init__()
        self.return_f = return_f
        add_block = []
        if droprate > 0:
            add_block += [nn.Identity()]
        add_block += [nn.Linear(input_dim, linear)]
        if bnorm:
            add_block += [nn.BatchNorm1d(linear)]
        if droprate > 0:
            add_block += [nn.Dropout(p=droprate)]
        if relu:
            add_block += [nn.LeakyReLU(0.1)]
        self.add_block = nn.Sequential(*add_block)
        self.classifier = nn.Linear(linear, class_num)

    def forward(self, x):
        x = self.add_block(x)
        if self.return_f:
            f = x
            x = self.classifier(x)
            return [x, f]
        x = self.classifier(x)
        return x


class Net(nn.Module):
    def __init__(self, droprate=0.5):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU())
        self.classifier = ClassBlock(32, 4, droprate)

    def forward(self, x):
        return self.classifier(self.backbone(x).mean((2, 3)))
