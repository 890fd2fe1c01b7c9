"""Factorisations of matrices, and what rests on them. All are batched over leading axes.

Conventions:
- `cholesky` and `eigh` read the lower triangle, as LAPACK does; a tangent counts by its Hermitian part, so that
  cotangents are Hermitian.
- Where a derivative does not exist it gets 0 in the place of 1/0: the turning of eigenvectors (singular vectors)
  among themselves where their eigenvalues (singular values) are equal, and singular values that are 0. "Equal"
  means up to 8 sqrt(n) eps times the largest magnitude, what LAPACK's rounding can make of equal ones. First
  derivatives of what does not depend on the choice of vectors, such as sum_i f(w_i), are right there; so are second
  ones of the sum of equal eigenvalues. Those of an f that is not linear in them lack what mixes equal ones,
  f''(w): write such a function of the matrix without `eigh`.
- Complex vectors have a free phase: that of eigenvectors stands still (v^H dv = 0), that of singular vectors is
  shared evenly between left and right.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import bundle, defjvp, defzero, pick, primitive
from adbridge.backends.reference.rules import reductions
from adbridge.backends.reference.rules.elementwise import abs, imag, less_equal, real, where
from adbridge.backends.reference.rules.linalg import adjoint, diagonal, entries, inv, matmul, solve, swap_last
from adbridge.backends.reference.rules.shaping import getitem, reshape


def _columns(s: Any) -> Any:
    """A vector s as the factors of a matrix's columns: X * _columns(s) = X diag(s)."""
    return reshape(s, shape=(*s.shape[:-1], 1, s.shape[-1]))


def _rows(s: Any) -> Any:
    return reshape(s, shape=(*s.shape, 1))


def _hermitian(t: Any) -> Any:
    return (t + adjoint(t)) / 2


def _roundoff(values: Any) -> Any:
    """Below this a value, or a difference of two, is 0; on a last axis of 1."""
    n = values.shape[-1]
    if n == 0:
        return values
    largest = reductions.max(abs(values), axis=(len(values.shape) - 1,), keepdims=True)
    return largest * (8 * math.sqrt(n) * np.finfo(values.dtype).eps.item())


def _reciprocal(x: Any, roundoff: Any) -> Any:
    """1/x, and 0 where |x| is in the roundoff."""
    none = less_equal(abs(x), roundoff)
    return where(none, 0.0, 1 / where(none, 1.0, x))


# A = L L^H gives dL = L phi(L^{-1} dA L^{-H}), phi the lower triangle with half the diagonal.
# I. Murray, "Differentiation of the Cholesky decomposition", arXiv:1602.07527, 2016, eq. 8.


def _cholesky_rule(t: Any, y: Any, x: Any) -> Any:
    half = solve(y, _hermitian(t))
    n = x.shape[-1]
    phi = np.tri(n, dtype=x.dtype) - np.eye(n, dtype=x.dtype) / 2
    return matmul(y, solve(y, adjoint(half)) * phi)  # L^{-1} dA L^{-H} is its own adjoint


cholesky = defjvp(primitive("cholesky", np.linalg.cholesky), _cholesky_rule)


# A = Q R. With R_1 the first k = min(m, n) columns of R, and W = dA_1 R_1^{-1}: Q^H W = Q^H dQ + dR_1 R_1^{-1} is
# the sum of a skew-Hermitian matrix and an upper triangular one with a real diagonal, which tells them apart.
# S. F. Walter, L. Lehmann, "Algorithmic differentiation of linear algebra functions with application in optimum
# experimental design", arXiv:1001.1654, 2010; the last columns of a wide matrix follow from dR = Q^H dA - Q^H dQ R.


def _qr_rule(t: Any, y: Any, x: Any) -> tuple[Any, Any]:
    q, r = pick(y, index=0), pick(y, index=1)
    k, n = r.shape[-2:]
    first = (..., slice(k))
    lead = getitem(r, key=first)
    w = swap_last(solve(swap_last(lead), swap_last(getitem(t, key=first))))
    p = matmul(adjoint(q), w)
    lower = p * np.tri(k, k, -1, dtype=x.dtype)
    skew = lower - adjoint(lower)
    if x.dtype.kind == "c":
        skew = skew + imag(p) * (1j * np.eye(k, dtype=x.dtype))
    upper = (matmul(adjoint(q), t) - matmul(skew, r)) * np.tri(n, k, dtype=x.dtype).T
    return w - matmul(q, p - skew), upper


