"""Taking elements by integer arrays, and the integer arrays that sorting and searching give.

Indices are an argument, not a parameter: an index that was computed is recorded like any other value.
A sort is `argsort`, then `take_along_axis`: the derivative moves with the elements, and equal elements
are moved as a stable sort moves them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import Primitive, Spec, deflinear, defzero, primitive


def _key(indices: Any, axis: int) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, indices)


def _add_taken(x: Any, indices: Any, axis: int, size: int) -> Any:
    """What several indices took from one place is added up there."""
    before, after = x.shape[:axis], x.shape[axis + np.ndim(indices) :]
    out = np.zeros((*before, size, *after), x.dtype)
    np.add.at(out, _key(indices, axis), x)
    return out


def _add_taken_spec(x: Any, indices: Any, axis: int, size: int) -> Spec:
    return Spec((*x.shape[:axis], size, *x.shape[axis + np.ndim(indices) :]), x.dtype)


take: Primitive = deflinear(
    primitive("take", lambda x, indices, axis: np.take(x, indices, axis=axis)),
    lambda x, indices, axis: Spec((*x.shape[:axis], *np.shape(indices), *x.shape[axis + 1 :]), x.dtype),
    lambda ct, x, indices, axis: add_taken(ct, indices, axis=axis, size=x.shape[axis]),
    None,
)
add_taken: Primitive = deflinear(
    primitive("add_taken", _add_taken),
    _add_taken_spec,
    lambda ct, x, indices, axis, size: take(ct, indices, axis=axis),
    None,
)


def _grid(indices: Any, axis: int) -> tuple[Any, ...]:
    """The key under which ``x[key]`` is ``take_along_axis(x, indices)``."""
    key = list(np.ogrid[tuple(slice(size) for size in indices.shape)])
    key[axis] = indices
    return tuple(key)


def _add_along(x: Any, indices: Any, axis: int, size: int) -> Any:
    out = np.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
    np.add.at(out, _grid(indices, axis), x)
    return out


take_along_axis: Primitive = deflinear(
    primitive("take_along_axis", lambda x, indices, axis: np.take_along_axis(x, indices, axis)),
    lambda x, indices, axis: Spec(indices.shape, x.dtype),
    lambda ct, x, indices, axis: add_along_axis(ct, indices, axis=axis, size=x.shape[axis]),
    None,
)
add_along_axis: Primitive = deflinear(
    primitive("add_along_axis", _add_along),
    lambda x, indices, axis, size: Spec((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype),
    lambda ct, x, indices, axis, size: take_along_axis(ct, indices, axis=axis),
    None,
)


def _argsort(x: Any, axis: int, descending: bool) -> Any:
    """Stable both ways: equal elements keep their order."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    last = x.shape[axis] - 1
    return np.flip(last - np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)


argsort = defzero(primitive("argsort", _argsort))
searchsorted = defzero(
    primitive("searchsorted", lambda x1, x2, side, sorter=None: np.searchsorted(x1, x2, side=side, sorter=sorter))
)
