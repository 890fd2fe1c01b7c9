"""Linear algebra: the matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import Spec, Var, deflinear, primitive, unfit
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


def _left(ct: Any, a: Any, b: Any) -> Any:
    """Y = A B gives A the cotangent C B^T (summed over batch axes that A was broadcast along)."""
    matrix, left, right = _as_matrices(ct, a, b)
    return reshape(unfit(matmul(matrix, swap_last(right)), left), shape=a.shape)


def _right(ct: Any, a: Any, b: Any) -> Any:
    """Y = A B gives B the cotangent A^T C."""
    matrix, left, right = _as_matrices(ct, a, b)
    return reshape(unfit(matmul(swap_last(left), matrix), right), shape=b.shape)


matmul = deflinear(primitive("matmul", np.matmul), _matmul_spec, _left, _right)
