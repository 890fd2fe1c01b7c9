"""Judgements: right results pass whatever rounding leaves, wrong ones are found at their entry."""

from __future__ import annotations

import math

import numpy as np
import pytest

import adbridge as ad
from adbridge.validate.judging import judge_hvp, judge_jvp, judge_value, judge_vjp

X = ad.array_namespace


def gradient(fun, x, got):
    return judge_vjp(ad.referee(fun, x), 1.0, (np.asarray(got, np.asarray(x).dtype),))


def norm(x):
    return X(x).linalg.norm(x)


TIES = np.array([1.0, 1.0, 0.0])
ROWS = {
    # name: (function, point, gradient given, verdict)
    "right": (lambda x: X(x).sum(X(x).sin(x)), [0.5, 1.0], np.cos([0.5, 1.0]), "agree"),
    "1e-6 off": (lambda x: X(x).sum(X(x).sin(x)), [0.5, 1.0], np.cos([0.5, 1.0]) * [1, 1 + 1e-6], "wrong"),
    "wrong sign": (lambda x: X(x).sin(x), 0.5, -math.cos(0.5), "wrong"),
    "nan where it exists": (lambda x: norm(x) ** 2, [0.0, 0.0], [np.nan, np.nan], "wrong"),
    "lost in the tail": (lambda x: X(x).tanh(x), 20.0, 0.0, "wrong"),
    "kept in the tail": (lambda x: X(x).tanh(x), 20.0, 1.6993417021166355e-17, "agree"),
    "overflow": (lambda x: X(x).exp(x), 710.0, math.inf, "agree"),
    "underflow": (lambda x: X(x).exp(x), -800.0, 0.0, "agree"),
    "rounding of zero": (lambda x: X(x).exp(x) * X(x).exp(-x), 1.0, 2e-16, "agree"),
    "more than rounding of zero": (lambda x: X(x).exp(x) * X(x).exp(-x), 1.0, 1e-8, "wrong"),
    "cancellation in f": (lambda x: ((1e8 + x) - 1e8) ** 2, 1.3, 2 * ((1e8 + 1.3) - 1e8), "agree"),
    "more than cancellation in f": (lambda x: ((1e8 + x) - 1e8) ** 2, 1.3, 2.6 * 1.1, "wrong"),
    "zero at a norm's kink": (norm, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], "convention"),
    "nan at a norm's kink": (norm, [0.0, 0.0, 0.0], [np.nan] * 3, "convention"),
    "outside of a norm's kink": (norm, [0.0, 0.0, 0.0], [1.0, 1.0, 0.0], "wrong"),
    "first of ties": (lambda x: X(x).max(x), TIES, [1.0, 0.0, 0.0], "convention"),
    "even split of ties": (lambda x: X(x).max(x), TIES, [0.5, 0.5, 0.0], "convention"),
    "both of ties": (lambda x: X(x).max(x), TIES, [1.0, 1.0, 0.0], "wrong"),
    "none of ties": (lambda x: X(x).max(x), TIES, [0.0, 0.0, 0.0], "wrong"),
    "an entry beside the ties": (lambda x: X(x).max(x), TIES, [0.5, 0.5, 0.1], "wrong"),
    "kinks of opposite sign": (lambda x: X(x).abs(x[0]) - X(x).abs(x[1]), [0.0, 0.0], [1.0, 1.0], "convention"),
    "infinite": (lambda x: X(x).sqrt(x), 0.0, np.inf, "infinite"),
    "finite where infinite": (lambda x: X(x).sqrt(x), 0.0, 1e8, "wrong"),
    "nan where infinite": (lambda x: X(x).sqrt(x), 0.0, np.nan, "wrong"),
    "wrong infinity": (lambda x: X(x).sqrt(x), 0.0, -np.inf, "wrong"),
    "beside a jump": (lambda x: X(x).remainder(x, 3.0), 6.0, 1.0, "convention"),
    "at a jump": (lambda x: X(x).remainder(x, 3.0), 6.0, 5.0, "undefined"),
    "not defined": (lambda x: X(x).log(x), -1.0, -1.0, "undefined"),
    "border of the domain": (lambda x: x**1.5, 0.0, 0.0, "agree"),
    "nan at the border": (lambda x: x**1.5, 0.0, np.nan, "convention"),
    "off at the border": (lambda x: x**1.5, 0.0, 1.0, "wrong"),
}


