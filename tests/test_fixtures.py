"""The fixtures are what they say: checked by an independent recording of a real forward pass.

`Recording` follows tensors through functions and leaf modules by identity. It shares no code with the tracer,
so that the truths that the tracer, survey and rules are held to do not rest on them.
"""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fixtures.noise import DropPath, Uout
from fixtures.pairs import FrozenBatchNorm2d
from fixtures.truths import ANY, HEADS, PUBLISHED, RESIDUAL, TRUTHS, ModelTruth, Truth, truth_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:dropout[12]d.*:UserWarning", "ignore:Lazy modules:UserWarning"
)

DROPOUTS = (nn.modules.dropout._DropoutNd, DropPath, Uout)
DROPOUT_FUNCTIONS = (F.dropout, F.dropout1d, F.dropout2d, F.alpha_dropout, F.feature_alpha_dropout)
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, FrozenBatchNorm2d)
WEIGHTS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.MultiheadAttention)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.SiLU, nn.GLU, nn.Tanh)
ACTIVATION_FUNCTIONS = (torch.relu, F.relu, F.selu, F.silu)
POOLS = (nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.AvgPool2d)
POOL_NAMES = ("adaptive_avg_pool2d", "avg_pool2d", "mean", "amax", "max", "std")


def build(target: str) -> tuple[ModuleType, nn.Module]:
    """The module of fixtures and the model that `target` names."""
    name, _, attribute = target.partition(":")
    module = importlib.import_module(name)
    call = ast.parse(attribute, mode="eval").body
    if isinstance(call, ast.Name):
        return module, getattr(module, call.id)()
    assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args
    return module, getattr(module, call.func.id)(
        **{str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    )


@dataclass(eq=False)
class Step:
    """One call: what kind it is, its name, and the steps whose outputs it took."""

    kind: str
    name: str
    shifts: bool = False
    inputs: list[Step] = field(default_factory=list)
    users: list[Step] = field(default_factory=list)


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def kind_of_module(module: nn.Module) -> str:
    kinds = {
        "dropout": DROPOUTS,
        "norm": NORMS,
        "weight": WEIGHTS,
        "act": ACTIVATIONS,
        "pool": POOLS,
        "softmax": nn.Softmax,
    }
    return next((kind for kind, classes in kinds.items() if isinstance(module, classes)), "other")


def kind_of_function(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    name = getattr(function, "__name__", str(function)).strip("_")
    if function in DROPOUT_FUNCTIONS or (name == "scaled_dot_product_attention" and "dropout_p" in kwargs):
        return "dropout"
    if function in ACTIVATION_FUNCTIONS or name in ("relu", "tanh"):
        return "act"
    if name in ("add", "iadd", "radd"):
        return "add" if len(list(tensors(args))) == 2 else "other"
    if name in POOL_NAMES:
        return "pool"
    return "softmax" if name in ("softmax", "log_softmax") else "other"


class Recording(TorchFunctionMode):
    """One forward pass as steps; `steps` in the order of the data."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.steps: list[Step] = []
        self.made: dict[int, Step] = {}
        self.alive: list[Any] = []
        self.owners = [""]

    def bind(self, step: Step, inputs: Any, output: Any) -> None:
        step.inputs = list(
            dict.fromkeys(self.made[id(tensor)] for tensor in tensors(inputs) if id(tensor) in self.made)
        )
        for source in step.inputs:
            source.users.append(step)
        self.steps.append(step)
        self.alive.append((inputs, output))
        for tensor in tensors(output):
            self.made[id(tensor)] = step

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if any(True for _ in tensors(output)):
            kind = kind_of_function(func, args, kwargs)
            name = self.owners[-1] + "@" if kind == "dropout" else getattr(func, "__name__", "")
            self.bind(Step(kind, name), (args, kwargs), output)
        return output

    def enter(self, name: str, module: nn.Module) -> Any:
        """`module.forward`, recorded: a leaf as one step, any other with its name on the stack."""
        forward = module.forward
        leaf = kind_of_module(module) != "other" or type(module).__module__.startswith("torch.nn.modules.")
        leaf = leaf and not isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict))

        def call(*args: Any, **kwargs: Any) -> Any:
            if leaf:
                with torch._C.DisableTorchFunction():
                    output = forward(*args, **kwargs)
                shifts = getattr(module, "track_running_stats", False) and module.training
                self.bind(Step(kind_of_module(module), name, bool(shifts)), (args, kwargs), output)
                return output
            self.owners.append(name)
            try:
                return forward(*args, **kwargs)
            finally:
                self.owners.pop()

        return call

    def run(self, inputs: tuple[Tensor, ...]) -> Recording:
        self.bind(Step("input", "input"), (), inputs)
        with ExitStack() as stack:
            for name, module in self.model.named_modules():
                stack.enter_context(patch.object(module, "forward", self.enter(name, module)))
            stack.enter_context(self)
            self.model(*inputs)
        return self

    def dropouts(self) -> list[tuple[str, int, Step]]:
        """Every dropout call: name, number among the calls of that name, step."""
        seen: Counter[str] = Counter()
        calls = []
        for step in self.steps:
            if step.kind == "dropout":
                calls.append((step.name, seen[step.name], step))
                seen[step.name] += 1
        return calls


def record(target: str) -> Recording:
    module, model = build(target)
    if any(isinstance(part, nn.modules.lazy.LazyModuleMixin) for part in model.modules()):
        model(*module.example_inputs)
    return Recording(model.train()).run(module.example_inputs)


def ways(step: Step) -> tuple[dict[str, set[tuple[int, int]]], bool]:
    """From a dropout to the first norms that shift: name → (weights, adds) of each way; is there any?"""
    reached: dict[str, set[tuple[int, int]]] = {}
    todo = [(user, 0, 0) for user in step.users]
    done = set()
    while todo:
        node, weights, adds = todo.pop()
        if (node, weights, adds) in done:
            continue
        done.add((node, weights, adds))
        if node.shifts:
            reached.setdefault(node.name, set()).add((weights, adds))
            continue
        weights += node.kind == "weight"
        adds += node.kind == "add"
        todo += [(user, weights, adds) for user in node.users]
    return reached, bool(reached)


def skip_shapes(step: Step, forward: bool) -> set[str]:
    """Kinds of the next (or previous) steps that are more than a change of shape."""
    kinds = set()
    for node in step.users if forward else step.inputs:
        kinds |= skip_shapes(node, forward) if node.kind in ("other", "dropout") else {node.kind}
    return kinds or {"end"}


def by_target(entries: tuple[ModelTruth, ...]) -> Any:
    return pytest.mark.parametrize(
        "entry", entries, ids=[entry.target.removeprefix("fixtures.") for entry in entries]
    )


@by_target(TRUTHS)
def test_builds_and_runs_in_train_and_eval_mode(entry: ModelTruth) -> None:
    module, model = build(entry.target)
    assert all(isinstance(value, Tensor) and len(value) >= 2 for value in module.example_inputs)
    next(tensors(model.train()(*module.example_inputs))).sum().backward()
    model.eval()
    with torch.no_grad():
        first, second = (next(tensors(model(*module.example_inputs))) for _ in range(2))
    active = any(truth.code == "DL401" for truth in entry.dropouts)
    assert torch.equal(first, second) != active, "only DL401 dropouts are active in eval mode"


@by_target(TRUTHS)
def test_builds_without_memory_for_its_weights(entry: ModelTruth) -> None:
    build(entry.target)  # imports the module, whose example_inputs have values whatever device is set later
    with torch.device("meta"):
        _, model = build(entry.target)
    assert all(parameter.is_meta for parameter in model.parameters())


@by_target(TRUTHS)
def test_dropout_calls_and_their_way_to_the_norm_are_as_stated(entry: ModelTruth) -> None:
    recording = record(entry.target)
    calls = {(name, number): step for name, number, step in recording.dropouts()}
    built = dict(recording.model.named_modules())
    stated = {(truth.dropout, truth.call): truth for truth in entry.dropouts}
    for key, truth in stated.items():
        if truth.unused:
            assert key not in calls and isinstance(built[truth.dropout], DROPOUTS)
        elif truth.dropout in built and isinstance(built[truth.dropout], nn.MultiheadAttention):
            assert built[truth.dropout].dropout > 0
        elif not truth.functional:
            assert isinstance(built[truth.dropout], DROPOUTS)
    expected = {
        key
        for key, truth in stated.items()
        if not truth.unused and not isinstance(built.get(truth.dropout), nn.MultiheadAttention)
    }
    if entry.target.endswith("always_on:FreshModule"):  # made in forward: its F.dropout is what is seen
        assert set(calls) == {("@", 0)}
    assert set(calls) == expected
    for key, step in calls.items():
        truth = stated[key]
        reached, any_norm = ways(step)
        assert (truth.norm is not None) == any_norm, f"{key} reaches {reached}"
        if truth.norm is not None:
            assert (truth.weights, truth.adds) in reached[truth.norm], f"{key} reaches {reached}"


NEIGHBOURS = {  # position → what stands before and after the dropout
    "P2": [("norm", "act")],
    "P3": [("act", "weight")],
    "P4": [("weight", "norm")],
    "P5": [("norm", "act"), ("norm", "add")],
    "P6": [("act", "weight"), ("act", "add")],
    "P7": [("weight", "add")],
    "H1": [("act", "weight"), ("pool", "weight")],
    "H2": [("weight", "norm")],
    "H3": [("norm", "act")],
    "H4": [("act", "pool"), ("act", "weight")],
    "H5": [("pool", "weight")],
    "H6": [("weight", "softmax"), ("weight", "end")],
    "H7": [("softmax", "end")],
}


@by_target(tuple(entry for entry in (*RESIDUAL, *HEADS, *PUBLISHED) if entry.dropouts))
def test_dropout_stands_between_the_layers_that_its_position_names(entry: ModelTruth) -> None:
    recording = record(entry.target)
    calls = {(name, number): step for name, number, step in recording.dropouts()}
    for truth in entry.dropouts:
        step = calls.get((truth.dropout, truth.call))
        if step is None or truth.position in (ANY, None):
            continue
        before, after = skip_shapes(step, forward=False), skip_shapes(step, forward=True)
        if truth.position == "P0":  # the fork is behind it: skip and branch both take the masked tensor
            assert len(step.users) >= 2
        elif (
            truth.position == "P1"
        ):  # the fork is before it, or it is between the first weight layer and norm
            assert len(step.users) == 1 and (after == {"norm"} or len(step.inputs[0].users) >= 2)
        else:
            pairs = NEIGHBOURS[str(truth.position)]
            assert any(b in before and after == {a} for b, a in pairs), f"{truth}: {before} → {after}"


@pytest.mark.parametrize(
    ("target", "norm_of_branch"),
    [
        ('fixtures.preresnet:build(position="{}", depth=14)', "bn2"),
        ('fixtures.preresnet:build(position="{}", block="bottleneck", depth=20)', "bn3"),
        ('fixtures.resnetv1:build(position="{}", depth=14)', "bn2"),
        ('fixtures.resnetv1:build(position="{}", block="bottleneck", depth=20)', "bn3"),
    ],
)
def test_p4_is_before_and_p5_behind_the_last_norm_of_the_branch(target: str, norm_of_branch: str) -> None:
    for position in ("P4", "P5") if "preresnet" in target else ("P4", "end"):
        for name, _, step in record(target.format(position)).dropouts():
            neighbour = step.users[0] if position == "P4" else step.inputs[0]
            assert neighbour.name == name.replace("drop", norm_of_branch)


def delta_at(target: str, truth: Truth, batches: int = 4, size: int = 48) -> float:
    """Var_test / Var_train at the norm (Kim, Def. 2), batch norms having seen train mode before test mode."""
    torch.manual_seed(0)
    module, model = build(target)
    norm = model.get_submodule(str(truth.norm))
    seen: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    data = [[torch.randn(size, *value.shape[1:]) for value in module.example_inputs] for _ in range(batches)]
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = None
    with torch.no_grad():
        spread = []
        for mode in (True, False):
            seen.clear()
            for batch in data:
                model.train(mode)(*batch)
            values = torch.cat(seen).transpose(0, 1).flatten(1)
            spread.append(values.var(1).mean().item())
    handle.remove()
    return spread[1] / spread[0]


def first_of_each(code: str) -> list[tuple[str, Truth]]:
    """The first dropout with this verdict in every target that has one."""
    return [
        (entry.target, next(truth for truth in entry.dropouts if truth.code == code))
        for entry in TRUTHS
        if any(truth.code == code and not truth.also for truth in entry.dropouts)
    ]


@pytest.mark.parametrize(
    ("target", "truth"), first_of_each("DL102") + first_of_each("DL104"), ids=lambda value: str(value)[9:80]
)
def test_a_shift_that_is_reported_for_its_size_is_measured_below_the_threshold(
    target: str, truth: Truth
) -> None:
    assert delta_at(target, truth) < 0.95


@pytest.mark.parametrize(
    ("target", "truth"),
    first_of_each("DL202") + first_of_each("DL303") + first_of_each("DL103"),
    ids=lambda value: str(value)[9:80],
)
def test_a_placement_that_is_reported_for_itself_is_measured_above_the_threshold(
    target: str, truth: Truth
) -> None:
    assert 0.95 < delta_at(target, truth) < 1.05


def test_in_place_dropout_changes_what_the_skip_sees() -> None:
    module, model = build("fixtures.defects:InPlaceOnSkip")
    seen = []
    model.stem.register_forward_hook(lambda _, __, output: seen.append((output, output.clone())))
    model.train()(*module.example_inputs)
    ((skip, before),) = seen
    assert not torch.equal(skip, before)


def test_dropout1d_on_vectors_drops_whole_rows() -> None:
    module, model = build("fixtures.defects:WholeRows")
    torch.manual_seed(0)
    seen = []
    model.drop.register_forward_hook(lambda _, __, output: seen.append(output))
    for _ in range(20):
        model.train()(*module.example_inputs)
    rows = torch.cat(seen)
    assert (rows == 0).all(1).float().mean() > 0.1


def test_every_fixture_has_truths() -> None:
    named = {entry.target.split("(")[0] for entry in TRUTHS}
    assert len({entry.target for entry in TRUTHS}) == len(TRUTHS)
    for entry in TRUTHS:
        assert truth_of(entry.target) is entry
    for name in {target.split(":")[0] for target in named}:
        module = importlib.import_module(name)
        makers = {key for key in vars(module) if key.startswith("build")}
        if "written" in name or name.endswith("defects"):
            makers |= {
                key
                for key, value in vars(module).items()
                if isinstance(value, type) and value.__module__ == name and not key.startswith("_")
            } - {"ADN", "ConvDropoutNormReLU", "Chain"}
        assert {f"{name}:{maker}" for maker in makers} <= named


def test_truths_say_which_case_it_is() -> None:
    assert Truth("drop", norm="bn", weights=0).case == "a"
    assert Truth("drop", norm="bn", weights=2).case == "b"
    assert Truth("drop").case is None
    assert truth_of("fixtures.transformer:build(layers=1)").clean
    assert not truth_of("fixtures.mobilenet:build()").clean
