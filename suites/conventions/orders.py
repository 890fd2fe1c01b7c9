"""Higher orders of smooth functions, where a rule that is right once may be wrong when it is differentiated again."""

from __future__ import annotations

import numpy as np

from adbridge.suites.conventions.cases import case, const

ORDER = "higher order"

_UNIT = np.array([0.6, 0.8])

CASES = (
    case(
        "norm-second-order",
        lambda xp, x: xp.linalg.norm(x),
        [3.0, 4.0],
        topic=ORDER,
        grad=_UNIT,
        hessian=(np.eye(2) - np.outer(_UNIT, _UNIT)) / 5,
    ),
    case(
        "hypot-second-order",
        lambda xp, v: xp.hypot(v[0], v[1]),
        [3.0, 4.0],
        topic=ORDER,
        grad=_UNIT,
        hessian=(np.eye(2) - np.outer(_UNIT, _UNIT)) / 5,
    ),
    case(
        "sinc-0",
        lambda xp, x: xp.sinc(x),
        0.0,
        topic=ORDER,
        grad=0.0,
        hessian=-(np.pi**2) / 3,
        third=0.0,
        fourth=np.pi**4 / 5,
        threads=("jax-ml/jax#5054",),
    ),
    case("abs-second-order", lambda xp, x: xp.abs(x), -1.0, topic=ORDER, grad=-1.0, hessian=0.0),
    case("relu-second-order", lambda xp, x: xp.special.relu(x), 1.0, topic=ORDER, grad=1.0, hessian=0.0),
    case("sigmoid-orders", lambda xp, x: xp.special.sigmoid(x), 0.0, topic=ORDER, grad=0.25, hessian=0.0, third=-0.125),
    case("tanh-orders", lambda xp, x: xp.tanh(x), 0.0, topic=ORDER, grad=1.0, hessian=0.0, third=-2.0),
    case("softplus-second-order", lambda xp, x: xp.special.softplus(x), 0.0, topic=ORDER, grad=0.5, hessian=0.25),
    case(
        "sin-orders",
        lambda xp, x: xp.sin(x),
        0.5,
        topic=ORDER,
        grad=np.cos(0.5),
        hessian=-np.sin(0.5),
        third=-np.cos(0.5),
        fourth=np.sin(0.5),
    ),
    case(
        "erf-orders",
        lambda xp, x: xp.special.erf(x),
        0.0,
        topic=ORDER,
        grad=2 / np.sqrt(np.pi),
        hessian=0.0,
        third=-4 / np.sqrt(np.pi),
    ),
    case("atan-orders", lambda xp, x: xp.atan(x), 0.0, topic=ORDER, grad=1.0, hessian=0.0, third=-2.0),
    case("i0-second-order", lambda xp, x: xp.special.i0(x), 0.0, topic=ORDER, grad=0.0, hessian=0.5),  # 1 + x^2/4
    case("i1-second-order", lambda xp, x: xp.special.i1(x), 0.0, topic=ORDER, grad=0.5, hessian=0.0),  # x/2 + x^3/16
    case(
        "gammaln-second-order",
        lambda xp, x: xp.special.gammaln(x),
        1.0,
        topic=ORDER,
        grad=-np.euler_gamma,
        hessian=np.pi**2 / 6,
    ),
    case(
        "digamma-orders",
        lambda xp, x: xp.special.digamma(x),
        1.0,
        topic=ORDER,
        grad=np.pi**2 / 6,
        hessian=-2 * 1.2020569031595942,
    ),
    case("gammaln-of-negative", lambda xp, x: xp.special.gammaln(x), -0.5, topic=ORDER, grad=0.03648997397857652),
    case("erfinv-0", lambda xp, x: xp.special.erfinv(x), 0.0, topic=ORDER, grad=np.sqrt(np.pi) / 2, hessian=0.0),
    case(
        "log-sum-exp-second-order",
        lambda xp, x: xp.special.logsumexp(x),
        [0.0, np.log(3.0)],
        topic=ORDER,
        grad=[0.25, 0.75],
        hessian=[[0.1875, -0.1875], [-0.1875, 0.1875]],
    ),
    case(
        "var-second-order",
        lambda xp, x: xp.var(x),
        [1.0, 1.0],
        topic=ORDER,
        grad=[0.0, 0.0],
        hessian=[[0.5, -0.5], [-0.5, 0.5]],
    ),
    case(
        "where-second-order",
        lambda xp, x: xp.sum(xp.where(x > 0, x**3, x**2)),
        [1.0, -1.0],
        topic=ORDER,
        grad=[3.0, -2.0],
        hessian=[[6.0, 0.0], [0.0, 2.0]],
    ),
    case(
        "bilinear-second-order",
        lambda xp, v: v[0] * v[1] * const(xp, 3.0),
        [0.0, 0.0],
        topic=ORDER,
        grad=[0.0, 0.0],
        hessian=[[0.0, 3.0], [3.0, 0.0]],
    ),
    case(
        "cumprod-second-order",
        lambda xp, x: xp.sum(xp.cumprod(x)),
        [2.0, 0.0],
        topic=ORDER,
        grad=[1.0, 2.0],
        hessian=[[0.0, 1.0], [1.0, 0.0]],
    ),
)
