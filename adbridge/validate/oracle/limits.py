"""What a difference quotient does as its step goes to zero: converge, grow without bound, or neither."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

WIDEST = 1 << 14
"""The most bits of an enclosure."""


def steps_of(k: int) -> tuple[tuple[int, int], ...]:
    """``(factor, exponent)`` of the steps factor 2^-exponent of the quotients that `limit` sees.

    No two steps differ by a power of two alone: a function that repeats itself on that scale would look smooth.
    """
    return (1, k), (3, k * 3 // 2), (5, 2 * k)


@dataclass(frozen=True, slots=True)
class Limit:
    """A one-sided derivative. `kind` is "finite", "infinite", "jump", "undefined" or "unresolved".

    `value` is a ball around the derivative, or +-inf with its sign; `error` bounds its distance from the truth.
    """

    kind: str
    value: Any
    error: float

    @property
    def is_finite(self) -> bool:
        return self.kind == "finite"

    def enclosure(self) -> Any:
        """An Arb ball around the truth: the value, and the error as far as a float can say it."""
        from flint import arb

        from adbridge.backends.reference.numbers.conversions import working_precision

        if not self.is_finite or not 0 < self.error < math.inf:
            return arb(self.value)
        bits = magnitude(arb(self.value)) - math.log2(self.error) + 64
        with working_precision(math.ceil(min(max(64, bits), WIDEST))):  # fewer bits only widen the ball
            return self.value + arb(0, self.error)


FARTHEST = 2**1000
"""Powers of two beyond these count as infinite, or as zero."""


def magnitude(x: Any) -> float:
    """log2 of a ball's largest possible absolute value, however small or large; -inf of zero."""
    upper = abs(x).upper()
    if not upper.is_finite():
        return math.inf
    if upper == 0:
        return -math.inf
    mantissa, exponent = upper.mid().man_exp()
    power = int(mantissa).bit_length() + int(exponent)
    return float(power) if abs(power) < FARTHEST else math.inf if power > 0 else -math.inf


def as_error(x: Any) -> float:
    """A ball's largest possible absolute value as a float, rounded up: never 0 but for an exact 0."""
    power = magnitude(x)
    if power == -math.inf:
        return 0.0
    return math.inf if power > 1023 else max(math.ldexp(1.0, max(math.ceil(power), -1074)), 5e-324)


def limit(quotients: list[Any], step_bits: int) -> Limit:
    """The limit of three quotients, at the steps that `steps_of` gives: about 2^-k, 2^-1.5k and 2^-2k, k = `step_bits`.

    A differentiable side converges like a power of the step. A quotient that grows like one over the step is that
    of a jump; one that grows more slowly, by a power or by a logarithm, has an infinite limit. A quotient of what is
    not finite is undefined on that side.
    """
    first, second, third = quotients
    if not all(q.is_finite() for q in quotients):
        return Limit("undefined", math.nan, math.inf)
    before, last = second - first, third - second
    shrunk = magnitude(before) - magnitude(last)
    wide = step_bits / 16  # a power of the step of 1/8 and more is told from a logarithm
    if magnitude(last) == -math.inf or shrunk >= wide:
        return Limit("finite", third, as_error(last) + as_error(third.rad()))
    if magnitude(last) < magnitude(third) - step_bits / 2 and magnitude(third.rad()) < magnitude(third):
        return Limit("finite", third, as_error(last))  # equal up to what the balls' radii leave
    if all(q.contains(0) and magnitude(q) < -step_bits / 2 for q in quotients):  # radii alone: zero, as far as they go
        return Limit("finite", third, max(map(as_error, quotients)))
    return _growing(first, second, third, step_bits, wide)


def _growing(first: Any, second: Any, third: Any, step_bits: int, wide: float) -> Limit:
    if not (third > 0 and second > 0 and third > second) and not (third < 0 and second < 0 and third < second):
        return Limit("unresolved", math.nan, math.inf)
    infinity = math.inf if third > 0 else -math.inf
    if _stays(second, third, step_bits):
        return Limit("jump", infinity, math.inf)
    by_power = magnitude(third) - magnitude(second) >= wide / 2
    by_logarithm = abs(second) > abs(first) and abs(third - second) * 2 > abs(second - first)
    return (
        Limit("infinite", infinity, math.inf) if by_power or by_logarithm else Limit("unresolved", math.nan, math.inf)
    )


def _stays(second: Any, third: Any, step_bits: int) -> bool:
    """Whether f changes by as much at the last step as at the one before: then it jumps, however small the step."""
    from flint import arb

    _, (factor, exponent), (last, furthest) = steps_of(step_bits)
    return bool(third / second * last / factor * arb(2) ** (exponent - furthest) > 1 - 2.0**-8)
