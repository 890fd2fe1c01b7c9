"""The products of the main namespace; `linalg` has the rest of linear algebra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from adbridge.backends.reference.namespace.reductions import sum
from adbridge.backends.reference.namespace.shapes import moveaxis, permute_dims, reshape
from adbridge.backends.reference.rules import elementwise, linalg


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    if axis != -1:
        x1, x2 = moveaxis(x1, axis, -1), moveaxis(x2, axis, -1)  # axis counts before broadcasting
    return sum(elementwise.conj(x1) * x2, axis=-1)


def tensordot(x1: Any, x2: Any, /, *, axes: int | Sequence[Any] = 2) -> Any:
    k1, k2 = len(x1.shape), len(x2.shape)
    if isinstance(axes, int):
        axes = (range(k1 - axes, k1), range(axes))
    over1, over2 = ([a % k for a in _listed(part)] for part, k in zip(axes, (k1, k2), strict=True))
    free1, free2 = [i for i in range(k1) if i not in over1], [i for i in range(k2) if i not in over2]
    shape = (*(x1.shape[i] for i in free1), *(x2.shape[i] for i in free2))
    inner = math.prod(x1.shape[i] for i in over1)
    left = reshape(permute_dims(x1, (*free1, *over1)), (math.prod(x1.shape[i] for i in free1), inner))
    right = reshape(permute_dims(x2, (*over2, *free2)), (inner, math.prod(x2.shape[i] for i in free2)))
    return reshape(linalg.matmul(left, right), shape)


def _listed(axes: Any) -> Sequence[int]:
    return (axes,) if isinstance(axes, int) else axes
