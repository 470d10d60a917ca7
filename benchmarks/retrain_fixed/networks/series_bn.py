"""The transformer for series of Zerveas et al. (2021): dropout before each add, batch norm behind it."""

import torch
from torch import nn
from torch.nn import functional as F


class TransformerBatchNormEncoderLayer(nn.Module):
    def __init__(self, d_model, nhead, dim_feedforward, dropout):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d_model, nhead, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.BatchNorm1d(d_model, eps=1e-5)
        self.norm2 = nn.BatchNorm1d(d_model, eps=1e-5)
        self.dropout1 = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, src):
        src2 = self.self_attn(src, src, src, need_weights=False)[0]
        src = src + self.dropout1(src2)
        src = src.permute(0, 2, 1)
        src = self.norm1(src)
        src = src.permute(0, 2, 1)
        src2 = self.linear2(self.dropout(F.gelu(self.linear1(src))))
        src = src + self.dropout2(src2)
        src = src.permute(0, 2, 1)
        src = self.norm2(src)
        return src.permute(0, 2, 1)


class Series(nn.Module):
    def __init__(
        self, feat_dim=12, max_len=25, d_model=32, n_heads=4, num_layers=2, num_classes=9, dropout=0.1
    ):
        super().__init__()
        self.project_inp = nn.Linear(feat_dim, d_model)
        self.pos = nn.Parameter(torch.empty(1, max_len, d_model))
        nn.init.uniform_(self.pos, -0.02, 0.02)
        self.pos_dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            [TransformerBatchNormEncoderLayer(d_model, n_heads, 64, dropout) for _ in range(num_layers)]
        )
        self.dropout1 = nn.Dropout(dropout)
        self.output_layer = nn.Linear(d_model * max_len, num_classes)

    def forward(self, x):
        out = self.pos_dropout(self.project_inp(x) + self.pos)
        for layer in self.layers:
            out = layer(out)
        out = self.dropout1(F.gelu(out))
        return self.output_layer(out.reshape(out.shape[0], -1))
