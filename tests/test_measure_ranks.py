"""Two processes over gloo measure what one process measures on the same data."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from dropout_lint.errors import MeasureError
from dropout_lint.measurement import Shift, measure

WORLD = 2
BATCHES = 5  # an odd number, so that the ranks have different amounts


def net() -> nn.Sequential:
    torch.manual_seed(11)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8),
        nn.Dropout2d(0.5),
        nn.BatchNorm2d(8),
    )


def trained() -> nn.Sequential:
    model = net()
    for batch in data():
        model(batch)
    return model


def data() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    # sizes differ, and so do means: an average of averages would be wrong
    return [torch.randn(4 + 3 * i, 3, 8, 8, generator=generator) + i for i in range(BATCHES)]


OPTIONS: dict[str, Any] = {"tolerance": None, "seed": 42, "device": "cpu"}


def plain(shift: Shift) -> dict[str, Any]:
    """What of a shift is compared."""
    return {
        "delta": shift.delta,
        "half_width": {norm.name: norm.half_width for norm in shift.norms},
        "train_mean": {norm.name: norm.train_mean for norm in shift.norms},
        "alone": {drop: dict(deltas) for drop, deltas in shift.alone.items()},
        "batches": shift.batches,
        "samples": shift.samples,
        "world": shift.world,
        "notes": shift.notes,
    }


def error_of(model: nn.Module, batches: Any, **options: Any) -> str:
    try:
        measure(model, batches, **OPTIONS | options)
    except MeasureError as error:
        return error.message
    return "none"


def broken(rank: int) -> Iterator[Tensor]:
    yield data()[0]
    if rank == 1:
        raise OSError("disk gone")
    yield data()[1]
    yield data()[2]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    results: dict[str, Any] = {}
    try:
        results["shared"] = plain(measure(net(), data(), shard=True, per_dropout=True, **OPTIONS))
        results["own"] = plain(measure(net(), data()[rank::WORLD], **OPTIONS))
        results["stored"] = plain(measure(trained(), data(), shard=True, **OPTIONS))
        results["limit"] = plain(measure(net(), data(), shard=True, max_batches=3, **OPTIONS))
        results["ddp"] = plain(measure(DistributedDataParallel(net()), data(), shard=True, **OPTIONS))
        results["early"] = plain(measure(trained(), data() * 20, shard=True, **OPTIONS | {"tolerance": 0.3}))
        sharded = net()
        for layer in (sharded[0], sharded[4], sharded):
            fully_shard(layer)
        before = {name: value.to_local().clone() for name, value in sharded.named_parameters()}
        results["fsdp"] = plain(measure(sharded, data(), shard=True, max_batches=4, **OPTIONS))
        results["fsdp uneven"] = plain(measure(sharded, data(), shard=True, **OPTIONS))
        results["fsdp untouched"] = all(
            torch.equal(value.to_local(), before[name]) for name, value in sharded.named_parameters()
        )
        loss = sharded(data()[1]).sum()  # it still trains
        loss.backward()
        results["fsdp trains"] = all(parameter.grad is not None for parameter in sharded.parameters())
        results["broken"] = error_of(net(), broken(rank))
        results["different"] = error_of(net() if rank == 0 else nn.Sequential(nn.BatchNorm2d(3)), data())
        results["half empty"] = plain(measure(net(), data() if rank == 0 else [], **OPTIONS))
        results["empty"] = error_of(net(), [])
        torch.save(results, f"{folder}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, args=(str(folder),), nprocs=WORLD)
    return [torch.load(Path(folder) / f"rank{rank}.pt", weights_only=False) for rank in range(WORLD)]


def assert_same(found: dict[str, Any], alone: Shift) -> None:
    expected = plain(alone)
    assert found["world"] == WORLD
    assert found["batches"] == expected["batches"]
    assert found["samples"] == expected["samples"]
    assert found["delta"] == pytest.approx(expected["delta"], rel=1e-6)
    for name, mean in expected["train_mean"].items():
        assert torch.allclose(found["train_mean"][name], mean, rtol=1e-6, atol=1e-9)
    for drop, deltas in expected["alone"].items():
        assert found["alone"][drop] == pytest.approx(deltas, rel=1e-6)


@pytest.mark.parametrize("rank", range(WORLD))
@pytest.mark.parametrize("case", ["shared", "own", "ddp"])
def test_two_processes_equal_one(ranks: list[dict[str, Any]], case: str, rank: int) -> None:
    assert_same(ranks[rank][case], measure(net(), data(), per_dropout=case == "shared", **OPTIONS))


def test_stored_statistics_over_ranks(ranks: list[dict[str, Any]]) -> None:
    alone = measure(trained(), data(), **OPTIONS)
    assert alone.statistics == "stored"
    assert_same(ranks[0]["stored"], alone)
    # the replicates are the same batches, so the interval is as well
    assert ranks[0]["stored"]["half_width"] == pytest.approx(plain(alone)["half_width"], rel=1e-6)


def test_the_limit_counts_batches_of_all_ranks(ranks: list[dict[str, Any]]) -> None:
    assert_same(ranks[1]["limit"], measure(net(), data(), max_batches=3, **OPTIONS))


def test_the_ranks_stop_together(ranks: list[dict[str, Any]]) -> None:
    early = [rank["early"] for rank in ranks]
    assert early[0]["delta"] == early[1]["delta"]
    assert early[0]["batches"] == early[1]["batches"] < 20 * BATCHES
    assert early[0]["batches"] % WORLD == 0


def test_fsdp2_shards_are_measured_where_they_are(ranks: list[dict[str, Any]]) -> None:
    assert_same(ranks[0]["fsdp"], measure(net(), data(), max_batches=4, **OPTIONS))
    assert all(rank["fsdp untouched"] and rank["fsdp trains"] for rank in ranks)


def test_fsdp2_ranks_of_different_length_do_not_wait_for_each_other(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["fsdp uneven"]["batches"] == 4
    assert any("differ in length" in note for note in ranks[0]["fsdp uneven"]["notes"])


def test_a_rank_that_fails_stops_all(ranks: list[dict[str, Any]]) -> None:
    assert "disk gone" in ranks[1]["broken"]
    assert "failed on rank 1" in ranks[0]["broken"]


def test_ranks_with_different_models_are_refused(ranks: list[dict[str, Any]]) -> None:
    assert all("same norms" in rank["different"] for rank in ranks)


def test_a_rank_without_batches_gets_the_result_of_the_others(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["half empty"]["delta"] == ranks[1]["half empty"]["delta"]
    assert ranks[0]["half empty"]["batches"] == BATCHES
    assert all("no batch" in rank["empty"] for rank in ranks)


def test_wrappers_are_looked_through_in_one_process() -> None:
    model = net()
    plain_shift = measure(model, data(), **OPTIONS)
    for wrapped in (nn.DataParallel(copy.deepcopy(model)), torch.compile(copy.deepcopy(model))):
        assert measure(wrapped, data(), **OPTIONS).delta == plain_shift.delta
