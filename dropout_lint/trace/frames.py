"""Source locations: the nearest frame that is the user's (or another package's), not torch's."""

from __future__ import annotations

import itertools
import os
import sys
import sysconfig
from pathlib import Path
from types import CodeType, FrameType

import torch

from dropout_lint.config.installed import SITES
from dropout_lint.inputs.example import Location

# The trailing separator matters: a bare ".../torch" is a prefix of ".../torchvision" as well.
_PACKAGE = Path(__file__).parent.parent
_OWN = (
    *(
        str(folder) + os.sep
        for folder in (
            Path(torch.__file__).parent,
            Path(__file__).parent,
            _PACKAGE / "inputs",
            _PACKAGE / "loading",
        )
    ),
    str(_PACKAGE / "remedies" / "uout.py"),
)
_CALLERS = str(_PACKAGE) + os.sep
_STDLIB = sysconfig.get_paths()["stdlib"] + os.sep
_CHECKPOINT = str(Path(torch.__file__).parent / "utils" / "checkpoint.py"), "checkpoint"
_skipped: dict[CodeType, bool] = {}


def _is_skipped(code: CodeType) -> bool:
    skipped = _skipped.get(code)
    if skipped is None:
        name = code.co_filename
        stdlib = name.startswith(_STDLIB) and not any(site in name for site in SITES)
        skipped = name.startswith(_OWN) or name.startswith("<") or stdlib
        _skipped[code] = skipped
    return skipped


def user_frame(depth: int = 1) -> FrameType | None:
    """The nearest calling frame that is not torch's, the tracer's or the standard library's.

    None where the rest of this package comes first: who asked it to trace a model did not write it.
    """
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and _is_skipped(frame.f_code):
        frame = frame.f_back
    return None if frame is not None and frame.f_code.co_filename.startswith(_CALLERS) else frame


def in_checkpoint() -> bool:
    """Whether `torch.utils.checkpoint` is calling what runs now, and so will again in the backward pass."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (frame.f_code.co_filename, frame.f_code.co_name) != _CHECKPOINT:
        frame = frame.f_back
    return frame is not None


def location_of(frame: FrameType | None, *, column: bool = False) -> Location | None:
    """File and line that `frame` is executing, and the column where that is asked for (it costs more)."""
    if frame is None:
        return None
    if not column:
        return Location(frame.f_code.co_filename, frame.f_lineno)
    positions = frame.f_code.co_positions()
    _, _, start, _ = next(itertools.islice(positions, frame.f_lasti // 2, None), (0, 0, None, None))
    return Location(frame.f_code.co_filename, frame.f_lineno, (start or 0) + 1)
