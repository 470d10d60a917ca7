"""The papers' closed forms: THEORY.md's table, the identities between them, and the papers' errata."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from dropout_lint.errors import UsageError
from dropout_lint.prediction import equations as eq

FUNCTIONS = {
    "identity": lambda t: t * 1,
    "ReLU": F.relu,
    "GELU": F.gelu,
    "tanh": torch.tanh,
    "ELU": F.elu,
    "SiLU": F.silu,
}
# THEORY.md, "Numbers to test against": E[f], E[f²], E[f'²], Δ at p = .1, .2, .3, .5
TABLE = {
    "identity": (0, 1, 1, 0.9000, 0.8000, 0.7000, 0.5000),
    "ReLU": (0.3989, 0.5000, 0.5000, 0.8598, 0.7317, 0.6140, 0.4054),
    "GELU": (0.2821, 0.4252, 0.4559, 0.8797, 0.7648, 0.6548, 0.4484),
    "tanh": (0, 0.3943, 0.4644, 0.9000, 0.8000, 0.7000, 0.5000),
    "ELU": (0.1605, 0.6449, 0.6681, 0.8963, 0.7934, 0.6914, 0.4898),
    "SiLU": (0.2066, 0.3558, 0.3795, 0.8879, 0.7788, 0.6725, 0.4681),
}
keeps = st.floats(0.05, 1.0)
means = st.floats(-3.0, 3.0)
variances = st.floats(0.01, 10.0)


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_moments_and_shifts_to_four_digits(name: str) -> None:
    mean, energy, slope, *deltas = TABLE[name]
    factors = eq.hendrycks_factors(FUNCTIONS[name])
    assert factors.mean == pytest.approx(mean, abs=5e-5)
    assert factors.energy == pytest.approx(energy, abs=5e-5)
    assert factors.slope_energy == pytest.approx(slope, abs=5.1e-5)
    for p, delta in zip((0.1, 0.2, 0.3, 0.5), deltas, strict=True):
        assert eq.li_eq6(factors.mean, factors.variance, 1 - p) == pytest.approx(delta, abs=5.1e-5)


@pytest.mark.parametrize(
    ("name", "printed", "right"), [("tanh", 0.216, 0.464), ("GELU", 0.444, 0.456), ("ELU", 0.671, 0.668)]
)
def test_hendrycks_table_1_is_computed_and_not_copied(name: str, printed: float, right: float) -> None:
    slope = eq.hendrycks_factors(FUNCTIONS[name]).slope_energy
    assert slope == pytest.approx(right, abs=6e-4)
    assert abs(slope - printed) > 2e-3


def test_tanh_was_printed_squared() -> None:
    assert eq.hendrycks_factors(torch.tanh).slope_energy ** 2 == pytest.approx(0.216, abs=5e-4)


@given(keeps)
def test_kim_29_is_li_6_on_the_output_of_a_relu(keep: float) -> None:
    assert eq.kim_eq29(keep) == pytest.approx(eq.li_eq6(eq.kim_eq12(), eq.kim_eq13(), keep))


@given(keeps, st.floats(0.1, 5.0))
def test_kim_15_is_the_train_variance_of_li_6(keep: float, gamma: float) -> None:
    delta = eq.li_eq6(eq.kim_eq14(gamma), eq.kim_eq13(gamma), keep)
    assert eq.kim_eq13(gamma) / eq.kim_eq15(keep, gamma) == pytest.approx(delta)
    assert eq.kim_eq19(gamma) / eq.kim_eq18(keep, gamma) == pytest.approx(eq.kim_eq29(keep))
    assert eq.kim_eq17(keep, gamma) == pytest.approx(2 * eq.kim_eq15(keep, gamma))
    assert eq.kim_eq16() == 0


@given(keeps, st.lists(st.floats(0.1, 3.0), min_size=1, max_size=8), st.floats(0.01, 10.0))
def test_kim_31_lies_between_the_branch_alone_and_one(keep: float, gammas: list[float], skip: float) -> None:
    assert eq.kim_eq31(0.0, keep, gammas) == pytest.approx(eq.kim_eq29(keep))
    delta = eq.kim_eq31(skip, keep, gammas)
    assert eq.kim_eq29(keep) - 1e-12 <= delta <= 1 + 1e-12


@given(means, variances, keeps, st.floats(0.0, 1.0), st.floats(1.0, 60.0))
def test_li_10_and_12_are_one_equation(c: float, v: float, keep: float, rho: float, d_cos2: float) -> None:
    assert eq.li_eq10(c, v, keep, rho, d_cos2) == pytest.approx(eq.li_eq12(c, v, keep, rho, d_cos2))


@given(means, variances, st.floats(0.05, 0.95), st.floats(0.05, 1.0))
def test_li_12_goes_to_one_with_width(c: float, v: float, keep: float, rho: float) -> None:
    wide = [eq.li_eq12(c, v, keep, rho, d) for d in (1, 10, 1e3, 1e9)]
    assert wide == sorted(wide)
    assert wide[-1] == pytest.approx(1, abs=1e-3)
    assert wide[0] == pytest.approx(eq.li_eq6(c, v, keep))


@given(means, variances, keeps)
def test_li_6_is_in_the_unit_interval_and_one_without_dropout(c: float, v: float, keep: float) -> None:
    assert 0 < eq.li_eq6(c, v, keep) <= 1 + 1e-12
    assert eq.li_eq6(c, v, 1.0) == pytest.approx(1)


def test_li_11_measures_the_angle_to_all_ones() -> None:
    assert eq.li_eq11([2.0, 2.0, 2.0]) == pytest.approx(1)
    assert eq.li_eq11([1.0, -1.0]) == pytest.approx(0)
    assert eq.li_eq11([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    with pytest.raises(UsageError, match="all zero"):
        eq.li_eq11([0.0, 0.0])


def test_li_13_holds_for_zero_mean_only() -> None:
    assert eq.li_eq13(0.1) == pytest.approx(300 / 301)
    assert eq.li_eq13_exact(0.0, 2.0, 0.5) == pytest.approx(eq.li_eq13(0.5))
    assert eq.li_eq13(0.5) == pytest.approx(0.923, abs=5e-4)
    assert eq.li_eq13_exact(eq.kim_eq12(), eq.kim_eq13(), 0.5) == pytest.approx(0.891, abs=5e-4)


def test_li_table_1_grows_with_width() -> None:
    rows = {row.network: row for row in eq.LI_TABLE1}
    assert rows["WRN-28-10"].d_cos2 > rows["ResNeXt-29"].d_cos2 > rows["DenseNet-BC"].d_cos2
    assert rows["WRN-28-10"].dimension > rows["PreResNet-110"].dimension


@given(means, variances, st.floats(0.1, 0.9), st.integers(2, 400), st.floats(0.0, 1.0))
def test_kim_proposition_5(c: float, v: float, keep: float, positions: int, rho: float) -> None:
    gain = eq.kim_prop5(c, v, keep, positions, rho)
    assert gain.before <= gain.after + 1e-9
    shared = eq.kim_prop5(c, v, keep, positions, rho, shared=True)
    assert shared.before == pytest.approx(shared.after)
    constant = eq.kim_prop5(c, 1e-9, keep, positions)
    if abs(c) > 0.1:
        assert constant.after / constant.before == pytest.approx(positions, rel=1e-3)


def test_hendrycks_divisor() -> None:
    relu = eq.hendrycks_factors(F.relu)
    assert eq.hendrycks_divisor(0.5, relu) == pytest.approx(math.sqrt(0.5 / 0.5 + 0.5 * 0.5))
    assert eq.hendrycks_divisor(0.5, relu, backward=False) == pytest.approx(1)


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5, float("nan")])
def test_a_keep_probability_outside_its_range_is_said_aloud(keep: float) -> None:
    with pytest.raises(UsageError, match="keep probability"):
        eq.li_eq6(0.0, 1.0, keep)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_measured_on_relu_into_a_random_linear_layer(p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 200, generator=generator).relu()
    w = torch.randn(200, 100, generator=generator)
    mask = (torch.rand(x.shape, generator=generator) >= p) / (1 - p)
    measured = float((x @ w).var(0).mean() / ((x * mask) @ w).var(0).mean())
    assert eq.kim_eq29(1 - p) == pytest.approx(measured, abs=0.02)
