"""Batch rules: what a primitive does with arrays that are stacked along a first axis that it must not see.

An operand is a `Batch`, or an array (or number) that all its rows share. ``rule(size, *operands, **params)``
returns the stacked result; NotImplemented sends it to the loop over the rows, where a primitive without a rule
goes. Elementwise primitives need none: their operands' ranks are made equal behind the first axis.

The tables go by name, so that a row may stand here for a primitive that another module defines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import PRIMITIVES, Batch, Primitive, Traced, peek, pick
from adbridge.backends.reference.rules import elementwise
from adbridge.backends.reference.rules.linalg import matmul
from adbridge.backends.reference.rules.shaping import (
    Slot,
    broadcast_to,
    concat,
    filled,
    getitem,
    last_writes,
    permute_dims,
    reshape,
    stand_ins,
    taken_shape,
)
from adbridge.errors import NotDifferentiable

BatchRule = Callable[..., Any]


def shape_of(x: Any) -> tuple[int, ...]:
    """() of a Python number."""
    return getattr(x, "shape", ())


def front(x: Any, size: int) -> Any:
    """x with the batch axis; what all rows share is repeated (by a view)."""
    return x.array if isinstance(x, Batch) else broadcast_to(x, shape=(size, *shape_of(x)))


def aligned(operands: Sequence[Any]) -> list[Any]:
    """The operands' arrays, broadcast as their rows would be."""
    rank = max(len(shape_of(x)) for x in operands)
    return [_padded(x, rank) if isinstance(x, Batch) else x for x in operands]


def _padded(x: Batch, rank: int) -> Any:
    shape = x.array.shape
    missing = rank - len(shape) + 1
    return reshape(x.array, shape=(shape[0], *(1,) * missing, *shape[1:])) if missing > 0 else x.array


def _stacked(name: str) -> BatchRule:
    """Elementwise, or on the last axes of stacks of matrices."""
    return lambda size, *args, **params: PRIMITIVES[name](*aligned(args), **params)


def _later(axis: Any) -> Any:
    """The axis, or axes, behind a batch axis."""
    if isinstance(axis, tuple):
        return tuple(map(_later, axis))
    return axis + 1 if axis >= 0 else axis


def _along(name: str) -> BatchRule:
    """Along the parameter `axis` of each operand."""

    def rule(size: int, /, *args: Any, axis: Any, **params: Any) -> Any:
        return PRIMITIVES[name](*(front(x, size) for x in args), axis=_later(axis), **params)

    return rule


def _along_axes(name: str) -> BatchRule:
    return lambda size, x, axes, **params: PRIMITIVES[name](x.array, axes=_later(axes), **params)


def _place_of_extremum(name: str) -> BatchRule:
    def rule(size: int, x: Batch, axis: int | None, keepdims: bool) -> Any:
        if axis is not None:
            return PRIMITIVES[name](x.array, axis=_later(axis), keepdims=keepdims)
        flat = reshape(x.array, shape=(size, math.prod(x.shape)))
        place = PRIMITIVES[name](flat, axis=1, keepdims=False)
        return reshape(place, shape=(size, *(1,) * len(x.shape))) if keepdims else place

    return rule


# Shapes.


def _broadcast_to(size: int, x: Batch, shape: tuple[int, ...]) -> Any:
    return broadcast_to(_padded(x, len(shape)), shape=(size, *shape))


def _permute_dims(size: int, x: Batch, axes: tuple[int, ...]) -> Any:
    return permute_dims(x.array, axes=(0, *_later(tuple(axes))))


# Matrix products. One product with a matrix that all rows share is one product of the whole batch.


def _matmul(size: int, a: Any, b: Any) -> Any:
    if not isinstance(b, Batch) and len(b.shape) <= 2:
        return _times_shared(a.array, b)
    if not isinstance(a, Batch) and len(a.shape) <= 2 and b.shape in ((a.shape[-1],), (a.shape[-1], 1)):
        # A v = v A^T.
        columns = reshape(b.array, shape=(size, a.shape[-1]))
        return reshape(matmul(columns, a.T), shape=(size, *a.shape[:-1], *b.shape[1:]))
    left, right = aligned([_as_matrix(a, 0), _as_matrix(b, 1)])
    y = matmul(left, right)
    kept = y.shape[-2:][len(a.shape) == 1 : 1 if len(b.shape) == 1 else 2]
    return reshape(y, shape=(*y.shape[:-2], *kept))


