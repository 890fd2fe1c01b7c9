"""What makes a tracer feel like an array: Python's operators, indexing, NumPy's names and protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.tracer import Tracer
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
    "and": xp.logical_and,
    "or": xp.logical_or,
    "xor": xp.logical_xor,
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
    "cumsum": "cumulative_sum",
    "power": "pow",
    "true_divide": "divide",
}


def _forward(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: function(self, other) if isinstance(other, _OPERANDS) else NotImplemented


def _reflected(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: function(other, self) if isinstance(other, _OPERANDS) else NotImplemented


def _from_numpy_name(name: str) -> Callable[..., Any]:
    found = vars(xp).get(_NUMPY_NAMES.get(name, name))
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
    return _from_numpy_name(ufunc.__name__)(*inputs)


def _array_function(self: Tracer, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func is np.transpose:
        return _transpose(*args, **kwargs)
    if "axis" in kwargs or len(args) < 2 or func.__name__ in ("concatenate", "stack", "where", "tensordot"):
        return _from_numpy_name(func.__name__)(*args, **kwargs)
    # NumPy takes the axis by position, the standard by name.
    takes_axis = func.__name__ in ("sum", "prod", "mean", "max", "min", "amax", "amin", "var", "std", "cumsum", "flip")
    call = _from_numpy_name(func.__name__)
    return call(args[0], axis=args[1], **kwargs) if takes_axis else call(*args, **kwargs)


def _transpose(x: Any, axes: Any = None) -> Any:
    return xp.permute_dims(x, tuple(reversed(range(x.ndim))) if axes is None else axes)


def _reduction(name: str) -> Callable[..., Any]:
    function = getattr(xp, name)
    return lambda self, axis=None, keepdims=False: function(self, axis=axis, keepdims=keepdims)


def _reshape(self: Tracer, *shape: Any) -> Any:
    return xp.reshape(self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)


_METHODS: dict[str, Any] = {
    "__array_namespace__": lambda self, *, api_version=None: xp,
    "__array_ufunc__": _array_ufunc,
    "__array_function__": _array_function,
    "__neg__": xp.negative,
    "__pos__": lambda self: self,
    "__abs__": xp.abs,
    "__invert__": xp.logical_not,
    "__getitem__": xp.getitem,
    "T": property(_transpose),
    "mT": property(xp.matrix_transpose),
    "real": property(xp.real),
    "imag": property(xp.imag),
    "astype": xp.astype,
    "reshape": _reshape,
    "conj": xp.conj,
    **{name: _reduction(name) for name in ("sum", "prod", "mean", "max", "min", "var", "std", "any", "all")},
    **{f"__{name}__": _forward(function) for name, function in {**_OPERATORS, **_COMPARISONS}.items()},
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
