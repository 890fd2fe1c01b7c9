"""Arrays for the complex step: complex points that refuse what is not analytic, where NumPy would go on in silence.

f'(x) t = Im f(x + i h t) / h + O(h^2) holds for real analytic f alone. NumPy compares complex numbers by their real
parts, sorts them, drops imaginary parts in casts and conjugates in inner products; each of these would end in a
wrong derivative, so here each is an error that names the operation.

W. Squire, G. Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review 40(1), 1998.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from adbridge.errors import CapabilityError
from adbridge.protocol import PROCESS_WIDE, Arrays, FlatFunction

_UFUNCS = frozenset(
    {"greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "maximum", "minimum", "fmax", "fmin"}
    | {"absolute", "fabs", "sign", "signbit", "conjugate", "clip", "vecdot", "vecmat"}
    | {"logical_and", "logical_or", "logical_xor", "logical_not"}
)
_FUNCTIONS = frozenset(
    {"argmax", "argmin", "nanargmax", "nanargmin", "sort", "argsort", "sort_complex", "lexsort", "partition"}
    | {"argpartition", "median", "quantile", "percentile", "searchsorted", "digitize", "interp", "unique", "histogram"}
    | {"nonzero", "flatnonzero", "count_nonzero", "argwhere", "vdot", "cov", "corrcoef", "nan_to_num", "isclose"}
    | {"allclose", "array_equal", "array_equiv", "cholesky", "qr", "pinv", "lstsq", "eig", "eigvals", "matrix_rank"}
)
"""Besides those whose ufuncs, or real results, show what they are."""


def refusal(what: str) -> CapabilityError:
    return CapabilityError(
        f"{what} is not analytic, and the complex step runs the function at complex points; "
        "use scheme='richardson' or 'central', or another backend"
    )


class Stepped(np.ndarray):
    """A complex array whose imaginary part is an infinitesimal."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if ufunc.__name__ in _UFUNCS:
            raise refusal(ufunc.__name__)
        out = kwargs.get("out")
        if out is not None:
            kwargs["out"] = tuple(map(_plain, out))
        try:
            result = getattr(ufunc, method)(*map(_plain, inputs), **kwargs)
        except TypeError as exc:  # of NumPy: no loop for complex numbers, or none into a real array
            raise refusal(ufunc.__name__) from exc
        return out[0] if out is not None and len(out) == 1 else _stepped(result)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func.__name__ in _FUNCTIONS:
            raise refusal(func.__name__)
        result = super().__array_function__(func, types, args, kwargs)
        if any(isinstance(x, (np.ndarray, np.floating)) and x.dtype.kind == "f" for x in _parts(result)):
            raise refusal(func.__name__)
        return _stepped(result)

    def __getitem__(self, key: Any) -> Any:
        return _stepped(super().__getitem__(key))

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        """To a real floating dtype: to the complex one of its precision."""
        dtype = np.dtype(dtype)
        if dtype.kind not in "fc":
            raise refusal(f"a cast to {dtype}")
        return super().astype(np.result_type(dtype, np.complex64), *args, **kwargs)

    def dot(self, b: Any, out: Any = None) -> Any:
        return np.dot(self, b, out)

    def trace(self, *args: Any, **kwargs: Any) -> Any:
        return _stepped(super().trace(*args, **kwargs))


def _refuse(what: str) -> Callable[..., Any]:
    def method(self: Stepped, *args: Any, **kwargs: Any) -> Any:
        raise refusal(what)

    return method


for _name in ("__bool__", "__int__", "__index__", "__float__", "__complex__", "item", "tolist"):
    setattr(Stepped, _name, _refuse(f"{_name.strip('_')}(x)"))
for _name in ("sort", "argsort", "argmax", "argmin", "partition", "argpartition", "searchsorted", "nonzero"):
    setattr(Stepped, _name, _refuse(_name))
for _name in ("conj", "conjugate", "max", "min", "clip", "any", "all"):
    setattr(Stepped, _name, _refuse(_name))
for _name in ("real", "imag"):
    setattr(Stepped, _name, property(_refuse(_name)))


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, Stepped) else x


def _parts(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def _stepped(result: Any) -> Any:
    """Complex arrays and numbers among the results as stepped ones."""
    if type(result) in (tuple, list):
        return type(result)(map(_stepped, result))
    is_complex = isinstance(result, (np.ndarray, np.complexfloating)) and result.dtype.kind == "c"
    return np.asarray(result).view(Stepped) if is_complex else result


def step_of(primals: Arrays) -> float:
    """A step whose square is nothing beside 1, and whose products with derivatives stay far from underflow."""
    return 2.0**-64 if any(x.dtype.itemsize == 4 for x in primals) else 2.0**-332


def jvp(fun: FlatFunction, primals: Arrays, tangents: Arrays, step: float) -> tuple[Arrays, Arrays, Arrays]:
    """``(outputs, tangents of the outputs, aux)``, exact to rounding: no difference is taken.

    Raises CapabilityError: complex primals or outputs, or an operation that is not analytic.
    """
    if any(x.dtype.kind == "c" for x in primals):
        raise CapabilityError(
            "the complex step needs real inputs, got complex ones; use scheme='richardson' or another backend"
        )
    points = [_point(x, step * t) for x, t in zip(primals, tangents, strict=True)]
    with PROCESS_WIDE, warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        try:
            moved, _ = fun(*points)
        except np.exceptions.ComplexWarning as exc:
            raise refusal("writing into a real array") from exc
    outs, aux = fun(*primals)  # last: `fun` remembers the aux of its last run
    if any(out.dtype.kind == "c" for out in outs):
        raise CapabilityError(
            "the complex step needs real outputs, got complex ones; use scheme='richardson', or differentiate "
            "their real and imaginary parts"
        )
    return outs, tuple(_slope(a, b, step) for a, b in zip(moved, outs, strict=True)), aux


def _point(x: Any, moved: Any) -> Stepped:
    point = np.empty(x.shape, np.result_type(x.dtype, np.complex64))
    point.real, point.imag = x, moved
    point.flags.writeable = False
    return point.view(Stepped)


def _slope(moved: Any, out: Any, step: float) -> Any:
    """Real where the function did not use its input; undefined where the function itself is, on the real line."""
    if moved.dtype.kind != "c":
        return np.zeros_like(out)
    slope = np.asarray(np.imag(moved) / step).astype(out.dtype)
    return np.where(np.isnan(out), out, slope)
