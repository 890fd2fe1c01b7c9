"""Elementwise functions on Arb balls (`flint.arb`, `flint.acb` if complex), and decisions about them.

F. Johansson, "Arb: efficient arbitrary-precision midpoint-radius interval arithmetic", IEEE Trans. Comput. 66(8), 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flint
import numpy as np
from flint import acb, arb

from adbridge.backends.reference.numbers import Undecided
from adbridge.backends.reference.primitives import CONSTANTS

# The constants of the rules under their names.
NAMED: dict[str, Callable[[], Any]] = {
    "ln 2": arb.const_log2,
    "ln 10": arb.const_log10,
    "2/sqrt(pi)": lambda: 2 / arb.const_sqrt_pi(),
    "sqrt(pi)/2": lambda: arb.const_sqrt_pi() / 2,
    "1/sqrt(2 pi)": lambda: 1 / (2 * arb.pi()).sqrt(),
    "sqrt(2 pi)": lambda: (2 * arb.pi()).sqrt(),
    "sqrt(2/pi)": lambda: (2 / arb.pi()).sqrt(),
    "sqrt(1/2)": lambda: (arb(1) / 2).sqrt(),
}


@contextmanager
def working_precision(bits: int) -> Iterator[None]:
    """Arb's precision, for a while."""
    before, flint.ctx.prec = flint.ctx.prec, bits
    try:
        yield
    finally:
        flint.ctx.prec = before


def ball(x: Any) -> Any:
    """A number as a ball: its exact binary value, or what its name stands for."""
    if isinstance(x, (arb, acb)):
        return x
    if type(x) is float and id(x) in CONSTANTS:
        return NAMED[CONSTANTS[id(x)]]()
    if isinstance(x, np.longdouble):
        return _from_longdouble(x)
    if isinstance(x, np.clongdouble):
        return acb(ball(x.real), ball(x.imag))
    if isinstance(x, (complex, np.complexfloating)):
        return acb(float(x.real), float(x.imag))
    return arb(int(x)) if isinstance(x, (bool, int, np.bool_, np.integer)) else arb(float(x))


def _from_longdouble(x: Any) -> Any:
    """A float holds the first 53 bits of its mantissa, another one the rest."""
    high = float(x)
    if not math.isfinite(high):
        return arb(high)
    with working_precision(128):
        return arb(high) + arb(float(x - np.longdouble(high)))


def complex_ball(x: Any) -> Any:
    return acb(ball(x))


def real_part(x: Any) -> Any:
    x = ball(x)
    return x.real if isinstance(x, acb) else x


def rounded(array: Any, dtype: Any = np.float64) -> Any:
    """Midpoints, to the nearest float."""
    kind = np.dtype(dtype).kind
    mids = [complex(x) if isinstance(x, acb) else float(x) for x in np.asarray(array, object).ravel()]
    return np.array(mids if kind == "c" else [x.real for x in mids], dtype).reshape(np.shape(array))


# Decisions. One object is one number: a ball is equal to itself whatever its radius.


def decided(question: str, yes: Any, no: Any, *operands: Any) -> bool:
    if yes:
        return True
    if no:
        return False
    shown = ", ".join(x.str(10) for x in map(ball, operands))
    raise Undecided(f"{question} for {shown}", *operands, bits=flint.ctx.prec)


def less(a: Any, b: Any) -> bool:
    a, b = ball(a), ball(b)
    return a is not b and decided("a < b", a < b, a >= b, a, b)


def equal(a: Any, b: Any) -> bool:
    a, b = ball(a), ball(b)
    return a is b or decided("a == b", a == b, a != b, a, b)


def truth(x: Any) -> bool:
    return not equal(x, 0)


def is_finite(x: Any) -> bool:
    x = ball(x)
    return decided("whether x is finite", x.is_finite(), x.is_exact(), x)


def is_infinite(x: Any) -> bool:
    return not is_finite(x) and not is_nan(x)


def is_nan(x: Any) -> bool:
    """Arb's nan stands for any number at all: no answer."""
    x = ball(x)
    return not decided("whether x is nan", x.is_finite() or (isinstance(x, arb) and x.is_exact()), False, x)