@pytest.mark.parametrize("name", ROWS)
def test_verdict(name):
    fun, x, got, verdict = ROWS[name]
    finding = gradient(fun, np.asarray(x), got)
    assert finding.verdict == verdict, finding


def test_entry_got_and_expected():
    x = np.linspace(0, 1, 12).reshape(3, 4)
    got = np.cos(x)
    got[2, 1] *= -1
    finding = gradient(lambda x: X(x).sum(X(x).sin(x)), x, got)
    assert (finding.verdict, finding.entry) == ("wrong", "x[2, 1]")
    assert finding.got == got[2, 1]
    assert finding.expected == pytest.approx(-got[2, 1], rel=1e-15)
    assert finding.relative_error == pytest.approx(2)


def test_one_entry_among_twenty_thousand():
    x = np.linspace(-1, 1, 20_000)
    got = 3 * x**2
    assert gradient(lambda x: X(x).sum(x * x * x), x, got).verdict == "agree"
    got[7_707] *= 1 + 1e-3
    finding = gradient(lambda x: X(x).sum(x * x * x), x, got)
    assert (finding.verdict, finding.entry) == ("wrong", "x[7707]")


def test_last_place_errors_are_counted_in_units_of_the_dtype():
    x = np.array(0.7, np.float32)
    right = np.float32(np.cos(np.float64(x)))
    off = np.nextafter(right, np.float32(1))
    assert gradient(lambda x: X(x).sin(x), x, right).error_ulp <= 0.5
    assert 0.3 < gradient(lambda x: X(x).sin(x), x, off).error_ulp < 1.6


def test_structure_shape_and_dtype_are_exact():
    judge = ad.referee(lambda x: X(x).sum(x * x), np.ones(3))
    assert judge_vjp(judge, 1.0, (np.full(3, 2.0, np.float32),)).note == "dtype float32, expected float64"
    assert judge_vjp(judge, 1.0, (np.full((3, 1), 2.0),)).note == "shape (3, 1), expected (3,)"
    assert "expected a tuple of 1" in judge_vjp(judge, 1.0, (np.full(3, 2.0), np.ones(3))).note
    assert "tree structure" in judge_jvp(judge, np.ones(3), (np.array(6.0),)).note


def test_the_other_results():
    x, v = np.array([0.5, 2.0]), np.array([1.0, -1.0])
    judge = ad.referee(lambda x: x[0] ** 2 * x[1], x)
    assert judge_value(judge, np.array(0.5)).verdict == "agree"
    assert judge_value(judge, np.array(0.51)).verdict == "wrong"
    assert judge_jvp(judge, v, np.array(2 * 0.5 * 2 - 0.25)).verdict == "agree"
    assert judge_jvp(judge, v, np.array(2.0)).verdict == "wrong"
    assert judge_hvp(judge, (v,), (np.array([4 * 1 - 1.0, 1.0]),)).verdict == "agree"
    assert judge_hvp(judge, (v,), (np.array([4 * 1 + 1.0, 1.0]),)).verdict == "wrong"


def test_second_derivatives_of_smooth_points_behind_kinks():
    judge = ad.referee(lambda x: norm(x) ** 2, np.zeros(2))
    assert judge_hvp(judge, (np.ones(2),), (np.array([2.0, 2.0]),)).verdict == "agree"
    assert judge_hvp(judge, (np.ones(2),), (np.full(2, np.nan),)).verdict == "wrong"
    assert judge_hvp(ad.referee(norm, np.zeros(2)), (np.ones(2),), (np.full(2, np.nan),)).verdict == "convention"


def test_a_wide_bar_is_never_a_pass():
    """f in half precision: its differences know the derivative to a few digits only."""

    def coarse(x):
        return np.array(float(np.float16(float(x) ** 2)))

    assert gradient(coarse, 1.1, 2.2).verdict == "unresolved"
    assert gradient(coarse, 1.1, 2.2003).verdict == "unresolved"


