"""The facts that rules compare. Free of torch, so that rule files can be checked without importing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dropout_lint.terms import Noise

if TYPE_CHECKING:
    from dropout_lint.prediction.shifts import NormShift


@dataclass(frozen=True)
class Facts:
    """The facts about one dropout call on its way to one norm: what a rule's `match` may name.

    The facts about the way are None where no norm that shifts is reached. Add a fact here and fill it in one
    function of the survey; rule files can then compare it.

    Attributes:
        kind: class or function name, as the user wrote it.
        noise: what shares one draw of the mask (`element`, `channel`, `sample`, …).
        drops: the mask is 0 at times; that of Uout and of Gaussian dropout is spread around 1.
        whole_branch: one draw drops all that a residual branch holds of a sample, or a region of it.
        p: drop ratio (β of Uout, α of Gaussian dropout, a gate's relative variance); NaN where it cannot be
            read.
        zeroed: of a DropBlock whose way to draw is known: share of this input's elements that it zeroes.
        mean_low: of the same: least mean that its mask has at some position; 1 is that of test mode.
        mean_high: the largest.
        functional: a function call, or a module that is made in `forward`.
        inplace: it overwrites its input.
        inside: it lives inside an attention or recurrent node, or drops the weights of an attention that is
            written out.
        active_in_train: it drops in train mode.
        active_in_eval: it still drops in eval mode.
        input_rank: number of dimensions of its input.
        norm: family of the first norm that shifts (`batch`, `sync-batch`, `instance`).
        weights_between: weight layers between the dropout and that norm, on the way with the fewest.
        adds_between: sums of two data tensors on that way.
        concats_between: concatenations on that way.
        norms_between: norms that do not shift on that way.
        residual_add_between: on that way a residual add joins the noise with a skip that does not carry it
            (Kim et al. 2023, Propositions 3 and 4).
        width: channels feeding the next weight layer on that way, or else the norm.
        delta: predicted Δ at that norm when the network is trained, all dropouts together.
        delta_low: lower end of the interval that Δ lies in nine times in ten, where only shapes are known.
        delta_high: its upper end.
        delta_initial: Δ with the weights of the start; None with a trained checkpoint.
        share: this dropout's share of the shortfall 1 − Δ there, or of what Δ is above 1.
        fed_delta: with no weight layer between, Δ on the channels that this dropout feeds: its own part of a
            concat; otherwise delta.
        own_delta: Δ that this share alone would leave there, delta^share: dropouts in series multiply. With
            no weight layer between, on the channels that it feeds.
        basis: what Δ was worked out from.
        position: `P0`–`P7` or `H1`–`H7` (Kim et al. 2023, Fig. 2 and 4), or None.
        in_branch: it lies in a residual branch, or in a dense layer.
        branch_style: `pre-activation` (ends with a weight layer), `post-activation` (ends with a norm).
        branch_join: `add` or `concat`: what closes the branch.
        branch_norms: norms that shift in the branch.
        dropouts_in_branch: dropouts (stochastic depth not counted) in the branch, itself included.
        at_branch_end: at the end of a branch that an add closes: no norm that shifts and no weight layer lies
            between.
        at_guideline: it stands where the guidelines put it, or where no batch norm comes after it.
        in_head: it belongs to the head: no residual add follows.
        pooled_before: global pooling comes before it.
        on_logits: it drops the predictions themselves.
        skip_shares_inplace: it overwrites a tensor that something else reads as well.
        degenerate: p ≥ 1, or p is NaN in the layer itself.
        keeps_mean: the mask's mean in training is that of test mode, 1.
        wrong_rank: a channel dropout whose input has not the rank that it is made for.
        plain_weights: the next weight layer is not initialised for the dropout before it, nor does any norm
            make up for its scale.
        any_norm: some norm of whatever family comes before or after it.
        momentum: of a norm: the share of each batch in its running statistics, as torch counts it; None where
            all batches count alike.
        recomputed: of a norm: `torch.utils.checkpoint` runs it again in the backward pass.
        modes_differ: of a deployed program: a norm of it is in the other mode than the dropout.
        norm_trains: of a deployed program: that norm normalises by the batch.
        subject: what is looked at: `dropout`, `unused` (a dropout that is never called), `norm` or `program`
            (a dropout of a deployed program, `active_in_eval` where it drops there). A rule that does not
            name it looks at dropouts that are called.
    """

    kind: str = ""
    noise: str = ""
    drops: bool = True
    whole_branch: bool = False
    p: float = 0.0
    zeroed: float | None = None
    mean_low: float | None = None
    mean_high: float | None = None
    functional: bool = False
    inplace: bool = False
    inside: bool = False
    active_in_train: bool = True
    active_in_eval: bool = False
    input_rank: int | None = None
    # the way to the norm
    norm: str | None = None
    weights_between: int | None = None
    adds_between: int | None = None
    concats_between: int | None = None
    norms_between: int | None = None
    residual_add_between: bool = False
    width: int | None = None
    delta: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None
    delta_initial: float | None = None
    share: float | None = None
    fed_delta: float | None = None
    own_delta: float | None = None
    basis: str | None = None
    # the placement
    position: str | None = None
    in_branch: bool = False
    branch_style: str | None = None
    branch_join: str | None = None
    branch_norms: int = 0
    dropouts_in_branch: int = 0
    at_branch_end: bool = False
    at_guideline: bool = False
    in_head: bool = False
    pooled_before: bool = False
    on_logits: bool = False
    skip_shares_inplace: bool = False
    degenerate: bool = False
    keeps_mean: bool = True
    wrong_rank: bool = False
    plain_weights: bool = False
    any_norm: bool = False
    # the norm itself
    momentum: float | None = None
    recomputed: bool = False
    # a program of one mode
    modes_differ: bool = False
    norm_trains: bool | None = None
    subject: str = "dropout"


OF_RATIO = frozenset(
    {
        *("p", "zeroed", "mean_low", "mean_high", "degenerate", "keeps_mean"),
        *("delta", "delta_low", "delta_high", "delta_initial", "share", "fed_delta", "own_delta"),
    }
)
"""The facts that change with the ratio of a dropout."""
P_POSITIONS = tuple(f"P{place}" for place in range(8))
H_POSITIONS = tuple(f"H{place}" for place in range(1, 8))

# The values of facts that have a fixed set of them, so that a misspelt one in a rule is found at once.
VALUES: Mapping[str, tuple[str, ...]] = {
    "noise": tuple(noise.value for noise in Noise),
    "norm": ("batch", "sync-batch", "instance"),
    "basis": ("trained-estimate", "checkpoint"),
    "position": (*P_POSITIONS, *H_POSITIONS),
    "branch_style": ("pre-activation", "post-activation"),
    "branch_join": ("add", "concat"),
    "subject": ("dropout", "unused", "norm", "program"),
}


def of_shift(shift: NormShift) -> dict[str, Any]:
    """The facts about the shift of one norm, by name."""
    low, high = shift.interval or (None, None)
    return {
        "delta": shift.delta,
        "delta_low": low,
        "delta_high": high,
        "delta_initial": shift.delta_initial,
        "basis": shift.basis,
    }
