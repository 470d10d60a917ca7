"""What Δ can be whatever is trained, where closed forms tell: an end of its interval."""

from __future__ import annotations

import math

from dropout_lint.prediction.ops import Ledger
from dropout_lint.prediction.ops.dropout import draws
from dropout_lint.trace.traced import DropoutSite, NormSite


def only_mask(site: NormSite, ledger: Ledger) -> DropoutSite | None:
    """The dropout that stands between all that is without noise and the norm: Li's case (a)."""
    source = site.source
    if source is None or source not in ledger.sites or not ledger.noisy.isdisjoint(source.all_input_nodes):
        return None
    mask = ledger.dropouts[ledger.sites[source]]
    return None if mask.inside else mask


def at_most(site: NormSite, ledger: Ledger) -> float:
    """What Δ cannot be above, whatever is trained. In case (a), of data of mean c and variance v and masks of
    mean 1 and variance s, Δ = v / (v + s(c² + v)) (Li et al. 2019, Eq. 6): that is 1 / (1 + s) for c = 0.
    """
    mask = only_mask(site, ledger)
    if mask is None or mask.spec.mask_mean != 1 or mask.spec.noise.mask.keeps_moments:
        return math.inf
    few = mask.spec.noise.whole_branch  # of its draws in a batch, which sees less of their variance
    return math.inf if few else 1 / (1 + mask.spec.mask_variance)


def of_loud_data(site: NormSite, ledger: Ledger) -> list[float]:
    """Δ behind alpha dropout, where training has made the data loud; how loud, shapes do not tell.

    In training x·m + b has the variance E[m²] = a²k of the data's, where they are large against b (Klambauer
    et al. 2017, Sec. 2, "New Dropout Technique"): that is less than 1, test mode leaves it out, and each
    multiplies.
    """
    noises = ledger.noise_at.get(site.node)
    if noises is None:
        return []
    masks = [ledger.dropouts[row] for row in ledger.keeping_moments if noises[row] > 0]
    second = [
        sum(draw.probability * draw.factor**2 for draw in draws(mask.spec))
        for mask in masks
        if mask.spec.p < 1
    ]
    return [1 / math.prod(second)] if second else []
