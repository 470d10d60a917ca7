"""The graph fix: where dropouts go, what the result can do, and what it keeps."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fix_graphs import codes, of, traced, worst
from torch import nn
from torch.nn import functional as F

import dropout_lint as dl
from dropout_lint.analysis import Options, analyse, analyse_trace
from dropout_lint.errors import UsageError
from dropout_lint.fixes.graph.fix import fix_graph
from dropout_lint.fixes.plan.steps import Fixed
from dropout_lint.inputs.example import Inputs
from dropout_lint.measurement import measure
from dropout_lint.prediction import predict
from dropout_lint.survey.surveyor import survey
from dropout_lint.trace import trace


def positions(model: nn.Module, inputs: Inputs) -> set[str | None]:
    again = trace(model, inputs)
    return {
        placement.facts.position
        for placement in survey(again, predict(again)).placements
        if placement.facts.p > 0
    }


def prenet(position: str, depth: int = 8, **more: str) -> str:
    extra = "".join(f', {name}="{value}"' for name, value in more.items())
    return f'fixtures.preresnet:build(position="{position}", depth={depth}{extra})'


@pytest.mark.parametrize("position", ["P0", "P1", "P2", "P3", "P4", "P7", "P0-output"])
def test_branch_dropouts_reach_p6(position: str) -> None:
    before = traced(prenet(position))
    fixed = fix_graph(analyse_trace(before), strategy="move")
    assert not fixed.skipped
    assert {item.place for item in fixed.applied} == {"P6"}
    assert codes(fixed.model, before.inputs) == []
    assert worst(fixed.after) >= worst(fixed.before) - 1e-3
    if position != "P7":  # before and after the last weight layer the noise is the same (Prop. 2)
        assert worst(fixed.after) > worst(fixed.before) + 0.01


@pytest.mark.parametrize("position", ["P1", "P4", "P0-output"])
def test_post_activation_dropouts_reach_the_end_of_the_branch(position: str) -> None:
    before = traced(f'fixtures.resnetv1:build(position="{position}", depth=8)')
    fixed = fix_graph(analyse_trace(before), strategy="move")
    assert {item.place for item in fixed.applied} == {"the end of the branch"}
    assert codes(fixed.model, before.inputs) == []
    assert worst(fixed.after) > worst(fixed.before)


@pytest.mark.parametrize("position", ["H1", "H2", "H5", "H6", "H7"])
def test_head_dropouts_reach_h4(position: str) -> None:
    before = traced(f'fixtures.heads:build(position="{position}")')
    fixed = fix_graph(analyse_trace(before))
    assert [item.place for item in fixed.applied] == ["H4"]
    assert positions(fixed.model, before.inputs) == {"H4"}
    assert codes(fixed.model, before.inputs) == []
    assert worst(fixed.after) == pytest.approx(1.0, abs=1e-6)


def test_channel_dropout_stays_what_it_is_before_pooling() -> None:
    before = traced('fixtures.heads:build(position="H2", dropout="Dropout2d")')
    fixed = fix_graph(analyse_trace(before))
    kinds = [type(module) for module in fixed.model.modules() if "Dropout" in type(module).__name__]
    assert kinds == [nn.Dropout2d]


@pytest.mark.parametrize("target", [prenet("P4"), prenet("P1"), 'fixtures.heads:build(position="H2")'])
def test_measured_shift_shrinks(target: str) -> None:
    before = traced(target, real=True)
    fixed = fix_graph(analyse_trace(before), strategy="move")
    (shape,) = (tuple(value.shape) for value in before.inputs.args)
    batches = [torch.randn(32, *shape[1:]) for _ in range(4)]
    old = min(measure(before.model, batches, seed=0).delta.values())
    new = min(measure(fixed.model, batches, seed=0).delta.values())
    assert new > old + 0.02


def test_the_original_is_untouched_and_eval_is_bit_identical() -> None:
    before = traced(prenet("P3"), real=True)
    model = before.model
    state = {name: value.clone() for name, value in model.state_dict().items()}
    names = [name for name, _ in model.named_modules()]
    fixed = fix_graph(analyse_trace(before))
    assert names == [name for name, _ in model.named_modules()]
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert list(fixed.model.state_dict()) == list(state)
    assert [name for name, _ in fixed.model.named_parameters()] == [
        name for name, _ in model.named_parameters()
    ]
    x = torch.randn(5, 3, 16, 16)
    assert torch.equal(model.eval()(x), fixed.model.eval()(x))
    fixed.model.load_state_dict(state, strict=True)


def test_a_second_fix_changes_nothing() -> None:
    before = traced(prenet("P0"))
    once = fix_graph(analyse_trace(before))
    twice = fix_graph(analyse(once.model, before.inputs))
    assert once.applied and not twice.applied and not twice.skipped


class Mixed(nn.Module):
    """Functional and module dropouts, a functional norm, a non-persistent buffer and an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.drop = nn.Dropout2d(0.3, inplace=True)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.register_buffer("running_mean", torch.zeros(8))
        self.register_buffer("running_var", torch.ones(8))
        self.register_buffer("scale", torch.ones(1), persistent=False)
        self.spare = nn.Linear(2, 2)
        self.fc = nn.Linear(8, 4)
        self.num_classes = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.drop(self.conv1(x))))
        x = F.dropout(self.conv2(x), 0.2, self.training)
        x = F.batch_norm(x, self.running_mean, self.running_var, training=self.training)
        x = torch.relu(x) * self.scale
        return self.fc(F.dropout(x.mean((2, 3)), 0.1, training=self.training))


