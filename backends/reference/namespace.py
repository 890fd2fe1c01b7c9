"""The array API namespace of tracers: primitives under their standard names, and functions made of them.

Creation functions, dtypes and constants are NumPy's own. A NumPy function without an entry here raises
NotDifferentiable when it meets a tracer.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import PRIMITIVES, Traced
from adbridge.backends.reference.rules import elementwise, linalg, reductions, shaping
from adbridge.backends.reference.rules.elementwise import maximum, minimum, sqrt, square
from adbridge.backends.reference.tracer import concrete

__array_api_version__ = "2024.12"

Axis = int | Sequence[int] | None


def __getattr__(name: str) -> Any:
    """The primitives, elementwise ones above all, are here by their own names; the rest is NumPy's."""
    found = PRIMITIVES[name] if name in PRIMITIVES else getattr(np, name)
    if name in PRIMITIVES:
        globals()[name] = found  # from now on without this detour
    return found


def of_tracers(name: str) -> Any:
    """What does `name` on tracers: a function of this module or a primitive; None if there is neither."""
    return globals().get(name) or PRIMITIVES.get(name)


# Arrays and dtypes.


def asarray(x: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
    if isinstance(x, Traced):
        return x if dtype is None else astype(x, dtype)
    return np.asarray(x, dtype=dtype, copy=copy)


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    return elementwise.astype(x, dtype=np.dtype(dtype))


def zeros_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    return constant(x, np.zeros(x.shape, dtype or x.dtype))


def ones_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    return constant(x, np.ones(x.shape, dtype or x.dtype))


def full_like(x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    return constant(x, np.full(x.shape, fill_value, dtype or x.dtype))


def constant(like: Any, value: Any) -> Any:
    """An array that no input reaches; a tracer if `like` is one, so that other tracers may be written into it."""
    return like.trace.constant(value) if isinstance(like, Traced) else value


def clip(x: Any, /, min: Any = None, max: Any = None) -> Any:
    x = x if min is None else maximum(x, min)
    return x if max is None else minimum(x, max)


# Reductions and scans.


def sum(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    x = x if dtype is None else astype(x, dtype)
    return _as_asked(reductions.sum(x, axis=_axes(x, axis), keepdims=keepdims), dtype)


def max(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return reductions.max(x, axis=_axes(x, axis), keepdims=keepdims)


def min(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return reductions.min(x, axis=_axes(x, axis), keepdims=keepdims)


def all(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return reductions.all(x, axis=_axes(x, axis), keepdims=keepdims)


def any(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return reductions.any(x, axis=_axes(x, axis), keepdims=keepdims)


def argmax(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Any:
    return reductions.argmax(x, axis=axis, keepdims=keepdims)


def argmin(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Any:
    return reductions.argmin(x, axis=axis, keepdims=keepdims)


def prod(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    if isinstance(x, Traced):
        return _prod_by_halving(x, axis, dtype, keepdims)
    return np.prod(x, axis=axis, dtype=dtype, keepdims=keepdims)


def _prod_by_halving(x: Any, axis: Axis, dtype: Any, keepdims: bool) -> Any:
    """No derivative divides by an element: right at zeros, to any order."""
    x = astype(x, dtype or np.prod(np.ones(0, x.dtype)).dtype)  # NumPy widens small integers
    axes = _axes(x, axis)
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


def mean(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return sum(x, axis=axis, keepdims=keepdims) / math.prod(x.shape[i] for i in _axes(x, axis))


def var(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    count = math.prod(x.shape[i] for i in _axes(x, axis))
    apart = x - mean(x, axis=axis, keepdims=True)
    squares = elementwise.real(apart * elementwise.conj(apart)) if apart.dtype.kind == "c" else square(apart)
    return sum(squares, axis=axis, keepdims=keepdims) / (count - correction)


def std(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    return sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


def cumulative_sum(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    x = x if dtype is None else astype(x, dtype)
    axis = _one_axis("cumulative_sum", x, axis)
    total = _as_asked(reductions.cumulative_sum(x, axis=axis), dtype)
    if not include_initial:
        return total
    return concat([np.zeros((*x.shape[:axis], 1, *x.shape[axis + 1 :]), total.dtype), total], axis=axis)


# Shapes, indexing, joining.


def reshape(x: Any, /, shape: Sequence[int], *, copy: bool | None = None) -> Any:
    return shaping.reshape(x, shape=np.broadcast_to(np.int8(0), x.shape).reshape(shape).shape)


def permute_dims(x: Any, /, axes: Sequence[int]) -> Any:
    return shaping.permute_dims(x, axes=tuple(a % len(x.shape) for a in axes))


def broadcast_to(x: Any, /, shape: Sequence[int]) -> Any:
    return shaping.broadcast_to(x, shape=tuple(shape))


def broadcast_arrays(*arrays: Any) -> list[Any]:
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    return [broadcast_to(a, shape) for a in arrays]


def expand_dims(x: Any, /, *, axis: int = 0) -> Any:
    axis = axis % (len(x.shape) + 1)
    return shaping.reshape(x, shape=(*x.shape[:axis], 1, *x.shape[axis:]))


def squeeze(x: Any, /, axis: int | Sequence[int]) -> Any:
    axes = _axes(x, axis)
    wrong = [i for i in axes if x.shape[i] != 1]
    if wrong:
        raise ValueError(f"cannot squeeze axis {wrong[0]} of size {x.shape[wrong[0]]}")
    return shaping.reshape(x, shape=tuple(size for i, size in enumerate(x.shape) if i not in axes))


def flip(x: Any, /, *, axis: Axis = None) -> Any:
    axes = _axes(x, axis)
    key = tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(len(x.shape)))
    return shaping.getitem(x, key=key)


def moveaxis(x: Any, source: int, destination: int, /) -> Any:
    order = [i for i in range(len(x.shape)) if i != source % len(x.shape)]
    order.insert(destination % len(x.shape), source % len(x.shape))
    return permute_dims(x, order)


def getitem(x: Any, key: Any) -> Any:
    """``x[key]``: index arrays are arguments of the primitive, masks count by their values."""
    key, indices = index_of(key)
    return shaping.getitem(x, *indices, key=key)


def index_of(key: Any) -> tuple[Any, list[Any]]:
    """A key with `Slot`s for its index arrays, and those."""
    if type(key) in _BASIC:
        return key, []
    indices: list[Any] = []
    parts = [_index(part, indices) for part in (key if isinstance(key, tuple) else (key,))]
    return tuple(parts) if isinstance(key, tuple) else parts[0], indices


_BASIC = frozenset({int, slice, type(None), type(...)})


def _index(part: Any, indices: list[Any]) -> Any:
    if isinstance(part, slice):
        return slice(*(concrete(x) for x in (part.start, part.stop, part.step)))
    if isinstance(part, Traced):
        # The shape of what a mask selects depends on its values.
        part = concrete(part) if part.dtype.kind == "b" else part  # type: ignore[attr-defined]
    elif isinstance(part, (np.ndarray, list)):
        part = (
            np.array(part) if np.size(part) else np.array(part, dtype=getattr(part, "dtype", int))
        )  # a copy: its owner may change it
    elif isinstance(part, (bool, np.bool_)):
        part = np.asarray(part)
    else:
        return part
    indices.append(part)
    return shaping.Slot(len(indices) - 1)


def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
    axis = _one_axis("take", x, axis)
    return getitem(x, (*(slice(None),) * axis, indices))


def concat(arrays: Sequence[Any], /, *, axis: int | None = 0) -> Any:
    if axis is None:
        return concat([reshape(a, (-1,)) for a in arrays], axis=0)
    return shaping.concat(*arrays, axis=axis % len(arrays[0].shape))


def stack(arrays: Sequence[Any], /, *, axis: int = 0) -> Any:
    return concat([expand_dims(asarray(a), axis=axis) for a in arrays], axis=axis)


# Linear algebra.


def matrix_transpose(x: Any, /) -> Any:
    return linalg.swap_last(x)


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    return sum(elementwise.conj(x1) * x2, axis=axis)


def tensordot(x1: Any, x2: Any, /, *, axes: int | Sequence[Sequence[int]] = 2) -> Any:
    k1, k2 = len(x1.shape), len(x2.shape)
    if isinstance(axes, int):
        axes = (range(k1 - axes, k1), range(axes))
    over1, over2 = [a % k1 for a in axes[0]], [a % k2 for a in axes[1]]
    free1, free2 = [i for i in range(k1) if i not in over1], [i for i in range(k2) if i not in over2]
    shape = (*(x1.shape[i] for i in free1), *(x2.shape[i] for i in free2))
    inner = math.prod(x1.shape[i] for i in over1)
    left = reshape(permute_dims(x1, (*free1, *over1)), (math.prod(x1.shape[i] for i in free1), inner))
    right = reshape(permute_dims(x2, (*over2, *free2)), (inner, math.prod(x2.shape[i] for i in free2)))
    return reshape(linalg.matmul(left, right), shape)


def _as_asked(total: Any, dtype: Any) -> Any:
    """NumPy sums small integers in large ones, unless told otherwise."""
    return total if dtype is None or total.dtype == np.dtype(dtype) else astype(total, dtype)


def _axes(x: Any, axis: Axis) -> tuple[int, ...]:
    count = len(x.shape)
    if axis is None:
        return tuple(range(count))
    return tuple(np.lib.array_utils.normalize_axis_tuple(axis, count))


def _one_axis(name: str, x: Any, axis: int | None) -> int:
    if axis is not None:
        return operator.index(np.lib.array_utils.normalize_axis_index(axis, len(x.shape)))
    if len(x.shape) != 1:
        raise ValueError(f"{name} needs axis=... for an array of {len(x.shape)} dimensions")
    return 0
