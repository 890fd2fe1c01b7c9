"""Tails and extremes: derivatives that are small, large or rounded away, and exact all the same.

A derivative rule that forms 1 - y^2 or y + 1 where y has rounded to its limit loses every digit, though neither the
function nor its derivative is ill-conditioned there.
"""

from __future__ import annotations

import math

import numpy as np

from adbridge.suites.conventions.cases import case, const

TAIL, EXTREME, TINY = "tail", "extreme", "huge and tiny"

E40 = math.exp(-40)
PEAK = E40 / (1 + E40) ** 2  # s (1 - s) for the logistic function s at 40, and at -40
ROOT_PI = math.sqrt(math.pi)

TAILS = (
    case(
        "sigmoid-40",
        lambda xp, x: xp.special.sigmoid(x),
        40.0,
        topic=TAIL,
        grad=PEAK,
        hessian=-PEAK * (1 - E40) / (1 + E40),
        threads=("jax-ml/jax@893b483e3f",),
    ),
    case("sigmoid-minus-40", lambda xp, x: xp.special.sigmoid(x), -40.0, topic=TAIL, grad=PEAK),
    case(
        "tanh-20",
        lambda xp, x: xp.tanh(x),
        20.0,
        topic=TAIL,
        grad=4 * PEAK,  # tanh x = 2 s(2 x) - 1
        hessian=-8 * PEAK * (1 - E40) / (1 + E40),
        threads=("jax-ml/jax@893b483e3f",),
    ),
    case("softplus-minus-40", lambda xp, x: xp.special.softplus(x), -40.0, topic=TAIL, grad=E40 / (1 + E40)),
    case("softplus-40", lambda xp, x: xp.special.softplus(x), 40.0, topic=TAIL, grad=1.0, hessian=PEAK),
    case(
        "softplus-21",
        lambda xp, x: xp.special.softplus(x),
        21.0,
        topic=TAIL,
        grad=1 / (1 + math.exp(-21)),
        hessian=math.exp(-21) / (1 + math.exp(-21)) ** 2,
    ),
    case("log-sigmoid-40", lambda xp, x: xp.special.log_sigmoid(x), 40.0, topic=TAIL, grad=E40 / (1 + E40)),
    case("expm1-minus-40", lambda xp, x: xp.expm1(x), -40.0, topic=TAIL, grad=E40),
    case("elu-minus-40", lambda xp, x: xp.special.elu(x), -40.0, topic=TAIL, grad=E40),
    case("celu-minus-40", lambda xp, x: xp.special.celu(x), -40.0, topic=TAIL, grad=E40),
    case("silu-minus-40", lambda xp, x: xp.special.silu(x), -40.0, topic=TAIL, grad=-39 * E40),
    case("gelu-minus-10", lambda xp, x: xp.special.gelu(x), -10.0, topic=TAIL, grad=-7.6184000964648140857e-22),
    case("erfc-6", lambda xp, x: xp.special.erfc(x), 6.0, topic=TAIL, grad=-2 / ROOT_PI * math.exp(-36)),
    case("erfc-26", lambda xp, x: xp.special.erfc(x), 26.0, topic=TAIL, grad=-2 / ROOT_PI * math.exp(-676)),
    case(
        "ndtr-minus-30",
        lambda xp, x: xp.special.ndtr(x),
        -30.0,
        topic=TAIL,
        grad=math.exp(-450) / math.sqrt(2 * math.pi),
    ),
    case(
        # r = phi / Phi by Arb; r' = -r (r + x)
        "log-ndtr-minus-40",
        lambda xp, x: xp.special.log_ndtr(x),
        -40.0,
        topic=TAIL,
        grad=40.024968847207263723,
        hessian=-0.99937733162140861123,
    ),
    case(
        "log-sum-exp-tail",
        lambda xp, x: xp.special.logsumexp(xp.stack([x, xp.zeros_like(x)])),
        -40.0,
        topic=TAIL,
        grad=E40 / (1 + E40),
        hessian=PEAK,
    ),
    case("logaddexp-tail", lambda xp, x: xp.logaddexp(x, const(xp, 0.0)), -40.0, topic=TAIL, grad=E40 / (1 + E40)),
    case(
        "softmax-saturated",
        lambda xp, x: xp.special.softmax(x)[1],
        [0.0, 40.0],
        topic=TAIL,
        grad=[-PEAK, PEAK],
    ),
    case(
        "log-softmax-saturated",
        lambda xp, x: xp.special.log_softmax(x)[1],
        [0.0, 40.0],
        topic=TAIL,
        grad=[-E40 / (1 + E40), E40 / (1 + E40)],
    ),
)

