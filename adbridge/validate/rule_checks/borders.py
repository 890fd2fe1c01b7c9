"""Where a function takes another branch: found in its Wengert list, and approached from both sides.

What decides is read from a run on the reference engine: the outcomes of comparisons, the branches of Python code, and
which operand a maximum, a sort, an absolute value, ... took. Between two points that decide differently there is a
border, which bisection finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import Var
from adbridge.errors import AdbridgeError
from adbridge.tracing import trace
from adbridge.validate.rule_checks.candidate import Leaves

STEPS = 60
MOST = 8
"""Borders that are approached."""

_DECISIONS: dict[str, Callable[..., Any]] = {
    "abs": lambda x, **_: np.real(x) > 0,
    "sign": lambda x, **_: np.real(x) > 0,
    "maximum": lambda a, b, **_: np.asarray(a) > np.asarray(b),
    "minimum": lambda a, b, **_: np.asarray(a) > np.asarray(b),
    "copysign": lambda a, b, **_: (np.asarray(a) > 0) ^ (np.asarray(b) > 0),
    "floor": lambda x, **_: np.floor(x),
    "ceil": lambda x, **_: np.ceil(x),
    "trunc": lambda x, **_: np.trunc(x),
    "round": lambda x, **_: np.round(x),
    "max": lambda x, axis=None, **_: np.argmax(x, axis=axis if isinstance(axis, int) else None),
    "min": lambda x, axis=None, **_: np.argmin(x, axis=axis if isinstance(axis, int) else None),
}


def decisions(plain: Callable[..., Any], leaves: Leaves) -> list[Any] | None:
    """What the run at `leaves` decided, an array for each decision in order; None where it cannot be traced."""
    try:
        program = trace(plain, *leaves)
        assert program.run is not None
        values = program.run.values
        return [_decided(eq, values) for eq in program.equations if _decides(eq)]
    except (AdbridgeError, ArithmeticError, TypeError, ValueError, AttributeError, np.linalg.LinAlgError):
        return None


def _decides(equation: Any) -> bool:
    if equation.primitive.name in _DECISIONS:
        return True
    dtype = equation.output.dtype
    return dtype is not None and np.dtype(dtype).kind in "biu"


def _decided(equation: Any, values: dict[int, Any]) -> Any:
    rule = _DECISIONS.get(equation.primitive.name)
    if rule is None:
        return np.asarray(values[equation.output.index])
    operands = [values[x.index] if type(x) is Var else x for x in equation.inputs]
    return np.asarray(rule(*operands, **equation.params))


# A function of the elements alone: every element has decisions of its own.


def element_borders(plain: Callable[..., Any], row: Leaves) -> list[Leaves]:
    """Vectors of values on both sides of the borders between neighbours in `row`, and on them."""
    order = np.argsort(row[0], kind="stable")
    low, high = tuple(leaf[order][:-1] for leaf in row), tuple(leaf[order][1:] for leaf in row)
    start, end = _by_element(plain, low), _by_element(plain, high)
    if start is None or end is None or start.shape != end.shape:
        return []
    apart = np.flatnonzero(np.any(start != end, axis=0))[: 4 * MOST]
    if not len(apart):
        return []
    low, high, start = tuple(x[apart] for x in low), tuple(x[apart] for x in high), start[:, apart]
    for _ in range(STEPS):
        middle = tuple(a + (b - a) / 2 for a, b in zip(low, high, strict=True))
        here = _by_element(plain, middle)
        if here is None or here.shape != start.shape:
            return []
        before = np.all(here == start, axis=0)
        low = tuple(np.where(before, m, a) for m, a in zip(middle, low, strict=True))
        high = tuple(np.where(before, b, m) for m, b in zip(middle, high, strict=True))
    return _around(low, high)


def _around(low: Leaves, high: Leaves) -> list[Leaves]:
    """The border's own floats, and points near it and further from it on both sides."""
    out = [low, high]
    for by in (1e-7, 1e-3, 3e-2):
        for sign, edge in ((-1, low), (1, high)):
            out.append(tuple(e + sign * by * np.maximum(np.abs(e), 1e-3) for e in edge))
    return out


def _by_element(plain: Callable[..., Any], row: Leaves) -> Any:
    """Decisions as an array (decisions, elements); those of other shapes are the same for all elements."""
    found = decisions(plain, row)
    if found is None:
        return None
    mine = [d for d in found if d.shape == row[0].shape]
    return np.stack([d.astype(float) for d in mine]) if mine else np.zeros((0, row[0].size))


# Any function: along a line between two points.


def borders_between(plain: Callable[..., Any], start: Leaves, ends: list[Leaves]) -> Iterator[Leaves]:
    """Points close to borders on the way from `start` to each of `ends`, on either side."""
    here, found = decisions(plain, start), 0
    if here is None:
        return
    for end in ends:
        there = decisions(plain, end)
        if found >= MOST or there is None or same_decisions(here, there):
            continue
        found += 1
        yield from _crossed(plain, start, end, here)


def _crossed(plain: Callable[..., Any], start: Leaves, end: Leaves, here: list[Any]) -> Iterator[Leaves]:
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        there = decisions(plain, _between(start, end, middle))
        if there is not None and same_decisions(here, there):
            low = middle
        else:
            high = middle
    yield _between(start, end, max(low - 1e-3, 0.0))
    yield _between(start, end, high + 1e-3)


def _between(start: Leaves, end: Leaves, t: float) -> Leaves:
    return tuple(np.asarray(a + t * (b - a), a.dtype) for a, b in zip(start, end, strict=True))


def same_decisions(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
