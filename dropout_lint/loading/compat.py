"""What the process needs before a user's code is imported."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.util import find_spec
from typing import Any, TypeVar

T = TypeVar("T")

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
SCHEMA_NOTE = (
    "torchvision was built for another torch and cannot load its operators; "
    "declared torchvision::nms and torchvision::qnms so that it can be imported"
)


SELDOM = 50_000
"""Objects made since the last garbage collection that start the next; Python's 700 start thousands of them,
through all that torch has loaded, while it loads."""


def own_process() -> bool:
    """Start torch without its script compiler; to be called by a process that belongs to the tool.

    Scripted functions hide the edges between operations. Garbage is collected seldom, which saves a tenth of
    a run. Does nothing once torch is imported, and is not for library use: it would take `torch.jit.script`
    from the whole program.

    Returns:
        Whether torch was not imported yet, nor anything of a user's that needs it.
    """
    fresh = "torch" not in sys.modules
    if fresh:
        os.environ["PYTORCH_JIT"] = "0"
        gc.set_threshold(SELDOM)
    return fresh


@contextmanager
def plain_python() -> Iterator[list[Any]]:
    """Inside, `torch.jit.script`, `torch.jit.trace` and `torch.compile` return what they are given.

    Gives the modules that were to be traced in train mode: such a trace has that mode for good.
    """
    import torch
    import torch.jit._state as jit

    in_train: list[Any] = []
    trace: Callable[..., Any] = torch.jit.trace

    @wraps(trace)
    def watched(func: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(func, torch.nn.Module) and func.training:
            in_train.append(func)
        return trace(func, *args, **kwargs)

    before = os.environ.get("TORCHDYNAMO_DISABLE")
    scripted = bool(jit._enabled)
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    jit.disable()  # type: ignore[no-untyped-call, unused-ignore]  # untyped in some torch
    torch.jit.trace = watched
    try:
        yield in_train
    finally:
        torch.jit.trace = trace
        if scripted:
            jit.enable()  # type: ignore[no-untyped-call, unused-ignore]  # untyped in some torch
        if before is None:
            os.environ.pop("TORCHDYNAMO_DISABLE", None)
        else:
            os.environ["TORCHDYNAMO_DISABLE"] = before


def declare_missing_schemas() -> bool:
    """Make `import torchvision` work beside a torch that its compiled operators were not built for.

    Only where the import fails for this reason are the two operators declared that it registers fake
    kernels for, `nms` with an implementation for CPU.

    Returns:
        Whether they had to be declared.
    """
    if "torchvision" in sys.modules or find_spec("torchvision") is None:
        return False
    try:
        import torchvision  # type: ignore[import-untyped, unused-ignore]  # noqa: F401 - whether it can be imported is the question
    except RuntimeError as error:
        if not is_schema_error(error):
            raise
    else:
        return False
    _forget("torchvision")
    _declare()
    return True


def is_schema_error(error: BaseException) -> bool:
    """Whether an import failed because torchvision's compiled operators are missing.

    transformers raises an error of its own then, whose cause says so.
    """
    while isinstance(error, ImportError) and error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    return isinstance(error, RuntimeError) and "torchvision::" in text and "does not exist" in text


def with_schemas(run: Callable[[], T], notes: list[str]) -> T:
    """`run()`, once more with the missing operators declared where it needs them; says so in `notes`."""
    try:
        return run()
    except (RuntimeError, ImportError) as error:
        if not is_schema_error(error):
            raise
    _forget("torchvision")
    _declare()
    notes.append(SCHEMA_NOTE)
    return run()


def _forget(package: str) -> None:
    """Drop what a failed import left behind, so that it can be tried again."""
    for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
        del sys.modules[name]


def _declare() -> None:
    import torch

    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", _NMS)
    torch.library.impl("torchvision::nms", "CPU", _nms)
    from importlib import import_module

    boxes = import_module("torchvision.ops.boxes")

    setattr(boxes, "_assert_has_ops", lambda: None)  # noqa: B010 - a name that types do not know
    # torchvision's own Python stand-in gathers every sample of every region at once: tens of gigabytes
    setattr(import_module("torchvision.ops.roi_align"), "_roi_align", _roi_align)  # noqa: B010 - as above


def _nms(dets: Any, scores: Any, iou_threshold: float) -> Any:
    """Greedy non-maximum suppression: boxes (N, 4) as x1, y1, x2, y2 and scores (N,) to indices (K,)."""
    import torch

    order = scores.argsort(descending=True, stable=True)
    area = (dets[:, 2] - dets[:, 0]) * (dets[:, 3] - dets[:, 1])
    kept: list[int] = []
    while order.numel():
        best, order = order[0], order[1:]
        kept.append(int(best))
        low = torch.maximum(dets[best, :2], dets[order, :2])
        high = torch.minimum(dets[best, 2:], dets[order, 2:])
        overlap = (high - low).clamp(min=0).prod(dim=1)
        order = order[overlap <= iou_threshold * (area[best] + area[order] - overlap)]
    return torch.tensor(kept, dtype=torch.int64, device=dets.device)


def _roi_align(  # noqa: PLR0917 - torchvision's signature
    input: Any,
    rois: Any,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    """Region features by one bilinear sample a bin, enough to follow a forward pass.

    `input` is (N, C, H, W), `rois` (K, 5) as image index, x1, y1, x2, y2; the result (K, C, height, width).
    """
    import torch
    from torch.nn import functional as F

    corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    low, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
    size = size if aligned else size.clamp(min=1)
    limits = torch.tensor([input.shape[3], input.shape[2]], dtype=input.dtype, device=input.device)
    steps = [
        (torch.arange(count, dtype=input.dtype, device=input.device) + 0.5) / count
        for count in (pooled_width, pooled_height)
    ]
    places = [
        (low[:, axis, None] + steps[axis] * size[:, axis, None] + 0.5) / limits[axis] * 2 - 1
        for axis in (0, 1)
    ]
    shape = (len(rois), pooled_height, pooled_width)
    grid = torch.stack([places[0][:, None, :].expand(shape), places[1][:, :, None].expand(shape)], dim=-1)
    result = input.new_zeros((len(rois), input.shape[1], pooled_height, pooled_width))
    for image in range(input.shape[0]):
        mine = torch.where(rois[:, 0] == image)[0]
        rows = grid[mine].reshape(1, -1, pooled_width, 2)
        sampled = F.grid_sample(input[image : image + 1], rows, align_corners=False)
        parts = sampled.reshape(input.shape[1], len(mine), pooled_height, pooled_width)
        result[mine] = parts.transpose(0, 1)
    return result
