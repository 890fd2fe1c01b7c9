"""Eigenvalues and singular values of Arb matrices by Jacobi's method, repeated ones too, validated by residuals.

Jacobi's method runs on midpoints, at more bits than asked for. Of its result, computed in balls:

- Eigenvalues and singular values are enclosed, repeated or not: an approximate basis X of eigenvectors is off by at
  most |A X - X L| / sigma_min(X) in each eigenvalue (Z.-H. Cao, J.-J. Xie, R.-C. Li, Linear Algebra Appl. 237/238,
  1996), and sigma_min(X) follows from |X^H X - I|.
- Vectors are enclosed where their value is certainly apart from the others (Davis and Kahan: residual over gap).
  Elsewhere, any basis of the space they span would do, the one next to LAPACK's is taken, and its balls say only
  that it solves the equations: their radius is that of the residual.

Vectors start from LAPACK's at the rounded matrix, so that signs, phases and bases are LAPACK's, and the same at
all points that round to one. Equal values are noted as ties (`decisions.ties_decided`), with nothing to choose.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import flint
import numpy as np
from flint import acb, arb

from adbridge.backends.reference.numbers.conversions import NAN, ball, rounded, working_precision
from adbridge.backends.reference.numbers.decisions import note

GUARD_BITS = 64
SWEEPS = 100

READINGS = ("lower", "symmetric")
_reading: ContextVar[str] = ContextVar("reading", default="lower")


@contextmanager
def reading(part: str) -> Iterator[None]:
    """What functions of Hermitian matrices (`eigh`, `cholesky`) read while this lasts.

    "lower": the lower triangle and the real part of the diagonal, as LAPACK does; "symmetric": (A + A^H) / 2. The
    two agree on Hermitian matrices, and differ in their derivatives along other directions.
    """
    if part not in READINGS:
        raise ValueError(f"no reading {part!r} of a matrix; choose one of {', '.join(READINGS)}")
    token = _reading.set(part)
    try:
        yield
    finally:
        _reading.reset(token)


# Matrices of balls.

_mids = np.frompyfunc(lambda z: z.mid(), 1, 1)
conjugates = np.frompyfunc(lambda z: z.conjugate() if type(z) is acb else z, 1, 1)


def is_complex(x: Any) -> bool:
    return any(type(entry) is acb for entry in np.asarray(x, object).flat)


def adjoint(x: Any) -> Any:
    return conjugates(x).T


def identity(n: int) -> Any:
    return np.array([[ball(int(i == j)) for j in range(n)] for i in range(n)], object).reshape(n, n)


def hermitian(a: Any) -> Any:
    """The Hermitian matrix that a is read as."""
    if _reading.get() == "symmetric":
        return (a + adjoint(a)) / 2
    n = len(a)
    return np.array([[_by_lower(a, i, j) for j in range(n)] for i in range(n)], object).reshape(n, n)


def _by_lower(a: Any, i: int, j: int) -> Any:
    return a[i, i].real if i == j else a[i, j] if i > j else adjoint(a[j : j + 1, i : i + 1])[0, 0]


def _size(x: Any) -> Any:
    """An upper bound of the Frobenius norm."""
    squares = (arb(abs(z).abs_upper()) ** 2 for z in x.flat)
    return arb(sum(squares, arb(0)).sqrt().abs_upper())


def _squared(column: Any) -> Any:
    return sum((abs(z) ** 2 for z in column), arb(0)).mid()


def _widened(x: Any, radius: Any) -> Any:
    """Exact numbers as balls of a radius."""
    if type(x) is acb:
        return acb(arb(x.real, radius), arb(x.imag, radius))
    return arb(x, radius)


def _orthonormal(near: Any) -> Any:
    """LAPACK's unitary matrix made so to the working precision, by Newton's iteration for the polar factor."""
    v = _mids(np.frompyfunc(ball, 1, 1)(near.astype(object)))
    bits, n = 32, v.shape[1]
    while bits < 2 * flint.ctx.prec:
        v = _mids(v @ (3 * identity(n) - adjoint(v) @ v) / 2)
        bits *= 2
    return v


def _near(factors: Any, a: Any, like: Any) -> Any:
    """What LAPACK makes of the rounded matrix; the identity if it makes nothing of it."""
    with np.errstate(all="ignore"):
        try:
            near = factors(rounded(a, complex if is_complex(a) else float))
        except np.linalg.LinAlgError:
            return np.eye(like)
    return near if np.all(np.isfinite(near)) else np.eye(like)


def _rotation(alpha: Any, beta: Any, gamma: Any) -> tuple[Any, Any]:
    """c and s of the unitary [c, conj(s); -s, c], next to the identity, that makes [alpha, gamma; conj(gamma), beta]
    diagonal. G. H. Golub, C. F. Van Loan, Matrix Computations, 8.5.2.
    """
    size = abs(gamma).mid()
    tau = (beta - alpha) / (2 * size)
    t = (-1 if tau < 0 else 1) / (abs(tau) + (1 + tau * tau).sqrt())
    c = (1 / (1 + t * t).sqrt()).mid()
    return c, (t * c * conjugates(gamma / size)).mid()


def _turn(x: Any, p: int, q: int, c: Any, s: Any) -> None:
    """Rotate two columns into each other."""
    left, right = np.array(x[:, p]), x[:, q]
    x[:, p], x[:, q] = _mids(c * left - s * right), _mids(conjugates(s) * left + c * right)


# Hermitian matrices.


def eigh(a: Any) -> tuple[Any, Any]:
    """Ascending eigenvalues and orthonormal eigenvectors of a Hermitian matrix (`hermitian`), n x n."""
    a, n = hermitian(a), len(a)
    if not all(z.is_finite() for z in a.flat):
        return np.full(n, NAN, object), np.full((n, n), NAN, object)
    with working_precision(flint.ctx.prec + GUARD_BITS):
        v = _orthonormal(_near(lambda x: np.linalg.eigh(x)[1], a, n))
        values = _diagonalised(_mids(adjoint(v) @ _mids(a) @ v), v)
        order = sorted(range(n), key=lambda k: values[k])
        values, v = values[order], v[:, order]
        residual = _size(a @ v - v * values)
        skew = _size(adjoint(v) @ v - identity(n))
        bound = (residual / (1 - skew)).abs_upper()
        radii = _radii(values, values, residual, bound, skew)
        _note_repeated("an eigenvalue and the next", values, bound)
    return _with_radii(values, [bound] * n), _with_radii(v, radii)


def _diagonalised(a: Any, v: Any) -> Any:
    """The diagonal at the end of cyclic sweeps, which v follows."""
    n, scale = len(a), _size(a) * arb(2) ** -flint.ctx.prec
    for _ in range(SWEEPS):
        pairs = [(p, q) for p, q in itertools.combinations(range(n), 2) if abs(a[p, q]) > scale]
        if not pairs:
            break
        for p, q in pairs:
            if abs(a[p, q]) > scale:
                c, s = _rotation(a[p, p].real, a[q, q].real, a[p, q])
                _turn(a, p, q, c, s)
                _turn(a.T, p, q, c, conjugates(s))
                _turn(v, p, q, c, s)
    return np.array([a[k, k].real for k in range(n)], object)


def _radii(values: Any, others: Any, residual: Any, bound: Any, skew: Any) -> list[Any]:
    """Of the vectors of each value: 2 residual / gap, where the gap to all others is certain."""
    scale = max((abs(x) for x in values), default=arb(0))
    loose = residual / scale + skew if scale > 0 else skew
    radii = []
    for k, x in enumerate(values):
        gaps = [abs(x - y) - 2 * bound for j, y in enumerate(others) if j != k]
        gap = min(gaps, default=None)
        radii.append(2 * residual / gap + skew if gap is not None and gap > 2 * bound else loose)
    return [r.abs_upper() for r in radii]


def _with_radii(x: Any, radii: list[Any]) -> Any:
    out = np.empty(x.shape, object)
    for i in np.ndindex(x.shape):
        out[i] = _widened(x[i], radii[i[-1]])
    return out


def _note_repeated(question: str, values: Any, bound: Any) -> None:
    for x, y in itertools.pairwise(values):
        if abs(x - y) <= 2 * bound:
            note(question, x, y, "close")


# Singular values.


def svd(a: Any) -> tuple[Any, Any, Any]:
    """U [m, k], descending singular values [k], V^H [k, n] of an m x n matrix, k = min(m, n)."""
    m, n = a.shape
    if not all(z.is_finite() for z in a.flat):
        k = min(m, n)
        return tuple(np.full(shape, NAN, object) for shape in ((m, k), (k,), (k, n)))  # type: ignore[return-value]
    if m < n:
        u, s, vh = _svd_tall(adjoint(a), _near(lambda x: np.linalg.svd(x, full_matrices=False)[0], a, m))
        return adjoint(vh), s, adjoint(u)
    return _svd_tall(a, _near(lambda x: np.linalg.svd(x, full_matrices=False)[2].conj().T, a, n))


def _svd_tall(a: Any, near: Any) -> tuple[Any, Any, Any]:
    """One-sided: V turns the columns of A V until they are orthogonal. M. R. Hestenes, J. SIAM 6, 1958."""
    n = a.shape[1]
    with working_precision(flint.ctx.prec + GUARD_BITS):
        v = _orthonormal(near)
        b = _mids(_mids(a) @ v)
        _orthogonalised(b, v)
        s = np.array([_squared(b[:, k]).sqrt().mid() for k in range(n)], object)
        order = sorted(range(n), key=lambda k: -s[k])
        b, s, v = b[:, order], s[order], v[:, order]
        least = max(s, default=arb(0)) * arb(2) ** -(flint.ctx.prec - GUARD_BITS // 2)
        s = np.array([x if x > least else arb(0) for x in s], object)
        u = _left(b, s)
        residual = _size(a @ v - u * s)
        skew = (_size(adjoint(v) @ v - identity(n)) + _size(adjoint(u) @ u - identity(n))).abs_upper()
        bound = ((residual + 2 * skew * max(s, default=arb(0))) / (1 - skew)).abs_upper()
        others = [*s, *([arb(0)] if len(a) > n else [])]
        radii = _radii(s, others, 2 * residual, bound, skew)
        _note_repeated("a singular value and the next", [*s, *(x for x in s[-1:] if x <= bound)], bound)
    return _with_radii(u, radii), _with_radii(s, [bound] * n), adjoint(_with_radii(v, radii))


def _orthogonalised(b: Any, v: Any) -> None:
    """Cyclic sweeps; columns that are nothing but rounding errors are left alone."""
    least = (_size(b) * arb(2) ** -(flint.ctx.prec - GUARD_BITS // 4)) ** 2
    for _ in range(SWEEPS):
        settled = True
        for p, q in itertools.combinations(range(b.shape[1]), 2):
            alpha, beta = _squared(b[:, p]), _squared(b[:, q])
            gamma = (conjugates(b[:, p]) @ b[:, q]).mid()
            if alpha > least and beta > least and abs(gamma) ** 2 > alpha * beta * arb(2) ** (-2 * flint.ctx.prec + 16):
                settled = False
                c, s = _rotation(alpha, beta, gamma)
                _turn(b, p, q, c, s)
                _turn(v, p, q, c, s)
        if settled:
            break


def _left(b: Any, s: Any) -> Any:
    """The columns of b as unit vectors; where they vanish, any that are orthogonal to the others."""
    u = np.array(b)
    for k, size in enumerate(s):
        u[:, k] = _mids(b[:, k] / size) if size > 0 else _orthogonal_to(u[:, :k])
    return u


def _orthogonal_to(u: Any) -> Any:
    """The unit vector that is farthest from the columns' space, less what lies in it, twice."""
    m = len(u)
    inside = [_squared(u[i]) for i in range(m)]
    vector = identity(m)[:, min(range(m), key=inside.__getitem__)]
    for _ in range(2):
        vector = _mids(vector - u @ (adjoint(u) @ vector)) if u.shape[1] else vector
    return _mids(vector / _squared(vector).sqrt())
