"""Special functions: values against SciPy, derivatives against Arb's arithmetic with a tiny step (no rule of ours)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import special

import adbridge as ad
from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.primitives import PRIMITIVES

B = "reference"
EPS = np.finfo(float).eps
DIGITS = 420  # of the oracle; its step is 10^-30, and expit(700) lies 10^-304 from 1


def jvp(fun: Any, primals: Any, tangents: Any) -> Any:
    return ad.jvp(fun, tuple(primals), tuple(tangents), backend=B)


def pull(fun: Any, primals: Any, cotangents: Any) -> Any:
    return ad.vjp(fun, *primals, backend=B)[1](cotangents)


@dataclass(frozen=True)
class Row:
    """`ball` is the function on Arb balls; `slack` times eps bounds the relative error of derivatives.

    The default allows for the condition of exp(-x^2) at the points below, and SciPy's own errors.
    """

    ours: Callable[[Any], Any]
    scipy: Callable[[Any], Any]
    ball: Callable[[Any], Any]
    at: tuple[float, ...]
    slack: float = 64
    second: bool = True


def _digamma_of(n: int) -> Callable[[Any], Any]:
    """The polygamma functions as Hurwitz zeta functions (DLMF 25.11.12)."""

    def ball(x: Any) -> Any:
        import flint

        return flint.arb(n + 1).zeta(x) * ((-1) ** (n + 1) * math.factorial(n))

    return ball


def _log_ndtr(x: Any) -> Any:
    return ((-x / _root(2)).erfc() / 2).log()


def _root(n: int) -> Any:
    import flint

    return flint.arb(n).sqrt()


APART = (-3.0, -0.7, 0.4, 1.0, 2.5)  # x^2 + 1 rounds little of x off
SMOOTH = (-3.0, -0.7, -1e-3, 0.4, 1.0, 2.5)
POSITIVE = (1e-3, 0.3, 1.0, 1.7, 12.0, 150.0)
ROWS = {
    "erf": Row(xp.erf, special.erf, lambda x: x.erf(), (*SMOOTH, 0.0, 5.0)),
    "erfc": Row(xp.erfc, special.erfc, lambda x: x.erfc(), (*SMOOTH, 0.0, 5.0)),
    "erfinv": Row(xp.erfinv, special.erfinv, lambda x: x.erfinv(), (-0.9, -0.1, 1e-5, 0.5, 0.99)),
    "erfcinv": Row(xp.erfcinv, special.erfcinv, lambda x: x.erfcinv(), (0.1, 0.5, 0.9, 1.7)),
    "erfcx": Row(
        xp.erfcx, special.erfcx, lambda x: x.erfc() * (x * x).exp(), (-2.0, -0.3, 0.0, 1.0, 4.0, 15.0, 200.0), 1024
    ),
    "ndtr": Row(xp.ndtr, special.ndtr, lambda x: (-x / _root(2)).erfc() / 2, SMOOTH),
    "log_ndtr": Row(xp.log_ndtr, special.log_ndtr, _log_ndtr, (-300.0, -30.0, -8.0, -1.0, 0.5, 3.0), 4096),
    "gamma": Row(xp.gamma, special.gamma, lambda x: x.gamma(), (0.3, 1.0, 1.7, 12.0, -0.5, -2.3)),
    "gammaln": Row(xp.gammaln, special.gammaln, lambda x: x.lgamma(), POSITIVE),
    "digamma": Row(xp.digamma, special.digamma, lambda x: x.digamma(), POSITIVE),
    "polygamma": Row(lambda x: xp.polygamma(2, x), lambda x: special.polygamma(2, x), _digamma_of(2), POSITIVE),
    "expit": Row(xp.expit, special.expit, lambda x: 1 / (1 + (-x).exp()), (-700.0, -40.0, -1.0, 0.5, 3.0, 50.0, 700.0)),
    "logit": Row(xp.logit, special.logit, lambda x: (x / (1 - x)).log(), (1e-8, 0.2, 0.7, 0.999)),
    "log_expit": Row(
        xp.log_expit, special.log_expit, lambda x: -((-x).exp() + 1).log(), (-700.0, -1.0, 0.5, 3.0, 50.0, 700.0)
    ),
    "entr": Row(xp.entr, special.entr, lambda x: -x * x.log(), (1e-5, 0.3, 1.0, 4.0)),
    "xlogy": Row(
        lambda x: xp.xlogy(x, x * x + 1), lambda x: special.xlogy(x, x * x + 1), lambda x: x * (x * x + 1).log(), APART
    ),
    "xlog1py": Row(
        lambda x: xp.xlog1py(x, x * x), lambda x: special.xlog1py(x, x * x), lambda x: x * (x * x + 1).log(), APART
    ),
    "betaln": Row(
        lambda x: xp.betaln(x, 2.5),
        lambda x: special.betaln(x, 2.5),
        lambda x: x.lgamma() - (x + 2.5).lgamma(),
        (0.01, 0.5, 3.0, 20.0),
        512,
    ),
    # SciPy's Bessel functions are good to a few eps of their greatest value; near a zero that is not relative.
    "j0": Row(xp.j0, special.j0, lambda x: x.bessel_j(0), (0.0, 1e-4, 1.0, 3.0, 9.0), 1024),
    "j1": Row(xp.j1, special.j1, lambda x: x.bessel_j(1), (0.0, 1e-4, 1.0, 3.0, 9.0), 1024),
    "jv": Row(lambda x: xp.jv(3, x), lambda x: special.jv(3, x), lambda x: x.bessel_j(3), (0.5, 1.0, 3.0, 9.0), 1024),
    "i0": Row(xp.i0, special.i0, lambda x: x.bessel_i(0), (0.0, 1e-4, -1.0, 3.0, 30.0)),
    "i1": Row(xp.i1, special.i1, lambda x: x.bessel_i(1), (0.0, 1e-4, -1.0, 3.0, 30.0)),
    "i0e": Row(xp.i0e, special.i0e, lambda x: x.bessel_i(0) * (-abs(x)).exp(), (1e-3, -1.0, 3.0, 9.0), 4096),
    "i1e": Row(xp.i1e, special.i1e, lambda x: x.bessel_i(1) * (-abs(x)).exp(), (1e-3, -1.0, 3.0, 9.0), 4096),
    "sinc": Row(xp.sinc, np.sinc, lambda x: x.sinc_pi(), (0.0, 1e-9, 1e-3, -0.3, 0.5, 1.3, 7.7), 256),
}


def derivatives(ball: Callable[[Any], Any], x: float) -> tuple[float, float]:
    """First and second derivative of a function on Arb balls, by central differences with a step of 10^-30."""
    flint = pytest.importorskip("flint")
    before, flint.ctx.dps = flint.ctx.dps, DIGITS
    try:
        h = flint.arb(10) ** -30
        below, here, above = (ball(flint.arb(x) + k * h) for k in (-1, 0, 1))
        return float((above - below) / (2 * h)), float((above - 2 * here + below) / (h * h))
    finally:
        flint.ctx.dps = before


@pytest.mark.parametrize("name", ROWS)
def test_values_are_scipys(name: str) -> None:
    row, x = ROWS[name], np.array(ROWS[name].at)
    out, _ = jvp(row.ours, (x,), (np.ones_like(x),))
    np.testing.assert_allclose(out, row.scipy(x), rtol=8 * EPS)
    np.testing.assert_array_equal(row.ours(x), out)


@pytest.mark.parametrize("name", ROWS)
def test_derivatives_against_arb(name: str) -> None:
    row, x = ROWS[name], np.array(ROWS[name].at)
    first, second = np.array([derivatives(row.ball, float(point)) for point in x]).T
    one = np.ones_like(x)
    tolerance = {"rtol": row.slack * EPS, "atol": 4 * EPS * float(np.min(np.abs(first[first != 0])))}
    np.testing.assert_allclose(jvp(row.ours, (x,), (one,))[1], first, **tolerance)
    np.testing.assert_allclose(pull(row.ours, (x,), one)[0], first, **tolerance)

    def slope(x: Any) -> Any:
        return pull(row.ours, (x,), one)[0]

    for got in (jvp(slope, (x,), (one,))[1], pull(slope, (x,), one)[0]):
        np.testing.assert_allclose(got, second, rtol=4 * row.slack * EPS, atol=16 * EPS * np.max(np.abs(first)))


@pytest.mark.parametrize("name", ROWS)
def test_single_precision_is_kept(name: str) -> None:
    row = ROWS[name]
    x = np.array([p for p in row.at if 1e-3 <= abs(p) <= 20], np.float32)
    out, pushed = jvp(row.ours, (x,), (np.ones_like(x),))
    (pulled,) = pull(row.ours, (x,), np.ones_like(x))
    assert out.dtype == pushed.dtype == pulled.dtype == np.float32
    exact = jvp(row.ours, (x.astype(float),), (np.ones(x.shape),))[1]
    np.testing.assert_allclose(pushed, exact, rtol=2e-4, atol=2e-5)


UFUNCS = """
    erf erfc erfinv erfcinv erfcx ndtr ndtri log_ndtr gamma gammaln psi digamma expit logit log_expit entr
    j0 j1 i0 i1 i0e i1e loggamma
