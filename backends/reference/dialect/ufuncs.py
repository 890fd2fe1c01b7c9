"""NumPy's and SciPy's ufuncs on tracers, by their names; and their `reduce`, `accumulate` and `outer`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.namespace.axes import one_axis
from adbridge.backends.reference.namespace.dtypes import as_float
from adbridge.backends.reference.namespace.reductions import scan
from adbridge.backends.reference.primitives import PRIMITIVES
from adbridge.errors import NotDifferentiable

# NumPy's and SciPy's names where they are not the standard's.
NAMES = {
    "absolute": "abs",
    "amax": "max",
    "amin": "min",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "concatenate": "concat",
    "conjugate": "conj",
    "fix": "trunc",
    "invert": "bitwise_invert",
    "left_shift": "bitwise_left_shift",
    "mod": "remainder",
    "power": "pow",
    "psi": "digamma",
    "right_shift": "bitwise_right_shift",
    "rint": "round",
    "true_divide": "divide",
}


def _fabs(x: Any) -> Any:
    return xp.abs(as_float(x))


def _float_power(a: Any, b: Any) -> Any:
    a, b = (xp.astype(xp.asarray(part), np.result_type(xp.asarray(part).dtype, np.float64)) for part in (a, b))
    return xp.pow(a, b)


def _fmax(a: Any, b: Any) -> Any:
    """The other one where one is nan."""
    return xp.where(xp.isnan(a), b, xp.where(xp.isnan(b), a, xp.maximum(a, b)))


def _fmin(a: Any, b: Any) -> Any:
    return xp.where(xp.isnan(a), b, xp.where(xp.isnan(b), a, xp.minimum(a, b)))


def _heaviside(x: Any, at_zero: Any) -> Any:
    side = xp.where(xp.isnan(x), np.nan, xp.where(xp.less(x, 0), 0.0, 1.0))
    return xp.where(xp.equal(x, 0), at_zero, side)


def _degrees(x: Any) -> Any:
    return as_float(x) * (180 / math.pi)


def _radians(x: Any) -> Any:
    return as_float(x) * (math.pi / 180)


def _ldexp(x: Any, n: Any) -> Any:
    """x 2^n, in two steps: 2^n may overflow where the result does not."""
    half = xp.floor_divide(n, 2)
    return x * _power_of_two(half, x) * _power_of_two(xp.subtract(n, half), x)


def _power_of_two(n: Any, like: Any) -> Any:
    return xp.exp2(xp.astype(xp.asarray(n), like.dtype))


def _modf(x: Any) -> tuple[Any, Any]:
    whole = xp.trunc(x)
    return x - whole, whole


def _divmod(a: Any, b: Any) -> tuple[Any, Any]:
    return xp.floor_divide(a, b), xp.remainder(a, b)


def _logaddexp2(a: Any, b: Any) -> Any:
    return xp.logaddexp(xp.multiply(a, math.log(2)), xp.multiply(b, math.log(2))) / math.log(2)


UFUNCS: dict[str, Callable[..., Any]] = {
    "deg2rad": _radians,
    "degrees": _degrees,
    "divmod": _divmod,
    "fabs": _fabs,
    "float_power": _float_power,
    "fmax": _fmax,
    "fmin": _fmin,
    "heaviside": _heaviside,
    "ldexp": _ldexp,
    "logaddexp2": _logaddexp2,
    "modf": _modf,
    "rad2deg": _degrees,
    "radians": _radians,
}


def named(name: str) -> Callable[..., Any] | None:
    """What the ufunc or function `name` is on tracers, if its signature is the standard's."""
    return UFUNCS.get(name) or xp.of_tracers(NAMES.get(name, name))


