"""Right rules of functions that act on each element alone, or on two that are broadcast against each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import adbridge as ad

from .rule import REALS, Array, Interval, Rule, array, draw, unbroadcast

INF = np.inf
POSITIVE: Interval = (0.0, INF)


def _unary(
    name: str,
    f: Callable[[Any, Array], Array],
    slope: Callable[[Any, Array, Array], Array],
    x: Array,
    *,
    domain: Interval | None = None,
    modes: str = "both",
    source: str = "",
) -> Rule:
    """``f(xp, x)`` with ``slope(xp, x, y)``, y = f(x); `modes` is "both", "forward" or "reverse"."""

    def fun(x: Array) -> Array:
        return f(ad.array_namespace(x), x)

    def jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        (x,) = primals
        y = fun(x)
        return y, slope(ad.array_namespace(x), x, y) * tangents[0]

    def fwd(x: Array) -> tuple[Array, Any]:
        y = fun(x)
        return y, (x, y)

    def bwd(residuals: tuple[Array, Array], ct: Array) -> tuple[Array]:
        x, y = residuals
        return (slope(ad.array_namespace(x), x, y) * ct,)

    given: dict[str, Any] = {"jvp": jvp} if modes != "reverse" else {}
    given |= {"fwd": fwd, "bwd": bwd} if modes != "forward" else {}
    return Rule(name, fun, (x,), domain=None if domain is None else (domain,), source=source, **given)


def _binary(
    name: str,
    f: Callable[[Any, Array, Array], Array],
    slopes: Callable[[Any, Array, Array], tuple[Array, Array]],
    args: tuple[Array, Array],
    *,
    domain: tuple[Interval, Interval] | None = None,
) -> Rule:
    """``f(xp, a, b)``, broadcast, with ``slopes(xp, a, b)`` = (df/da, df/db)."""

    def fun(a: Array, b: Array) -> Array:
        return f(ad.array_namespace(a, b), a, b)

    def jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
        da, db = slopes(ad.array_namespace(*primals), *primals)
        return fun(*primals), da * tangents[0] + db * tangents[1]

    def fwd(a: Array, b: Array) -> tuple[Array, Any]:
        return fun(a, b), (a, b)

    def bwd(residuals: tuple[Array, Array], ct: Array) -> tuple[Array, Array]:
        a, b = residuals
        xp = ad.array_namespace(a, b)
        da, db = slopes(xp, a, b)
        return unbroadcast(xp, da * ct, a.shape), unbroadcast(xp, db * ct, b.shape)

    return Rule(name, fun, args, jvp=jvp, fwd=fwd, bwd=bwd, domain=domain)


def positive_part(xp: Any, x: Array) -> Array:
    return xp.where(x > 0, x, xp.zeros_like(x))


def indicator(xp: Any, condition: Array, x: Array) -> Array:
    """One where the condition holds, zero elsewhere, in x's dtype."""
    return xp.where(condition, xp.ones_like(x), xp.zeros_like(x))


def _huber(xp: Any, x: Array) -> Array:
    return xp.where(xp.abs(x) <= 1, x * x / 2, xp.abs(x) - 0.5)


def _elu(xp: Any, x: Array) -> Array:
    return xp.where(x > 0, x, xp.expm1(-positive_part(xp, -x)))  # the branch not taken must not overflow


def _clip(xp: Any, x: Array) -> Array:
    return xp.where(x > 1, xp.ones_like(x), xp.where(x < -1, -xp.ones_like(x), x))


def _root(xp: Any, x: Array) -> Array:
    """y with y^3 + y = x, by Newton's method from y = x: far within the digits of a float64 for |x| below 100."""
    y = x
    for _ in range(25):
        y = (2 * y**3 + x) / (3 * y**2 + 1)
    return y


