"""Reductions, scans and statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from adbridge.backends.reference.namespace.axes import Axis, along, axes_of, count_over, one_axis
from adbridge.backends.reference.namespace.dtypes import astype, in_dtype
from adbridge.backends.reference.namespace.shapes import concat, permute_dims, reshape
from adbridge.backends.reference.primitives import Traced
from adbridge.backends.reference.rules import elementwise, reductions
from adbridge.backends.reference.rules.elementwise import where
from adbridge.backends.reference.rules.shaping import getitem


def sum(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    x = x if dtype is None else astype(x, dtype)
    # NumPy sums small integers in large ones, unless told otherwise.
    return in_dtype(reductions.sum(x, axis=axes_of(x, axis), keepdims=keepdims), dtype)


def max(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return reductions.max(x, axis=axes_of(x, axis), keepdims=keepdims)


def min(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return reductions.min(x, axis=axes_of(x, axis), keepdims=keepdims)


def all(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return reductions.all(x, axis=axes_of(x, axis), keepdims=keepdims)


def any(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return reductions.any(x, axis=axes_of(x, axis), keepdims=keepdims)


def argmax(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Any:
    return reductions.argmax(x, axis=axis, keepdims=keepdims)


def argmin(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Any:
    return reductions.argmin(x, axis=axis, keepdims=keepdims)


def count_nonzero(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return sum(elementwise.not_equal(x, 0), axis=axis, dtype=np.int64, keepdims=keepdims)


def prod(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    if isinstance(x, Traced):
        return _prod_by_halving(x, axis, dtype, keepdims)
    return np.prod(x, axis=axis, dtype=dtype, keepdims=keepdims)


def _prod_by_halving(x: Any, axis: Axis, dtype: Any, keepdims: bool) -> Any:
    """No derivative divides by an element: right at zeros, to any order."""
    x = in_dtype(x, dtype or _accumulator(x))
    axes = axes_of(x, axis)
    kept = [i for i in range(len(x.shape)) if i not in axes]
    shape = tuple(x.shape[i] for i in kept)
    flat = reshape(permute_dims(x, (*kept, *axes)), (*shape, math.prod(x.shape[i] for i in axes)))
    if flat.shape[-1] == 0:
        flat = np.ones((*shape, 1), x.dtype)
    while flat.shape[-1] > 1:
        half, odd = divmod(flat.shape[-1], 2)
        pairs = flat[..., :half] * flat[..., half : 2 * half]
        flat = concat([pairs, flat[..., 2 * half :]], axis=-1) if odd else pairs
    return reshape(flat, reductions.kept_shape(x.shape, axes) if keepdims else shape)


def _accumulator(x: Any) -> Any:
    """The dtype in which NumPy multiplies up x: it widens small integers."""
    return np.prod(np.ones(0, x.dtype)).dtype


def mean(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return sum(x, axis=axis, keepdims=keepdims) / count_over(x, axis)


def var(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    apart = x - mean(x, axis=axis, keepdims=True)
    if apart.dtype.kind == "c":
        squares = elementwise.real(apart * elementwise.conj(apart))
    else:
        squares = elementwise.square(apart)
    return sum(squares, axis=axis, keepdims=keepdims) / (count_over(x, axis) - correction)


def std(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """At constant data the derivative is 0, as that of the 2-norm at 0."""
    variance = var(x, axis=axis, correction=correction, keepdims=keepdims)
    flat = elementwise.equal(variance, 0)
    return where(flat, variance.dtype.type(0), elementwise.sqrt(where(flat, variance.dtype.type(1), variance)))


def cumulative_sum(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    x = x if dtype is None else astype(x, dtype)
    axis = one_axis("cumulative_sum", x, axis)
    total = in_dtype(reductions.cumulative_sum(x, axis=axis), dtype)
    return _after(0, total, axis) if include_initial else total


def cumulative_prod(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """By a scan, in which no derivative divides by an element: right at zeros, to any order."""
    axis = one_axis("cumulative_prod", x, axis)
    if isinstance(x, Traced):
        total = scan(elementwise.multiply, in_dtype(x, dtype or _accumulator(x)), axis)
    else:
        total = np.cumprod(x, axis=axis, dtype=dtype)
    return _after(1, total, axis) if include_initial else total


def _after(initial: int, total: Any, axis: int) -> Any:
    first = np.full((*total.shape[:axis], 1, *total.shape[axis + 1 :]), initial, total.dtype)
    return concat([first, total], axis=axis)


def scan(combine: Callable[[Any, Any], Any], x: Any, axis: int) -> Any:
    """Element j is ``combine`` of x[0] to x[j], for an associative `combine`.

    Pairs are combined and scanned; those are the results at odd places, and one more step gives the even
    ones: O(n) work in O(log n) operations. G. E. Blelloch, "Prefix sums and their applications", 1990.
    """
    size = x.shape[axis]
    if size < 2:
        return x
    even, odd = (getitem(x, key=along(axis, slice(start, None, 2))) for start in (0, 1))
    count = size // 2
    pairs = combine(even if size % 2 == 0 else getitem(even, key=along(axis, slice(0, count))), odd)
    at_odd = scan(combine, pairs, axis)
    inner = combine(
        getitem(at_odd, key=along(axis, slice(0, (size - 1) // 2))), getitem(even, key=along(axis, slice(1, None)))
    )
    at_even = concat([getitem(even, key=along(axis, slice(0, 1))), inner], axis=axis)
    return _interleaved(at_even, at_odd, axis)


def _interleaved(at_even: Any, at_odd: Any, axis: int) -> Any:
    count = at_odd.shape[axis]
    before, after = at_odd.shape[:axis], at_odd.shape[axis + 1 :]
    columns = [
        reshape(getitem(part, key=along(axis, slice(0, count))), (*before, count, 1, *after))
        for part in (at_even, at_odd)
    ]
    both = reshape(concat(columns, axis=axis + 1), (*before, 2 * count, *after))
    if at_even.shape[axis] == count:
        return both
    return concat([both, getitem(at_even, key=along(axis, slice(count, None)))], axis=axis)


def diff(x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Any:
    axis = one_axis("diff", x, axis)
    parts = [part for part in (prepend, x, append) if part is not None]
    x = concat(parts, axis=axis) if len(parts) > 1 else x
    for _ in range(n):
        after, before = (getitem(x, key=along(axis, part)) for part in (slice(1, None), slice(0, -1)))
        x = elementwise.not_equal(after, before) if x.dtype.kind == "b" else after - before
    return x