"""


@pytest.mark.parametrize("name", UFUNCS.split())
def test_scipys_ufuncs_on_tracers(name: str) -> None:
    x = np.array([0.3, 0.6])
    fun = getattr(special, name)
    ours = getattr(xp, {"psi": "digamma"}.get(name, name))
    out, pushed = jvp(fun, (x,), (np.ones(2),))
    np.testing.assert_array_equal(out, fun(x))
    np.testing.assert_array_equal(pushed, jvp(ours, (x,), (np.ones(2),))[1])
    np.testing.assert_allclose(pushed, (fun(x + 1e-6) - fun(x - 1e-6)) / 2e-6, rtol=1e-8)  # eps / h = 2e-10


@pytest.mark.parametrize("name", ["xlogy", "xlog1py", "betaln", "beta"])
def test_scipys_binary_ufuncs_on_tracers(name: str) -> None:
    a, b = np.array([0.3, 2.0]), np.array([1.5, 0.4])
    fun = getattr(special, name)
    h = 1e-6
    by_a, by_b = pull(fun, (a, b), np.ones(2))
    np.testing.assert_allclose(by_a, (fun(a + h, b) - fun(a - h, b)) / (2 * h), rtol=1e-8)
    np.testing.assert_allclose(by_b, (fun(a, b + h) - fun(a, b - h)) / (2 * h), rtol=1e-8)
    np.testing.assert_allclose(jvp(fun, (a, b), (by_b, by_a))[1], by_a * by_b * 2, rtol=1e-14)


def test_bessel_ufuncs_take_whole_orders() -> None:
    x = np.array([0.7, 2.0])
    for fun in (special.jv, special.iv, special.ive):
        pushed = jvp(lambda x, fun=fun: fun(2, x), (x,), (np.ones(2),))[1]
        np.testing.assert_allclose(pushed, (fun(2, x + 1e-6) - fun(2, x - 1e-6)) / 2e-6, rtol=1e-8)
        with pytest.raises(ad.NotDifferentiable, match="of whole order only"):
            jvp(lambda x, fun=fun: fun(0.5, x), (x,), (x,))
        with pytest.raises(ad.NotDifferentiable, match="of whole order only"):
            jvp(lambda x, fun=fun: fun(x, 1.0), (x,), (x,))


def test_what_scipy_has_and_we_have_not_is_refused() -> None:
    with pytest.raises(ad.NotDifferentiable, match="dawsn"):
        jvp(special.dawsn, (np.ones(2),), (np.ones(2),))
    with pytest.raises(ad.NotDifferentiable, match=r"adbridge\.array_namespace"):
        jvp(special.softmax, (np.ones(2),), (np.ones(2),))


# To any order.


def nth(fun: Callable[[Any], Any], n: int) -> Callable[[Any], Any]:
    for _ in range(n):
        fun = (lambda f: lambda x: jvp(f, (x,), (np.ones_like(np.asarray(0.0)),))[1])(fun)
    return fun


@pytest.mark.parametrize("n", range(7))
def test_sinc_to_any_order_at_0(n: int) -> None:
    """sinc x = sum_k (-1)^k (pi x)^2k / (2k+1)!"""
    expected = 0.0 if n % 2 else (-1) ** (n // 2) * math.pi**n / (n + 1)
    np.testing.assert_allclose(nth(xp.sinc, n)(np.array(0.0)), expected, rtol=4 * EPS)


@pytest.mark.parametrize("x", [0.05, 0.4, 0.75, 0.9, 1.2, 3.1])
def test_sinc_to_any_order(x: float) -> None:
    """The n-th derivative of sin u / u is the integral of s^n sin^(n+1)(u s) over [0, 1]: 40 Gauss points."""
    points, weights = np.polynomial.legendre.leggauss(40)
    s, weights = (points + 1) / 2, weights / 2
    for n in range(9):
        expected = math.pi**n * np.sum(weights * s**n * np.cos(math.pi * x * s + n * math.pi / 2))
        np.testing.assert_allclose(nth(xp.sinc, n)(np.array(x)), expected, rtol=0, atol=200 * EPS * math.pi**n)


def test_bessel_functions_to_fourth_order_at_0() -> None:
    # J0 = 1 - x^2/4 + x^4/64, I1 = x/2 + x^3/16.
    for fun, expected in ((xp.j0, [1, 0, -0.5, 0, 0.375]), (xp.i1, [0, 0.5, 0, 0.375, 0])):
        np.testing.assert_allclose([nth(fun, n)(np.array(0.0)) for n in range(5)], expected, atol=1e-15)


@pytest.mark.parametrize("order", [-2, 0, 1, 2, 5])
@pytest.mark.parametrize("name", ["bessel_j", "bessel_i", "bessel_ie"])
def test_families_carry_their_order(name: str, order: int) -> None:
    """A derivative by differences of SciPy's function of the same order: h^2 and eps / h are 1e-10."""
    family, x, h = PRIMITIVES[name], np.array([-1.3, 0.4, 3.0]), 1e-5
    function = {"bessel_j": special.jv, "bessel_i": special.iv, "bessel_ie": special.ive}[name]
    out, pushed = jvp(lambda x: family(x, order=order), (x,), (np.ones(3),))
    np.testing.assert_allclose(out, function(order, x), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(pushed, (function(order, x + h) - function(order, x - h)) / (2 * h), atol=1e-9)


def test_polygamma_follows_gammaln() -> None:
    got = [float(nth(xp.gammaln, n)(np.array(2.5))) for n in range(1, 6)]
    np.testing.assert_allclose(got, [special.polygamma(n, 2.5) for n in range(5)], rtol=16 * EPS)


# Zeros and infinities.


def test_xlogy_at_zeros() -> None:
    def slopes(x: float, y: float) -> Any:
        return [float(g) for g in ad.grad(xp.xlogy, argnums=(0, 1), backend=B)(x, y)]

    with np.errstate(divide="ignore"):
        assert slopes(0.0, 2.0) == [math.log(2), 0.0]
        assert slopes(0.0, 0.0) == [-math.inf, 0.0]
        assert float(ad.grad(lambda y: xp.xlogy(0.0, y), backend=B)(0.0)) == 0
        assert float(ad.grad(lambda y: xp.xlog1py(0.0, y), backend=B)(-1.0)) == 0
    # The mixed derivative 1 / y at x = 0.
    mixed = ad.grad(lambda x: ad.grad(xp.xlogy, argnums=1, backend=B)(x, 2.0), backend=B)(0.0)
    assert float(mixed) == 0.5


def test_expit_far_out_keeps_its_digits() -> None:
    x = np.array([-700.0, -100.0, 100.0, 700.0])
    np.testing.assert_allclose(pull(xp.expit, (x,), np.ones(4))[0], np.exp(-np.abs(x)), rtol=4 * EPS)
    np.testing.assert_allclose(pull(xp.log_expit, (x,), np.ones(4))[0], special.expit(-x), rtol=4 * EPS)


# Log-sum-exp and its relatives.

X = np.array([[0.3, -1.0, 2.0], [1.0, 1.0, -0.5]])


def _lse(x: Any, axis: Any = None, b: Any = None, keepdims: bool = False) -> Any:
    return special.logsumexp(x, axis=axis, b=b, keepdims=keepdims)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp(axis: Any, keepdims: bool) -> None:
    t = np.array([[1.0, -2.0, 0.5], [3.0, 0.1, 0.7]])
    out, pushed = jvp(lambda x: xp.logsumexp(x, axis=axis, keepdims=keepdims), (X,), (t,))
    weights = np.exp(X - _lse(X, axis, keepdims=True))
    np.testing.assert_allclose(out, _lse(X, axis, keepdims=keepdims), rtol=4 * EPS)
    np.testing.assert_allclose(pushed, np.sum(weights * t, axis=axis, keepdims=keepdims), rtol=16 * EPS, atol=EPS)
    pulled = pull(lambda x: xp.logsumexp(x, axis=axis, keepdims=keepdims), (X,), np.ones(out.shape))[0]
    np.testing.assert_allclose(pulled, weights, rtol=16 * EPS)
    hessian_t = jvp(lambda x: pull(lambda x: xp.logsumexp(x), (x,), 1.0)[0], (X,), (t,))[1]
    p = np.exp(X - _lse(X))
    np.testing.assert_allclose(hessian_t, p * (t - np.sum(p * t)), rtol=1e-13, atol=1e-15)


def test_logsumexp_with_weights() -> None:
    b = np.array([[1.0, 0.0, 2.0], [-0.2, 3.0, 1.0]])
    out, _ = jvp(lambda x: xp.logsumexp(x, axis=1, b=b), (X,), (X,))
    np.testing.assert_allclose(out, _lse(X, 1, b), rtol=4 * EPS)
    by_x, by_b = pull(lambda x, b: xp.logsumexp(x, 1, b), (X, b), np.ones(2))
    total = np.exp(_lse(X, 1, b, keepdims=True))
    np.testing.assert_allclose(by_x, b * np.exp(X) / total, rtol=1e-14)
    np.testing.assert_allclose(by_b[b != 0], (np.exp(X) / total)[b != 0], rtol=1e-14)
    one_row = pull(lambda b: xp.logsumexp(X, 1, b), (b[0] + 1,), np.ones(2))[0]
    assert one_row.shape == (3,)


def test_logsumexp_does_not_overflow() -> None:
    x = np.array([1e4, 1e4 - 1, -1e4])
    np.testing.assert_allclose(ad.grad(xp.logsumexp, backend=B)(x), special.softmax(x), rtol=4 * EPS)
    np.testing.assert_allclose(ad.value_and_grad(xp.logsumexp, backend=B)(x)[0], special.logsumexp(x), rtol=EPS)


def test_logsumexp_of_infinities() -> None:
    inf = math.inf
    for x, value, slope in (
        ([0.0, -inf], 0.0, [1.0, 0.0]),
        ([-inf, -inf], -inf, [0.5, 0.5]),
        ([inf, 1.0], inf, [1.0, 0.0]),
        ([inf, inf], inf, [0.5, 0.5]),
    ):
        got, gradient = ad.value_and_grad(xp.logsumexp, backend=B)(np.array(x))
        assert float(got) == value and gradient.tolist() == slope
    assert xp.logsumexp(np.zeros(0)) == -inf
    assert ad.grad(xp.logsumexp, backend=B)(np.zeros(0)).shape == (0,)
    assert float(ad.grad(xp.logsumexp, backend=B)(3.0)) == 1


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)])
def test_softmax(axis: Any) -> None:
    t, w = np.cos(X), np.sin(X)
    p = special.softmax(X, axis=axis)
    slope = p * (t - np.sum(p * t, axis=axis, keepdims=True))
    out, pushed = jvp(lambda x: xp.softmax(x, axis=axis), (X,), (t,))
    np.testing.assert_allclose(out, p, rtol=8 * EPS)
    np.testing.assert_allclose(pushed, slope, rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(
        np.sum(pull(lambda x: xp.softmax(x, axis), (X,), w)[0] * t), np.sum(w * slope), rtol=1e-13
    )
    out, pushed = jvp(lambda x: xp.log_softmax(x, axis=axis), (X,), (t,))
    np.testing.assert_allclose(out, special.log_softmax(X, axis=axis), rtol=8 * EPS)
    np.testing.assert_allclose(pushed, slope / p, rtol=1e-13, atol=1e-15)
    pulled = pull(lambda x: xp.log_softmax(x, axis), (X,), w)[0]
    np.testing.assert_allclose(np.sum(pulled * t), np.sum(w * slope / p), rtol=1e-13, atol=1e-15)
    # Second order: that of log_softmax is that of -logsumexp.
    along = jvp(lambda x: jvp(lambda x: xp.log_softmax(x, axis), (x,), (t,))[1], (X,), (t,))[1]
    spread = np.sum(p * t * t, axis=axis, keepdims=True) - np.sum(p * t, axis=axis, keepdims=True) ** 2
    np.testing.assert_allclose(along, -spread * np.ones_like(X), rtol=1e-12, atol=1e-15)
    twice = jvp(lambda x: jvp(lambda x: xp.softmax(x, axis), (x,), (t,))[1], (X,), (t,))[1]
    apart = t - np.sum(p * t, axis=axis, keepdims=True)
    np.testing.assert_allclose(twice, p * (apart**2 - spread), rtol=1e-11, atol=1e-15)


def test_whole_numbers_are_taken_as_real() -> None:
    assert float(xp.logsumexp([0, 0])) == math.log(2)
    assert xp.softmax(np.array([1, 1])).tolist() == [0.5, 0.5]
    assert xp.digamma(1).dtype == np.float64
