"""One-sided directional derivatives by extrapolated differences in float64: the oracle for what cannot run over balls.

Quotients at halved steps are extrapolated to step zero (L. F. Richardson, Phil. Trans. R. Soc. A 210, 1911; C. J. F.
Ridders, Adv. Eng. Software 4(2), 1982), once from each side and once symmetrically. The error bar is what the last
extrapolations changed, and what rounding in f leaves of the quotient; a bar too wide to judge by is left to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from adbridge.protocol import Backend
from adbridge.registry import inside
from adbridge.validate.arguments import Arguments, Direction, Outputs, norm, outputs_of
from adbridge.validate.limits import Limit

Vector = npt.NDArray[np.float64]
HALVINGS = 22
ORDER = 8  # columns of the tableau: more amplify rounding
ROUNDING = 8 * float(np.finfo(float).eps)


class DifferenceOracle:
    """Values and one-sided derivatives of ``arguments.fun``, run on a backend's arrays (None: on NumPy's)."""

    def __init__(self, arguments: Arguments, backend: Backend | None) -> None:
        self.arguments = arguments
        self.backend = backend
        self.outputs: Outputs | None = None
        self.wide = [leaf.astype(complex if leaf.dtype.kind == "c" else float) for leaf in arguments.active]
        self._here = self._run(self.wide)

    def value(self) -> list[float]:
        return [float(v) for v in self._here]

    def sides(self, direction: Direction, weights: dict[int, float] | None = None) -> list[tuple[Limit, Limit]]:
        """For each real coordinate of the output (or their weighted sum) the derivatives from its two sides."""
        size = norm(direction)
        if size == 0:
            zero = Limit("finite", 0.0, 0.0)
            return [(zero, zero)] * (len(self._here) if weights is None else 1)
        along = self._along(direction, weights)
        start = self._start(direction) / size
        steps = [start * 2.0**-i for i in range(HALVINGS)]
        ahead, behind = ([along(sign * h) for h in steps] for sign in (1, -1))
        return _sides(along(0.0), ahead, behind, steps)

    def _start(self, direction: Direction) -> float:
        """An eighth of the greatest argument that moves, or of one."""
        moved = [
            np.max(np.abs(x[d != 0]), initial=0.0) for x, d in zip(self.wide, direction, strict=True) if d is not None
        ]
        top = max(map(float, moved), default=0.0)
        return (top if 0 < top < math.inf else 1.0) / 8

    def _along(self, direction: Direction, weights: dict[int, float] | None) -> Callable[[float], Vector]:
        def along(t: float) -> Vector:
            values = self._here if t == 0 else self._run(self._moved([(direction, t)]))
            return values if weights is None else np.array([_weighted(values, weights)])

        return along

    def moved(self, moves: list[tuple[Direction, float]], weights: dict[int, float]) -> float:
        """The weighted sum of the outputs at x + the sum of t d over ``(d, t)`` in `moves`."""
        return _weighted(self._run(self._moved(moves)), weights)

    def _moved(self, moves: list[tuple[Direction, float]]) -> list[Any]:
        out = list(self.wide)
        for direction, t in moves:
            out = [x if d is None else x + t * d for x, d in zip(out, direction, strict=True)]
        return out

    def _run(self, arrays: list[Any]) -> Vector:
        result = run_on(self.backend, self.arguments, arrays)
        leaves, treedef = outputs_of(self.arguments.fun, result)
        likes = [np.asarray(leaf) for leaf in leaves]
        if self.outputs is None:
            self.outputs = Outputs(treedef, likes)
        parts = [
            np.stack([like.real, like.imag], axis=-1) if like.dtype.kind == "c" else like.astype(float)
            for like in likes
        ]
        return np.concatenate([part.reshape(-1) for part in parts])


def _weighted(values: Vector, weights: dict[int, float]) -> float:
    return sum(w * float(values[j]) for j, w in weights.items())


def run_on(backend: Backend | None, arguments: Arguments, arrays: list[Any]) -> Any:
    """The function's result as NumPy, run on arrays of the backend (None: on NumPy's own)."""
    from adbridge.trees import flatten, unflatten

    with np.errstate(all="ignore"):
        if backend is None:
            return arguments.call([np.array(a) for a in arrays])
        with backend.scope([str(a.dtype) for a in arrays]), inside(backend):
            leaves, treedef = flatten(arguments.call([backend.from_numpy(a) for a in arrays]))
            return unflatten(treedef, [backend.to_numpy(x) if backend.owns(x) else x for x in leaves])


def _sides(here: Vector, ahead: list[Vector], behind: list[Vector], steps: list[float]) -> list[tuple[Limit, Limit]]:
    with np.errstate(all="ignore"):
        right = [(a - here) / h for a, h in zip(ahead, steps, strict=True)]
        left = [(here - b) / h for b, h in zip(behind, steps, strict=True)]
        middle = [(a - b) / (2 * h) for a, b, h in zip(ahead, behind, steps, strict=True)]
    out = []
    for j in range(len(here)):
        noise = [
            ROUNDING * max(abs(here[j]), abs(a[j]), abs(b[j])) / h for a, b, h in zip(ahead, behind, steps, strict=True)
        ]
        sides = (_extrapolated([q[j] for q in left], noise, 2), _extrapolated([q[j] for q in right], noise, 2))
        both = _extrapolated([q[j] for q in middle], noise, 4)
        agree = all(s.is_finite for s in (*sides, both)) and abs(sides[0].value - sides[1].value) <= (
            4 * (sides[0].error + sides[1].error)
        )
        out.append((both, both) if agree and both.error <= max(sides[0].error, sides[1].error) else sides)
    return out


def _extrapolated(quotients: list[float], noise: list[float], base: int) -> Limit:
    """The best entry of Neville's tableau for halved steps; errors start at the step (base 2) or its square (4)."""
    best = Limit("undefined", math.nan, math.inf)
    rows: list[list[float]] = []
    for i, quotient in enumerate(quotients):
        if not math.isfinite(quotient):
            rows = []  # beyond the domain: start again nearer to the point
            continue
        row = [quotient]
        for k in range(1, min(len(rows) + 1, ORDER)):
            row.append(row[k - 1] + (row[k - 1] - rows[-1][k - 1]) / (base**k - 1))
            error = max(abs(row[k] - row[k - 1]), abs(row[k] - rows[-1][k - 1])) + noise[i]
            if error < best.error:
                best = Limit("finite", row[k], error)
        rows.append(row)
    return _believed(best, quotients, noise)


