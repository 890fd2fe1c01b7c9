"""Special functions, by SciPy, which is imported when the first of them is computed.

Families that a derivative leads through (`polygamma`, the Bessel functions, `sinc`) carry their order as a
parameter, so that derivatives exist to any order. No rule is a quotient that cancels at 0, or overflows or
vanishes where the derivative does not, with two exceptions: the slopes of `betaln` (one argument far larger
than the other) and of the scaled Bessel functions (large x) are differences of nearly equal numbers, right to
eps times those numbers.

Source of the formulas: the NIST Digital Library of Mathematical Functions, by equation.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import Primitive, constant, defjvp, defpartials, primitive
from adbridge.backends.reference.rules.elementwise import equal, exp, log, log1p, logical_and, sign, square, where
from adbridge.backends.reference.rules.reductions import sum


@cache
def _scipy(name: str) -> Callable[..., Any]:
    return getattr(importlib.import_module("scipy.special"), name)  # type: ignore[no-any-return]


def _by_scipy(name: str) -> Primitive:
    def impl(x: Any, *rest: Any) -> Any:
        if rest:  # SciPy takes a Python number for a float64
            dtype = np.result_type(x, *rest)
            x, *rest = (np.asarray(part, dtype) for part in (x, *rest))  # type: ignore[assignment]
        return _scipy(name)(x, *rest)

    return primitive(name, impl)


# Exponentials: over an axis, which is one non-negative tuple here, and elementwise.
#
# At x = -inf throughout, or several x = +inf, the maxima share evenly: the limit from equal finite elements.


def _shifted(x: Any, axis: tuple[int, ...]) -> tuple[Any, Any]:
    """The greatest element, kept as an axis, and how far below it each one lies: 0 for inf below inf."""
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    with np.errstate(invalid="ignore"):
        return top, np.where(x == top, x.dtype.type(0), x - top)


def _logsumexp(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    top, below = _shifted(x, axis)
    with np.errstate(divide="ignore"):  # of nothing the logarithm is -inf
        y = np.log(np.sum(np.exp(below), axis=axis, keepdims=True)) + top
    return y if keepdims else np.squeeze(y, axis)


def _softmax(x: Any, axis: tuple[int, ...]) -> Any:
    weights = np.exp(_shifted(x, axis)[1])
    return weights / np.sum(weights, axis=axis, keepdims=True)


def _log_softmax(x: Any, axis: tuple[int, ...]) -> Any:
    below = _shifted(x, axis)[1]
    return below - np.log(np.sum(np.exp(below), axis=axis, keepdims=True))


logsumexp = defjvp(
    primitive("logsumexp", _logsumexp),
    lambda t, y, x, axis, keepdims: sum(t * softmax(x, axis=axis), axis=axis, keepdims=keepdims),
)
softmax: Primitive = defjvp(
    primitive("softmax", _softmax),
    lambda t, y, x, axis: (t - sum(t * y, axis=axis, keepdims=True)) * y,
)
log_softmax = defjvp(
    primitive("log_softmax", _log_softmax),
    lambda t, y, x, axis: t - sum(t * softmax(x, axis=axis), axis=axis, keepdims=True),
)

# y (1 - y) would lose all digits at large x.
expit: Primitive = defpartials(_by_scipy("expit"), lambda y, x: y * expit(-x))
logit = defpartials(_by_scipy("logit"), lambda y, x: 1 / (x * (1 - x)))
log_expit = defpartials(_by_scipy("log_expit"), lambda y, x: expit(-x))


def _unless_both_zero(x: Any, y: Any) -> Any:
    """y, but 1 where x = y = 0: there x / y is to be 0. Elsewhere the derivatives are those of x / y."""
    return where(logical_and(equal(x, 0), equal(y, 0)), 1.0, y)


xlogy = defpartials(
    _by_scipy("xlogy"),
    lambda z, x, y: log(y),
    lambda z, x, y: x / _unless_both_zero(x, y),
)
xlog1py = defpartials(
    _by_scipy("xlog1py"),
    lambda z, x, y: log1p(y),
    lambda z, x, y: x / _unless_both_zero(x, 1 + y),
)
entr = defpartials(_by_scipy("entr"), lambda y, x: -1 - log(x))

# Error functions, DLMF 7.2, and the normal distribution.
_TWO_OVER_ROOT_PI = constant("2/sqrt(pi)", 2 / math.sqrt(math.pi))
_HALF_ROOT_PI = constant("sqrt(pi)/2", math.sqrt(math.pi) / 2)
_ROOT_TWO_PI = constant("sqrt(2 pi)", math.sqrt(2 * math.pi))
_ONE_OVER_ROOT_TWO_PI = constant("1/sqrt(2 pi)", 1 / math.sqrt(2 * math.pi))
_ROOT_TWO_OVER_PI = constant("sqrt(2/pi)", math.sqrt(2 / math.pi))
_ROOT_HALF = constant("sqrt(1/2)", math.sqrt(0.5))

erf = defpartials(_by_scipy("erf"), lambda y, x: _TWO_OVER_ROOT_PI * exp(-square(x)))
erfc = defpartials(_by_scipy("erfc"), lambda y, x: -(_TWO_OVER_ROOT_PI * exp(-square(x))))
erfinv = defpartials(_by_scipy("erfinv"), lambda y, x: _HALF_ROOT_PI * exp(square(y)))
erfcinv = defpartials(_by_scipy("erfcinv"), lambda y, x: -(_HALF_ROOT_PI * exp(square(y))))
erfcx: Primitive = defpartials(_by_scipy("erfcx"), lambda y, x: _erfcx_slope(x, y))
ndtr = defpartials(_by_scipy("ndtr"), lambda y, x: _ONE_OVER_ROOT_TWO_PI * exp(-0.5 * square(x)))
ndtri = defpartials(_by_scipy("ndtri"), lambda y, x: _ROOT_TWO_PI * exp(0.5 * square(y)))
# The density over the distribution, both of which vanish at large -x.
log_ndtr = defpartials(_by_scipy("log_ndtr"), lambda y, x: _ROOT_TWO_OVER_PI / erfcx(-x * _ROOT_HALF))

_FAR, _TERMS = 10.0, 15  # from here on so many terms of the asymptotic series are exact to rounding


def _erfcx_slope(x: Any, y: Any) -> Any:
    """2 x y - 2 / sqrt(pi), DLMF 7.10; those cancel at large x, where the asymptotic series 7.12.1 is differentiated.

    erfcx x ~ 1/(sqrt(pi) x) sum_k (-1)^k (2k-1)!! / (2 x^2)^k.
    """
    far = x > _FAR
    one = x.dtype.type(1)
    inverse = 1 / where(far, x, one)
    z = inverse * inverse * 0.5
    series = 2 * _TERMS + 1 + 0 * z
    for k in range(_TERMS, 0, -1):  # Horner's scheme of sum_k (2k+1) (-1)^k (2k-1)!! z^k
        series = (2 * k - 1) - (2 * k - 1) * z * series
    return where(far, -inverse * inverse * series / math.sqrt(math.pi), 2 * x * where(far, one, y) - _TWO_OVER_ROOT_PI)


# Gamma functions, DLMF 5.2 and 5.15.


def _polygamma(x: Any, n: int) -> Any:
    if n == 0:
        return _scipy("psi")(x)
    x = np.asarray(x)
    factor = x.dtype.type((-1.0) ** (n + 1) * math.factorial(n)) if x.dtype.kind == "f" else math.factorial(n)
    return factor * _scipy("zeta")(x.dtype.type(n + 1), x)


polygamma: Primitive = defpartials(primitive("polygamma", _polygamma), lambda y, x, n: polygamma(x, n=n + 1))
gammaln = defpartials(_by_scipy("gammaln"), lambda y, x: polygamma(x, n=0))
gamma = defpartials(_by_scipy("gamma"), lambda y, x: y * polygamma(x, n=0))
betaln = defpartials(
    _by_scipy("betaln"),
    lambda y, a, b: polygamma(a, n=0) - polygamma(a + b, n=0),
    lambda y, a, b: polygamma(b, n=0) - polygamma(a + b, n=0),
)

# Bessel functions of whole order, DLMF 10.6.1 and 10.29.1: without a division, so right at 0 too.


def _bessel(general: str, special: tuple[str, str]) -> Callable[..., Any]:
    def impl(x: Any, order: int) -> Any:
        return _scipy(special[order])(x) if order in (0, 1) else _scipy(general)(np.asarray(x).dtype.type(order), x)

    return impl


bessel_j: Primitive = defpartials(
    primitive("bessel_j", _bessel("jv", ("j0", "j1"))),
    lambda y, x, order: 0.5 * (bessel_j(x, order=order - 1) - bessel_j(x, order=order + 1)),
)
bessel_i: Primitive = defpartials(
    primitive("bessel_i", _bessel("iv", ("i0", "i1"))),
    lambda y, x, order: 0.5 * (bessel_i(x, order=order - 1) + bessel_i(x, order=order + 1)),
)
# exp(-|x|) times the former; the kink at 0 has slope 0 in the exponent.
bessel_ie: Primitive = defpartials(
    primitive("bessel_ie", _bessel("ive", ("i0e", "i1e"))),
    lambda y, x, order: 0.5 * (bessel_ie(x, order=order - 1) + bessel_ie(x, order=order + 1)) - sign(x) * y,
)

# sin(pi x) / (pi x), and its derivatives.


def _sinc(x: Any, order: int = 0) -> Any:
    """The derivative of that order. With f(u) = sin u / u: u f^(n) + n f^(n-1) = sin^(n) u.

    That recurrence is stable for u beyond about n; below, the Taylor series, which does not cancel there.
    """
    if order == 0:
        return np.sinc(x)
    u = np.pi * np.asarray(x)
    near = np.abs(u) < 1 + 0.5 * order
    far = np.where(near, u.dtype.type(1), u)
    f = np.sin(far) / far
    for n in range(1, order + 1):
        f = (_sine(far, n) - n * f) / far
    return np.pi**order * np.where(near, _sinc_series(np.where(near, u, u.dtype.type(0)), order), f)


def _sine(u: Any, n: int) -> Any:
    """The n-th derivative of the sine."""
    return (np.sin(u), np.cos(u), -np.sin(u), -np.cos(u))[n % 4]


def _sinc_series(u: Any, n: int) -> Any:
    """sum_k (-1)^k (2k)! / ((2k-n)! (2k+1)!) u^(2k-n), from 2k = n on."""
    first = (n + 1) // 2
    total = np.zeros_like(u)
    for k in range(first + 14 + n // 2, first - 1, -1):
        ratio = (-1) ** k / ((2 * k + 1) * math.factorial(2 * k - n))
        total = total * (u * u) + u.dtype.type(ratio)
    return total * u ** (2 * first - n)


sinc: Primitive = defpartials(primitive("sinc", _sinc), lambda y, x, order=0: sinc(x, order=order + 1))
