"""The pinned packages, and how they come into a folder of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent


def listed(name: str) -> list[str]:
    """The pinned packages of a requirements file beside this one."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


PACKAGES, NEEDED = listed("packages.txt"), listed("needed.txt")

HEAVY = {
    "braindecode": "braindecode.models",
    "fastai": "fastai.tabular.model",
    "keras": "keras",
    "monai": "monai.networks.nets",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
    "torch-geometric": "torch_geometric.nn",
    "tsai": "tsai.models.layers",
}
"""What takes seconds to import."""

# compiled for another torch; the package works without them
LEFT_OUT = ("torchaudio/lib",)


def install(folder: Path) -> None:
    """Install all of them into `folder`, without what they ask for; nothing if that was done before.

    Raises:
        SystemExit: pip failed, or the folder holds something else.
    """
    done = folder / "installed.txt"
    wanted = "\n".join(PACKAGES + NEEDED)
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not done.exists():
        raise SystemExit(f"{folder} is not empty: name a folder that may be filled, or empty this one")
    done.write_text("", encoding="utf-8")  # from here on the folder is this command's
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
    if subprocess.run([*pip, "--target", str(folder), *PACKAGES, *NEEDED], check=False).returncode:
        raise SystemExit("the packages could not be installed: see pip's message above, then start again")
    for path in LEFT_OUT:
        shutil.rmtree(folder / path, ignore_errors=True)
    done.write_text(wanted, encoding="utf-8")


def importable(folder: Path) -> None:
    """Put the folder behind what the environment has, and settle what its packages ask of a process."""
    sys.path.append(str(folder))
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in ("nms", "qnms"):  # a torchvision without its compiled operators asks for their shapes
        schema = f"torchvision::{name}"
        with contextlib.suppress(RuntimeError):
            torch.library.define(schema, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
