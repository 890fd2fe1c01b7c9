"""Linear algebra: the matrix product, diagonals, inverses, determinants. All are batched over leading axes."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import (
    Primitive,
    Rule,
    Spec,
    Var,
    defjvp,
    deflinear,
    deftranspose,
    primitive,
    unfit,
)
from adbridge.backends.reference.rules import reductions
from adbridge.backends.reference.rules.elementwise import conj
from adbridge.backends.reference.rules.shaping import permute_dims, reshape


def _matmul_spec(a: Any, b: Any) -> Spec:
    rows, columns = a.shape[-2:-1], b.shape[-1:] if len(b.shape) > 1 else ()
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return Spec((*batch, *rows, *columns), np.result_type(a.dtype, b.dtype))


def _as_matrices(ct: Any, a: Any, b: Any) -> tuple[Any, Any, Any]:
    """Cotangent and operands with a vector on the left as one row, on the right as one column."""
    rows, columns = (1,) * (len(a.shape) == 1), (1,) * (len(b.shape) == 1)
    batch_rows = ct.shape if columns else ct.shape[:-1]
    shape = (*batch_rows, *rows, *columns) if columns else (*batch_rows, *rows, *ct.shape[-1:])
    return (
        ct if ct.shape == shape else reshape(ct, shape=shape),
        _reshaped(a, (*rows, *a.shape)),
        _reshaped(b, (*b.shape, *columns)),
    )


def _reshaped(x: Any, shape: tuple[int, ...]) -> Any:
    if x.shape == shape:
        return x
    return Spec(shape, x.dtype) if type(x) is Var else reshape(x, shape=shape)


def swap_last(x: Any) -> Any:
    """The transpose of the last two axes."""
    k = len(x.shape)
    return permute_dims(x, axes=(*range(k - 2), k - 1, k - 2))


def adjoint(x: Any) -> Any:
    """The conjugate transpose of the last two axes."""
    return conj(swap_last(x)) if x.dtype.kind == "c" else swap_last(x)


def _left(ct: Any, a: Any, b: Any) -> Any:
    """Y = A B gives A the cotangent C B^T (summed over batch axes that A was broadcast along)."""
    matrix, left, right = _as_matrices(ct, a, b)
    return reshape(unfit(matmul(matrix, swap_last(right)), left), shape=a.shape)


def _right(ct: Any, a: Any, b: Any) -> Any:
    """Y = A B gives B the cotangent A^T C."""
    matrix, left, right = _as_matrices(ct, a, b)
    return reshape(unfit(matmul(swap_last(left), matrix), right), shape=b.shape)


matmul = deflinear(primitive("matmul", np.matmul), _matmul_spec, _left, _right)


# Diagonals of the last two axes; `shape` is that of these axes.


def _diagonal_spec(x: Any, offset: int) -> Spec:
    rows, columns = x.shape[-2:]
    return Spec((*x.shape[:-2], max(0, min(rows + min(offset, 0), columns - max(offset, 0)))), x.dtype)


def _from_diagonal(x: Any, offset: int, shape: tuple[int, int]) -> Any:
    out = np.zeros((*x.shape[:-1], *shape), x.dtype)
    i = np.arange(x.shape[-1])
    out[..., i + max(-offset, 0), i + max(offset, 0)] = x
    return out


diagonal: Primitive = deflinear(
    primitive("diagonal", lambda x, offset: np.diagonal(x, offset, axis1=-2, axis2=-1)),
    _diagonal_spec,
    lambda ct, x, offset: from_diagonal(ct, offset=offset, shape=x.shape[-2:]),
)
from_diagonal: Primitive = deflinear(
    primitive("from_diagonal", _from_diagonal),
    lambda x, offset, shape: Spec((*x.shape[:-1], *shape), x.dtype),
    lambda ct, x, offset, shape: diagonal(ct, offset=offset),
)


# Inverses. Y = A^{-1} gives dY = -Y dA Y, and A Y = B gives dY = A^{-1} (dB - dA Y): M. B. Giles, "An extended
# collection of matrix derivative results for forward and reverse mode AD", Oxford NA-08/01, 2008, 2.2.3 and 2.3.1.


def _solve_spec(a: Any, b: Any) -> Spec:
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return Spec((*batch, *b.shape[-2:]), np.result_type(a.dtype, b.dtype))


inv = defjvp(primitive("inv", np.linalg.inv), lambda t, y, x: -matmul(y, matmul(t, y)))
# b is a matrix, or a stack of them: the namespace makes a vector one column.
solve: Primitive = defjvp(
    primitive("solve", lambda a, b: np.linalg.solve(a, b)),
    lambda t, y, a, b: -solve(a, matmul(t, y)),
    lambda t, y, a, b: solve(a, t),
)
deftranspose(solve, _solve_spec, None, lambda ct, a, b: solve(swap_last(a), ct))


# Determinants. d det A = <cof A, dA> (Jacobi's formula; <X, Y> = sum x_ij y_ij), and the next derivatives go on
# from the cofactor matrix: D^k cof(A)[E_1, ..., E_k] is again linear in each E, and its transpose in E_i is
# itself with the cotangent in the place of E_i, for <C, D^k cof[E]> = D^{k+1} det[C, E] is symmetric.
# A = U diag(s) V^H reduces it to a diagonal matrix, with no division: right at singular matrices of any rank.
# For k = 0 this is G. W. Stewart, "On the adjugate matrix", Linear Algebra and its Applications 283, 1998.


def _products_without(s: Any, k: int) -> Any:
    """P[..., i_1, ..., i_k] = product of the s_l with l other than all i; 0 where two i are the same."""
    n = s.shape[-1]
    indices = np.indices((n,) * k)
    left_out = np.any(indices[..., None] == np.arange(n), axis=0)
    products = np.prod(np.where(left_out, 1, s.reshape(s.shape[:-1] + (1,) * k + (n,))), axis=-1)
    return products * (np.sum(left_out, axis=-1) == k)


def _sign(order: tuple[int, ...]) -> int:
    inversions = sum(order[i] > order[j] for j in range(len(order)) for i in range(j))
    return -1 if inversions % 2 else 1


def _cofactor(a: Any, *directions: Any) -> Any:
    """D^k cof(a)[directions], the sum over permutations of k + 1 rows that is left of Leibniz's formula.

    It takes n^{k+1} numbers, (k + 1)! times.
    """
    u, s, vh = np.linalg.svd(a)
    turned = [np.conj(swap_last(u)) @ e @ np.conj(swap_last(vh)) for e in directions]
    rows = range(len(directions) + 1)
    # Row 0 and its column are those of the result; an axis that both name is the diagonal's.
    products = _products_without(s, len(rows))
    total = np.zeros(np.broadcast_shapes(s.shape, *(e.shape[:-1] for e in turned)) + s.shape[-1:], a.dtype)
    diagonal = np.arange(s.shape[-1])
    for order in itertools.permutations(rows):
        out: list[Any] = [..., 0] if order[0] == 0 else [..., 0, order[0]]
        flat: list[Any] = [part for i, e in enumerate(turned, 1) for part in (e, [..., i, order[i]])]
        term = _sign(order) * np.einsum(products, [..., *rows], *flat, out)
        if order[0] == 0:
            total[..., diagonal, diagonal] += term
        else:
            total += term
    # cof(X Y) = cof(X) cof(Y), and cof(U) = det(U) conj(U) of a unitary U, whose determinant has magnitude 1.
    phase = np.linalg.det(u @ vh)
    phase = phase / np.abs(phase)
    return phase[..., None, None] * (np.conj(u) @ total @ np.conj(vh)).astype(a.dtype)


@functools.cache
def cofactor(k: int) -> Primitive:
    """The primitive (A, E_1, ..., E_k) -> D^k cof(A)[E_1, ..., E_k]; made when it is first asked for."""
    prim = primitive(f"cofactor_{k}" if k else "cofactor", _cofactor)

    def transposed(i: int) -> Rule:
        return lambda ct, *args: prim(*args[:i], ct, *args[i + 1 :])

    def along(i: int) -> Rule:
        return lambda t, y, *args: prim(*args[:i], t, *args[i + 1 :])

    def spec(*args: Any) -> Spec:
        shape = np.broadcast_shapes(*(x.shape for x in args))
        return Spec(shape, np.result_type(*(x.dtype for x in args)))

    places = range(1, k + 1)
    deftranspose(prim, spec, None, *map(transposed, places))
    return defjvp(prim, lambda t, y, *args: cofactor(k + 1)(*args, t), *map(along, places))


def entries(x: Any) -> Any:
    """The sum over the last two axes."""
    return reductions.sum(x, axis=(len(x.shape) - 2, len(x.shape) - 1), keepdims=False)


det = defjvp(primitive("det", np.linalg.det), lambda t, y, x: entries(t * cofactor(0)(x)))

cofactor(0)  # the first of its family, of which the others are made when they are first asked for
