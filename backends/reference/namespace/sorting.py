"""Taking, searching, sorting and sets.

Results whose shape depends on values (`nonzero`, the `unique_` functions) go by the values at hand: an
index has no derivative, and the values of a set move with the elements that they were first found at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.backends.reference.namespace.axes import one_axis
from adbridge.backends.reference.namespace.shapes import broadcast_to, reshape
from adbridge.backends.reference.primitives import Traced
from adbridge.backends.reference.rules import sorting
from adbridge.backends.reference.tracer import concrete


def _whole(name: str, indices: Any) -> Any:
    """Integers, copied: their owner may change them."""
    if isinstance(indices, Traced):
        kind = indices.dtype.kind  # type: ignore[attr-defined]
    else:
        indices = np.array(indices)
        indices = indices if indices.size else indices.astype(np.int64)
        kind = indices.dtype.kind
    if kind not in "iu":
        raise TypeError(f"{name} takes an array of integers as indices, got {indices.dtype}")
    return indices


def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
    return sorting.take(x, _whole("take", indices), axis=one_axis("take", x, axis))


def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Any:
    axis = one_axis("take_along_axis", x, axis)
    indices = _whole("take_along_axis", indices)
    if len(indices.shape) != len(x.shape):
        raise ValueError(
            f"take_along_axis takes indices of as many dimensions as the array, {len(x.shape)}; got {indices.ndim}"
        )
    one = tuple(1 if i == axis else n for i, n in enumerate(x.shape))
    other = tuple(1 if i == axis else n for i, n in enumerate(indices.shape))
    shape = np.broadcast_shapes(one, other)

    def stretched(array: Any) -> Any:
        wanted = (*shape[:axis], array.shape[axis], *shape[axis + 1 :])
        return array if array.shape == wanted else broadcast_to(array, wanted)

    return sorting.take_along_axis(stretched(x), stretched(indices), axis=axis)


def argsort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """Always stable."""
    return sorting.argsort(x, axis=one_axis("argsort", x, axis), descending=descending)


def sort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """The derivative moves with the elements; equal ones keep their order."""
    axis = one_axis("sort", x, axis)
    return sorting.take_along_axis(x, argsort(x, axis=axis, descending=descending), axis=axis)


def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Any:
    if sorter is not None:
        return sorting.searchsorted(take(x1, sorter, axis=0), x2, side=side)
    return sorting.searchsorted(x1, x2, side=side)


def nonzero(x: Any, /) -> tuple[Any, ...]:
    if not x.shape:
        raise ValueError("nonzero takes an array of at least one dimension, got 0-d")
    return np.nonzero(concrete(x))


def unique_all(x: Any, /) -> Any:
    found = np.unique_all(concrete(x))
    return found._replace(values=_at_first(x, found)) if isinstance(x, Traced) else found


def unique_counts(x: Any, /) -> Any:
    found = np.unique_counts(concrete(x))
    return found._replace(values=unique_values(x))


def unique_inverse(x: Any, /) -> Any:
    found = np.unique_inverse(concrete(x))
    return found._replace(values=unique_values(x))


def unique_values(x: Any, /) -> Any:
    """In ascending order."""
    return _at_first(x, np.unique_all(concrete(x)))


def _at_first(x: Any, found: Any) -> Any:
    return sorting.take(reshape(x, (-1,)), found.indices, axis=0)
