"""Settings that every test shares."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from cli_project import MODEL
from hypothesis import HealthCheck, settings

# CI must say the same of the same tree each time; a developer's runs go on looking for new examples
settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("suite")
# a fault in a transfer function must show; processes that tests start inherit it
os.environ["DROPOUT_LINT_RAISE"] = "1"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two xdist workers on two cores: more threads only get in each other's way."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test imports from its folders is not found by the next one, under the same name."""
    path, known = list(sys.path), set(sys.modules)
    folders = str(tmp_path_factory.getbasetemp().parent)
    yield
    sys.path[:] = path
    found = [name for name in sys.modules.keys() - known if _lies_in(sys.modules[name], folders)]
    for name in found:
        del sys.modules[name]


def _lies_in(module: ModuleType, folder: str) -> bool:
    """Whether a module is a file below a folder, or a folder there, which may have no file."""
    inside = vars(module)
    try:
        places = [inside.get("__file__"), *(inside.get("__path__") or ())]
    except KeyError:  # a folder's path is asked of the module that holds it, and that is gone
        return True
    return any(str(place).startswith(folder) for place in places)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT interrupts, here and in the processes that the test starts.

    A shell that reads a script starts background jobs with SIGINT ignored, and what they start inherits that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose `net.py` holds `cli_project.MODEL`, as the working folder."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "net.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path
