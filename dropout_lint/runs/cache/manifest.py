"""What a result depended on, as it was: contents of files, entries of folders, values of variables."""

# Paths are texts here: a warm run must not spend its time on objects for them.
# ruff: noqa: PTH116, PTH118, PTH123

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Set

import msgspec

from dropout_lint.runs.cache.reads import Witness

ABSENT = "absent"
FOLDER = "folder"
# above this size a file is known by its size and time of change
WHOLE = 64 * 2**20
# kinds of files that native code reads past Python's audit events; where a folder was listed they count
NATIVE = (
    ".safetensors",
    ".onnx",
    ".gguf",
    ".h5",
    ".hdf5",
    ".parquet",
    ".arrow",
    ".npy",
    ".png",
    ".jpg",
    ".jpeg",
)


class Manifest(msgspec.Struct, frozen=True):
    """Path or name → what it was; see `file_state`, `folder_state`, `searched_state` and `variable_state`.

    Attributes:
        files: what was read or asked for.
        folders: what was listed.
        roots: where imports search for `names`.
        packages: where imports search for what stands beside the state.
        variables: of the environment.
        names: top-level modules.
    """

    files: dict[str, str]
    folders: dict[str, str]
    roots: dict[str, str]
    packages: dict[str, tuple[str, list[str]]]
    variables: dict[str, str]
    names: list[str]

    def holds(self, written: frozenset[str]) -> bool:
        """Whether everything still is as it was; `written` are the files that this tool writes."""
        return (
            all(variable_state(name) == state for name, state in self.variables.items())
            and all(folder_state(path, written) == state for path, state in self.folders.items())
            and self.finds_the_same(written)
            and all(file_state(path) == state for path, state in self.files.items())
        )

    def finds_the_same(self, written: frozenset[str]) -> bool:
        """Whether imports find what they found: no file of a name that they look for came or went."""
        names = frozenset(self.names)
        return all(
            searched_state(path, names, written) == state for path, state in self.roots.items()
        ) and all(
            searched_state(path, frozenset(inside), written) == state
            for path, (state, inside) in self.packages.items()
        )


def manifest_of(witness: Witness, written: frozenset[str]) -> Manifest:
    """The state of everything that a witness saw."""
    files = witness.files - written
    return Manifest(
        files={path: file_state(path) for path in sorted(files)},
        folders={path: folder_state(path, written) for path in sorted(witness.folders)},
        roots={path: searched_state(path, witness.names, written) for path in sorted(witness.roots)},
        packages={
            path: (searched_state(path, names, written), sorted(names))
            for path, names in sorted(witness.packages.items())
        },
        variables={name: variable_state(name) for name in sorted(witness.variables)},
        names=sorted(witness.names),
    )


def digest(*parts: bytes) -> str:
    """A short hash of some parts."""
    made = hashlib.blake2b(digest_size=16)
    for part in parts:
        made.update(len(part).to_bytes(8, "little"))
        made.update(part)
    return made.hexdigest()


def file_state(path: str) -> str:
    """A hash of a file's contents; that it is a folder, or not there."""
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            return FOLDER
        if not stat.S_ISREG(found.st_mode):
            return "special"
        if found.st_size > WHOLE:
            return f"{found.st_size} {found.st_mtime_ns}"
        with open(path, "rb") as stream:
            return digest(stream.read())
    except OSError:
        return ABSENT


def folder_state(path: str, written: frozenset[str]) -> str:
    """A hash of the names in a folder; hidden ones, compiled ones and what this tool writes do not count."""
    return entries_state(path, None, written)


def searched_state(path: str, names: Set[str], written: frozenset[str]) -> str:
    """The same for a folder that imports search: files of other names do not count, but for `NATIVE` ones."""
    return entries_state(path, names, written)


def entries_state(path: str, names: Set[str] | None, written: frozenset[str]) -> str:
    """A hash of the entries of a folder, where there are `names` of those that a module may have."""
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or name == "__pycache__" or entry.path in written:
                    continue
                if name.endswith(NATIVE):
                    state = entry.stat()
                    name += f" {state.st_size} {state.st_mtime_ns}"
                elif (
                    names is not None and (stem := name.partition(".")[0]) not in names and stem != "__init__"
                ):
                    continue
                found.append(os.fsencode(name))
    except OSError:
        return ABSENT
    return digest(*sorted(found))


def variable_state(name: str) -> str:
    """A hash of an environment variable's value, so that no secret is written to disk."""
    value = os.environ.get(name)
    return ABSENT if value is None else digest(value.encode(errors="surrogateescape"))


def stamps(folders: Iterable[str], suffixes: tuple[str, ...]) -> list[bytes]:
    """Names, sizes and times of change of files below some folders; for this tool's own code and rules."""
    found = []
    for top in folders:
        for folder, inner, names in os.walk(top):
            inner[:] = sorted(name for name in inner if name != "__pycache__")
            for name in sorted(names):
                if name.endswith(suffixes):
                    path = os.path.join(folder, name)
                    state = os.stat(path)
                    found.append(f"{path} {state.st_size} {state.st_mtime_ns}".encode())
    return found
