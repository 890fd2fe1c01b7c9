"""One-sided directional derivatives from values alone, in Arb arithmetic: the referee's oracle where f runs over balls.

The difference quotient at a step of 2^-k, some hundred binary places below the smallest number that the program meets
and the inverse of the largest, is the derivative to about k/2 bits if f is differentiable along the direction; three
steps tell convergence from a jump and from an infinite derivative (`limits.py`). Where the balls' radii, or a
comparison, leave a question open, the precision is doubled; a comparison that stays open then counts as a tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from flint import acb, arb

from adbridge.backends.reference.numbers import Undecided, eager
from adbridge.backends.reference.numbers.arrays import of_dtype
from adbridge.backends.reference.numbers.balls import ball, working_precision
from adbridge.backends.reference.numbers.decisions import ties_decided
from adbridge.backends.reference.numbers.decompositions import reading
from adbridge.backends.reference.tracer import Tracer
from adbridge.errors import AdbridgeError
from adbridge.protocol import read_only
from adbridge.registry import get_backend, inside
from adbridge.validate.oracle.arguments import Arguments, Direction, Outputs, norm, outputs_of, power_of_two, scaled
from adbridge.validate.oracle.limits import Limit, as_error, limit, magnitude, steps_of
from adbridge.validate.oracle.rounding import EXACT

MARGIN = 128  # bits beyond those that the difference quotient cancels
LEVELS = (1, 4, 16)  # the step's exponents, in units of the first


Moves = tuple[tuple[Direction, int, int], ...]
"""``(direction, k, sign)``: steps of sign 2^-k times the direction; a sign is any whole number but zero."""
Weights = dict[int, float]
"""What to multiply the real coordinates of the output by; zero for those that are not there."""


class BallOracle:
    """Values and one-sided derivatives of ``arguments.fun`` as balls, over real coordinates.

    Raises what `fun` raises on tracers of the reference engine, and CapabilityError where a primitive has no Arb.
    """

    def __init__(self, arguments: Arguments, digits: int, matrices: str = "lower") -> None:
        self.arguments = arguments
        self.matrices = matrices  # what functions of symmetric matrices read: see `decompositions.reading`
        self.digits = digits
        with np.errstate(all="ignore"):  # NaN is an argument like any other
            self.inputs = [of_dtype(leaf, leaf.dtype) for leaf in arguments.active]
        self.likes = [read_only(np.array(leaf)) for leaf in arguments.active]
        self.outputs: Outputs | None = None
        self.open_questions = False
        """Whether some comparison stays open at every precision, so that ties have to be decided from the start."""
        probe = self._probe()
        self.names, self.elements, self.narrowest = probe.names, probe.elements, _narrowest(probe.roundings)
        self.step_bits = 200 + _powers(probe.least) + _powers(1 / probe.most if probe.most else 0.0)
        self._values: dict[Any, list[Any]] = {}
        self.carried: dict[Any, float] = {}
        self._kept: list[Direction] = []

    def _probe(self) -> eager.Eager:
        trace, bits = eager.Eager(), 1024
        with ties_decided(bits // 2):
            self._run(trace, self.inputs, bits)
        return trace

    # Values.

    def value(self) -> list[Any]:
        """The outputs' real coordinates."""
        return self.at((), 2 * self.step_bits + MARGIN)

    def fresh(self) -> list[Any]:
        """The outputs, computed once more."""
        return self._decided((), 2 * self.step_bits + MARGIN, None)

    def at(self, moves: Moves, bits: int, weights: Weights | None = None, perturb: Any = None) -> list[Any]:
        """f at x + the sum of sign 2^-k direction over `moves`; with weights, their one weighted sum."""
        key = (bits, tuple((k, sign, id(direction)) for direction, k, sign in moves))
        values = self._values.get(key) if perturb is None else None
        if values is None:
            values = self._decided(moves, bits, perturb)
            if perturb is None:
                self._remember(key, moves, values)
        return values if weights is None else [_weighted(values, weights, 4 * bits)]  # as `_decided` may have it

    def _remember(self, key: Any, moves: Moves, values: list[Any]) -> None:
        if len(self._values) * len(values) > 100_000:
            self._values.clear()
            self._kept.clear()
        self._values[key] = values
        self._kept.extend(direction for direction, _, _ in moves)  # so that no other direction gets its identity

    def _decided(self, moves: Moves, bits: int, perturb: Any) -> list[Any]:
        attempts = ((bits, 0), (2 * bits, 0), (4 * bits, 2 * bits))
        for more, below in attempts[2 if self.open_questions else 0 :]:
            ties = ties_decided(below) if below else nullcontext()
            try:
                with working_precision(more), ties:
                    return self._run(eager.Eager(perturb), self._moved(moves), more)
            except Undecided:
                self.open_questions = more > bits
                if below:
                    raise
        raise AssertionError("unreachable")

    def on_sides(self, moves: Moves, sides: Sequence[str], weights: Weights | None = None) -> tuple[list[Any], int]:
        """The values where the run takes these sides at its ties, or next to them; how many it met."""
        k, bits = self.step_bits, 4 * self.step_bits
        with working_precision(bits), ties_decided(k - 40, sides, apart=False) as met:
            values = self._run(eager.Eager(), self._moved(moves), bits)
        return (values if weights is None else [_weighted(values, weights, bits)]), len(met)

    def _moved(self, moves: Moves) -> list[Any]:
        out = [np.array(x, object, order="C") if moves else x for x in self.inputs]  # so that reshape is a view
        for direction, k, sign in moves:
            step = sign * arb(2) ** -k
            for moved, d in zip(out, direction, strict=True):
                if d is None:
                    continue
                flat, by = moved.reshape(-1), np.asarray(d).reshape(-1)
                for place in np.flatnonzero(by):
                    if flat[place].is_finite():  # infinities, and what is not a number, stay where they are
                        flat[place] = flat[place] + ball(by[place]) * step
        return out

    def _run(self, trace: eager.Eager, point: list[Any], bits: int) -> list[Any]:
        with inside(get_backend("reference")), np.errstate(all="ignore"), reading(self.matrices):
            result = eager.run(lambda *xs: self.arguments.call(xs), trace, point, self.likes, bits)
        leaves, treedef = outputs_of(self.arguments.fun, result)
        parts = [self._balls(trace, leaf) for leaf in leaves]
        if self.outputs is None:
            self.outputs = Outputs(treedef, [like for _, like in parts])
        return [x for part, like in parts for entry in part.reshape(-1) for x in _real_parts(entry, like)]

    def _balls(self, trace: eager.Eager, leaf: Any) -> tuple[Any, Any]:
        if isinstance(leaf, Tracer) and leaf.trace is trace:
            return np.asarray(leaf.extra, object), np.asarray(leaf.value)
        if isinstance(leaf, Tracer):
            raise AdbridgeError("the function returned a tracer of another call: it keeps state between calls")
        like = np.asarray(leaf)
        return np.asarray(of_dtype(like, like.dtype), object), like

    # Derivatives.

    def sides(self, direction: Direction, weights: Weights | None = None) -> list[tuple[Limit, Limit]]:
        """For each real coordinate of the output its derivatives along `direction`, from the left and the right.

        With `weights`, for the weighted sum of the coordinates alone.
        """
        size = norm(direction)
        unit = power_of_two(size)
        if size == 0:
            zero = Limit("finite", ball(0), 0.0)
            return [(zero, zero)] * len(self.at((), 2 * self.step_bits + MARGIN, weights))
        found = self._unit_sides(direction if unit == 1 else scaled(direction, 1 / unit), weights)
        return [(_times(left, unit), _times(right, unit)) for left, right in found]

    def _unit_sides(self, direction: Direction, weights: Weights | None) -> list[tuple[Limit, Limit]]:
        found: list[tuple[Limit, Limit] | None] = []
        last: list[tuple[Limit, Limit]] = []
        now: list[tuple[Limit, Limit]] = []
        for level in LEVELS:
            now = self._level(direction, self.step_bits * level, weights)
            sure = _confirmed(last, now, self.digits)
            found = [
                f or (pair if ok else None) for f, pair, ok in zip(found or [None] * len(now), now, sure, strict=True)
            ]
            if all(found):
                break
            last = now
        return [f or pair for f, pair in zip(found, now, strict=True)]

    def _level(self, direction: Direction, k: int, weights: Weights | None) -> list[tuple[Limit, Limit]]:
        bits = 2 * k + MARGIN
        right, left = (self._sharp(direction, k, sign, bits, weights) for sign in (1, -1))
        # An odd function's two sides agree whatever they do; its steps do not.
        nearer = self._sharp(direction, k * 5 // 4, 3, bits + k // 2, weights)
        out = [_smooth(a, b, c, k) for a, b, c in zip(left, right, nearer, strict=True)]
        if all(out):
            return [pair for pair in out if pair]
        finer = [
            [self._sharp(direction, n, sign * factor, bits + n, weights) for factor, n in steps_of(k)[1:]]
            for sign in (-1, 1)
        ]
        return [
            pair or (limit([left[j], *(q[j] for q in finer[0])], k), limit([right[j], *(q[j] for q in finer[1])], k))
            for j, pair in enumerate(out)
        ]

    def _sharp(self, direction: Direction, k: int, sign: int, bits: int, weights: Weights | None) -> list[Any]:
        """The quotient at a precision that leaves its balls narrow, as far as it helps."""
        found = self.quotient(direction, k, sign, bits, weights)
        for more in (2 * bits, 4 * bits):
            if all(is_narrow(ball, k) for ball in found):
                break
            found = self.quotient(direction, k, sign, more, weights)
        return found

    def quotient(
        self,
        direction: Direction,
        k: int,
        sign: int,
        bits: int,
        weights: Weights | None = None,
        base: Moves = (),
        perturb: Any = None,
    ) -> list[Any]:
        """(f(x + s h d) - f(x)) / (s h) for the step h = 2^-k and the sign s, x moved by `base` first."""
        here = self.at(base, bits, weights, perturb)
        there = self.at((*base, (direction, k, sign)), bits, weights, perturb)
        with working_precision(bits):
            step = sign * arb(2) ** -k
            return [(a - b) / step for a, b in zip(there, here, strict=True)]

    def mixed(
        self,
        first: Direction,
        second: Direction,
        k: int,
        sign: int,
        weights: Weights | None = None,
        perturb: Any = None,
    ) -> list[Any]:
        """The second difference quotient along two directions, both times `sign` 2^-k."""
        bits = 3 * k + MARGIN
        low = self.quotient(first, k, sign, bits, weights, (), perturb)
        high = self.quotient(first, k, sign, bits, weights, ((second, k, sign),), perturb)
        with working_precision(bits):
            step = sign * arb(2) ** -k
            return [(a - b) / step for a, b in zip(high, low, strict=True)]


def _powers(least: float) -> int:
    """How many powers of two a number is below one."""
    return max(0, -math.frexp(least)[1]) if 0 < least < math.inf else 0


def _narrowest(roundings: set[tuple[str, Any]]) -> Any:
    """The dtype of least precision that a result was rounded to; None of none."""
    dtypes = [dtype for name, dtype in roundings if name == "astype" or name not in EXACT]
    return max(dtypes, key=lambda dtype: float(np.finfo(dtype).eps), default=None)


def is_narrow(quotient: Any, k: int) -> bool:
    """Whether a ball leaves at most half of the step's bits open."""
    if not quotient.is_finite():
        return True
    return magnitude(quotient.rad()) <= max(magnitude(quotient), -k / 2) - k / 2


def _weighted(values: list[Any], weights: Weights, bits: int) -> Any:
    with working_precision(bits):
        return sum((values[j] * ball(w) for j, w in weights.items()), start=ball(0))


def _real_parts(entry: Any, like: Any) -> list[Any]:
    entry = ball(entry)
    if like.dtype.kind == "c":
        return [entry.real, entry.imag] if isinstance(entry, acb) else [entry, ball(0)]
    return [entry]


def _smooth(left: Any, right: Any, nearer: Any, k: int) -> tuple[Limit, Limit] | None:
    """Both sides at once where they, and the right one at a finer step, agree to k/2 bits: the middle."""
    if not (left.is_finite() and right.is_finite() and nearer.is_finite()):
        return None
    with working_precision(2 * k + MARGIN):
        apart, change, middle = right - left, nearer - right, (left + right) / 2
    if max(magnitude(apart), magnitude(change)) > magnitude(middle) - k / 2:
        return None
    both = Limit("finite", middle, as_error(apart) + as_error(change))
    return both, both


def _times(side: Limit, factor: float) -> Limit:
    if factor == 1 or not side.is_finite:
        return side
    with working_precision(MARGIN + 2000):
        return Limit("finite", side.value * ball(factor), side.error * factor)


def _confirmed(before: list[tuple[Limit, Limit]], now: list[tuple[Limit, Limit]], digits: int) -> list[bool]:
    """Finite to the digits asked for, beside the largest; anything else is believed when a finer step repeats it."""
    finite = [magnitude(side.value) for pair in now for side in pair if side.is_finite]
    floor = max(finite, default=-math.inf) - 60
    wanted = -digits * math.log2(10)

    def sure(j: int, i: int) -> bool:
        side = now[j][i]
        if side.is_finite:
            power = max(magnitude(side.value), floor)
            return side.error == 0 or math.log2(side.error) <= power + wanted
        return bool(before) and before[j][i].kind == side.kind and side.kind != "unresolved"

    return [sure(j, 0) and sure(j, 1) for j in range(len(now))]
