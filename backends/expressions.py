"""A program of the reference engine as SymPy expressions, one for each element of its outputs.

A row for each primitive: what it is of expressions. What has no derivative (comparisons, roundings, sorts, casts to
integers, signs) stays what it was in the recorded run, a constant; so does each choice (`where`, `maximum`, extrema).
Integer and boolean arrays are NumPy's; floating ones are arrays of objects.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sympy

from adbridge.backends.reference.coverage import has_zero_derivative
from adbridge.backends.reference.primitives import PRIMITIVES, Primitive, Var, peek
from adbridge.backends.reference.program import Equation, Program
from adbridge.backends.reference.rules.shaping import filled
from adbridge.backends.reference.tracer import Recorder, Tracer, concrete
from adbridge.errors import CapabilityError


class Keeper(Recorder):
    """A recorder that keeps the value of each step: choices are looked up there."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, Any] = {}

    def new_input(self, value: Any) -> Tracer:
        tracer = super().new_input(value)
        self.kept[tracer.extra.index] = value
        return tracer

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Tracer:
        tracer = super().process(primitive, args, params)
        self.kept[tracer.extra.index] = tracer.value
        return tracer

    def value(self, x: Any) -> Any:
        return self.kept[x.index] if type(x) is Var else x


class Translator:
    """Translates one program. `outer` collects the symbols of tracers that the function closes over.

    Raises CapabilityError (from `run`): a primitive without a row, or more than `most` nodes in one array.
    """

    def __init__(self, keeper: Keeper, most: int) -> None:
        self.keeper = keeper
        self.most = most
        self.sizes: dict[Any, int] = {}
        self.outer: dict[int, tuple[Tracer, list[Any]]] = {}

    def run(self, program: Program, inputs: Sequence[Any]) -> list[Any]:
        """An array of expressions for each output, of those that the inputs are."""
        found: list[Any] = [None] * program.size
        for var, array in zip(program.inputs, inputs, strict=True):
            found[var.index] = array
        for eq in program.equations:
            found[eq.output.index] = self._step(eq, [self._operand(x, found) for x in eq.inputs])
        return [self._operand(x, found) for x in program.outputs]

    def _operand(self, x: Any, found: list[Any]) -> Any:
        if type(x) is Var:
            return found[x.index]
        if isinstance(x, Tracer) and x.dtype.kind in "fc":
            if id(x) not in self.outer:
                self.outer[id(x)] = x, symbols_like(x, f"c{len(self.outer)}")
            return joined(self.outer[id(x)][1])
        return constant(concrete(x))

    def _step(self, eq: Equation, operands: list[Any]) -> Any:
        name, like = eq.primitive.name, eq.output
        if like.dtype is not None and (like.dtype.kind not in "fc" or has_zero_derivative(eq.primitive)):
            return constant(concrete(self.keeper.value(like)))
        if name in ("abs", "sign") and operands[0].size and eq.inputs[0].dtype.kind == "c":
            name = f"complex {name}"
        if name in CHOICES:
            decide, choose = CHOICES[name]
            decisions = decide(*map(self.keeper.value, (*eq.inputs, like)), **eq.params)
            chosen = choose(*operands, *map(concrete, decisions), **eq.params)
            return self._guarded(name, as_array(_numbers(chosen)))
        translate = implementation_of(name)
        if translate is None:
            raise CapabilityError(
                f"backend 'symbolic' has no SymPy form of {name!r}; write the function with other operations, or "
                "choose another backend"
            )
        beside = tuple(peek(self.keeper.value(x)) for x in eq.inputs) if name in SHIFTED else ()
        return self._guarded(name, as_array(_numbers(translate(*operands, *beside, **eq.params))))

    def _guarded(self, name: str, result: Any) -> Any:
        if (size := self.size(result)) > self.most:
            raise CapabilityError(
                f"backend 'symbolic': at {name!r} the expressions have grown to {size} nodes, more than max_size="
                f"{self.most}; choose another backend, or get_backend('symbolic', max_size=...) and patience"
            )
        return result

    def size(self, array: Any) -> int:
        """Nodes of the expressions, common subexpressions counted each time."""
        return sum(node_count(x, self.sizes) for x in array.flat)


def node_count(x: Any, known: dict[Any, int]) -> int:
    if x not in known:
        known[x] = 1 + sum(node_count(part, known) for part in getattr(x, "args", ()))
    return known[x]


