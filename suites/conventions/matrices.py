"""Linear algebra at the points where its textbook rules divide by zero: repeated and zero eigenvalues, lost rank."""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.suites.conventions.cases import case, const
from adbridge.validate.special_points.truth import UNDEFINED, Values, ball, limit, members, symmetric

SINGULAR, REPEATED, RANK, SECOND, TRIANGLE = "singular", "repeated values", "rank", "second order", "one triangle"

READS = "what a function of symmetric matrices reads of others is each engine's own"


def _spectral(g: Values) -> Any:
    return np.linalg.norm(g, ord=2)


def _unit_trace(g: Values, tolerance: float) -> bool:
    """Convex combinations of v v^T over unit vectors v."""
    even = (g + g.T) / 2
    slack = 10 * tolerance
    return bool(np.linalg.eigvalsh(even)[0] >= -slack and abs(np.trace(even) - 1) <= slack)


def _nuclear_at_rank_one(g: Values, tolerance: float) -> bool:
    """U V^T + W with W orthogonal to both and |W|_2 <= 1, at diag(1, 0)."""
    slack = 10 * tolerance
    return bool(abs(g[0, 0] - 1) <= slack and max(abs(g[0, 1]), abs(g[1, 0])) <= slack and abs(g[1, 1]) <= 1 + slack)


# d^2 det / da_ij da_kl of a 2 by 2 matrix.
_DET = np.zeros((2, 2, 2, 2))
_DET[0, 0, 1, 1] = _DET[1, 1, 0, 0] = 1.0
_DET[0, 1, 1, 0] = _DET[1, 0, 0, 1] = -1.0

# d^2 tr(A^-1) at I: 2 tr(H K) along H and K.
_INVERSE = 2 * np.einsum("il,jk->ijkl", np.eye(2), np.eye(2))

DETERMINANTS = (
    case(
        "det-rank-2-of-3",
        lambda xp, a: xp.linalg.det(a),
        [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]],
        topic=SINGULAR,
        grad=[[4.0, 4.0, -4.0], [-2.0, -2.0, 2.0], [0.0, 0.0, 0.0]],
        threads=("jax-ml/jax#2845",),
        scale=1.0,
    ),
    case(
        "det-rank-1-of-3",
        lambda xp, a: xp.linalg.det(a),
        np.ones((3, 3)),
        topic=SINGULAR,
        grad=np.zeros((3, 3)),
        scale=1.0,
    ),
    case(
        "det-of-zeros-2",
        lambda xp, a: xp.linalg.det(a),
        np.zeros((2, 2)),
        topic=SINGULAR,
        grad=np.zeros((2, 2)),
        hessian=_DET,
    ),
    case("det-of-zeros-3", lambda xp, a: xp.linalg.det(a), np.zeros((3, 3)), topic=SINGULAR, grad=np.zeros((3, 3))),
    case(
        "det-second-order",
        lambda xp, a: xp.linalg.det(a),
        [[1.3, 0.4], [-0.7, 0.9]],
        topic=SECOND,
        grad=[[0.9, 0.7], [-0.4, 1.3]],
        hessian=_DET,
        threads=("pytorch/pytorch#192540",),
    ),
    case(
        "det-second-order-at-identity",
        lambda xp, a: xp.linalg.det(a),
        np.eye(2),
        topic=SECOND,
        grad=np.eye(2),
        hessian=_DET,
        threads=("pytorch/pytorch#192521",),
    ),
    case(
        "det-second-order-singular",
        lambda xp, a: xp.linalg.det(a),
        [[1.0, 2.0], [2.0, 4.0]],
        topic=SECOND,
        hessian=_DET,
    ),
    case(
        "slogdet-negative",
        lambda xp, a: xp.linalg.slogdet(a)[1],
        [[0.0, 1.0], [2.0, 0.0]],
        topic=SINGULAR,
        grad=[[0.0, 1.0], [0.5, 0.0]],
    ),
    case("slogdet-singular", lambda xp, a: xp.linalg.slogdet(a)[1], np.ones((2, 2)), topic=SINGULAR, grad=UNDEFINED),
)