def _times_shared(a: Any, b: Any) -> Any:
    rows = reshape(a, shape=(math.prod(a.shape[:-1]), a.shape[-1]))
    return reshape(matmul(rows, b), shape=(*a.shape[:-1], *b.shape[1:]))


def _as_matrix(x: Any, column: int) -> Any:
    """A vector as one row, or one column."""
    if len(x.shape) > 1:
        return x
    shape = (*x.shape, 1) if column else (1, *x.shape)
    return Batch(reshape(x.array, shape=(len(x.array), *shape))) if isinstance(x, Batch) else reshape(x, shape=shape)


# Indexing. A slice goes in front of the key; where NumPy moves the axes of separated index arrays to the front,
# the batch axis is moved back there. Where an index array has a batch axis, each row looks itself up: the rows'
# numbers become an index array in front of the key, and with it all index axes are in front.


def parts_of(key: Any) -> tuple[Any, ...]:
    return key if type(key) is tuple else (key,)


def _batch_axis(shape: tuple[int, ...], key: Any, indices: Sequence[Any]) -> int:
    """Where the axis in front of the key ends up. NumPy is asked: on two empty arrays that differ in it alone."""
    if not indices:
        return 0
    whole = (slice(None), slice(None), *parts_of(filled(key, stand_ins(indices))))
    shapes = (np.broadcast_to(np.False_, (0, size, *shape))[whole].shape for size in (2, 3))
    return next(i for i, (two, three) in enumerate(zip(*shapes, strict=True)) if two != three) - 1


def _lifted(size: int, indices: Sequence[Any], key: Any) -> tuple[list[Any], tuple[Any, ...]]:
    """The indices and key with which each row looks itself up."""
    rank = max(len(shape_of(i)) for i in indices)
    rows = np.arange(size).reshape(size, *(1,) * rank)
    lifted = [_padded(i, rank) if isinstance(i, Batch) else i for i in indices]
    return [rows, *lifted], (Slot(0), *(Slot(p.i + 1) if type(p) is Slot else p for p in parts_of(key)))


def _lifted_axes(shape: tuple[int, ...], key: Any, indices: Sequence[Any], rank: int) -> tuple[int, ...]:
    """The axes (batch, index, others) of what was looked up, in the order that they have without lifting."""
    count = max(len(shape_of(i)) for i in indices)
    before = 0 if _batch_axis(shape, key, indices) else _axes_before_indices(shape, parts_of(key))
    others = range(1 + count, rank)
    return (0, *others[:before], *range(1, 1 + count), *others[before:])


def _axes_before_indices(shape: tuple[int, ...], parts: tuple[Any, ...]) -> int:
    count = 0
    for part in parts:
        if part is Ellipsis:
            count += len(shape) - sum(p is not None and p is not Ellipsis for p in parts)
        elif part is None or isinstance(part, slice):
            count += 1
        else:  # with index arrays in the key an int is one, too
            break
    return count


def _batched(indices: Sequence[Any]) -> bool:
    """Whether an index array has a batch axis. Raises NotDifferentiable: a mask has."""
    if any(isinstance(i, Batch) and i.dtype.kind == "b" for i in indices):
        raise data_dependent("the shape of what a boolean mask selects")
    return any(isinstance(i, Batch) for i in indices)


def _masked(indices: Sequence[Any]) -> bool:
    return any(not isinstance(i, Traced) and np.asarray(i).dtype.kind == "b" for i in indices if type(i) is not Batch)


def data_dependent(what: str) -> NotDifferentiable:
    return NotDifferentiable(
        f"{what} depends on the data of a batched array: its rows may differ in it. Data-dependent shapes and branches "
        "under batching need where(mask, x, y) or mask * x in their place, or a loop over the rows"
    )


