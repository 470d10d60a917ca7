"""The networks, one a file in `networks/`, with what they learn and how they are trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

NETWORKS = Path(__file__).with_name("networks")


@dataclass(frozen=True)
class Subject:
    """One network.

    Attributes:
        name: of its file.
        field: what it is used for.
        model: its class.
        ratio: the class's argument for p.
        data: name of a set in `data.py`.
        shape: a batch of inputs, as `--input` takes it.
        epochs: passes over the training rows.
        rate: highest learning rate of AdamW's one-cycle schedule.
        head: the layer behind the last norm that gives the predictions: the guideline's dropout is before it.
        batch: rows of a training batch.
    """

    name: str
    field: str
    model: str
    ratio: str
    data: str
    shape: str
    epochs: int
    rate: float
    head: str
    batch: int = 50

    @property
    def file(self) -> Path:
        """The network as its authors write it."""
        return NETWORKS / f"{self.name}.py"

    def target(self, p: float) -> str:
        """What the command line lints, in the file's folder."""
        return f"{self.file.name}:{self.model}({self.ratio}={p})"


_ALL = (
    Subject("wide_resnet", "images", "WideResNet", "dropout_rate", "digits", "50x1x8x8", 15, 0.01, "linear"),
    Subject("densenet_bc", "images", "DenseNet", "drop_rate", "digits", "50x1x8x8", 15, 0.01, "fc"),
    Subject("mobilenet", "images", "MobileNet", "dropout", "mnist", "50x1x14x14", 15, 0.01, "fc"),
    Subject("vgg_bn", "images", "VGG", "dropout", "mnist", "50x1x14x14", 15, 0.005, "classifier.5"),
    Subject("unet", "segmentation", "UNet", "dropout", "ink", "25x1x24x24", 8, 0.01, "outc", 25),
    Subject("tdnn", "speech", "XVector", "dropout_p", "vowels", "50x12x25", 25, 0.005, "output"),
    Subject("series_bn", "series", "Series", "dropout", "frames", "50x25x12", 15, 0.005, "output_layer"),
    Subject("crepe", "music", "Crepe", "dropout", "tones", "50x1x256", 10, 0.005, "classifier"),
    Subject("tabular_mlp", "tables", "MLP", "dropout", "breast_cancer", "50x30", 20, 0.002, "out"),
    Subject("pointnet", "3-D points", "PointNetCls", "dropout", "points", "50x3x48", 20, 0.005, "fc3"),
)
SUBJECTS = {subject.name: subject for subject in _ALL}
RATIOS = (0.1, 0.3, 0.5)

TIMES = 4
LONGER = tuple(
    dataclasses.replace(SUBJECTS[name], epochs=TIMES * SUBJECTS[name].epochs)
    for name in ("densenet_bc", "mobilenet", "vgg_bn", "tdnn")
)
"""Those that lose the most, with more epochs: does it go away?"""