def test_complex_entries():
    judge = ad.referee(lambda z: X(z).sum(X(z).real(z) ** 2 + X(z).imag(z) ** 2), np.array([1 + 2j]))
    assert judge_vjp(judge, 1.0, (np.array([2 - 4j]),)).verdict == "agree"
    assert judge_vjp(judge, 1.0, (np.array([2 + 4j]),)).verdict == "wrong"


@pytest.mark.parametrize("n", [2, 5])
def test_matrix_functions_are_judged_by_their_norm(n):
    """LU leaves errors of the matrix's norm in every entry, which no condition of the entry shows."""
    rng = np.random.default_rng(n)
    a = rng.standard_normal((n, n))
    a[:, 0] *= 1e-9
    finding = gradient(lambda a: X(a).linalg.det(a), a, np.linalg.det(a) * np.linalg.inv(a).T)
    assert finding.verdict == "agree", finding


def relu(x):
    return X(x).where(x > 0, x, 0.0)


def test_kinks_that_cancel_are_conventions():
    """relu(x) - relu(-x) is x; an engine whose relu'(0) is 0 gives 0, none could give 3."""
    judge = ad.referee(lambda x: relu(x) - relu(-x), 0.0)
    assert judge_vjp(judge, 1.0, (np.array(1.0),)).verdict == "agree"
    finding = judge_vjp(judge, 1.0, (np.array(0.0),))
    assert finding.verdict == "convention"
    assert "made of kinks that cancel; its branches give [0, 2]" in finding.note
    assert judge_vjp(judge, 1.0, (np.array(3.0),)).verdict == "wrong"
    assert judge_jvp(judge, 1.0, np.array(0.0)).verdict == "convention"


def test_a_branch_for_one_point_alone_explains_nothing():
    """where(x == 0, 1, sin(s)/s) has the derivatives of its other branch."""

    def f(x):
        s = X(x).where(x == 0, 1.0, x)
        return X(x).where(x == 0, 0.0, X(x).sin(s) / s * s + 2 * s)

    judge = ad.referee(f, 0.0)
    assert judge_vjp(judge, 1.0, (np.array(3.0),)).verdict == "agree"
    assert judge_vjp(judge, 1.0, (np.array(0.0),)).verdict == "wrong"


@pytest.mark.parametrize("name", ["eigvalsh", "cholesky"])
def test_which_triangle_is_read_is_a_convention(name):
    a = np.array([[2.0, 1.0], [1.0, 3.0]])
    h = 1e-6

    def f(a):
        return X(a).sum(getattr(X(a).linalg, name)(a)[-1])

    def slope(e):
        return (getattr(np.linalg, name)(a + h * e)[-1].sum() - getattr(np.linalg, name)(a - h * e)[-1].sum()) / (2 * h)

    both = slope(np.array([[0.0, 1.0], [1.0, 0.0]]))
    lower = np.array([[slope(np.diag([1.0, 0])), 0], [both, slope(np.diag([0, 1.0]))]])
    exact = ad.referee(f, a).grad()
    np.testing.assert_allclose(exact, lower, atol=1e-8)
    judge = ad.referee(f, a)
    symmetric = (exact + np.transpose(exact)) / 2
    assert judge_vjp(judge, 1.0, (np.array(exact),)).verdict == "agree"
    assert judge_vjp(judge, 1.0, (np.array(symmetric),)).verdict == "convention"
    assert judge_vjp(judge, 1.0, (np.array(np.transpose(exact)),)).verdict == "convention"
    assert judge_vjp(judge, 1.0, (np.array(exact) * 1.001,)).verdict == "wrong"


def test_rounding_that_crosses_a_jump_is_unresolved():
    """0.3 * 1e6 is 300000 in floats, and a little less in truth."""
    judge = ad.referee(lambda x: X(x).floor(x * 1e6), 0.3)
    assert float(judge.value) == 299999
    finding = judge_value(judge, np.array(300000.0))
    assert finding.verdict == "unresolved"
    assert "a rounding error in f is enough" in finding.note
    assert judge_value(judge, np.array(300001.0)).verdict == "wrong"


