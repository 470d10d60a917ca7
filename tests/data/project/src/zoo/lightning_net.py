import lightning
import torch
from torch import nn


class LitNet(lightning.LightningModule):
    def __init__(self, width=8):
        super().__init__()
        self.example_input_array = torch.randn(4, 12)
        self.body = nn.Sequential(nn.Linear(12, width), nn.Dropout(0.4), nn.BatchNorm1d(width))

    def forward(self, x):
        return self.body(x)

    def training_step(self, batch, index):
        return self(batch).square().mean()
