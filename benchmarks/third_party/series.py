"""Time series and EEG: tsai and braindecode."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from torch import nn

from .data import frames
from .entry import Entry, named

_SERIES = frames(32, 6, 48)
_EEG = frames(32, 12, 256)


def entries() -> dict[str, Entry]:
    """All of them."""
    return {**named("tsai", _tsai()), **named("braindecode", _braindecode())}


def _ts(name: str, module: str = "", **options: Any) -> nn.Module:
    build = getattr(import_module(f"tsai.models.{module or name}"), name)
    model: nn.Module = build(c_in=6, c_out=4, **options)
    return model


def _tsai() -> Iterator[Entry]:
    yield Entry(
        "TST",
        lambda: _ts("TST", seq_len=48, n_layers=2, d_model=32, n_heads=4, d_ff=64, dropout=0.3),
        _SERIES,
    )
    yield Entry(
        "TSTPlus",
        lambda: _ts(
            "TSTPlus", seq_len=48, n_layers=2, d_model=32, n_heads=4, d_ff=64, dropout=0.3, attn_dropout=0.1
        ),
        _SERIES,
    )
    yield Entry(
        "XCMPlus",
        lambda: _ts("XCMPlus", seq_len=48, nf=16, fc_dropout=0.4, concat_pool=True, bn=True),
        _SERIES,
    )
    yield Entry("XceptionTimePlus", lambda: _ts("XceptionTimePlus", nf=8), _SERIES)
    yield Entry(
        "LSTM_FCN",
        lambda: _ts(
            "LSTM_FCN",
            "RNN_FCN",
            seq_len=48,
            hidden_size=16,
            conv_layers=[16, 32, 16],
            rnn_dropout=0.8,
            fc_dropout=0.3,
        ),
        _SERIES,
    )
    yield Entry(
        "RNNPlus",
        lambda: _ts(
            "LSTMPlus", "RNNPlus", seq_len=48, hidden_size=[16, 16], rnn_dropout=0.3, fc_dropout=0.3, bn=True
        ),
        _SERIES,
    )
    yield Entry(
        "InceptionTimePlus",
        lambda: _ts("InceptionTimePlus", seq_len=48, nf=8, conv_dropout=0.2, sa=False),
        _SERIES,
    )


def _eeg(name: str, module: str, **options: Any) -> nn.Module:
    cls = getattr(import_module(f"braindecode.models.{module}"), name)
    model: nn.Module = cls(n_chans=12, n_outputs=4, n_times=256, **options)
    return model


def _braindecode() -> Iterator[Entry]:
    yield Entry("EEGNet", lambda: _eeg("EEGNet", "eegnet", drop_prob=0.3), _EEG)
    yield Entry(
        "Deep4Net",
        lambda: _eeg(
            "Deep4Net",
            "deep4",
            n_filters_time=8,
            n_filters_spat=8,
            n_filters_2=16,
            n_filters_3=16,
            n_filters_4=16,
            filter_time_length=5,
            filter_length_2=3,
            filter_length_3=3,
            filter_length_4=3,
            pool_time_length=2,
            pool_time_stride=2,
        ),
        _EEG,
    )
    yield Entry("EEGInceptionERP", lambda: _eeg("EEGInceptionERP", "eeginception_erp", n_filters=4), _EEG)
    yield Entry("EEGNeX", lambda: _eeg("EEGNeX", "eegnex", filter_2=8, kernel_block_1_2=16), _EEG)
    yield Entry(
        "ATCNet",
        lambda: _eeg(
            "ATCNet",
            "atcnet",
            conv_block_kernel_length_1=16,
            conv_block_n_filters=8,
            head_dim=4,
            n_windows=2,
            conv_block_pool_size_2=4,
        ),
        _EEG,
    )
    yield Entry("TIDNet", lambda: _eeg("TIDNet", "tidnet", s_growth=8, t_filters=8), _EEG)
