"""Kinks and jumps: points without one derivative, where every engine makes a choice; and smooth sums of kinked parts.

The truth at a kink is Clarke's subdifferential, the convex hull of the limits of nearby gradients: F. H. Clarke,
Optimization and Nonsmooth Analysis, SIAM (1990). A sum of kinks may be smooth: there, choices that are legal for each
part can add up to a derivative that is wrong (S. Kakade, J. D. Lee, Provably correct automatic subdifferentiation for
qualified programs, NeurIPS 2018).
"""

from __future__ import annotations

import numpy as np

from adbridge.suites.conventions.cases import case, const
from adbridge.validate.special_points.truth import ball, box, hull, jump, members, ties

KINK, JUMP, SUM = "kink", "jump", "smooth sum of kinks"

_SELU_LEFT, _SELU_RIGHT = 1.7580993408473766, 1.0507009873554805  # scale alpha, and scale

NORMS = (
    case("abs-0", lambda xp, x: xp.abs(x), 0.0, topic=KINK, grad=box(-1, 1)),
    case(
        "abs-vector-0",
        lambda xp, x: xp.sum(xp.abs(x)),
        [0.0, -2.0, 0.0],
        topic=KINK,
        grad=box([-1, -1, -1], [1, -1, 1]),
    ),
    case("abs-as-root-0", lambda xp, x: xp.sqrt(x**2), 0.0, topic=KINK, grad=box(-1, 1)),
    case("abs-as-maximum-0", lambda xp, x: xp.maximum(x, -x), 0.0, topic=KINK, grad=box(-1, 1)),
    case(
        "abs-complex-0",
        lambda xp, z: xp.abs(z),
        0j,
        topic=KINK,
        grad=ball(np.abs, "magnitude at most 1"),
        threads=("jax-ml/jax#10515", "jax-ml/jax#10800"),
    ),
    case(
        "norm-0",
        lambda xp, x: xp.linalg.norm(x),
        [0.0, 0.0, 0.0],
        topic=KINK,
        grad=ball(np.linalg.norm, "2-norm at most 1"),
        threads=(
            "pytorch/pytorch#2421",
            "jax-ml/jax#4177",
            "jax-ml/jax#39792",
            "HIPS/autograd#151",
            "HIPS/autograd#268",
        ),
    ),
    case("norm-1-at-0", lambda xp, x: xp.linalg.norm(x, ord=1), [0.0, 3.0], topic=KINK, grad=box([-1, 1], [1, 1])),
    case(
        "norm-4-at-0",
        lambda xp, x: xp.linalg.norm(x, ord=4),
        [0.0, 0.0],
        topic=KINK,
        grad=ball(lambda g: np.linalg.norm(g, ord=4 / 3), "4/3-norm (the dual one) at most 1"),
    ),
    case(
        "norm-inf-at-0",
        lambda xp, x: xp.linalg.norm(x, ord=float("inf")),
        [0.0, 0.0],
        topic=KINK,
        grad=ball(lambda g: np.linalg.norm(g, ord=1), "1-norm (the dual one) at most 1"),
    ),
    case(
        "norm-inf-ties",
        lambda xp, x: xp.linalg.norm(x, ord=float("inf")),
        [1.0, 1.0, 0.0],
        topic=KINK,
        grad=ties(3, 0, 1),
        threads=("pytorch/pytorch#41779",),
    ),
    case(
        "norm-inf-ties-of-signs",
        lambda xp, x: xp.linalg.norm(x, ord=float("inf")),
        [2.0, -2.0, 1.0],
        topic=KINK,
        grad=hull([1, 0, 0], [0, -1, 0]),
        threads=("pytorch/pytorch#41779",),
    ),
    case(
        "norm-minus-inf-ties",
        lambda xp, x: xp.linalg.norm(x, ord=-float("inf")),
        [1.0, 1.0, 2.0],
        topic=KINK,
        grad=ties(3, 0, 1),
    ),
    case(
        "norm-frobenius-0",
        lambda xp, x: xp.linalg.norm(x, ord="fro"),
        np.zeros((2, 2)),
        topic=KINK,
        grad=ball(np.linalg.norm, "Frobenius norm at most 1"),
    ),
    case(
        "hypot-0",
        lambda xp, v: xp.hypot(v[0], v[1]),
        [0.0, 0.0],
        topic=KINK,
        grad=ball(np.linalg.norm, "2-norm at most 1"),
        threads=("JuliaDiff/ForwardDiff.jl#669",),
    ),
    case(
        # |P x| / sqrt(n) with P the projection on mean zero, at P x = 0.
        "std-of-constants",
        lambda xp, x: xp.std(x),
        [2.0, 2.0, 2.0],
        topic=KINK,
        grad=members(
            "mean 0 and 2-norm at most 1/sqrt(3)",
            lambda g, tol: bool(abs(np.sum(g)) <= 10 * tol and np.linalg.norm(g) <= 1 / np.sqrt(3) + tol),
        ),
        threads=("jax-ml/jax#11716",),
    ),
)

