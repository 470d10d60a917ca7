"""From a recorded graph to its dropouts and norms: what they are, where they stand, when they are active."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from dropout_lint.guard.wrappers import bare
from dropout_lint.inputs.example import Location
from dropout_lint.layers import Catalogue, DropoutSpec, Noise, NormSpec
from dropout_lint.layers.dropouts import FUNCTIONS, TRAINING_DEFAULT
from dropout_lint.layers.signatures import NORMS, RATIO, RATIOS_INSIDE, Argument
from dropout_lint.trace.blends import blended
from dropout_lint.trace.noise_by_hand import as_in_test, find_masks
from dropout_lint.trace.traced import DropoutSite, NormSite, argument_of, module_of
from dropout_lint.trace.trials import Behaviour

_NORM_FUNCTIONS: Mapping[Any, str] = {
    F.batch_norm: "batch",
    torch.batch_norm: "batch",
    F.instance_norm: "instance",
    F.layer_norm: "layer",
    torch.layer_norm: "layer",
    F.group_norm: "group",
    torch.group_norm: "group",
}


class Activity:
    """Whether the functional dropouts of a graph drop: call by call, to compare train with eval mode."""

    def __init__(self, graph: fx.Graph) -> None:
        self._active: dict[tuple[Any, ...], list[bool]] = {}
        self._masks: dict[tuple[Any, ...], list[bool]] = {}
        for node, mask in blended(find_masks(graph)).items():
            self._masks.setdefault(_call_key(node), []).append(mask.spec.is_noisy)
        for node in graph.nodes:
            if node.op in ("call_function", "call_method", "call_module"):
                self._active.setdefault(_call_key(node), []).append(_drops(node))

    def of(self, node: fx.Node, turn: int, default: bool) -> bool:
        """Whether the `turn`-th such call is active; `default` where this mode does not make the call."""
        turns = self._active.get(_call_key(node), [])
        if turn < len(turns):
            return turns[turn]
        return turns[-1] if turns else default

    def multiplies_by_a_mask(self, node: fx.Node, turn: int) -> bool:
        """Whether the `turn`-th product of this line is one with a random mask in this mode as well, and not
        one that keeps all.
        """
        masks = self._masks.get(_call_key(node), [])
        return turn < len(masks) and masks[turn]


def dropout_sites(
    graph: fx.Graph,
    model: nn.Module,
    catalogue: Catalogue,
    *,
    constructed: Mapping[str, Location],
    training: Mapping[fx.Node, bool],
    made_in_forward: Mapping[fx.Node, nn.Module],
    always_on: frozenset[str],
    eval_graph: fx.Graph | None,
    recorded_in_eval: bool,
    test_mode: Mapping[fx.Node, Behaviour],
) -> Iterator[DropoutSite]:
    """Every dropout call of `graph`, in the order of the data."""
    masks = blended(find_masks(graph))
    draws = {source for mask in masks.values() for source in mask.sources}
    other_mode = Activity(eval_graph) if eval_graph is not None else None
    turns: dict[tuple[Any, ...], int] = {}
    mask_turns: Counter[tuple[Any, ...]] = Counter()
    for node in graph.nodes:
        key = _call_key(node)
        turn = turns.get(key, 0)
        turns[key] = turn + 1
        common: dict[str, Any] = {"owner": node.meta.get("owner", ""), "call": node.meta.get("call")}
        module = module_of(model, node)
        if module is not None:
            name = str(node.target)
            # as it was when it was called: `forward` may set the ratio
            spec, inside = node.meta.get("dropout") or catalogue.dropout(module), False
            if spec is None:
                spec, inside = inner_dropout(module), True
            if spec is not None:
                yield DropoutSite(
                    node,
                    bare(name),
                    spec,
                    name,
                    functional=False,
                    active_in_train=True if recorded_in_eval else training.get(node, True),
                    active_in_eval=name in always_on or test_mode.get(node, Behaviour()).draws,
                    constructed=constructed.get(name),
                    inside=inside,
                    call_index=node.meta.get("call_index", 0),
                    **common,
                )
            continue
        if node in made_in_forward:
            made = made_in_forward[node]
            spec = catalogue.dropout(made)
            assert spec is not None
            active = made.training
            in_eval = other_mode.of(node, turn, active) if other_mode else active
        elif node in masks:
            mask, active = masks[node], True
            spec = as_in_test(mask, node, eval_graph)
            common |= {"operand": mask.operand, "sources": mask.sources, "scale": mask.scale}
            source = mask.sources[0]
            if functional_dropout(source) is None:
                in_eval = other_mode is not None and other_mode.multiplies_by_a_mask(node, mask_turns[key])
                mask_turns[key] += 1
            else:  # the product is there in test mode too: what the mask is made of follows the mode
                active = is_active(source)
                in_eval = other_mode.of(source, 0, False) if other_mode else active
        else:
            spec = functional_dropout(node)
            if spec is None or node in draws:  # it makes a mask, and the product with that is the dropout
                continue
            spec = replace(spec, kind=_kind(node, spec.kind))
            active = is_active(node)
            in_eval = other_mode.of(node, turn, False) if other_mode else active
        if recorded_in_eval:
            active, in_eval = True, active
        yield DropoutSite(
            node,
            functional_name(node),
            spec,
            None,
            functional=True,
            active_in_train=active,
            active_in_eval=in_eval,
            inside=spec.noise is Noise.ATTENTION,
            call_index=turn,
            **common,
        )


def norm_sites(
    graph: fx.Graph,
    model: nn.Module,
    catalogue: Catalogue,
    *,
    constructed: Mapping[str, Location],
    training: Mapping[fx.Node, bool],
    recorded_in_eval: bool,
    test_mode: Mapping[fx.Node, Behaviour],
    in_test: frozenset[tuple[str, int]] | None = None,
) -> Iterator[NormSite]:
    """Every norm call of `graph`, in the order of the data; a norm of weights alone is none.

    Args:
        in_test: name and number of the calls that test mode makes; None where that is not known.
    """
    constant = _constant_nodes(graph)
    for node in graph.nodes:
        common: dict[str, Any] = {
            "owner": node.meta.get("owner", ""),
            "call": node.meta.get("call"),
            "recomputed": node.meta.get("recomputed", False) and not recorded_in_eval,
        }
        module = module_of(model, node)
        if module is not None:
            spec = catalogue.norm(module)
            if spec is None:
                continue
            if spec.tracks and not recorded_in_eval and training.get(node) is False:
                spec = replace(spec, frozen=True)
            name, number = str(node.target), node.meta.get("call_index", 0)
            if in_test is not None and (bare(name), number) not in in_test:
                spec = replace(spec, tracks=False)  # there is no test mode for it to differ in
            spec = _as_it_behaves(spec, test_mode.get(node))
            yield NormSite(
                node, bare(name), spec, name, constructed=constructed.get(name), call_index=number, **common
            )
        elif node.op == "call_function" and node.target in _NORM_FUNCTIONS and node not in constant:
            yield NormSite(node, functional_name(node), _functional_norm(node), None, **common)


def inner_dropout(module: nn.Module) -> DropoutSpec | None:
    """The dropout inside an attention or recurrent layer, if its ratio is not 0."""
    kind = type(module).__name__
    if isinstance(module, nn.MultiheadAttention) and module.dropout:
        return DropoutSpec(kind, Noise.ATTENTION, float(module.dropout))
    if isinstance(module, nn.RNNBase) and module.dropout and module.num_layers > 1:
        return DropoutSpec(kind, Noise.RECURRENT, float(module.dropout))
    return None


def functional_dropout(node: fx.Node) -> DropoutSpec | None:
    """The dropout that a `call_function` node is, or holds (attention), or None."""
    if node.op == "call_method" and node.target == "dropout":
        return None
    if node.op != "call_function":
        return None
    function: Any = node.target
    if function in FUNCTIONS:
        kind, noise = FUNCTIONS[function]
        ratio = _number(node, RATIO, 0.5)
        channelwise = bool(argument_of(node, (3, "channelwise"), False)) if noise is Noise.UNIFORM else False
        return DropoutSpec(kind, noise, ratio, bool(argument_of(node, (3, "inplace"), False)), channelwise)
    if function in RATIOS_INSIDE:
        p = _number(node, RATIOS_INSIDE[function], 0.0)
        return DropoutSpec(f"F.{function.__name__}", Noise.ATTENTION, p) if p else None
    return None


def functional_name(node: fx.Node) -> str:
    """`owner@file.py:line`: how a report names a call that is no module's; a translated layer has a name."""
    if "layer" in node.meta:
        return str(node.meta["layer"][0])
    call: Location | None = node.meta.get("call")
    owner = bare(f"{node.meta.get('owner', '')}.").removesuffix(".")
    return f"{owner}@{Path(call.file).name}:{call.line}" if call else f"{owner}@{node.name}"


