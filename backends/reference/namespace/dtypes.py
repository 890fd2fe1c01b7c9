"""Dtypes: of tracers as of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import Traced
from adbridge.backends.reference.rules import elementwise


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    return elementwise.astype(x, dtype=np.dtype(dtype))


def result_type(*arrays_and_dtypes: Any) -> Any:
    return np.result_type(*map(_untraced, arrays_and_dtypes))


def can_cast(from_: Any, to: Any, /) -> bool:
    return np.can_cast(_dtype_of(from_), _dtype_of(to))


def finfo(type: Any, /) -> Any:
    return np.finfo(_dtype_of(type))


def iinfo(type: Any, /) -> Any:
    return np.iinfo(_dtype_of(type))


def isdtype(dtype: Any, kind: Any) -> bool:
    return np.isdtype(_dtype_of(dtype), kind)


def __array_namespace_info__() -> Any:
    """NumPy's: the devices, dtypes and capabilities are the same."""
    return np.__array_namespace_info__()  # type: ignore[attr-defined, unused-ignore]


def in_dtype(x: Any, dtype: Any) -> Any:
    """`x` cast to `dtype`, unless it is None or already so."""
    return x if dtype is None or x.dtype == np.dtype(dtype) else astype(x, dtype)


def as_float(x: Any) -> Any:
    """Integers and booleans as float64, like NumPy's true division."""
    return x if x.dtype.kind in "fc" else astype(x, np.float64)


def _untraced(x: Any) -> Any:
    return x.dtype if isinstance(x, Traced) else x  # type: ignore[attr-defined]


def _dtype_of(x: Any) -> Any:
    return x.dtype if hasattr(x, "shape") and hasattr(x, "dtype") and not isinstance(x, type) else x
