"""How far rounding in a program carries into its derivative: a condition number without derivative rules.

Every operation's result is moved by a random relative 2^-64 in Arb arithmetic (as in Monte Carlo arithmetic: D. S.
Parker, UCLA CSD-970002, 1997), and so is every operand's change between the point and the points beside it, which is
what rounding a local partial derivative does. The moves are the same each time the program runs. The derivative of the
program so moved is compared with that of the program itself: cancellation shows there, and is blamed on no one.
Matrix factorisations and sums are moved at their operands, as their rounding errors are bounded backward.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from flint import acb, arb

from adbridge.backends.reference.primitives import Primitive

BITS = 64
SEEDS = (1, 2, 3)

EXACT = frozenset(
    {"reshape", "permute_dims", "getitem", "broadcast_to", "concat", "where", "pick", "take", "take_along_axis"}
    | {"set_at", "clear_at", "last_writes", "diagonal", "from_diagonal", "astype", "real", "imag", "conj", "abs"}
    | {"negative", "sign", "max", "min", "maximum", "minimum", "floor", "ceil", "trunc", "round", "copysign"}
    | {"stop_gradient", "sort", "argsort", "argmax", "argmin", "searchsorted", "share_of_ties", "signbit"}
    | {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "isnan", "isinf", "isfinite"}
)
"""Nothing is rounded by these; a comparison of a number with itself stays one."""
SUMS = frozenset({"sum", "matmul", "cumulative_sum", "convolve", "add_at", "add_taken", "add_along_axis"})
"""Right sums of operands that are each off by a rounding error."""
FACTORED = frozenset(
    {
        "inv",
        "solve",
        "det",
        "slogdet",
        "cholesky",
        "qr",
        "eigh",
        "svd",
        "pinv",
        "cofactor",
        "fft",
        "ifft",
        "rfft",
        "irfft",
    }
)
"""Right results of matrices that are off by a rounding error of their norm."""


class Rounding:
    """One random choice of rounding errors, for `numbers.eager.Eager`; its first run is at the point itself."""

    def __init__(self, seed: int, near: Any, bits: int = BITS) -> None:
        self.seed = seed
        self.tiny = arb(2) ** -bits
        self.near = near
        """What changes by more between the point and those beside it has taken another branch there."""
        self.here: dict[int, list[Any]] = {}
        """The operands of each operation at the point."""

    def operands(self, primitive: Primitive, count: int, operands: list[Any]) -> list[Any]:
        if primitive.name in EXACT:
            return operands
        if count not in self.here:
            self.here[count] = operands
        else:
            operands = [self._moved_change(x, at, self._key(primitive, count, 100 + i))
                        for i, (x, at) in enumerate(zip(operands, self.here[count], strict=True))]  # fmt: skip
        if primitive.name not in SUMS and primitive.name not in FACTORED:
            return operands
        normwise = primitive.name in FACTORED
        return [self._moved(x, self._key(primitive, count, i), normwise) for i, x in enumerate(operands)]

    def _moved_change(self, x: Any, at: Any, key: list[int]) -> Any:
        if not _is_balls(x) or not _is_balls(at) or x.shape != at.shape:
            return x
        by = np.random.default_rng(key).uniform(-1, 1, x.shape)

        def moved(ball: Any, r: float, here: Any) -> Any:
            change = ball - here
            return ball + change * (self.tiny * float(r)) if abs(change) < self.near else ball

        return _each(moved, x, by, at)

    def result(self, primitive: Primitive, count: int, balls: Any) -> Any:
        if primitive.name in EXACT or primitive.name in SUMS or primitive.name in FACTORED:
            return balls
        return self._moved(balls, self._key(primitive, count, -1), normwise=False)

    def _key(self, primitive: Primitive, count: int, place: int) -> list[int]:
        return [self.seed, zlib.crc32(primitive.name.encode()), count, place + 1]

    def _moved(self, x: Any, key: list[int], normwise: bool) -> Any:
        if not _is_balls(x):
            return x
        by = np.random.default_rng(key).uniform(-1, 1, x.shape)
        if not normwise:
            return _each(lambda ball, r: ball + ball * (self.tiny * float(r)), x, by)
        top = max((abs(ball).mid() for ball in x.flat if isinstance(ball, (arb, acb))), default=arb(0))
        return _each(lambda ball, r: ball + top * (self.tiny * float(r)), x, by)


def _is_balls(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype == object and x.size > 0


def _each(function: Callable[..., Any], x: Any, *others: Any) -> Any:
    out = np.empty(x.size, object)
    for place, (ball, *rest) in enumerate(zip(x.flat, *(other.flat for other in others), strict=True)):
        out[place] = function(ball, *rest) if isinstance(ball, (arb, acb)) else ball
    return out.reshape(x.shape)
