"""Linear algebra and Fourier transforms on arrays of Arb balls, batched over leading axes.

Whether a matrix is invertible may be `Undecided`. Eigenvalues and singular values are in `decompositions.py`.

Where a factorisation is unique only up to signs and phases, those of LAPACK are taken, so that a program in
balls is the program that ran in floats.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import flint
import numpy as np
from flint import acb, arb

from adbridge.backends.reference.numbers import Undecided
from adbridge.backends.reference.numbers.conversions import ball, imaginary_part
from adbridge.backends.reference.numbers.decisions import equal, less
from adbridge.backends.reference.numbers.decompositions import (
    adjoint,
    conjugates,
    eigh,
    hermitian,
    identity,
    is_complex,
    svd,
)
from adbridge.backends.reference.numbers.scalars import log, square_root


def _matrix(x: Any) -> Any:
    """flint's matrix of a 2-d array."""
    kind: Any = flint.acb_mat if is_complex(x) else flint.arb_mat
    return kind(*x.shape, [ball(entry) for entry in x.flat])


def _array(matrix: Any) -> Any:
    out = np.empty((matrix.nrows(), matrix.ncols()), object)
    for i, j in np.ndindex(out.shape):
        out[i, j] = matrix[i, j]
    return out


def _certain(question: str, function: Callable[..., Any], *args: Any) -> Any:
    """flint raises these where its balls leave it open."""
    try:
        return function(*args)
    except (ZeroDivisionError, ValueError) as exc:
        raise Undecided(question, bits=flint.ctx.prec) from exc


def _stacked(function: Callable[..., Any], *results: int) -> Callable[..., Any]:
    """A function of matrices, matrix by matrix; `results` are its numbers of axes, one for each result."""

    def over(*stacks: Any, **params: Any) -> Any:
        batch = np.broadcast_shapes(*(x.shape[:-2] for x in stacks))
        stacks = tuple(np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in stacks)
        rows = [function(*(x[i] for x in stacks), **params) for i in np.ndindex(batch)]
        outs = tuple(_stack([row[k] for row in rows], batch, axes) for k, axes in enumerate(results))
        return outs if len(outs) > 1 else outs[0]

    return over


def _stack(parts: list[Any], batch: tuple[int, ...], axes: int) -> Any:
    shape = np.shape(parts[0]) if axes else ()
    out = np.empty((*batch, *shape), object)
    for i, part in zip(np.ndindex(batch), parts, strict=True):
        out[i] = part[()] if isinstance(part, np.ndarray) else part
    return out


def _det(x: Any) -> tuple[Any]:
    return (_matrix(x).det(),)


def inverse(x: Any) -> Any:
    return _array(_certain("whether the matrix is invertible", _matrix(x).inv))


def _solve(a: Any, b: Any) -> tuple[Any]:
    if is_complex(a) or is_complex(b):
        a, b = a * acb(1), b * acb(1)
    return (_array(_certain("whether the matrix is invertible", _matrix(a).solve, _matrix(b))),)


def _slogdet(x: Any) -> tuple[Any, Any]:
    """Of a singular matrix, 0 and -inf."""
    det = _matrix(x).det()
    if det.contains(0) and equal(det, 0):
        return type(det)(0), log(arb(0))
    return det / abs(det), abs(det).log()


def _cholesky(a: Any) -> tuple[Any]:
    """L L^H = A, row by row."""
    a, n = hermitian(a), len(a)
    low = _zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            rest = a[i, j] - (low[i, :j] @ adjoint(low[j : j + 1, :j])).sum()
            low[i, j] = square_root(rest.real) if i == j else rest / low[j, j]
    return (low,)


def _qr(a: Any) -> tuple[Any, Any]:
    """Householder reflections, with the signs of LAPACK's dgeqrf: a column goes to -sign(Re a_kk) times its norm."""
    r, (m, n) = np.array(a), a.shape
    q = identity(m)
    for k in range(min(m, n)):
        tail = r[k:, k]
        lead = tail[0]
        if all(equal(x, 0) for x in tail[1:]) and equal(imaginary_part(lead), 0):
            continue
        norm = (adjoint(tail[:, None]) @ tail)[0].real.sqrt()
        v = np.array(tail)
        v[0] = lead + (-norm if less(lead.real, 0) else norm)
        # Not Hermitian if complex: H^H takes the column to a real number. H^H = I - conj(tau) v v^H, v_0 = 1.
        beta = norm if less(lead.real, 0) else -norm
        v, tau = v / v[0], (beta - lead) / beta
        reflect = identity(m - k) - np.outer(v, adjoint(v[:, None])[0]) * conjugates(tau)
        r[k:] = reflect @ r[k:]
        r[k + 1 :, k] = ball(0)
        q[:, k:] = q[:, k:] @ adjoint(reflect)
    size = min(m, n)
    return q[:, :size], r[:size]


