"""Linting does not load dynamo, and whoever asks for it gets the real one."""

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
        from torch._dynamo import config
        assert config.suppress_errors is False and torch._dynamo.is_compiling() is False
        return self.bn(nn.functional.dropout(self.fc(x), 0.5, self.training))


model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
assert len(dl.lint(model, torch.randn(8, 4)).findings) == 1
assert "torch._dynamo" not in sys.modules
assert len(dl.lint(Curious(), torch.randn(8, 4)).findings) == 1
assert sys.modules["torch._dynamo"].__file__
compiled = torch.compile(model.eval(), backend="eager")
x = torch.randn(8, 4)
assert torch.equal(compiled(x), model(x))
assert len(dl.lint(model.train(), x).findings) == 1
print("all well")
"""


def test_dynamo_is_loaded_for_those_alone_who_ask_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "all well\n", done.stderr
