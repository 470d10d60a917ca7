"""Tables and clicks: rtdl, fastai, torchfm, torch-rechub and DeepCTR-Torch."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from .data import ids, images, rows
from .entry import Entry, named

_ROWS = 256
_FIELDS = (40, 30, 20, 12, 50, 8)


def entries() -> dict[str, Entry]:
    """All of them."""
    return {
        **named("rtdl", _rtdl()),
        **named("fastai", _fastai()),
        **named("torchfm", _torchfm()),
        **named("torch-rechub", _rechub()),
        **named("deepctr-torch", _deepctr()),
    }


def _rtdl() -> Iterator[Entry]:
    def resnet() -> nn.Module:
        import rtdl

        model: nn.Module = rtdl.ResNet.make_baseline(
            d_in=20, n_blocks=3, d_main=32, d_hidden=48, dropout_first=0.3, dropout_second=0.2, d_out=1
        )
        return model

    yield Entry("ResNet", resnet, rows(_ROWS))


def _mixed(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return ids(_ROWS, _FIELDS)(generator), rows(_ROWS, 8)(generator)


def _texts(generator: torch.Generator) -> Tensor:
    return ids(32, (200,) * 30)(generator)


def _fastai() -> Iterator[Entry]:
    def tabular(**options: Any) -> nn.Module:
        from fastai.tabular.model import TabularModel

        model: nn.Module = TabularModel(
            [(size, 6) for size in _FIELDS], 8, 2, [48, 32], ps=[0.2, 0.4], embed_p=0.1, **options
        )
        return model

    def head() -> nn.Module:
        from fastai.vision.learner import create_vision_model
        from torchvision.models import resnet18

        model: nn.Module = create_vision_model(resnet18, 10, pretrained=False, lin_ftrs=[64, 32], ps=0.5)
        return model

    def text() -> nn.Module:
        from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config
        from fastai.text.models.core import get_text_classifier

        config = {**awd_lstm_clas_config, "emb_sz": 16, "n_hid": 24, "n_layers": 2}
        model: nn.Module = get_text_classifier(
            AWD_LSTM, 200, 2, seq_len=16, config=config, drop_mult=0.5, lin_ftrs=[24]
        )
        return model

    yield Entry("TabularModel", tabular, _mixed)
    yield Entry("TabularModel-bn-first", lambda: tabular(lin_first=False, bn_final=True), _mixed)
    yield Entry("vision_model", head, images(32, 32))
    yield Entry("text_classifier", text, _texts)


def _fm(module: str, name: str, **options: Any) -> nn.Module:
    model: nn.Module = getattr(import_module(f"torchfm.model.{module}"), name)(list(_FIELDS), 8, **options)
    return model


def _torchfm() -> Iterator[Entry]:
    clicks = ids(_ROWS, _FIELDS)
    mlp = {"mlp_dims": (32, 32, 16), "dropout": 0.3}
    yield Entry("WideAndDeep", lambda: _fm("wd", "WideAndDeepModel", **mlp), clicks)
    yield Entry(
        "NFM",
        lambda: _fm("nfm", "NeuralFactorizationMachineModel", mlp_dims=(32, 32), dropouts=(0.2, 0.4)),
        clicks,
    )
    yield Entry(
        "xDeepFM",
        lambda: _fm("xdfm", "ExtremeDeepFactorizationMachineModel", **mlp, cross_layer_sizes=(8, 8)),
        clicks,
    )
    yield Entry("PNN", lambda: _fm("pnn", "ProductNeuralNetworkModel", **mlp), clicks)
    yield Entry(
        "AutoInt",
        lambda: _fm(
            "afi",
            "AutomaticFeatureInteractionModel",
            atten_embed_dim=16,
            num_heads=2,
            num_layers=2,
            mlp_dims=(32, 32),
            dropouts=(0.2, 0.4),
        ),
        clicks,
    )


def _features() -> tuple[list[Any], list[Any]]:
    from torch_rechub.basic.features import DenseFeature, SparseFeature

    sparse = [SparseFeature(f"s{i}", vocab_size=size, embed_dim=8) for i, size in enumerate(_FIELDS)]
    return sparse, [DenseFeature(f"d{i}") for i in range(8)]


def _columns(generator: torch.Generator) -> tuple[dict[str, Tensor]]:
    categories, numbers = _mixed(generator)
    columns = {f"s{i}": categories[:, i] for i in range(len(_FIELDS))}
    return ({**columns, **{f"d{i}": numbers[:, i] for i in range(8)}},)


def _rechub() -> Iterator[Entry]:
    mlp = {"dims": [32, 32, 16], "dropout": 0.3, "activation": "relu"}

    def wide() -> nn.Module:
        from torch_rechub.models.ranking import WideDeep

        sparse, dense = _features()
        return WideDeep(sparse, sparse + dense, mlp)

    def deep_fm() -> nn.Module:
        from torch_rechub.models.ranking import DeepFM

        sparse, dense = _features()
        return DeepFM(sparse + dense, sparse, mlp)

    def mmoe() -> nn.Module:
        from torch_rechub.models.multi_task import MMOE

        sparse, dense = _features()
        tower = {"dims": [16, 8], "dropout": 0.3}
        return MMOE(
            sparse + dense,
            ["classification", "classification"],
            3,
            {"dims": [32, 16], "dropout": 0.3},
            [tower, tower],
        )

    yield Entry("WideDeep", wide, _columns)
    yield Entry("DeepFM", deep_fm, _columns)
    yield Entry("MMOE", mmoe, _columns)


def _joined(generator: torch.Generator) -> Tensor:
    categories, numbers = _mixed(generator)
    return torch.cat([categories.float(), numbers], 1)


def _deepctr() -> Iterator[Entry]:
    def build(name: str, linear: bool = True, **options: Any) -> nn.Module:
        from deepctr_torch import models
        from deepctr_torch.inputs import DenseFeat, SparseFeat

        columns = [SparseFeat(f"s{i}", size, embedding_dim=8) for i, size in enumerate(_FIELDS)]
        columns += [DenseFeat(f"d{i}", 1) for i in range(8)]
        options = {"dnn_hidden_units": (48, 32, 16), "dnn_dropout": 0.3, "init_std": 0.1, **options}
        model: nn.Module = getattr(models, name)(*([columns, columns] if linear else [columns]), **options)
        return model

    yield Entry("DeepFM", lambda: build("DeepFM", dnn_use_bn=True), _joined)
    yield Entry("DCN", lambda: build("DCN", dnn_use_bn=True), _joined)
    yield Entry("xDeepFM", lambda: build("xDeepFM", dnn_use_bn=True, cin_layer_size=(16, 16)), _joined)
    yield Entry("AutoInt", lambda: build("AutoInt", dnn_use_bn=True), _joined)
    yield Entry("ONN", lambda: build("ONN", dnn_use_bn=True), _joined)
