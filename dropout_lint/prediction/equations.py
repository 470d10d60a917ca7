"""The papers' closed forms, one function per equation. `keep` is the keep probability k = 1 - p throughout.

Li:        X. Li, S. Chen, X. Hu, J. Yang, "Understanding the Disharmony between Dropout and Batch
           Normalization by Variance Shift", CVPR 2019.
Kim:       B. J. Kim, H. Choi, H. Jang, D. Lee, S. W. Kim, "How to Use Dropout Correctly on Residual Networks
           with Batch Normalization", UAI 2023.
Hendrycks: D. Hendrycks, K. Gimpel, "Adjusting for Dropout Variance in Batch Normalization and Weight
           Initialization", 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dropout_lint.errors import UsageError
from dropout_lint.prediction.quadrature import PointFunction, derivative_energy, standard_normal_moments


def _keep(keep: float) -> float:
    if not 0 < keep <= 1:
        raise UsageError(
            f"keep probability {keep!r} is outside (0, 1]", "the keep probability is 1 minus the drop ratio p"
        )
    return keep


def mask_variance(keep: float) -> float:
    """Variance s = (1 - k)/k of an inverted dropout mask (THEORY.md, "One rule behind all of the papers")."""
    return (1 - _keep(keep)) / keep


# --- Li et al. 2019 -------------------------------------------------------------------------------------


def li_eq6(mean: float, variance: float, keep: float) -> float:
    """Li Eq. 6, case (a): Δ = v / ((c² + v)/k - c²); dropout feeds the norm with no weights between.

    Args:
        mean: c, mean of the dropout's input.
        variance: v > 0, its variance.
        keep: k in (0, 1].

    Raises:
        UsageError: `keep` outside (0, 1].
    """
    return variance / ((mean**2 + variance) / _keep(keep) - mean**2)


def li_eq10(mean: float, variance: float, keep: float, correlation: float, d_cos2: float) -> float:
    """Li Eq. 10, case (b): dropout feeds the norm through one weight layer.

    Δ = (v + vρ(d·cos²θ - 1)) / ((c² + v)/k - c² + vρ(d·cos²θ - 1)).

    Args:
        correlation: ρ, the correlation that all pairs of inputs share.
        d_cos2: d·cos²θ of the weights (`li_eq11`; `LI_TABLE1` has it for trained networks).
    """
    a = variance * correlation * (d_cos2 - 1)
    return (variance + a) / ((mean**2 + variance) / _keep(keep) - mean**2 + a)


def li_eq11(weights: Sequence[float]) -> float:
    """Li Eq. 11: cos²θ = (Σ wᵢ)² / (d · Σ wᵢ²), θ the angle between the weights and (1, …, 1)."""
    energy = sum(w * w for w in weights)
    if not energy:
        raise UsageError(
            "cos²θ of weights that are all zero is undefined", "pass at least one weight that is not zero"
        )
    return float(sum(weights)) ** 2 / (len(weights) * energy)


def li_eq12(mean: float, variance: float, keep: float, correlation: float, d_cos2: float) -> float:
    """Li Eq. 12: Eq. 10 with numerator and denominator divided by d·cos²θ, so that d → ∞ shows Δ → 1."""
    common = variance * correlation
    rest = variance - common
    extra = (1 / _keep(keep) - 1) * (mean**2 + variance)
    return (common + rest / d_cos2) / (common + (rest + extra) / d_cos2)


def li_eq13(beta: float) -> float:
    """Li Eq. 13, Uout x(1 + r), r ~ U(-β, β), as printed: Δ = 3/(3 + β²). It holds for zero-mean input
    only.
    """
    return 3 / (3 + beta**2)


def li_eq13_exact(mean: float, variance: float, beta: float) -> float:
    """Uout for input of any mean: Δ = v / (v + β²(c² + v)/3)."""
    return variance / (variance + beta**2 * (mean**2 + variance) / 3)


@dataclass(frozen=True)
class TrainedWeights:
    """A row of Li Table 1 (CIFAR-100 columns): averages over all convolutions of a trained network."""

    network: str
    cos2: float
    d_cos2: float

    @property
    def dimension(self) -> float:
        """The fan-in d that goes with the two averages."""
        return self.d_cos2 / self.cos2


LI_TABLE1: tuple[TrainedWeights, ...] = (
    TrainedWeights("PreResNet-110", 0.03169, 2.59925),
    TrainedWeights("DenseNet-BC", 0.01390, 3.43325),
    TrainedWeights("ResNeXt-29", 0.02468, 14.72835),
    TrainedWeights("WRN-28-10", 0.02118, 44.31261),
)


# --- Kim et al. 2023 ------------------------------------------------------------------------------------


def kim_eq12(gamma: float = 1.0) -> float:
    """Kim Eq. 12: E[ReLU(z)] = γ/√(2π) for z ~ N(0, γ²)."""
    return gamma / math.sqrt(2 * math.pi)


def kim_eq13(gamma: float = 1.0) -> float:
    """Kim Eq. 13: Var[ReLU(z)] = γ²(π - 1)/(2π)."""
    return gamma**2 * (math.pi - 1) / (2 * math.pi)


def kim_eq14(gamma: float = 1.0) -> float:
    """Kim Eq. 14: dropout keeps the mean, E[Dropout(ReLU(z))] = γ/√(2π)."""
    return kim_eq12(gamma)


def kim_eq15(keep: float, gamma: float = 1.0) -> float:
    """Kim Eq. 15: Var[Dropout(ReLU(z))] = γ²(π/k - 1)/(2π) in train mode."""
    return gamma**2 * (math.pi / _keep(keep) - 1) / (2 * math.pi)


def kim_eq16() -> float:
    """Kim Eq. 16: E[W·Dropout(ReLU(z))] = 0, the weights have mean zero."""
    return 0.0


def kim_eq17(keep: float, gamma: float = 1.0) -> float:
    """Kim Eq. 17: Var[W·Dropout(ReLU(z))] = γ²(π/k - 1)/π for W ~ N(0, 2/n), train mode."""
    return 2 * kim_eq15(keep, gamma)


def kim_eq18(keep: float, gamma: float = 1.0) -> float:
    """Kim Eq. 18: variance of the residual branch in train mode, Eq. 17."""
    return kim_eq17(keep, gamma)


def kim_eq19(gamma: float = 1.0) -> float:
    """Kim Eq. 19: variance of the residual branch in test mode, γ²(π - 1)/π."""
    return 2 * kim_eq13(gamma)


def kim_eq29(keep: float) -> float:
    """Kim Eq. 29: Δ = (π - 1)/(π/k - 1) of a branch without its skip; Li Eq. 6 on a ReLU's output."""
    return (math.pi - 1) / (math.pi / _keep(keep) - 1)