def _believed(best: Limit, quotients: list[float], noise: list[float]) -> Limit:
    """Unless the quotients grow as the step shrinks: like 1/h at a jump, more slowly at an infinite derivative."""
    if not all(map(math.isfinite, quotients[-8:])):
        return Limit("undefined", math.nan, math.inf)
    last, before = quotients[-1], quotients[-8]
    if abs(last) > 1.5 * abs(before) > 0 and last * before > 0 and abs(last) > 100 * noise[-1]:
        rate = math.log2(abs(last / before)) / 7
        return Limit("jump" if rate > 0.95 else "infinite", math.copysign(math.inf, last), math.inf)
    return best


def mixed(oracle: DifferenceOracle, first: Direction, second: Direction, weights: dict[int, float]) -> Limit:
    """The mixed second derivative of the weighted sum, extrapolated over halved steps in both directions at once."""
    start = min(oracle._start(first), oracle._start(second)) / max(norm(second), 1)
    quotients, noise = [], []
    for i in range(HALVINGS // 2):
        h = start * 2.0**-i
        corners = [
            oracle.moved([(first, a * h), (second, b * h)], weights) for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))
        ]
        quotients.append((corners[0] - corners[1] - corners[2] + corners[3]) / (4 * h * h))
        noise.append(ROUNDING * max(map(abs, corners)) / (h * h))
    return _extrapolated(quotients, noise, 4)
