"""The same model gives the same report, byte for byte: in one process or two, in any order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NETS = '''
import random
import numpy as np
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.drop, self.bn = nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)

class Plain(Base):
    def forward(self, x):
        return self.bn(self.drop(self.fc(x)))

class Shaken(Base):
    def forward(self, x):
        a = torch.rand(x.shape[0], 1) if self.training else 0.5
        return self.bn(a * self.fc(x) + (1 - a) * self.drop(x))

class ByChance(Base):
    def forward(self, x):
        if self.training and random.random() < 0.3:
            return x
        return self.bn(self.drop(self.fc(x)) + float(np.random.rand()) * x)

class Sampled(Base):
    """An operation without a rule, and several causes."""
    def __init__(self):
        super().__init__()
        self.twice = nn.ModuleList(nn.Dropout(0.1 * i) for i in (1, 2, 3))
        self.tail = nn.BatchNorm1d(8)
    def forward(self, x):
        some = [drop(self.fc(x)).kthvalue(3, dim=1, keepdim=True).values for drop in self.twice]
        h = torch.cat(some * 3, 1)
        return self.tail(self.bn(self.drop(h[:, :8])) + torch.randn_like(x) * self.fc(x).exp())
'''
TARGETS = [f"nets.py:{name}" for name in ("Plain", "Shaken", "ByChance", "Sampled")]


def run(folder: Path, *arguments: str, seed: str) -> str:
    """What a process of its own prints; `seed` is that of its hashes, and so the order of its sets."""
    command = [sys.executable, "-m", "dropout_lint", *arguments, "--input", "16x8", "--no-cache", "--fixes"]
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


@pytest.mark.slow
def test_two_processes_say_the_same_in_any_order_and_every_format(folder: Path) -> None:
    forms = ("json", "sarif", "html")

    def said(targets: list[str], seed: str) -> list[str]:
        files = [f"--output-format={form}=report.{form}" for form in forms]
        text = run(folder, *targets, "--output-format=text", *files, seed=seed)
        return [text, *((folder / f"report.{form}").read_text() for form in forms)]

    def of_each(text: str) -> dict[str, str]:
        return {target["target"]: json.dumps(target) for target in json.loads(text)["targets"]}

    first = said(TARGETS, "1")
    assert all(first) and said(TARGETS, "2") == first
    turned = of_each(said(TARGETS[::-1], "3")[1])
    assert turned == of_each(first[1]) and len(turned) == len(TARGETS)


@pytest.mark.slow
def test_a_model_twice_in_one_process(folder: Path) -> None:
    script = """
import sys
sys.path.insert(0, ".")
import torch, nets
import dropout_lint as dl
for _ in range(2):
    for name in ("Shaken", "ByChance", "Sampled", "Plain"):
        torch.manual_seed(0)
        print(name, dl.lint(getattr(nets, name)(), torch.ones(16, 8)).to_json().replace(chr(10), " "))
"""
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 8 and lines[:4] == lines[4:]