qr = bundle("qr", lambda x: tuple(np.linalg.qr(x)), _qr_rule)


# A V = V diag(w). With P = V^H dA V: dw = diag P and V^H dV = P_ij / (w_j - w_i) off the diagonal. Giles, 3.1.


def _eigh_rule(t: Any, y: Any, x: Any) -> tuple[Any, Any]:
    w, v = pick(y, index=0), pick(y, index=1)
    p = matmul(adjoint(v), matmul(_hermitian(t), v))
    gaps = _reciprocal(_columns(w) - _rows(w), _rows(_roundoff(w)))
    return real(diagonal(p, offset=0)), matmul(v, p * gaps)


eigh = bundle("eigh", lambda x: tuple(np.linalg.eigh(x)), _eigh_rule)


# A = U diag(s) V^H. With P = U^H dA V = K + L, K Hermitian and L skew-Hermitian: ds = Re diag P,
# U^H dU = K_ij / (s_j - s_i) + L_ij / (s_j + s_i), V^H dV = K_ij / (s_j - s_i) - L_ij / (s_j + s_i); what dA does
# outside the span of U (or V) turns U (V) out of it. J. Townsend, "Differentiating the singular value decomposition",
# 2016, with its 1 / (s_j^2 - s_i^2) split in two, so that U V^H is right at equal singular values.


def _svd_rule(t: Any, y: Any, x: Any) -> tuple[Any, Any, Any]:
    u, s, vh = (pick(y, index=i) for i in range(3))
    v, (m, n) = adjoint(vh), x.shape[-2:]
    tv = matmul(t, v)
    p = matmul(adjoint(u), tv)
    roundoff = _roundoff(s)
    apart = (p + adjoint(p)) / 2 * _reciprocal(_columns(s) - _rows(s), _rows(roundoff))
    together = (p - adjoint(p)) / 2 * _reciprocal(_columns(s) + _rows(s), _rows(roundoff))
    du, dv = matmul(u, apart + together), matmul(v, apart - together)
    inverse = _columns(_reciprocal(s, roundoff))
    if m > n:
        du = du + (tv - matmul(u, p)) * inverse
    if m < n:
        dv = dv + (matmul(adjoint(t), u) - matmul(v, adjoint(p))) * inverse
    ds = real(diagonal(p, offset=0)) * where(less_equal(s, roundoff), 0.0, 1.0)
    return du, ds, adjoint(dv)


svd = bundle("svd", lambda x: tuple(np.linalg.svd(x, full_matrices=False)), _svd_rule)


# P = A^+ of constant rank: dP = -P dA P + P P^H dA^H (I - A P) + (I - P A) dA^H P^H P. G. H. Golub, V. Pereyra,
# "The differentiation of pseudo-inverses and nonlinear least squares problems whose variables separate",
# SIAM J. Numer. Anal. 10(2), 1973, eq. 4.12.


def _pinv_rule(t: Any, y: Any, x: Any, rtol: float) -> Any:
    th, yh = adjoint(t), adjoint(y)
    rows = matmul(y, matmul(yh, th - matmul(matmul(th, x), y)))
    columns = matmul(matmul(th - matmul(y, matmul(x, th)), yh), y)
    return rows + columns - matmul(matmul(y, t), y)


pinv = defjvp(primitive("pinv", lambda x, rtol: np.linalg.pinv(x, rtol=rtol)), _pinv_rule)
matrix_rank = defzero(primitive("matrix_rank", lambda x, rtol: np.linalg.matrix_rank(x, rtol=rtol)))


# d log det A = tr(A^{-1} dA): its real part is that of log |det A|, its imaginary part turns the sign. Giles, 2.2.4.


def _slogdet_rule(t: Any, y: Any, x: Any) -> tuple[Any, Any]:
    dlog = entries(swap_last(inv(x)) * t)
    return (imag(dlog) * (1j * pick(y, index=0)) if x.dtype.kind == "c" else None), real(dlog)


slogdet = bundle("slogdet", lambda x: tuple(np.linalg.slogdet(x)), _slogdet_rule)