def symbols_like(array: Any, name: str) -> list[Any]:
    """An array of real symbols: ``x`` of a scalar, ``x_0_1`` of a matrix; two of a complex array, for its parts."""
    names = [f"{name}_re", f"{name}_im"] if array.dtype.kind == "c" else [name]
    parts = [np.empty(array.shape, object) for _ in names]
    for part, stem in zip(parts, names, strict=True):
        for i in np.ndindex(array.shape):
            part[i] = sympy.Symbol("_".join([stem, *map(str, i)]), real=True)
    return parts


def joined(symbols: Sequence[Any]) -> Any:
    """The array that the symbols stand for."""
    return symbols[0] if len(symbols) == 1 else as_array(symbols[0] + sympy.I * symbols[1])


def number(x: Any) -> Any:
    """As an integer or a short fraction where it is one, else the float."""
    if isinstance(x, sympy.Basic):
        return x
    if isinstance(x, (complex, np.complexfloating)):
        return number(x.real) + sympy.I * number(x.imag)
    x = float(x)
    if abs(x) < 2**53 and x == int(x):
        return sympy.Integer(int(x))
    if abs(x) < 2**20 and 1024 * x == int(1024 * x):
        return sympy.Rational(int(1024 * x), 1024)
    return sympy.Float(x)


_numbers = np.frompyfunc(number, 1, 1)


def as_array(x: Any) -> Any:
    """NumPy gives elements for 0-d arrays of objects: those in a 0-d array again."""
    if isinstance(x, np.ndarray):
        return x
    out = np.empty((), object)
    out[()] = x
    return out


def constant(x: Any) -> Any:
    """A constant of the program: floats as numbers, all else as it is."""
    if not isinstance(x, (np.ndarray, np.generic, float, complex)):
        return x
    return as_array(_numbers(x)) if np.asarray(x).dtype.kind in "fc" else x


# Elementwise.


def _modulus(z: Any) -> Any:
    return sympy.sqrt(sympy.re(z) ** 2 + sympy.im(z) ** 2)


def _normal_distribution(x: Any) -> Any:
    return (1 + sympy.erf(x / sympy.sqrt(2))) / 2


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "negative": lambda x: -x,
    "square": lambda x: x**2,
    "reciprocal": lambda x: 1 / x,
    "pow": lambda a, b: a**b,
    "sqrt": sympy.sqrt,
    "exp": sympy.exp,
    "exp2": lambda x: 2**x,
    "expm1": lambda x: sympy.exp(x) - 1,
    "log": sympy.log,
    "log1p": lambda x: sympy.log(1 + x),
    "log2": lambda x: sympy.log(x) / sympy.log(2),
    "log10": lambda x: sympy.log(x) / sympy.log(10),
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "asin": sympy.asin,
    "acos": sympy.acos,
    "atan": sympy.atan,
    "atan2": sympy.atan2,
    "sinh": sympy.sinh,
    "cosh": sympy.cosh,
    "tanh": sympy.tanh,
    "asinh": sympy.asinh,
    "acosh": sympy.acosh,
    "atanh": sympy.atanh,
    "hypot": lambda a, b: sympy.sqrt(a**2 + b**2),
    "abs": sympy.Abs,
    "complex abs": _modulus,
    "complex sign": lambda z: z / _modulus(z),
    "real": sympy.re,
    "imag": sympy.im,
    "conj": sympy.conjugate,
    "expit": lambda x: 1 / (1 + sympy.exp(-x)),
    "logit": lambda x: sympy.log(x) - sympy.log(1 - x),
    "log_expit": lambda x: -sympy.log(1 + sympy.exp(-x)),
    "xlogy": lambda x, y: x * sympy.log(y),
    "xlog1py": lambda x, y: x * sympy.log(1 + y),
    "entr": lambda x: -x * sympy.log(x),
    "erf": sympy.erf,
    "erfc": sympy.erfc,
    "erfinv": sympy.erfinv,
    "erfcinv": sympy.erfcinv,
    "erfcx": lambda x: sympy.exp(x**2) * sympy.erfc(x),
    "ndtr": _normal_distribution,
    "ndtri": lambda x: sympy.sqrt(2) * sympy.erfinv(2 * x - 1),
    "log_ndtr": lambda x: sympy.log(_normal_distribution(x)),
    "gamma": sympy.gamma,
    "gammaln": sympy.loggamma,
    "betaln": lambda a, b: sympy.loggamma(a) + sympy.loggamma(b) - sympy.loggamma(a + b),
    "polygamma": lambda x, n: sympy.polygamma(n, x),
    "bessel_j": lambda x, order: sympy.besselj(order, x),
    "bessel_i": lambda x, order: sympy.besseli(order, x),
    "bessel_ie": lambda x, order: sympy.exp(-sympy.Abs(x)) * sympy.besseli(order, x),
}


