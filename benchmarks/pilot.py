"""The net and the loader of the README's pilot, scikit-learn's digits.

dropout-lint measure benchmarks.pilot:Net --data benchmarks.pilot:digits --pilot 300 --compare-fixed
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """Dropout directly before one norm, and before a convolution and another norm."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.drop1 = nn.Dropout(p)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.drop2 = nn.Dropout(p)
        self.conv3 = nn.Conv2d(16, 32, 3, padding=1, stride=2)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.drop1(self.conv1(x))).relu()
        x = self.drop2(self.conv2(x)).relu()
        out: Tensor = self.fc(self.bn2(self.conv3(x)).relu().mean((2, 3)))
        return out


def digits(size: int = 64) -> DataLoader[tuple[Tensor, ...]]:
    """1,797 images of 8x8 with their labels, in batches, in one random order."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    order = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(images, labels), size, shuffle=True, generator=order)
