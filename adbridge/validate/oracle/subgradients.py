"""Clarke's subdifferential, sampled: which gradients are legal choices at a kink.

By Rademacher's theorem a Lipschitz function has gradients almost everywhere, and its subdifferential is the convex
hull of their limits (F. H. Clarke, Optimization and Nonsmooth Analysis, Theorem 2.5.1). So a vector g is legal if
along no direction v it exceeds the greatest derivative found at points around: g . v <= max f'(y; v).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from flint import arb

from adbridge.backends.reference.numbers.conversions import working_precision
from adbridge.validate.oracle.arguments import Direction, norm, power_of_two, scaled
from adbridge.validate.oracle.classify import random_direction

if TYPE_CHECKING:
    from adbridge.validate.referee import Referee

NEAR = 12
"""Points around, at random; as many again beside the ray along the direction itself."""


def interval(referee: Referee, direction: Direction, weights: dict[int, float]) -> tuple[float, float]:
    """The least and the greatest directional derivative at and around the point."""
    left, right = referee.sides(direction, weights)[0]
    values = [float(side.value) for side in (left, right) if side.is_finite]
    if referee.method == "arb" and norm(direction):
        values += around(referee, direction, weights)
    if not values:
        return math.nan, math.nan
    return min(values), max(values)


def bounds_it(referee: Referee, direction: Direction, weights: dict[int, float]) -> bool:
    """Whether `interval` is likely to be all of it: few pieces, each seen often, or a convex or concave function,
    whose one-sided derivatives are the ends. Of many pieces, each seen once, the greatest may not have been seen."""
    values = around(referee, direction, weights)
    ends = [float(side.value) for side in referee.sides(direction, weights)[0] if side.is_finite]
    slack = 1e-9 * max(map(abs, [*values, *ends]), default=0.0)
    if values and ends and min(ends) - slack <= min(values) and max(values) <= max(ends) + slack:
        return True
    return len(np.unique(np.round(values, 9))) <= NEAR // 2


def around(referee: Referee, direction: Direction, weights: dict[int, float]) -> list[float]:
    """Derivatives along the direction at points so near that only their side of the kinks matters."""
    oracle, unit = referee.oracle, power_of_two(norm(direction))
    out = []
    for quotients in _quotients_around(referee, direction):
        with working_precision(4 * oracle.step_bits + 128):
            quotient = sum((quotients[j] * w for j, w in weights.items()), start=arb(0))
        if quotient.is_finite() and abs(float(quotient)) < 2.0 ** (oracle.step_bits / 4):
            out.append(float(quotient) * unit)
    return out


def _quotients_around(referee: Referee, direction: Direction) -> list[list[Any]]:
    """Of every output at each point around, once for all outputs that are asked about."""
    key = tuple(None if d is None else d.tobytes() for d in direction)
    if key not in referee.nearby:
        referee.nearby.clear()  # one direction is asked about at a time, output by output
        referee.nearby[key] = list(_quotients(referee, direction))
    found: list[list[Any]] = referee.nearby[key]
    return found


def _quotients(referee: Referee, direction: Direction) -> Iterator[list[Any]]:
    oracle, rng = referee.oracle, np.random.default_rng(2)
    along = scaled(direction, 1 / power_of_two(norm(direction)))
    near, step = oracle.step_bits // 2, 2 * oracle.step_bits
    for i in range(2 * NEAR):
        aside = random_direction(referee, rng)
        if i >= NEAR:  # beside the ray, on both of its ends
            sign = 1 if i % 2 else -1
            aside = [a / 16 if d is None else a / 16 + sign * d for a, d in zip(aside, along, strict=True)]
        yield oracle.quotient(along, step, 1, 2 * step + 128, None, base=((aside, near, 1),))
