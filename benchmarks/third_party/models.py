"""All entries, by `package/model`."""

from __future__ import annotations

from . import graphs, keras_models, medical, pictures, series, sound, tables, video
from .entry import Entry

_ROOMS = (graphs, keras_models, medical, pictures, series, sound, tables, video)


def entries() -> dict[str, Entry]:
    """Every model of every package. Nothing of the packages is imported before a model is built."""
    return {key: entry for room in _ROOMS for key, entry in room.entries().items()}
