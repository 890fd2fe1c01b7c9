"""Functions of single balls that take more than one of Arb's: IEEE's values at 0 and infinity, cuts, kinks and borders.

Zero counts as +0, so that 1/0 is infinite. Where a function ends, as the square root at 0, a ball around the end is
undetermined (nan); within `decisions.ties_decided` it is the end, up to what its radius leaves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from flint import acb, arb

from adbridge.backends.reference.numbers.conversions import (
    COMPLEX_NAN,
    INFINITY,
    NAN,
    around_zero,
    ball,
    certainly_nan,
    complex_ball,
    is_exact,
    is_zero,
    real_part,
)
from adbridge.backends.reference.numbers.decisions import (
    compare,
    equal,
    floor,
    follows_sides,
    is_close,
    less,
    note,
    operand,
    trunc,
    whole,
)


def settled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, certainly nan where an argument is, or where exact ones give Arb's nan: outside its domain."""

    def values(*xs: Any, **params: Any) -> Any:
        y = function(*xs, **params)
        return y if type(y) is bool or y.is_finite() else _not_finite(y, [ball(x) for x in xs])

    return values


def _not_finite(y: Any, xs: list[Any]) -> Any:
    if not (any(map(certainly_nan, xs)) or all(map(is_exact, xs))):
        return y
    if type(y) is arb:
        return NAN if y.is_nan() else y
    return COMPLEX_NAN if y.real.is_nan() or y.imag.is_nan() else y


def method(name: str) -> Callable[[Any], Any]:
    return lambda x: getattr(ball(x), name)()


def with_values(function: Callable[..., Any], values: dict[float, float]) -> Callable[..., Any]:
    """A function with other values than Arb's at these real points: its poles, and infinity."""
    exact = [(ball(x), ball(y)) for x, y in values.items()]

    def patched(x: Any, **params: Any) -> Any:
        x = ball(x)
        y = function(x, **params)
        if type(x) is arb and not (x.is_finite() and y.is_finite()):
            return next((value for point, value in exact if point == x), y)
        return y

    return patched


BORDER = "where a function begins: a = b"


def from_border(function: Callable[[Any], Any], border: float, side: int) -> Callable[[Any], Any]:
    """A function that begins at a border like the square root: at most 3 sqrt|x - border| away from its value there.

    The function goes on to that side of the border. (Angles: acos(1 - d) = 2 asin sqrt(d/2) <= 2.3 sqrt d.)
    """

    at_border = ball(border)

    def extended(x: Any) -> Any:
        y, x = function(x), ball(x)
        if y.is_finite() or type(y) is not arb:
            if x == border:
                note(BORDER, x, at_border)
            return y
        if (x - border) * side < 0:
            return NAN
        if not x.is_finite() or not is_close(x, border):
            return y
        note(BORDER, x, at_border, "close")
        return function(border) + around_zero(3 * abs(x - border).abs_upper().sqrt())

    return extended


# Arithmetic.


@settled
def subtract(a: Any, b: Any) -> Any:
    a, b = ball(a), ball(b)
    return arb(0) if a is b and a.is_finite() else a - b


@settled
def divide(a: Any, b: Any) -> Any:
    a, b = ball(a), ball(b)
    y = a / b
    if y.is_finite() or not is_zero(b) or type(y) is acb or is_zero(a) or certainly_nan(a):
        return y
    return INFINITY if a > 0 else -INFINITY if a < 0 else y


def is_infinite(x: Any) -> bool:
    return type(x) is arb and x.is_exact() and not x.is_finite()


def floor_divide(a: Any, b: Any) -> Any:
    a, b = ball(a), ball(b)
    if is_infinite(a):
        return NAN
    if is_infinite(b) and a * sign(b) < 0:
        return arb(-1)
    return floor(divide(a, b))


def remainder(a: Any, b: Any) -> Any:
    """Of the sign of b."""
    a, b = ball(a), ball(b)
    if is_infinite(b):
        return b if a.is_finite() and a * sign(b) < 0 else fmod(a, b)
    return subtract(a, floor(divide(a, b)) * b) if not is_zero(b) else NAN


