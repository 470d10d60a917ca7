"""Speech and music: speechbrain, torchaudio, conformer, openunmix, asteroid, and pytorchcv's Jasper."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .data import frames
from .entry import Entry, named

_FRAMES = frames(32, 24, 40, last=True)


def entries() -> dict[str, Entry]:
    """All of them."""
    return {
        **named("speechbrain", _speechbrain()),
        **named("torchaudio", _torchaudio()),
        **named("conformer", _conformer()),
        **named("openunmix", _openunmix()),
        **named("asteroid", _asteroid()),
        **named("pytorchcv", _jasper()),
    }


def _speechbrain() -> Iterator[Entry]:
    def ecapa() -> nn.Module:
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

        return ECAPA_TDNN(
            24,
            channels=[32, 32, 32, 96],
            kernel_sizes=[5, 3, 3, 1],
            dilations=[1, 2, 3, 1],
            groups=[1, 1, 1, 1],
            attention_channels=16,
            res2net_scale=4,
            se_channels=16,
            lin_neurons=24,
            dropout=0.3,
        )

    def contextnet() -> nn.Module:
        from speechbrain.lobes.models.ContextNet import ContextNet

        return ContextNet(
            (None, None, 24),
            32,
            [16, 32],
            strides=[1, 2],
            num_blocks=2,
            num_layers=2,
            inner_dim=8,
            dropout=0.2,
            residuals=[True, True],
        )

    def crdnn() -> nn.Module:
        from speechbrain.lobes.models.CRDNN import CRDNN

        return CRDNN(
            input_shape=(None, None, 24),
            dropout=0.3,
            cnn_channels=[8, 8],
            rnn_layers=1,
            rnn_neurons=24,
            dnn_blocks=2,
            dnn_neurons=32,
        )

    yield Entry("ECAPA_TDNN", ecapa, _FRAMES)
    yield Entry("ContextNet", contextnet, _FRAMES)
    yield Entry("CRDNN", crdnn, _FRAMES)


def _lengths(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = _FRAMES(generator)
    lengths = torch.randint(30, 41, (len(x),), generator=generator)
    lengths[0] = 40
    return x, lengths


def _torchaudio() -> Iterator[Entry]:
    def conformer() -> nn.Module:
        from torchaudio.models import Conformer

        return Conformer(24, 4, 48, 3, 7, dropout=0.2)

    yield Entry("Conformer", conformer, _lengths)


def _conformer() -> Iterator[Entry]:
    def build() -> nn.Module:
        from conformer import ConformerBlock

        # `Conformer` does not hand its dropouts on to its blocks
        options = {"dim_head": 8, "heads": 3, "ff_mult": 2, "conv_kernel_size": 7}
        rates = {"attn_dropout": 0.2, "ff_dropout": 0.2, "conv_dropout": 0.2}
        return nn.Sequential(*(ConformerBlock(dim=24, **options, **rates) for _ in range(3)))

    yield Entry("ConformerBlock", build, _FRAMES)


def _openunmix() -> Iterator[Entry]:
    def build() -> nn.Module:
        from openunmix.model import OpenUnmix

        return OpenUnmix(nb_bins=24, nb_channels=1, hidden_size=32, nb_layers=3)

    yield Entry("OpenUnmix", build, lambda generator: frames(32, 24, 40)(generator)[:, None].abs())


def _asteroid() -> Iterator[Entry]:
    def build() -> nn.Module:
        from asteroid.masknn import DPRNN

        return DPRNN(24, 2, bn_chan=16, hid_size=16, chunk_size=10, n_repeats=2, norm_type="bN", dropout=0.2)

    yield Entry("DPRNN", build, frames(16, 24, 40))


def _jasper() -> Iterator[Entry]:
    def build() -> nn.Module:
        from pytorchcv.models.jasper import Jasper

        return Jasper(
            channels=[16, 24, 24, 32],
            kernel_sizes=[5, 5, 5, 1],
            bn_eps=1e-3,
            dropout_rates=[0.2, 0.2, 0.3, 0.3],
            repeat=2,
            use_dw=False,
            use_dr=False,
            from_audio=False,
            in_channels=24,
            num_classes=12,
        )

    yield Entry("jasper", build, _lengths_first)


def _lengths_first(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x, lengths = _lengths(generator)
    return x.transpose(1, 2).contiguous(), lengths