def test_values_that_are_no_numbers():
    assert judge_value(ad.referee(lambda x: X(x).log(x), -1.0), np.array(np.nan)).verdict == "undefined"
    assert judge_value(ad.referee(lambda x: X(x).log(x), 0.0), np.array(-np.inf)).verdict == "agree"
    assert judge_value(ad.referee(lambda x: X(x).log(x), 0.0), np.array(np.inf)).verdict == "wrong"


def test_small_entries_beside_a_large_one():
    """d tanh at 20 is 1.7e-17: no engine that computes 1 - tanh^2 has it, and beside 0.4 nobody misses it."""
    judge = ad.referee(lambda x: X(x).sum(X(x).tanh(x)), np.array([1.0, 20.0]))
    got = 1 - np.tanh(np.array([1.0, 20.0])) ** 2
    assert judge_vjp(judge, 1.0, (got,)).verdict == "wrong"
    judge.floor = 4
    assert judge_vjp(judge, 1.0, (got,)).verdict == "agree"
    assert judge_vjp(judge, 1.0, (got + np.array([0, 1e-14]),)).verdict == "wrong"


def test_a_guard_at_the_point_excuses_nothing():
    """sin(x)/x with a double where: its second derivative at 0 is -1/3, engines that see the guard alone say 0."""

    def f(x):
        s = X(x).where(x == 0, 1.0, x)
        return X(x).where(x == 0, 1.0, X(x).sin(s) / s)

    judge = ad.referee(f, 0.0)
    assert judge_hvp(judge, (1.0,), (np.array(-1 / 3),)).verdict == "agree"
    assert judge_hvp(judge, (1.0,), (np.array(0.0),)).verdict == "wrong"


def test_huge_arguments_excuse_nothing():
    assert gradient(norm, np.array([3e200, 4e200]), [0.6, 0.8]).verdict == "agree"
    assert gradient(norm, np.array([3e200, 4e200]), [0.0, 0.0]).verdict == "wrong"
    assert gradient(norm, np.array([3e200, 4e200]), [0.6, 1.25]).verdict == "wrong"


def test_a_flat_function():
    """exp(-1/x^2): all its derivatives at 0 are 0."""

    def f(x):
        s = X(x).where(x == 0, 1.0, x)
        return X(x).where(x == 0, 0.0, X(x).exp(-1 / s**2))

    assert gradient(f, np.array(0.0), 0.0).verdict == "agree"
    assert gradient(f, np.array(0.0), 1e-10).verdict == "wrong"


def test_zero_times_the_logarithm_of_a_negative():
    """xlogy(0, y) is 0 for y >= 0 and has no meaning below: the border of the domain."""

    def judge(got):
        return gradient(lambda y: X(y).xlogy(0.0, y), np.array(0.0), got).verdict

    assert (judge(0.0), judge(np.nan), judge(1.0)) == ("agree", "convention", "wrong")


# Narrow dtypes, kinks beside smooth entries, and second derivatives at ties.


@pytest.mark.parametrize(("dtype", "off"), [(np.float32, 1e-2), (np.float64, 1e-6)])
def test_rounding_of_the_entries_beside_a_kink(dtype, off):
    x = np.array([0.0, 1.1, 2.3], dtype)
    wide = x.astype(float)
    right = np.exp(wide) * (np.sin(wide) + np.cos(wide))
    got = np.array([0.0, *right[1:]], dtype)
    fun = lambda x: X(x).abs(x[0]) + X(x).sum(X(x).exp(x[1:]) * X(x).sin(x[1:]))  # noqa: E731
    assert gradient(fun, x, got).verdict == "convention"
    assert gradient(fun, x, got * np.array([1, 1, 1 + off], dtype)).verdict == "wrong"


def test_cancellation_beside_a_kink():
    x = np.array([0.0, 1.1, 2.3])
    got = 2 * ((1e8 + x) - 1e8)
    assert gradient(lambda x: X(x).abs(x[0]) + X(x).sum(((1e8 + x[1:]) - 1e8) ** 2), x, got).verdict == "convention"


