"""Deployed programs, read and never run: ONNX files, and what torch.export and TorchScript made."""

from dropout_lint.deployed.program import Program, Step, differ
from dropout_lint.deployed.read import is_program, read_file, read_program

__all__ = ["Program", "Step", "differ", "is_program", "read_file", "read_program"]
