"""From a file or a Python object to the program that it holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import fx, nn

from dropout_lint.deployed.exported import is_aten_graph, read_graph
from dropout_lint.deployed.onnx import read_onnx
from dropout_lint.deployed.program import Program
from dropout_lint.deployed.script import read_saved_script, read_script
from dropout_lint.errors import TargetError


def is_program(model: nn.Module) -> bool:
    """Whether a module is a scripted or traced one, or a graph of ATen operations, without layers."""
    return isinstance(model, torch.jit.ScriptModule) or is_aten_graph(model)


def read_program(model: nn.Module) -> Program:
    """What such a module says; of a scripted one what holds after `.eval()`, of a graph what it is now."""
    if isinstance(model, torch.jit.ScriptModule):
        return read_script(model)
    assert isinstance(model, fx.GraphModule)
    return read_graph(model)


def read_file(path: Path) -> Program:
    """The program in a file, its kind by the suffix.

    Raises:
        TargetError: it cannot be read as what its suffix says, or onnx is not installed.
    """
    read, what = _READERS[path.suffix]
    try:
        with path.open("rb") as stream:
            return read(stream)
    except ModuleNotFoundError as error:
        raise TargetError(
            f"`{path}` is an ONNX file, and {error.name} is not installed", "pip install 'dropout-lint[onnx]'"
        ) from None
    except Exception as error:
        cause = error.__cause__ or error
        first = (str(cause).strip().splitlines() or [""])[0].partition(". ")[0]
        raise TargetError(
            f"`{path}` could not be read as {what}: {type(cause).__name__}{f': {first}' if first else ''}",
            "weights go to --checkpoint, beside the model that they are of",
        ) from error


def _exported(stream: IO[bytes]) -> Program:
    log = logging.getLogger("torch.export")  # it logs a traceback of its own
    before, log.disabled = log.disabled, True
    try:
        return read_graph(torch.export.load(stream).graph_module)
    finally:
        log.disabled = before


_READERS: Mapping[str, tuple[Callable[[IO[bytes]], Program], str]] = {
    ".onnx": (read_onnx, "an ONNX file"),
    ".pt2": (_exported, "a program that torch.export saved"),
    ".pt": (read_saved_script, "a program that torch.jit saved"),
    ".ts": (read_saved_script, "a program that torch.jit saved"),
}
