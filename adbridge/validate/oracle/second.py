"""Second derivatives from values: mixed difference quotients, from two opposite corners."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from adbridge.backends.reference.numbers.balls import working_precision
from adbridge.validate.oracle.arguments import Direction, norm, power_of_two, scaled
from adbridge.validate.oracle.limits import Limit, as_error, magnitude

if TYPE_CHECKING:
    from adbridge.validate.referee import Referee

_NONE = Limit("undefined", math.nan, math.inf)


def second(referee: Referee, coordinate: int, direction: Direction, weights: dict[int, float]) -> Limit:
    """d/de d/dv of the weighted sum of the outputs; "kink" as kind where the corners disagree."""
    return second_along(referee, referee.arguments.one_hot(coordinate), direction, weights)


def second_along(referee: Referee, first: Direction, direction: Direction, weights: dict[int, float]) -> Limit:
    """The same along any direction `first`, of about unit size."""
    size = norm(direction)
    if size == 0:
        return Limit("finite", 0.0, 0.0)
    unit = power_of_two(size)
    along = direction if unit == 1 else scaled(direction, 1 / unit)  # the same object: what was run is remembered
    if referee.method != "arb":
        return _by_differences(referee, first, along, unit, weights)
    kinds = {first_kind(referee, d, weights) for d in (first, along)}
    if kinds - {"smooth"}:
        return Limit("kink", math.nan, math.inf) if "kink" in kinds else _NONE
    k = referee.oracle.step_bits
    plus, minus, finer = (
        referee.oracle.mixed(first, along, power, sign, weights)[0]
        for power, sign in ((k, 1), (k, -1), (k * 5 // 4, 3))
    )
    return _met(plus, minus, finer, unit, k)


def first_kind(referee: Referee, direction: Direction, weights: dict[int, float]) -> str:
    """The kind of point that the first derivative along the direction shows."""
    from adbridge.validate.oracle.classify import kind_of

    return kind_of(*referee.sides(direction, weights)[0])[0]


def _met(plus: Any, minus: Any, finer: Any, unit: float, k: int) -> Limit:
    """Two opposite corners, and a finer one, differ by a third derivative times the step, unless there is a kink."""
    if not (plus.is_finite() and minus.is_finite() and finer.is_finite()):
        return _NONE
    with working_precision(4 * k):
        apart, change, middle = plus - minus, finer - plus, (plus + minus) / 2
        scaled_middle = middle * (int(unit) if unit >= 1 else unit)
    if max(magnitude(apart), magnitude(change)) > max(magnitude(middle), -k / 4) - k / 4:
        return Limit("kink", math.nan, math.inf)
    return Limit("finite", scaled_middle, (as_error(apart) + as_error(change)) * unit)


def _by_differences(
    referee: Referee, first: Direction, along: Direction, unit: float, weights: dict[int, float]
) -> Limit:
    """Symmetric differences of first derivatives, each with its bar, at the step that balances the two errors."""
    from adbridge.validate.oracle.differences import mixed

    found = mixed(referee.oracle, first, along, weights)
    return Limit(found.kind, found.value * unit, found.error * unit)
