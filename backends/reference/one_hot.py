"""One-hot batches: rows of the identity matrix, and what linear operations make of them, without the zeros.

The seeds of a Jacobian are such a batch. A step that maps it to another one costs as much as the same step on
one array; the first that does not maps rows of numbers, and is where the Jacobian's matrix appears. A product
with a matrix is a gathering and scaling of its columns.

Zeros are not multiplied: where a coefficient is infinite, the product with them is 0 and not NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from adbridge.backends.reference.primitives import NUMBERS, PRIMITIVES, Batch, Traced, elementwise_spec
from adbridge.backends.reference.rules.elementwise import where
from adbridge.backends.reference.rules.shaping import Slot, broadcast_to, filled, getitem, reshape, set_at, taken_shape

Places = slice | npt.NDArray[np.int64]


class OneHot:
    """`size` arrays of one shape: the i-th is zero but for ``scale[i]`` at the flat index ``places[i]``.

    `scale` may be one number for all of them; `places` is a slice where they are consecutive. A shape has more
    than one element.
    """

    __slots__ = ("dtype", "places", "scale", "shape", "size")

    def __init__(self, size: int, shape: tuple[int, ...], dtype: Any, places: Places, scale: Any) -> None:
        self.size = size
        self.shape = shape
        self.dtype = dtype
        self.places = places
        self.scale = scale

    def __repr__(self) -> str:
        return f"OneHot({self.size} x {self.dtype}{list(self.shape)}, places={self.places}, scale={self.scale!r})"

    def like(self, scale: Any, dtype: Any = None) -> OneHot:
        return OneHot(self.size, self.shape, dtype or self.dtype, self.places, scale)

    def indices(self) -> npt.NDArray[np.int64]:
        """The places as an array."""
        return np.arange(self.places.start, self.places.stop) if isinstance(self.places, slice) else self.places

    def part(self, rows: slice) -> OneHot:
        """Some of the rows."""
        size = len(range(self.size)[rows])
        places: Places = self.indices()[rows]
        if isinstance(self.places, slice):
            first = self.places.start + rows.start
            places = slice(first, first + size)
        scale = self.scale if type(self.scale) in NUMBERS else getitem(self.scale, key=rows)
        return OneHot(size, self.shape, self.dtype, places, scale)

    def scales(self) -> Any:
        """The scale as an array."""
        if type(self.scale) in NUMBERS:
            return np.full(self.size, self.scale, self.dtype)
        return self.scale if self.scale.dtype == self.dtype else PRIMITIVES["astype"](self.scale, dtype=self.dtype)


def one_hot(places: npt.NDArray[np.int64], shape: tuple[int, ...], dtype: Any) -> Any:
    """Rows of the identity, zero where a place is out of range: a OneHot, or an array if there is little to save."""
    size, count = math.prod(shape), len(places)
    inside = (places >= 0) & (places < size)
    if size < 2:
        return np.repeat(inside, size).astype(dtype).reshape(count, *shape)
    if not inside.all():
        return OneHot(count, shape, dtype, np.where(inside, places, 0), inside.astype(dtype))
    if count and np.all(np.diff(places) == 1):
        return OneHot(count, shape, dtype, slice(int(places[0]), int(places[-1]) + 1), 1)
    return OneHot(count, shape, dtype, places, 1)


def dense(x: OneHot) -> Any:
    """The array that it stands for, with its batch axis."""
    flat: Any = np.zeros((x.size, math.prod(x.shape)), x.dtype)
    if isinstance(x.scale, Traced):
        flat = set_at(flat, x.scales(), np.arange(x.size), x.indices(), key=(Slot(0), Slot(1)))
        return reshape(flat, shape=(x.size, *x.shape))
    flat[np.arange(x.size), x.indices()] = x.scale
    return flat.reshape(x.size, *x.shape)


def apply(name: str, operands: list[Any], params: dict[str, Any]) -> Any:
    """A OneHot, or the stacked result; None where it takes the dense batch."""
    rule = RULES.get(name)
    if rule is None or any(isinstance(x, Batch) for x in operands):
        return None
    return rule(*operands, **params)


def _rows(matrix: Any, places: Places) -> Any:
    """Its rows at these places."""
    if isinstance(places, slice):
        return matrix if places == slice(0, matrix.shape[0]) else getitem(matrix, key=places)
    return getitem(matrix, places, key=Slot(0))


def _elements(c: Any, x: OneHot) -> Any:
    """The elements of an array that are at x's places, or None if it broadcasts x. A number stays one."""
    if type(c) in NUMBERS:
        return c
    shape = c.shape
    if shape == ():
        return broadcast_to(c, shape=(x.size,))
    if shape != x.shape:
        if np.broadcast_shapes(shape, x.shape) != x.shape:
            return None
        c = broadcast_to(c, shape=x.shape)
    return _rows(reshape(c, shape=(math.prod(x.shape),)), x.places)


