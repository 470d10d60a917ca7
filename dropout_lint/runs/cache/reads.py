"""Sees what the user's code looks at while a model is built: files, folders, environment variables.

Reads are seen by an audit hook (PEP 578: `open`, `os.listdir`, `os.scandir`, `sqlite3.connect`), questions
about whether a file exists by standing in for `os.stat`, `os.lstat` and `os.access`, environment variables by
standing in for `os.environ`'s look-up, names that are imported, or tried, by a finder that finds nothing. In
folders that imports search, only files of such names count; in those that the code lists, all do. What starts
a process or a connection can see anything, so its result is not kept; what an installed package starts while
it is imported does not count.
"""

# Paths are texts here: this runs on every file that Python touches.
# ruff: noqa: PTH100, PTH112, PTH118, PTH119, PTH120

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

# events behind which anything can be read
UNSEEN = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "socket.connect"}
)
READS = frozenset({"open", "sqlite3.connect"})
LISTS = frozenset({"os.listdir", "os.scandir"})
IMPORTS = "<frozen importlib._bootstrap_external>"
# files of the standard library that `os.environ.get` and `os.getenv` pass through
LOOK_UPS = frozenset(
    {
        os.__file__,
        os.path.join(os.path.dirname(os.__file__), "_collections_abc.py"),
        "<frozen os>",
        "<frozen _collections_abc>",
    }
)
VIRTUAL = ("/proc", "/dev", "/sys")


class Witness:
    """What was looked at.

    Attributes:
        files: absolute paths that were read, or asked for.
        folders: absolute paths whose entries were listed.
        tried: full names of modules that were looked for.
        names: top-level names that were imported, or tried.
        roots: absolute paths of folders that are searched for these.
        packages: folder of the project's modules → names that are searched for in it.
        variables: names of environment variables.
        unseen: an event behind which anything can be read, or None.
    """

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.folders: set[str] = set()
        self.tried: set[str] = set()
        self.names: set[str] = set()
        self.roots: set[str] = set()
        self.packages: dict[str, set[str]] = {}
        self.variables: set[str] = set()
        self.unseen: str | None = None

    def file(self, path: object) -> None:
        """Note a file; the cached form of a module stands for its source."""
        found = absolute(path)
        if found is None:
            return
        if found.endswith(".pyc"):
            folder, name = os.path.split(found)
            if os.path.basename(folder) != "__pycache__":
                return
            found = os.path.join(os.path.dirname(folder), name.split(".")[0] + ".py")
        if is_ours(found):
            self.files.add(found)

    def folder(self, path: object) -> None:
        """Note a folder whose entries were listed."""
        found = absolute(path if path is not None else ".")
        if found is not None and is_ours(found):
            self.folders.add(found)

    def imported(self) -> None:
        """Note the project's loaded modules, and where imports search for which names."""
        modules = dict(sys.modules)
        for module in modules.values():
            path = getattr(module, "__dict__", {}).get("__file__")  # a lazy module would import for `getattr`
            if isinstance(path, str) and is_ours(os.path.abspath(path)):
                self.files.add(os.path.abspath(path))
                self.packages.setdefault(os.path.dirname(os.path.abspath(path)), set())
            elif path is None:  # a package without `__init__.py`, which may get one
                for entry in getattr(module, "__dict__", {}).get("__path__") or ():
                    folder = absolute(entry)
                    if folder is not None and is_ours(folder):
                        self.packages.setdefault(folder, set())
        for name in {*modules, *self.tried}:
            parent, _, last = name.rpartition(".")
            if not parent:
                self.names.add(name)
                continue
            for entry in getattr(modules.get(parent), "__dict__", {}).get("__path__") or ():
                folder = absolute(entry)
                if folder is not None and is_ours(folder):
                    self.packages.setdefault(folder, set()).add(last)
        for entry in sys.path:
            folder = absolute(entry or ".")
            if folder is not None and is_ours(folder) and os.path.isdir(folder):
                self.roots.add(folder)