EXTREMES = (
    case("softplus-1000", lambda xp, x: xp.special.softplus(x), 1000.0, topic=EXTREME, grad=1.0, hessian=0.0),
    case("softplus-minus-1000", lambda xp, x: xp.special.softplus(x), -1000.0, topic=EXTREME, grad=0.0, hessian=0.0),
    case(
        "log-sigmoid-minus-1000", lambda xp, x: xp.special.log_sigmoid(x), -1000.0, topic=EXTREME, grad=1.0, hessian=0.0
    ),
    case("sigmoid-minus-1000", lambda xp, x: xp.special.sigmoid(x), -1000.0, topic=EXTREME, grad=0.0, hessian=0.0),
    case("tanh-1000", lambda xp, x: xp.tanh(x), 1000.0, topic=EXTREME, grad=0.0, hessian=0.0),
    case(
        "elu-800", lambda xp, x: xp.special.elu(x), 800.0, topic=EXTREME, grad=1.0, threads=("jax-ml/jax@43be8d8ef8",)
    ),
    case(
        "celu-800", lambda xp, x: xp.special.celu(x), 800.0, topic=EXTREME, grad=1.0, threads=("jax-ml/jax@b0805a8a31",)
    ),
    case("silu-1000", lambda xp, x: xp.special.silu(x), 1000.0, topic=EXTREME, grad=1.0),
    case(
        "log-softmax-1000", lambda xp, x: xp.special.log_softmax(x)[1], [1000.0, 0.0], topic=EXTREME, grad=[-1.0, 1.0]
    ),
    case("logaddexp-800", lambda xp, v: xp.logaddexp(v[0], v[1]), [800.0, -800.0], topic=EXTREME, grad=[1.0, 0.0]),
    case("log-sum-exp-1000", lambda xp, x: xp.special.logsumexp(x), [1000.0, 1000.0], topic=EXTREME, grad=[0.5, 0.5]),
    case(
        "exp2-1024",  # the second derivative is in range, the function not
        lambda xp, x: xp.exp2(x),
        1024.0,
        topic=EXTREME,
        hessian=math.log(2) ** 2 * 2.0**1023 * 2.0,
        threads=("pytorch/pytorch#192408",),
        tolerance=1e-6,
    ),
    case("hypot-huge", lambda xp, v: xp.hypot(v[0], v[1]), [3e200, 4e200], topic=TINY, grad=[0.6, 0.8]),
    case("hypot-tiny", lambda xp, v: xp.hypot(v[0], v[1]), [3e-200, 4e-200], topic=TINY, grad=[0.6, 0.8]),
    case("norm-huge", lambda xp, x: xp.linalg.norm(x), [3e200, 4e200], topic=TINY, grad=[0.6, 0.8]),
    case("norm-tiny", lambda xp, x: xp.linalg.norm(x), [3e-200, 4e-200], topic=TINY, grad=[0.6, 0.8]),
    case("atan2-tiny", lambda xp, y: xp.atan2(y, const(xp, 1e-200)), 1e-200, topic=TINY, grad=0.5e200),
    case("log1p-tiny", lambda xp, x: xp.log1p(x), 1e-20, topic=TINY, grad=1.0, hessian=-1.0),
    case("expm1-tiny", lambda xp, x: xp.expm1(x), 1e-20, topic=TINY, grad=1.0, hessian=1.0),
    case("logit-tiny", lambda xp, x: xp.special.logit(x), 1e-20, topic=TINY, grad=1e20),
    case("sinc-tiny", lambda xp, x: xp.sinc(x), 1e-8, topic=TINY, hessian=-(np.pi**2) / 3, tolerance=1e-4),
    case("reciprocal-tiny", lambda xp, x: 1.0 / x, 1e-100, topic=TINY, grad=-1e200),
    case("log-tiny", lambda xp, x: xp.log(x), 1e-300, topic=TINY, grad=1e300),
)

CASES = (*TAILS, *EXTREMES)
