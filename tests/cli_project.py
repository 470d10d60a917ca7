"""A project with models for tests of the command line, and ways to run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

MODEL = """\
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width, p):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.drop = nn.Dropout(p)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(self.bn(self.drop(self.conv1(x))))


class Bad(nn.Module):
    def __init__(self, p=0.5, depth=2):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(8, p) for _ in range(depth)))
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class Good(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.drop(torch.relu(self.bn(self.conv(x)))).mean((2, 3)))


def loud():
    print("building")
    return Good()


def broken():
    raise ValueError("no weights here")


def interrupted():
    raise KeyboardInterrupt
"""


def edit(file: Path, text: str) -> None:
    """Write `file`, and let the next run in this process import it anew, as a new process would."""
    file.write_text(text)
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == str(file):
            del sys.modules[name]


INPUT = ("--input", "2x3x8x8")


def table(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.dropout-lint]\n{text}\n")


def cli(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", "from dropout_lint.cli import main; main()", *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