BORDERS = (
    case("relu-0", lambda xp, x: xp.special.relu(x), 0.0, topic=KINK, grad=box(0, 1)),
    case(
        "relu-by-where-0",
        lambda xp, x: xp.where(x > 0, x, 0.0),
        0.0,
        topic=KINK,
        grad=box(0, 1),
        threads=("jax-ml/jax#37821",),
    ),
    case(
        "relu6-borders",
        lambda xp, x: xp.sum(xp.special.relu6(x)),
        [0.0, 3.0, 6.0],
        topic=KINK,
        grad=box([0, 1, 0], [1, 1, 1]),
        threads=("jax-ml/jax#14682", "jax-ml/jax#14840"),
    ),
    case(
        "leaky-relu-0",
        lambda xp, x: xp.special.leaky_relu(x, 0.2),
        0.0,
        topic=KINK,
        grad=box(0.2, 1),
        threads=("tensorflow/tensorflow#62436",),
    ),
    case("elu-0", lambda xp, x: xp.special.elu(x), 0.0, topic="smooth at its border", grad=1.0),
    case("elu-steep-0", lambda xp, x: xp.special.elu(x, 2.0), 0.0, topic=KINK, grad=box(1, 2)),
    case("celu-0", lambda xp, x: xp.special.celu(x, 2.0), 0.0, topic="smooth at its border", grad=1.0),
    case("selu-0", lambda xp, x: xp.special.selu(x), 0.0, topic=KINK, grad=box(_SELU_RIGHT, _SELU_LEFT)),
    case(
        "hard-tanh-borders",
        lambda xp, x: xp.sum(xp.special.hard_tanh(x)),
        [-1.0, 0.5, 1.0],
        topic=KINK,
        grad=box([0, 1, 0], [1, 1, 1]),
    ),
    case(
        "clip-borders",
        lambda xp, x: xp.sum(xp.clip(x, 0.0, 1.0)),
        [0.0, 0.5, 1.0],
        topic=KINK,
        grad=box([0, 1, 0], [1, 1, 1]),
        threads=("pytorch/pytorch#7002", "pytorch/pytorch#7049", "pytorch/pytorch#184572", "pytorch/pytorch#185831"),
    ),
    case(
        "clip-array-bound",
        lambda xp, x: xp.clip(x, const(xp, 0.0), None),
        0.0,
        topic=KINK,
        grad=box(0, 1),
        threads=("pytorch/pytorch#185927",),
    ),
    # The bounds leave one point, so that the function is constant.
    case("clip-equal-bounds", lambda xp, x: xp.clip(x, 0.5, 0.5), 0.5, topic="constant at a border", grad=0.0),
    case("clip-reversed-bounds", lambda xp, x: xp.clip(x, 1.0, 0.0), 0.5, topic="constant at a border", grad=0.0),
    case("i0e-0", lambda xp, x: xp.special.i0e(x), 0.0, topic=KINK, grad=box(-1, 1)),  # exp(-|x|) I0(x)
    case("huber-border", lambda xp, x: _huber(xp, x), 1.0, topic=KINK, grad=1.0, hessian=box(0, 1)),
)


