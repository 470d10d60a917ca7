"""Settings that every test shares."""

from __future__ import annotations

import compileall
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_project import MODEL, ROOT, own_modules
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


def pytest_configure(config: pytest.Config) -> None:
    """Processes that tests start need not compile the package, where Python writes no bytecode by itself."""
    if not hasattr(config, "workerinput"):  # once, not in each of xdist's workers
        compileall.compile_dir(ROOT / "dropout_lint", quiet=2)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two xdist workers on two cores: more threads only get in each other's way."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state, torch's, Python's and numpy's."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def forgotten(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test imports from its folders is not found by the next one, under the same name."""
    with own_modules(tmp_path_factory.getbasetemp().parent):
        yield


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
