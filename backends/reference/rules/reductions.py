"""Reductions and scans. `axis` is always a tuple of non-negative ints here (the namespace normalises it)."""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import Primitive, Spec, defjvp, deflinear, defzero, primitive
from adbridge.backends.reference.rules.shaping import broadcast_to, getitem, reshape


def kept_shape(shape: tuple[int, ...], axis: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with the reduced axes kept at size one."""
    return tuple([1 if i in axis else size for i, size in enumerate(shape)])


def _reduced_spec(x: Any, axis: tuple[int, ...], keepdims: bool) -> Spec:
    kept = tuple(size for i, size in enumerate(x.shape) if i not in axis)
    return Spec(kept_shape(x.shape, axis) if keepdims else kept, x.dtype)


def _spread(y: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """A reduced array, with its axes back at size one: broadcasts against x."""
    return reshape(y, shape=kept_shape(x.shape, axis))


sum = deflinear(
    primitive("sum", lambda x, axis, keepdims: np.add.reduce(x, axis=axis, keepdims=keepdims)),
    _reduced_spec,
    lambda ct, x, axis, keepdims: broadcast_to(_spread(ct, x, axis), shape=x.shape),
)


def _share_of_ties(x: Any, y: Any) -> Any:
    """1 where x is the extremum y, shared evenly among ties along the axes in which y has size one."""
    hit = np.equal(x, y)
    if np.count_nonzero(hit) == y.size and not np.isnan(np.add.reduce(y, axis=None)):
        return hit.astype(x.dtype)  # one to each: no ties
    hit = hit.astype(x.dtype)
    axis = tuple(i for i, size in enumerate(y.shape) if size != x.shape[i])
    ties = np.add.reduce(hit, axis=axis, keepdims=True)
    return np.divide(hit, ties, out=hit)


share_of_ties = defzero(primitive("share_of_ties", _share_of_ties))


def _extremum_rule(t: Any, y: Any, x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Ties share evenly."""
    return sum(t * share_of_ties(x, _spread(y, x, axis)), axis=axis, keepdims=keepdims)


max = defjvp(primitive("max", lambda x, axis, keepdims: np.max(x, axis=axis, keepdims=keepdims)), _extremum_rule)
min = defjvp(primitive("min", lambda x, axis, keepdims: np.min(x, axis=axis, keepdims=keepdims)), _extremum_rule)


def _reverse(x: Any, axis: int) -> Any:
    return getitem(x, key=(*(slice(None),) * axis, slice(None, None, -1)))


cumulative_sum: Primitive = deflinear(
    primitive("cumulative_sum", lambda x, axis: np.cumsum(x, axis=axis)),
    lambda x, axis: Spec(x.shape, x.dtype),
    # Output j sums inputs up to j, so input i feeds the outputs from i on.
    lambda ct, x, axis: _reverse(cumulative_sum(_reverse(ct, axis), axis=axis), axis),
)

all = defzero(primitive("all", lambda x, axis, keepdims: np.all(x, axis=axis, keepdims=keepdims)))
any = defzero(primitive("any", lambda x, axis, keepdims: np.any(x, axis=axis, keepdims=keepdims)))
argmax = defzero(primitive("argmax", lambda x, axis, keepdims: np.argmax(x, axis=axis, keepdims=keepdims)))
argmin = defzero(primitive("argmin", lambda x, axis, keepdims: np.argmin(x, axis=axis, keepdims=keepdims)))
