"""Functions with closed-form derivatives, of one square matrix, or of one and a vector.

The formulas are those of M. B. Giles, "An extended collection of matrix derivative results for forward and
reverse mode algorithmic differentiation", Oxford University NA-08/01, 2008, unless a row says otherwise. The
matrices are well conditioned: an error that is left is one of a rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import adbridge as ad
from adbridge.bench.problem import Answer, Instance, Problem, Suite, Vector, gradient_answer

Draw = Callable[[np.random.Generator, int], Any]

K = 5  # rows of a plain run


def _problem(name: str, fun: Callable[..., Any], answer: Callable[..., Answer], draw: Draw, n: int, m: int) -> Problem:
    """``fun(xp, *operands)``; ``draw(rng, n)`` makes the operands with about n elements, one or a tuple."""

    def packed(operands: Any) -> Any:
        parts = operands if isinstance(operands, tuple) else (operands,)
        return fun(ad.array_namespace(*parts), *parts)

    def make(n: int, _: int, rng: np.random.Generator) -> Instance:
        return Instance(packed, (draw(rng, n),), answer)

    return Problem(name, make, sizes=((n, m),), free="n")


def _rows(n: int) -> int:
    return max(1, round(math.sqrt(n)))


def _regular(rng: np.random.Generator, n: int) -> Vector:
    """I + R / (2 sqrt k): its condition stays below about 10 at every size."""
    k = _rows(n)
    return np.asarray(np.eye(k) + 0.5 * rng.uniform(-1.0, 1.0, (k, k)) / np.sqrt(k))


def _with_vector(rng: np.random.Generator, n: int) -> tuple[Vector, Vector]:
    k = max(1, round((math.sqrt(4 * n + 1) - 1) / 2))  # k^2 + k = n
    return _regular(rng, k * k), rng.uniform(-1.0, 1.0, k)


def _square(
    name: str,
    fun: Callable[..., Any],
    value: Callable[[Vector], Vector],
    push: Callable[[Vector, Vector], Vector],
    pull: Callable[[Vector, Vector], Vector],
) -> Problem:
    """A matrix-valued function of a matrix: ``push(a, t)`` is J t, ``pull(a, c)`` is J^T c."""

    def answer(a: Vector) -> Answer:
        a = np.asarray(a, float)
        return Answer(value(a), lambda t: push(a, t), lambda c: pull(a, c))

    return _problem(name, fun, answer, _regular, K * K, K * K)


def _scalar(
    name: str, fun: Callable[..., Any], value: Callable[[Vector], Any], gradient: Callable[[Vector], Vector]
) -> Problem:
    def answer(a: Vector) -> Answer:
        a = np.asarray(a, float)
        return gradient_answer(value(a), gradient(a))

    return _problem(name, fun, answer, _regular, K * K, 1)


# Inverses and powers.


def _solve_answer(operands: tuple[Vector, Vector]) -> Answer:
    """A x = b gives dx = A^{-1} (db - dA x); b's cotangent is A^{-T} c, A's is -A^{-T} c x^T."""
    a, b = (np.asarray(part, float) for part in operands)
    inverse = np.linalg.inv(a)
    x = inverse @ b
    return Answer(
        x,
        lambda t: inverse @ (t[1] - t[0] @ x),
        lambda c: (-np.outer(inverse.T @ c, x), inverse.T @ c),
    )


SOLVE = _problem("solve", lambda xp, a, b: xp.linalg.solve(a, b), _solve_answer, _with_vector, K * K + K, K)
INV = _square(
    "inv",
    lambda xp, a: xp.linalg.inv(a),
    np.linalg.inv,
    lambda a, t: -np.linalg.inv(a) @ t @ np.linalg.inv(a),
    lambda a, c: -np.linalg.inv(a).T @ c @ np.linalg.inv(a).T,
)


def _power(p: int) -> Problem:
    """d A^p = the sum of A^i dA A^(p-1-i)."""

    def terms(a: Vector, t: Vector) -> Vector:
        powers = [np.linalg.matrix_power(a, i) for i in range(p)]
        return np.asarray(sum(powers[i] @ t @ powers[p - 1 - i] for i in range(p)))

    return _square(
        f"matrix_power-{p}",
        lambda xp, a: xp.linalg.matrix_power(a, p),
        lambda a: np.linalg.matrix_power(a, p),
        terms,
        lambda a, c: terms(a.T, c),
    )


# Determinants.

DET = _scalar(
    "det",
    lambda xp, a: xp.linalg.det(a),
    np.linalg.det,
    lambda a: np.linalg.det(a) * np.linalg.inv(a).T,
)
SLOGDET = _scalar(
    "slogdet",
    lambda xp, a: xp.linalg.slogdet(a)[1],
    lambda a: np.linalg.slogdet(a)[1],
    lambda a: np.linalg.inv(a).T,
)

# Factorisations of S = A A^T + I, whose dS = dA A^T + A dA^T and A's cotangent is (C + C^T) A for S's C.


def _gram(xp: Any, a: Any) -> Any:
    return a @ xp.matrix_transpose(a) + xp.astype(xp.asarray(np.eye(a.shape[0])), a.dtype)


def _lower_half(x: Vector) -> Vector:
    return np.asarray(np.tril(x) - np.diag(np.diag(x)) / 2)


def _cholesky_answer(a: Vector) -> Answer:
    """dL = L phi(L^{-1} dS L^{-T}), phi the lower half. I. Murray, arXiv:1602.07527, 2016."""
    a = np.asarray(a, float)
    lower = np.linalg.cholesky(_gram(np, a))
    inverse = np.linalg.inv(lower)

    def push(t: Vector) -> Vector:
        return np.asarray(lower @ _lower_half(inverse @ (t @ a.T + a @ t.T) @ inverse.T))

    def pull(c: Vector) -> Vector:
        by_gram = inverse.T @ _lower_half(lower.T @ c) @ inverse
        return np.asarray((by_gram + by_gram.T) @ a)

    return Answer(lower, push, pull)


CHOLESKY = _problem(
    "cholesky", lambda xp, a: xp.linalg.cholesky(_gram(xp, a)), _cholesky_answer, _regular, K * K, K * K
)


def _cubes_of_eigenvalues(a: Vector) -> Answer:
    """sum of w^3 over the eigenvalues of H = (A + A^T) / 2 is tr H^3: its gradient is 3 H^2."""
    h = (np.asarray(a, float) + np.asarray(a, float).T) / 2
    return gradient_answer(np.trace(h @ h @ h), 3 * h @ h)


EIGENVALUES = _problem(
    "eigvalsh",
    lambda xp, a: xp.sum(xp.linalg.eigh((a + xp.matrix_transpose(a)) / 2)[0] ** 3),
    _cubes_of_eigenvalues,
    _regular,
    K * K,
    1,
)


# Norms.


def _polar(a: Vector) -> Vector:
    u, _, vh = np.linalg.svd(a)
    return np.asarray(u @ vh)


def _leading(a: Vector) -> Vector:
    u, _, vh = np.linalg.svd(a)
    return np.outer(u[:, 0], vh[0])


def _column_of_largest_sum(a: Vector) -> Vector:
    sums = np.sum(np.abs(a), axis=0)
    return np.asarray(np.sign(a) * (sums == np.max(sums)))


def _matrix_norm(name: str, ord: Any, gradient: Callable[[Vector], Vector]) -> Problem:
    return _scalar(
        f"matrix_norm-{name}",
        lambda xp, a: xp.linalg.matrix_norm(a, ord=ord),
        lambda a: np.linalg.norm(a, ord),
        gradient,
    )


NORMS = (
    _scalar(
        "vector_norm",
        lambda xp, a: xp.linalg.vector_norm(a),
        np.linalg.norm,
        lambda a: a / np.linalg.norm(a),
    ),
    _matrix_norm("fro", "fro", lambda a: a / np.linalg.norm(a)),
    _matrix_norm("nuc", "nuc", _polar),
    _matrix_norm("2", 2, _leading),
    _matrix_norm("1", 1, _column_of_largest_sum),
)

SUITE = Suite(
    "linalg",
    (SOLVE, INV, _power(3), _power(4), DET, SLOGDET, CHOLESKY, EIGENVALUES, *NORMS),
    "functions of matrices against their closed-form derivatives",
)