def _huber(xp: object, x: object) -> object:
    near = xp.abs(x) <= 1  # type: ignore[attr-defined]  # of any engine
    return xp.where(near, 0.5 * x * x, xp.abs(x) - 0.5)  # type: ignore[attr-defined, operator]


TIES = (
    case(
        "max-ties",
        lambda xp, x: xp.max(x),
        [1.0, 1.0, 0.0],
        topic=KINK,
        grad=ties(3, 0, 1),
        threads=(
            "pytorch/pytorch#56734",
            "tensorflow/tensorflow#51681",
            "HIPS/autograd#141",
            "tensorflow/tensorflow#109337",
        ),
    ),
    case("max-all-equal", lambda xp, x: xp.max(x), [2.0] * 4, topic=KINK, grad=ties(4, 0, 1, 2, 3)),
    case("min-ties", lambda xp, x: xp.min(x), [1.0, 0.0, 0.0], topic=KINK, grad=ties(3, 1, 2)),
    case(
        "max-ties-by-rows",
        lambda xp, x: xp.sum(xp.max(x, axis=1) * const(xp, [1.0, 3.0])),
        [[1.0, 1.0], [2.0, 5.0]],
        topic=KINK,
        grad=hull([[1, 0], [0, 3]], [[0, 1], [0, 3]]),
    ),
    case("maximum-tie", lambda xp, v: xp.maximum(v[0], v[1]), [1.0, 1.0], topic=KINK, grad=ties(2, 0, 1)),
    case("minimum-tie", lambda xp, v: xp.minimum(v[0], v[1]), [1.0, 1.0], topic=KINK, grad=ties(2, 0, 1)),
    case("fmax-tie", lambda xp, v: xp.fmax(v[0], v[1]), [1.0, 1.0], topic=KINK, grad=ties(2, 0, 1)),
    case("fmin-tie", lambda xp, v: xp.fmin(v[0], v[1]), [1.0, 1.0], topic=KINK, grad=ties(2, 0, 1)),
    case(
        "maximum-three-ways",
        lambda xp, v: xp.maximum(xp.maximum(v[0], v[1]), v[2]),
        [1.0, 1.0, 1.0],
        topic=KINK,
        grad=ties(3, 0, 1, 2),
    ),
    case("maximum-of-itself", lambda xp, x: xp.maximum(x, x), 1.0, topic=SUM, grad=1.0),
    case(
        "median-ties",
        lambda xp, x: xp.median(x),
        [1.0, 1.0, 1.0],
        topic=KINK,
        grad=ties(3, 0, 1, 2),
        threads=("pytorch/pytorch#57166",),
    ),
    case(
        "sort-ties",
        lambda xp, x: xp.sum(xp.sort(x) * const(xp, [1.0, 2.0, 4.0])),
        [1.0, 1.0, 0.0],
        topic=KINK,
        grad=hull([2, 4, 1], [4, 2, 1]),
    ),
    case("argmax-gather-ties", lambda xp, x: x[int(xp.argmax(x))], [3.0, 3.0, 1.0], topic=KINK, grad=ties(3, 0, 1)),
    case("cummax-ties", lambda xp, x: xp.sum(xp.cummax(x)), [1.0, 1.0], topic=KINK, grad=hull([2, 0], [1, 1])),
)

