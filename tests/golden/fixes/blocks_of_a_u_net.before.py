# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
# left: a milder rule than before speaks of it at its new place, and its module has no better one
# left: a milder rule than before speaks of it at its new place; dconv_down2.1 and dconv_down2.5 have weight layers between them, and their place (the end of the branch, before cat) is for one dropout
# left: a milder rule than before speaks of it at its new place; dconv_up1.1 and dconv_up1.5 have weight layers between them, and their place (after the last norm, before conv_last) is for one dropout
import torch
import torch.nn as nn


def double_conv(in_channels, out_channels, dropout=0.2):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        nn.Dropout2d(dropout),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
        nn.Dropout2d(dropout),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Net(nn.Module):
    def __init__(self, n_class=2):
        super().__init__()
        self.dconv_down1 = double_conv(3, 8)
        self.dconv_down2 = double_conv(8, 16)
        self.maxpool = nn.MaxPool2d(2)
        self.upsample = nn.Upsample(scale_factor=2, mode='bilinear', align_corners=True)
        self.dconv_up1 = double_conv(8 + 16, 8)
        self.conv_last = nn.Conv2d(8, n_class, 1)

    def forward(self, x):
        conv1 = self.dconv_down1(x)
        x = self.maxpool(conv1)
        x = self.dconv_down2(x)
        x = self.upsample(x)
        x = torch.cat([x, conv1], dim=1)
        x = self.dconv_up1(x)
        return self.conv_last(x)


example_inputs = (torch.randn(2, 3, 16, 16),)