def _is_one(scale: Any) -> bool:
    return type(scale) is int and scale == 1


def _scaled(x: OneHot, c: Any) -> Any:
    factor = _elements(c, x)
    if factor is None:
        return None
    dtype = elementwise_spec(x, c).dtype
    return x.like(factor if _is_one(x.scale) else x.scale * factor, dtype)


def _multiply(a: Any, b: Any) -> Any:
    if isinstance(a, OneHot):
        return None if isinstance(b, OneHot) else _scaled(a, b)
    return _scaled(b, a)


def _divide(a: Any, b: Any) -> Any:
    divisor = None if isinstance(b, OneHot) else _elements(b, a)
    return None if divisor is None else a.like(a.scale / divisor, elementwise_spec(a, b).dtype)


def _total(sign: int) -> Callable[[Any, Any], Any]:
    def rule(a: Any, b: Any) -> Any:
        if not (isinstance(a, OneHot) and isinstance(b, OneHot) and a.shape == b.shape and _same_places(a, b)):
            return None
        return a.like(a.scale + sign * b.scale, np.result_type(a.dtype, b.dtype))

    return rule


def _same_places(a: OneHot, b: OneHot) -> bool:
    return a.places is b.places or bool(np.array_equal(a.indices(), b.indices()))


def _astype(x: OneHot, dtype: Any) -> Any:
    if np.dtype(dtype).kind not in "fc":
        return None
    return x.like(x.scale if type(x.scale) in NUMBERS else PRIMITIVES["astype"](x.scale, dtype=dtype), np.dtype(dtype))


def _part(name: str) -> Callable[[OneHot], Any]:
    """The real or imaginary part, the conjugate."""

    def rule(x: OneHot) -> Any:
        scale = PRIMITIVES[name](x.scales())
        return x.like(scale, scale.dtype)

    return rule


def _where(c: Any, a: Any, b: Any) -> Any:
    """One branch is the batch, the other is zero."""
    x, other = (a, b) if isinstance(a, OneHot) else (b, a)
    if isinstance(c, OneHot) or type(other) not in NUMBERS or other != 0:
        return None
    mask = _elements(c, x)
    if mask is None:
        return None
    return x.like(where(mask, x.scales(), 0.0) if x is a else where(mask, 0.0, x.scales()))


# The elements move.


def _at(x: OneHot, shape: tuple[int, ...], places: Places, scale: Any) -> Any:
    """The batch with its elements elsewhere; dense if the new shape has but one."""
    if math.prod(shape) > 1:
        return OneHot(x.size, shape, x.dtype, places, scale)
    return reshape(x.like(scale).scales(), shape=(x.size, *shape))


def _reshape(x: OneHot, shape: tuple[int, ...]) -> Any:
    return OneHot(x.size, shape, x.dtype, x.places, x.scale)


def _broadcast_to(x: OneHot, shape: tuple[int, ...]) -> Any:
    return _reshape(x, shape) if math.prod(shape) == math.prod(x.shape) else None


def _permute_dims(x: OneHot, axes: tuple[int, ...]) -> Any:
    shape = tuple(x.shape[i] for i in axes)
    where_to = np.unravel_index(x.indices(), x.shape)
    return OneHot(x.size, shape, x.dtype, np.ravel_multi_index([where_to[i] for i in axes], shape), x.scale)


def _sum(x: OneHot, axis: tuple[int, ...], keepdims: bool) -> Any:
    place = np.unravel_index(x.indices(), x.shape)
    left = [i for i in range(len(x.shape)) if i not in axis]
    sizes = tuple(x.shape[i] for i in left)
    shape = tuple(1 if i in axis else size for i, size in enumerate(x.shape)) if keepdims else sizes
    return _at(x, shape, np.ravel_multi_index([place[i] for i in left], sizes) if left else np.zeros(0, int), x.scale)


