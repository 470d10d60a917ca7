import torch

from zoo.plain import Net

model = Net()
for _ in range(2):
    model(torch.randn(4, 3, 8, 8)).square().mean().backward()
