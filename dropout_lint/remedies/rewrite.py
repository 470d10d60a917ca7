"""Write a checkpoint again with some of its tensors changed, and everything else as it was."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dropout_lint.errors import CheckpointError
from dropout_lint.layers.reestimated import digest
from dropout_lint.loading.checkpoint import fitted, holders_of, read_file, state_of
from dropout_lint.loading.marks import KEY, marked, marks_of, written


def rewrite_checkpoint(source: str, target: str, model: nn.Module, keys: Mapping[str, Tensor]) -> None:
    """Copy the checkpoint `source` to `target` with the tensors named in `keys` replaced.

    The layout stays. Of a safetensors file nothing but the bytes of these tensors changes. What `torch.save`
    wrote is saved again, wrappers, optimiser state, prefixes of keys, dtypes and all; tensors that were saved
    from another device are saved for the CPU, and a state dict that is a plain dict as an `OrderedDict`.
    Running variances among the new values are marked in the file's metadata as those of test mode
    (`loading/marks.py`). The file appears whole or not at all, after it has been read back and compared.

    Args:
        source: the file.
        target: where to write, another file of the same kind.
        model: the model that the checkpoint fits; its keys tell which prefixes the file's have.
        keys: new values by key of `model.state_dict()`.

    Raises:
        CheckpointError: the file cannot be read or written, lacks a key, or came out wrong.
    """
    loaded = read_file(source)
    holders = holders_of(loaded, source)
    state = state_of(holders)
    own = {id(value): key for key, value in state.items()}
    names = {key: own[id(value)] for key, value in fitted(state, model.state_dict()).items()}
    missing = sorted(keys - names.keys())
    if missing:
        raise CheckpointError(
            f"`{source}` holds no {missing[0]}", "it was saved without the buffers of its norms"
        )
    with torch.no_grad():
        for key, value in keys.items():
            state[names[key]].copy_(value)
    changed = {names[key] for key in keys}
    loaded = _with_marks(holders, {digest(state[names[key]]) for key in keys if key.endswith("running_var")})
    path = Path(target).expanduser()
    partial = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")  # the suffix says the kind
    try:
        try:
            new = {key: state[key] for key in changed}
            _write(loaded, partial, Path(source).expanduser(), new)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"cannot write `{target}`: {error}", "check the folder and the space left"
            ) from error
        _check(source, partial, loaded, state, changed)
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _with_marks(holders: list[Any], new: set[str]) -> Any:
    """The loaded checkpoint with `new` marks beside those that still hold."""
    *wrappers, state = holders
    still = {digest(value) for key, value in state_of(holders).items() if key.endswith("running_var")}
    renewed = marked(state, new | (marks_of(state) & still))
    if not wrappers:
        return renewed
    name = next(key for key, value in wrappers[-1].items() if value is state)
    wrappers[-1][name] = renewed
    return wrappers[0]


def _write(loaded: Any, partial: Path, source: Path, changed: Mapping[str, Tensor]) -> None:
    if source.suffix == ".safetensors":
        _patch(partial, source, changed, written(marks_of(loaded)))
    else:
        torch.save(loaded, partial, _use_new_zipfile_serialization=zipfile.is_zipfile(source))
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    shutil.copymode(source, partial)


def _patch(partial: Path, source: Path, changed: Mapping[str, Tensor], marks: str) -> None:
    """A safetensors file with new bytes for some tensors: 8 bytes of length, a JSON header, the data."""
    with source.open("rb") as old, partial.open("wb") as file:
        header = json.loads(old.read(int.from_bytes(old.read(8), "little")))
        header.setdefault("__metadata__", {})[KEY] = marks
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the data is aligned
        file.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(old, file)
        for key, value in changed.items():
            begin, end = header[key]["data_offsets"]
            data = _bits(value).numpy().tobytes()
            if len(data) != end - begin:
                raise RuntimeError(f"{key} has {end - begin} bytes there and {len(data)} here")
            file.seek(8 + len(text) + begin)
            file.write(data)


def _check(
    source: str, partial: Path, wanted: Any, state: Mapping[str, Tensor], changed: Collection[str]
) -> None:
    """Every tensor that was to stay is as in the source, the others and the marks are as asked."""
    before, after = read_file(source), read_file(str(partial))
    old_leaves, new_leaves = pytree.tree_leaves(before), pytree.tree_leaves(after)
    holders, asked = holders_of(after, source), holders_of(wanted, source)
    old, new = state_of(holders_of(before, source)), state_of(holders)
    intended = {id(old[key]) for key in changed}
    same = (
        pytree.tree_structure(wanted) == pytree.tree_structure(after)
        and all(_equal(a, b) for a, b in zip(old_leaves, new_leaves, strict=True) if id(a) not in intended)
        and all(_equal(new[key], state[key]) for key in changed)
        and marks_of(holders[-1]) == marks_of(asked[-1])
    )
    if not same:
        raise CheckpointError(
            f"`{source}` would not come out as it went in, so nothing was written",
            "report this with the kind of checkpoint that it is",
        )


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bits(a), _bits(b))
    return type(a) is type(b) and (a == b or a is b or repr(a) == repr(b))


def _bits(tensor: Tensor) -> Tensor:
    """Compared bit by bit, NaN included."""
    dense = tensor.detach().contiguous()
    return dense.reshape(-1).view(torch.uint8) if dense.numel() and dense.layout == torch.strided else dense
