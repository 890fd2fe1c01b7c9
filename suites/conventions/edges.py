"""Edges that are smooth: powers at 0, products with zeros, infinities, repeated indices, empty arrays, mixed dtypes."""

from __future__ import annotations

import numpy as np

from adbridge.suites.conventions.cases import case, const
from adbridge.validate.special_points.truth import UNDEFINED, Truth, limit, unique

POWER, PRODUCT, INFINITY, INDEX, SHAPE, DTYPE, COMPLEX = (
    "power",
    "product",
    "infinite entries",
    "repeated index",
    "empty or 0-d",
    "dtype",
    "complex",
)

INF, LOG3 = np.inf, np.log(3.0)

POWERS = (
    case("power-0-at-0", lambda xp, x: x**0, 0.0, topic=POWER, grad=0.0),
    case("power-1-at-0", lambda xp, x: x**1, 0.0, topic=POWER, grad=1.0, hessian=0.0),
    case(
        "power-2-at-0",
        lambda xp, x: x**2,
        0.0,
        topic=POWER,
        grad=0.0,
        hessian=2.0,
        third=0.0,
        threads=("FluxML/Zygote.jl#1598",),
    ),
    case("power-3-at-0", lambda xp, x: x**3, 0.0, topic=POWER, grad=0.0, hessian=0.0, third=6.0, fourth=0.0),
    case("power-array-2-at-0", lambda xp, x: xp.pow(x, const(xp, 2.0)), 0.0, topic=POWER, grad=0.0, hessian=2.0),
    case(
        "powers-of-0",
        lambda xp, x: xp.sum(xp.pow(x, np.arange(3))),
        0.0,
        topic=POWER,
        grad=1.0,
        threads=("jax-ml/jax#17995",),
    ),
    case(
        "zero-base-by-exponent",  # 0^b = 0 for all b near 1
        lambda xp, b: xp.pow(const(xp, 0.0), b),
        1.0,
        topic=POWER,
        grad=0.0,
        hessian=0.0,
        threads=("pytorch/pytorch#27134", "HIPS/autograd#149", "pytorch/pytorch#95180"),
    ),
    case(
        "zero-power-by-base",  # a^0 = 1
        lambda xp, a, b: xp.pow(a, b),
        0.0,
        0.0,
        topic=POWER,
        grad=0.0,
        threads=("jax-ml/jax#12041",),
    ),
    case(
        "power-at-zero-exponent",  # a^b at (4, 0)
        lambda xp, v: xp.pow(v[0], v[1]),
        [4.0, 0.0],
        topic=POWER,
        grad=[0.0, np.log(4.0)],
        hessian=[[0.0, 0.25], [0.25, np.log(4.0) ** 2]],
        threads=("jax-ml/jax#12033",),
    ),
    case(
        "negative-base",
        lambda xp, x: xp.pow(x, const(xp, 3.0)),
        -2.0,
        topic=POWER,
        grad=12.0,
        hessian=-12.0,
        threads=("pytorch/pytorch#76483",),
    ),
    case(
        "integer-exponent-array",
        lambda xp, x, n: xp.sum(x**n),
        [-2.0, 0.0],
        np.array([3, 1]),
        topic=POWER,
        grad=[12.0, 1.0],
    ),
    case(
        "xlogy-x-0",
        lambda xp, x: xp.special.xlogy(x, 3.0),
        0.0,
        topic=POWER,
        grad=LOG3,
        hessian=0.0,
        threads=("jax-ml/jax#15598",),
    ),
    case("xlog1py-x-0", lambda xp, x: xp.special.xlog1py(x, 2.0), 0.0, topic=POWER, grad=LOG3),
    case(
        "xlogy-hessian",
        lambda xp, v: xp.special.xlogy(v[0], v[1]),
        [0.0, 3.0],
        topic=POWER,
        grad=[LOG3, 0.0],
        hessian=[[0.0, 1 / 3], [1 / 3, 0.0]],
    ),
)

