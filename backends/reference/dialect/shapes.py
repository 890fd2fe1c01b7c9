"""NumPy's functions that shape, join, split and index arrays, by its own signatures."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.namespace.axes import Axis, along, axes_of, one_axis
from adbridge.backends.reference.tracer import concrete


def transpose(a: Any, axes: Any = None) -> Any:
    return xp.permute_dims(a, tuple(reversed(range(len(a.shape)))) if axes is None else axes)


def reshape(a: Any, shape: Any) -> Any:
    return xp.reshape(a, shape)


def ravel(a: Any) -> Any:
    return xp.reshape(a, (-1,))


def squeeze(a: Any, axis: Any = None) -> Any:
    return xp.squeeze(a, tuple(i for i, size in enumerate(a.shape) if size == 1) if axis is None else axis)


def expand_dims(a: Any, axis: Any) -> Any:
    return xp.expand_dims(a, axis=axis)


def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    order = list(range(len(a.shape)))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return xp.permute_dims(a, order)


def rollaxis(a: Any, axis: int, start: int = 0) -> Any:
    axis = one_axis("rollaxis", a, axis)
    start = start + len(a.shape) if start < 0 else start
    return xp.moveaxis(a, axis, start - 1 if axis < start else start)


def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    return xp.moveaxis(a, source, destination)


def broadcast_arrays(*args: Any) -> tuple[Any, ...]:
    return tuple(xp.broadcast_arrays(*map(xp.asarray, args)))


def broadcast_to(array: Any, shape: Any) -> Any:
    return xp.broadcast_to(array, (shape,) if isinstance(shape, int) else shape)


# Joining and splitting.


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    return xp.concat([xp.asarray(a) for a in arrays], axis=axis)


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    return xp.stack([xp.asarray(a) for a in arrays], axis=axis)


def atleast_1d(*arys: Any) -> Any:
    return _each(arys, lambda x: x if x.shape else xp.reshape(x, (1,)))


def atleast_2d(*arys: Any) -> Any:
    return _each(arys, lambda x: xp.reshape(x, (1,) * max(0, 2 - len(x.shape)) + x.shape))


def atleast_3d(*arys: Any) -> Any:
    def raised(x: Any) -> Any:
        shapes = {0: (1, 1, 1), 1: (1, *x.shape, 1), 2: (*x.shape, 1)}
        return xp.reshape(x, shapes.get(len(x.shape), x.shape))

    return _each(arys, raised)


def _each(arrays: Sequence[Any], raised: Callable[[Any], Any]) -> Any:
    out = tuple(raised(xp.asarray(x)) for x in arrays)
    return out[0] if len(out) == 1 else out


def vstack(tup: Sequence[Any]) -> Any:
    return xp.concat([atleast_2d(x) for x in tup], axis=0)


def hstack(tup: Sequence[Any]) -> Any:
    arrays = [atleast_1d(x) for x in tup]
    return xp.concat(arrays, axis=0 if len(arrays[0].shape) == 1 else 1)


def dstack(tup: Sequence[Any]) -> Any:
    return xp.concat([atleast_3d(x) for x in tup], axis=2)


def column_stack(tup: Sequence[Any]) -> Any:
    arrays = [xp.asarray(x) for x in tup]
    return xp.concat([x if len(x.shape) > 1 else xp.reshape(x, (-1, 1)) for x in arrays], axis=1)


def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    return concatenate([arr, values], axis=axis)


def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    axis = one_axis("array_split", ary, axis)
    cuts = indices_or_sections
    if np.ndim(cuts) == 0:
        sizes = [len(part) for part in np.array_split(np.empty(ary.shape[axis], bool), cuts)]
        cuts = np.cumsum(sizes)[:-1]
    bounds = [0, *np.asarray(cuts).tolist(), None]
    return [xp.getitem(ary, along(axis, slice(*pair))) for pair in pairwise(bounds)]


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    if np.ndim(indices_or_sections) == 0 and ary.shape[axis] % indices_or_sections:
        raise ValueError(f"{ary.shape[axis]} elements do not split into {indices_or_sections} equal parts")
    return array_split(ary, indices_or_sections, axis)


# Moving elements.


def flip(m: Any, axis: Axis = None) -> Any:
    return xp.flip(m, axis=axis)


def rot90(m: Any, k: int = 1, axes: Sequence[int] = (0, 1)) -> Any:
    """The plane's quarter turns as flips and a transpose."""
    first, second = axes_of(m, axes)
    match k % 4:
        case 0:
            return m
        case 1:
            return swapaxes(xp.flip(m, axis=second), first, second)
        case 2:
            return xp.flip(m, axis=(first, second))
    return xp.flip(swapaxes(m, first, second), axis=second)


def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    return xp.roll(a, shift, axis=axis)


def repeat(a: Any, repeats: Any, axis: int | None = None) -> Any:
    return xp.repeat(a, repeats, axis=axis)


def tile(A: Any, reps: Any) -> Any:
    return xp.tile(A, (reps,) if isinstance(reps, int) else tuple(map(operator.index, reps)))