SUMS = (
    case(
        "relu-minus-relu",
        lambda xp, x: xp.special.relu(x) - xp.special.relu(-x),
        0.0,
        topic=SUM,
        grad=1.0,
        threads=("pytorch/pytorch#76898",),
    ),
    case(
        "identity-minus-relu",  # x - relu(x) + relu(-x) = 0
        lambda xp, x: x - xp.special.relu(x) + xp.special.relu(-x),
        0.0,
        topic=SUM,
        grad=0.0,
        threads=("pytorch/pytorch#76898",),
    ),
    case("relu-minus-half-abs", lambda xp, x: xp.special.relu(x) - 0.5 * xp.abs(x), 0.0, topic=SUM, grad=0.5),
    case("relu-squared-0", lambda xp, x: xp.special.relu(x) ** 2, 0.0, topic=SUM, grad=0.0, hessian=box(0, 2)),
    case("max-plus-min-tie", lambda xp, v: xp.max(v) + xp.min(v), [1.0, 1.0], topic=SUM, grad=[1.0, 1.0]),
    case(
        "maximum-plus-minimum-tie",
        lambda xp, v: xp.maximum(v[0], v[1]) + xp.minimum(v[0], v[1]),
        [1.0, 1.0],
        topic=SUM,
        grad=[1.0, 1.0],
    ),
    case("sum-of-sorted-ties", lambda xp, x: xp.sum(xp.sort(x)), [1.0, 1.0, 1.0], topic=SUM, grad=[1.0, 1.0, 1.0]),
    case("x-abs-x-0", lambda xp, x: x * xp.abs(x), 0.0, topic=SUM, grad=0.0, hessian=box(-2, 2)),
    case("abs-cubed-0", lambda xp, x: xp.abs(x) ** 3, 0.0, topic=SUM, grad=0.0, hessian=0.0, third=box(-6, 6)),
    case("abs-squared-0", lambda xp, x: xp.abs(x) ** 2, 0.0, topic=SUM, grad=0.0, hessian=2.0),
    case("i1e-0", lambda xp, x: xp.special.i1e(x), 0.0, topic=SUM, grad=0.5),  # exp(-|x|) I1(x), I1 ~ x / 2
    case(
        "distances-to-oneself",
        lambda xp, x: xp.sum(xp.abs(x - x) + x * x),
        [1.0, -2.0],
        topic=SUM,
        grad=[2.0, -4.0],
    ),
)

JUMPS = (
    case("sign-0", lambda xp, x: xp.sign(x), 0.0, topic=JUMP, grad=jump(0)),
    case("floor-at-integer", lambda xp, x: xp.floor(x), 2.0, topic=JUMP, grad=jump(0)),
    case("ceil-at-integer", lambda xp, x: xp.ceil(x), 2.0, topic=JUMP, grad=jump(0)),
    case("round-at-half", lambda xp, x: xp.round(x), 2.5, topic=JUMP, grad=jump(0)),
    case("trunc-at-integer", lambda xp, x: xp.trunc(x), 1.0, topic=JUMP, grad=jump(0)),
    case("trunc-at-0", lambda xp, x: xp.trunc(x), 0.0, topic="constant across 0", grad=0.0),
    case("fraction-at-integer", lambda xp, x: x - xp.floor(x), 2.0, topic=JUMP, grad=jump(1)),
    case(
        "remainder-at-multiple",
        lambda xp, x: xp.remainder(x, const(xp, 3.0)),
        6.0,
        topic=JUMP,
        grad=jump(1),
        threads=("chainer/chainer#1617",),
    ),
    case("fmod-at-multiple", lambda xp, x: xp.fmod(x, const(xp, 3.0)), 6.0, topic=JUMP, grad=jump(1)),
    case("fmod-at-0", lambda xp, x: xp.fmod(x, const(xp, 3.0)), 0.0, topic="smooth at 0", grad=1.0),
    case("step-at-0", lambda xp, x: xp.where(x > 0, 1.0 + x, x), 0.0, topic=JUMP, grad=jump(1)),
    case("atan2-on-its-cut", lambda xp, y: xp.atan2(y, const(xp, -1.0)), 0.0, topic=JUMP, grad=jump(-1)),
)

CASES = (*NORMS, *BORDERS, *TIES, *SUMS, *JUMPS)
