"""Whether what a rule does to tangents or cotangents is linear, for engines that transpose anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Values = Sequence[npt.NDArray[Any]]

_SIZE = 1024.0
"""Of the point of the test: clipping shows where it clips."""


def sample_points(shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> list[npt.NDArray[Any]]:
    """Arrays of both signs and no regularity, in double precision."""
    rng = np.random.default_rng(20)
    return [
        _signed(rng, shape) + (1j * _signed(rng, shape) if "complex" in dtype else 0.0)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


def why_not_linear(eps: float, x: Values, y: Values, minus: Values, cotangents: Values, pulled: Values) -> str:
    """Why a function is not linear, of which ``y = f(x)``, ``minus = f(-x)``, and `pulled` are the cotangents of x
    by its derivative at x; or "". The arrays of y, `minus` and `pulled` may have axes of a batch in front.

    A linear function is odd, and its own derivative: ``Re sum(cotangents y) = Re sum(pulled x)``. What overflows, or
    is NaN, tells nothing.
    """
    rounding = 64 * eps * max(_size(x), _size(y))  # none, where sums are in a fixed order
    if any(_differ(a, -b, rounding) for a, b in zip(y, minus, strict=True)):
        return "its value at -t is not that at t with the other sign"
    (found, more), (expected, less) = _pairing(x, pulled), _pairing(cotangents, y)
    tolerance = eps**0.25  # rounding in a rule may be amplified; what is not linear is off by more
    noise = eps**0.5 * _size(x) * _size(cotangents)  # where a rule's terms cancel
    if _differ(np.asarray(found), np.asarray(expected), tolerance * (more + less) + noise):
        return "its value at t is not its derivative times t"
    return ""


def _signed(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    return np.asarray(rng.uniform(_SIZE, 2 * _SIZE, shape) * rng.choice([-1.0, 1.0], shape))


def _pairing(ours: Values, values: Values) -> tuple[float, float]:
    """The real part of ``sum(ours values)``, and the size of its terms; the mean over axes that the values have in
    front of our arrays': a batch, which some of them need not have."""
    products = [(c, np.real(c * v)) for c, v in zip(ours, values, strict=True) if c.size and v.size]
    sums = [(np.sum(p) * c.size / p.size, np.sum(np.abs(p)) * c.size / p.size) for c, p in products]
    return float(sum(s for s, _ in sums)), float(sum(a for _, a in sums))


def _size(values: Values) -> float:
    return float(max((np.max(np.abs(v), initial=0.0) for v in values), default=0.0))


def _differ(a: npt.NDArray[Any], b: npt.NDArray[Any], bound: float) -> bool:
    return bool(np.isfinite(bound)) and bool(np.any(np.abs(a - b) > bound))
