"""Right rules of products of arrays and of linear algebra."""

from __future__ import annotations

from typing import Any

import numpy as np

from .rule import Array, Rule, array, draw, linear, space

_GILES = "M. B. Giles, An extended collection of matrix derivative results, Oxford NA-08/01, 2008"
_MURRAY = "I. Murray, Differentiation of the Cholesky decomposition, arXiv:1602.07527"


def regular(seed: int, *shape: int) -> Array:
    """Well-conditioned square matrices."""
    return 2.0 * np.eye(shape[-1]) + 0.5 * draw(seed, *shape)


# Products.


def transposed(x: Array) -> Array:
    return space(x).matrix_transpose(x)


MATMUL = Rule(
    "matmul",
    lambda a, b: a @ b,
    (draw(21, 3, 4), draw(22, 4, 2)),
    jvp=lambda p, t: (p[0] @ p[1], t[0] @ p[1] + p[0] @ t[1]),
    fwd=lambda a, b: (a @ b, (a, b)),
    bwd=lambda r, ct: (ct @ transposed(r[1]), transposed(r[0]) @ ct),
    source=_GILES,
)
MATMUL_SQUARE = Rule("matmul-square", MATMUL.fun, (draw(23, 3, 3), draw(24, 3, 3)), MATMUL.jvp, MATMUL.fwd, MATMUL.bwd)


def outer(a: Array, b: Array) -> Array:
    return a[:, None] * b[None, :]


OUTER = Rule(
    "outer",
    outer,
    (array(0.5, -1.0, 2.0), array(1.5, 0.2, -0.7)),
    jvp=lambda p, t: (outer(*p), outer(t[0], p[1]) + outer(p[0], t[1])),
    fwd=lambda a, b: (outer(a, b), (a, b)),
    bwd=lambda r, ct: (ct @ r[1], transposed(ct) @ r[0]),
)


def _quadratic(x: Array, a: Array) -> Array:
    return space(x, a).sum(x * (a @ x))


QUADRATIC = Rule(
    "quadratic-form",
    _quadratic,
    (array(0.4, -1.0, 1.7), draw(25, 3, 3)),
    fwd=lambda x, a: (_quadratic(x, a), (x, a)),
    bwd=lambda r, ct: (ct * (r[1] @ r[0] + transposed(r[1]) @ r[0]), ct * outer(r[0], r[0])),
)


def _bilinear(x: Array, t: Array, y: Array) -> Array:
    """The contraction ij, kij, j -> ki, written with broadcasting."""
    xp = space(x, t, y)
    return xp.sum(x[None, :, :] * t * y[None, None, :], axis=-1)


def _bilinear_bwd(r: tuple[Array, Array, Array], ct: Array) -> tuple[Array, Array, Array]:
    x, t, y = r
    xp = space(x, t, y)
    c = ct[:, :, None]
    return (
        xp.sum(c * t * y[None, None, :], axis=0),
        c * x[None, :, :] * y[None, None, :],
        xp.sum(xp.sum(c * t * x[None, :, :], axis=0), axis=0),
    )


CONTRACTION = Rule(
    "contraction",
    _bilinear,
    (draw(26, 2, 3), draw(27, 2, 2, 3), draw(28, 3)),
    jvp=lambda p, t: (
        _bilinear(*p),
        _bilinear(t[0], p[1], p[2]) + _bilinear(p[0], t[1], p[2]) + _bilinear(p[0], p[1], t[2]),
    ),
    fwd=lambda x, t, y: (_bilinear(x, t, y), (x, t, y)),
    bwd=_bilinear_bwd,
)

DENSE = draw(29, 100, 100)


def weights(like: Array) -> Array:
    return space(like).asarray(DENSE, dtype=like.dtype)


DENSE_MAP = linear("dense-map", lambda x: weights(x) @ x, lambda ct: transposed(weights(ct)) @ ct, draw(30, 100))


def _squared_map(x: Array) -> Array:
    return (weights(x) @ x) ** 2


DENSE_SQUARES = Rule(
    "dense-squares",
    _squared_map,
    (draw(31, 100),),
    jvp=lambda p, t: (_squared_map(*p), 2 * (weights(*p) @ p[0]) * (weights(*p) @ t[0])),
    fwd=lambda x: (_squared_map(x), x),
    bwd=lambda x, ct: (transposed(weights(x)) @ (2 * (weights(x) @ x) * ct),),
)


def windows(x: Array, width: int) -> Array:
    """Rows of `width` neighbours, (n - width + 1, width)."""
    xp = space(x)
    length = x.shape[0] - width + 1
    return xp.stack([x[j : j + length] for j in range(width)], axis=1)


