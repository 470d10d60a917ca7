# note: blocks.5.drop: mul no longer sees its noise
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Down(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        self.down = nn.Conv2d(3, 3, 1)
        self.bn1 = nn.BatchNorm2d(3)
        self.drop = nn.Dropout2d(p) if p else None
        self.conv, self.bn2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)


class Choice(Down):
    def forward(self, x):
        down = F.relu(self.bn1(self.down(x)))
        if self.drop is not None:
            out = self.drop(down)
        else:
            out = down
        out = self.bn2(self.conv(out))
        return F.relu(torch.add(out, down))


class TurnedRound(Down):
    def forward(self, x):
        down = F.relu(self.bn1(self.down(x)))
        if self.drop is None:
            out = down
        else:
            out = self.drop(down)
        out = self.bn2(self.conv(out))
        return F.relu(torch.add(out, down))


class Default(Down):
    def forward(self, x):
        down = F.relu(self.bn1(self.down(x)))
        out = down
        if self.drop is not None:
            out = self.drop(down)
        out = self.bn2(self.conv(out))
        return F.relu(torch.add(out, down))


class OneLine(Down):
    def forward(self, x):
        down = F.relu(self.bn1(self.down(x)))
        out = self.drop(down) if self.drop is not None else down
        out = self.bn2(self.conv(out))
        return F.relu(torch.add(out, down))


class Nested(Down):
    def forward(self, x):
        down = F.relu(self.bn1(self.down(x)))
        if self.drop is not None:  # as published
            out = self.conv(self.drop(down))
        else:
            out = self.conv(down)
        out = self.bn2(out)
        return F.relu(torch.add(out, down))


class ReadTwice(Down):
    def forward(self, x):
        down = F.relu(self.bn1(self.down(x)))
        if self.drop is not None:
            out = self.drop(down)
        else:
            out = down
        out = self.bn2(self.conv(out)) + 0 * out
        return F.relu(torch.add(out, down))


class NotAlike(Down):
    def forward(self, x):
        down = F.relu(self.bn1(self.down(x)))
        out = torch.zeros_like(down)
        if self.drop is not None:
            out = self.drop(down)
        out = self.bn2(self.conv(out))
        return F.relu(torch.add(out, down))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Choice(), TurnedRound(), Default(), OneLine(), Nested(), ReadTwice(), NotAlike()])
        self.fc = nn.Linear(21, 2)

    def forward(self, x):
        return self.fc(torch.cat([block(x) for block in self.blocks], 1).mean((2, 3)))
