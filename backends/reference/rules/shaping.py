"""Operations that move elements: shapes, indexing, joining."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import (
    Primitive,
    Spec,
    Var,
    deflinear,
    deftranspose,
    defzero,
    fit,
    primitive,
)


def _broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    if math.prod(shape) < 1000:  # a small array costs less to fill than a view to make
        out = np.empty(shape, x.dtype)
        out[...] = x
        return out
    return np.broadcast_to(x, shape)


broadcast_to = deflinear(
    primitive("broadcast_to", _broadcast_to),
    lambda x, shape: Spec(shape, x.dtype),
    lambda ct, x, shape: ct,  # the axes are summed back by `unfit`
)
reshape: Primitive = deflinear(
    primitive("reshape", np.reshape),
    lambda x, shape: Spec(shape, x.dtype),
    lambda ct, x, shape: reshape(ct, shape=x.shape),
)
reshape.rebase = lambda base, view, shape: reshape(view, shape=base.shape)
permute_dims: Primitive = deflinear(
    primitive("permute_dims", np.transpose),
    lambda x, axes: Spec(tuple(x.shape[i] for i in axes), x.dtype),
    lambda ct, x, axes: permute_dims(ct, axes=tuple(np.argsort(axes).tolist())),
)
permute_dims.rebase = lambda base, view, axes: permute_dims(view, axes=tuple(np.argsort(axes).tolist()))

# Indexing. Index arrays are arguments: the key has a `Slot` in the place of each. A write is the making of a
# new array, and the transpose of getitem is add_at, into zeros.


class Slot:
    """The place of the i-th index array in a key."""

    __slots__ = ("i",)

    def __init__(self, i: int) -> None:
        self.i = i

    def __repr__(self) -> str:
        return f"i{self.i}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slot) and other.i == self.i

    def __hash__(self) -> int:
        return hash(("slot", self.i))


def filled(key: Any, indices: Sequence[Any]) -> Any:
    """The key with its index arrays."""
    if not indices:
        return key
    if type(key) is tuple:
        return tuple(indices[part.i] if type(part) is Slot else part for part in key)
    return indices[key.i]


def stand_ins(indices: Sequence[Any]) -> list[Any]:
    """Index arrays that give a result of the same shape: of a tracer, whose values nobody may see, zeros."""
    return [np.asarray(i) if isinstance(i, (np.ndarray, np.generic)) else np.zeros(i.shape, np.int64) for i in indices]


def taken_shape(shape: tuple[int, ...], key: Any, indices: Sequence[Any]) -> tuple[int, ...]:
    return np.shape(np.broadcast_to(np.False_, shape)[filled(key, stand_ins(indices))])


def _rebased(base: Any, view: Any, key: Any) -> Any:
    return set_at(base, view, key=key)


getitem = deflinear(
    primitive("getitem", lambda x, *indices, key: x[filled(key, indices)]),
    lambda x, *indices, key: Spec(taken_shape(x.shape, key, indices), x.dtype),
    lambda ct, x, *indices, key: add_at(np.zeros(x.shape, ct.dtype), ct, *indices, key=key),
)
getitem.variadic = True
getitem.rebase = _rebased


def _add_at(x: Any, v: Any, *indices: Any, key: Any, into: Any = None) -> Any:
    """``x[key] += v``, in a copy of x or in place; an element that is indexed twice is added to twice."""
    out = np.array(x) if into is None else into
    if indices:
        np.add.at(out, filled(key, indices), v)
    else:
        out[key] += v
    return out


add_at: Primitive = deftranspose(
    primitive("add_at", _add_at),
    lambda x, v, *indices, key: Spec(x.shape, np.result_type(x.dtype, v.dtype)),
    lambda ct, x, v, *indices, key: ct,
    lambda ct, x, v, *indices, key: getitem(ct, *indices, key=key),
)
add_at.variadic = True


def _add_at_jvp(tangents: Sequence[Any], y: Any, args: Sequence[Any], params: dict[str, Any]) -> Any:
    (tx, tv, *_), (_, v, *indices), key = tangents, args, params["key"]
    if tv is None:
        return None if tx is None else fit(tx, y)
    tv = fit(tv, Spec(np.shape(v), y.dtype))
    return add_at(np.zeros(y.shape, y.dtype) if tx is None else fit(tx, y), tv, *indices, key=key)


add_at.jvp = _add_at_jvp


def _set_at(x: Any, v: Any, *indices: Any, key: Any) -> Any:
    out = np.array(x)
    out[filled(key, indices)] = v
    return out


set_at = primitive("set_at", _set_at)


def _set_at_jvp(tangents: Sequence[Any], y: Any, args: Sequence[Any], params: dict[str, Any]) -> Any:
    (tx, tv, *_), (_, _, *indices), key = tangents, args, params["key"]
    if tx is None and tv is None:
        return None
    total = np.zeros(y.shape, y.dtype) if tx is None else clear_at(tx, *indices, key=key)
    if tv is None:
        return total
    tv = fit(tv, Spec(taken_shape(y.shape, key, indices), y.dtype))
    if indices:  # of two writes to one element the last holds
        tv = tv * last_writes(*indices, key=key, shape=y.shape)
    return add_at(total, tv, *indices, key=key)


set_at.jvp = _set_at_jvp

clear_at: Primitive = deflinear(
    primitive("clear_at", lambda x, *indices, key: _set_at(x, 0, *indices, key=key)),
    lambda x, *indices, key: Spec(x.shape, x.dtype),
    lambda ct, x, *indices, key: clear_at(ct, *indices, key=key),
)
clear_at.variadic = True


def _last_writes(*indices: Any, key: Any, shape: tuple[int, ...]) -> Any:
    """1.0 where a write by this key is the last to its element, else 0.0."""
    key = filled(key, indices)
    writer = np.zeros(shape, np.int64)
    order = np.arange(writer[key].size).reshape(writer[key].shape)
    writer[key] = order
    return (writer[key] == order).astype(np.float64)


last_writes = defzero(primitive("last_writes", _last_writes))


# Joining: linear in all arguments at once.
concat = primitive("concat", lambda *arrays, axis: np.concatenate(arrays, axis=axis))


def _concat_jvp(tangents: Sequence[Any], y: Any, args: Sequence[Any], params: dict[str, Any]) -> Any:
    if all(t is None for t in tangents):
        return None
    parts = [np.zeros(x.shape, x.dtype) if t is None else t for t, x in zip(tangents, args, strict=True)]
    return concat(*parts, **params)


def _concat_spec(*arrays: Any, axis: int) -> Spec:
    total = sum(a.shape[axis] for a in arrays)
    first = arrays[0].shape
    return Spec((*first[:axis], total, *first[axis + 1 :]), np.result_type(*(a.dtype for a in arrays)))


def _concat_transpose(ct: Any, args: Sequence[Any], params: dict[str, Any]) -> list[Any]:
    axis, start, parts = params["axis"], 0, []
    for arg in args:
        stop = start + arg.shape[axis]
        key = (*(slice(None),) * axis, slice(start, stop))
        parts.append(getitem(ct, key=key) if type(arg) is Var else None)
        start = stop
    return parts


concat.jvp, concat.spec, concat.transpose = _concat_jvp, _concat_spec, _concat_transpose
