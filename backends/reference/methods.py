"""What makes a tracer feel like an array: Python's operators, indexing, ndarray's methods, NumPy's protocols."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, NoReturn

import numpy as np

from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.dialect.functions import FUNCTIONS, array_function
from adbridge.backends.reference.dialect.shapes import ravel, transpose
from adbridge.backends.reference.dialect.ufuncs import UFUNCS, array_ufunc
from adbridge.backends.reference.primitives import Primitive
from adbridge.backends.reference.tracer import Tracer, View, write, write_all
from adbridge.errors import NotDifferentiable

_OPERANDS = (Tracer, np.ndarray, np.generic, int, float, complex)

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": xp.add,
    "sub": xp.subtract,
    "mul": xp.multiply,
    "truediv": xp.divide,
    "floordiv": xp.floor_divide,
    "mod": xp.remainder,
    "divmod": UFUNCS["divmod"],
    "pow": xp.pow,
    "matmul": xp.matmul,
    "and": xp.bitwise_and,
    "or": xp.bitwise_or,
    "xor": xp.bitwise_xor,
    "lshift": xp.bitwise_left_shift,
    "rshift": xp.bitwise_right_shift,
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": xp.equal,
    "ne": xp.not_equal,
    "lt": xp.less,
    "le": xp.less_equal,
    "gt": xp.greater,
    "ge": xp.greater_equal,
}


def _forward(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    if type(function) is Primitive:
        return _of_primitive(function)

    def method(self: Any, other: Any) -> Any:
        return function(self, other) if type(other) in _KNOWN else _beside(other, lambda other: function(self, other))

    return method


def _beside(other: Any, function: Callable[[Any], Any]) -> Any:
    """What an operator does with any operand: NumPy's take lists and tuples as arrays."""
    if isinstance(other, (list, tuple)):
        return function(xp.asarray(other))
    return function(other) if isinstance(other, _OPERANDS) else NotImplemented


def _of_primitive(primitive: Primitive) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        kind = type(other)
        if type(self) is Tracer and (kind in _PLAIN or (kind is Tracer and other.trace is self.trace)):
            return self.trace.process(primitive, (self, other), {})  # no other level, no view: the short way
        return primitive(self, other) if kind in _KNOWN else _beside(other, lambda other: primitive(self, other))

    return method


def _reflected(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        return function(other, self) if type(other) in _KNOWN else _beside(other, lambda other: function(other, self))

    return method


def _in_place(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        return _beside(other, lambda other: write_all(self, function, other))

    return method


_PLAIN = frozenset({np.ndarray, float, int, np.float64})
_KNOWN = _PLAIN | {Tracer}


def _setitem(self: Tracer, key: Any, value: Any) -> None:
    key, indices = xp.index_of(key)
    if not indices and isinstance(value, View) and value.is_part(self, key):
        return  # y[1:] += z has written to y[1:], which it then assigns to itself
    write(self, xp.asarray(value), *indices, key=key)


# Methods of ndarray that do what NumPy's function of that name does.
_AS_FUNCTIONS = (
    "all", "any", "argmax", "argmin", "argsort", "clip", "cumprod", "cumsum", "diagonal", "dot", "max",
    "mean", "min", "prod", "ravel", "repeat", "round", "searchsorted", "squeeze", "std", "sum", "swapaxes", "take",
    "var",
)  # fmt: skip


def _reshape(self: Tracer, *shape: Any, **options: Any) -> Any:
    return array_function(self, np.reshape, (), (self, shape[0] if len(shape) == 1 else shape), options)


def _method(name: str) -> Callable[..., Any]:
    """By way of the function, which refuses arguments that it does not take."""
    function = getattr(np, name)
    return lambda self, *args, **kwargs: array_function(self, function, (), (self, *args), kwargs)


# Methods that take a tracer out of the trace, or write to it.
_REFUSED = {
    "item": "x.item() would lose its derivative; keep it an array: x[i], or numpy.reshape(x, ()) for the only element",
    "tolist": "x.tolist() would lose its derivative; keep it an array",
    "tobytes": "x.tobytes() would lose its derivative; keep it an array",
    "__reduce_ex__": "pickling x would lose its derivative; return it from the function, and pickle the result",
    "view": "x.view() would show the bytes of numbers that have a derivative; write x.astype(dtype) for a cast",
    "sort": "x.sort() sorts in place; write y = numpy.sort(x)",
    "partition": "x.partition() sorts in place; write y = numpy.sort(x)",
    "fill": "x.fill(value) writes to x; write y = numpy.full_like(x, value)",
    "put": "x.put(indices, values) writes to x; build the array with numpy.where or numpy.concatenate",
    "resize": "x.resize(shape) writes to x; write y = numpy.reshape(x, shape)",
}


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refused(self: Tracer, *args: Any, **kwargs: Any) -> NoReturn:
        shape = ", ".join(map(str, self.shape))
        raise NotDifferentiable(f"of a tracer x of {self.dtype}[{shape}], {_REFUSED[name]}")

    return refused


_METHODS: dict[str, Any] = {
    "__array_namespace__": lambda self, *, api_version=None: xp,
    "__array_ufunc__": array_ufunc,
    "__array_function__": array_function,
    "__neg__": xp.negative,
    "__pos__": lambda self: self,
    "__abs__": xp.abs,
    "__invert__": xp.bitwise_invert,
    "__getitem__": xp.getitem,
    "__setitem__": _setitem,
    "T": property(transpose),
    "mT": property(xp.matrix_transpose),
    "real": property(xp.real),
    "imag": property(xp.imag),
    "flat": property(ravel),
    "itemsize": property(lambda self: self.dtype.itemsize),
    "nbytes": property(lambda self: self.size * self.dtype.itemsize),
    "astype": xp.astype,
    "conj": xp.conj,
    "conjugate": xp.conj,
    "compress": lambda self, condition, axis=None: FUNCTIONS["compress"](condition, self, axis),
    "copy": lambda self, order="C": xp.astype(self, self.dtype),
    "__copy__": lambda self: xp.astype(self, self.dtype),
    "__deepcopy__": lambda self, memo: xp.astype(self, self.dtype),  # a copy of its trace would be another trace
    "flatten": lambda self, order="C": FUNCTIONS["ravel"](self),
    "nonzero": xp.nonzero,
    "reshape": _reshape,
    "to_device": lambda self, device, *, stream=None: self,
    "transpose": lambda self, *axes: transpose(self, (axes[0] if len(axes) == 1 else axes) or None),
    **{name: _method(name) for name in _AS_FUNCTIONS},
    **{name: _refuse(name) for name in _REFUSED},
    **{f"__{name}__": _forward(function) for name, function in {**_OPERATORS, **_COMPARISONS}.items()},
    **{f"__i{name}__": _in_place(function) for name, function in _OPERATORS.items()},
    **{f"__r{name}__": _reflected(function) for name, function in _OPERATORS.items()},
}


def install() -> None:
    """Give `Tracer` its methods (they need the namespace, which needs `Tracer`)."""
    for name, method in _METHODS.items():
        # A Primitive is callable but is not a function: it would not bind as a method.
        bound = method if isinstance(method, (property, FunctionType)) else _as_method(method)
        setattr(Tracer, name, bound)


def _as_method(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)
