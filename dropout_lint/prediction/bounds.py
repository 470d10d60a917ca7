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
    if mask.spec.noise.whole_branch:  # a batch holds few of its draws, and sees less of their variance
        return math.inf
    return 1 / (1 + mask.spec.mask_variance)


def of_loud_data(site: NormSite, ledger: Ledger) -> list[float]:
    """Δ behind alpha dropout, where training has made the data loud; how loud, shapes do not tell.

    Test mode leaves out x·m + b altogether, whose variance is E[m²] = a²k of the data's where they are large
    against b (Klambauer et al. 2017, Sec. 2, "alpha dropout"): that is less than 1, and each multiplies.
    """
    factors = [
        1 / sum(draw.probability * draw.factor**2 for draw in draws(mask.spec))
        for mask, noise in zip(ledger.dropouts, ledger.noise_at.get(site.node, ()), strict=False)
        if noise > 0 and mask.spec.noise.mask.keeps_moments and mask.spec.p < 1
    ]
    return [math.prod(factors)] if factors else []