def whole(x: Any) -> int:
    """The integer that a ball is known to be."""
    integer = ball(x).unique_fmpz()
    if integer is None:
        raise Undecided(f"which integer x is, for {ball(x).str(10)}", x, bits=flint.ctx.prec)
    return int(integer)


def floor(x: Any) -> Any:
    return arb(whole(ball(x).floor()))


def ceil(x: Any) -> Any:
    return arb(whole(ball(x).ceil()))


def trunc(x: Any) -> Any:
    return ceil(x) if less(x, 0) else floor(x)


def round_half_even(x: Any) -> Any:
    low = floor(x)
    beyond = ball(x) - low
    if equal(beyond, 0.5):
        return low + whole(low) % 2
    return low if less(beyond, 0.5) else low + 1


def sign(x: Any) -> Any:
    x = ball(x)
    if equal(x, 0):
        return x
    return x / abs(x) if isinstance(x, acb) else arb(-1 if less(x, 0) else 1)


def greater_of(a: Any, b: Any) -> Any:
    return b if less(a, b) else a


def less_of(a: Any, b: Any) -> Any:
    return b if less(b, a) else a


def copysign(a: Any, b: Any) -> Any:
    """There is no negative zero here."""
    return -abs(ball(a)) if less(b, 0) else abs(ball(a))


# Functions with more to say than the name of Arb's method.


def power(a: Any, b: Any) -> Any:
    a, b = ball(a), ball(b)
    exponent = b.real if isinstance(b, acb) and b.imag == 0 else b
    if isinstance(exponent, arb) and exponent.is_exact() and exponent.is_integer():
        return a ** exponent.unique_fmpz()  # exact at 0, and of negative bases
    return a**b


def larger_middle(*xs: Any) -> Any:
    """Roughly the greatest: a shift that keeps exponentials in range may be any number."""
    top = ball(xs[0])
    for x in xs[1:]:
        top = ball(x) if real_part(x).mid() > real_part(top).mid() else top
    return top


def log_of_sum(*xs: Any) -> Any:
    top = larger_middle(*xs)
    total = arb(0)
    for x in xs:
        total = total + (1 if ball(x) is top else (ball(x) - top).exp())
    return top + total.log()


def expit(x: Any) -> Any:
    x = ball(x)
    return 1 / (1 + (-x).exp()) if x.mid() > 0 else x.exp() / (1 + x.exp())


def log_expit(x: Any) -> Any:
    x = ball(x)
    return -((-x).exp().log1p()) if x.mid() > 0 else x - x.exp().log1p()


def cube_root(x: Any) -> Any:
    x = ball(x)
    return -((-x).root(3)) if less(x, 0) else x.root(3)


def times_log(x: Any, y: Any) -> Any:
    return arb(0) if equal(x, 0) else x * ball(y).log()


def log_gamma(x: Any) -> Any:
    """log |Gamma(x)|, at negative x by reflection, DLMF 5.5.3."""
    x = ball(x)
    return x.lgamma() if x.mid() > 0 else (arb.pi() / abs(x.sin_pi())).log() - (1 - x).lgamma()


def polygamma(x: Any, n: int) -> Any:
    if n == 0:
        return ball(x).digamma()
    return acb(x).polygamma(n).real


def log_beta(a: Any, b: Any) -> Any:
    return log_gamma(a) + log_gamma(b) - log_gamma(ball(a) + b)


def normal_distribution(x: Any) -> Any:
    return (-ball(x) / arb(2).sqrt()).erfc() / 2