EIGENVALUES = (
    case(
        "eigvalsh-sum-repeated",
        lambda xp, a: xp.sum(xp.linalg.eigvalsh(a)),
        np.eye(2),
        topic=REPEATED,
        grad=np.eye(2),
    ),
    case(
        "eigvalsh-squares-repeated",
        lambda xp, a: xp.sum(xp.linalg.eigvalsh(a) ** 2),
        2 * np.eye(2),
        topic=REPEATED,
        grad=4 * np.eye(2),
    ),
    case(
        "eigvalsh-largest-repeated",
        lambda xp, a: xp.linalg.eigvalsh(a)[1],
        np.eye(2),
        topic=REPEATED,
        grad=members("positive semidefinite of trace 1", _unit_trace),
        unjudged=READS,
    ),
    case(
        "eigvalsh-triangle",
        lambda xp, a: xp.linalg.eigvalsh(a)[0],
        [[2.0, 1.0], [1.0, 3.0]],
        topic=TRIANGLE,
        grad=symmetric([[(5 + 5**0.5) / 10, -1 / 5**0.5], [-1 / 5**0.5, (5 - 5**0.5) / 10]]),
        threads=("HIPS/autograd#296",),
        unjudged=READS,
    ),
    case(
        "eigh-rebuilt-repeated",  # V diag(w) V^T is the matrix itself
        lambda xp, a: _rebuilt(xp, a, [[1.0, 2.0], [2.0, 5.0]]),
        np.eye(2),
        topic=REPEATED,
        grad=symmetric([[1.0, 2.0], [2.0, 5.0]]),
        unjudged=READS,
    ),
    case(
        # L11 = sqrt(a), L21 = b / L11, L22 = sqrt(c - b^2/a) at a = 4, b = 2, c = 3; the sum of all.
        "cholesky-triangle",
        lambda xp, a: xp.sum(xp.linalg.cholesky(a)),
        [[4.0, 2.0], [2.0, 3.0]],
        topic=TRIANGLE,
        grad=symmetric(
            [
                [1 / 4 - 1 / 8 + 1 / (8 * 2**0.5), (1 / 2 - 1 / (2 * 2**0.5)) / 2],
                [(1 / 2 - 1 / (2 * 2**0.5)) / 2, 1 / (2 * 2**0.5)],
            ]
        ),
        unjudged=READS,
    ),
)


def _rebuilt(xp: Any, a: Any, weights: Any) -> Any:
    values, vectors = xp.linalg.eigh(a)
    return xp.sum((vectors * values) @ vectors.T * const(xp, weights))


def _rebuilt_by_svd(xp: Any, a: Any) -> Any:
    u, s, vh = xp.linalg.svd(a, full_matrices=False)
    return xp.sum(((u * s) @ vh) ** 2)


SINGULAR_VALUES = (
    case(
        "svd-rebuilt-repeated",
        _rebuilt_by_svd,
        np.diag([1.0, 1.0, 2.0]),
        topic=REPEATED,
        grad=np.diag([2.0, 2.0, 4.0]),
        threads=("jax-ml/jax#2311", "jax-ml/jax#8732", "pytorch/pytorch#49886"),
    ),
    case(
        "svd-rebuilt-zero",
        _rebuilt_by_svd,
        np.diag([1.0, 0.0]),
        topic=RANK,
        grad=np.diag([2.0, 0.0]),
    ),
    case(
        "svd-values-of-rectangle",  # U V^T
        lambda xp, a: xp.sum(xp.linalg.svd(a, full_matrices=False)[1]),
        [[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]],
        topic="control",
        grad=[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]],
    ),
    case(
        "nuclear-norm-repeated", lambda xp, a: xp.linalg.norm(a, ord="nuc"), np.eye(2), topic=REPEATED, grad=np.eye(2)
    ),
    case(
        "nuclear-norm-of-zeros",
        lambda xp, a: xp.linalg.norm(a, ord="nuc"),
        np.zeros((2, 2)),
        topic=RANK,
        grad=ball(_spectral, "spectral norm at most 1"),
    ),
    case(
        "nuclear-norm-rank-1",
        lambda xp, a: xp.linalg.norm(a, ord="nuc"),
        np.diag([1.0, 0.0]),
        topic=RANK,
        grad=members("diag(1, w) with |w| at most 1", _nuclear_at_rank_one),
    ),
    case(
        "spectral-norm-repeated",
        lambda xp, a: xp.linalg.norm(a, ord=2),
        np.eye(2),
        topic=REPEATED,
        grad=members(
            "convex combinations of v v^T, |v| = 1",
            lambda g, tol: bool(np.allclose(g, g.T, atol=tol)) and _unit_trace(g, tol),
        ),
    ),
    case(
        "column-sum-norm-ties",
        lambda xp, a: xp.linalg.norm(a, ord=1),
        [[1.0, 2.0], [2.0, -1.0]],
        topic="kink",
        grad=members("convex combinations of the two columns' signs", lambda g, tol: _between_columns(g, tol)),
    ),
)


def _between_columns(g: Values, tolerance: float) -> bool:
    share = g[0, 0]
    expected = np.array([[share, 1 - share], [share, share - 1]])
    return bool(-tolerance <= share <= 1 + tolerance and np.allclose(g, expected, atol=10 * tolerance))


_TALL = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])


