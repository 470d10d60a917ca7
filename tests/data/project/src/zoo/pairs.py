import torch

from zoo.plain import Net


def build():
    return Net(), torch.randn(4, 3, 16, 16)


pair = (Net, torch.randn(2, 3, 12, 12))
