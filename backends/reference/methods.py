"""What makes a tracer feel like an array: Python's operators, indexing, NumPy's names and protocols."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.tracer import Tracer, write, write_all
from adbridge.errors import NotDifferentiable

_OPERANDS = (Tracer, np.ndarray, np.generic, int, float, complex)

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": xp.add,
    "sub": xp.subtract,
    "mul": xp.multiply,
    "truediv": xp.divide,
    "floordiv": xp.floor_divide,
    "mod": xp.remainder,
    "pow": xp.pow,
    "matmul": xp.matmul,
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": xp.equal,
    "ne": xp.not_equal,
    "lt": xp.less,
    "le": xp.less_equal,
    "gt": xp.greater,
    "ge": xp.greater_equal,
    "and": xp.bitwise_and,
    "or": xp.bitwise_or,
    "xor": xp.bitwise_xor,
}

# NumPy's names where they are not the array API's.
_NUMPY_NAMES = {
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
    "invert": "bitwise_invert",
    "power": "pow",
    "true_divide": "divide",
}


def _forward(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: function(self, other) if isinstance(other, _OPERANDS) else NotImplemented


def _reflected(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: function(other, self) if isinstance(other, _OPERANDS) else NotImplemented


def _in_place(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: write_all(self, function, other) if isinstance(other, _OPERANDS) else NotImplemented


def _setitem(self: Tracer, key: Any, value: Any) -> None:
    key, indices = xp.index_of(key)
    write(self, xp.asarray(value), *indices, key=key)


def _from_numpy_name(name: str) -> Callable[..., Any]:
    found = xp.of_tracers(_NUMPY_NAMES.get(name, name))
    if found is None:
        raise NotDifferentiable(
            f"the reference engine has no numpy.{name}; write the function with other operations, or choose "
            "another backend"
        )
    return found  # type: ignore[no-any-return]


def _array_ufunc(self: Tracer, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    if method != "__call__" or kwargs:
        asked = f"numpy.{ufunc.__name__}" + (f".{method}" if method != "__call__" else f"({', '.join(kwargs)}=...)")
        raise NotDifferentiable(f"the reference engine has no {asked} on tracers; write it as a plain call")
    return _from_numpy_name(ufunc.__name__)(*(np.asarray(x) if isinstance(x, (list, tuple)) else x for x in inputs))


def _array_function(self: Tracer, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = func.__name__ if func.__module__ in ("numpy", "numpy.linalg") else f"{func.__module__}.{func.__name__}"
    if name in _CREATION:  # asked for with like=self
        return xp.constant(self, func(*args, **kwargs))
    call = _NUMPY_FUNCTIONS.get(name) or _from_numpy_name(name)
    if name in _AXIS_SECOND and len(args) == 2:
        x, axis = args
        args, kwargs = (x,), {"axis": axis, **kwargs}
    try:
        return call(*args, **kwargs)
    except TypeError:
        if (refusal := _unknown_arguments(name, call, args, kwargs)) is None:
            raise
        raise refusal from None


def _unknown_arguments(name: str, call: Any, args: Any, kwargs: Any) -> NotDifferentiable | None:
    try:
        inspect.signature(call).bind(*args, **kwargs)
    except TypeError as exc:
        return NotDifferentiable(
            f"the reference engine's numpy.{name}: {exc}; it takes {inspect.signature(call)}: write it so, or choose "
            "another backend"
        )
    return None


# NumPy's own signatures, where they are not the array API's.


def _transpose(x: Any, axes: Any = None) -> Any:
    return xp.permute_dims(x, tuple(reversed(range(len(x.shape)))) if axes is None else axes)


def _ravel(x: Any) -> Any:
    return xp.reshape(x, (-1,))


def _cumsum(x: Any, axis: int | None = None) -> Any:
    return xp.cumulative_sum(_ravel(x), axis=0) if axis is None else xp.cumulative_sum(x, axis=axis)


def _take(x: Any, indices: Any, axis: int | None = None) -> Any:
    return xp.take(_ravel(x), indices, axis=0) if axis is None else xp.take(x, indices, axis=axis)


def _squeeze(x: Any, axis: Any = None) -> Any:
    return xp.squeeze(x, tuple(i for i, size in enumerate(x.shape) if size == 1) if axis is None else axis)


def _clip(x: Any, a_min: Any = None, a_max: Any = None) -> Any:
    return xp.clip(x, a_min, a_max)


def _dot(a: Any, b: Any) -> Any:
    a, b = xp.asarray(a), xp.asarray(b)
    if not a.shape or not b.shape:
        return a * b
    return xp.matmul(a, b) if len(b.shape) == 1 else xp.tensordot(a, b, axes=((-1,), (-2,)))


_REDUCTIONS = ("sum", "prod", "mean", "max", "min", "var", "std", "any", "all", "argmax", "argmin")


def _reduction(name: str) -> Callable[..., Any]:
    function = getattr(xp, name)
    return lambda self, axis=None, keepdims=False: function(self, axis=axis, keepdims=keepdims)


def _reshape(self: Tracer, *shape: Any) -> Any:
    return xp.reshape(self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)


_NUMPY_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "clip": _clip,
    "cumsum": _cumsum,
    "dot": _dot,
    "ndim": lambda x: x.ndim,
    "ravel": _ravel,
    "shape": lambda x: x.shape,
    "size": lambda x: x.size,
    "squeeze": _squeeze,
    "take": _take,
    "transpose": _transpose,
}
# NumPy takes the axis by position, the standard by name.
_AXIS_SECOND = frozenset({*_REDUCTIONS, "amax", "amin", "flip", "concatenate", "stack", "expand_dims"})

_CREATION = frozenset({"arange", "empty", "eye", "full", "identity", "ones", "tri", "zeros"})

_METHODS: dict[str, Any] = {
    "__array_namespace__": lambda self, *, api_version=None: xp,
    "__array_ufunc__": _array_ufunc,
    "__array_function__": _array_function,
    "__neg__": xp.negative,
    "__pos__": lambda self: self,
    "__abs__": xp.abs,
    "__invert__": xp.bitwise_invert,
    "__getitem__": xp.getitem,
    "__setitem__": _setitem,
    "T": property(_transpose),
    "mT": property(xp.matrix_transpose),
    "real": property(xp.real),
    "imag": property(xp.imag),
    "astype": xp.astype,
    "reshape": _reshape,
    "conj": xp.conj,
    "flatten": _ravel,
    "ravel": _ravel,
    "cumsum": _cumsum,
    "squeeze": _squeeze,
    "dot": _dot,
    "transpose": lambda self, *axes: _transpose(self, (axes[0] if len(axes) == 1 else axes) or None),
    **{name: _reduction(name) for name in _REDUCTIONS},
    **{f"__{name}__": _forward(function) for name, function in {**_OPERATORS, **_COMPARISONS}.items()},
    **{f"__i{name}__": _in_place(function) for name, function in _OPERATORS.items()},
    **{f"__r{name}__": _reflected(function) for name, function in _OPERATORS.items()},
}


def install() -> None:
    """Give `Tracer` its methods (they need the namespace, which needs `Tracer`)."""
    for name, method in _METHODS.items():
        # A Primitive is callable but is not a function: it would not bind as a method.
        bound = method if isinstance(method, property) else _as_method(method)
        setattr(Tracer, name, bound)


def _as_method(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)