def pad(array: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    """Constants; or elements of the array, where NumPy's mode takes them from ("edge", "reflect", "wrap", ...)."""
    for axis, (before, after) in enumerate(np.broadcast_to(pad_width, (len(array.shape), 2)).tolist()):
        if before == after == 0:
            continue
        if mode == "constant":
            array = _framed(array, before, after, axis, constant_values)
        else:
            where_from = np.pad(np.arange(array.shape[axis]), (before, after), mode)  # type: ignore[call-overload]
            array = xp.take(array, where_from, axis=axis)
    return array


def _framed(x: Any, before: int, after: int, axis: int, values: Any) -> Any:
    left, right = np.broadcast_to(values, (len(x.shape), 2))[axis]

    def frame(width: int, value: Any) -> Any:
        return np.full((*x.shape[:axis], width, *x.shape[axis + 1 :]), value, x.dtype)

    return xp.concat([frame(before, left), x, frame(after, right)], axis=axis)


# Indexing.


def take(a: Any, indices: Any, axis: int | None = None) -> Any:
    return xp.take(ravel(a), indices, axis=0) if axis is None else xp.take(a, indices, axis=axis)


def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    if axis is None:
        return xp.take_along_axis(ravel(arr), indices, axis=0)
    return xp.take_along_axis(arr, indices, axis=axis)


def compress(condition: Any, a: Any, axis: int | None = None) -> Any:
    return take(a, np.flatnonzero(concrete(condition)), axis)


def extract(condition: Any, arr: Any) -> Any:
    return compress(ravel(xp.asarray(condition)), arr)


def where(condition: Any, *choices: Any) -> Any:
    """With a condition alone the indices where it holds, by its values."""
    if not choices:
        return xp.nonzero(xp.asarray(condition))
    x, y = choices
    return xp.where(condition, x, y)


def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Any:
    """The first choice whose condition holds."""
    if len(condlist) != len(choicelist):
        raise ValueError(f"select takes as many choices as conditions, {len(condlist)}; got {len(choicelist)}")
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        default = xp.where(condition, choice, default)
    return default


def piecewise(x: Any, condlist: Any, funclist: Sequence[Any], *args: Any, **kw: Any) -> Any:
    """Each function sees only the elements where its condition holds, as in NumPy."""
    masks = [np.asarray(concrete(c), bool) for c in (condlist if isinstance(condlist, (list, tuple)) else [condlist])]
    if len(funclist) == len(masks) + 1:
        masks.append(~np.logical_or.reduce(masks))
    out = np.zeros(x.shape, x.dtype)
    for mask, function in zip(masks, funclist, strict=True):
        if callable(function):
            inside = function(xp.getitem(x, mask), *args, **kw)
            function = _spread(inside, mask)
        out = xp.where(mask, function, out)
    return out


def _spread(x: Any, mask: Any) -> Any:
    """Elements back at the places where `mask` holds; elsewhere anything."""
    if not np.ndim(x) or not mask.any():
        return x if not np.ndim(x) else 0
    return xp.take(x, np.maximum(np.cumsum(mask) - 1, 0).reshape(mask.shape), axis=0)


def diag(v: Any, k: int = 0) -> Any:
    if len(v.shape) == 2:
        return xp.linalg.diagonal(v, offset=k)
    parts = (np.zeros(max(-k, 0), v.dtype), v, np.zeros(max(k, 0), v.dtype))
    column = xp.reshape(xp.concat(parts), (-1, 1))
    return xp.where(np.eye(column.size, k=k, dtype=bool), column, 0)


def tril(m: Any, k: int = 0) -> Any:
    return xp.tril(m, k=k)


def triu(m: Any, k: int = 0) -> Any:
    return xp.triu(m, k=k)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        append, array_split, atleast_1d, atleast_2d, atleast_3d, broadcast_arrays, broadcast_to, column_stack,
        compress, concatenate, diag, dstack, expand_dims, extract, flip, hstack, moveaxis, pad, piecewise,
        ravel, repeat, reshape, roll, rollaxis, rot90, select, split, squeeze, stack, swapaxes, take,
        take_along_axis, tile, transpose, tril, triu, vstack, where,
    )
}  # fmt: skip
FUNCTIONS |= {
    "copy": lambda a: xp.astype(a, a.dtype),
    "dsplit": lambda ary, indices_or_sections: split(ary, indices_or_sections, 2),
    "argwhere": lambda a: np.argwhere(concrete(a)),
    "flatnonzero": lambda a: np.flatnonzero(concrete(a)),
    "fliplr": lambda m: xp.flip(m, axis=1),
    "flipud": lambda m: xp.flip(m, axis=0),
    "hsplit": lambda ary, indices_or_sections: split(ary, indices_or_sections, min(1, len(ary.shape) - 1)),
    "meshgrid": lambda *xi, indexing="xy": tuple(xp.meshgrid(*xi, indexing=indexing)),
    "ndim": lambda a: len(a.shape),
    "shape": lambda a: a.shape,
    "size": lambda a, axis=None: a.size if axis is None else a.shape[axis],
    "vsplit": lambda ary, indices_or_sections: split(ary, indices_or_sections, 0),
}