def fixed_mixed() -> tuple[Mixed, Fixed, torch.Tensor]:
    model = Mixed()
    fixed = fix_graph(analyse_trace(of(model, 6, 3, 8, 8)))
    return model.eval(), fixed, torch.randn(6, 3, 8, 8)


def test_functional_dropouts_become_modules_that_switch() -> None:
    model, fixed, x = fixed_mixed()
    assert fixed.method == "graph"
    assert list(fixed.model.state_dict()) == list(model.state_dict())
    assert "scale" not in fixed.model.state_dict() and fixed.model.scale.shape == (1,)
    assert fixed.model.num_classes == 4
    assert torch.equal(fixed.model.eval()(x), model(x))
    fixed.model.train()
    assert not torch.equal(fixed.model(x), fixed.model(x))
    before = fixed.model.running_mean.clone()
    fixed.model(x)
    assert not torch.equal(before, fixed.model.running_mean)
    fixed.model.eval()
    kept = fixed.model.running_mean.clone()
    assert torch.equal(fixed.model(x), fixed.model(x)) and torch.equal(kept, fixed.model.running_mean)
    assert "functional.dropout" not in fixed.to_code() and "functional.batch_norm" not in fixed.to_code()


def test_functional_dropouts_that_were_right_become_modules_too() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.bn1 = nn.Linear(6, 8), nn.BatchNorm1d(8)
            self.fc2, self.bn2 = nn.Linear(8, 8), nn.BatchNorm1d(8)
            self.fc3, self.fc4 = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.bn1(F.dropout(self.fc1(x), 0.3, self.training)))
            x = F.dropout(torch.relu(self.bn2(self.fc2(x))), 0.4, self.training)
            return self.fc4(F.dropout(torch.relu(self.fc3(x)), 0.2, self.training))

    model = Chain()
    fixed = fix_graph(analyse_trace(of(model, 16, 6)))
    assert [item.action for item in fixed.applied] == ["move"]
    ratios = sorted(module.p for module in fixed.model.modules() if isinstance(module, nn.Dropout))
    assert ratios == [0.2, 0.3, 0.4]
    x = torch.randn(16, 6)
    assert torch.equal(fixed.model.eval()(x), model.eval()(x))


def test_copy_pickle_and_torch_save() -> None:
    model, fixed, x = fixed_mixed()
    expected = fixed.model.eval()(x)
    file = io.BytesIO()
    torch.save(fixed.model, file)
    file.seek(0)
    copies = [
        copy.deepcopy(fixed.model),
        pickle.loads(pickle.dumps(fixed.model)),
        torch.load(file, weights_only=False),
        copy.deepcopy(pickle.loads(pickle.dumps(copy.deepcopy(fixed.model)))),
    ]
    for twin in copies:
        assert torch.equal(twin(x), expected)
        assert list(twin.state_dict()) == list(model.state_dict())
        twin.train()
        assert not torch.equal(twin(x), twin(x))
    copies[0].fc.weight.data.zero_()
    assert torch.equal(fixed.model(x), expected)


