"""The array API's `linalg` extension, and NumPy's own signatures where they are others.

Arrays are stacks of matrices [..., M, N]. What is missing on tracers, such as `eig`, raises NotDifferentiable by name.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.namespace.contractions import einsum
from adbridge.backends.reference.namespace.creation import asarray
from adbridge.backends.reference.namespace.dtypes import astype
from adbridge.backends.reference.namespace.products import tensordot, vecdot
from adbridge.backends.reference.namespace.reductions import max, min, sum
from adbridge.backends.reference.namespace.shapes import (
    broadcast_to,
    concat,
    expand_dims,
    getitem,
    matrix_transpose,
    permute_dims,
    reshape,
    squeeze,
)
from adbridge.backends.reference.primitives import pick
from adbridge.backends.reference.rules import decompositions, reductions
from adbridge.backends.reference.rules import linalg as products
from adbridge.backends.reference.rules.elementwise import abs, imag, real, sqrt, square, where
from adbridge.errors import NotDifferentiable

EighResult = namedtuple("EighResult", ["eigenvalues", "eigenvectors"])
QRResult = namedtuple("QRResult", ["Q", "R"])
SlogdetResult = namedtuple("SlogdetResult", ["sign", "logabsdet"])
SVDResult = namedtuple("SVDResult", ["U", "S", "Vh"])

LinAlgError = np.linalg.LinAlgError


def __getattr__(name: str) -> Any:
    if name not in ("eig", "eigvals", "lstsq", "cond", "tensorsolve", "tensorinv"):
        raise AttributeError(f"the reference engine's linalg has no {name!r}")
    raise NotDifferentiable(
        f"the reference engine has no linalg.{name}; write the function with other operations (eigh and svd are "
        "here), or choose another backend"
    )


# Products.


def matmul(x1: Any, x2: Any, /) -> Any:
    return products.matmul(x1, x2)


def outer(x1: Any, x2: Any, /) -> Any:
    return reshape(x1, (-1, 1)) * reshape(x2, (1, -1))


def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """Of vectors of three elements along `axis`; the other axes broadcast."""
    for x in (x1, x2):
        if x.shape[axis] != 3:
            raise ValueError(f"cross takes vectors of 3 elements, got {x.shape[axis]} along axis {axis} of {x.shape}")

    def component(x: Any, i: int) -> Any:
        return getitem(x, (*(slice(None),) * (axis % len(x.shape)), slice(i, i + 1)))

    parts = [
        component(x1, i) * component(x2, j) - component(x1, j) * component(x2, i) for i, j in ((1, 2), (2, 0), (0, 1))
    ]
    return concat(parts, axis=axis)


def matrix_power(x: Any, n: int, /) -> Any:
    """By repeated squaring; of the inverse if n is negative."""
    n = operator.index(n)
    if n == 0:
        return broadcast_to(np.eye(x.shape[-1], dtype=x.dtype), x.shape) + 0 * x
    square, n, power = (inv(x), -n, None) if n < 0 else (x, n, None)
    while True:
        if n % 2:
            power = square if power is None else matmul(power, square)
        n //= 2
        if not n:
            return power
        square = matmul(square, square)


# Diagonals.


def diagonal(x: Any, /, *, offset: int = 0) -> Any:
    return products.diagonal(x, offset=operator.index(offset))


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    return sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


# Norms.


def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Any:
    """The `ord`-norm over an axis, several, or all. Its derivative at 0 is 0, ties of ord=inf and -inf share."""
    over = {"axis": axis, "keepdims": keepdims}
    if ord == 0:
        return sum(astype(x != 0, real(x).dtype), **over)
    if ord == math.inf:
        return max(abs(x), **over)
    if ord == -math.inf:
        return min(abs(x), **over)
    if ord == 1:
        return sum(abs(x), **over)
    if ord == 2:
        squares = square(real(x)) + square(imag(x)) if x.dtype.kind == "c" else square(x)
        return _unless_zero(sum(squares, **over), sqrt)
    powers = _unless_zero(abs(x), lambda a: a**ord) if ord > 0 else abs(x) ** ord
    return _unless_zero(sum(powers, **over), lambda total: total ** (1 / ord))


def _unless_zero(x: Any, function: Callable[[Any], Any]) -> Any:
    """function(x), and a constant 0 where x is 0."""
    return where(x == 0, 0.0, function(where(x == 0, 1.0, x)))


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: float | str | None = "fro") -> Any:
    """The `ord`-norm of the last two axes; for 2, -2 and "nuc" by the singular values."""
    rows, columns = len(x.shape) - 2, len(x.shape) - 1
    if ord in ("fro", None):
        return vector_norm(x, axis=(rows, columns), keepdims=keepdims)
    if ord not in _MATRIX_NORMS:
        names = ", ".join(map(repr, ("fro", *_MATRIX_NORMS)))
        raise ValueError(f"ord={ord!r} is not a norm of matrices; choose one of {names}")
    norm = _MATRIX_NORMS[ord](x, rows, columns)
    return reshape(norm, (*norm.shape, 1, 1)) if keepdims else norm


def _sums(x: Any, axis: int) -> Any:
    return sum(abs(x), axis=axis)


_MATRIX_NORMS: dict[Any, Callable[[Any, int, int], Any]] = {
    "nuc": lambda x, rows, columns: sum(svdvals(x), axis=-1),
    1: lambda x, rows, columns: max(_sums(x, rows), axis=-1),
    -1: lambda x, rows, columns: min(_sums(x, rows), axis=-1),
    2: lambda x, rows, columns: max(svdvals(x), axis=-1),
    -2: lambda x, rows, columns: min(svdvals(x), axis=-1),
    math.inf: lambda x, rows, columns: max(_sums(x, columns), axis=-1),
    -math.inf: lambda x, rows, columns: min(_sums(x, columns), axis=-1),
}


# Determinants, inverses, equations.


def det(x: Any, /) -> Any:
    return products.det(x)


def slogdet(x: Any, /) -> Any:
    both = decompositions.slogdet(x)
    return SlogdetResult(*(pick(both, index=i) for i in range(2)))


def inv(x: Any, /) -> Any:
    return products.inv(x)


def solve(x1: Any, x2: Any, /) -> Any:
    """x1 [..., M, M] \\ x2, which is a vector [M] or a stack of matrices [..., M, K]."""
    x1, x2 = asarray(x1), asarray(x2)
    if len(x2.shape) != 1:
        return products.solve(x1, x2)
    return squeeze(products.solve(x1, expand_dims(x2, axis=1)), -1)


def pinv(x: Any, /, *, rtol: Any = None) -> Any:
    """Singular values up to rtol times the largest count as 0; the rank is taken to stay as it is."""
    return decompositions.pinv(x, rtol=rtol)


def matrix_rank(x: Any, /, *, rtol: Any = None) -> Any:
    return decompositions.matrix_rank(x, rtol=rtol)


# Decompositions.


def cholesky(x: Any, /, *, upper: bool = False) -> Any:
    lower = decompositions.cholesky(x)
    return products.adjoint(lower) if upper else lower


def qr(x: Any, /, *, mode: str = "reduced") -> Any:
    m, n = x.shape[-2:]
    if mode not in ("reduced", "complete"):
        raise ValueError(f"qr has no mode {mode!r}; choose 'reduced'")
    if mode == "complete" and m > n:
        raise NotDifferentiable(
            f"the reference engine has no qr(mode='complete') of a {m} x {n} matrix: the last {m - n} columns of Q are "
            "any basis of what A leaves out; use mode='reduced'"
        )
    both = decompositions.qr(x)
    return QRResult(*(pick(both, index=i) for i in range(2)))


def eigh(x: Any, /) -> Any:
    both = decompositions.eigh(x)
    return EighResult(*(pick(both, index=i) for i in range(2)))


def eigvalsh(x: Any, /) -> Any:
    return pick(decompositions.eigh(x), index=0)


def svd(x: Any, /, *, full_matrices: bool = True) -> Any:
    m, n = x.shape[-2:]
    if full_matrices and m != n:
        raise NotDifferentiable(
            f"the reference engine has no svd(full_matrices=True) of a {m} x {n} matrix: the last {abs(m - n)} "
            "singular vectors are any basis of what A leaves out; use full_matrices=False"
        )
    all_three = decompositions.svd(x)
    return SVDResult(*(pick(all_three, index=i) for i in range(3)))


def svdvals(x: Any, /) -> Any:
    return pick(decompositions.svd(x), index=1)


# NumPy's own signatures, where they are not the array API's.


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """A vector's or a matrix's, as `numpy.linalg.norm` decides it."""
    rank = len(x.shape)
    if axis is None and (ord is None or rank == 1):
        y = vector_norm(x, ord=2 if ord is None else ord)
        return reshape(y, (1,) * rank) if keepdims else y
    axes = tuple(np.lib.array_utils.normalize_axis_tuple(range(rank) if axis is None else axis, rank))
    if len(axes) == 1:
        return vector_norm(x, axis=axes, keepdims=keepdims, ord=2 if ord is None else ord)
    if len(axes) != 2:
        raise ValueError(f"norm takes one axis or two, got {len(axes)} of an array of {rank} dimensions")
    rest = [i for i in range(rank) if i not in axes]
    y = matrix_norm(permute_dims(x, (*rest, *axes)), ord=ord)
    return reshape(y, reductions.kept_shape(x.shape, axes)) if keepdims else y


def _last(x: Any, axis1: int, axis2: int) -> Any:
    """The two axes moved to the end."""
    first, second = (axis % len(x.shape) for axis in (axis1, axis2))
    return permute_dims(x, (*(i for i in range(len(x.shape)) if i not in (first, second)), first, second))


def _trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Any:
    return trace(_last(a, axis1, axis2), offset=offset, dtype=dtype)


def _diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return diagonal(_last(a, axis1, axis2), offset=offset)


def _cross(a: Any, b: Any, *, axis: int = -1) -> Any:
    return cross(asarray(a), asarray(b), axis=axis)


def _inner(a: Any, b: Any) -> Any:
    a, b = asarray(a), asarray(b)
    return tensordot(a, b, axes=((-1,), (-1,))) if a.shape and b.shape else a * b


def _kron(a: Any, b: Any) -> Any:
    a, b = asarray(a), asarray(b)
    rank = builtins.max(len(a.shape), len(b.shape))
    left, right = ((1,) * (rank - len(x.shape)) + x.shape for x in (a, b))
    a = reshape(a, tuple(size for n in left for size in (n, 1)))
    b = reshape(b, tuple(size for n in right for size in (1, n)))
    return reshape(a * b, tuple(map(operator.mul, left, right)))


def _multi_dot(arrays: Sequence[Any]) -> Any:
    """In the order that `einsum` finds; the ends may be vectors."""
    first, *rest = map(asarray, arrays)
    labels = [[0, 1] if len(first.shape) == 2 else [1], *([i, i + 1][: len(a.shape)] for i, a in enumerate(rest, 1))]
    ends = [i for i in (0, len(arrays)) if any(i in own for own in labels)]
    return einsum(*(part for pair in zip((first, *rest), labels, strict=True) for part in pair), ends)


def _qr(a: Any, mode: str = "reduced") -> Any:
    return qr(a).R if mode == "r" else qr(a, mode=mode)


def _pinv(a: Any, rcond: Any = None, *, rtol: Any = 1e-15) -> Any:
    return pinv(a, rtol=rtol if rcond is None else rcond)


def _svd(a: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    return svd(a, full_matrices=full_matrices) if compute_uv else svdvals(a)


def _lower_only(function: Callable[[Any], Any]) -> Callable[..., Any]:
    def call(a: Any, UPLO: str = "L") -> Any:
        return function(a if UPLO.upper() == "L" else products.adjoint(a))

    return call


NUMPY: dict[str, Callable[..., Any]] = {
    f"linalg.{function.__name__}": function
    for function in (
        *(matmul, matrix_transpose, vecdot, tensordot, outer, cross, matrix_power, diagonal, trace),
        *(vector_norm, matrix_norm, det, slogdet, inv, solve, matrix_rank, cholesky, svdvals),
    )
}
NUMPY |= {
    "linalg.norm": norm,
    "linalg.multi_dot": _multi_dot,
    "linalg.qr": _qr,
    "linalg.pinv": _pinv,
    "linalg.svd": _svd,
    "linalg.eigh": _lower_only(eigh),
    "linalg.eigvalsh": _lower_only(eigvalsh),
    "trace": _trace,
    "diagonal": _diagonal,
    "cross": _cross,
    "inner": _inner,
    "kron": _kron,
    "outer": lambda a, b: outer(asarray(a), asarray(b)),
    "vdot": lambda a, b: vecdot(reshape(asarray(a), (-1,)), reshape(asarray(b), (-1,))),
    "einsum": einsum,
}
