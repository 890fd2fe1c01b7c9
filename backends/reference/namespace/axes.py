"""Axes as callers write them, and as the primitives take them: non-negative, and as a tuple where several."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

Axis = int | Sequence[int] | None


def axes_of(x: Any, axis: Axis) -> tuple[int, ...]:
    """All axes for None."""
    count = len(x.shape)
    if axis is None:
        return tuple(range(count))
    if type(axis) is int and -count <= axis < count:
        return (axis % count,)
    return tuple(np.lib.array_utils.normalize_axis_tuple(axis, count))


def one_axis(name: str, x: Any, axis: int | None) -> int:
    """None only for an array of one dimension, as the standard has it."""
    if axis is not None:
        return operator.index(np.lib.array_utils.normalize_axis_index(axis, len(x.shape)))
    if len(x.shape) != 1:
        raise ValueError(f"{name} needs axis=... for an array of {len(x.shape)} dimensions")
    return 0


def count_over(x: Any, axis: Axis) -> int:
    """How many elements a reduction over `axis` takes together."""
    return math.prod(x.shape[i] for i in axes_of(x, axis))


def along(axis: int, part: Any) -> tuple[Any, ...]:
    """The key that applies `part` to one axis, and takes the axes before it whole."""
    return (*(slice(None),) * axis, part)