def test_compile_ddp_and_further_training(tmp_path: object) -> None:
    _, fixed, x = fixed_mixed()
    compiled = torch.compile(copy.deepcopy(fixed.model), backend="eager")
    assert torch.allclose(compiled.eval()(x), fixed.model.eval()(x))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(fixed.model.train(), find_unused_parameters=True)
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
        target = torch.randint(0, 4, (6,))
        first = last = None
        for _ in range(12):
            optimizer.zero_grad()
            loss = F.cross_entropy(wrapped(x), target)
            loss.backward()
            optimizer.step()
            first, last = first if first is not None else loss.item(), loss.item()
        assert first is not None and last is not None and last < first
    finally:
        torch.distributed.destroy_process_group()


def test_a_module_with_two_verdicts_is_split_and_not_deleted() -> None:
    before = traced("fixtures.written.reused:TwoPlaces")
    moved = fix_graph(analyse_trace(before))
    assert [item.action for item in moved.applied] == ["merge"]
    assert len(trace(moved.model, before.inputs).dropouts) == 1
    swapped = fix_graph(analyse_trace(before), strategy="uout")
    kinds = [site.spec.kind for site in trace(swapped.model, before.inputs).dropouts]
    assert kinds == ["Uout", "Dropout"]


def test_several_dropouts_of_a_branch_become_one_where_that_is_asked_for() -> None:
    """Their shift was found, not their number: two convolutions lie between, and each was chosen."""
    before = traced(prenet("P3+P6"))
    assert not fix_graph(analyse_trace(before)).applied
    fixed = fix_graph(analyse_trace(before), strategy="move")
    assert {item.action for item in fixed.applied} == {"merge"}
    assert len(trace(fixed.model, before.inputs).dropouts) == 3
    assert codes(fixed.model, before.inputs) == []


def test_strategies_by_name() -> None:
    target = 'fixtures.pairs:build(norm="batch")'
    found = {}
    for strategy in ("move", "uout", "reduce", "remove"):
        before = traced(target)
        fixed = fix_graph(analyse_trace(before), strategy=strategy)  # type: ignore[arg-type]
        assert [item.action for item in fixed.applied] == [strategy]
        assert "DL101" not in codes(fixed.model, before.inputs)
        assert worst(fixed.after) > 0.9
        found[strategy] = trace(fixed.model, before.inputs).dropouts
    assert found["remove"] == ()
    (uout,) = found["uout"]
    assert uout.spec.kind == "Uout" and 0.2 <= uout.spec.p <= 0.5
    (reduced,) = found["reduce"]
    assert 0 < reduced.spec.p < 0.5


def test_reduce_finds_the_largest_ratio_above_the_threshold() -> None:
    before = traced('fixtures.heads:build(position="H2")')
    loose = fix_graph(analyse_trace(before, Options(threshold=0.9)), strategy="reduce")
    tight = fix_graph(analyse_trace(before), strategy="reduce")
    (p_loose,) = (site.spec.p for site in trace(loose.model, before.inputs).dropouts)
    (p_tight,) = (site.spec.p for site in trace(tight.model, before.inputs).dropouts)
    assert worst(loose.after) >= 0.9 and worst(tight.after) >= 0.95
    assert p_loose > p_tight


def test_beta_is_given() -> None:
    fixed = fix_graph(analyse_trace(traced('fixtures.pairs:build(norm="batch")')), strategy="uout", beta=0.3)
    (uout,) = (module for module in fixed.model.modules() if type(module).__name__ == "Uout")
    assert uout.beta == 0.3


def test_auto_says_what_it_weighed() -> None:
    fixed = fix_graph(analyse_trace(traced('fixtures.pairs:build(norm="batch")')))
    assert [item.strategy for item in fixed.weighed] == ["move", "uout", "reduce", "remove"]
    assert [item.strategy for item in fixed.weighed if item.chosen] == ["move"]
    assert "move keeps 100%" in str(fixed)


def test_always_on_dropout_follows_eval_afterwards() -> None:
    before = traced("fixtures.defects:ActiveInEval", real=True)
    fixed = fix_graph(analyse_trace(before))
    assert [item.action for item in fixed.applied] == ["repair"]
    x = torch.randn(4, 3, 8, 8)
    fixed.model.eval()
    assert torch.equal(fixed.model(x), fixed.model(x))