SMOOTH = (
    _unary("sin", lambda xp, x: xp.sin(x), lambda xp, x, y: xp.cos(x), array(-0.8, 0.3, 1.2, 2.5)),
    _unary("cos", lambda xp, x: xp.cos(x), lambda xp, x, y: -xp.sin(x), array(0.7, 1.9), modes="reverse"),
    _unary("exp", lambda xp, x: xp.exp(x), lambda xp, x, y: y, array(-1.5, 0.4, 2.0), domain=(-80.0, 80.0)),
    _unary("log", lambda xp, x: xp.log(x), lambda xp, x, y: 1 / x, array(0.3, 1.7, 40.0), domain=POSITIVE),
    _unary(
        "log1p", lambda xp, x: xp.log1p(x), lambda xp, x, y: 1 / (1 + x), array(-0.5, 1e-9, 2.0), domain=(-1.0, INF)
    ),
    _unary("sqrt", lambda xp, x: xp.sqrt(x), lambda xp, x, y: 0.5 / y, array(0.2, 1.0, 9.0)),
    _unary("tanh", lambda xp, x: xp.tanh(x), lambda xp, x, y: 1 - y * y, array(-1.1, 0.2, 0.9)),
    _unary(
        "tanh-stable",
        lambda xp, x: xp.tanh(x),
        lambda xp, x, y: 1 / xp.cosh(x) ** 2,
        array(-6.0, 0.1, 7.5),
        domain=(-20.0, 20.0),
    ),
    _unary(
        "sigmoid",
        lambda xp, x: 1 / (1 + xp.exp(-x)),
        lambda xp, x, y: y * (1 - y),
        array(-2.0, 0.0, 3.0),
        domain=(-5.0, 5.0),
        modes="reverse",
    ),
    _unary(
        "softplus",
        lambda xp, x: xp.logaddexp(x, xp.zeros_like(x)),
        lambda xp, x, y: 1 / (1 + xp.exp(-x)),
        array(-4.0, 0.5, 6.0),
        domain=(-30.0, 30.0),
    ),
    _unary(
        "log-cosh",
        lambda xp, x: xp.log(xp.cosh(x)),
        lambda xp, x, y: xp.tanh(x),
        array(0.6, -1.3),
        domain=(-30.0, 30.0),
    ),
    _unary(
        "x-log-x", lambda xp, x: x * xp.log(x), lambda xp, x, y: xp.log(x) + 1, array(0.1, 0.8, 5.0), domain=POSITIVE
    ),
    _unary("power-2.5", lambda xp, x: x**2.5, lambda xp, x, y: 2.5 * x**1.5, array(0.4, 1.5, 3.0), domain=POSITIVE),
    _unary("gaussian", lambda xp, x: xp.exp(-x * x), lambda xp, x, y: -2 * x * y, array(-0.7, 0.2, 1.4)),
    _unary("cubic", lambda xp, x: x**3 - 2 * x, lambda xp, x, y: 3 * x**2 - 2, array(-1.5, 0.5, 2.0), modes="forward"),
    _unary("atan", lambda xp, x: xp.atan(x), lambda xp, x, y: 1 / (1 + x * x), array(-2.0, 0.1, 1.0)),
    _unary("acos", lambda xp, x: xp.acos(x), lambda xp, x, y: -1 / xp.sqrt((1 - x) * (1 + x)), array(-0.6, 0.1, 0.9)),
    _unary(
        "asin",
        lambda xp, x: xp.asin(x),
        lambda xp, x, y: 1 / xp.sqrt(1 - x * x),
        array(-0.6, 0.1, 0.9),
        domain=(-1.0, 1.0),
    ),
    _unary("sin-of-one-number", lambda xp, x: xp.sin(x), lambda xp, x, y: xp.cos(x), np.array(0.4)),
    _unary(
        "implicit-root",
        _root,
        lambda xp, x, y: 1 / (3 * y * y + 1),
        array(-2.0, 0.3, 5.0),
        domain=(-100.0, 100.0),
        source="implicit function theorem: (3 y^2 + 1) dy = dx",
    ),
)

