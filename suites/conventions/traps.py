"""NaN traps and infinite slopes: the derivative is clear, and 0 times infinity stands in the chain rule's way.

Where a branch is not selected, a program that is differentiated as a whole still multiplies that branch's slope by
0: the slope must not be infinite or NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.suites.conventions.cases import case, const
from adbridge.validate.special_points.truth import UNDEFINED, infinite, limit

MASKED, GUARDED, INFINITE, UNDER = "branch not selected", "guarded quotient", "infinite slope", "undefined point"
SMOOTH = "smooth composite"

INF, NAN = np.inf, np.nan

ZERO_LOG = "whether 0 log y is 0 for negative y, too, is a convention"


def _mask(xp: Any, *places: bool) -> Any:
    return xp.asarray(np.array(places))


def _distances(xp: Any, x: Any) -> Any:
    """Of all pairs of rows; the diagonal is masked."""
    difference = x[:, None, :] - x[None, :, :]
    far = xp.sqrt(xp.sum(difference**2, axis=2))
    return xp.sum(xp.where(xp.asarray(np.eye(3) > 0), 0.0, far))


def _masked_log_sum_exp(xp: Any, x: Any) -> Any:
    chosen = _mask(xp, True, False)
    top = xp.max(xp.where(chosen, x, -INF))
    return top + xp.log(xp.sum(xp.where(chosen, xp.exp(x - top), 0.0)))


def _guarded(xp: Any, x: Any, function: Any, at_0: float) -> Any:
    """function(x), which fails at 0; there, its limit: the double `where`."""
    zero = x == 0
    return xp.where(zero, at_0, function(xp.where(zero, 1.0, x)))


_NAN_DATA = np.array([1.0, NAN, 3.0])

BRANCHES = (
    case(
        "where-exp-overflow",
        lambda xp, x: xp.sum(xp.where(x <= 10.0, xp.exp(x), 1.0)),
        [1.0, 1e10],
        topic=MASKED,
        grad=[np.e, 0.0],
        threads=("pytorch/pytorch#156212",),
    ),
    case(
        "where-root-of-negative",
        lambda xp, x: xp.sum(xp.where(x > 0, xp.sqrt(x), 0.0)),
        [-1.0, 4.0],
        topic=MASKED,
        grad=[0.0, 0.25],
    ),
    case(
        "where-root-of-0",
        lambda xp, x: xp.sum(xp.where(_mask(xp, False, True), xp.sqrt(x), 0.0)),
        [0.0, 4.0],
        topic=MASKED,
        grad=[0.0, 0.25],
    ),
    case(
        "where-log-of-0",
        lambda xp, x: xp.sum(xp.where(_mask(xp, False, True), xp.log(x), 0.0)),
        [0.0, 2.0],
        topic=MASKED,
        grad=[0.0, 0.5],
    ),
    case(
        "where-reciprocal-of-0",
        lambda xp, x: xp.sum(xp.where(_mask(xp, False, True), 1.0 / x, 0.0)),
        [0.0, 2.0],
        topic=MASKED,
        grad=[0.0, -0.25],
    ),
    case(
        "where-acos-of-1",
        lambda xp, x: xp.sum(xp.where(_mask(xp, False, True), xp.acos(x), 0.0)),
        [1.0, 0.0],
        topic=MASKED,
        grad=[0.0, -1.0],
    ),
    case(
        "where-first-branch-safe",
        lambda xp, x: xp.sum(xp.where(_mask(xp, True, False), x, xp.log(x))),
        [0.0, 2.0],
        topic=MASKED,
        grad=[1.0, 0.5],
    ),
    case(
        "where-infinite-constant",
        lambda xp, x: xp.min(xp.where(_mask(xp, True, False), x**2, INF)),
        [2.0, 5.0],
        topic=MASKED,
        grad=[4.0, 0.0],
    ),
    case(
        "where-nan-data",
        lambda xp, x: xp.sum(xp.where(_mask(xp, True, False, True), x * const(xp, _NAN_DATA), 0.0)),
        [1.0, 1.0, 1.0],
        topic=MASKED,
        grad=[1.0, 0.0, 3.0],
    ),
    case(
        "where-atan2-of-0",
        lambda xp, a: xp.sum(xp.where(_mask(xp, False, True, False), 0.0, xp.atan2(a, a))),
        [3.0, 0.0, -5.0],
        topic=MASKED,
        grad=[0.0, 0.0, 0.0],
        scale=1.0,
        threads=("jax-ml/jax#1052",),
    ),
    case(
        "where-softplus-overflow",
        lambda xp, x: xp.where(x > 20.0, x, xp.log1p(xp.exp(x))),
        1000.0,
        topic=MASKED,
        grad=1.0,
    ),
    case(
        "double-where-root",
        lambda xp, x: xp.sum(xp.where(x > 0, xp.sqrt(xp.where(x > 0, x, 1.0)), 0.0)),
        [-1.0, 4.0],
        topic="control",
        grad=[0.0, 0.25],
    ),
    case(
        "pairwise-distances",
        _distances,
        [[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]],
        topic=MASKED,
        grad=[[-2.4, -3.2], [0.0, 0.0], [2.4, 3.2]],
        threads=("jax-ml/jax#654",),
    ),
    case(
        "norms-of-rows-masked",
        lambda xp, x: xp.sum(xp.where(_mask(xp, False, True), xp.sqrt(xp.sum(x * x, axis=1)), 0.0)),
        [[0.0, 0.0], [3.0, 4.0]],
        topic=MASKED,
        grad=[[0.0, 0.0], [0.6, 0.8]],
    ),
    case(
        "log-sum-exp-masked",
        _masked_log_sum_exp,
        [0.0, 1000.0],
        topic=MASKED,
        grad=[1.0, 0.0],
        threads=("jax-ml/jax#23842", "jax-ml/jax#22398", "jax-ml/jax#25791"),
    ),
    case(
        "nansum-of-squares",
        lambda xp, x: xp.nansum(x**2),
        [NAN, 1.0, 2.0],
        topic=MASKED,
        grad=[0.0, 2.0, 4.0],
        threads=("jax-ml/jax#8126", "jax-ml/jax#8128"),
        unjudged="the point has a NaN entry",
    ),
    case(
        "nansum-of-data",
        lambda xp, x: xp.nansum(x * const(xp, _NAN_DATA)),
        [1.0, 1.0, 1.0],
        topic=MASKED,
        grad=[1.0, 0.0, 3.0],
        unjudged="the function meets a NaN",
    ),
    case(
        "fmax-of-nan",
        lambda xp, x: xp.fmax(x, const(xp, NAN)),
        2.0,
        topic=MASKED,
        grad=1.0,
        unjudged="the function meets a NaN",
    ),
)

COMPOSITES = (
    case(
        "norm-squared-0",
        lambda xp, x: xp.linalg.norm(x) ** 2,
        [0.0, 0.0],
        topic=SMOOTH,
        grad=[0.0, 0.0],
        hessian=2 * np.eye(2),
        threads=("jax-ml/jax#4177", "jax-ml/jax#21723", "HIPS/autograd#183", "HIPS/autograd#586", "jax-ml/jax#39792"),
    ),
    case("root-squared-0", lambda xp, x: xp.sqrt(x**2 + x**4) ** 2, 0.0, topic=SMOOTH, grad=0.0, hessian=2.0),
    case("root-of-fourth-power-0", lambda xp, x: xp.sqrt(x**4), 0.0, topic=SMOOTH, grad=0.0),
    case("std-squared-of-constants", lambda xp, x: xp.std(x) ** 2, [1.0, 1.0], topic=SMOOTH, grad=[0.0, 0.0]),
    case(
        "var-of-constants",
        lambda xp, x: xp.var(x),
        [1.0, 1.0, 1.0],
        topic="control",
        grad=[0.0, 0.0, 0.0],
        threads=("jax-ml/jax#11716",),
    ),
    case(
        "std-of-one",  # identically 0
        lambda xp, x: xp.std(x, ddof=0),
        [-0.83],
        topic=SMOOTH,
        grad=[0.0],
        threads=("tensorflow/tensorflow#56830",),
    ),
    case(
        "normalised-safely-0",
        lambda xp, x: xp.sum(x / xp.maximum(xp.linalg.norm(x), const(xp, 0.5))),
        [0.0, 0.0],
        topic=SMOOTH,
        grad=[2.0, 2.0],
    ),
    case(
        "layer-norm-of-constants",  # (I - 1/n) / sqrt(eps), against the weights 1, 2, 6: minus their mean 3
        lambda xp, x: xp.sum(const(xp, [1.0, 2.0, 6.0]) * (x - xp.mean(x)) / xp.sqrt(xp.var(x) + 0.25)),
        [4.0, 4.0, 4.0],
        topic="control",
        grad=[-4.0, -2.0, 6.0],
    ),
    case(
        "sinc-by-double-where",  # sin(x)/x = 1 - x^2/6 + ...
        lambda xp, x: _guarded(xp, x, lambda s: xp.sin(s) / s, 1.0),
        0.0,
        topic=GUARDED,
        grad=0.0,
        hessian=-1 / 3,
        threads=("jax-ml/jax@1817cab012", "jax-ml/jax#5054"),
    ),
    case(
        "sinh-quotient-by-double-where",  # sinh(x)/x = 1 + x^2/6 + ...
        lambda xp, x: _guarded(xp, x, lambda s: xp.sinh(s) / s, 1.0),
        0.0,
        topic=GUARDED,
        grad=0.0,
        hessian=1 / 3,
    ),
    case(
        "expm1-quotient-by-double-where",  # (e^x - 1)/x = 1 + x/2 + ...
        lambda xp, x: _guarded(xp, x, lambda s: xp.expm1(s) / s, 1.0),
        0.0,
        topic=GUARDED,
        grad=0.5,
    ),
    case(
        "flat-function-0",  # exp(-1/x^2): all derivatives are 0
        lambda xp, x: _guarded(xp, x, lambda s: xp.exp(-1.0 / s**2), 0.0),
        0.0,
        topic=GUARDED,
        grad=0.0,
        hessian=0.0,
    ),
)

SLOPES = (
    case(
        "sqrt-0",
        lambda xp, x: xp.sqrt(x),
        0.0,
        topic=INFINITE,
        grad=infinite(INF),
        threads=("jax-ml/jax#11716", "pytorch/pytorch#76898"),
    ),
    case("cbrt-0", lambda xp, x: xp.cbrt(x), 0.0, topic=INFINITE, grad=infinite(INF)),
    case(
        "power-third-0",
        lambda xp, x: xp.pow(x, const(xp, 1 / 3)),
        0.0,
        topic=INFINITE,
        grad=infinite(INF),
        threads=("pytorch/pytorch#47024",),
    ),
    case("power-half-0", lambda xp, x: x**0.5, 0.0, topic=INFINITE, grad=infinite(INF)),
    case(
        "power-three-halves-0",
        lambda xp, x: x**1.5,
        0.0,
        topic=INFINITE,
        grad=0.0,
        hessian=infinite(INF),
        threads=("pytorch/pytorch#47024",),
    ),
    case("acos-1", lambda xp, x: xp.acos(x), 1.0, topic=INFINITE, grad=infinite(-INF)),
    case("acos-minus-1", lambda xp, x: xp.acos(x), -1.0, topic=INFINITE, grad=infinite(-INF)),
    case("asin-1", lambda xp, x: xp.asin(x), 1.0, topic=INFINITE, grad=infinite(INF)),
    case("acosh-1", lambda xp, x: xp.acosh(x), 1.0, topic=INFINITE, grad=infinite(INF)),
    case(
        "entr-0",
        lambda xp, x: xp.special.entr(x),
        0.0,
        topic=INFINITE,
        grad=infinite(INF),
        threads=("jax-ml/jax#15709",),
    ),
    case(
        "xlogy-x-x-0",
        lambda xp, x: xp.special.xlogy(x, x),
        0.0,
        topic=INFINITE,
        grad=infinite(-INF),
        threads=("jax-ml/jax#15598",),
    ),
)

BORDERS = (
    case("log-0", lambda xp, x: xp.log(x), 0.0, topic=UNDER, grad=limit(steep=INF)),
    case("log1p-minus-1", lambda xp, x: xp.log1p(x), -1.0, topic=UNDER, grad=limit(steep=INF)),
    case("atanh-1", lambda xp, x: xp.atanh(x), 1.0, topic=UNDER, grad=limit(steep=INF)),
    case("erfinv-1", lambda xp, x: xp.special.erfinv(x), 1.0, topic=UNDER, grad=limit(steep=INF)),
    case("gammaln-pole", lambda xp, x: xp.special.gammaln(x), -1.0, topic=UNDER, grad=UNDEFINED),
    case("reciprocal-0", lambda xp, x: 1.0 / x, 0.0, topic=UNDER, grad=UNDEFINED),
    case("sinh-quotient-0", lambda xp, x: xp.sinh(x) / x, 0.0, topic=UNDER, grad=UNDEFINED),
    case("x-log-x-0", lambda xp, x: x * xp.log(x), 0.0, topic=UNDER, grad=UNDEFINED),
    case("normalised-0", lambda xp, x: xp.sum(x / xp.linalg.norm(x)), [0.0, 0.0], topic=UNDER, grad=UNDEFINED),
    case(
        "atan2-0-0",
        lambda xp, y: xp.atan2(y, const(xp, 0.0)),
        0.0,
        topic=UNDER,
        grad=UNDEFINED,
        jvp=UNDEFINED,
        threads=("jax-ml/jax#1052", "tensorflow/tensorflow#6095"),
    ),
    case(
        "xlogy-y-0",
        lambda xp, y: xp.special.xlogy(0.0, y),
        0.0,
        unjudged=ZERO_LOG,
        topic=UNDER,
        grad=limit(constant=0),
        threads=("jax-ml/jax#15598",),
    ),
    case(
        "xlog1py-y-minus-1",
        lambda xp, y: xp.special.xlog1py(0.0, y),
        -1.0,
        unjudged=ZERO_LOG,
        topic=UNDER,
        grad=limit(constant=0),
    ),
    case(
        "zero-to-the-zero",
        lambda xp, b: xp.pow(const(xp, 0.0), b),
        0.0,
        topic=UNDER,
        grad=UNDEFINED,
        threads=("jax-ml/jax#12041", "pytorch/pytorch#95180"),
    ),
    case("negative-base-by-exponent", lambda xp, b: xp.pow(const(xp, -2.0), b), 3.0, topic=UNDER, grad=UNDEFINED),
    case(
        "mean-of-none",
        lambda xp, x: xp.mean(x),
        np.zeros(0),
        topic=UNDER,
        grad=UNDEFINED,
        unjudged="there is no entry",
    ),
    case("var-of-one-ddof-1", lambda xp, x: xp.var(x, ddof=1), [2.0], topic=UNDER, grad=UNDEFINED),
)

CASES = (*BRANCHES, *COMPOSITES, *SLOPES, *BORDERS)