def test_in_place_dropout_on_a_skip_is_repaired() -> None:
    before = traced("fixtures.defects:InPlaceOnSkip", real=True)
    fixed = fix_graph(analyse_trace(before))
    assert [item.action for item in fixed.applied] == ["repair"]
    assert not any(getattr(module, "inplace", False) for module in fixed.model.modules())


class Auxiliary(nn.Module):
    """In train mode it returns two outputs, so its recorded graph is not what eval mode does."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 16)
        self.drop = nn.Dropout(0.4)
        self.bn = nn.BatchNorm1d(16)
        self.fc2 = nn.Linear(16, 3)
        self.aux = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> object:
        x = torch.relu(self.bn(self.drop(self.fc1(x))))
        return (self.fc2(x), self.aux(x)) if self.training else self.fc2(x)


def test_modules_are_exchanged_where_the_graph_is_not_the_model() -> None:
    model = Auxiliary()
    fixed = fix_graph(analyse_trace(of(model, 8, 8)))
    assert fixed.method == "modules" and isinstance(fixed.model, Auxiliary)
    assert list(fixed.model.state_dict()) == list(model.state_dict())
    x = torch.randn(8, 8)
    assert torch.equal(fixed.model.eval()(x), model.eval()(x))
    twin = pickle.loads(pickle.dumps(copy.deepcopy(fixed.model)))
    assert isinstance(fixed.model.train()(x), tuple)
    assert torch.equal(twin.eval()(x), model(x))
    assert not torch.equal(twin.train()(x)[0], twin(x)[0])
    assert codes(fixed.model, Inputs((x,))) == []


class Keywords(nn.Module):
    """Dict in, dict out, with an optional argument."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.drop, self.bn, self.fc2 = (
            nn.Linear(4, 8),
            nn.Dropout(),
            nn.BatchNorm1d(8),
            nn.Linear(8, 2),
        )

    def forward(self, batch: dict[str, torch.Tensor], mask: torch.Tensor | None = None) -> dict[str, object]:
        return {"logits": self.fc2(torch.relu(self.bn(self.drop(self.fc1(batch["x"]))))), "mask": mask}


def test_dict_inputs_and_optional_arguments() -> None:
    model = Keywords()
    inputs = Inputs(({"x": torch.randn(4, 4)},), {"mask": torch.ones(4)})
    fixed = fix_graph(analyse(model, inputs))
    assert fixed.method == "graph"
    batch = {"x": torch.randn(9, 4)}
    expected = model.eval()(batch)
    for twin in (fixed.model.eval(), pickle.loads(pickle.dumps(fixed.model)).eval()):
        found = twin(batch)
        assert torch.equal(found["logits"], expected["logits"]) and found["mask"] is None


@pytest.mark.parametrize(
    "target",
    [
        "fixtures.pointnet:build",
        "fixtures.densenet_functional:build(block_config=(2, 2))",
        "fixtures.enet:build_inside_projection",
        "fixtures.pix2pix:build",
        "fixtures.written.far:TwoInARow",
    ],
)
def test_published_networks_are_fixed_whole(target: str) -> None:
    before = traced(target)
    fixed = fix_graph(analyse_trace(before))
    assert fixed.applied and not fixed.skipped
    assert codes(fixed.model, before.inputs) == []
    assert worst(fixed.after) >= worst(fixed.before)


def test_what_has_no_fix_is_left_with_words() -> None:
    fixed = fix_graph(analyse_trace(traced("fixtures.defects:DropsEverything")))
    assert not fixed.applied and fixed.method == "none"
    (left,) = fixed.skipped
    assert left.codes == ("DL403",) and "0 < p < 1" in left.advice


def test_bad_options() -> None:
    before = traced("fixtures.defects:ActiveInEval")
    with pytest.raises(UsageError, match="unknown strategy"):
        fix_graph(analyse_trace(before), strategy="sideways")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="outside"):
        fix_graph(analyse_trace(before), beta=3.0)


