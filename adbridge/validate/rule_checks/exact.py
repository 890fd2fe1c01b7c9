"""What the referee says of a plain function at one point, in real coordinates, each question asked once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from adbridge.errors import AdbridgeError
from adbridge.validate.oracle.limits import Limit
from adbridge.validate.oracle.second import second_along
from adbridge.validate.referee import Referee, referee, same
from adbridge.validate.rule_checks.candidate import Leaves, Vector, as_tangent, sizes, tangents_of

FEW = 24
"""Up to so many real inputs the exact Jacobian is taken column by column."""


@dataclass(frozen=True)
class Sides:
    """One-sided derivatives from the left and the right, with a bound on their error.

    Entries that are neither finite nor infinite on a side are nan there; `smooth` says where both sides are one.
    """

    left: Vector
    right: Vector
    error: Vector
    smooth: Any

    def __getitem__(self, key: Any) -> Sides:
        return Sides(self.left[key], self.right[key], self.error[key], self.smooth[key])


class Exact:
    """Derivatives of `plain`, a function of flat leaves, at `leaves`.

    Raises (when first asked) RuleError: the function gives two results, or nothing. Where the referee has no
    answer, sides are nan.
    """

    def __init__(self, plain: Callable[..., Any], leaves: Leaves, backend: str | None = None) -> None:
        self.plain, self.leaves, self.backend = plain, leaves, backend
        self._sides: dict[bytes, Sides] = {}
        self._second: dict[bytes, Any] = {}
        self._directions: dict[bytes, list[Any]] = {}

    @cached_property
    def referee(self) -> Referee:
        return referee(self.plain, *self.leaves, backend=self.backend)

    @cached_property
    def value(self) -> Vector:
        """Coordinates of the output, as nearest floats."""
        found = self.referee.value
        return as_tangent([np.asarray(part) for part in (found if isinstance(found, tuple) else (found,))])

    @property
    def several(self) -> bool:
        """Whether the output is a tuple."""
        return bool(self.referee.outputs.treedef.num_nodes > 1)

    @property
    def count(self) -> int:
        """Number of real inputs."""
        return sum(sizes(self.leaves))

    def sides(self, tangent: Vector) -> Sides:
        """Of each real output, along a direction."""
        key = np.asarray(tangent, float).tobytes()
        if key not in self._sides:
            found = self.referee.sides(self._direction(tangent))
            self._sides[key] = _read(found)
        return self._sides[key]

    @cached_property
    def _wide(self) -> Leaves:
        return tuple(np.asarray(leaf, complex if leaf.dtype.kind == "c" else float) for leaf in self.leaves)

    @cached_property
    def columns(self) -> list[Sides]:
        """Along each real input in turn."""
        return [self.sides(row) for row in np.eye(self.count)]

    def second(self, weights: Vector, first: Vector, along: Vector) -> tuple[float, float]:
        """``first' H along`` of the weighted sum of the outputs, and a bound on its error; nan where there is none."""
        key = weights.tobytes() + first.tobytes() + along.tobytes()
        if key not in self._second:
            self._second[key] = self._mixed(weights, first, along)
        found: tuple[float, float] = self._second[key]
        return found

    def _mixed(self, weights: Vector, first: Vector, along: Vector) -> tuple[float, float]:
        live = {int(j): float(weights[j]) for j in np.flatnonzero(weights)}
        try:
            found = second_along(self.referee, self._direction(first), self._direction(along), live)
        except AdbridgeError:
            return math.nan, math.inf
        return (float(found.value), found.error) if found.is_finite else (math.nan, math.inf)

    def _direction(self, tangent: Vector) -> list[Any]:
        """Always the same object for the same numbers: the referee remembers runs by it."""
        key = np.asarray(tangent, float).tobytes()
        if key not in self._directions:
            self._directions[key] = list(tangents_of(tangent, self._wide))
        return self._directions[key]


def _read(found: list[tuple[Limit, Limit]]) -> Sides:
    left = np.array([_float(a) for a, _ in found])
    right = np.array([_float(b) for _, b in found])
    error = np.array([max(a.error if a.is_finite else 0.0, b.error if b.is_finite else 0.0) for a, b in found])
    error += 2.3e-16 * np.abs(np.where(np.isfinite(right), right, 0.0))  # of the nearest floats
    return Sides(left, right, error, np.array([same(a, b) for a, b in found], bool))


def _float(side: Limit) -> float:
    if side.kind not in ("finite", "infinite"):
        return math.nan
    return float(side.value)
