"""A MobileNet (Howard et al. 2017) with dropout between depthwise and pointwise convolutions."""

from torch import nn


def conv_bn(inp, oup, stride):
    return nn.Sequential(
        nn.Conv2d(inp, oup, 3, stride, 1, bias=False), nn.BatchNorm2d(oup), nn.ReLU(inplace=True)
    )


def conv_dw(inp, oup, stride, dropout):
    return nn.Sequential(
        nn.Conv2d(inp, inp, 3, stride, 1, groups=inp, bias=False),
        nn.BatchNorm2d(inp),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(inp, oup, 1, 1, 0, bias=False),
        nn.BatchNorm2d(oup),
        nn.ReLU(inplace=True),
    )


class MobileNet(nn.Module):
    def __init__(self, dropout=0.2, n_class=10):
        super().__init__()
        self.model = nn.Sequential(
            conv_bn(1, 16, 1),
            conv_dw(16, 32, 2, dropout),
            conv_dw(32, 32, 1, dropout),
            conv_dw(32, 64, 2, dropout),
            conv_dw(64, 64, 1, dropout),
            conv_dw(64, 64, 1, dropout),
            nn.AdaptiveAvgPool2d(1),
        )
        self.fc = nn.Linear(64, n_class)

    def forward(self, x):
        x = self.model(x)
        x = x.view(x.size(0), -1)
        return self.fc(x)