def kim_eq31(skip_variance: float, keep: float, gammas: Iterable[float]) -> float:
    """Kim Eq. 31: Δ after the add, (Var x₀ + A Σγ²)/(Var x₀ + B Σγ²), A = (π-1)/π, B = (π/k - 1)/π.

    Args:
        skip_variance: Var x₀, of the first block's input.
        gammas: γ of the last norm of each branch added so far.
    """
    energy = sum(gamma**2 for gamma in gammas)
    test = skip_variance + (math.pi - 1) / math.pi * energy
    return test / (skip_variance + (math.pi / _keep(keep) - 1) / math.pi * energy)


@dataclass(frozen=True)
class PoolingGain:
    """Kim Prop. 5: noise variance that dropout adds to a pooled feature, before (H4) and after (H5)
    pooling.
    """

    before: float
    after: float


def kim_prop5(  # noqa: PLR0917 - the symbols of the proposition
    mean: float, variance: float, keep: float, positions: int, correlation: float = 0.0, shared: bool = False
) -> PoolingGain:
    """Kim Prop. 5: dropout before global average pooling adds less variance than after it.

    Element masks before pooling add s·E[x²]/HW; one mask after pooling adds s·E[x̄²]. With one mask for a
    whole channel (Dropout2d, `shared_by_positions`) the two are the same.

    Args:
        positions: H·W.
        correlation: correlation of a channel's values at two positions.
    """
    s = mask_variance(keep)
    pooled = mean**2 + variance * (correlation + (1 - correlation) / positions)
    return PoolingGain(s * (pooled if shared else (mean**2 + variance) / positions), s * pooled)


# --- Hendrycks & Gimpel 2017 ----------------------------------------------------------------------------


@dataclass(frozen=True)
class HendrycksFactors:
    """E[f], E[f²] and E[f'²] of an activation on a standard normal input, by quadrature.

    Hendrycks Table 1 prints E[f'²] of tanh, GELU and ELU wrongly (.216, .444, .671; they are .464, .456,
    .668).
    """

    mean: float
    energy: float
    slope_energy: float

    @property
    def variance(self) -> float:
        """Var[f]."""
        return self.energy - self.mean**2


def hendrycks_factors(function: PointFunction) -> HendrycksFactors:
    """Hendrycks Table 1, computed: moments of `function` (tensor → tensor, pointwise) on N(0, 1)."""
    mean, energy = standard_normal_moments(function)
    return HendrycksFactors(mean, energy, derivative_energy(function))


def hendrycks_divisor(keep: float, factors: HendrycksFactors, *, backward: bool = True) -> float:
    """Hendrycks Sec. 2.2: unit-sphere weights are divided by √(E[f²]/k + k·E[f'²]); convolutions drop the
    second term.
    """
    back = keep * factors.slope_energy if backward else 0.0
    return math.sqrt(factors.energy / _keep(keep) + back)