class Rows(nn.Module):
    """Its forward reads the batch size as a number, which a recording holds as it was."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))
        self.token = nn.Parameter(torch.randn(1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.way == "unrolled":
            x = torch.stack([x[i] for i in range(len(x))])
        elif self.way == "expanded":
            x = x + self.token.expand(len(x), -1)
        else:
            x = x + self.token.expand(x.shape[0], -1)
        return self.body(x)  # type: ignore[no-any-return]  # a module's call is Any


@pytest.mark.parametrize(
    ("way", "method"), [("unrolled", "modules"), ("expanded", "modules"), ("recorded", "graph")]
)
def test_fixed_models_take_any_batch(way: str, method: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = Rows(way).eval()
    fixed = fix_graph(analyse_trace(of(model, 4, 8)), strategy="remove")
    assert fixed.applied and fixed.method == method
    assert "eval-mode outputs are bit-identical for a larger batch" in fixed.checks
    assert capfd.readouterr() == ("", "")
    fixed.model.eval()
    for batch in (1, 4, 7):
        x = torch.randn(batch, 8)
        assert torch.equal(fixed.model(x), model(x))


class Flattened(nn.Module):
    """Its forward reads the height and width as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Dropout(0.5), nn.BatchNorm2d(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        return y.reshape(x.shape[0], 8, int(x.shape[2]) * int(x.shape[3])).mean(2)  # type: ignore[no-any-return]


def test_a_graph_for_one_image_size_says_so() -> None:
    fixed = fix_graph(analyse_trace(of(Flattened(), 2, 3, 8, 8)))
    sized = [check for check in fixed.checks if "height, width or length alone" in check]
    assert bool(sized) == (fixed.method == "graph")
    if not sized:
        assert "eval-mode outputs are bit-identical for larger inputs" in fixed.checks


@pytest.mark.parametrize(("kind", "by_channel"), [(nn.Dropout, False), (nn.Dropout2d, True)])
def test_uout_draws_by_channel_where_the_dropout_did(kind: type[nn.Module], by_channel: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), kind(0.4), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 3))
    fixed = dl.fix(model, torch.randn(4, 3, 8, 8), strategy="uout")
    (made,) = (module for module in fixed.model.modules() if isinstance(module, dl.Uout))
    assert made.channelwise is by_channel
    (step,) = fixed.applied
    assert ("channelwise=True" in step.title) is by_channel


@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.float16, np.int64])
def test_numbers_of_numpy_are_pythons_in_the_graph(kind: type) -> None:
    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.drop, self.bn, self.fc2 = (
                nn.Linear(8, 8),
                nn.Dropout(),
                nn.BatchNorm1d(8),
                nn.Linear(8, 2),
            )
            self.scale = kind(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.clamp(self.bn(self.drop(self.fc1(x))), min=self.scale * -20)
            return self.fc2(x * self.scale)  # type: ignore[no-any-return]  # a module's call is Any

    model = Clamped().eval()
    fixed = fix_graph(analyse_trace(of(model, 4, 8)))
    assert fixed.applied and fixed.method == "graph"
    x = torch.randn(4, 8)
    assert torch.equal(fixed.model.eval()(x), model(x))
    assert torch.equal(pickle.loads(pickle.dumps(fixed.model))(x), model(x))


class StandIn:
    """Hands all that it is asked for on to a module, and says that it is of its class."""

    def __init__(self, inner: nn.Module) -> None:
        self.__dict__["inner"] = inner

    def __getattr__(self, name: str) -> object:
        return getattr(vars(self)["inner"], name) if "inner" in vars(self) else None

    def __call__(self, *args: torch.Tensor) -> torch.Tensor:
        return self.inner(*args)  # type: ignore[operator, no-any-return]

    @property
    def __class__(self) -> type:
        return vars(self)["inner"].__class__  # type: ignore[no-any-return]


def test_what_stands_in_for_a_module_is_taken_for_that_module() -> None:
    def build(wrap: Callable[[nn.Module], object]) -> nn.Module:
        torch.manual_seed(0)
        layers = [nn.Linear(8, 8), nn.Dropout(0.4), nn.BatchNorm1d(8), nn.Sequential(nn.Linear(8, 8))]
        return nn.Sequential(*(wrap(layer) for layer in layers))  # type: ignore[arg-type]

    plain, stood = (dl.lint(build(wrap), torch.randn(16, 8)) for wrap in (lambda layer: layer, StandIn))
    assert [finding.code for finding in plain.findings] == [finding.code for finding in stood.findings]
    (first,), (second,) = plain.findings, stood.findings
    assert first.message == second.message