def _kind(node: fx.Node, function: str) -> str:
    """The class of a translated layer, for all others the function."""
    return str(node.meta["layer"][1]) if "layer" in node.meta else function


def _functional_norm(node: fx.Node) -> NormSpec:
    family = _NORM_FUNCTIONS[node.target]
    kind = _kind(node, f"F.{getattr(node.target, '__name__', family)}")
    if node.target in NORMS:
        arguments = NORMS[node.target]
        tracks = argument_of(node, arguments.mean) is not None
        by_batch = family != "batch" or bool(argument_of(node, arguments.by_batch))
        momentum = _momentum(node) if tracks else None
        return NormSpec(kind, family, tracks=tracks, frozen=tracks and not by_batch, momentum=momentum)
    return NormSpec(kind, family, tracks=False)


def _momentum(node: fx.Node) -> float | None:
    """Of `F.batch_norm` and `F.instance_norm`, None where it is a tensor."""
    momentum = _number(node, (6, "momentum"), 0.1)
    return None if math.isnan(momentum) else momentum


def _as_it_behaves(spec: NormSpec, behaviour: Behaviour | None) -> NormSpec:
    """`spec`, corrected where a class of the user's normalises by other statistics than its base does."""
    if behaviour is None:
        return spec
    if behaviour.batch_statistics:
        return replace(spec, tracks=False)
    return replace(spec, frozen=spec.frozen or behaviour.train_statistics is False)


