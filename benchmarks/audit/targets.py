"""What is linted, and with which rates."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ..zoo import timm_targets, torchvision_targets


@dataclass(frozen=True)
class Target:
    """One model.

    Attributes:
        package: which it is from.
        name: what the command line is given.
        rates: `as shipped`, or the rates that it is built with.
    """

    package: str
    name: str
    rates: str = "as shipped"


# torchvision builders whose rates are 0 until they are told the paper's (Huang et al. 2017, Sec. 4.2;
# Dosovitskiy et al. 2021, App. B.1); the others ship with theirs
TORCHVISION_RATES = {"densenet": "drop_rate=0.2", "vit_": "dropout=0.1"}
# DenseNet and EfficientNet train with dropout 0.2; DeiT, Swin-T/S and ConvNeXt-T with drop path 0.1 to 0.3
TIMM_RATES = {"drop_rate": 0.2, "drop_path_rate": 0.1}

# each with the defaults of its configuration, but for what that does without and the model does not
TRANSFORMERS = [
    "EfficientNetForImageClassification",
    "MobileNetV1ForImageClassification",
    "MobileNetV2ForImageClassification",
    "MobileViTForImageClassification",
    "MobileViTV2ForImageClassification",
    "RegNetForImageClassification",
    "ResNetForImageClassification",
    "LevitForImageClassification",
    "CvtForImageClassification",
    "SwiftFormerForImageClassification",
    "HGNetV2ForImageClassification",
    "TextNetForImageClassification",
    "BitForImageClassification",
    "SegformerForSemanticSegmentation",
    "Data2VecVisionForSemanticSegmentation",
    "DPTForSemanticSegmentation",
    "GLPNForDepthEstimation",
    "PatchTSTForPrediction",
    "PatchTSMixerForPrediction",
    "InformerForPrediction(prediction_length=8)",
    "SpeechT5ForTextToSpeech",
    "FastSpeech2ConformerModel",
    "Wav2Vec2ConformerForCTC(vocab_size=32)",
    "ClapAudioModel",
    "GroupViTVisionModel",
    "AlignVisionModel",
    "HubertForCTC",
    "ParakeetForCTC",
    "VitPoseForPoseEstimation",
    "PPLCNetForImageClassification",
    "BertForSequenceClassification",
    "DistilBertModel",
    "GPT2Model",
    "BartModel",
    "ViTForImageClassification",
    "SwinForImageClassification",
    "ConvNextForImageClassification",
    "DeiTForImageClassification",
    "Wav2Vec2ForCTC",
    "WhisperModel",
    "CLIPModel",
]


def targets() -> Iterator[Target]:
    """All of them: each as shipped, then with rates where it takes any."""
    yield from _torchvision()
    yield from _timm()
    yield from _transformers()


def _torchvision() -> Iterator[Target]:
    for name in torchvision_targets():
        yield Target("torchvision", name)
        builder = name.partition(":")[2]
        for start, rate in TORCHVISION_RATES.items():
            if builder.startswith(start):
                yield Target("torchvision", f"{name[:-1]}, {rate})", rate)


def _timm() -> Iterator[Target]:
    names = list(timm_targets())
    from timm.models import _registry

    for name in names:
        yield Target("timm", name)
        module = sys.modules[f"timm.models.{_registry._model_to_module[name.split(chr(34))[1]]}"]
        source = inspect.getsource(module)
        rates = ", ".join(f"{rate}={value}" for rate, value in TIMM_RATES.items() if f"{rate}:" in source)
        if rates:
            yield Target("timm", f"{name[:-1]}, {rates})", rates)


def _transformers() -> Iterator[Target]:
    import transformers

    for model in TRANSFORMERS:
        name, _, arguments = model.rstrip(")").partition("(")
        if hasattr(transformers, name):
            config = getattr(transformers, name).config_class.__name__
            yield Target("transformers", f"transformers:{name}({config}({arguments}))")
