"""Values as Python source that gives the very same values, to the last bit."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from adbridge.errors import CapabilityError

LONG = 1000
"""Arrays from this size on are written in base64."""


def literal(x: Any) -> str:
    """A Python value as source."""
    if isinstance(x, (bool, type(None), str, bytes)):
        return repr(x)
    if isinstance(x, (int, float, complex)):
        return number_literal(x)
    if isinstance(x, (tuple, list)):
        words = ", ".join(map(literal, x))
        return f"[{words}]" if isinstance(x, list) else f"({words}{',' * (len(x) == 1)})"
    if isinstance(x, slice):
        return f"slice({literal(x.start)}, {literal(x.stop)}, {literal(x.step)})"
    if isinstance(x, np.dtype) or (isinstance(x, type) and issubclass(x, np.generic)):
        return dtype_literal(np.dtype(x))
    if isinstance(x, np.generic):
        return f"{dtype_literal(x.dtype)}({number_literal(x.item())})"
    if x is ...:
        return "..."
    raise CapabilityError(f"to_python cannot write {x!r}; keep it out of the traced function")


def number_literal(x: Any) -> str:
    """A number as source: as `repr`, but for what that cannot write."""
    if isinstance(x, complex):
        return f"complex({number_literal(x.real)}, {number_literal(x.imag)})"
    if isinstance(x, float) and not np.isfinite(x):
        return "np.nan" if x != x else "np.inf" if x > 0 else "-np.inf"
    return repr(x)


def dtype_literal(dtype: Any) -> str:
    return f"np.{np.dtype(dtype).name}"


def array_literal(x: Any) -> str:
    """An array as source, in the same order in memory: sums depend on it."""
    order = sorted(range(x.ndim), key=lambda i: -abs(x.strides[i])) if x.size else list(range(x.ndim))
    if order != list(range(x.ndim)) and not x.flags.c_contiguous:
        back = tuple(int(i) for i in np.argsort(order))
        return f"{array_literal(np.ascontiguousarray(x.transpose(order)))}.transpose({back})"
    dtype, flat = dtype_literal(x.dtype), x.ravel()
    suffix = "" if x.dtype in (np.float64, np.bool) else f", {dtype}"
    if x.size > 4 or not x.size:
        if not np.any(flat.view(np.uint8) if x.flags.c_contiguous else flat.copy().view(np.uint8)):
            return f"np.zeros({x.shape}, {dtype})"
        if np.all(flat == flat[0]):
            return f"np.full({x.shape}, {number_literal(flat[0].item())}, {dtype})"
    if x.size >= LONG:
        data = base64.b64encode(np.ascontiguousarray(x).tobytes()).decode()
        return f"np.frombuffer(base64.b64decode({data!r}), {dtype}).reshape({x.shape})"
    return f"np.array({_nested(x.tolist())}{suffix})"


def _nested(x: Any) -> str:
    return f"[{', '.join(map(_nested, x))}]" if isinstance(x, list) else number_literal(x)


def key_literal(key: Any, indices: Sequence[str]) -> str:
    """An index as a value."""
    if isinstance(key, tuple):
        words = ", ".join(key_literal(part, indices) for part in key)
        return f"({words}{',' * (len(key) == 1)})"
    slot = getattr(key, "i", None)
    return indices[slot] if isinstance(slot, int) else literal(key)


def subscript(key: Any, indices: Sequence[str]) -> str:
    """An index between brackets."""
    if isinstance(key, tuple):
        return ", ".join(subscript(part, indices) for part in key) + "," * (len(key) == 1) if key else "()"
    if isinstance(key, slice):
        start, stop, step = ("" if x is None else str(x) for x in (key.start, key.stop, key.step))
        return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"
    return key_literal(key, indices)
