# left: the order of the layers is not written where they are made
import torch
import torch.nn as nn

CFG = """
backbone:
  - [conv, 16, 3]
  - [drop, 0.3]
  - [bn]
  - [relu]
  - [pool]
  - [conv, 32, 3]
  - [drop, 0.3]
  - [bn]
  - [relu]
"""


def parse(text):
    rows = [line.strip(" -[]") for line in text.splitlines() if line.strip().startswith("-")]
    c, layers = 3, []
    for row in rows:
        kind, *args = [item.strip() for item in row.split(",")]
        if kind == "conv":
            m = nn.Conv2d(c, int(args[0]), int(args[1]), padding=1)
            c = int(args[0])
        elif kind == "drop":
            m = nn.Dropout(float(args[0]))
        elif kind == "bn":
            m = nn.BatchNorm2d(c)
        elif kind == "relu":
            m = nn.ReLU()
        else:
            m = nn.MaxPool2d(2)
        layers.append(m)
    return nn.Sequential(*layers), c


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.model, c = parse(CFG)
        self.fc = nn.Linear(c, 4)

    def forward(self, x):
        return self.fc(self.model(x).mean((2, 3)))


example_inputs = (torch.randn(4, 3, 16, 16),)
