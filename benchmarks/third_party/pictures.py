"""Images and fields: pytorchcv, efficientnet_pytorch, geffnet, resnest, dropblock, vit-pytorch and others."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from .data import images
from .entry import Entry, named

_SMALL = images(32, 32)
_WIDE = images(16, 64)
_SCENE = images(8, 64)


def entries() -> dict[str, Entry]:
    """All of them."""
    return {
        **named("pytorchcv", _pytorchcv()),
        **named("vit-pytorch", _transformers()),
        **named("efficientnet-pytorch", _efficientnet_pytorch()),
        **named("geffnet", _geffnet()),
        **named("resnest", _resnest()),
        **named("dropblock", _dropblock()),
        **named("bitorch", _bitorch()),
        **named("neuraloperator", _neuraloperator()),
    }


def _cv(name: str, **options: Any) -> nn.Module:
    from pytorchcv.model_provider import get_model

    model: nn.Module = get_model(name, **options)
    return model


def _cv_class(module: str, name: str, **options: Any) -> nn.Module:
    model: nn.Module = getattr(import_module(f"pytorchcv.models.{module}"), name)(**options)
    return model


def _densenet() -> nn.Module:
    return _cv_class(
        "densenet_cifar",
        "CIFARDenseNet",
        channels=[[24, 32, 40, 48], [36, 44, 52], [38, 46]],
        init_block_channels=16,
        bottleneck=False,
        dropout_rate=0.2,
    )


def _fractal() -> nn.Module:
    return _cv_class(
        "fractalnet_cifar",
        "CIFARFractalNet",
        channels=[8, 16, 24, 32, 32],
        num_columns=3,
        dropout_probs=[0.0, 0.1, 0.2, 0.3, 0.4],
        loc_drop_prob=0.15,
        glob_drop_ratio=0.5,
    )


def _pytorchcv() -> Iterator[Entry]:
    yield Entry("shakedrop-resnet20", lambda: _cv("shakedropresnet20_cifar10"), _SMALL, passes=8)
    yield Entry("shakeshake-resnet20", lambda: _cv("shakeshakeresnet20_2x16d_cifar10"), _SMALL, passes=8)
    yield Entry("resdrop-resnet20", lambda: _cv("resdropresnet20_cifar10"), _SMALL, passes=8)
    yield Entry("fractalnet", _fractal, _SMALL, passes=12)
    yield Entry("densenet", _densenet, _SMALL)
    yield Entry("erfnet", lambda: _cv("erfnet_cityscapes", num_classes=5, in_size=(64, 64)), _SCENE)
    yield Entry("enet", lambda: _cv("enet_cityscapes", num_classes=5, in_size=(64, 64)), _SCENE)
    yield Entry("edanet", lambda: _cv("edanet_cityscapes", num_classes=5, in_size=(64, 64)), _SCENE)
    yield Entry("esnet", lambda: _cv("esnet_cityscapes", num_classes=5, in_size=(64, 64)), _SCENE)


def _vit(module: str, name: str, **options: Any) -> nn.Module:
    model: nn.Module = getattr(import_module(f"vit_pytorch.{module}"), name)(num_classes=10, **options)
    return model


def _transformers() -> Iterator[Entry]:
    yield Entry(
        "LeViT",
        lambda: _vit(
            "levit",
            "LeViT",
            image_size=64,
            stages=2,
            dim=(32, 48),
            depth=2,
            heads=(2, 3),
            mlp_mult=2,
            dropout=0.2,
        ),
        _WIDE,
    )
    yield Entry(
        "CvT",
        lambda: _vit(
            "cvt",
            "CvT",
            s1_emb_dim=16,
            s2_emb_dim=32,
            s3_emb_dim=48,
            s2_heads=2,
            s3_heads=3,
            s3_depth=2,
            dropout=0.2,
        ),
        _WIDE,
    )
    yield Entry(
        "MaxViT",
        lambda: _vit(
            "max_vit",
            "MaxViT",
            dim_conv_stem=16,
            dim=16,
            dim_head=8,
            depth=(2, 2),
            window_size=4,
            dropout=0.2,
        ),
        _WIDE,
    )


def _efficientnet_pytorch() -> Iterator[Entry]:
    def build(**options: Any) -> nn.Module:
        from efficientnet_pytorch import EfficientNet

        model: nn.Module = EfficientNet.from_name("efficientnet-b0", image_size=64, num_classes=10, **options)
        return model

    yield Entry("b0", lambda: build(drop_connect_rate=0.3), _WIDE)


def _geffnet() -> Iterator[Entry]:
    def build(name: str) -> nn.Module:
        import geffnet

        model: nn.Module = getattr(geffnet, name)(drop_connect_rate=0.3, drop_rate=0.3, num_classes=10)
        return model

    yield Entry("efficientnet_b0", lambda: build("efficientnet_b0"), _WIDE)
    yield Entry("mixnet_s", lambda: build("mixnet_s"), _WIDE)


def _resnest() -> Iterator[Entry]:
    def build() -> nn.Module:
        from resnest.torch.resnet import Bottleneck, ResNet

        model: nn.Module = ResNet(
            Bottleneck,
            [1, 1, 1, 1],
            radix=2,
            groups=1,
            bottleneck_width=16,
            stem_width=8,
            deep_stem=True,
            avg_down=True,
            num_classes=10,
            final_drop=0.2,
        )
        return model

    yield Entry("resnest", build, _WIDE)


class _Dropped(nn.Module):
    """The package's example: a ResNet with DropBlock behind its first two stages."""

    def __init__(self, scheduled: bool) -> None:
        from dropblock import DropBlock2D, LinearScheduler
        from torchvision.models.resnet import BasicBlock, ResNet

        super().__init__()
        self.net = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
        self.dropblock: Any = DropBlock2D(0.2, 3)
        if scheduled:
            self.dropblock = LinearScheduler(self.dropblock, start_value=0.2, stop_value=0.3, nr_steps=5)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self.dropblock, "step"):
            self.dropblock.step()
        net = self.net
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        x = self.dropblock(net.layer1(x))
        x = self.dropblock(net.layer2(x))
        x = net.avgpool(net.layer4(net.layer3(x)))
        out: Tensor = net.fc(x.flatten(1))
        return out


def _dropblock() -> Iterator[Entry]:
    yield Entry("resnet", lambda: _Dropped(False), _WIDE)
    yield Entry("resnet-scheduled", lambda: _Dropped(True), _WIDE)


def _bitorch() -> Iterator[Entry]:
    def build() -> nn.Module:
        from bitorch.models import DenseNet28

        return DenseNet28(input_shape=[4, 3, 32, 32], num_classes=4, dropout=0.3)

    yield Entry("DenseNet28", build, images(4, 32))


def _neuraloperator() -> Iterator[Entry]:
    def build() -> nn.Module:
        from neuralop.layers.fno_block import FNOBlocks

        return Blocks(FNOBlocks(8, 8, (4, 4), n_layers=2, norm="batch_norm", channel_mlp_dropout=0.3), 2)

    yield Entry("FNOBlocks", build, images(8, 16, 8))


class Blocks(nn.Module):
    """A module that holds several blocks and is told which to run, all of them one after another."""

    def __init__(self, blocks: nn.Module, count: int) -> None:
        super().__init__()
        self.blocks, self.count = blocks, count

    def forward(self, x: Tensor) -> Tensor:
        for index in range(self.count):
            x = self.blocks(x, index)
        return x
