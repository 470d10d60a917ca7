"""VGG with batch norm (Simonyan and Zisserman 2015), as it is written for CIFAR.

Dropout stands between the convolutions of a stage, and around the norm of the classifier.
"""

from torch import nn


class ConvBNReLU(nn.Sequential):
    def __init__(self, in_planes, out_planes):
        super().__init__(
            nn.Conv2d(in_planes, out_planes, 3, padding=1), nn.BatchNorm2d(out_planes), nn.ReLU(inplace=True)
        )


class VGG(nn.Module):
    def __init__(self, dropout=0.4, num_classes=10):
        super().__init__()
        self.features = nn.Sequential(
            ConvBNReLU(1, 16),
            nn.Dropout(dropout),
            ConvBNReLU(16, 16),
            nn.MaxPool2d(2),
            ConvBNReLU(16, 32),
            nn.Dropout(dropout),
            ConvBNReLU(32, 32),
            nn.MaxPool2d(2),
            ConvBNReLU(32, 48),
            nn.Dropout(dropout),
            ConvBNReLU(48, 48),
            nn.Dropout(dropout),
            ConvBNReLU(48, 48),
            nn.AdaptiveMaxPool2d(1),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(48, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(64, num_classes),
        )

    def forward(self, x):
        x = self.features(x)
        x = x.view(x.size(0), -1)
        return self.classifier(x)
