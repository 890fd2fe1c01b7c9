"""Wrong results that legal choices inside the function explain.

A smooth function may be made of kinks that cancel: relu(x) - relu(-x) is x, but no choice of relu'(0) other than 1/2
gives it the slope 1. Such a result lies in the conservative field of the program (J. Bolte, E. Pauwels, Math. Program.
188, 2021), the hull of the derivatives of its branches, and no rule of the engine is at fault. Nor is one where a
function of symmetric matrices is differentiated along other directions than symmetric ones: engines then read the
lower triangle, the upper, or both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from adbridge.backends.reference.numbers.conversions import working_precision
from adbridge.validate.judgement.findings import Finding
from adbridge.validate.oracle.arguments import Direction, norm, power_of_two, scaled
from adbridge.validate.referee import Referee

RUNS = 600
"""So many evaluations at most go into an explanation."""
SYMMETRIC = frozenset({"eigh", "cholesky"})
CANCEL = "the function is smooth here, but made of kinks that cancel; its branches give"
TRIANGLE = "the function reads a symmetric matrix: only the symmetric part of its derivative is determined"


def branches(
    referee: Referee, directions: Sequence[Direction], weights: dict[int, float], along: Direction | None = None
) -> npt.NDArray[Any] | None:
    """The derivatives [branch, direction] of the program's branches at its ties; None of none, or of too many.

    With `along`, the second derivatives along it and each direction.
    """
    if referee.method != "arb":
        return None
    oracle = referee.oracle
    ties = oracle.on_sides((), ())[1]
    if not ties or 2**ties * (2 if along is None else 4) * len(directions) > RUNS:
        return None
    rows = [[_slope(oracle, d, along, sides, weights) for d in directions] for sides in _sides(ties)]
    found = np.array(rows, float)
    return found[np.all(np.isfinite(found), axis=1)]


def _sides(ties: int) -> Iterator[tuple[str, ...]]:
    return product(("less", "greater"), repeat=ties)


def _slope(
    oracle: Any, direction: Direction, along: Direction | None, sides: tuple[str, ...], weights: dict[int, float]
) -> float:
    k = oracle.step_bits
    if along is not None:
        return _bend(oracle, direction, along, sides, weights)
    (ahead,), (behind,) = (oracle.on_sides(((direction, k, sign),), sides, weights)[0] for sign in (1, -1))
    with working_precision(4 * k):
        return float((ahead - behind) * 2 ** (k - 1))


def _bend(
    oracle: Any, direction: Direction, along: Direction, sides: tuple[str, ...], weights: dict[int, float]
) -> float:
    k, unit = oracle.step_bits, power_of_two(norm(along))
    second, signs = scaled(along, 1 / unit), [(a, b) for a in (1, -1) for b in (1, -1)]
    corners = [oracle.on_sides(((direction, k, a), (second, k, b)), sides, weights)[0][0] for a, b in signs]
    with working_precision(4 * k):
        total = sum(a * b * corner for (a, b), corner in zip(signs, corners, strict=True))
        return float(total * 2 ** (2 * k - 2)) * unit


def in_hull(points: npt.NDArray[Any], x: npt.NDArray[Any], tolerance: float = 1e-9) -> bool:
    """Whether x is a convex combination of the rows of `points`, each entry to `tolerance` of its own size."""
    from scipy.optimize import nnls  # type: ignore[import-untyped]  # SciPy has no types

    scale = np.max(np.abs(np.vstack([points, x[None]])), axis=0)
    scale = np.where(scale > 0, scale, 1.0)[:, None]
    system = np.vstack([points.T / scale, np.ones(len(points))])
    return bool(nnls(system, np.append(x / scale[:, 0], 1.0))[1] < tolerance)


def of_branches(finding: Finding, slopes: npt.NDArray[Any] | None, got: npt.NDArray[Any], tolerance: float) -> Finding:
    """`finding` as a convention, if the branches' derivatives explain what was got."""
    if slopes is None or not len(slopes) or not np.all(np.isfinite(got)):
        return finding
    if not in_hull(slopes, got, max(1e-9, tolerance)):
        return finding
    low, high = slopes.min(axis=0), slopes.max(axis=0)
    shown = ", ".join(f"[{a:.6g}, {b:.6g}]" for a, b in zip(low[:4], high[:4], strict=True))
    return replace(finding, verdict="convention", note=f"{CANCEL} {shown}{', ...' if len(low) > 4 else ''}")


def symmetric(referee: Referee) -> Referee | None:
    """A referee of the function that reads matrices' symmetric parts; None if it reads none."""
    if referee.method != "arb" or not SYMMETRIC & referee.oracle.names or referee.oracle.matrices == "symmetric":
        return None
    from adbridge.validate.oracle.balls import BallOracle

    oracle = BallOracle(referee.arguments, referee.oracle.digits, "symmetric")
    return Referee(referee.arguments, oracle, "arb")


def symmetric_part(x: Any) -> Any:
    """Of stacks of square matrices; anything else as it is."""
    if x is None or np.ndim(x) < 2 or np.shape(x)[-1] != np.shape(x)[-2]:
        return x
    return (x + np.conj(np.swapaxes(x, -1, -2))) / 2
