"""What a trace says of every dropout and norm, that its graph runs, and that the model is left alone."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import fx, nn

from dropout_lint.api import lint
from dropout_lint.errors import InputError, TraceError
from dropout_lint.inputs.example import Inputs, Location
from dropout_lint.layers import Catalogue, ExtraDropout, Noise
from dropout_lint.trace import Trace, trace

VECTOR = torch.randn(4, 8)
IMAGE = torch.randn(2, 3, 16, 16)


def graph_module(found: Trace) -> fx.GraphModule:
    model = found.model
    root: dict[str, Any] = {name: module for name, module in model.named_modules() if name}
    root |= dict(model.named_parameters()) | dict(model.named_buffers()) | dict(found.constants)
    return fx.GraphModule(root, found.graph)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.drop = nn.Dropout2d(0.2)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.drop(self.conv(x))))
        x = F.dropout(x, 0.3, self.training)
        x = F.adaptive_avg_pool2d(x, 1)
        return self.head(x.view(x.size(0), -1))


class Holders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 8, num_layers=2, dropout=0.3, batch_first=True)
        self.attend = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(x)
        y = y + self.attend(y, y, y)[0]
        return x + F.scaled_dot_product_attention(y, y, y, dropout_p=0.1)


def test_dropouts_inside_a_layer_have_the_column_of_its_call() -> None:
    found = trace(Holders(), Inputs((torch.randn(2, 5, 8),)))
    lines, start = inspect.getsourcelines(Holders.forward)
    calls = [site.call for site in found.dropouts]
    heads = [lines[call.line - start][call.column - 1 :][:8] for call in calls if call is not None]
    assert heads == ["self.rnn", "self.att", "F.scaled"]


def test_names_kinds_and_lines() -> None:
    found = trace(Net(), Inputs((IMAGE,)))
    module, function = found.dropouts
    lines, start = inspect.getsourcelines(Net.forward)
    assert (module.name, module.spec.kind, module.spec.noise, module.spec.p) == (
        "drop",
        "Dropout2d",
        Noise.CHANNEL,
        0.2,
    )
    assert module.call is not None
    assert (Path(module.call.file), module.call.line) == (Path(__file__), start + 1)
    assert lines[1][module.call.column - 1 :].startswith("self.drop(")
    assert function.functional
    assert function.name == f"@{Path(__file__).name}:{start + 2}"
    assert [norm.name for norm in found.norms] == ["bn"]
    assert found.norms[0].spec.shifts


def test_construction_lines_come_from_the_target_room() -> None:
    model = Net()
    place = Location("model.py", 7)
    found = trace(model, Inputs((IMAGE,)), constructed={id(model.drop): place})
    assert found.dropouts[0].constructed == place


@pytest.mark.parametrize("train", [True, False])
def test_modes_of_every_form(train: bool) -> None:
    class Modes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.module(x)
            x = F.dropout(x, 0.5, self.training)
            x = F.dropout(x, 0.5)
            x = nn.Dropout(0.5)(x)
            x = F.dropout(x, 0.5, training=False)
            x = F.alpha_dropout(x, 0.5)
            if self.training:
                x = F.dropout(x, 0.5)
            return x

    found = trace(Modes().train(train), Inputs((VECTOR,)))
    assert [site.active_in_train for site in found.dropouts] == [True, True, True, True, False, False, True]
    assert [site.active_in_eval for site in found.dropouts] == [False, False, True, True, False, False, False]


def test_a_train_method_that_is_overridden_is_believed() -> None:
    class AlwaysOn(nn.Dropout):
        def train(self, mode: bool = True) -> AlwaysOn:
            return super().train(True)

    class FrozenNorm(nn.Sequential):
        def train(self, mode: bool = True) -> FrozenNorm:
            super().train(mode)
            self[1].train(False)
            return self

    found = trace(FrozenNorm(AlwaysOn(0.5), nn.BatchNorm1d(8)), Inputs((VECTOR,)))
    assert found.dropouts[0].active_in_eval
    assert found.norms[0].spec.frozen
    assert not found.norms[0].spec.shifts


class Projected(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)


@pytest.mark.parametrize(
    ("layer", "noise"),
    [
        (nn.Dropout(0.1), Noise.ELEMENT),
        (nn.Dropout1d(0.1), Noise.CHANNEL),
        (nn.AlphaDropout(0.1), Noise.ALPHA),
        (nn.FeatureAlphaDropout(0.1), Noise.FEATURE_ALPHA),
        (nn.LSTM(8, 8, 2, dropout=0.1), Noise.RECURRENT),
        (nn.GRU(8, 8, 2, dropout=0.1), Noise.RECURRENT),
    ],
)
def test_every_kind_of_dropout(layer: nn.Module, noise: Noise) -> None:
    found = trace(Projected(layer), Inputs((torch.randn(5, 4, 8),)))
    (site,) = found.dropouts
    assert site.spec.noise is noise
    assert site.spec.p == pytest.approx(0.1)
    assert site.inside is isinstance(layer, nn.RNNBase)


def test_dropout_inside_attention() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, dropout=0.25)

        def forward(self, x: torch.Tensor) -> Any:
            x = self.attention(x, x, x)[0]
            return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)

    first, second = trace(Attends(), Inputs((torch.randn(5, 4, 8),))).dropouts
    assert (first.name, first.spec.p, first.inside) == ("attention", 0.25, True)
    assert (second.spec.p, second.inside, second.functional) == (0.5, True, True)


class MyDrop(nn.Module):
    """A dropout that only a project's configuration can name."""

    def __init__(self) -> None:
        super().__init__()
        self.keep = 0.75

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (torch.rand_like(x) < self.keep) / self.keep