def _pinv(a: Any, rtol: float | None = 0.0) -> tuple[Any]:
    """Singular values up to rtol times the greatest count as 0."""
    u, s, vh = svd(a)
    rank = _rank(s, rtol, a.shape)
    if not rank:
        return (_zeros(a.shape[::-1]),)
    if rank < len(s):
        return ((adjoint(vh[:rank]) / s[:rank]) @ adjoint(u[:, :rank]),)
    wide = adjoint(a)
    return (wide @ inverse(a @ wide) if len(a) < len(wide) else inverse(wide @ a) @ wide,)


def _matrix_rank(a: Any, rtol: float | None) -> tuple[int]:
    return (_rank(svd(a)[1], rtol, a.shape),)


def _rank(s: Any, rtol: float | None, shape: tuple[int, ...]) -> int:
    """Without a tolerance, by NumPy's for float64."""
    rtol = max(shape) * 2.0**-52 if rtol is None else rtol
    return sum(less(s[0] * ball(rtol), x) for x in s)


def _zeros(shape: tuple[int, ...]) -> Any:
    return np.full(shape, ball(0), object)


def _cofactor(a: Any, *directions: Any) -> tuple[Any]:
    """D^k cof(a)[directions]: minors of a, with rows of the directions in the places of k of its rows."""
    out = np.empty(a.shape, object)
    for i, j in np.ndindex(a.shape):
        minor, *others = (np.delete(np.delete(x, i, 0), j, 1) for x in (a, *directions))
        out[i, j] = (-1) ** (i + j) * _det_along(minor, others)
    return (out,)


def _det_along(a: Any, directions: list[Any]) -> Any:
    total = ball(0)
    for rows in itertools.permutations(range(len(a)), len(directions)):
        mixed = np.array(a)
        for row, direction in zip(rows, directions, strict=True):
            mixed[row] = direction[row]
        total = total + _det(mixed)[0]
    return total


# Fourier transforms: products with the matrix of the roots of unity.


def _roots(rows: int, n: int, sign: int) -> Any:
    """exp(sign 2 pi i j k / n) for j < rows, k < n."""
    roots = [acb(arb(2 * sign * k) / n).exp_pi_i() for k in range(n)]
    return np.array([[roots[j * k % n] for k in range(n)] for j in range(rows)], object).reshape(rows, n)


def _applied(matrix: Any, x: Any, axis: int) -> Any:
    return np.moveaxis(np.tensordot(matrix, x, axes=((1,), (axis,))), 0, axis)


def _factor(n: int, norm: str, inverse: bool) -> Any:
    if norm == "ortho":
        return 1 / arb(n).sqrt()
    return 1 / arb(n) if (norm == "backward") == inverse else arb(1)


def _fft(x: Any, axes: tuple[int, ...], norm: str, inverse: bool = False) -> Any:
    for axis in axes:
        n = x.shape[axis]
        x = _applied(_roots(n, n, 1 if inverse else -1), x, axis) * _factor(n, norm, inverse)
    return x


def _rfft(x: Any, axis: int, norm: str) -> Any:
    n = x.shape[axis]
    return _applied(_roots(n // 2 + 1, n, -1), x, axis) * _factor(n, norm, False)


def _irfft(x: Any, n: int, axis: int, norm: str) -> Any:
    """x_j = Re sum_k m_k e^{jk} X_k: the ends stand for themselves, the others for two."""
    weights = np.array([1 if k in (0, n / 2) else 2 for k in range(n // 2 + 1)], object)
    matrix = _roots(n, n, 1)[:, : n // 2 + 1] * weights
    whole = _applied(matrix, x, axis) * _factor(n, norm, True)
    return np.vectorize(lambda z: z.real, otypes=[object])(whole)


MATRICES: dict[str, Callable[..., Any]] = {
    "det": _stacked(_det, 0),
    "inv": _stacked(lambda x: (inverse(x),), 2),
    "solve": _stacked(_solve, 2),
    "slogdet": _stacked(_slogdet, 0, 0),
    "cholesky": _stacked(_cholesky, 2),
    "qr": _stacked(_qr, 2, 2),
    "eigh": _stacked(eigh, 1, 2),
    "svd": _stacked(svd, 2, 1, 2),
    "pinv": _stacked(_pinv, 2),
    "matrix_rank": _stacked(_matrix_rank, 0),
    "fft": _fft,
    "ifft": functools.partial(_fft, inverse=True),
    "rfft": _rfft,
    "irfft": _irfft,
}


def implementation_of(name: str) -> Callable[..., Any] | None:
    """Cofactors of any order are primitives: cofactor, cofactor_1, ..."""
    return _stacked(_cofactor, 2) if name.startswith("cofactor") else MATRICES.get(name)
