"""Every primitive against its closed-form derivative. Adding a primitive is adding a row.

Random points stay away from kinks, poles and branch cuts. Several operands are packed into the first
argument as a tuple, so that each is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import adbridge as ad
from adbridge.bench.problem import Answer, Instance, Problem, Suite, Vector, diagonal_answer

Shape = tuple[int, ...]
Draw = Callable[[np.random.Generator, list[Shape]], list[Vector]]
Interval = tuple[float, float]
Slopes = Callable[[Vector, Vector], tuple[Any, Any]]

N = 12  # of a plain run


def _problem(
    name: str,
    fun: Callable[..., Any],
    answer: Callable[..., Answer],
    shapes: Callable[[int], list[Shape]],
    m: int,
    draw: Draw,
    data: Callable[[int], tuple[Any, ...]] = lambda n: (),
) -> Problem:
    """``fun(xp, *operands, *data)`` with operands of ``shapes(n)``; m outputs at n = `N`.

    ``answer(operands, *data)`` takes the operands as they are packed: one array, or a tuple of several.
    """

    def packed(operands: Any, *rest: Any) -> Any:
        parts = operands if isinstance(operands, tuple) else (operands,)
        return fun(ad.array_namespace(*parts), *parts, *rest)

    def make(n: int, _: int, rng: np.random.Generator) -> Instance:
        operands = draw(rng, shapes(n))
        return Instance(packed, (operands[0] if len(operands) == 1 else tuple(operands), *data(n)), answer)

    return Problem(name, make, sizes=((N, m),), free="n")


# Shapes of operands with n elements in all, or nearly.


def _line(n: int) -> list[Shape]:
    return [(n,)]


def _table(n: int) -> list[Shape]:
    return [(3, max(1, round(n / 3)))]


def _halves(n: int) -> list[Shape]:
    return [(max(1, n // 2),)] * 2


def _cross(n: int) -> list[Shape]:
    """A column and a row, to broadcast against each other."""
    return [(max(1, n // 2), 1), (max(1, n - n // 2),)]


def _chain_of_two(n: int) -> list[Shape]:
    k = max(1, round(n / 6))
    return [(k, 3), (3, k)]


def _square_and_vector(n: int) -> list[Shape]:
    k = max(1, round((np.sqrt(4 * n + 1) - 1) / 2))  # k^2 + k = n
    return [(k, k), (k,)]


# Where the points lie.


def _within(*intervals: Interval) -> Draw:
    """Uniform; one interval for all operands, or one each."""

    def draw(rng: np.random.Generator, shapes: list[Shape]) -> list[Vector]:
        own = intervals if len(intervals) == len(shapes) else intervals * len(shapes)
        return [rng.uniform(low, high, shape) for (low, high), shape in zip(own, shapes, strict=True)]

    return draw


def _either_sign(rng: np.random.Generator, shapes: list[Shape]) -> list[Vector]:
    return [rng.uniform(0.5, 2.0, shape) * rng.choice([-1.0, 1.0], shape) for shape in shapes]


def _between_integers(rng: np.random.Generator, shapes: list[Shape]) -> list[Vector]:
    """At least 0.1 from integers and half-integers."""
    return [rng.integers(-6, 6, shape) / 2 + rng.uniform(0.1, 0.4, shape) for shape in shapes]


def _apart(rng: np.random.Generator, shapes: list[Shape]) -> list[Vector]:
    """No two elements of any operands closer than 0.1, and none closer than 0.05 to 1 or -1."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    total = sum(sizes)
    values = (rng.permutation(total) - total // 2) * 0.2 + 0.1 + rng.uniform(-0.05, 0.05, total)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


_ANY: Interval = (-2.0, 2.0)
_POSITIVE: Interval = (0.5, 3.0)
_INSIDE: Interval = (-0.9, 0.9)


# Elementwise functions of one array: name, slope, points.


def _unary(name: str, slope: Callable[[Vector], Any], where: Interval | Draw = _ANY) -> Problem:
    def answer(x: Vector) -> Answer:
        x = np.asarray(x, float)
        return diagonal_answer(getattr(np, name)(x), slope(x) * np.ones_like(x))

    draw = _within(where) if isinstance(where, tuple) else where
    return _problem(name, lambda xp, x: getattr(xp, name)(x), answer, _line, N, draw)


UNARY = (
    _unary("abs", np.sign, _either_sign),
    _unary("acos", lambda x: -1 / np.sqrt(1 - x**2), _INSIDE),
    _unary("acosh", lambda x: 1 / np.sqrt(x**2 - 1), (1.2, 3.0)),
    _unary("asin", lambda x: 1 / np.sqrt(1 - x**2), _INSIDE),
    _unary("asinh", lambda x: 1 / np.sqrt(1 + x**2)),
    _unary("atan", lambda x: 1 / (1 + x**2)),
    _unary("atanh", lambda x: 1 / (1 - x**2), _INSIDE),
    _unary("ceil", lambda x: 0.0, _between_integers),
    _unary("cos", lambda x: -np.sin(x)),
    _unary("cosh", np.sinh),
    _unary("exp", np.exp),
    _unary("exp2", lambda x: np.log(2) * 2.0**x),
    _unary("expm1", np.exp),
    _unary("floor", lambda x: 0.0, _between_integers),
    _unary("log", lambda x: 1 / x, _POSITIVE),
    _unary("log10", lambda x: 1 / (x * np.log(10)), _POSITIVE),
    _unary("log1p", lambda x: 1 / (1 + x), _INSIDE),
    _unary("log2", lambda x: 1 / (x * np.log(2)), _POSITIVE),
    _unary("negative", lambda x: -1.0),
    _unary("reciprocal", lambda x: -1 / x**2, _either_sign),
    _unary("round", lambda x: 0.0, _between_integers),
    _unary("sign", lambda x: 0.0, _either_sign),
    _unary("sin", np.cos),
    _unary("sinh", np.cosh),
    _unary("sqrt", lambda x: 0.5 / np.sqrt(x), _POSITIVE),
    _unary("square", lambda x: 2 * x),
    _unary("tan", lambda x: 1 / np.cos(x) ** 2, (-1.2, 1.2)),
    _unary("tanh", lambda x: 1 / np.cosh(x) ** 2),
    _unary("trunc", lambda x: 0.0, _between_integers),
)


# Elementwise functions that need more than a name: of complex numbers made of a real x, and casts.


def _made(name: str, fun: Callable[[Any, Any], Any], slope: Callable[[Vector], Any]) -> Problem:
    """A function that is linear where it is differentiated: its value is ``slope(x) x``."""

    def answer(x: Vector) -> Answer:
        x = np.asarray(x, float)
        return diagonal_answer(slope(x) * x, slope(x) * np.ones_like(x))

    return _problem(name, fun, answer, _line, N, _between_integers)


def _times_whole(xp: Any, x: Any) -> Any:
    """x times its whole part, which is a constant."""
    return x * xp.astype(xp.astype(x, xp.int32), x.dtype)


MADE = (
    _made("astype", _times_whole, np.trunc),
    # (1 - 2i) (3 + i) = 5 - 5i
    _made("conj", lambda xp, x: xp.real(xp.conj(x * (1 + 2j)) * (3 + 1j)), lambda x: 5.0),
    _made("imag", lambda xp, x: xp.imag(x * (1 + 2j)), lambda x: 2.0),
    _made("real", lambda xp, x: xp.real(x * (3 + 2j)), lambda x: 3.0),
)


# Elementwise functions of two arrays: name, slopes in each, points; once alike and once with broadcasting.


def _summed_to(x: Vector, shape: Shape) -> Vector:
    """Summed over the axes that broadcasting added to `shape`."""
    x = np.sum(x, axis=tuple(range(x.ndim - len(shape))))
    ones = tuple(i for i, size in enumerate(shape) if size == 1)
    return np.asarray(np.sum(x, axis=ones, keepdims=True))


def _binary_answer(value: Vector, slopes: tuple[Any, Any], shapes: tuple[Shape, Shape]) -> Answer:
    """J (s, t) = slope_a s + slope_b t, elementwise."""
    by_a, by_b = (np.broadcast_to(slope, value.shape) for slope in slopes)
    return Answer(
        value,
        lambda t: by_a * t[0] + by_b * t[1],
        lambda c: (_summed_to(by_a * c, shapes[0]), _summed_to(by_b * c, shapes[1])),
    )


def _binary(name: str, slopes: Slopes, draw: Draw) -> tuple[Problem, Problem]:
    def answer(operands: tuple[Vector, Vector]) -> Answer:
        a, b = (np.asarray(part, float) for part in operands)
        return _binary_answer(getattr(np, name)(a, b), slopes(a, b), (a.shape, b.shape))

    def fun(xp: Any, a: Any, b: Any) -> Any:
        return getattr(xp, name)(a, b)

    half = N // 2
    alike = _problem(name, fun, answer, _halves, half, draw)
    return alike, _problem(f"{name}-broadcast", fun, answer, _cross, half * half, draw)


BINARY = (
    *_binary("add", lambda a, b: (1.0, 1.0), _within(_ANY)),
    *_binary("atan2", lambda a, b: (b / (a**2 + b**2), -a / (a**2 + b**2)), _either_sign),
    *_binary("copysign", lambda a, b: (np.sign(a) * np.sign(b), 0.0), _either_sign),
    *_binary("divide", lambda a, b: (1 / b, -a / b**2), _either_sign),
    # The quotient stays between 2 and 3.
    *_binary("floor_divide", lambda a, b: (0.0, 0.0), _within((5.0, 5.8), (2.0, 2.4))),
    *_binary("hypot", lambda a, b: (a / np.hypot(a, b), b / np.hypot(a, b)), _either_sign),
    *_binary("logaddexp", lambda a, b: (1 / (1 + np.exp(b - a)), 1 / (1 + np.exp(a - b))), _within(_ANY)),
    *_binary("maximum", lambda a, b: (np.where(a > b, 1.0, 0.0), np.where(a > b, 0.0, 1.0)), _apart),
    *_binary("minimum", lambda a, b: (np.where(a > b, 0.0, 1.0), np.where(a > b, 1.0, 0.0)), _apart),
    *_binary("multiply", lambda a, b: (b, a), _within(_ANY)),
    *_binary("pow", lambda a, b: (b * a ** (b - 1), a**b * np.log(a)), _within(_POSITIVE, _ANY)),
    # The quotient stays between 2 and 3.
    *_binary("remainder", lambda a, b: (1.0, -np.floor(a / b)), _within((5.0, 5.8), (2.0, 2.4))),
    *_binary("subtract", lambda a, b: (1.0, -1.0), _within(_ANY)),
)


# Reductions of a table: name, dy/dx entry by entry, points; over all elements and over an axis.


def _reduction(name: str, slope: Callable[[Vector, int | None], Any], draw: Draw) -> tuple[Problem, Problem]:
    def over(axis: int | None) -> Problem:
        def answer(x: Vector) -> Answer:
            x = np.asarray(x, float)
            by_x = np.broadcast_to(slope(x, axis), x.shape)
            return Answer(
                np.asarray(getattr(np, name)(x, axis=axis)),
                lambda t: np.asarray(np.sum(by_x * t, axis=axis)),
                lambda c: by_x * c,  # axis 0 went: c broadcasts along it
            )

        label, m = (name, 1) if axis is None else (f"{name}-axis", N // 3)
        return _problem(label, lambda xp, x: getattr(xp, name)(x, axis=axis), answer, _table, m, draw)

    return over(None), over(0)


def _count(x: Vector, axis: int | None) -> int:
    return x.size if axis is None else x.shape[axis]


def _deviation(x: Vector, axis: int | None) -> Vector:
    return np.asarray(x - np.mean(x, axis=axis, keepdims=True))


def _std_slope(x: Vector, axis: int | None) -> Vector:
    return np.asarray(_deviation(x, axis) / (_count(x, axis) * np.std(x, axis=axis, keepdims=True)))


REDUCTIONS = (
    *_reduction("max", lambda x, axis: x == np.max(x, axis=axis, keepdims=True), _apart),
    *_reduction("mean", lambda x, axis: 1 / _count(x, axis), _within(_ANY)),
    *_reduction("min", lambda x, axis: x == np.min(x, axis=axis, keepdims=True), _apart),
    *_reduction("prod", lambda x, axis: np.prod(x, axis=axis, keepdims=True) / x, _either_sign),
    *_reduction("std", _std_slope, _apart),
    *_reduction("sum", lambda x, axis: 1.0, _within(_ANY)),
    *_reduction("var", lambda x, axis: 2 * _deviation(x, axis) / _count(x, axis), _apart),
)


# Linear functions: name, function, its transpose of (cotangent, operands, data), shapes, outputs, data.


def _linear(
    name: str,
    fun: Callable[..., Any],
    transpose: Callable[..., Any],
    shapes: Callable[[int], list[Shape]],
    m: int,
    data: Callable[[int], tuple[Any, ...]] = lambda n: (),
) -> Problem:
    """The Jacobian of a linear function is the function."""

    def answer(operands: Any, *rest: Any) -> Answer:
        def value(parts: Any) -> Vector:
            parts = parts if isinstance(parts, tuple) else (parts,)
            return np.asarray(fun(np, *(np.asarray(part, float) for part in parts), *rest))

        return Answer(value(operands), value, lambda c: transpose(c, operands, *rest))

    return _problem(name, fun, answer, shapes, m, _within(_ANY), data)


def _repeated(n: int) -> tuple[Vector]:
    """Indices 0, 1, 4, 9, ... modulo n: some occur several times, some never."""
    return (np.arange(2 * n) ** 2 % n,)


def _scattered(c: Vector, x: Vector, index: Vector) -> Vector:
    """What was read twice receives twice."""
    return np.bincount(index, weights=c, minlength=len(x))


def _mask(n: int) -> tuple[Vector]:
    return (np.arange(max(1, n // 2)) % 3 == 0,)


def _from_end(c: Vector, x: Vector) -> Vector:
    """The transpose of a running sum: input i feeds the outputs from i on."""
    return np.asarray(np.cumsum(c[::-1], axis=0)[::-1])


def _strided(c: Vector, x: Vector) -> Vector:
    out = np.zeros(x.shape)
    out[1:-1:2] = c
    return out


def _row_sums(xp: Any, x: Any) -> Any:
    return xp.sum(x, axis=1, keepdims=True)


def _unstacked(c: Vector, operands: Any) -> tuple[Vector, ...]:
    return tuple(c[:, i] for i in range(len(operands)))


LINEAR = (
    _linear("broadcast_to", lambda xp, x: xp.broadcast_to(x, (3, *x.shape)), lambda c, x: c.sum(0), _line, 3 * N),
    _linear("concat", lambda xp, a, b: xp.concat([a, b, a]), lambda c, x: _thirds(c), _halves, 3 * N // 2),
    _linear("cumulative_sum", lambda xp, x: xp.cumulative_sum(x), _from_end, _line, N),
    _linear("cumulative_sum-axis", lambda xp, x: xp.cumulative_sum(x, axis=0), _from_end, _table, N),
    _linear("expand_dims", lambda xp, x: xp.expand_dims(x, axis=1), lambda c, x: c[:, 0], _table, N),
    _linear("flip", lambda xp, x: xp.flip(x, axis=0), lambda c, x: c[::-1], _table, N),
    _linear("getitem-repeated", lambda xp, x, index: x[index], _scattered, _line, 2 * N, _repeated),
    _linear("getitem-strided", lambda xp, x: x[1:-1:2], _strided, _line, (N - 1) // 2),
    _linear("matrix_transpose", lambda xp, x: xp.matrix_transpose(x), lambda c, x: c.T, _table, N),
    _linear("moveaxis", lambda xp, x: xp.moveaxis(x, 0, 1), lambda c, x: c.T, _table, N),
    _linear("permute_dims", lambda xp, x: xp.permute_dims(x, (1, 0)), lambda c, x: c.T, _table, N),
    _linear("reshape", lambda xp, x: xp.reshape(x, (-1, 3)), lambda c, x: c.reshape(x.shape), _table, N),
    _linear("repeat", lambda xp, x: xp.repeat(x, 2), lambda c, x: c.reshape(-1, 2).sum(1), _line, 2 * N),
    _linear("roll", lambda xp, x: xp.roll(x, 2), lambda c, x: np.roll(c, -2), _line, N),
    _linear("squeeze", lambda xp, x: xp.squeeze(x[None], axis=0), lambda c, x: c, _table, N),
    _linear("stack", lambda xp, a, b: xp.stack([a, b], axis=1), _unstacked, _halves, N),
    _linear("sum-keepdims", _row_sums, lambda c, x: np.broadcast_to(c, x.shape), _table, 3),
    _linear("take", lambda xp, x, index: xp.take(x, index, axis=0), _scattered, _line, 2 * N, _repeated),
    _linear("tile", lambda xp, x: xp.tile(x, (2,)), lambda c, x: c.reshape(2, -1).sum(0), _line, 2 * N),
    _linear("triu", lambda xp, x: xp.triu(x), lambda c, x: np.triu(c), _table, N),
    _linear(
        "where",
        lambda xp, a, b, mask: xp.where(mask, a, b),
        lambda c, x, mask: (np.where(mask, c, 0.0), np.where(mask, 0.0, c)),
        _halves,
        N // 2,
        _mask,
    ),
)


def _thirds(c: Vector) -> tuple[Vector, Vector]:
    first, second, third = np.split(c, 3)
    return first + third, second


# Bilinear functions: name, function, each operand's cotangent of (cotangent, other operand), shapes, outputs.


def _bilinear(
    name: str,
    fun: Callable[..., Any],
    to_a: Callable[[Vector, Vector], Any],
    to_b: Callable[[Vector, Vector], Any],
    shapes: Callable[[int], list[Shape]],
    m: int,
) -> Problem:
    def answer(operands: tuple[Vector, Vector]) -> Answer:
        a, b = (np.asarray(part, float) for part in operands)
        return Answer(
            np.asarray(fun(np, a, b)),
            lambda t: np.asarray(fun(np, t[0], b) + fun(np, a, t[1])),
            lambda c: (to_a(c, b), to_b(c, a)),
        )

    return _problem(name, fun, answer, shapes, m, _within(_ANY))


def _left(c: Vector, a: Vector) -> Any:
    return a @ c


BILINEAR = (
    _bilinear("matmul", lambda xp, a, b: a @ b, lambda c, b: c @ b.T, lambda c, a: a.T @ c, _chain_of_two, 4),
    _bilinear("matvec", lambda xp, a, b: a @ b, np.outer, lambda c, a: a.T @ c, _square_and_vector, 3),
    _bilinear("vecmat", lambda xp, a, b: b @ a, lambda c, b: np.outer(b, c), _left, _square_and_vector, 3),
    _bilinear(
        "tensordot",
        lambda xp, a, b: xp.tensordot(a, b, axes=((1,), (0,))),
        lambda c, b: c @ b.T,
        lambda c, a: a.T @ c,
        _chain_of_two,
        4,
    ),
    _bilinear("vecdot", lambda xp, a, b: xp.vecdot(a, b), lambda c, b: c * b, lambda c, a: c * a, _halves, 1),
)


def _clipped(x: Vector) -> Answer:
    x = np.asarray(x, float)
    return diagonal_answer(np.minimum(np.maximum(x, -1.0), 1.0), np.where(np.abs(x) < 1, 1.0, 0.0))


CLIP = _problem("clip", lambda xp, x: xp.clip(x, -1.0, 1.0), _clipped, _line, N, _apart)


def _sorted(x: Vector) -> Answer:
    """The derivative moves with the elements."""
    order = np.argsort(x)

    def back(c: Vector) -> Vector:
        out = np.empty_like(c)
        out[order] = c
        return out

    return Answer(np.sort(x), lambda t: np.asarray(t[order]), back)


SORT = _problem("sort", lambda xp, x: xp.sort(x), _sorted, _line, N, _apart)

SUITE = Suite(
    "elementary",
    (*UNARY, *MADE, *BINARY, *REDUCTIONS, *LINEAR, *BILINEAR, CLIP, SORT),
    "every primitive against its closed-form derivative",
)
