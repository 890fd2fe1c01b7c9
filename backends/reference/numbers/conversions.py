"""Numbers as Arb balls (`flint.arb`, `flint.acb` if complex) and back, and the precision that balls are computed in."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flint
import numpy as np
from flint import acb, arb

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

INFINITY = arb.pos_inf()

# Arb's nan is a ball that may be any number. These two objects are IEEE's: certainly no number.
NAN = arb.nan()
COMPLEX_NAN = acb(NAN, NAN)

_TURN = threading.RLock()


@contextmanager
def working_precision(bits: int) -> Iterator[None]:
    """Arb's precision, for a while. All threads share it, so that they take turns."""
    with _TURN:
        before, flint.ctx.prec = flint.ctx.prec, bits
        try:
            yield
        finally:
            flint.ctx.prec = before


def ball(x: Any) -> Any:
    """A number as a ball: its exact binary value, or what its name stands for. Zero has no sign: it is +0."""
    kind = type(x)
    if kind is arb or kind is acb:
        return x
    if kind is float:
        if id(x) in CONSTANTS:
            return NAMED[CONSTANTS[id(x)]]()
        return NAN if x != x else arb(x)
    if isinstance(x, np.longdouble):
        return _from_longdouble(x)
    if isinstance(x, (complex, np.complexfloating)):
        return COMPLEX_NAN if x != x else acb(ball(x.real), ball(x.imag))
    return arb(int(x)) if isinstance(x, (int, np.bool_, np.integer)) else ball(float(x))


def _from_longdouble(x: Any) -> Any:
    """A float holds the first 53 bits of its mantissa, another one the rest."""
    high = float(x)
    if not math.isfinite(high):
        return ball(high)
    with working_precision(128):
        return arb(high) + arb(float(x - np.longdouble(high)))


def complex_ball(x: Any) -> Any:
    x = ball(x)
    return x if type(x) is acb else COMPLEX_NAN if x is NAN else acb(x)


def real_part(x: Any) -> Any:
    x = ball(x)
    return x if type(x) is arb else NAN if x is COMPLEX_NAN else x.real


def imaginary_part(x: Any) -> Any:
    x = ball(x)
    return arb(0) if type(x) is arb else NAN if x is COMPLEX_NAN else x.imag


def certainly_nan(x: Any) -> bool:
    return x is NAN or x is COMPLEX_NAN


def is_exact(x: Any) -> bool:
    """Whether a ball is one number; infinities are."""
    return bool(x.is_exact() if type(x) is arb else x.real.is_exact() and x.imag.is_exact())


def is_zero(x: Any) -> bool:
    """Whether a ball is 0 exactly, so that no decision is needed."""
    return bool(x.is_zero())


def around_zero(bound: Any) -> Any:
    """The ball of all numbers up to `bound` in magnitude."""
    return arb(0, bound.abs_upper())


def rounded(array: Any, dtype: Any = np.float64) -> Any:
    """Midpoints, to the nearest float."""
    kind = np.dtype(dtype).kind
    mids = [complex(x) if isinstance(x, acb) else float(x) for x in np.asarray(array, object).ravel()]
    return np.array(mids if kind == "c" else [x.real for x in mids], dtype).reshape(np.shape(array))
