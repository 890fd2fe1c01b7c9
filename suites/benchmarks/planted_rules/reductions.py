"""Right rules of reductions."""

from __future__ import annotations

from .elementwise import POSITIVE, indicator
from .rule import Array, Rule, array, draw, linear, space

SUM = linear("sum", lambda x: space(x).sum(x, axis=0), lambda ct: space(ct).broadcast_to(ct, (3, 4)), draw(11, 3, 4))
MEAN = linear("mean", lambda x: space(x).mean(x), lambda ct: space(ct).broadcast_to(ct, (3, 4)) / 12, draw(12, 3, 4))


def logsumexp(x: Array) -> Array:
    xp = space(x)
    top = xp.max(x)
    return top + xp.log(xp.sum(xp.exp(x - top)))


def softmax(x: Array) -> Array:
    """Over the last axis."""
    xp = space(x)
    e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


LOGSUMEXP = Rule(
    "logsumexp",
    logsumexp,
    (array(-1.0, 0.5, 2.0, 1.1),),
    jvp=lambda p, t: (logsumexp(*p), space(*p).sum(softmax(*p) * t[0])),
    fwd=lambda x: (logsumexp(x), x),
    bwd=lambda x, ct: (ct * softmax(x),),
)


def norm(x: Array) -> Array:
    xp = space(x)
    return xp.sqrt(xp.sum(x * x))


NORM = Rule(
    "norm",
    norm,
    (array(0.6, -1.2, 2.0),),
    jvp=lambda p, t: (norm(*p), space(*p).sum(p[0] * t[0]) / norm(*p)),
    fwd=lambda x: (norm(x), x),
    bwd=lambda x, ct: (ct * x / norm(x),),
)


def variance(x: Array) -> Array:
    xp = space(x)
    return xp.mean((x - xp.mean(x)) ** 2)


VARIANCE = Rule(
    "variance",
    variance,
    (array(0.3, -1.1, 2.2, 0.9),),
    fwd=lambda x: (variance(x), x),
    bwd=lambda x, ct: (ct * 2 * (x - space(x).mean(x)) / x.shape[0],),
)


def _share_of_max(x: Array) -> Array:
    """One at the largest element; ties share."""
    xp = space(x)
    top = indicator(xp, x == xp.max(x), x)
    return top / xp.sum(top)


MAX = Rule(
    "max",
    lambda x: space(x).max(x),
    (array(0.3, 2.0, -1.0, 1.4),),
    jvp=lambda p, t: (space(*p).max(*p), space(*p).sum(_share_of_max(*p) * t[0])),
    fwd=lambda x: (space(x).max(x), x),
    bwd=lambda x, ct: (ct * _share_of_max(x),),
)


def product(x: Array) -> Array:
    return space(x).prod(x)


PROD = Rule(
    "prod",
    product,
    (array(0.5, 1.5, 2.0),),
    jvp=lambda p, t: (product(*p), product(*p) * space(*p).sum(t[0] / p[0])),
    fwd=lambda x: (product(x), x),
    bwd=lambda x, ct: (ct * product(x) / x,),
    domain=(POSITIVE,),
)
ENTROPY = Rule(
    "entropy",
    lambda p: -space(p).sum(p * space(p).log(p)),
    (array(0.2, 0.5, 0.3),),
    fwd=lambda p: (-space(p).sum(p * space(p).log(p)), p),
    bwd=lambda p, ct: (-ct * (space(p).log(p) + 1),),
    domain=(POSITIVE,),
)

REDUCTIONS = (SUM, MEAN, LOGSUMEXP, NORM, VARIANCE, MAX, PROD, ENTROPY)
