"""A project with models for tests of the command line, and ways to run it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType
from typing import IO
from unittest.mock import patch

from dropout_lint.cli import run

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


@contextlib.contextmanager
def own_modules(folder: Path) -> Iterator[None]:
    """What is imported from a folder meanwhile is not found afterwards, under the same name."""
    path, known = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        sys.path[:] = path
        forget(folder, sys.modules.keys() - known)


def forget(folder: Path, names: Collection[str]) -> None:
    """Drop the modules of these names that lie in a folder."""
    for name in [name for name in names if _lies_in(sys.modules[name], str(folder))]:
        del sys.modules[name]


def _lies_in(module: ModuleType, folder: str) -> bool:
    """Whether a module is a file below a folder, or a folder there, which may have no file."""
    inside = vars(module)
    try:
        places = [inside.get("__file__"), *(inside.get("__path__") or ())]
    except KeyError:  # a folder's path is asked of the module that holds it, and that is gone
        return True
    return any(str(place).startswith(folder) for place in places)


@contextlib.contextmanager
def captured(number: int) -> Iterator[IO[str]]:
    """A file that takes what goes to stdout (1) or stderr (2), also from processes that are started."""
    redirect = (contextlib.redirect_stdout, contextlib.redirect_stderr)[number - 1]
    before = os.dup(number)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        os.dup2(file.fileno(), number)
        try:
            with redirect(file):
                yield file
        finally:
            file.flush()
            os.dup2(before, number)
            os.close(before)


def run_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `cli` gives, in this process, which has torch loaded: for what is no matter of the process."""
    forget(folder, sys.modules)
    with captured(1) as out, captured(2) as err:
        with contextlib.chdir(folder), own_modules(folder), patch.object(sys, "dont_write_bytecode", True):
            status = run(arguments)
        texts = [file.seek(0) or file.read() for file in (out, err)]
    return subprocess.CompletedProcess(arguments, status, *texts)


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
