"""Elementwise functions made of others. The primitives among them are in the namespace by their own names."""

from __future__ import annotations

from typing import Any

from adbridge.backends.reference.namespace.dtypes import astype
from adbridge.backends.reference.rules.elementwise import maximum, minimum


def positive(x: Any, /) -> Any:
    return astype(x, x.dtype)


def clip(x: Any, /, min: Any = None, max: Any = None) -> Any:
    """At a bound the derivative is shared, as at ties of maximum and minimum."""
    x = x if min is None else maximum(x, min)
    return x if max is None else minimum(x, max)
