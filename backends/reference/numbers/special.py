"""Error functions, gamma functions, Bessel functions and sinc of single balls. Equations are the DLMF's."""

from __future__ import annotations

from typing import Any

import flint
from flint import acb, arb

from adbridge.backends.reference.numbers.conversions import INFINITY, NAN, around_zero, ball, is_zero
from adbridge.backends.reference.numbers.scalars import is_infinite, log, log1p


def scaled_erfc(x: Any) -> Any:
    """exp(x^2) erfc(x); from 4 on by Tricomi's U, DLMF 7.11.2 and 13.6.7, which does not vanish or overflow."""
    x = ball(x)
    if is_infinite(x):
        return arb(0) if x > 0 else INFINITY
    if x > 4:
        return arb.hypgeom_u(x * x, arb(0.5), arb(0.5)) / arb.const_sqrt_pi()
    return (x * x).exp() * x.erfc()


def complementary_error(x: Any) -> Any:
    x = ball(x)
    if is_infinite(x):
        return arb(0 if x > 0 else 2)
    return (-x * x).exp() * scaled_erfc(x) if x > 4 else x.erfc()


def normal_distribution(x: Any) -> Any:
    return complementary_error(-ball(x) / arb(2).sqrt()) / 2


def log_normal_distribution(x: Any) -> Any:
    x = ball(x)
    if x < -4 and not is_infinite(x):
        return log(scaled_erfc(-x / arb(2).sqrt()) / 2) - x * x / 2
    return log1p(-normal_distribution(-x)) if x.mid() > 0 else log(normal_distribution(x))


def log_gamma(x: Any) -> Any:
    """log |Gamma(x)|, at negative x by reflection, DLMF 5.5.3; infinite at its poles."""
    x = ball(x)
    if x.is_exact() and (x == INFINITY or (x.is_integer() and x <= 0)):
        return INFINITY
    if x.mid() > 0:
        return x.lgamma()
    return (arb.pi() / abs(x.sin_pi())).log() - (1 - x).lgamma()


def polygamma(x: Any, n: int) -> Any:
    x = ball(x)
    if is_infinite(x):
        return (INFINITY if n == 0 else arb(0)) if x > 0 else NAN
    if x.is_exact() and x.is_integer() and x <= 0:
        return _pole_of_polygamma(x, n)
    return x.digamma() if n == 0 else acb(x).polygamma(n).real


def _pole_of_polygamma(x: Any, n: int) -> Any:
    """As of (-1)^(n+1) n! / x^(n+1) at +0; psi alone is no number at the other poles."""
    if n == 0:
        return -INFINITY if is_zero(x) else NAN
    return INFINITY if n % 2 else -INFINITY


def log_beta(a: Any, b: Any) -> Any:
    return log_gamma(a) + log_gamma(b) - log_gamma(ball(a) + b)


def scaled_bessel_i(x: Any, order: int) -> Any:
    x = ball(x)
    return arb(0) if is_infinite(x) else (-abs(x)).exp() * x.bessel_i(order)


def sinc(x: Any, order: int = 0) -> Any:
    """A derivative of sin(pi x) / (pi x). With f(u) = sin u / u: u f^(n) + n f^(n-1) = sin^(n) u; near 0 its series."""
    x = ball(x)
    if order == 0:
        return x.sinc_pi()
    u = x * arb.pi()
    if abs(u) < 1:
        return _sinc_series(u, order) * arb.pi() ** order
    turns = (u.sin(), u.cos(), -u.sin(), -u.cos())
    f = turns[0] / u
    for n in range(1, order + 1):
        f = (turns[n % 4] - n * f) / u
    return f * arb.pi() ** order


def _sinc_series(u: Any, n: int) -> Any:
    """sum_k (-1)^k u^(2k-n) / ((2k-n)! (2k+1)) from 2k >= n on: alternating, falling, so the next bounds the rest."""
    k = (n + 1) // 2
    power, total = u if n % 2 else arb(1), arb(0)
    least = power.abs_upper() * arb(2) ** (-flint.ctx.prec - 8)
    while power.abs_upper() > least:
        total = total + (-1) ** k * power / (2 * k + 1)
        k += 1
        power = power * u * u / ((2 * k - n) * (2 * k - n - 1))
    return total + around_zero(power)
