"""Which running variances of a checkpoint `recalibrate` took with dropout off: their digests, in the file.

A safetensors file has them in its metadata. What `torch.save` wrote has them in `_metadata`, the attribute of
a state dict in which torch keeps the versions of modules: it is saved and loaded with the weights, and
`load_state_dict(strict=True)` asks it for modules by name only. A variance that is trained on has another
digest, so that a mark that is copied along says nothing of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

KEY = "dropout-lint"
"""The name in either kind of metadata; no module's, for those are Python's."""
_VARIANCES = "test_mode_variances"


def marks_of(state: object) -> frozenset[str]:
    """The digests that a state dict is marked with; none where it is not."""
    metadata = getattr(state, "_metadata", None)
    entry = metadata.get(KEY) if isinstance(metadata, Mapping) else None
    text = entry.get(_VARIANCES) if isinstance(entry, Mapping) else None
    return read_marks(text)


def read_marks(text: object) -> frozenset[str]:
    """The digests in the text that `written` made of them."""
    return frozenset(text.split()) if isinstance(text, str) else frozenset()


def written(marks: Iterable[str]) -> str:
    """Digests as one text, which is what safetensors' metadata can hold."""
    return " ".join(sorted(marks))


def marked(state: Mapping[str, Any], marks: Iterable[str]) -> OrderedDict[str, Any]:
    """`state` with these marks; itself where it can have attributes, which a plain dict cannot."""
    holder: OrderedDict[str, Any] = state if isinstance(state, OrderedDict) else OrderedDict(state)
    attributes = vars(holder)
    if not isinstance(attributes.get("_metadata"), dict):
        attributes["_metadata"] = OrderedDict()
    attributes["_metadata"][KEY] = {_VARIANCES: written(marks)}
    return holder