def _pinv_slope(a: Values) -> Values:
    """Of sum(A^+), the rank kept, with P = A^+:

    dP = -P dA P + P P^T dA^T (I - A P) + (I - P A) dA^T P^T P

    (G. H. Golub, V. Pereyra, The differentiation of pseudo-inverses and nonlinear least squares problems whose
    variables separate, SIAM Journal on Numerical Analysis 10, 1973).
    """
    p = np.linalg.pinv(a)
    ones = np.ones(a.shape)
    left, right = np.eye(len(a)) - a @ p, np.eye(a.shape[1]) - p @ a
    slope = -p.T @ ones.T @ p.T + left @ ones @ p @ p.T + p.T @ p @ ones @ right
    return np.asarray(slope)


def _growing(xp: Any, a: Any) -> Any:
    """A 2 by 2 matrix with a in its corner."""
    top = xp.stack([a, 0.0 * a + 0.4])
    return xp.stack([top, xp.stack([0.0 * a - 0.7, 0.0 * a + 0.9])])


_NILPOTENT = np.array([[0.0, 1.0], [0.0, 0.0]])

# x = A^-1 b with A = [[a, 0.4], [-0.7, 0.9]], b = (1, 2): the sum is (0.9 - 0.8 + 2 a + 0.7) / (0.9 a + 0.28).
_P, _Q, _R, _S = 2.0, 0.8, 0.9, 0.28
_SLOPE = (_P * _S - _Q * _R) / (_R * 1.3 + _S) ** 2
_CURVATURE = -2 * _R * (_P * _S - _Q * _R) / (_R * 1.3 + _S) ** 3

INVERSES = (
    case(
        "trace-of-inverse",
        lambda xp, a: xp.linalg.trace(xp.linalg.inv(a)),
        np.eye(2),
        topic=SECOND,
        grad=-np.eye(2),
        hessian=_INVERSE,
    ),
    case(
        "solve-second-order",
        lambda xp, a: xp.sum(xp.linalg.solve(_growing(xp, a), const(xp, [[1.0], [2.0]]))),
        1.3,
        topic=SECOND,
        grad=_SLOPE,
        hessian=_CURVATURE,
        threads=("pytorch/pytorch#192540",),
    ),
    case("pinv-full-rank", lambda xp, a: xp.sum(xp.linalg.pinv(a)), _TALL, topic=RANK, grad=_pinv_slope(_TALL)),
    # Of pinv itself there is no derivative: a perturbation e of the zero becomes 1/e. Below the cutoff, the rank stays.
    case(
        "pinv-rank-deficient",
        lambda xp, a: xp.sum(xp.linalg.pinv(a)),
        np.diag([1.0, 0.0]),
        topic=RANK,
        grad=limit(rank_kept=_pinv_slope(np.diag([1.0, 0.0]))),
    ),
    case(
        "matrix-power-3",  # 3 (A^2)^T, and 3 tr(H K A + K H A) along H and K
        lambda xp, a: xp.linalg.trace(xp.linalg.matrix_power(a, 3)),
        _NILPOTENT,
        topic=SINGULAR,
        grad=np.zeros((2, 2)),
        hessian=3 * (np.einsum("jk,li->ijkl", np.eye(2), _NILPOTENT) + np.einsum("jk,li->ijkl", _NILPOTENT, np.eye(2))),
    ),
    case(
        "matrix-power-0",
        lambda xp, a: xp.sum(xp.linalg.matrix_power(a, 0)),
        _NILPOTENT,
        topic=SINGULAR,
        grad=np.zeros((2, 2)),
    ),
    case(
        "matrix-power-minus-1",  # -(A^-2)^T
        lambda xp, a: xp.linalg.trace(xp.linalg.matrix_power(a, -1)),
        [[2.0, 0.0], [0.0, 4.0]],
        topic="control",
        grad=[[-0.25, 0.0], [0.0, -0.0625]],
    ),
    case(
        "kron",
        lambda xp, a: xp.sum(
            xp.kron(a, const(xp, [[1.0, 2.0], [3.0, 4.0]])) * const(xp, np.arange(16.0).reshape(4, 4))
        ),
        [[1.0, 2.0], [3.0, 4.0]],
        topic="control",
        grad=[[34.0, 54.0], [114.0, 134.0]],
        threads=("HIPS/autograd#209",),
    ),
    case(
        "trace-of-rectangle",
        lambda xp, a: xp.trace(a),
        np.ones((2, 3)),
        topic="control",
        grad=np.eye(2, 3),
    ),
    case(
        "triu-of-rectangle",
        lambda xp, a: xp.sum(xp.triu(a)),
        np.ones((3, 2)),
        topic="control",
        grad=[[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]],
    ),
)

CASES = (*DETERMINANTS, *EIGENVALUES, *SINGULAR_VALUES, *INVERSES)