def over(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of expressions on arrays of them, and of numbers."""

    def elementwise(*arrays: Any, **params: Any) -> Any:
        apply = np.frompyfunc(lambda *xs: function(*map(number, xs), **params), len(arrays), 1)
        return as_array(apply(*arrays))

    return elementwise


# Choices: what the run decided, found from the values of the operands and of the result; and what follows from that.
# Decisions are booleans and whole numbers, so that a prepared call checks these again, not the values.


def _share(x: Any, y: Any, more: Any, less: Any) -> Any:
    """x where it is more, y where it is less, ties shared evenly."""
    return x if more else y if less else (x + y) / 2


def _shares(value: Any, out: Any, axis: tuple[int, ...], keepdims: bool) -> tuple[Any]:
    shape = tuple(1 if i in axis else size for i, size in enumerate(value.shape))
    return (PRIMITIVES["share_of_ties"](value, PRIMITIVES["reshape"](out, shape=shape)),)


def _extremum(x: Any, shares: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """The element that it was, ties shared evenly."""
    return np.sum(constant(shares) * x, axis=axis, keepdims=keepdims)


def _sinc(x: Any, near: Any, order: int = 0) -> Any:
    """sin(pi x) / (pi x), or its Taylor series, whose derivatives do not cancel near 0."""
    u = sympy.Dummy("u", real=True)
    v = sympy.pi * u
    series = sum((-1) ** k * v ** (2 * k) / sympy.factorial(2 * k + 1) for k in range(16))
    return (series if near else sympy.sin(v) / v).diff(u, order).subs(u, x)


def _chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """Elementwise, of numbers and decisions."""

    def choose(*args: Any, **params: Any) -> Any:
        apply = np.frompyfunc(lambda *xs: function(*map(_whole, xs), **params), len(args), 1)
        return apply(*args)

    return choose


def _whole(x: Any) -> Any:
    return bool(x) if isinstance(x, np.bool_) else x if isinstance(x, bool) else number(x)


def _of(name: str, *args: Any) -> Any:
    return PRIMITIVES[name](*args)


CHOICES: dict[str, tuple[Callable[..., tuple[Any, ...]], Callable[..., Any]]] = {
    "where": (lambda c, a, b, y: (c,), lambda _, a, b, c: np.where(c, _numbers(a), _numbers(b))),
    "maximum": (lambda a, b, y: (_of("greater", a, b), _of("less", a, b)), _chosen(_share)),
    "minimum": (lambda a, b, y: (_of("less", a, b), _of("greater", a, b)), _chosen(_share)),
    "max": (_shares, _extremum),
    "min": (_shares, _extremum),
    "sign": (lambda a, y: (y,), _chosen(lambda x, y: y)),
    "cbrt": (
        lambda a, y: (_of("less", a, 0),),
        _chosen(lambda x, less: -sympy.cbrt(-x) if less else sympy.cbrt(x)),
    ),
    "copysign": (
        lambda a, b, y: (_of("not_equal", _of("signbit", a), _of("signbit", y)),),
        _chosen(lambda x, sign, turned: -x if turned else x),
    ),
    "remainder": (lambda a, b, y: (_of("floor_divide", a, b),), _chosen(lambda x, y, times: x - y * times)),
    "fmod": (lambda a, b, y: (_of("trunc", _of("divide", a, b)),), _chosen(lambda x, y, times: x - y * times)),
    "sinc": (lambda a, y, order=0: (_of("less", _of("abs", a), 0.5),), _chosen(_sinc)),
}


# Shifted by numbers near the greatest element, which cancel, so that exponentials stay in range.


def _shift(value: Any) -> Any:
    """Only where it is needed: formulas without it are easier to read."""
    with np.errstate(all="ignore"):
        top = np.max(value.real, initial=-np.inf)
    return number(np.round(top)) if 100 < abs(top) < np.inf else sympy.Integer(0)


def _logaddexp(a: Any, b: Any, *values: Any) -> Any:
    top = max(_shift(np.asarray(values[0])), _shift(np.asarray(values[1])))
    return over(lambda x, y: top + sympy.log(sympy.exp(x - top) + sympy.exp(y - top)))(a, b)


_exp, _log = over(sympy.exp), over(sympy.log)


def _logsumexp(x: Any, value: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    top = _shift(value)
    return _log(as_array(np.sum(_exp(x - top), axis=axis, keepdims=keepdims))) + top


def _softmax(x: Any, value: Any, axis: tuple[int, ...]) -> Any:
    weights = _exp(x - _shift(value))
    return weights / np.sum(weights, axis=axis, keepdims=True)


def _log_softmax(x: Any, value: Any, axis: tuple[int, ...]) -> Any:
    return x - _logsumexp(x, value, axis, True)


SHIFTED: dict[str, Callable[..., Any]] = {
    "logaddexp": _logaddexp,
    "logsumexp": _logsumexp,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}


# Arrays.

AS_IT_IS = frozenset(
    {"broadcast_to", "reshape", "permute_dims", "getitem", "concat", "sum", "cumulative_sum", "matmul", "diagonal"}
    | {"take", "take_along_axis", "convolve"}
)
"""NumPy's own implementation does it, by + and * of the elements."""


def _zeros(shape: tuple[int, ...]) -> Any:
    return np.full(shape, sympy.Integer(0), object)


def _set_at(x: Any, v: Any, *indices: Any, key: Any) -> Any:
    out, v = np.array(x), _numbers(v)
    out[filled(key, indices)] = v[()] if isinstance(v, np.ndarray) else v
    return out


def _add_at(x: Any, v: Any, *indices: Any, key: Any) -> Any:
    out = np.array(_numbers(x), object)
    np.add.at(out, filled(key, indices), v)
    return out


def _add_along(x: Any, indices: Any, axis: int, size: int) -> Any:
    key: list[Any] = list(np.indices(indices.shape, sparse=True))
    key[axis] = indices
    return _add_at(_zeros((*x.shape[:axis], size, *x.shape[axis + 1 :])), x, key=tuple(key))


def _add_taken(x: Any, indices: Any, axis: int, size: int) -> Any:
    shape = (*x.shape[:axis], size, *x.shape[axis + np.ndim(indices) :])
    return _add_at(_zeros(shape), x, key=(*(slice(None),) * axis, indices))


def _from_diagonal(x: Any, offset: int, shape: tuple[int, int]) -> Any:
    out, i = _zeros((*x.shape[:-1], *shape)), np.arange(x.shape[-1])
    out[..., i + max(-offset, 0), i + max(offset, 0)] = x
    return out


def _determinant(x: Any) -> Any:
    """Of each matrix of a stack, by Berkowitz's algorithm: without a division."""
    out = np.empty(x.shape[:-2], object)
    for i in np.ndindex(out.shape):
        out[i] = sympy.Matrix(x[i]).det(method="berkowitz")
    return out


def _solve(a: Any, b: Any) -> Any:
    """By Cramer's rule, for each column of b."""
    vector = b.ndim == 1
    b = b[:, None] if vector else b
    b = np.broadcast_to(b, (*a.shape[:-2], *b.shape[-2:]))
    whole, out = _determinant(a), np.empty(b.shape, object)
    for j in range(b.shape[-2]):
        for k in range(b.shape[-1]):
            replaced = np.array(a)
            replaced[..., j] = b[..., k]
            out[..., j, k] = _determinant(replaced) / whole
    return out[..., 0] if vector else out


ARRAYS: dict[str, Callable[..., Any]] = {
    "astype": lambda x, dtype: _numbers(x),
    "set_at": _set_at,
    "add_at": _add_at,
    "clear_at": lambda x, *indices, key: _set_at(x, 0, *indices, key=key),
    "add_along_axis": _add_along,
    "add_taken": _add_taken,
    "from_diagonal": _from_diagonal,
    "det": _determinant,
    "solve": _solve,
    "inv": lambda a: _solve(a, _numbers(np.broadcast_to(np.eye(a.shape[-1]), a.shape))),
}


@functools.cache
def implementation_of(name: str) -> Callable[..., Any] | None:
    """How the primitive runs on arrays of expressions; None if it does not."""
    if name in ELEMENTWISE:
        return over(ELEMENTWISE[name])
    if name in AS_IT_IS:
        return PRIMITIVES[name].impl
    return ARRAYS.get(name) or SHIFTED.get(name)
