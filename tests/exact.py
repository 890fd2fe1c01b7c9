"""Derivatives without a derivative rule: differences of the primal in Arb balls, with a step of about 2^-300.

For a smooth f, (f(x + hv) - f(x - hv)) / 2h is off by about h^2, relative to how far x is from a singularity:
with h 2^-300 times the smaller of 1 and |x|, the quotient has more than a hundred right digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flint
import numpy as np

from adbridge.backends.reference import transforms
from adbridge.backends.reference.numbers import Undecided, evaluate_in
from adbridge.backends.reference.numbers.balls import ball, working_precision
from adbridge.backends.reference.program import Program

STEP = -300
BITS = (1600, 5000, 15000)
_ball = np.frompyfunc(ball, 1, 1)


def balls(x: Any) -> Any:
    """An object array of balls of x's exact values."""
    return wrapped(_ball(np.asarray(x)))


def wrapped(x: Any) -> Any:
    """NumPy gives elements for 0-d arrays of objects."""
    out = np.empty(np.shape(x), object)
    out[...] = x
    return out


def record(fun: Callable[..., Any], args: Sequence[Any]) -> Program:
    with np.errstate(all="ignore"):
        return transforms.record(lambda *xs: (fun(*xs),), *args)


def tangent_of(fun: Callable[..., Any]) -> Callable[..., Any]:
    """``(*args, *directions)`` -> the derivative along them by the engine's rules; of a constant one, zero."""

    def tangent(*both: Any) -> Any:
        half = len(both) // 2
        (out,), (t,), _ = transforms.jvp(lambda *ys: ((fun(*ys),), ()), both[:half], both[half:])
        return np.zeros(out.shape, out.dtype) if t is None else t

    return tangent


def run(program: Program, args: Sequence[Any], bits: int = BITS[1]) -> Any:
    return evaluate_in(program, tuple(args), bits=bits)[0]


def first_difference(fun: Callable[..., Any], args: Sequence[Any], directions: Sequence[Any]) -> Any:
    program = record(fun, args)

    def quotient(bits: int) -> Any:
        up, down, h = _moved(program, args, directions, bits)
        return (up - down) / (2 * h)

    return _accurate(quotient)


def second_difference(fun: Callable[..., Any], args: Sequence[Any], directions: Sequence[Any]) -> Any:
    program = record(fun, args)

    def quotient(bits: int) -> Any:
        up, down, h = _moved(program, args, directions, bits)
        return (up - 2 * run(program, args, bits) + down) / (h * h)

    return _accurate(quotient)


def _moved(program: Program, args: Sequence[Any], directions: Sequence[Any], bits: int) -> tuple[Any, Any, Any]:
    """The program's values on both sides, and the step."""
    h = _steps(args, directions)

    def at(sign: int) -> Any:
        return run(program, [balls(x) + sign * h * balls(v) for x, v in zip(args, directions, strict=True)], bits)

    return at(1), at(-1), h


def _steps(args: Sequence[Any], directions: Sequence[Any]) -> Any:
    """One step, or, of many points that move by themselves (a direction of ones), one for each."""
    moving = [np.abs(x) for x, v in zip(args, directions, strict=True) if np.ndim(x) == 1 and np.all(v == 1)]
    if not moving:
        return flint.arb(2) ** STEP
    exponents = [STEP + min(0, int(np.frexp(x)[1])) if x else STEP for x in moving[0]]
    return np.array([flint.arb(2) ** e for e in exponents], object)


def _accurate(quotient: Callable[[int], Any]) -> Any:
    """The quotient with enough bits to be right to 2^-350 of itself."""
    for bits in BITS:
        with working_precision(bits):
            try:
                out = wrapped(quotient(bits))
            except Undecided:
                if bits == BITS[-1]:
                    raise
                continue
            if all(_radius(x) <= size * flint.arb(2) ** -350 for x, size in zip(out.flat, _sizes(out), strict=True)):
                break
    return out


def _radius(x: Any) -> Any:
    return x.real.rad() + x.imag.rad() if isinstance(x, flint.acb) else x.rad()


def _sizes(out: Any) -> list[Any]:
    """What the digits of each entry count from: itself, among points; else the largest of its array."""
    sizes = [ball(abs(x).upper()) for x in out.flat]
    if out.ndim == 1 or not sizes:
        return sizes
    largest = sizes[0]
    for size in sizes:
        largest = size if size > largest else largest
    return [largest] * len(sizes)


def digits(got: Any, exact: Any) -> float:
    """To how many digits two arrays of balls agree."""
    with working_precision(BITS[-1]):
        pairs = zip(got.flat, exact.flat, _sizes(exact), strict=True)
        return min((_digits(ball(abs(x - y).upper()), size) for x, y, size in pairs), default=1000.0)


def _digits(apart: Any, size: Any) -> float:
    if not apart.is_finite() or not size.is_finite():
        return -1000.0
    if apart < flint.arb(2) ** -4500:
        return 1000.0
    return float(((size if size > flint.arb(2) ** -4000 else flint.arb(1)) / apart).log() / flint.arb.const_log10())


def ulps(got: Any, exact: Any) -> Any:
    """By how many units in its last place each float is off."""
    with np.errstate(over="ignore"):
        return np.array([_ulps(g, e) for g, e in zip(got.flat, exact.flat, strict=True)]).reshape(got.shape)


def _ulps(got: Any, exact: Any) -> float:
    nearest = got.dtype.type(float(exact))
    if not np.isfinite(got) or not np.isfinite(nearest):
        return 0.0 if got == nearest else float("inf")
    return float(abs(ball(float(got)) - exact) / ball(float(np.spacing(abs(nearest)))))


def relative(got: Any, exact: Any) -> float:
    """The largest error of an array of floats, relative to its largest entry."""
    errors = [float(abs(ball(x) - y)) for x, y in zip(np.asarray(got).flat, exact.flat, strict=True)]
    return max(errors, default=0.0) / max(1e-300, max((float(abs(y)) for y in exact.flat), default=1.0))