def _drops(node: fx.Node) -> bool:
    """Whether a call drops: a functional dropout that is active and whose ratio is not 0; any other call."""
    spec = functional_dropout(node)
    noisy = node.target not in RATIOS_INSIDE if spec is None else spec.is_noisy
    return noisy and is_active(node)


def is_active(node: fx.Node) -> bool:
    """Whether a functional dropout was called with `training=True`, an attention with a ratio above 0."""
    if node.op != "call_function":
        return True
    known = FUNCTIONS.get(node.target) if callable(node.target) else None
    if known is not None:
        kind = known[0]
        flag = "train" if kind.startswith("torch.") else "training"
        return bool(argument_of(node, (2, flag), TRAINING_DEFAULT.get(kind, True)))
    if node.target is F.scaled_dot_product_attention:
        return _number(node, RATIOS_INSIDE[node.target], 0.0) > 0
    if node.target is F.multi_head_attention_forward:
        return bool(argument_of(node, (13, "training"), True))
    return True


def _call_key(node: fx.Node) -> tuple[Any, ...]:
    call = node.meta.get("call")
    target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.meta.get("owner", ""), call, target


def _number(node: fx.Node, place: Argument, default: float) -> float:
    value = argument_of(node, place, default)
    return float(value) if isinstance(value, (int, float)) else float("nan")


def _constant_nodes(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that depend on parameters and constants alone."""
    constant: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "get_attr":
            constant.add(node)
            continue
        inputs = node.all_input_nodes if node.op in ("call_function", "call_method") else []
        if inputs and all(argument in constant for argument in inputs):
            constant.add(node)
    return constant