def convolve(x: Array, kernel: Array) -> Array:
    return windows(x, kernel.shape[0]) @ kernel


def spread(ct: Array, kernel: Array) -> Array:
    """The transpose of `convolve` in x: the full convolution with the kernel reversed."""
    xp = space(ct, kernel)
    edge = xp.zeros_like(kernel[1:])
    return windows(xp.concat([edge, ct, edge]), kernel.shape[0]) @ xp.flip(kernel)


CONVOLUTION = Rule(
    "convolution",
    convolve,
    (draw(32, 8), array(0.5, -1.0, 0.25)),
    jvp=lambda p, t: (convolve(*p), convolve(t[0], p[1]) + convolve(p[0], t[1])),
    fwd=lambda x, kernel: (convolve(x, kernel), (x, kernel)),
    bwd=lambda r, ct: (spread(ct, r[1]), transposed(windows(r[0], r[1].shape[0])) @ ct),
)

# Linear algebra.


def inverse(a: Array) -> Array:
    return space(a).linalg.inv(a)


def _inv_bwd(c: Array, ct: Array) -> tuple[Array]:
    return (-transposed(c) @ ct @ transposed(c),)


def _inv_jvp(p: tuple[Array], t: tuple[Array]) -> tuple[Array, Array]:
    c = inverse(*p)
    return c, -c @ t[0] @ c


INVERSE = Rule("inverse", inverse, (regular(33, 3, 3),), _inv_jvp, lambda a: (inverse(a),) * 2, _inv_bwd, source=_GILES)
INVERSES = Rule(
    "inverse-of-a-stack",
    inverse,
    (regular(34, 2, 2, 2),),
    _inv_jvp,
    lambda a: (inverse(a),) * 2,
    _inv_bwd,
    source=_GILES,
)


def solve(a: Array, b: Array) -> Array:
    return space(a, b).linalg.solve(a, b)


def _solve_fwd(a: Array, b: Array) -> tuple[Array, Any]:
    x = solve(a, b)
    return x, (a, x)


def _solve_bwd(r: tuple[Array, Array], ct: Array) -> tuple[Array, Array]:
    a, x = r
    g = solve(transposed(a), ct)
    return -outer(g, x), g


SOLVE = Rule(
    "solve",
    solve,
    (regular(35, 3, 3), array(1.0, -0.5, 2.0)),
    jvp=lambda p, t: (solve(*p), solve(p[0], t[1] - t[0] @ solve(*p))),
    fwd=_solve_fwd,
    bwd=_solve_bwd,
    source=_GILES,
)


def _det(a: Array) -> Array:
    return space(a).linalg.det(a)


DET = Rule(
    "det",
    _det,
    (regular(36, 3, 3),),
    jvp=lambda p, t: (_det(*p), _det(*p) * space(*p).sum(transposed(inverse(*p)) * t[0])),
    fwd=lambda a: (_det(a), a),
    bwd=lambda a, ct: (ct * _det(a) * transposed(inverse(a)),),
    domain=lambda a: abs(np.linalg.det(a)) > 1e-3,  # the rule inverts, the function does not
    source=_GILES,
)


def _cholesky(a: Array) -> Array:
    return space(a).linalg.cholesky((a + transposed(a)) / 2)


def _half_lower(xp: Any, x: Array) -> Array:
    """The lower triangle with half of the diagonal."""
    half = xp.asarray(np.tri(x.shape[-1]) - 0.5 * np.eye(x.shape[-1]), dtype=x.dtype)
    return x * half


def _cholesky_jvp(p: tuple[Array], t: tuple[Array]) -> tuple[Array, Array]:
    factor = _cholesky(*p)
    inverted = inverse(factor)
    return factor, factor @ _half_lower(
        space(factor), inverted @ ((t[0] + transposed(t[0])) / 2) @ transposed(inverted)
    )


def _cholesky_bwd(factor: Array, ct: Array) -> tuple[Array]:
    inverted = inverse(factor)
    s = transposed(inverted) @ _half_lower(space(factor), transposed(factor) @ ct) @ inverted
    return ((s + transposed(s)) / 2,)


CHOLESKY = Rule(
    "cholesky",
    _cholesky,
    (array([2.0, 0.3, -0.2], [0.3, 1.5, 0.4], [-0.2, 0.4, 1.8]),),
    _cholesky_jvp,
    lambda a: (_cholesky(a),) * 2,
    _cholesky_bwd,
    source=_MURRAY,
)

ALGEBRA = (
    *(MATMUL, MATMUL_SQUARE, OUTER, QUADRATIC, CONTRACTION, DENSE_MAP, DENSE_SQUARES, CONVOLUTION),
    *(INVERSE, INVERSES, SOLVE, DET, CHOLESKY),
)
