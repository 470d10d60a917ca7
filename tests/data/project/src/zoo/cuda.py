import torch

from zoo.plain import Net


def build_model():
    return Net().to(torch.device("cuda"))
