"""Which draws reach which norm, and whether the graph shows a dropout on every way that they take."""

from __future__ import annotations

import functools
import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Set

from torch import fx

from dropout_lint.layers.dropouts import FUNCTIONS
from dropout_lint.layers.signatures import NORMS, RATIOS_INSIDE
from dropout_lint.terms import Noise
from dropout_lint.trace.draws import filled, function_name
from dropout_lint.trace.observer import Sight, arriving
from dropout_lint.trace.traced import Arrival, DropoutSite, NormSite
from dropout_lint.trace.witness import Draw


def arrivals(
    sight: Sight,
    test_sight: Sight | None,
    dropouts: Iterable[DropoutSite],
    norms: Iterable[NormSite],
    test_norms: Iterable[NormSite],
) -> dict[fx.Node, tuple[Arrival, ...]]:
    """For each norm the draws that reach its input in train mode and not in test mode.

    Args:
        sight: what the witness saw in train mode.
        test_sight: the same in test mode, None where that was not recorded.
        dropouts, norms: those of the recording in train mode.
        test_norms: those of the recording in test mode.
    """
    if not sight.draws:
        return {}
    dropouts, sites = tuple(dropouts), dict[fx.Node, list[DropoutSite]]()
    for site in dropouts:
        for node in site.sources or (site.node,):
            sites.setdefault(node, []).append(site)
    zeros = _zeros(sight, {site.node for site in dropouts if not site.sources})
    beside = _beside(sight, sites, zeros)
    known = [tuple(sites.get(draw.node, ())) if draw.node is not None else () for draw in sight.draws]
    made = [
        {
            passes_by: Arrival(str(draw), draw.call, tuple(site.node for site in own), beside=passes_by)
            for passes_by in (False, True)
        }
        for draw, own in zip(sight.draws, known, strict=True)
    ]
    counts = [{alike: _counts(own, alike) for alike in (None, True, False)} for own in known]
    judged = {site.node.target for site in dropouts if not site.sources} | {
        *FUNCTIONS,
        *RATIOS_INSIDE,
        *NORMS,
    }
    in_test = {(norm.name, norm.call_index): norm.node for norm in test_norms}
    found: dict[fx.Node, tuple[Arrival, ...]] = {}
    for norm in norms:
        came = sight.came.get(norm.node, 0)
        twin = in_test.get((norm.name, norm.call_index))
        around = arriving(norm.node, beside) | sight.lost.get(norm.node, 0)
        here = []
        for place, draw in enumerate(sight.draws):
            if not came >> place & 1 or draw.trial or draw.node in zeros:
                continue
            alike = (
                None
                if test_sight is None or twin is None
                else _alike(draw, norm.node, test_sight, twin, judged)
            )
            if counts[place][alike]:
                here.append(made[place][not known[place] or bool(around >> place & 1)])
        if here:
            found[norm.node] = tuple(here)
    return found


def _counts(sites: tuple[DropoutSite, ...], alike: bool | None) -> bool:
    """Whether a draw makes train mode differ from test mode.

    Args:
        sites: the dropouts that stand for it.
        alike: whether test mode makes the same of it (`_alike`).
    """
    if not sites:
        return not alike
    noisy = [site for site in sites if site.active_in_train and site.spec.is_noisy]
    return any(not site.active_in_eval for site in noisy) or (bool(noisy) and alike is False)


def _alike(draw: Draw, norm: fx.Node, test: Sight, twin: fx.Node, judged: Set[object]) -> bool | None:
    """Whether a draw comes to a norm in test mode as well, made into the same; None where it does not come.

    Args:
        draw: a draw of train mode that reaches the norm.
        norm: the norm.
        test: what the witness saw in test mode.
        twin: the norm there.
        judged: modules and functions, dropouts and norms, whose other calls may differ.
    """
    there = [
        other
        for place, other in enumerate(test.draws)
        if other.key == draw.key and test.came.get(twin, 0) >> place & 1
    ]
    if not there:
        return None
    if draw.node is None or there[0].node is None:
        return True
    return _made_of(draw.node, norm, judged) == _made_of(there[0].node, twin, judged)


def _made_of(draw: fx.Node, norm: fx.Node, judged: Set[object]) -> Counter[tuple[object, ...]]:
    """The operations between a draw and a norm, with the numbers that they are given, but for calls of what
    is judged by itself.
    """
    reached = {draw}
    between = [draw]
    for node in draw.graph.nodes:
        if node is norm:
            break
        if not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
            between.append(node)
    return Counter(_form(node) for node in between if node is draw or node.target not in judged)


def _form(node: fx.Node) -> tuple[object, ...]:
    """What is called from where, with which numbers; flags tell of the mode alone."""
    given = (*node.args, *node.kwargs.values())
    numbers = tuple(
        value for value in given if isinstance(value, (int, float)) and not isinstance(value, bool)
    )
    return node.meta.get("owner"), node.meta.get("call"), str(node.target), numbers


def _zeros(sight: Sight, dropouts: Set[fx.Node]) -> set[fx.Node]:
    """Nodes that hold nothing but zeros, whatever is drawn: a tensor of zeros, such as a first hidden state,
    under dropout or times a mask.
    """
    found: set[fx.Node] = set()
    for node in next(iter(sight.came)).graph.nodes if sight.came else ():
        name = function_name(node)
        keeps = node in dropouts or name.strip("_") in ("mul", "multiply")
        if filled(name) == "zeros" or (keeps and not found.isdisjoint(node.all_input_nodes)):
            found.add(node)
    return found


def _beside(
    sight: Sight, sites: Mapping[fx.Node, list[DropoutSite]], zeros: Set[fx.Node]
) -> dict[fx.Node, int]:
    """For each node the draws that come to it by some way with no dropout on it that stands for them.

    A draw that makes a mask is stood for by the product with that mask; one in a dropout by the dropout;
    nothing stands for it where the ratio could not be read. What reached a node by a way that the graph does
    not show passed no dropout that is known.
    """
    sites = {node: [site for site in own if not math.isnan(site.spec.p)] for node, own in sites.items()}
    raw: dict[fx.Node, int] = {}
    for place, draw in enumerate(sight.draws):
        if draw.node is not None and not any(site.node is draw.node for site in sites.get(draw.node, [])):
            raw[draw.node] = raw.get(draw.node, 0) | 1 << place
    products = {site.node: site for of_draw in sites.values() for site in of_draw if site.sources}
    beside: dict[fx.Node, int] = {}
    carried: dict[fx.Node, int] = {}
    for node in next(iter(sight.carried)).graph.nodes if sight.carried else ():
        carried[node] = sight.carried.get(node, arriving(node, carried))
        product = products.get(node)
        if product is None:
            around = arriving(node, beside)
        else:
            data = node.all_input_nodes[product.operand]
            own = functools.reduce(operator.or_, (raw.get(source, 0) for source in product.sources), 0)
            passed = 0 if product.spec.noise is Noise.BLEND else beside.get(data, 0)  # its mask lies in there
            around = passed | (arriving(node, beside) & ~own)
        if node in zeros:
            continue
        bits = (around & carried[node]) | raw.get(node, 0) | sight.lost.get(node, 0)
        if bits:
            beside[node] = bits
    return beside