def _getitem(size: int, x: Any, *indices: Any, key: Any) -> Any:
    if not _batched(indices):
        taken = getitem(x.array, *indices, key=(slice(None), *parts_of(key)))
        return _moved(taken, _batch_axis(x.shape, key, indices), 0)
    if _masked(indices):
        return NotImplemented
    arrays, lifted = _lifted(size, indices, key)
    taken = getitem(front(x, size), *arrays, key=lifted)
    return _permuted(taken, _lifted_axes(x.shape, key, indices, len(taken.shape)))


def _moved(x: Any, source: int, destination: int) -> Any:
    order = [i for i in range(len(x.shape)) if i != source]
    order.insert(destination, source)
    return _permuted(x, tuple(order))


def _permuted(x: Any, axes: tuple[int, ...]) -> Any:
    return x if axes == tuple(range(len(axes))) else permute_dims(x, axes=axes)


def _write(name: str) -> BatchRule:
    """``x[key] = v`` and ``x[key] += v``."""

    def rule(size: int, x: Any, v: Any, *indices: Any, key: Any) -> Any:
        shape, base = shape_of(x), front(x, size)
        if not _batched(indices):
            value = _moved(_spread(v, len(taken_shape(shape, key, indices))), 0, _batch_axis(shape, key, indices))
            return PRIMITIVES[name](base, value, *indices, key=(slice(None), *parts_of(key)))
        if _masked(indices):
            return NotImplemented
        arrays, lifted = _lifted(size, indices, key)
        value = _spread(v, len(taken_shape(shape, key, indices)))
        axes = _lifted_axes(shape, key, indices, len(value.shape))
        value = _permuted(value, tuple(np.argsort(axes).tolist()))
        return PRIMITIVES[name](base, value, *arrays, key=lifted)

    return rule


def _spread(v: Any, rank: int) -> Any:
    """A value to be written, with a batch axis (of 1 where it is shared) and all axes of its place."""
    shape = shape_of(v)
    kept = (1,) * (rank - len(shape)) + shape[max(0, len(shape) - rank) :]  # NumPy drops leading axes of 1
    if isinstance(v, Batch):
        return reshape(v.array, shape=(v.array.shape[0], *kept))
    return reshape(v, shape=(1, *kept))


def _clear_at(size: int, x: Any, *indices: Any, key: Any) -> Any:
    if not _batched(indices):
        return PRIMITIVES["clear_at"](x.array, *indices, key=(slice(None), *parts_of(key)))
    if _masked(indices):
        return NotImplemented
    arrays, lifted = _lifted(size, indices, key)
    return PRIMITIVES["clear_at"](front(x, size), *arrays, key=lifted)


def _last_writes(size: int, *indices: Any, key: Any, shape: tuple[int, ...]) -> Any:
    if _batched(indices) and _masked(indices):
        return NotImplemented
    arrays, lifted = _lifted(size, indices, key)
    taken = last_writes(*arrays, key=lifted, shape=(size, *shape))
    return _permuted(taken, _lifted_axes(shape, key, indices, len(taken.shape)))


def _take(size: int, x: Any, indices: Any, axis: int) -> Any:
    return _getitem(size, x, indices, key=_key_along(axis))


def _add_taken(batch: int, x: Any, indices: Any, /, axis: int, size: int) -> Any:
    if not isinstance(indices, Batch):
        return PRIMITIVES["add_taken"](x.array, indices, axis=axis + 1, size=size)
    shape = (*x.shape[:axis], size, *x.shape[axis + len(indices.shape) :])
    return RULES["add_at"](batch, np.zeros(shape, x.dtype), x, indices, key=_key_along(axis))


def _key_along(axis: int) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, Slot(0))


# Searching: any number of values in one sorted array; as many sorted arrays are searched one by one.


def _searchsorted(size: int, x1: Any, x2: Any, **params: Any) -> Any:
    shared = not isinstance(x1, Batch) and isinstance(x2, Batch)
    return PRIMITIVES["searchsorted"](x1, x2.array, **params) if shared else NotImplemented


