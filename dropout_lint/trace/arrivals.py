"""Which draws reach which norm, and whether the graph shows a dropout on every way that they take."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping

from torch import fx

from dropout_lint.terms import Noise
from dropout_lint.trace.observer import Sight, arriving
from dropout_lint.trace.traced import Arrival, DropoutSite, NormSite


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
    sites: dict[fx.Node, list[DropoutSite]] = {}
    for site in dropouts:
        for node in site.sources or (site.node,):
            sites.setdefault(node, []).append(site)
    beside = _beside(sight, sites)
    known = [tuple(sites.get(draw.node, ())) if draw.node is not None else () for draw in sight.draws]
    made = [
        {
            passes_by: Arrival(str(draw), draw.call, tuple(site.node for site in own), beside=passes_by)
            for passes_by in (False, True)
        }
        for draw, own in zip(sight.draws, known, strict=True)
    ]
    counts = [not draw.trial and _counts(own) for draw, own in zip(sight.draws, known, strict=True)]
    same = _drawn_in_test(test_sight, test_norms)
    found: dict[fx.Node, tuple[Arrival, ...]] = {}
    for norm in norms:
        came = sight.came.get(norm.node, 0)
        always = same.get((norm.name, norm.call_index), frozenset())
        around = arriving(norm.node, beside) | sight.lost.get(norm.node, 0)
        here = []
        for place, draw in enumerate(sight.draws):
            if came >> place & 1 and counts[place] and draw.key not in always:
                here.append(made[place][not known[place] or bool(around >> place & 1)])
        if here:
            found[norm.node] = tuple(here)
    return found


def _counts(sites: tuple[DropoutSite, ...]) -> bool:
    """Whether a draw makes train mode differ from test mode, by what is known of its dropouts."""
    if not sites:
        return True
    return any(site.active_in_train and site.spec.is_noisy and not site.active_in_eval for site in sites)


def _beside(sight: Sight, sites: Mapping[fx.Node, list[DropoutSite]]) -> dict[fx.Node, int]:
    """For each node the draws that come to it by some way with no dropout on it that stands for them.

    A draw that makes a mask is stood for by the product with that mask; one in a dropout by the dropout. What
    reached a node by a way that the graph does not show passed no dropout that is known.
    """
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
        bits = (around & carried[node]) | raw.get(node, 0) | sight.lost.get(node, 0)
        if bits:
            beside[node] = bits
    return beside


def _drawn_in_test(
    sight: Sight | None, norms: Iterable[NormSite]
) -> dict[tuple[str, int], frozenset[tuple[object, ...]]]:
    """By norm, the keys of the draws that reach it in test mode."""
    if sight is None:
        return {}
    return {
        (norm.name, norm.call_index): frozenset(
            draw.key for place, draw in enumerate(sight.draws) if sight.came.get(norm.node, 0) >> place & 1
        )
        for norm in norms
    }