PRODUCTS = (
    case(
        "prod-one-zero",
        lambda xp, x: xp.prod(x),
        [2.0, 0.0, 3.0],
        topic=PRODUCT,
        grad=[0.0, 6.0, 0.0],
        hessian=[[0.0, 3.0, 0.0], [3.0, 0.0, 2.0], [0.0, 2.0, 0.0]],
    ),
    case(
        "prod-two-zeros",
        lambda xp, x: xp.prod(x),
        [2.0, 3.0, 0.0, 0.0],
        topic=PRODUCT,
        grad=[0.0] * 4,
        hessian=6 * (np.eye(4)[[0, 1, 3, 2]] * [0, 0, 1, 1]),
        threads=("pytorch/pytorch#106789",),
    ),
    case(
        "cumprod-negative",
        lambda xp, x: xp.sum(xp.cumprod(x)),
        [2.0, -3.0, 4.0],
        topic=PRODUCT,
        grad=[-14.0, 10.0, -6.0],
        threads=("jax-ml/jax#10993",),
    ),
    case(
        "cumprod-two-zeros",
        lambda xp, x: xp.sum(xp.cumprod(x)),
        [2.0, 0.0, 0.0, 3.0],
        topic=PRODUCT,
        grad=[1.0, 2.0, 0.0, 0.0],
        threads=("tensorflow/tensorflow#119430",),
    ),
    case("remainder-by-divisor", lambda xp, y: xp.remainder(const(xp, 7.0), y), 2.0, topic=PRODUCT, grad=-3.0),
    case(
        "fmod-by-divisor",
        lambda xp, y: xp.fmod(const(xp, -19.0), y),
        3.0,
        topic=PRODUCT,
        grad=6.0,
        threads=("jax-ml/jax#11466",),
    ),
    case(
        "fmod-broadcast",
        lambda xp, x: xp.sum(xp.fmod(x, const(xp, [[2.0], [2.0]]))),
        [5.0],
        topic=PRODUCT,
        grad=[2.0],
        threads=("jax-ml/jax#1350",),
    ),
    case(
        "atan2-order",
        lambda xp, v: xp.atan2(v[0], v[1]),
        [1.0, 2.0],
        topic=PRODUCT,
        grad=[0.4, -0.2],
        hessian=[[-0.16, -0.12], [-0.12, 0.16]],
        threads=("jax-ml/jax@dfd3d93350",),
    ),
)

INFINITIES = (
    case("max-of-minus-infinity", lambda xp, x: xp.max(x), [-INF, 1.0], topic=INFINITY, grad=[0.0, 1.0]),
    case(
        "log-sum-exp-some-minus-infinity",
        lambda xp, x: xp.special.logsumexp(x),
        [-INF, 1.0],
        topic=INFINITY,
        grad=[0.0, 1.0],
        threads=("jax-ml/jax#6811",),
    ),
    case(
        "log-sum-exp-all-minus-infinity",
        lambda xp, x: xp.special.logsumexp(x),
        [-INF, -INF],
        topic=INFINITY,
        grad=limit(zero=[0.0, 0.0], uniform=[0.5, 0.5]),
        threads=("jax-ml/jax#6811", "pytorch/pytorch#31829", "pytorch/pytorch#49724", "pytorch/pytorch#6864"),
    ),
    case(
        "log-sum-exp-infinity",
        lambda xp, x: xp.special.logsumexp(x),
        [INF, 0.0],
        topic=INFINITY,
        grad=limit(one=[1.0, 0.0]),
        threads=("pytorch/pytorch#49724",),
    ),
    case(
        "logaddexp-minus-infinity", lambda xp, v: xp.logaddexp(v[0], v[1]), [-INF, 1.0], topic=INFINITY, grad=[0.0, 1.0]
    ),
    case(
        "logaddexp-both-minus-infinity",
        lambda xp, v: xp.logaddexp(v[0], v[1]),
        [-INF, -INF],
        topic=INFINITY,
        grad=limit(zero=[0.0, 0.0], uniform=[0.5, 0.5]),
    ),
    case(
        "logaddexp-equal",
        lambda xp, v: xp.logaddexp(v[0], v[1]),
        [1.0, 1.0],
        topic="control",
        grad=[0.5, 0.5],
        hessian=[[0.25, -0.25], [-0.25, 0.25]],
    ),
    case(
        "softmax-some-minus-infinity",
        lambda xp, x: xp.special.softmax(x)[1],
        [-INF, 0.0, 0.0],
        topic=INFINITY,
        grad=[0.0, 0.25, -0.25],
    ),
    case(
        "softmax-all-minus-infinity",
        lambda xp, x: xp.special.softmax(x)[0],
        [-INF, -INF],
        topic=INFINITY,
        grad=UNDEFINED,
        threads=("pytorch/pytorch#31829",),
        unjudged="the function has no value there",
    ),
    case("exp-minus-infinity", lambda xp, x: xp.exp(x), -INF, topic=INFINITY, grad=0.0),
    case("tanh-infinity", lambda xp, x: xp.tanh(x), INF, topic=INFINITY, grad=0.0),
)


