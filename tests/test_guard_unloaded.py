"""Linting loads neither dynamo nor sympy, and whoever asks for them gets the real ones."""

from __future__ import annotations

import subprocess
import sys
import textwrap

SCRIPT = """
import sys
import torch
from torch import nn
import dropout_lint as dl


class Curious(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.bn = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        from sympy import Basic, Symbol
        from torch._dynamo import config
        from torch.fx.experimental.symbolic_shapes import ShapeEnv, sym_and
        assert isinstance(Symbol("n"), Basic) and ShapeEnv.__mro__ and sym_and(True, Symbol("n")) is not None
        assert config.suppress_errors is False and torch._dynamo.is_compiling() is False
        return self.bn(nn.functional.dropout(self.fc(x), 0.5, self.training))


model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
assert len(dl.lint(model, torch.randn(8, 4)).findings) == 1
heavy = ("torch._dynamo", "sympy", "torch.fx.experimental.symbolic_shapes")
assert not any(name in sys.modules for name in heavy)
assert len(dl.lint(Curious(), torch.randn(8, 4)).findings) == 1
assert all(sys.modules[name].__file__ for name in heavy)
compiled = torch.compile(model.eval(), backend="eager")
x = torch.randn(8, 4)
assert torch.equal(compiled(x), model(x))
assert len(dl.lint(model.train(), x).findings) == 1
print("all well")
"""


def test_what_is_heavy_is_loaded_for_those_alone_who_ask_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "all well\n", done.stderr