def fmod(a: Any, b: Any) -> Any:
    """Of the sign of a."""
    a, b = ball(a), ball(b)
    if is_infinite(b):
        return a if a.is_finite() else NAN
    return subtract(a, trunc(divide(a, b)) * b) if not is_zero(b) else NAN


# Logarithms, powers and roots.


def _side_of_cut(z: Any) -> int:
    """0 of a ball off the negative axis; of one across it 1, for the upper side counts, unless a tie has its say."""
    if type(z) is arb or not (z.imag.contains(0) and z.real < 0):
        return 0
    return -1 if compare(z.imag, 0, "the side of a cut") == -1 else 1


def log(x: Any) -> Any:
    x = ball(x)
    if is_zero(x):
        return -INFINITY if type(x) is arb else acb(-INFINITY, 0)
    side = _side_of_cut(x)
    return (-x).log() + acb(0, side * arb.pi()) if side else x.log()


log1p = with_values(method("log1p"), {-1.0: -math.inf})


def _root(x: Any) -> Any:
    x = ball(x)
    side = _side_of_cut(x)
    return acb(0, side) * (-x).sqrt() if side else x.sqrt()


square_root = from_border(_root, 0, 1)


def cut_outside(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A complex function cut along the real axis outside [-1, 1], where Arb's goes on from the lower right."""

    def above(z: Any) -> Any:
        y, z = function(z), ball(z)
        if type(z) is arb or not is_zero(z.imag) or not abs(z.real) > 1:
            return y
        lower = compare(z.imag, 0, "the side of a cut") == -1
        return y if lower == bool(z.real > 0) else y.conjugate()

    return above


def cube_root(x: Any) -> Any:
    x = ball(x)
    if x < 0:
        return -((-x).root(3))
    y = x.root(3)
    return y if y.is_finite() or not x.is_finite() else around_zero(x.abs_upper().root(3))  # continuous at 0


def power(a: Any, b: Any) -> Any:
    a, b = ball(a), ball(b)
    if type(b) is acb and is_zero(b.imag):
        b = b.real
    if is_zero(b) or (type(a) is arb and a == 1):
        return arb(1)  # of nan, too
    if is_infinite(a) or is_infinite(b):
        return _infinite_power(a, b)
    if type(b) is arb and b.is_exact() and b.is_integer() and abs(b) < _LARGE:
        n = whole(b)  # exact at 0, and of negative bases
        return _whole_power(a, n) if n > 0 else divide(1, _whole_power(a, -n))
    return _real_power(a, b) if type(a) is type(b) is arb else _complex_power(a, b)


_LARGE = arb(2) ** 2048


def _whole_power(a: Any, n: int) -> Any:
    """python-flint's `**` of a real ball around 0 is nan, of a complex one it is not."""
    if type(a) is arb and not is_exact(a) and is_zero(a.mid()):
        return (acb(a) ** n).real
    return a**n


def _infinite_power(a: Any, b: Any) -> Any:
    """One of them is infinite; negative infinity keeps its sign to odd powers."""
    if type(a) is not type(b) or certainly_nan(a) or certainly_nan(b):
        return NAN
    if is_zero(a):
        return arb(0) if b > 0 else INFINITY
    odd = a < 0 and b.is_finite() and b.is_integer() and not (b / 2).is_integer()
    size = arb(1) if abs(a) == 1 else abs(a) ** b
    return -size if odd else size


def _real_power(a: Any, b: Any) -> Any:
    if is_zero(a) and not b.contains(0):
        note(BORDER, a, a)
        return arb(0) if b > 0 else INFINITY
    if a < 0 and not b.contains_integer():
        return NAN
    if a.contains(0) and b > 0 and is_close(a, 0):
        note(BORDER, a, arb(0), "close")
        return around_zero(a.abs_upper() ** b)
    return a**b


def _complex_power(a: Any, b: Any) -> Any:
    if is_zero(a):
        return acb(0) if real_part(b) > 0 else COMPLEX_NAN
    return (log(complex_ball(a)) * b).exp()


def hypot(a: Any, b: Any) -> Any:
    a, b = ball(a), ball(b)
    if is_infinite(a) or is_infinite(b):
        return INFINITY
    return square_root(a * a + b * b)


# Kinks and jumps.


def absolute(x: Any) -> Any:
    """At 0 a tie has its say; without any, the ball of |x|."""
    x = ball(x)
    if type(x) is acb:
        if is_zero(x):
            note("|a|", x, arb(0))
    elif is_zero(x) or (x.contains(0) and is_close(x, 0)) or follows_sides(x, operand(0)):
        return abs(x) if (side := compare(x, 0, "|a|")) in (0, None) else side * x
    return abs(x)


def sign(x: Any) -> Any:
    x = ball(x)
    if type(x) is arb:
        side = compare(x, 0, "sign(a)")
        return NAN if side is None else arb(side)
    return x if equal(x, 0) else x / abs(x)


def greater_of(a: Any, b: Any) -> Any:
    if certainly_nan(a) or certainly_nan(b):
        return NAN
    return ball(b if less(a, b) else a)


def less_of(a: Any, b: Any) -> Any:
    if certainly_nan(a) or certainly_nan(b):
        return NAN
    return ball(b if less(b, a) else a)


def copysign(a: Any, b: Any) -> Any:
    """There is no negative zero here."""
    return -abs(ball(a)) if less(b, 0, "the sign of a") else abs(ball(a))


def atan2(a: Any, b: Any) -> Any:
    """Across the cut, along the negative b, the upper side counts. At infinities, a quarter or three of pi."""
    a, b = ball(a), ball(b)
    if certainly_nan(a) or certainly_nan(b):
        return NAN
    if is_infinite(a) and is_infinite(b):
        return sign(a) * arb.pi() * (3 if b < 0 else 1) / 4
    if is_zero(a) and is_zero(b):
        note("the angle of the origin", a, b)
    if not (a.contains(0) and b < 0):
        return arb.atan2(a, b)
    turn = -arb.pi() if compare(a, 0, "the side of a cut") == -1 else arb.pi()
    return turn - (a / -b).atan()


# Exponentials.


def larger_middle(*xs: Any) -> Any:
    """Roughly the greatest: a shift that keeps exponentials in range may be any number."""
    top = -INFINITY
    for x in xs:
        top = ball(x) if real_part(x).mid() > real_part(top).mid() else top
    return top


def below(x: Any, top: Any) -> Any:
    """x - top, which is 0 of one number and itself: of infinities, too."""
    x = ball(x)
    return arb(0) if x is top or (not top.is_finite() and x == top) else x - top


def log_of_sum(*xs: Any) -> Any:
    if any(certainly_nan(ball(x)) for x in xs):
        return NAN
    top = larger_middle(*xs)
    if is_infinite(top):
        return top
    return top + sum((below(x, top).exp() for x in xs), arb(0)).log()


def expit(x: Any) -> Any:
    x = ball(x)
    return 1 / (1 + (-x).exp()) if real_part(x).mid() > 0 else x.exp() / (1 + x.exp())


def log_expit(x: Any) -> Any:
    x = ball(x)
    return -((-x).exp().log1p()) if x.mid() > 0 else x - x.exp().log1p()


def times_log(x: Any, y: Any, log_of: Callable[[Any], Any] = log) -> Any:
    x, y = ball(x), ball(y)
    if certainly_nan(y):
        return y
    if not is_zero(x):
        return x * log_of(y)
    return NAN if type(y) is arb and y < (0 if log_of is log else -1) else arb(0)  # 0 log y: of what has a logarithm


def entropy(x: Any) -> Any:
    x = ball(x)
    return -INFINITY if x < 0 else -times_log(x, x)
