"""Right rules of rearrangements and scans."""

from __future__ import annotations

from typing import Any

import numpy as np

from .rule import Array, Rule, draw, linear, space

ORDER = np.array([2, 0, 3, 1])


def taken(x: Array, order: Any) -> Array:
    xp = space(x)
    return xp.take(x, xp.asarray(order), axis=0)


def _sort_jvp(p: tuple[Array], t: tuple[Array]) -> tuple[Array, Array]:
    xp = space(*p)
    order = xp.argsort(p[0])
    return xp.sort(p[0]), xp.take(t[0], order, axis=0)


def _sort_bwd(x: Array, ct: Array) -> tuple[Array]:
    xp = space(x)
    return (xp.take(ct, xp.argsort(xp.argsort(x)), axis=0),)


SORT = Rule("sort", lambda x: space(x).sort(x), (draw(41, 6),), _sort_jvp, lambda x: (space(x).sort(x), x), _sort_bwd)
TRANSPOSE = linear(
    "transpose",
    lambda x: space(x).permute_dims(x, (2, 0, 1)),
    lambda ct: space(ct).permute_dims(ct, (1, 2, 0)),
    draw(42, 2, 2, 2),
)
PERMUTATION = linear("permutation", lambda x: taken(x, ORDER), lambda ct: taken(ct, np.argsort(ORDER)), draw(43, 4))
REVERSAL = linear("reversal", lambda x: space(x).flip(x), lambda ct: space(ct).flip(ct), draw(44, 5))


def cumsum(x: Array) -> Array:
    return space(x).cumulative_sum(x, axis=0)


def cumsum_from_the_end(ct: Array) -> Array:
    xp = space(ct)
    return xp.flip(cumsum(xp.flip(ct)))


CUMSUM = linear("cumsum", cumsum, cumsum_from_the_end, draw(45, 5))


def cumprod(x: Array) -> Array:
    return space(x).exp(cumsum(space(x).log(x)))


CUMPROD = Rule(
    "cumprod",
    cumprod,
    (draw(46, 4, low=0.5, high=2.0),),
    jvp=lambda p, t: (cumprod(*p), cumprod(*p) * cumsum(t[0] / p[0])),
    fwd=lambda x: (cumprod(x), x),
    bwd=lambda x, ct: (cumsum_from_the_end(ct * cumprod(x)) / x,),
    domain=((0.1, 10.0),),
)


def one_hot(xp: Any, indices: Array, length: int, dtype: Any) -> Array:
    """(indices, length): one where the index is."""
    hit = indices[:, None] == xp.arange(length)[None, :]
    return xp.astype(hit, dtype)


def _gather(x: Array, indices: Array) -> Array:
    return space(x, indices).take(x, indices, axis=0)


GATHER = Rule(
    "gather",
    _gather,
    (draw(47, 5), np.array([3, 0, 3, 4])),
    jvp=lambda p, t: (_gather(*p), _gather(t[0], p[1])),
    fwd=lambda x, indices: (_gather(x, indices), (x, indices)),
    bwd=lambda r, ct: (ct @ one_hot(space(ct, r[1]), r[1], r[0].shape[0], ct.dtype), None),
)

ARRANGEMENTS = (SORT, TRANSPOSE, PERMUTATION, REVERSAL, CUMSUM, CUMPROD, GATHER)