class Tried:
    """A finder that finds nothing and notes what is looked for."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Note a name."""
        self.witness.tried.add(name)


def absolute(path: object) -> str | None:
    """`path` as an absolute text; None for a file descriptor and for what no path can be."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        return None
    try:
        text = os.fsdecode(path)
    except (TypeError, UnicodeDecodeError):
        return None
    return os.path.abspath(text)


@lru_cache(maxsize=1)
def installed() -> tuple[str, ...]:
    """Folders whose contents the versions of Python and of the installed packages stand for."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(name) for name in names}
    folders |= {os.path.realpath(folder) for folder in folders}
    folders.add(str(Path(__file__).parents[2]))
    folders |= {sysconfig.get_path(name, vars={"base": sys.base_prefix}) for name in ("stdlib", "platstdlib")}
    folders |= {
        entry
        for entry in sys.path
        if entry.endswith((".zip", "site-packages", "dist-packages", "lib-dynload"))
    }
    return tuple(folder.rstrip(os.sep) + os.sep for folder in folders if folder)


@lru_cache(maxsize=65536)
def is_ours(path: str) -> bool:
    """Whether a file is neither an installed package's nor the system's own."""
    inside = path + os.sep
    return not inside.startswith(installed()) and not inside.startswith(tuple(f"{root}/" for root in VIRTUAL))


def asked_by_us() -> bool:
    """Whether the project's own code asks for a variable: libraries read hundreds that change no model."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename in LOOK_UPS:
        frame = frame.f_back
    return is_ours(frame.f_code.co_filename)


def importing_a_package() -> bool:
    """Whether an installed package is being imported: what that starts, its version stands for (torch's CUDA
    builds look for libraries with `ldconfig`).
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith("<frozen "):
            if is_ours(file):
                return False
            if frame.f_code.co_name == "<module>":
                return True
        frame = frame.f_back
    return False


_active: Witness | None = None
_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook; it stays for the life of the process and sleeps where there is no witness."""
    witness = _active
    if witness is None:
        return
    if event in READS:
        witness.file(arguments[0])
    elif event in LISTS:
        # an import lists the folders that it searches
        if sys._getframe(1).f_code.co_filename != IMPORTS:
            witness.folder(arguments[0])
    elif event in UNSEEN and not importing_a_package():
        witness.unseen = event


@contextlib.contextmanager
def watching() -> Iterator[Witness]:
    """Watch the code in the block."""
    global _active, _hooked  # noqa: PLW0603 - an audit hook cannot be taken away again
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    installed()  # asked for now, since it asks for files itself
    witness = Witness()
    before = _active
    finder = Tried(witness)
    with standing_in(witness):
        _active = witness
        sys.meta_path.insert(0, finder)
        try:
            yield witness
        finally:
            _active = before
            with contextlib.suppress(ValueError):
                sys.meta_path.remove(finder)
    witness.imported()


@contextlib.contextmanager
def standing_in(witness: Witness) -> Iterator[None]:
    """Stand in for the functions that have no audit event, and take it back."""
    names = ("stat", "lstat", "access")
    originals = {name: getattr(os, name) for name in names}
    environ = type(os.environ)
    look_up = environ.__getitem__

    def noting(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **named: Any) -> Any:
            witness.file(path)
            return original(path, *rest, **named)

        return call

    def getitem(self: os._Environ[str], key: str) -> str:
        if isinstance(key, str) and asked_by_us():
            witness.variables.add(key)
        return look_up(self, key)

    for name, original in originals.items():
        setattr(os, name, noting(original))
    # the class itself: `os.environ[...]` looks its method up there, and so does `os.getenv`
    environ.__getitem__ = getitem  # type: ignore[method-assign]  # reads are noted while this lasts
    try:
        yield
    finally:
        environ.__getitem__ = look_up  # type: ignore[method-assign]  # the original again
        for name, original in originals.items():
            setattr(os, name, original)