def array_ufunc(self: Any, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    if ufunc in _ARITHMETIC and method == "__call__" and not kwargs and type(inputs[0]) not in (list, tuple):
        return _ARITHMETIC[ufunc](*inputs)  # of an array and a tracer: the short way
    name = ufunc.__name__
    call = named(name)
    if call is None:
        raise missing(name)
    inputs = tuple(xp.asarray(x) if isinstance(x, (list, tuple)) else x for x in inputs)
    if method != "__call__":
        run = _METHODS.get(method) or _refuse_method
        return run(ufunc, method, call, inputs, kwargs)
    if unknown := {key for key, value in kwargs.items() if value is not None and value is not True}:
        raise in_place(name, unknown) if unknown & {"out", "where"} else _not_taken(name, unknown)
    return call(*inputs)


_ARITHMETIC: dict[np.ufunc, Callable[..., Any]] = {
    getattr(np, name): PRIMITIVES[name] for name in ("add", "subtract", "multiply", "divide", "matmul")
}


def missing(name: str) -> NotDifferentiable:
    return NotDifferentiable(
        f"the reference engine has no numpy.{name}; write the function with other operations, or choose another backend"
    )


def in_place(name: str, unknown: set[str]) -> NotDifferentiable:
    if "out" in unknown:
        return NotDifferentiable(
            f"the reference engine has no numpy.{name}(out=...) on tracers, nor += of a tracer on a NumPy array; "
            f"a result is a new array: write y = numpy.{name}(...), or y = y + x"
        )
    return NotDifferentiable(
        f"the reference engine has no numpy.{name}: got 'where'; choose by numpy.where(condition, {name}(...), other)"
    )


def _not_taken(name: str, unknown: set[str]) -> NotDifferentiable:
    return NotDifferentiable(
        f"the reference engine has no numpy.{name}({', '.join(sorted(unknown))}=...) on tracers; "
        "write it as a plain call"
    )


# Methods of ufuncs.


_REDUCED: dict[str, Callable[..., Any]] = {
    "add": xp.sum,
    "logaddexp": xp.logsumexp,
    "logical_and": xp.all,
    "logical_or": xp.any,
    "maximum": xp.max,
    "minimum": xp.min,
    "multiply": xp.prod,
}
_SCANNED = {"add", "logaddexp", "maximum", "minimum", "multiply"}


def _reduce(ufunc: Any, method: str, call: Any, inputs: Any, kwargs: Any) -> Any:
    x, axis, dtype, keepdims = _arguments(ufunc, method, inputs, kwargs)
    if (reduction := _REDUCED.get(ufunc.__name__)) is None:
        return _refuse_method(ufunc, method, call, inputs, kwargs)
    x = x if dtype is None else xp.astype(x, dtype)
    return reduction(x, axis=axis, keepdims=keepdims)


def _accumulate(ufunc: Any, method: str, call: Any, inputs: Any, kwargs: Any) -> Any:
    """Ties of maximum and minimum share pair by pair."""
    x, axis, dtype, _ = _arguments(ufunc, method, inputs, kwargs)
    if ufunc.__name__ not in _SCANNED:
        return _refuse_method(ufunc, method, call, inputs, kwargs)
    x = x if dtype is None else xp.astype(x, dtype)
    axis = one_axis(f"{ufunc.__name__}.accumulate", x, axis)
    return xp.cumulative_sum(x, axis=axis) if ufunc.__name__ == "add" else scan(call, x, axis)


def _arguments(ufunc: Any, method: str, inputs: Any, kwargs: Any) -> tuple[Any, Any, Any, bool]:
    """``(array, axis, dtype, keepdims)`` of a reduction or an accumulation."""
    x, *rest = inputs
    given = {**dict(zip(("axis", "dtype", "out", "keepdims"), rest, strict=False)), **kwargs}
    unknown = {k for k, v in given.items() if v is not None} - {"axis", "dtype", "keepdims"}
    if unknown:
        asked = f"{ufunc.__name__}.{method}"
        raise in_place(asked, unknown) if unknown & {"out", "where"} else _not_taken(asked, unknown)
    return x, given.get("axis", 0), given.get("dtype"), bool(given.get("keepdims", False))


def _outer(ufunc: Any, method: str, call: Any, inputs: Any, kwargs: Any) -> Any:
    if kwargs:
        raise _not_taken(f"{ufunc.__name__}.outer", set(kwargs))
    a, b = map(xp.asarray, inputs)
    return call(xp.reshape(a, (*a.shape, *(1,) * len(b.shape))), b)


def _refuse_method(ufunc: Any, method: str, call: Any, inputs: Any, kwargs: Any) -> Any:
    raise NotDifferentiable(
        f"the reference engine has no numpy.{ufunc.__name__}.{method} on tracers; write it with plain calls, or choose "
        "another backend"
    )


_METHODS: dict[str, Callable[..., Any]] = {"reduce": _reduce, "accumulate": _accumulate, "outer": _outer}
