"""Work out example inputs from a model: what it says of itself first, then what its first layer takes.

No weights, data or network are needed. Candidates come best first and are tried in order by the tracer, on
FakeTensors, so one that does not run costs little. Tensors are on the meta device (`materialise` fills them),
except where values matter (the boxes of a detector's targets, lengths). The batch is 2, since batch norm
needs more than one value per channel in train mode.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from dropout_lint.guard.wrappers import unwrapped
from dropout_lint.inputs.companions import with_companions
from dropout_lint.inputs.declared import declared_inputs, detector_inputs
from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.first_layers import leaf_candidates
from dropout_lint.inputs.objects import object_inputs
from dropout_lint.inputs.shapes import forward_parameters
from dropout_lint.inputs.tabular import tabular_inputs

LIMIT = 64
"""No more candidates than this."""


def guess_inputs(model: nn.Module) -> Iterator[Inputs]:
    """Candidates for `model`'s inputs, best first, each with `guessed` set and the reason in `origin`.

    In this order: an object or a dict, where its class or the code tells what it holds; the columns of a
    table; what the model
    declares (a detector's signature, a Hugging Face or diffusers `config`, timm's `pretrained_cfg`,
    `img_size` and its like); then the shapes that its first layers with parameters take, 1-D, 2-D or 3-D by
    their type, at several sizes. Further required arguments of `forward` are worked out from their names and
    annotations. At most `LIMIT` candidates, no two alike.

    Args:
        model: any module; wrappers (DataParallel, `torch.compile`) are looked through.
    """
    inner = unwrapped(model)
    seen: set[tuple[str, ...]] = set()
    for candidate in _candidates(inner):
        key = candidate.describe()
        if key in seen:
            continue
        seen.add(key)
        yield candidate
        if len(seen) >= LIMIT:
            return


def _candidates(model: nn.Module) -> Iterator[Inputs]:
    parameters = forward_parameters(model)
    detector = tuple(detector_inputs(parameters))
    if detector:
        yield from detector
        return
    if not parameters:
        yield Inputs((), guessed=True, origin="guessed: forward takes nothing")
    yield from object_inputs(model, parameters, leaf_candidates(model))
    yield from tabular_inputs(model, parameters)
    yield from declared_inputs(model, parameters)
    yield from with_companions(model, leaf_candidates(model), parameters)
