"""Medical images and segmentation: monai, dynamic_network_architectures, segmentation_models_pytorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from .data import images, volumes
from .entry import Entry, named

_SLICES = images(16, 32, 1)
_SCANS = volumes(8, 16)
_PHOTOS = images(16, 64)


def entries() -> dict[str, Entry]:
    """All of them."""
    return {
        **named("monai", _monai()),
        **named("dynamic-network-architectures", _nnunet()),
        **named("segmentation-models-pytorch", _segmentation()),
    }


def _net(name: str, *args: Any, **options: Any) -> nn.Module:
    from monai.networks import nets

    model: nn.Module = getattr(nets, name)(*args, **options)
    return model


def _monai() -> Iterator[Entry]:
    yield Entry(
        "UNet",
        lambda: _net("UNet", 3, 1, 2, (8, 16, 32), (2, 2), num_res_units=2, norm="batch", dropout=0.2),
        _SCANS,
    )
    yield Entry(
        "BasicUNet",
        lambda: _net("BasicUNet", 2, 1, 2, (8, 8, 16, 16, 32, 8), norm="batch", dropout=0.2),
        _SLICES,
    )
    yield Entry(
        "AttentionUnet", lambda: _net("AttentionUnet", 2, 1, 2, (8, 16, 32), (2, 2), dropout=0.2), _SLICES
    )
    yield Entry(
        "VNet",
        lambda: _net("VNet", 3, 1, 2, dropout_prob_down=0.3, dropout_prob_up=(0.3, 0.3)),
        volumes(4, 16),
        batches=3,
        passes=4,
    )
    yield Entry("DenseNet", lambda: _net("DenseNet", 2, 1, 5, 16, 8, (3, 4, 4), dropout_prob=0.2), _SLICES)
    yield Entry("SegResNet", lambda: _net("SegResNet", 2, 8, 1, 2, dropout_prob=0.2, norm="batch"), _SLICES)
    yield Entry(
        "DynUNet",
        lambda: _net(
            "DynUNet",
            2,
            1,
            2,
            (3, 3, 3),
            (1, 2, 2),
            (2, 2),
            (8, 16, 32),
            dropout=0.2,
            norm_name="batch",
            res_block=True,
        ),
        _SLICES,
    )
    yield Entry("HighResNet", lambda: _net("HighResNet", 2, 1, 2, dropout_prob=0.3), images(8, 24, 1))
    yield Entry(
        "Regressor",
        lambda: _net("Regressor", (1, 32, 32), (2,), (8, 16, 32), (2, 2, 2), norm="batch", dropout=0.2),
        _SLICES,
    )


def _nnunet() -> Iterator[Entry]:
    def build(name: str, **options: Any) -> nn.Module:
        from dynamic_network_architectures.architectures import unet

        model: nn.Module = getattr(unet, name)(
            input_channels=1,
            n_stages=3,
            features_per_stage=(8, 16, 32),
            conv_op=nn.Conv2d,
            kernel_sizes=3,
            strides=(1, 2, 2),
            num_classes=2,
            n_conv_per_stage_decoder=(1, 1),
            norm_op=nn.BatchNorm2d,
            norm_op_kwargs={},
            dropout_op=nn.Dropout2d,
            dropout_op_kwargs={"p": 0.2},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            **options,
        )
        return model

    yield Entry("PlainConvUNet", lambda: build("PlainConvUNet", n_conv_per_stage=(2, 2, 2)), _SLICES)
    yield Entry(
        "ResidualEncoderUNet", lambda: build("ResidualEncoderUNet", n_blocks_per_stage=(1, 2, 2)), _SLICES
    )


def _segmentation() -> Iterator[Entry]:
    def build(name: str, encoder: str = "resnet18", **options: Any) -> nn.Module:
        import segmentation_models_pytorch as smp

        model: nn.Module = getattr(smp, name)(encoder, encoder_weights=None, classes=3, **options)
        return model

    yield Entry("FPN", lambda: build("FPN", decoder_dropout=0.3), _PHOTOS)
    yield Entry("PSPNet", lambda: build("PSPNet", psp_dropout=0.3), _PHOTOS)
    yield Entry("DeepLabV3Plus", lambda: build("DeepLabV3Plus", decoder_aspp_dropout=0.5), images(8, 64))
    yield Entry("Unet-efficientnet", lambda: build("Unet", "efficientnet-b0"), images(8, 64))