RULES: dict[str, BatchRule] = {
    **{
        name: _along(name)
        for name in (
            *("sum", "max", "min", "all", "any", "cumulative_sum", "cumulative_prod", "concat", "argsort"),
            *("take_along_axis", "add_along_axis", "rfft", "irfft", "logsumexp", "softmax", "log_softmax"),
        )
    },
    "share_of_ties": lambda size, x, y: PRIMITIVES["share_of_ties"](front(x, size), front(y, size)),
    **{name: _along_axes(name) for name in ("fft", "ifft")},
    **{name: _place_of_extremum(name) for name in ("argmax", "argmin")},
    **{
        name: _stacked(name)
        for name in (
            *("cholesky", "qr", "eigh", "svd", "pinv", "matrix_rank", "slogdet", "inv", "solve", "det"),
            *("diagonal", "from_diagonal", "cofactor", *(f"cofactor_{k}" for k in range(1, 10))),
        )
    },
    "reshape": lambda size, x, shape: reshape(x.array, shape=(size, *shape)),
    "permute_dims": _permute_dims,
    "broadcast_to": _broadcast_to,
    "matmul": _matmul,
    "getitem": _getitem,
    "add_at": _write("add_at"),
    "set_at": _write("set_at"),
    "clear_at": _clear_at,
    "last_writes": _last_writes,
    "take": _take,
    "add_taken": _add_taken,
    "searchsorted": _searchsorted,
    "pick": lambda size, results, index: pick(results.array, index=index),
}

# Besides those that `primitives.elementwise` made.
ELEMENTWISE: frozenset[str] = frozenset(
    {
        *(x.name for x in vars(elementwise).values() if isinstance(x, Primitive)),
        *("cbrt", "fmod", "nextafter", "bitwise_left_shift", "bitwise_right_shift"),
        *("expit", "logit", "log_expit", "xlogy", "xlog1py", "entr", "sinc"),
        *("erf", "erfc", "erfinv", "erfcinv", "erfcx", "ndtr", "ndtri", "log_ndtr"),
        *("polygamma", "gammaln", "gamma", "betaln", "bessel_j", "bessel_i", "bessel_ie"),
    }
)


def batching_kind(primitive: Primitive) -> str:
    """How the primitive takes a batch: "elementwise", by a "rule", or by a "loop" over its rows."""
    if primitive.name in RULES:
        return "rule"
    return "elementwise" if primitive.partials is not None or primitive.name in ELEMENTWISE else "loop"


def apply(primitive: Primitive, size: int, operands: Sequence[Any], params: dict[str, Any]) -> Any:
    """The stacked result."""
    kind, stacked = batching_kind(primitive), NotImplemented
    if kind == "rule":
        stacked = RULES[primitive.name](size, *operands, **params)
    elif kind == "elementwise":
        stacked = primitive(*aligned(operands), **params)
    return _loop(primitive, size, operands, params) if stacked is NotImplemented else stacked


def _loop(primitive: Primitive, size: int, operands: Sequence[Any], params: dict[str, Any]) -> Any:
    if size == 0:
        return _none_of(_example(primitive, operands, params))
    rows = [
        primitive(*(getitem(x.array, key=i) if isinstance(x, Batch) else x for x in operands), **params)
        for i in range(size)
    ]
    if hasattr(rows[0], "shape"):
        return _stack(rows)
    return tuple(_stack([pick(row, index=i) for row in rows]) for i in range(len(peek(rows[0]))))


def _stack(rows: Sequence[Any]) -> Any:
    return concat(*(reshape(row, shape=(1, *row.shape)) for row in rows), axis=0)


def _example(primitive: Primitive, operands: Sequence[Any], params: dict[str, Any]) -> Any:
    """A result of the shape that a row has, where there is no row."""
    arrays = [
        x if isinstance(x, np.ndarray) or not hasattr(x, "shape") else np.ones(x.shape, x.dtype) for x in operands
    ]
    with np.errstate(all="ignore"):
        return primitive.impl(*arrays, **params)


def _none_of(row: Any) -> Any:
    if isinstance(row, tuple):
        return tuple(map(_none_of, row))
    return np.zeros((0, *row.shape), row.dtype)
