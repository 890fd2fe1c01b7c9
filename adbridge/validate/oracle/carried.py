"""What rounding errors in a program do to its derivative: run with them, beside the run without (`rounding.py`).

Derivatives are symmetric difference quotients here: a guard that holds at the point alone takes part in neither run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from flint import arb

from adbridge.backends.reference.numbers.balls import working_precision
from adbridge.validate.oracle.arguments import Direction, norm, power_of_two, scaled
from adbridge.validate.oracle.balls import MARGIN, BallOracle, Weights, is_narrow
from adbridge.validate.oracle.limits import as_error
from adbridge.validate.oracle.rounding import BITS, SEEDS, Rounding

RUNS = 6  # with the dtype's own rounding errors
SUSPECT = 2.0**40  # moves so large, of a derivative of size 1, may come from another branch


def amplification(oracle: BallOracle, direction: Direction | None, weights: Weights | None = None) -> list[float]:
    """How much a rounding error in every operation moves the derivative along the direction (None: the value).

    For each real coordinate of the output (or the weighted sum), in units of the relative rounding error.
    """
    along, unit = _unit(direction)
    return _largest_moves(oracle, lambda bits, p: _slope(oracle, along, bits, weights, p), unit, 2)


def second_amplification(oracle: BallOracle, first: Direction, second: Direction, weights: Weights) -> float:
    """As `amplification`, of the second derivative along two directions."""
    key = tuple(None if d is None else d.tobytes() for d in (*first, *second)), tuple(weights.items())
    if key not in oracle.carried:
        along, unit = _unit(second)
        moves = _largest_moves(oracle, lambda bits, p: _bend(oracle, first, along or second, bits, weights, p), unit, 3)
        oracle.carried[key] = moves[0]
    return oracle.carried[key]


def rounded(oracle: BallOracle, direction: Direction | None, bits: int, weights: Weights) -> list[float]:
    """Derivatives along the direction (None: values) with rounding errors of 2^-bits, one for each random choice.

    Unlike an amplification, they show where rounding alone takes another branch, or crosses a jump.
    """
    along, unit = _unit(direction)
    near, precision = _near(oracle), 2 * oracle.step_bits + MARGIN
    found = [_slope(oracle, along, precision, weights, Rounding(seed, near, bits)) for seed in range(10, 10 + RUNS)]
    return [float(value) * unit for (value,) in found]


def _unit(direction: Direction | None) -> tuple[Direction | None, float]:
    """The direction scaled by a power of two, and that; None for none, or one that moves nothing."""
    size = 0.0 if direction is None else norm(direction)
    if direction is None or size == 0:
        return None, 1.0
    unit = power_of_two(size)
    return scaled(direction, 1 / unit), unit


def _near(oracle: BallOracle) -> Any:
    return arb(2) ** -(oracle.step_bits // 2)


def _slope(oracle: BallOracle, along: Direction | None, bits: int, weights: Weights | None, perturb: Any) -> list[Any]:
    here = oracle.at((), bits, weights, perturb)  # first: changes are measured from there
    if along is None:
        return here
    k = oracle.step_bits
    ahead, behind = (oracle.at(((along, k, sign),), bits, weights, perturb) for sign in (1, -1))
    with working_precision(bits):
        return [(a - b) * arb(2) ** (k - 1) for a, b in zip(ahead, behind, strict=True)]


def _bend(
    oracle: BallOracle, first: Direction, second: Direction, bits: int, weights: Weights, perturb: Any
) -> list[Any]:
    oracle.at((), bits, weights, perturb)
    k = oracle.step_bits  # and half a step along the other direction: no corner is the point itself
    signs = [(a, b) for a in (1, -1) for b in (1, -1)]
    corners = [oracle.at(((first, k, a), (second, k + 1, b)), bits, weights, perturb)[0] for a, b in signs]
    with working_precision(bits):
        total = sum((a * b * corner for (a, b), corner in zip(signs, corners, strict=True)), start=arb(0))
        return [total * arb(2) ** (2 * k - 1)]


def _largest_moves(oracle: BallOracle, found: Callable[[int, Any], list[Any]], unit: float, order: int) -> list[float]:
    bits = order * oracle.step_bits + MARGIN
    exact = found(bits, None)
    for _ in range(2):
        if not all(is_narrow(ball, oracle.step_bits) for ball in exact):
            bits *= 2
            exact = found(bits, None)
    most = [0.0] * len(exact)
    for seed in SEEDS:

        def moves(size: int, seed: int = seed) -> list[float]:
            perturb = Rounding(seed, _near(oracle), size)
            with working_precision(bits):
                pairs = zip(found(bits, perturb), exact, strict=True)
                return [as_error((moved - still) * arb(2) ** size) * unit for moved, still in pairs]

        for j, change in enumerate(_of_rounding(moves, [abs(float(ball)) * unit for ball in exact])):
            most[j] = max(most[j], change)
    return most


def _of_rounding(moves: Callable[[int], list[float]], sizes: list[float]) -> list[float]:
    """Moves in units of the rounding error, without those of another branch taken: these are no smaller for it."""
    found = [m if math.isfinite(m) else 0.0 for m in moves(BITS)]
    if all(m <= SUSPECT * size for m, size in zip(found, sizes, strict=True)):
        return found
    smaller = moves(2 * BITS)
    return [m if s < 2.0 ** (BITS - 16) * m else 0.0 for m, s in zip(found, smaller, strict=True)]
