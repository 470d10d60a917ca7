"""Models that people use: the known truths about torchvision's and timm's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dropout_lint.inputs.example import Inputs
from dropout_lint.loading.compat import declare_missing_schemas
from dropout_lint.prediction import predict
from dropout_lint.rules import load_rules
from dropout_lint.survey.placements import Survey
from dropout_lint.survey.surveyor import survey
from dropout_lint.trace import trace

RULES = load_rules()


@pytest.fixture(scope="module", autouse=True)
def schemas() -> None:
    declare_missing_schemas()


def torchvision_model(name: str, **options: Any) -> nn.Module:
    import torchvision

    with torch.device("meta"):
        if name == "deeplabv3_resnet50":
            options |= {"weights": None, "weights_backbone": None}
            return torchvision.models.segmentation.deeplabv3_resnet50(**options)
        return getattr(torchvision.models, name)(**options)


def timm_model(name: str, **options: Any) -> nn.Module:
    import timm

    with torch.device("meta"):
        return timm.create_model(name, **options)


def look(model: nn.Module, size: int = 224) -> tuple[Survey, dict[str, set[str]]]:
    """The survey of a model, and the codes of its findings by dropout."""
    recorded = trace(model, Inputs(args=(torch.empty(2, 3, size, size, device="meta"),)))
    surveyed = survey(recorded, predict(recorded))
    codes: dict[str, set[str]] = {}
    for finding in RULES.match(surveyed):
        assert finding.dropout is not None
        codes.setdefault(finding.dropout.name.partition("@")[0], set()).add(finding.rule.code)
    return surveyed, codes


def positions(surveyed: Survey) -> dict[str, str | None]:
    return {place.dropout.name.partition("@")[0]: place.facts.position for place in surveyed.placements}


def test_mobilenet_v2_is_h5() -> None:
    surveyed, codes = look(torchvision_model("mobilenet_v2"))
    assert positions(surveyed) == {"classifier.0": "H5"}
    assert codes == {"classifier.0": {"DL301"}}


def test_efficientnets_head_is_h5() -> None:
    surveyed, codes = look(torchvision_model("efficientnet_b0", stochastic_depth_prob=0.0))
    assert positions(surveyed)["classifier.0"] == "H5"
    assert codes == {"classifier.0": {"DL301"}}
    surveyed, codes = look(timm_model("efficientnet_b0", drop_rate=0.2))
    assert positions(surveyed) == {"": "H5"} and codes == {"": {"DL301"}}


def test_stochastic_depth_is_only_judged_by_delta() -> None:
    surveyed, codes = look(timm_model("resnet50", drop_path_rate=0.1, drop_block_rate=0.1))
    noises = {place.facts.noise for place in surveyed.placements}
    assert noises == {"sample", "block"}
    assert set().union(*codes.values()) <= {"DL104"}


@pytest.mark.parametrize("name", ["vgg11_bn", "alexnet", "squeezenet1_1", "mobilenet_v3_small"])
def test_classifiers_with_no_norm_behind_them_are_clean(name: str) -> None:
    surveyed, codes = look(torchvision_model(name))
    assert surveyed.placements and codes == {}
    assert all(place.facts.at_guideline for place in surveyed.placements)


def test_transformers_are_clean() -> None:
    vit = timm_model(
        "vit_tiny_patch16_224", drop_rate=0.1, proj_drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.1
    )
    surveyed, codes = look(vit)
    assert len(surveyed.placements) > 60 and codes == {}


def test_densenets_dropout_is_directly_before_the_next_norm() -> None:
    surveyed, codes = look(torchvision_model("densenet121", drop_rate=0.2), size=64)
    layers = {name for name in codes if "denselayer" in name}
    assert len(layers) == 58 and set().union(*codes.values()) == {"DL101"}
    first = next(place for place in surveyed.placements)
    assert first.norm is not None and first.norm.name == "features.denseblock1.denselayer2.norm1"
    assert (first.facts.weights_between, first.facts.concats_between) == (0, 1)


def test_deeplabs_aspp_dropout_is_case_b() -> None:
    surveyed, codes = look(torchvision_model("deeplabv3_resnet50"), size=64)
    (place,) = surveyed.placements
    assert place.dropout.name == "classifier.0.project.3"
    assert place.norm is not None and place.norm.name == "classifier.2"
    assert (place.facts.weights_between, place.facts.position) == (1, "H1")
    # 2304 inputs: mild once trained (.88 is expected), and below the threshold all the same
    assert codes == {"classifier.0.project.3": {"DL102"}}


def test_auxiliary_heads_are_heads_of_their_own() -> None:
    surveyed, codes = look(torchvision_model("googlenet", init_weights=False))
    assert positions(surveyed) == {"aux1.dropout": None, "aux2.dropout": None, "dropout": "H5"}
    assert codes == {"dropout": {"DL301"}}