def test_classes_that_a_project_names() -> None:
    catalogue = Catalogue({"MyDrop": ExtraDropout(Noise.SAMPLE, p="keep", keeps=True)})
    (site,) = trace(Projected(MyDrop()), Inputs((VECTOR,)), catalogue=catalogue).dropouts
    assert (site.spec.kind, site.spec.noise, site.spec.p) == ("MyDrop", Noise.SAMPLE, 0.25)


def test_the_same_mask_by_hand_is_found_without_a_name() -> None:
    (site,) = trace(Projected(MyDrop()), Inputs((VECTOR,))).dropouts
    assert (site.spec.kind, site.spec.noise, site.spec.p) == ("random mask", Noise.ELEMENT, 0.25)


def test_unused_dropouts_are_told() -> None:
    class Idle(Net):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Dropout(0.9)

    found = trace(Idle(), Inputs((IMAGE,)))
    assert [item.name for item in found.unused] == ["spare"]


class Partly(nn.Module):
    """A branch that runs for a second input alone, a norm that nothing calls, and a wrapped dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))
        self.others = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.3)) for _ in range(2)
        )
        self.spare, self.wrapped, self.plain = (
            nn.BatchNorm1d(8),
            nn.Sequential(nn.Dropout(0.1)),
            nn.Linear(8, 8),
        )

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        x = self.first(x)
        for other in self.others if y is not None else ():
            x = x + other(y)
        return x


def test_parts_that_given_inputs_do_not_run_are_a_note() -> None:
    found = trace(Partly(), Inputs((VECTOR,)))
    assert [item.name for item in found.unused] == ["wrapped.0"]
    assert not found.opaque
    assert found.notes == (
        "the inputs do not run others (2 norms and 2 dropouts): nothing is known of it",
        "the inputs do not run spare (1 norm): nothing is known of it",
    )


def test_parts_that_guessed_inputs_do_not_run_are_not_traced() -> None:
    found = trace(Partly())
    assert found.partial
    assert [(part.name, part.reason) for part in found.idle] == [
        ("others", "2 norms and 2 dropouts; the guessed inputs do not run it"),
        ("spare", "1 norm; the guessed inputs do not run it"),
    ]


def test_what_all_inputs_run_leaves_nothing_to_say() -> None:
    model = Partly()
    del model.spare, model.wrapped
    found = trace(model, Inputs((VECTOR, VECTOR)))
    assert not found.notes
    assert not found.partial
    assert not found.unused


def test_a_dropout_on_a_shared_tensor_is_told_from_one_before_the_fork() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.fc = nn.Dropout(0.5, inplace=True), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x)
            return y + self.fc(self.drop(y))

    class Before(Shared):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.drop(self.fc(x))
            return y + self.fc(y)

    assert any(node.name.startswith("mutated") for node in trace(Shared(), Inputs((VECTOR,))).graph.nodes)
    assert not any(node.name.startswith("mutated") for node in trace(Before(), Inputs((VECTOR,))).graph.nodes)


class Shapes(Net):
    """Arithmetic on sizes, factories, in-place changes and a view."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        x = self.conv(x)
        x += torch.ones(n, 1, h, w, device=x.device)
        x[:, : x.size(1) // 2].mul_(2)
        x = self.bn(x).reshape(n, -1, h * w).transpose(1, 2)
        x = (2 - x**2) / 3 + 2 ** (x / 9)
        rows = [x[:, index] for index in range(2)]
        return torch.stack(rows, 1).mean(dim=(1,)) + x.shape[1]


@pytest.mark.parametrize("cls", [Net, Shapes])
@pytest.mark.parametrize("batch", [2, 5])
def test_the_graph_computes_what_the_model_computes(cls: type[nn.Module], batch: int) -> None:
    model = cls()
    found = trace(model, Inputs((IMAGE,)))
    assert found.runnable
    for node in found.graph.nodes:  # functional dropout is recorded as it was called, in train mode
        if node.target is F.dropout:
            node.kwargs = {**node.kwargs, "training": False}
    rerun = graph_module(found)
    model.eval()
    rerun.eval()
    x = torch.randn(batch, 3, 16, 16)
    assert torch.equal(model(x), rerun(x))


def state_of(model: nn.Module) -> dict[str, Any]:
    attributes = {
        name: {key: value for key, value in module.__dict__.items() if not key.startswith("_")}
        for name, module in model.named_modules()
    }
    return {"attributes": copy.deepcopy(attributes), "tensors": copy.deepcopy(model.state_dict())}


class Leaves(Net):
    """A forward that changes its module in every way that one can."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails, self.cache, self.names = fails, [], {"a": 1}
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        self.cache.append(x)
        self.names["b"] = x
        self.extra = random.random()
        result = super().forward(x)
        if self.fails:
            raise RuntimeError("the user's own")
        return result


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails: bool) -> None:
    model = Leaves(fails).eval()
    model.conv.train()
    before, parameters = state_of(model), [id(parameter) for parameter in model.parameters()]
    states = random.getstate(), torch.get_rng_state()
    try:
        trace(model, Inputs((IMAGE,)))
        assert not fails
    except InputError:
        assert fails
    after = state_of(model)
    assert after["attributes"] == before["attributes"]
    assert all(torch.equal(after["tensors"][name], before["tensors"][name]) for name in before["tensors"])
    assert [id(parameter) for parameter in model.parameters()] == parameters
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert "forward" not in model.__dict__


def test_a_lazy_model_stays_lazy() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Dropout(0.1), nn.LazyBatchNorm2d())
    found = trace(model, Inputs((IMAGE,)))
    assert [site.name for site in (*found.dropouts, *found.norms)] == ["1", "2"]
    assert isinstance(model[0], nn.LazyConv2d)
    assert nn.parameter.is_lazy(model[0].weight)
    assert model(IMAGE).shape == (2, 4, 14, 14)


def test_data_parallel_wrappers_are_looked_through(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(Net())
        found = trace(wrapped, Inputs((IMAGE,)))
    finally:
        dist.destroy_process_group()
    assert [site.name for site in found.norms] == ["bn"]
    assert found.dropouts[0].name == "drop"


def test_billions_of_parameters_need_no_memory() -> None:
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(8192, 64, 32768, batch_first=True)
        model = nn.TransformerEncoder(layer, 10, enable_nested_tensor=False)
    assert sum(parameter.numel() for parameter in model.parameters()) > 7e9
    found = trace(model, Inputs((torch.empty(2, 16, 8192, device="meta"),)))
    assert len(found.norms) == 20
    assert found.method == "meta"


def test_what_cannot_be_traced_whole_is_traced_in_parts_and_said() -> None:
    class Impossible(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))

        def forward(self, *anything: Any) -> Any:
            raise RuntimeError("needs a robot arm")

    found = trace(Impossible())
    assert found.partial
    assert found.method == "children"
    assert "robot arm" in found.opaque[0].reason
    assert [site.name for site in found.dropouts] == ["body.1"]
    assert [site.owner for site in found.norms] == ["body"]


def test_a_scripted_part_is_named_as_opaque() -> None:
    scripted = torch.jit.trace(nn.Linear(8, 8), torch.randn(2, 8))

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scripted, self.drop, self.bn = scripted, nn.Dropout(0.5), nn.BatchNorm1d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bn(self.scripted(self.drop(x)))

    found = trace(Mixed(), Inputs((VECTOR,)))
    assert [part.name for part in found.opaque] == ["scripted"]
    assert [site.name for site in found.dropouts] == ["drop"]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (Inputs((torch.randn(2, 4, 16, 16),)), "expected input"),
        (Inputs((torch.randn(2, 3),)), "input"),
        (Inputs((IMAGE, IMAGE)), "positional"),
        (Inputs((), {"nothing": IMAGE}), "nothing"),
    ],
)
def test_inputs_that_do_not_fit_are_explained(inputs: Inputs, says: str) -> None:
    with pytest.raises(InputError) as caught:
        trace(Net(), inputs)
    assert says in caught.value.message
    assert "--input" in (caught.value.hint or "")


def test_a_model_that_raises_is_shown_with_its_own_line() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.missing(x)

    with pytest.raises((TraceError, InputError)) as caught:
        trace(Broken(), Inputs((VECTOR,)))
    assert "missing" in caught.value.message
    assert Path(__file__).name in (caught.value.details or "")


class FollowsByItsRatio(nn.Module):
    """Drops by a ratio that is 0 in test mode, in one of several writings."""

    def __init__(self, drop: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.one, self.bn = nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.drop = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.bn(self.drop(self, self.one(x)))
        return y


def masked(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    keep = 0.7 if module.training else 1.0
    return x * torch.bernoulli(torch.full_like(x, keep)) / keep


@pytest.mark.parametrize(
    "drop",
    [
        lambda m, x: F.dropout(x, 0.3 if m.training else 0.0),
        lambda m, x: F.dropout(x, 0.3 * m.training),
        lambda m, x: F.dropout2d(x[..., None, None], p=0.3 * m.training)[..., 0, 0],
        lambda m, x: torch.dropout(x, 0.3 * m.training, True),
        lambda m, x: nn.Dropout(0.3 if m.training else 0)(x),
        masked,
        lambda m, x: x * (torch.rand_like(x) < 1 - 0.3 * m.training).float() / (1 - 0.3 * m.training),
        lambda m, x: x * torch.empty_like(x).bernoulli_(1 - 0.3 * m.training) / (1 - 0.3 * m.training),
    ],
)
def test_a_ratio_that_is_0_in_test_mode_is_as_good_as_a_flag(
    drop: Callable[[nn.Module, torch.Tensor], torch.Tensor],
) -> None:
    report = lint(FollowsByItsRatio(drop), torch.randn(16, 8))
    assert [item.code for item in report.findings] == ["DL101"]
    (norm,) = report.predictions
    assert norm.delta == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(
    "drop",
    [
        lambda m, x: x + 0.5 * m.training * torch.randn_like(x),
        lambda m, x: F.dropout(x, 0.5 if m.training else 0.1),
    ],
)
def test_noise_that_test_mode_only_has_less_of_is_not_called_harmless(
    drop: Callable[[nn.Module, torch.Tensor], torch.Tensor],
) -> None:
    (norm,) = lint(FollowsByItsRatio(drop), torch.randn(16, 8)).predictions
    assert norm.delta is None and norm.unknown
    (alike,) = lint(
        FollowsByItsRatio(lambda m, x: x + 0.5 * torch.randn_like(x)), torch.randn(16, 8)
    ).predictions
    assert alike.delta == 1


class Scheduled(nn.Module):
    """Sets the ratio of its dropout in forward, as a schedule does."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.drop, self.bn, self.rate = nn.Linear(8, 8), nn.Dropout(0.0), nn.BatchNorm1d(8), 0.3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.drop.p = self.rate
        y: torch.Tensor = self.bn(self.drop(self.one(x)))
        return y


def test_a_ratio_that_forward_sets_is_the_one_of_the_call() -> None:
    model = Scheduled()
    (norm,) = lint(model, torch.randn(16, 8)).predictions
    assert norm.delta == pytest.approx(0.7, abs=0.02)
    assert model.drop.p == 0
