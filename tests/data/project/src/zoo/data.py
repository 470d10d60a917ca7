import torch


def batches(size=16, amount=4):
    return [(torch.randn(size, 3, 16, 16), torch.randint(10, (size,))) for _ in range(amount)]
