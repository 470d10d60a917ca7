# left: a milder rule than before speaks of it at its new place, and its module has no better one
import torch
from torch import nn

example_inputs = (torch.randn(4, 1, 16, 16),)


class ConvDropoutNorm(nn.Module):
    def __init__(self, in_ch, out_ch, dropout_p):
        super().__init__()
        self.conv = nn.Conv2d(in_ch, out_ch, 3, padding=1)
        self.dropout = nn.Dropout2d(dropout_p) if dropout_p else None
        self.norm = nn.BatchNorm2d(out_ch)
        self.lrelu = nn.LeakyReLU(inplace=True)

    def forward(self, x):
        x = self.conv(x)
        x = self.lrelu(self.norm(x))
        if self.dropout is not None:
            x = self.dropout(x)
        return x


class Net(nn.Module):
    def __init__(self, base=8, dropout_p=0.2):
        super().__init__()
        self.enc1 = nn.Sequential(ConvDropoutNorm(1, base, dropout_p), ConvDropoutNorm(base, base, dropout_p))
        self.enc2 = ConvDropoutNorm(base, base * 2, dropout_p)
        self.up = nn.ConvTranspose2d(base * 2, base, 2, 2)
        self.dec1 = ConvDropoutNorm(base * 2, base, dropout_p)
        self.pool = nn.MaxPool2d(2)
        self.seg = nn.Conv2d(base, 3, 1)

    def forward(self, x):
        s1 = self.enc1(x)
        x = self.enc2(self.pool(s1))
        x = self.dec1(torch.cat((self.up(x), s1), dim=1))
        return self.seg(x)
