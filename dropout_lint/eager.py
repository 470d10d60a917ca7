"""Running compiled parts as they were written, so that their layers can be seen."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def eager() -> AbstractContextManager[Any]:
    """A context in which `torch.compile`d functions and modules run uncompiled.

    Nothing has been compiled while dynamo is not loaded, and asking would load it (over a second), so it is
    only asked where it is.
    """
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
