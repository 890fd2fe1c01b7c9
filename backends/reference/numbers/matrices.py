"""Linear algebra and Fourier transforms on arrays of Arb balls, batched over leading axes.

Eigenvalues must be distinct, and matrices under `svd` and `pinv` of full rank: where balls cannot tell, `Undecided`.

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
from adbridge.backends.reference.numbers.balls import ball, equal, less, rounded


def is_complex(x: Any) -> bool:
    return any(isinstance(entry, acb) for entry in np.asarray(x, object).flat)


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


def _adjoint(x: Any) -> Any:
    return np.vectorize(lambda z: z.conjugate() if isinstance(z, acb) else z, otypes=[object])(x).T if x.size else x.T


def _identity(n: int) -> Any:
    return np.array([[ball(int(i == j)) for j in range(n)] for i in range(n)], object).reshape(n, n)


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


def _inv(x: Any) -> tuple[Any]:
    return (_array(_certain("whether the matrix is invertible", _matrix(x).inv)),)


def _solve(a: Any, b: Any) -> tuple[Any]:
    if is_complex(a) or is_complex(b):
        a, b = a * acb(1), b * acb(1)
    return (_array(_certain("whether the matrix is invertible", _matrix(a).solve, _matrix(b))),)


def _slogdet(x: Any) -> tuple[Any, Any]:
    det = _matrix(x).det()
    return det / abs(det), abs(det).log()


def _cholesky(a: Any) -> tuple[Any]:
    """L L^H = A, row by row, from the lower triangle."""
    n = len(a)
    low = np.full((n, n), ball(0), object)
    for i in range(n):
        for j in range(i + 1):
            rest = a[i, j] - (low[i, :j] @ _adjoint(low[j : j + 1, :j])).sum()
            low[i, j] = rest.real.sqrt() if i == j else rest / low[j, j]
    return (low,)


def _qr(a: Any) -> tuple[Any, Any]:
    """Householder reflections, with the signs of LAPACK's dgeqrf: a column goes to -sign(Re a_kk) times its norm."""
    r, (m, n) = np.array(a), a.shape
    q = _identity(m)
    for k in range(min(m, n)):
        tail = r[k:, k]
        lead = tail[0]
        if all(equal(x, 0) for x in tail[1:]) and not is_complex(lead):
            continue
        norm = (_adjoint(tail[:, None]) @ tail)[0].real.sqrt()
        v = np.array(tail)
        v[0] = lead + (-norm if less(lead.real, 0) else norm)
        # Not Hermitian if complex: H^H takes the column to a real number. H^H = I - conj(tau) v v^H, v_0 = 1.
        beta = norm if less(lead.real, 0) else -norm
        v, tau = v / v[0], (beta - lead) / beta
        reflect = _identity(m - k) - np.outer(v, _adjoint(v[:, None])[0]) * _conjugate(tau)
        r[k:] = reflect @ r[k:]
        r[k + 1 :, k] = ball(0)
        q[:, k:] = q[:, k:] @ _adjoint(reflect)
    size = min(m, n)
    return q[:, :size], r[:size]


def _conjugate(z: Any) -> Any:
    return z.conjugate() if isinstance(z, acb) else z


def _eigh(a: Any) -> tuple[Any, Any]:
    """Certified by Arb for distinct eigenvalues; each vector turned to the side of LAPACK's."""
    n = len(a)
    lower = np.array([[_hermitian_entry(a, i, j) for j in range(n)] for i in range(n)], object).reshape(n, n)
    eig = functools.partial(_matrix(lower * acb(1)).eig, right=True)
    values, vectors = _certain("whether the eigenvalues are distinct", eig)
    order = sorted(range(n), key=functools.cmp_to_key(lambda i, j: -1 if less(values[i].real, values[j].real) else 1))
    v, complex_ones = _array(vectors)[:, order], is_complex(a)
    near = np.linalg.eigh(rounded(lower, complex if complex_ones else float))[1]
    for k in range(n):
        v[:, k] = _turned(v[:, k], near[:, k])
    if not complex_ones:
        v = np.vectorize(lambda z: z.real, otypes=[object])(v)
    return np.array([values[i].real for i in order], object), v


def _hermitian_entry(a: Any, i: int, j: int) -> Any:
    """By the lower triangle and the real parts of the diagonal, which is all that LAPACK reads."""
    return a[i, i].real if i == j else a[i, j] if i > j else _conjugate(a[j, i])


def _turned(v: Any, like: Any) -> Any:
    """A unit vector along v whose product with `like` is positive."""
    norm = sum((z * z.conjugate()).real for z in v).sqrt()
    product = sum(acb(complex(a).conjugate()) * z for a, z in zip(like, v, strict=True))
    return v * (product.conjugate() / abs(product)) / norm


def _svd(a: Any) -> tuple[Any, Any, Any]:
    """By the eigenvectors of A^H A (or A A^H): of full rank, with distinct singular values."""
    m, n = a.shape
    if m < n:
        u, s, vh = _svd_tall(_adjoint(a), a)
        return _adjoint(vh), s, _adjoint(u)
    return _svd_tall(a, a)


def _svd_tall(a: Any, given: Any) -> tuple[Any, Any, Any]:
    """The right vectors of a tall matrix on the side of LAPACK's, of the matrix as it was given."""
    squares, v = _eigh(_adjoint(a) @ a)
    s, v = np.array([x.sqrt() for x in squares[::-1]], object), v[:, ::-1]
    near = np.linalg.svd(rounded(given, complex if is_complex(a) else float), full_matrices=False)
    like = np.conj(near[2].T) if given is a else near[0]
    v = np.stack([_turned(v[:, k] * acb(1), like[:, k]) for k in range(len(s))], axis=1)
    if not is_complex(a):
        v = np.vectorize(lambda z: z.real, otypes=[object])(v)
    return (a @ v) / s, s, _adjoint(v)


def _pinv(a: Any, rtol: float = 0.0) -> tuple[Any]:
    """Of full rank, or nobody knows the rank."""
    adjoint = _adjoint(a)
    if len(a) < len(adjoint):
        return (adjoint @ _inv(a @ adjoint)[0],)
    return (_inv(adjoint @ a)[0] @ adjoint,)


def _matrix_rank(a: Any, rtol: float | None) -> tuple[int]:
    """By NumPy's tolerance for float64, if there is none."""
    rtol = max(a.shape) * 2.0**-52 if rtol is None else rtol
    s = _svd(a)[1]
    return (sum(less(s[0] * rtol, x) for x in s),)


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
    "inv": _stacked(_inv, 2),
    "solve": _stacked(_solve, 2),
    "slogdet": _stacked(_slogdet, 0, 0),
    "cholesky": _stacked(_cholesky, 2),
    "qr": _stacked(_qr, 2, 2),
    "eigh": _stacked(_eigh, 1, 2),
    "svd": _stacked(_svd, 2, 1, 2),
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
