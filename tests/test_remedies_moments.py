"""Moments: exact mean and variance over batches of any size, and over ranks."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed as dist
from torch import multiprocessing

from dropout_lint.measurement.streaming import Moments, all_reduce_moments


def reference(x: torch.Tensor, channel_dim: int = 1) -> torch.Tensor:
    return x.double().movedim(channel_dim, -1).flatten(0, -2)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    channels=st.integers(1, 6),
    tail=st.sampled_from([(), (1, 1), (7,), (3, 4), (2, 3, 2)]),
    mean=st.sampled_from([0.0, -3.0, 3000.0]),
    seed=st.integers(0, 2**16),
    last=st.booleans(),
)
def test_equals_the_moments_of_all_samples_at_once(*, sizes, channels, tail, mean, seed, last):
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(n, channels, *tail, generator=generator) + mean for n in sizes]
    moments = Moments(channels)
    for batch in batches:
        if last:
            moments.update(batch.movedim(1, -1), channel_dim=-1)
        else:
            moments.update(batch)
    everything = reference(torch.cat(batches))
    assert moments.count == len(everything)
    if len(everything) == 0:
        assert moments.variance().isnan().all()
        return
    tolerance = 1e-5 + abs(mean) * 1e-7
    torch.testing.assert_close(moments.mean, everything.mean(0), rtol=0, atol=tolerance)
    torch.testing.assert_close(moments.variance(0), everything.var(0, correction=0), rtol=1e-4, atol=1e-6)
    if len(everything) > 1:
        torch.testing.assert_close(moments.variance(), everything.var(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(20_000, 3, 1, 1), (200, 3, 10, 10)])
def test_a_large_mean_does_not_cancel_in_any_layout(layout, shape):
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 3000).to(memory_format=layout)
    moments = Moments(3)
    for batch in x.split(37):
        moments.update(batch)
    torch.testing.assert_close(moments.variance(), reference(x).var(0), rtol=1e-5, atol=0)
    # what E[x²] − E[x]² in float32 gives
    naive = x.pow(2).mean((0, 2, 3)) - x.mean((0, 2, 3)) ** 2
    assert (naive - reference(x).var(0)).abs().max() > 0.1


def test_half_precision_is_counted_in_float32():
    x = torch.randn(500, 4, 3, 3, generator=torch.Generator().manual_seed(1)).bfloat16()
    moments = Moments(4)
    moments.update(x)
    torch.testing.assert_close(moments.variance(), reference(x).var(0), rtol=1e-5, atol=0)


def test_merge_is_the_same_as_one_pass():
    x = torch.randn(31, 4, generator=torch.Generator().manual_seed(2)) * 5 + 7
    whole, left, right = Moments(4), Moments(4), Moments(4)
    whole.update(x)
    left.update(x[:9])
    right.update(x[9:])
    left.merge(right)
    left.merge(Moments(4))
    assert left.count == whole.count == 31
    torch.testing.assert_close(left.mean, whole.mean)
    # within a batch, sums of deviations are float32
    torch.testing.assert_close(left.variance(), whole.variance(), rtol=1e-5, atol=0)
    torch.testing.assert_close(left.second_moment(), reference(x).pow(2).mean(0))


def _rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=Path(folder, "store").as_uri(), rank=rank, world_size=world)
    try:
        x = torch.arange(60, dtype=torch.float32).view(30, 2) + 3000
        first, second = Moments(2), Moments(1)
        first.update((x[:7], x[7:])[rank])
        second.update((x[:0, :1], x[:, :1])[rank])
        all_reduce_moments([first, second])
        for moments, wanted in ((first, x), (second, x[:, :1])):
            assert moments.count == 30
            torch.testing.assert_close(moments.mean, reference(wanted).mean(0))
            torch.testing.assert_close(moments.variance(), reference(wanted).var(0))
        Path(folder, f"passed-{rank}").touch()
    finally:
        dist.destroy_process_group()


def test_ranks_are_merged_even_if_one_saw_nothing(tmp_path):
    run = functools.partial(multiprocessing.spawn, _rank, nprocs=2)
    run(args=(2, str(tmp_path)))
    assert sorted(path.name for path in tmp_path.glob("passed-*")) == ["passed-0", "passed-1"]