_WRITES = Truth("set", {"last": np.array([0.0, 14.0]), "first": np.array([10.0, 0.0])}, nan=False, says="of one write")

INDICES = (
    case(
        "set-twice",
        lambda xp, v: xp.sum(xp.at_set(const(xp, np.zeros(3)), np.array([1, 1]), v) ** 2),
        [5.0, 7.0],
        topic=INDEX,
        grad=_WRITES,
        threads=("pytorch/pytorch#146299", "pytorch/pytorch#162242", "tensorflow/tensorflow#56961"),
    ),
    case(
        "add-twice",
        lambda xp, v: xp.sum(xp.at_add(const(xp, np.zeros(3)), np.array([1, 1]), v) ** 2),
        [5.0, 7.0],
        topic=INDEX,
        grad=[24.0, 24.0],
        threads=("pytorch/pytorch#51366",),
    ),
    case(
        "overwritten-entry",
        lambda xp, x: xp.sum(xp.at_set(x, np.array([1]), const(xp, [5.0])) ** 2),
        [1.0, 2.0, 3.0],
        topic=INDEX,
        grad=[2.0, 0.0, 6.0],
    ),
    case(
        "gather-twice",
        lambda xp, x: xp.sum(xp.take(x, xp.asarray(np.array([0, 0, 1])), axis=0) * const(xp, [1.0, 2.0, 4.0])),
        [5.0, 7.0],
        topic=INDEX,
        grad=[3.0, 4.0],
    ),
    case("negative-index", lambda xp, x: x[-1] * x[0] + x[1], [2.0, 3.0], topic=INDEX, grad=[3.0, 3.0]),
    case("boolean-index", lambda xp, x: xp.sum(x[x > 0] ** 2), [2.0, -1.0, 3.0], topic=INDEX, grad=[4.0, 0.0, 6.0]),
    case(
        "concat-twice",
        lambda xp, x: xp.sum(xp.concat([x, x]) * const(xp, [1.0, 2.0, 4.0, 8.0])),
        [5.0, 7.0],
        topic=INDEX,
        grad=[5.0, 10.0],
    ),
    case(
        "stack-twice",
        lambda xp, x: xp.sum(xp.stack([x, x], axis=1) * const(xp, [[1.0, 2.0], [4.0, 8.0]])),
        [5.0, 7.0],
        topic=INDEX,
        grad=[3.0, 12.0],
    ),
)

SHAPES = (
    case(
        "sum-of-empty-broadcast",
        lambda xp, b: xp.sum(const(xp, np.zeros((4, 0))) + xp.expand_dims(b, axis=1)),
        [1.0, 2.0, 3.0, 4.0],
        topic=SHAPE,
        grad=[0.0] * 4,
        threads=("pytorch/pytorch#15223",),
    ),
    case(
        "empty-slice",
        lambda xp, x: xp.sum(x[3:3:2]) + xp.sum(x),
        [1.0, 2.0, 3.0, 4.0],
        topic=SHAPE,
        grad=[1.0] * 4,
        threads=("jax-ml/jax@f39d111d8f",),
    ),
    case("sum-of-none", lambda xp, x: xp.sum(x), np.zeros(0), topic=SHAPE, grad=np.zeros(0)),
    case("prod-of-none", lambda xp, x: xp.prod(x), np.zeros(0), topic=SHAPE, grad=np.zeros(0)),
    case("scalar-against-none", lambda xp, x: xp.sum(x * const(xp, np.zeros((0, 3)))), 2.0, topic=SHAPE, grad=0.0),
    case("scalar-in-scalar-out", lambda xp, x: xp.sum(x * x), 3.0, topic=SHAPE, grad=6.0, hessian=2.0),
    case(
        "column-plus-row",
        lambda xp, x: xp.sum((x + const(xp, [[1.0, 2.0, 3.0]])) ** 2),
        [[1.0], [2.0]],
        topic=SHAPE,
        grad=[[18.0], [24.0]],
    ),
    case("prod-of-one", lambda xp, x: xp.prod(x), [3.0], topic=SHAPE, grad=[1.0], hessian=[[0.0]]),
)

