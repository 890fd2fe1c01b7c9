"""Clarke's subdifferential, sampled: which gradients are legal choices at a kink.

By Rademacher's theorem a Lipschitz function has gradients almost everywhere, and its subdifferential is the convex
hull of their limits (F. H. Clarke, Optimization and Nonsmooth Analysis, Theorem 2.5.1). So a vector g is legal if
along no direction v it exceeds the greatest derivative found at points around: g . v <= max f'(y; v).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

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


def around(referee: Referee, direction: Direction, weights: dict[int, float]) -> list[float]:
    """Derivatives along the direction at points so near that only their side of the kinks matters."""
    oracle, rng = referee.oracle, np.random.default_rng(2)
    unit = power_of_two(norm(direction))
    along = scaled(direction, 1 / unit)
    near, step = oracle.step_bits // 2, 2 * oracle.step_bits
    out = []
    for i in range(2 * NEAR):
        aside = random_direction(referee, rng)
        if i >= NEAR:  # beside the ray, on both of its ends
            sign = 1 if i % 2 else -1
            aside = [a / 16 if d is None else a / 16 + sign * d for a, d in zip(aside, along, strict=True)]
        (quotient,) = oracle.quotient(along, step, 1, 2 * step + 128, weights, base=((aside, near, 1),))
        if quotient.is_finite() and abs(float(quotient)) < 2.0 ** (oracle.step_bits / 4):
            out.append(float(quotient) * unit)
    return out
