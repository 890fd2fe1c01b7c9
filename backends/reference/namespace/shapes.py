"""Shapes and joining."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.namespace.axes import Axis, along, axes_of, one_axis
from adbridge.backends.reference.primitives import Traced
from adbridge.backends.reference.rules import shaping, sorting
from adbridge.backends.reference.tracer import concrete


def reshape(x: Any, /, shape: Any, *, copy: bool | None = None) -> Any:
    return shaping.reshape(x, shape=np.broadcast_to(np.int8(0), x.shape).reshape(shape).shape)


def permute_dims(x: Any, /, axes: Sequence[int]) -> Any:
    return shaping.permute_dims(x, axes=tuple(a % len(x.shape) for a in axes))


def matrix_transpose(x: Any, /) -> Any:
    k = len(x.shape)
    if k < 2:
        raise ValueError(f"matrix_transpose needs an array of at least 2 dimensions, got {k}")
    return shaping.permute_dims(x, axes=(*range(k - 2), k - 1, k - 2))


def broadcast_to(x: Any, /, shape: Sequence[int]) -> Any:
    return shaping.broadcast_to(x, shape=tuple(shape))


def broadcast_arrays(*arrays: Any) -> list[Any]:
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    return [broadcast_to(a, shape) for a in arrays]


def expand_dims(x: Any, /, axis: int | Sequence[int] = 0) -> Any:
    count = len(x.shape) + (1 if isinstance(axis, int) else len(axis))
    new = np.lib.array_utils.normalize_axis_tuple(axis, count)
    sizes = iter(x.shape)
    return shaping.reshape(x, shape=tuple(1 if i in new else next(sizes) for i in range(count)))


def squeeze(x: Any, /, axis: int | Sequence[int]) -> Any:
    axes = axes_of(x, axis)
    wrong = [i for i in axes if x.shape[i] != 1]
    if wrong:
        raise ValueError(f"cannot squeeze axis {wrong[0]} of size {x.shape[wrong[0]]}")
    return shaping.reshape(x, shape=tuple(size for i, size in enumerate(x.shape) if i not in axes))


def flip(x: Any, /, *, axis: Axis = None) -> Any:
    axes = axes_of(x, axis)
    key = tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(len(x.shape)))
    return shaping.getitem(x, key=key)


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int], /) -> Any:
    sources, destinations = axes_of(x, source), axes_of(x, destination)
    order = [i for i in range(len(x.shape)) if i not in sources]
    for place, axis in sorted(zip(destinations, sources, strict=True)):
        order.insert(place, axis)
    return permute_dims(x, order)


def roll(x: Any, /, shift: int | Sequence[int], *, axis: Axis = None) -> Any:
    if axis is None:
        return reshape(roll(reshape(x, (-1,)), shift, axis=0), x.shape)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    shifts, axes = np.broadcast_arrays(shift, axes)  # type: ignore[assignment]
    for by, one in zip(np.atleast_1d(shifts).tolist(), np.atleast_1d(axes).tolist(), strict=True):
        x = _rolled(x, by, one_axis("roll", x, one))
    return x


def _rolled(x: Any, by: int, axis: int) -> Any:
    cut = -by % x.shape[axis] if x.shape[axis] else 0
    if cut == 0:
        return x
    parts = (shaping.getitem(x, key=along(axis, part)) for part in (slice(cut, None), slice(0, cut)))
    return shaping.concat(*parts, axis=axis)


def repeat(x: Any, repeats: Any, /, *, axis: int | None = None) -> Any:
    """Repeats, if an array, count by their values."""
    if axis is None:
        return repeat(reshape(x, (-1,)), repeats, axis=0)
    axis = one_axis("repeat", x, axis)
    repeats = np.asarray(concrete(repeats))
    if repeats.size == 1:
        return _each(x, operator.index(repeats.reshape(()).item()), axis)
    return sorting.take(x, np.repeat(np.arange(x.shape[axis]), repeats), axis=axis)


def _each(x: Any, times: int, axis: int) -> Any:
    """Every element along `axis` that many times, as a broadcast: its transpose is a sum, not a scatter."""
    before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    x = shaping.reshape(x, shape=(*before, size, 1, *after))
    x = shaping.broadcast_to(x, shape=(*before, size, times, *after))
    return shaping.reshape(x, shape=(*before, size * times, *after))


def tile(x: Any, repetitions: Sequence[int], /) -> Any:
    count = max(len(repetitions), len(x.shape))
    times = (*(1,) * (count - len(repetitions)), *repetitions)
    sizes = (*(1,) * (count - len(x.shape)), *x.shape)
    x = shaping.reshape(x, shape=tuple(k for size in sizes for k in (1, size)))
    x = shaping.broadcast_to(x, shape=tuple(k for pair in zip(times, sizes, strict=True) for k in pair))
    return shaping.reshape(x, shape=tuple(n * size for n, size in zip(times, sizes, strict=True)))


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


def concat(arrays: Sequence[Any], /, *, axis: int | None = 0) -> Any:
    if axis is None:
        return concat([reshape(a, (-1,)) for a in arrays], axis=0)
    return shaping.concat(*arrays, axis=one_axis("concat", arrays[0], axis))


def stack(arrays: Sequence[Any], /, *, axis: int = 0) -> Any:
    arrays = [a if hasattr(a, "shape") else np.asarray(a) for a in arrays]
    if len({a.shape for a in arrays}) > 1:
        raise ValueError(f"stack needs arrays of one shape, got {', '.join(str(a.shape) for a in arrays)}")
    return concat([expand_dims(a, axis=axis) for a in arrays], axis=axis)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    axis = one_axis("unstack", x, axis)
    return tuple(shaping.getitem(x, key=along(axis, i)) for i in range(x.shape[axis]))
