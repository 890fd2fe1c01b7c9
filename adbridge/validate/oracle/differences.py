"""One-sided directional derivatives by extrapolated differences in float64: the oracle for what cannot run over balls.

Quotients at halved steps are extrapolated to step zero (L. F. Richardson, Phil. Trans. R. Soc. A 210, 1911; C. J. F.
Ridders, Adv. Eng. Software 4(2), 1982), once from each side and once symmetrically. The error bar is what the last
extrapolations changed, and what rounding in f leaves of the quotient; a bar too wide to judge by is left to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from adbridge.protocol import Backend
from adbridge.registry import inside
from adbridge.validate.oracle.arguments import Arguments, Direction, Outputs, norm, outputs_of
from adbridge.validate.oracle.limits import Limit

Vector = npt.NDArray[np.float64]
HALVINGS = 22
ORDER = 8  # columns of the tableau: more amplify rounding
ROUNDING = 8 * float(np.finfo(float).eps)


class DifferenceOracle:
    """Values and one-sided derivatives of ``arguments.fun``, run on a backend's arrays (None: on NumPy's)."""

    narrowest: Any = None
    """What dtypes the program rounds to, nobody knows."""

    def __init__(self, arguments: Arguments, backend: Backend | None) -> None:
        self.arguments = arguments
        self.backend = backend
        self.outputs: Outputs | None = None
        self.wide = [leaf.astype(complex if leaf.dtype.kind == "c" else float) for leaf in arguments.active]
        self._here = self._run(self.wide)
        self.elements = sum(x.size for x in self.wide) + len(self._here)

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
            leaves, treedef = flatten(arguments.call([backend.from_numpy(np.asarray(a)) for a in arrays]))
            return unflatten(treedef, [backend.to_numpy(x) if backend.owns(x) else x for x in leaves])


def _sides(here: Vector, ahead: list[Vector], behind: list[Vector], steps: list[float]) -> list[tuple[Limit, Limit]]:
    with np.errstate(all="ignore"):
        right = [(a - here) / h for a, h in zip(ahead, steps, strict=True)]
        left = [(here - b) / h for b, h in zip(behind, steps, strict=True)]
        middle = [(a - b) / (2 * h) for a, b, h in zip(ahead, behind, steps, strict=True)]
    out = []
    for j in range(len(here)):
        sizes = [abs(values[j]) for values in (here, *ahead, *behind) if math.isfinite(values[j])]
        noise = ROUNDING * max(sizes, default=0.0)
        sides = tuple(_extrapolated([q[j] for q in side], steps, noise, 2) for side in (left, right))
        both = _extrapolated([q[j] for q in middle], steps, noise, 4)
        agree = all(s.is_finite for s in (*sides, both)) and abs(sides[0].value - sides[1].value) <= (
            4 * (sides[0].error + sides[1].error)
        )
        out.append((both, both) if agree else (sides[0], sides[1]))
    return out


def _extrapolated(quotients: list[float], steps: list[float], noise: float, base: int) -> Limit:
    """The limit of quotients at halved steps of a function known up to `noise` (divided by the step in a quotient).

    Their errors start at the step itself (base 2) or at its square (4).
    """
    if found := _not_finite(quotients, noise / steps[-1]):
        return found
    rows = _tableau(quotients, base)
    best, row = _best(rows, steps, noise)
    # Finer steps that contradict it know more noise in f than rounding: a table, an iteration that stops early.
    beyond = [abs(entries[-1] - best.value) * h for entries, h in zip(rows, steps, strict=True) if entries][row:]
    louder = max(beyond, default=0.0)
    return best if louder <= 64 * noise else _best(rows, steps, louder)[0]


def _tableau(quotients: list[float], base: int) -> list[list[float]]:
    """Neville's; a row for each step, empty where f is not defined, from where it starts again."""
    rows: list[list[float]] = []
    for quotient in quotients:
        above = rows[-1] if rows else []
        row = [quotient] if math.isfinite(quotient) else []
        for k in range(1, min(len(above) + 1, ORDER) if row else 0):
            row.append(row[k - 1] + (row[k - 1] - above[k - 1]) / (base**k - 1))
        rows.append(row)
    return rows


def _best(rows: list[list[float]], steps: list[float], noise: float) -> tuple[Limit, int]:
    """The entry that its neighbours confirm best, and its row."""
    best, place = Limit("undefined", math.nan, math.inf), 0
    for i in range(1, len(rows)):
        for k in range(1, len(rows[i])):
            entry = rows[i][k]
            error = max(abs(entry - rows[i][k - 1]), abs(entry - rows[i - 1][k - 1])) + noise / steps[i]
            if error < best.error:
                best, place = Limit("finite", entry, error), i
    return best, place


def _not_finite(quotients: list[float], noise: float) -> Limit | None:
    """Quotients that grow as the step shrinks: like 1/h at a jump, more slowly at an infinite derivative."""
    last, before = quotients[-1], quotients[-8]
    if not all(map(math.isfinite, quotients[-8:])):
        return Limit("undefined", math.nan, math.inf)
    grows = all(abs(b) > 1.02 * abs(a) for a, b in pairwise(quotients[-8:]))
    if not grows or last * before <= 0 or abs(last) <= 100 * noise:
        return None
    rate = math.log2(abs(last / before)) / 7
    return Limit("jump" if rate > 0.95 else "infinite", math.copysign(math.inf, last), math.inf)


def mixed(oracle: DifferenceOracle, first: Direction, second: Direction, weights: dict[int, float]) -> Limit:
    """The mixed second derivative of the weighted sum, extrapolated over halved steps in both directions at once."""
    start = min(oracle._start(first), oracle._start(second)) / max(norm(second), 1)
    quotients, areas, noise = [], [], 0.0
    for i in range(HALVINGS // 2):
        h = start * 2.0**-i
        corners = [
            oracle.moved([(first, a * h), (second, b * h)], weights) for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))
        ]
        quotients.append((corners[0] - corners[1] - corners[2] + corners[3]) / (4 * h * h))
        areas.append(h * h)
        noise = max(noise, ROUNDING * max(map(abs, corners)))
    return _extrapolated(quotients, areas, noise, 4)