def sinc(x: Any, order: int = 0) -> Any:
    """A derivative of sin(pi x) / (pi x). With f(u) = sin u / u: u f^(n) + n f^(n-1) = sin^(n) u.

    Near 0 that cancels, which more bits make up for; at 0 it is the Taylor series' term.
    """
    x = ball(x)
    if order == 0:
        return x.sinc_pi()
    if equal(x, 0):
        return arb(0) if order % 2 else (-1) ** (order // 2) * arb.pi() ** order / (order + 1)
    lost = max(0, -math.frexp(float(x.mid()))[1]) if abs(x.mid()) > 1e-300 else 1100
    with working_precision(flint.ctx.prec + (order + 1) * (lost + 4)):
        u = x * arb.pi()
        turns = (u.sin(), u.cos(), -u.sin(), -u.cos())
        f = turns[0] / u
        for n in range(1, order + 1):
            f = (turns[n % 4] - n * f) / u
        return f * arb.pi() ** order


def _method(name: str) -> Callable[[Any], Any]:
    return lambda x: getattr(ball(x), name)()


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    **{name: _method(name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh")},
    **{name: _method(name) for name in ("asinh", "acosh", "atanh", "exp", "expm1", "log", "log1p", "sqrt")},
    **{name: _method(name) for name in ("erf", "erfc", "erfinv", "erfcinv", "gamma")},
    "add": lambda a, b: ball(a) + ball(b),
    "subtract": lambda a, b: ball(0) if a is b else ball(a) - ball(b),
    "multiply": lambda a, b: ball(a) * ball(b),
    "divide": lambda a, b: ball(a) / ball(b),
    "negative": lambda x: -ball(x),
    "square": lambda x: ball(x) * ball(x),
    "reciprocal": lambda x: 1 / ball(x),
    "exp2": lambda x: power(2, x),
    "log2": lambda x: ball(x).log() / arb.const_log2(),
    "log10": lambda x: ball(x).log() / arb.const_log10(),
    "pow": power,
    "cbrt": cube_root,
    "atan2": lambda a, b: arb.atan2(ball(a), ball(b)),
    "hypot": lambda a, b: (ball(a) ** 2 + ball(b) ** 2).sqrt(),
    "logaddexp": log_of_sum,
    "abs": lambda x: abs(ball(x)),
    "real": real_part,
    "imag": lambda x: ball(x).imag,
    "conj": lambda x: x.conjugate() if isinstance(x, acb) else ball(x),
    "sign": sign,
    "maximum": greater_of,
    "minimum": less_of,
    "copysign": copysign,
    "floor": floor,
    "ceil": ceil,
    "trunc": trunc,
    "round": round_half_even,
    "floor_divide": lambda a, b: floor(ball(a) / ball(b)),
    "remainder": lambda a, b: a - floor(ball(a) / ball(b)) * b,
    "fmod": lambda a, b: a - trunc(ball(a) / ball(b)) * b,
    "equal": equal,
    "not_equal": lambda a, b: not equal(a, b),
    "less": less,
    "less_equal": lambda a, b: not less(b, a),
    "greater": lambda a, b: less(b, a),
    "greater_equal": lambda a, b: not less(a, b),
    "logical_and": lambda a, b: truth(a) and truth(b),
    "logical_or": lambda a, b: truth(a) or truth(b),
    "logical_xor": lambda a, b: truth(a) != truth(b),
    "logical_not": lambda x: not truth(x),
    "isnan": is_nan,
    "isinf": is_infinite,
    "isfinite": is_finite,
    "signbit": lambda x: less(x, 0),
    "nextafter": lambda a, b: ball(a),  # a unit in the last place: of what dtype?
    "expit": expit,
    "log_expit": log_expit,
    "logit": lambda x: (ball(x) / (1 - ball(x))).log(),
    "xlogy": times_log,
    "xlog1py": lambda x, y: times_log(x, 1 + ball(y)),
    "entr": lambda x: -times_log(x, x),
    "erfcx": lambda x: (ball(x) ** 2).exp() * ball(x).erfc(),
    "ndtr": normal_distribution,
    "ndtri": lambda x: -arb(2).sqrt() * (2 * ball(x)).erfcinv(),
    "log_ndtr": lambda x: normal_distribution(x).log(),
    "gammaln": log_gamma,
    "polygamma": polygamma,
    "betaln": log_beta,
    "bessel_j": lambda x, order: ball(x).bessel_j(order),
    "bessel_i": lambda x, order: ball(x).bessel_i(order),
    "bessel_ie": lambda x, order: (-abs(ball(x))).exp() * ball(x).bessel_i(order),
    "sinc": sinc,
}
"""Functions of single numbers; parameters follow by keyword."""