KINKED = (
    _unary("relu", positive_part, lambda xp, x, y: indicator(xp, x > 0, x), array(-1.0, 0.0, 2.0)),
    _unary(
        "leaky-relu",
        lambda xp, x: xp.where(x > 0, x, 0.1 * x),
        lambda xp, x, y: 0.1 + 0.9 * indicator(xp, x > 0, x),
        array(-2.0, 0.0, 0.5),
        modes="reverse",
    ),
    _unary("abs", lambda xp, x: xp.abs(x), lambda xp, x, y: xp.sign(x), array(-3.0, 0.0, 1.5)),
    _unary("clip", _clip, lambda xp, x, y: indicator(xp, xp.abs(x) < 1, x), array(-1.0, 0.3, 1.8)),
    _unary("huber", _huber, lambda xp, x, y: _clip(xp, x), array(-2.0, 0.3, 0.9)),
    _unary(
        "elu",
        _elu,
        lambda xp, x, y: xp.where(x > 0, xp.ones_like(x), xp.exp(-positive_part(xp, -x))),
        array(-1.2, -0.1, 0.8),
    ),
    _unary(
        "softsign", lambda xp, x: x / (1 + xp.abs(x)), lambda xp, x, y: 1 / (1 + xp.abs(x)) ** 2, array(-0.5, 0.2, 3.0)
    ),
)

# Points and scales at which a checker's differences or tolerances are off.
SCALES = (
    _unary("reciprocal-1e-6", lambda xp, x: 1 / x, lambda xp, x, y: -y * y, array(1e-6, 2e-6), domain=POSITIVE),
    _unary("reciprocal-1e4", lambda xp, x: 1 / x, lambda xp, x, y: -1 / x**2, array(1e4, 3e4), domain=(1.0, 1e6)),
    _unary("square-1e10", lambda xp, x: x * x, lambda xp, x, y: 2 * x, array(1e10, -3e10), modes="reverse"),
    _unary("cube-1e6", lambda xp, x: x**3, lambda xp, x, y: 3 * x**2, array(1e6, 2e6)),
    _unary("sqrt-near-0", lambda xp, x: xp.sqrt(x), lambda xp, x, y: 0.5 / y, array(1e-14, 1e-8, 4.0), domain=POSITIVE),
    _unary("tiny-slope", lambda xp, x: 1e-30 * xp.sin(x), lambda xp, x, y: 1e-30 * xp.cos(x), array(0.3, 2.0)),
    _unary("huge-slope", lambda xp, x: 1e30 * xp.sin(x), lambda xp, x, y: 1e30 * xp.cos(x), array(0.3, 2.0)),
    _unary(
        "exp-20-float32",
        lambda xp, x: xp.exp(x),
        lambda xp, x, y: y,
        np.array([20.0, 3.0], np.float32),
        domain=(-40.0, 40.0),
        modes="forward",
    ),
    _unary("sin-float32", lambda xp, x: xp.sin(x), lambda xp, x, y: xp.cos(x), np.array([0.7, 1.9], np.float32)),
)

BROADCAST = (
    _binary("multiply", lambda xp, a, b: a * b, lambda xp, a, b: (b, a), (draw(1, 3, 1), draw(2, 4))),
    _binary(
        "divide",
        lambda xp, a, b: a / b,
        lambda xp, a, b: (1 / b, -a / b**2),
        (draw(3, 3, 1), draw(4, 4, low=0.5, high=2.0)),
        domain=(REALS, POSITIVE),
    ),
    _binary(
        "hypot",
        lambda xp, a, b: xp.sqrt(a * a + b * b),
        lambda xp, a, b: (a / xp.sqrt(a * a + b * b), b / xp.sqrt(a * a + b * b)),
        (array(0.5, -1.0, 2.0), np.array(0.8)),
    ),
    _binary(
        "atan2",
        lambda xp, a, b: xp.atan2(a, b),
        lambda xp, a, b: (b / (a * a + b * b), -a / (a * a + b * b)),
        (array(0.5, -1.0, 2.0), array(1.0, 0.7, -0.4)),
    ),
)

ELEMENTWISE = SMOOTH + KINKED + SCALES + BROADCAST
