"""NumPy's sums, statistics and sorting, by its own signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.dialect.shapes import diag, ravel
from adbridge.backends.reference.namespace.axes import Axis, axes_of, count_over
from adbridge.backends.reference.namespace.dtypes import as_float, in_dtype
from adbridge.backends.reference.tracer import concrete
from adbridge.errors import NotDifferentiable


def sum(a: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    return xp.sum(a, axis=axis, dtype=dtype, keepdims=keepdims)


def prod(a: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    return xp.prod(a, axis=axis, dtype=dtype, keepdims=keepdims)


def mean(a: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    return xp.mean(in_dtype(a, dtype), axis=axis, keepdims=keepdims)


def var(
    a: Any, axis: Axis = None, dtype: Any = None, ddof: float = 0, keepdims: bool = False, *, correction: Any = None
) -> Any:
    correction = ddof if correction is None else correction
    return xp.var(in_dtype(a, dtype), axis=axis, correction=correction, keepdims=keepdims)


def std(
    a: Any, axis: Axis = None, dtype: Any = None, ddof: float = 0, keepdims: bool = False, *, correction: Any = None
) -> Any:
    correction = ddof if correction is None else correction
    return xp.std(in_dtype(a, dtype), axis=axis, correction=correction, keepdims=keepdims)


def _extremum(name: str) -> Callable[..., Any]:
    function = getattr(xp, name)
    return lambda a, axis=None, keepdims=False: function(a, axis=axis, keepdims=keepdims)


def count_nonzero(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return xp.count_nonzero(a, axis=axis, keepdims=keepdims)


def ptp(a: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    return xp.max(a, axis=axis, keepdims=keepdims) - xp.min(a, axis=axis, keepdims=keepdims)


def _line(a: Any, axis: int | None) -> tuple[Any, int]:
    """NumPy takes None for all elements in a line."""
    return (ravel(a), 0) if axis is None else (a, axis)


def cumsum(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    a, axis = _line(a, axis)
    return xp.cumulative_sum(a, axis=axis, dtype=dtype)


def cumprod(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    a, axis = _line(a, axis)
    return xp.cumulative_prod(a, axis=axis, dtype=dtype)


def average(a: Any, axis: Axis = None, weights: Any = None, returned: bool = False, *, keepdims: bool = False) -> Any:
    a = as_float(xp.asarray(a))
    if weights is None:
        out = xp.mean(a, axis=axis, keepdims=keepdims)
        total: Any = np.full(out.shape, float(count_over(a, axis)))
    else:
        weights = _of_shape(xp.asarray(weights), a, axis)
        total = xp.sum(weights, axis=axis, keepdims=keepdims)
        out = xp.sum(a * weights, axis=axis, keepdims=keepdims) / total
    return (out, xp.broadcast_to(total, out.shape)) if returned else out


def _of_shape(weights: Any, a: Any, axis: Axis) -> Any:
    """Weights of the reduced axes alone lie along those."""
    if weights.shape == a.shape:
        return weights
    axes = axes_of(a, axis)
    if axis is None or weights.shape != tuple(a.shape[i] for i in axes):
        raise TypeError(f"weights of shape {weights.shape} fit neither the array {a.shape} nor its axis {axis}")
    order = sorted(range(len(axes)), key=axes.__getitem__)
    shape = tuple(a.shape[i] if i in axes else 1 for i in range(len(a.shape)))
    return xp.broadcast_to(xp.reshape(xp.permute_dims(weights, order), shape), a.shape)


# Of what is not nan.


def _without_nan(name: str, instead: float) -> Callable[..., Any]:
    function = getattr(xp, name)

    def reduced(a: Any, axis: Axis = None, keepdims: bool = False) -> Any:
        return function(xp.where(xp.isnan(a), instead, a), axis=axis, keepdims=keepdims)

    return reduced


def nanmean(a: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    count = xp.sum(~xp.isnan(a), axis=axis, keepdims=keepdims)
    return xp.sum(xp.where(xp.isnan(a), 0.0, a), axis=axis, keepdims=keepdims) / in_dtype(count, a.dtype)


def nanvar(a: Any, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Any:
    count = in_dtype(xp.sum(~xp.isnan(a), axis=axis, keepdims=keepdims), a.dtype)
    apart = xp.where(xp.isnan(a), 0.0, a - nanmean(a, axis=axis, keepdims=True))
    return xp.sum(xp.square(apart), axis=axis, keepdims=keepdims) / (count - ddof)


def nanstd(a: Any, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Any:
    variance = nanvar(a, axis=axis, ddof=ddof, keepdims=keepdims)
    flat = xp.equal(variance, 0)
    return xp.where(flat, 0.0, xp.sqrt(xp.where(flat, 1.0, variance)))


def nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    limits = np.finfo(x.dtype)
    x = xp.where(xp.isnan(x), nan, x)
    x = xp.where(xp.equal(x, np.inf), limits.max if posinf is None else posinf, x)
    return xp.where(xp.equal(x, -np.inf), limits.min if neginf is None else neginf, x)


# Order statistics: by a sort, at fixed places of it.


def sort(a: Any, axis: int | None = -1, kind: Any = None, *, stable: Any = None) -> Any:
    a, axis = _line(a, axis)
    return xp.sort(a, axis=axis)


def argsort(a: Any, axis: int | None = -1, kind: Any = None, *, stable: Any = None) -> Any:
    a, axis = _line(a, axis)
    return xp.argsort(a, axis=axis)


def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    return xp.searchsorted(xp.asarray(a), xp.asarray(v), side=side, sorter=sorter)


_BETWEEN: dict[str, Callable[[Any], Any]] = {
    "linear": lambda share: share,
    "lower": np.zeros_like,
    "higher": lambda share: np.ceil(share),
    "midpoint": lambda share: np.where(share > 0, 0.5, 0.0),
}


def quantile(a: Any, q: Any, axis: Axis = None, method: str = "linear", keepdims: bool = False) -> Any:
    """The shares q are constants. nan where there is one among the data."""
    if method not in _BETWEEN:
        raise NotDifferentiable(
            f"the reference engine's numpy.quantile has method={' or '.join(map(repr, _BETWEEN))}, not {method!r}; "
            "choose one of these, or another backend"
        )
    a, axes = as_float(a), axes_of(a, axis)
    q = np.asarray(q, dtype=float)
    if np.any((q < 0) | (q > 1)):
        raise ValueError("quantiles must be in the range [0, 1]")
    kept = [i for i in range(len(a.shape)) if i not in axes]
    shape = tuple(a.shape[i] for i in kept)
    rows = xp.sort(xp.reshape(xp.permute_dims(a, (*kept, *axes)), (*shape, count_over(a, axes))), axis=-1)
    place = q.ravel() * (rows.shape[-1] - 1)
    low = np.floor(place).astype(int)
    share = _BETWEEN[method](place - low).astype(a.dtype)
    below = xp.take(rows, low, axis=-1)
    above = xp.take(rows, np.minimum(low + 1, rows.shape[-1] - 1), axis=-1)
    found = below + (above - below) * share
    found = xp.where(xp.isnan(rows[..., -1:]), np.nan, found)  # a sort puts nan last
    if keepdims:
        shape = tuple(1 if i in axes else size for i, size in enumerate(a.shape))
    return xp.reshape(xp.moveaxis(found, -1, 0), (*q.shape, *shape))


def percentile(a: Any, q: Any, axis: Axis = None, method: str = "linear", keepdims: bool = False) -> Any:
    return quantile(a, np.asarray(q, dtype=float) / 100, axis, method, keepdims)


def median(a: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    return quantile(a, 0.5, axis, keepdims=keepdims)


# Covariances.


def cov(m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: Any = None) -> Any:
    rows = _variables(m, rowvar)
    if y is not None:
        rows = xp.concat([rows, _variables(xp.asarray(y), rowvar)], axis=0)
    apart = rows - xp.mean(rows, axis=1, keepdims=True)
    count = rows.shape[1] - ((0 if bias else 1) if ddof is None else ddof)
    return _scalar(xp.matmul(apart, xp.conj(xp.matrix_transpose(apart))) / count)


def _variables(m: Any, rowvar: bool) -> Any:
    if len(m.shape) < 2:
        return xp.reshape(as_float(m), (1, -1))
    return as_float(m if rowvar else xp.matrix_transpose(m))


def _scalar(matrix: Any) -> Any:
    return xp.reshape(matrix, ()) if matrix.shape == (1, 1) else matrix


def corrcoef(x: Any, y: Any = None, rowvar: bool = True) -> Any:
    covariance = cov(x, y, rowvar)
    if not covariance.shape:
        return covariance / covariance
    deviation = xp.sqrt(xp.real(diag(covariance)))
    return covariance / deviation[:, None] / deviation[None, :]


# Comparisons as one number, by the values at hand.


def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    return np.allclose(concrete(a), concrete(b), rtol, atol, equal_nan)


def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    return np.isclose(concrete(a), concrete(b), rtol, atol, equal_nan)


def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> bool:
    return np.array_equal(concrete(a1), concrete(a2), equal_nan)


def unique(ar: Any, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False) -> Any:
    found = xp.unique_all(ar)
    asked = zip((True, return_index, return_inverse, return_counts), found, strict=True)
    parts = tuple(part for wanted, part in asked if wanted)
    return parts[0] if len(parts) == 1 else parts


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        allclose, argsort, array_equal, average, corrcoef, count_nonzero, cov, cumprod, cumsum, isclose, mean, median,
        nan_to_num, nanmean, nanstd, nanvar, percentile, prod, ptp, quantile, searchsorted, sort, std, sum, unique, var,
    )
}  # fmt: skip
FUNCTIONS |= {name: _extremum(name) for name in ("max", "min", "any", "all", "argmax", "argmin")}
FUNCTIONS |= {
    "amax": _extremum("max"),
    "amin": _extremum("min"),
    "nanmax": _without_nan("max", -np.inf),
    "nanmin": _without_nan("min", np.inf),
    "nanprod": _without_nan("prod", 1.0),
    "nansum": _without_nan("sum", 0.0),
}