def _numbered(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    return np.arange(math.prod(shape)).reshape(shape)


def _getitem(x: Any, *indices: Any, key: Any) -> Any:
    """Of a part without repetitions; a row whose element is not in it is zero."""
    if indices:
        return None
    taken = _numbered(x.shape)[key]
    if taken.size == 0:
        return None
    place_of = np.full(math.prod(x.shape), -1)
    place_of[taken.reshape(-1)] = np.arange(taken.size)
    places = place_of[x.indices()]
    missing = places < 0
    if not missing.any():
        return _at(x, taken.shape, places, x.scale)
    return _at(x, taken.shape, np.where(missing, 0, places), x.scales() * (~missing).astype(x.dtype))


def _add_at(x: Any, v: Any, *indices: Any, key: Any) -> Any:
    """Into zeros."""
    if type(x) is not np.ndarray or np.any(x) or any(isinstance(i, Traced) for i in indices):
        return None
    if v.shape != taken_shape(x.shape, key, indices) or v.dtype != x.dtype:
        return None
    taken = _numbered(x.shape)[filled(key, indices)]
    return _at(v, x.shape, taken.reshape(-1)[v.indices()], v.scale)


def _add_taken(x: Any, indices: Any, axis: int, size: int) -> Any:
    if not isinstance(x, OneHot) or isinstance(indices, OneHot):
        return None
    shape = (*x.shape[:axis], size, *x.shape[axis + len(indices.shape) :])
    return _add_at(np.zeros(shape, x.dtype), x, indices, key=(*(slice(None),) * axis, Slot(0)))


# The product with a matrix: each row of the batch is one column (or row) of the matrix, scaled, in a place that
# was one-hot too.


def _matmul(a: Any, b: Any) -> Any:
    x, matrix = (a, b) if isinstance(a, OneHot) else (b, a)
    if isinstance(matrix, OneHot) or len(x.shape) > 2 or len(matrix.shape) != 2:
        return None
    dtype = np.result_type(x.dtype, matrix.dtype)
    key: tuple[Any, ...]
    if x is a:
        inner, outer = _split(x, len(a.shape) - 1)
        lines, key = _lines(matrix, inner, x, dtype), (Slot(0), Slot(1), slice(None))
        shape = (x.size, *a.shape[:-1], matrix.shape[1])
    else:
        inner, outer = _split(x, 0)
        lines, key = _lines(matrix.T, inner, x, dtype), (Slot(0), slice(None), Slot(1))
        shape = (x.size, matrix.shape[0], *b.shape[1:])
    if outer is None:
        return reshape(lines, shape=shape)
    return set_at(np.zeros(shape, dtype), lines, np.arange(x.size), outer, key=key)


def _split(x: OneHot, axis: int) -> tuple[Places, Any]:
    """The places along an axis, and along the other one: None if that has but one."""
    if math.prod(x.shape) == x.shape[axis]:
        return x.places, None
    place = np.unravel_index(x.indices(), x.shape)
    return place[axis], place[1 - axis]


def _lines(matrix: Any, places: Places, x: OneHot, dtype: Any) -> Any:
    lines = _rows(matrix, places)
    if not _is_one(x.scale):
        lines = lines * (x.scale if type(x.scale) in NUMBERS else reshape(x.scale, shape=(x.size, 1)))
    return lines if lines.dtype == dtype else PRIMITIVES["astype"](lines, dtype=dtype)


RULES: dict[str, Callable[..., Any]] = {
    "multiply": _multiply,
    "divide": _divide,
    "add": _total(1),
    "subtract": _total(-1),
    "negative": lambda x: x.like(-x.scale),
    "astype": _astype,
    **{name: _part(name) for name in ("real", "imag", "conj")},
    "where": _where,
    "reshape": _reshape,
    "broadcast_to": _broadcast_to,
    "permute_dims": _permute_dims,
    "sum": _sum,
    "getitem": _getitem,
    "add_at": _add_at,
    "add_taken": _add_taken,
    "matmul": _matmul,
}