_SINGLE = np.array([0.7], np.float32)

DTYPES = (
    case(
        "float32-through",
        lambda xp, x: xp.sum(xp.sin(x)),
        _SINGLE,
        topic=DTYPE,
        grad=unique(np.cos(_SINGLE.astype(float))),
    ),
    case(
        "float32-times-float64",
        lambda xp, x: xp.sum(x * const(xp, [0.1])),
        _SINGLE,
        unjudged="the dtype of the output is each engine's own choice",
        topic=DTYPE,
        grad=[0.1],
    ),
    case("through-integers", lambda xp, x: xp.astype(xp.astype(x, xp.int64), x.dtype) * x, 2.5, topic=DTYPE, grad=2.0),
    case("through-booleans", lambda xp, x: xp.astype(x > 0, x.dtype) * x, 2.5, topic=DTYPE, grad=1.0),
    case("floor-between", lambda xp, x: xp.floor(x) * x, 2.5, topic=DTYPE, grad=2.0, hessian=0.0),
)

# Gradients are df/dx - i df/dy.
COMPLEXES = (
    case(
        "complex-norm",
        lambda xp, z: xp.linalg.norm(z),
        [3 + 4j, 0j],
        topic=COMPLEX,
        grad=[0.6 - 0.8j, 0],
        threads=("HIPS/autograd#705", "HIPS/autograd#666"),
    ),
    case("complex-abs", lambda xp, z: xp.abs(z), 3 + 4j, topic=COMPLEX, grad=0.6 - 0.8j),
    case("complex-square-0", lambda xp, z: xp.real(z * xp.conj(z)), 0j, topic=COMPLEX, grad=0j),
    case("complex-conj", lambda xp, z: xp.imag(xp.conj(z) * z * z), 1 + 2j, topic=COMPLEX, grad=4 - 13j),
    case("complex-exp", lambda xp, z: xp.real(xp.exp(z)), 0.5j, topic=COMPLEX, grad=np.exp(0.5j)),
    case(
        "complex-sign",  # z / |z|: d(x/r) = y^2/r^3 dx - x y/r^3 dy
        lambda xp, z: xp.real(xp.sign(z)),
        3 + 4j,
        topic=COMPLEX,
        grad=0.128 + 0.096j,
    ),
    case("complex-angle", lambda xp, z: xp.angle(z), 1 + 1j, topic=COMPLEX, grad=-0.5 - 0.5j),
    case("angle-of-negative-real", lambda xp, x: xp.angle(x), -1.0, topic=COMPLEX, grad=0.0),
    case(
        "rfft",
        lambda xp, x: xp.sum(xp.real(xp.fft.rfft(x)) * const(xp, [1.0, 2.0, 4.0])),
        [1.0, 2.0, 3.0, 4.0],
        topic=COMPLEX,
        grad=[7.0, -3.0, 3.0, -3.0],
        threads=("HIPS/autograd#187", "jax-ml/jax#6223"),
    ),
    case(
        "fft-round-trip",
        lambda xp, x: xp.sum(xp.real(xp.fft.ifft(xp.fft.fft(x))) * const(xp, [1.0, 2.0, 4.0])),
        [1.0, 2.0, 3.0],
        topic=COMPLEX,
        grad=[1.0, 2.0, 4.0],
    ),
)

CASES = (*POWERS, *PRODUCTS, *INFINITIES, *INDICES, *SHAPES, *DTYPES, *COMPLEXES)