def test_a_small_entry_beside_kinks_that_cancel():
    fun = lambda x: relu(x[0]) - relu(-x[0]) + 1e-12 * X(x).exp(x[1])  # noqa: E731
    right = 1e-12 * math.e
    assert gradient(fun, np.array([0.0, 1.0]), [0.0, right]).verdict == "convention"
    assert gradient(fun, np.array([0.0, 1.0]), [0.0, -right]).verdict == "wrong"


def test_kinks_that_cancel_in_float32():
    fun = lambda x: relu(x[0] * 1.1) - relu(-x[0] * 1.1) + X(x).exp(x[1])  # noqa: E731
    x = np.array([0.0, 1.0], np.float32)
    assert gradient(fun, x, [0.0, math.e]).verdict == "convention"
    assert gradient(fun, x, [0.0, math.e * 1.01]).verdict == "wrong"


def test_a_program_that_rounds_to_a_narrower_dtype():
    def fun(x):
        return X(x).astype(X(x).astype(X(x).sin(x), np.float32), np.float64) ** 2

    s, c = float(np.float32(math.sin(0.7))), float(np.float32(math.cos(0.7)))
    assert gradient(fun, 0.7, 2 * s * c).verdict == "agree"
    assert gradient(fun, 0.7, 2 * s * c * 1.01).verdict == "wrong"
    judge = ad.referee(fun, 0.7)
    assert judge_value(judge, np.array(s * s)).verdict == "agree"


def test_branches_explain_second_derivatives():
    """relu(x^2) is x^2; an engine that splits the tie at 0 gives half of its second derivative."""
    judge = ad.referee(lambda x: X(x).maximum(x * x, 0 * x), 0.0)
    assert judge_hvp(judge, (1.0,), (np.array(2.0),)).verdict == "agree"
    assert judge_hvp(judge, (1.0,), (np.array(1.0),)).verdict == "convention"
    assert judge_hvp(judge, (1.0,), (np.array(3.0),)).verdict == "wrong"


def test_what_is_lost_in_rounding_is_no_pass():
    fun = lambda x: ((1e15 + x) - 1e15) ** 2  # noqa: E731
    assert gradient(fun, 1.3, 2 * ((1e15 + 1.3) - 1e15)).verdict == "agree"
    assert gradient(fun, 1.3, -26.0).verdict == "unresolved"


def softplus(x):
    """As JAX writes it, with a number compared with itself."""
    return X(x).where(X(x).isnan(x), x, X(x).maximum(x, 0 * x) + X(x).log1p(X(x).exp(-abs(x))))


def test_a_comparison_of_a_number_with_itself_is_not_rounded():
    assert gradient(softplus, 0.5, 1 / (1 + math.exp(-0.5))).verdict == "agree"
    assert gradient(softplus, 0.5, math.exp(0.5) / 1.5).verdict == "wrong"
    compared = lambda x: X(x).where(x != x, x, X(x).log1p(X(x).exp(x)))  # noqa: E731
    assert gradient(compared, 0.5, 1.0).verdict == "wrong"


@pytest.mark.parametrize(
    "condition",
    [lambda x: X(x).sqrt(x) ** 2 == x, lambda x: (1 + x) - 1 == x, lambda x: X(x).sqrt(x) ** 2 >= x],
    ids=["square of the root", "sum and difference", "at least"],
)
def test_another_branch_taken_by_rounding_does_not_excuse_any_number(condition):
    fun = lambda x: X(x).where(condition(x), x * x, 5 * x)  # noqa: E731
    assert gradient(fun, 4.0, 8.0).verdict == "agree"
    assert gradient(fun, 4.0, 5.0).verdict == "unresolved"
    assert gradient(fun, 4.0, 100.0).verdict == "wrong"


def test_ties_of_many_entries_are_known_by_samples_alone():
    """Sorting equal numbers: the k-th of the sorted may move like any of them."""
    x, t = np.ones(300), np.linspace(-1.5, 1.5, 300)
    judge = ad.referee(lambda x: X(x).sort(x), x)
    for got in (t, t[::-1], np.roll(t, 7)):
        assert judge_jvp(judge, t, np.array(got)).verdict in ("convention", "unresolved")
    assert judge_jvp(judge, t, 10 * t).verdict == "wrong"
