"""Operations that move elements: shapes, indexing, joining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import (
    Primitive,
    Spec,
    Var,
    deflinear,
    primitive,
)

broadcast_to = deflinear(
    primitive("broadcast_to", lambda x, shape: np.broadcast_to(x, shape)),
    lambda x, shape: Spec(shape, x.dtype),
    lambda ct, x, shape: ct,  # the axes are summed back by `unfit`
)
reshape: Primitive = deflinear(
    primitive("reshape", lambda x, shape: np.reshape(x, shape)),
    lambda x, shape: Spec(shape, x.dtype),
    lambda ct, x, shape: reshape(ct, shape=x.shape),
)
permute_dims: Primitive = deflinear(
    primitive("permute_dims", lambda x, axes: np.transpose(x, axes)),
    lambda x, axes: Spec(tuple(x.shape[i] for i in axes), x.dtype),
    lambda ct, x, axes: permute_dims(ct, axes=tuple(np.argsort(axes).tolist())),
)

# Indexing and its transpose: scatter(x, key, shape) adds x into zeros of that shape at key.
getitem = deflinear(
    primitive("getitem", lambda x, key: x[key]),
    lambda x, key: Spec(np.empty(x.shape, np.bool_)[key].shape, x.dtype),
    lambda ct, x, key: scatter(ct, key=key, shape=x.shape),
)


def _scatter(x: Any, key: Any, shape: tuple[int, ...]) -> Any:
    out = np.zeros(shape, x.dtype)
    if is_basic(key):
        out[key] = x
    else:
        np.add.at(out, key, x)  # an index that occurs twice is added twice
    return out


scatter: Primitive = deflinear(
    primitive("scatter", _scatter),
    lambda x, key, shape: Spec(shape, x.dtype),
    lambda ct, x, key, shape: getitem(ct, key=key),
)


def is_basic(key: Any) -> bool:
    """Whether NumPy indexes without arrays: no element can occur twice."""
    parts = key if isinstance(key, tuple) else (key,)
    return all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts)


# Joining: linear in all arguments at once.
concat = primitive("concat", lambda *arrays, axis: np.concatenate(arrays, axis=axis))


def _concat_jvp(tangents: Sequence[Any], y: Any, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
    if all(t is None for t in tangents):
        return None
    parts = [np.zeros(x.shape, x.dtype) if t is None else t for t, x in zip(tangents, args, strict=True)]
    return concat(*parts, **params)


def _concat_spec(*arrays: Any, axis: int) -> Spec:
    total = sum(a.shape[axis] for a in arrays)
    first = arrays[0].shape
    return Spec((*first[:axis], total, *first[axis + 1 :]), np.result_type(*(a.dtype for a in arrays)))


def _concat_transpose(ct: Any, args: tuple[Any, ...], params: dict[str, Any]) -> list[Any]:
    axis, start, parts = params["axis"], 0, []
    for arg in args:
        stop = start + arg.shape[axis]
        key = (*(slice(None),) * axis, slice(start, stop))
        parts.append(getitem(ct, key=key) if type(arg) is Var else None)
        start = stop
    return parts


concat.jvp, concat.spec, concat.transpose = _concat_jvp, _concat_spec, _concat_transpose
