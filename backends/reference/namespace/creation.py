"""Arrays from numbers, shapes and other arrays. What holds no tracer is NumPy's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.namespace.dtypes import astype, in_dtype, result_type
from adbridge.backends.reference.namespace.shapes import broadcast_arrays, broadcast_to, reshape, stack
from adbridge.backends.reference.primitives import Traced
from adbridge.backends.reference.rules.elementwise import where
from adbridge.backends.reference.tracer import concrete


def asarray(x: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
    """Lists may hold tracers: they are stacked."""
    if isinstance(x, Traced):
        return x if dtype is None else astype(x, dtype)
    if isinstance(x, (list, tuple)) and _holds_tracer(x):
        return in_dtype(_stacked(x), dtype)
    return np.asarray(x, dtype=dtype, copy=copy)


def _holds_tracer(x: Any) -> bool:
    return isinstance(x, Traced) or (isinstance(x, (list, tuple)) and any(map(_holds_tracer, x)))


def _stacked(x: Sequence[Any]) -> Any:
    parts = [asarray(part) for part in x]
    dtype = np.result_type(*(part.dtype for part in parts))
    return stack([in_dtype(part, dtype) for part in parts])


def empty_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    return constant(x, np.empty(x.shape, dtype or x.dtype))


def zeros_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    return constant(x, np.zeros(x.shape, dtype or x.dtype))


def ones_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    return constant(x, np.ones(x.shape, dtype or x.dtype))


def full(shape: int | Sequence[int], fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    if isinstance(fill_value, Traced):
        return broadcast_to(in_dtype(fill_value, dtype), (shape,) if isinstance(shape, int) else shape)
    return np.full(shape, fill_value, dtype)


def full_like(x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    filled = full(x.shape, fill_value, dtype=dtype or x.dtype)
    return filled if isinstance(filled, Traced) else constant(x, filled)


def constant(like: Any, value: Any) -> Any:
    """An array that no input reaches; a tracer if `like` is one, so that other tracers may be written into it."""
    return like.trace.constant(value) if isinstance(like, Traced) else value


def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Any:
    """How many there are follows from the values at hand; the elements move with start and step."""
    start, stop = (0, start) if stop is None else (start, stop)
    if not any(isinstance(part, Traced) for part in (start, stop, step)):
        return np.arange(start, stop, step, dtype=dtype)
    like = np.arange(*map(concrete, (start, stop, step)), dtype=dtype or result_type(start, stop, step))
    return in_dtype(start + step * np.arange(len(like)).astype(like.dtype), like.dtype)


def linspace(
    start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
) -> Any:
    if not isinstance(start, Traced) and not isinstance(stop, Traced):
        return np.linspace(start, stop, num, dtype=dtype, endpoint=endpoint)
    like = result_type(start, stop, 1.0)
    start, stop = broadcast_arrays(asarray(start), asarray(stop))
    share = np.arange(num) / max(num - 1 if endpoint else num, 1)
    share = share.reshape(num, *(1,) * len(start.shape)).astype(like.type(0).real.dtype)
    return in_dtype(start * (1 - share) + stop * share, dtype or like)


def meshgrid(*arrays: Any, indexing: str = "xy") -> list[Any]:
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid takes indexing='xy' or 'ij', got {indexing!r}")
    arrays = tuple(map(asarray, arrays))
    places = list(range(len(arrays)))
    if indexing == "xy":
        places[:2] = places[1::-1] if len(arrays) > 1 else places
    sizes = {place: x.size for place, x in zip(places, arrays, strict=True)}
    shape = tuple(sizes[i] for i in range(len(arrays)))
    columns = (
        reshape(x, tuple(x.size if i == place else 1 for i in range(len(arrays))))
        for place, x in zip(places, arrays, strict=True)
    )
    return [broadcast_to(column, shape) for column in columns]


def tril(x: Any, /, *, k: int = 0) -> Any:
    rows, columns = x.shape[-2:]
    return where(np.tri(rows, columns, k, dtype=bool), x, x.dtype.type(0))


def triu(x: Any, /, *, k: int = 0) -> Any:
    rows, columns = x.shape[-2:]
    return where(np.tri(rows, columns, k - 1, dtype=bool), x.dtype.type(0), x)
