"""Programs over Arb balls, in NumPy arrays of objects: the interpreter, and what moves, sums and sorts elements."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flint import acb, arb

from adbridge.backends.reference.numbers import balls, decompositions, matrices
from adbridge.backends.reference.numbers.conversions import NAN, ball, certainly_nan, complex_ball, real_part
from adbridge.backends.reference.numbers.decisions import compare, equal, less, trunc, truth, whole
from adbridge.backends.reference.numbers.scalars import (
    below,
    greater_of,
    larger_middle,
    less_of,
    log,
    log_of_sum,
    method,
    settled,
)
from adbridge.backends.reference.primitives import PRIMITIVES, Primitive, Var
from adbridge.backends.reference.program import Equation, Program
from adbridge.backends.reference.rules.shaping import filled
from adbridge.errors import CapabilityError


def elementwise(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """A function of `count` numbers on arrays of them."""
    each = np.frompyfunc(function, count, 1)

    def over(*arrays: Any) -> Any:
        with np.errstate(all="ignore"):  # a float's nan made a ball raises the processor's flag
            return each(*arrays)

    return over


_complex_balls = elementwise(complex_ball, 1)
_real_balls = elementwise(real_part, 1)
_truths = elementwise(truth, 1)
_wholes = elementwise(whole, 1)


def evaluate(program: Program, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Run a program on arrays of balls, at the working precision."""
    values: list[Any] = [None] * program.size

    def value_of(x: Any) -> Any:
        return values[x.index] if type(x) is Var else constant(x)

    for var, arg in zip(program.inputs, args, strict=True):
        values[var.index] = of_dtype(arg, var.dtype)
    for eq in program.equations:
        values[eq.output.index] = _step(eq, [value_of(x) for x in eq.inputs])
    return tuple(map(value_of, program.outputs))


def constant(x: Any) -> Any:
    """A program's constant: floats as balls, integers and booleans as they are."""
    if isinstance(x, tuple):
        return tuple(map(constant, x))
    if x is None:
        return None
    kind = x.dtype.kind if hasattr(x, "dtype") else np.asarray(x).dtype.kind
    if kind not in "fc":
        return x
    return of_dtype(x, np.dtype(kind + "8"))


def of_dtype(x: Any, dtype: Any) -> Any:
    """An array whose elements are balls if the dtype is floating or complex, real or complex as it is.

    Raises Undecided: the dtype is one of integers or booleans, and it is not certain which one a ball is.
    """
    if dtype is None:  # a bundle
        return tuple(of_dtype(part, np.dtype(float)) if not _is_complex(part) else part for part in x)
    x = as_array(x)
    kind = dtype.kind
    elements = set(map(type, x.ravel())) if x.dtype.kind == "O" else {object}
    if kind in "fc":
        if elements <= {acb if kind == "c" else arb}:
            return x
        return as_array((_complex_balls if kind == "c" else _real_balls)(x))
    if arb in elements:
        x = (_truths if kind == "b" else _wholes)(x)
    return np.asarray(x, dtype)


def as_array(x: Any) -> Any:
    """NumPy gives elements for 0-d arrays of objects: those in a 0-d array again."""
    if isinstance(x, np.ndarray):
        return x
    out = np.empty((), object)
    out[()] = x
    return out


def _is_complex(x: Any) -> bool:
    return np.size(x) > 0 and decompositions.is_complex(x)


def _step(eq: Equation, operands: list[Any]) -> Any:
    return apply(eq.primitive, operands, eq.params, eq.output.dtype)


def apply(primitive: Primitive, operands: Sequence[Any], params: dict[str, Any], dtype: Any) -> Any:
    """A primitive on arrays of balls, integers and booleans; the result's dtype is that which NumPy's would have.

    Raises:
        CapabilityError: it does not run over balls.
        Undecided: it asks what the balls do not determine.
    """
    if dtype is not None and dtype.kind not in "fc" and not any(map(_has_objects, operands)):
        return primitive.impl(*operands, **params)  # integers among themselves
    implementation = implementation_of(primitive.name)
    if implementation is None:
        raise CapabilityError(
            f"the reference engine's {primitive.name!r} does not run over Arb balls; add it to numbers/, or write "
            "the function with other operations"
        )
    return of_dtype(implementation(*operands, **params), dtype)


def _has_objects(x: Any) -> bool:
    return isinstance(x, tuple) or getattr(x, "dtype", None) == np.dtype(object)


@functools.cache
def implementation_of(name: str) -> Callable[..., Any] | None:
    """How the primitive runs on arrays of balls; None if it does not."""
    if name in balls.ELEMENTWISE:
        return _over_elements(balls.ELEMENTWISE[name])
    if name in AS_IT_IS:
        return PRIMITIVES[name].impl
    return ARRAYS.get(name) or matrices.implementation_of(name)


def _over_elements(function: Callable[..., Any]) -> Callable[..., Any]:
    def over(*arrays: Any, **params: Any) -> Any:
        return elementwise(settled(functools.partial(function, **params)), len(arrays))(*arrays)

    return over


AS_IT_IS = frozenset(
    {"where", "broadcast_to", "reshape", "permute_dims", "getitem", "concat", "pick", "sum", "cumulative_sum"}
    | {"last_writes", "matmul", "diagonal", "take", "take_along_axis", "convolve"}
    | {"bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert", "bitwise_left_shift", "bitwise_right_shift"}
)
"""NumPy's own implementation does it, by + and * of the elements; bits are those of integers and booleans."""


# Indexing. An element must not be a 0-d array.


def _set_at(x: Any, v: Any, *indices: Any, key: Any) -> Any:
    out = np.array(x)
    out[filled(key, indices)] = v[()] if isinstance(v, np.ndarray) else v
    return out


def _add_at(x: Any, v: Any, *indices: Any, key: Any) -> Any:
    out = np.array(x)
    np.add.at(out, filled(key, indices), v)
    return out


def _clear_at(x: Any, *indices: Any, key: Any) -> Any:
    return _set_at(x, ball(0), *indices, key=key)


def _zeros(shape: tuple[int, ...]) -> Any:
    return np.full(shape, ball(0), object)


def _add_along(x: Any, indices: Any, axis: int, size: int) -> Any:
    """The transpose of take_along_axis."""
    out = _zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]))
    key: list[Any] = list(np.indices(indices.shape, sparse=True))
    key[axis] = indices
    np.add.at(out, tuple(key), x)
    return out


def _add_taken(x: Any, indices: Any, axis: int, size: int) -> Any:
    """The transpose of take."""
    before, after = x.shape[:axis], x.shape[axis + np.ndim(indices) :]
    out = _zeros((*before, size, *after))
    np.add.at(out, (*(slice(None),) * axis, indices), x)
    return out


def _from_diagonal(x: Any, offset: int, shape: tuple[int, int]) -> Any:
    out, i = _zeros((*x.shape[:-1], *shape)), np.arange(x.shape[-1])
    out[..., i + max(-offset, 0), i + max(offset, 0)] = x
    return out


# Extrema and sorting.


def _along(function: Callable[[Sequence[Any]], Any]) -> Callable[..., Any]:
    """A reduction of lists as one of arrays, over a tuple of axes."""

    def reduced(x: Any, axis: Any, keepdims: bool = False) -> Any:
        axes = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        kept = [i for i in range(x.ndim) if i not in axes]
        rows = np.transpose(x, (*kept, *axes)).reshape((*(x.shape[i] for i in kept), -1))
        out = np.empty(rows.shape[:-1], object)
        for i in np.ndindex(out.shape):
            out[i] = function(list(rows[i]))
        return np.expand_dims(out, axes) if keepdims else out

    return reduced


def _place_of(sign: int) -> Callable[[Sequence[Any]], int]:
    """The first place of the greatest element, or of the smallest; of nan, if there is one."""

    def better(a: Any, b: Any) -> bool:
        return not certainly_nan(b) and (certainly_nan(a) or compare(a, b) == sign)

    return lambda xs: functools.reduce(lambda i, j: j if better(xs[j], xs[i]) else i, range(len(xs)))


def _order(a: Any, b: Any) -> int:
    """As of floats; nan comes last."""
    side = compare(a, b)
    return int(certainly_nan(a)) - int(certainly_nan(b)) if side is None else side


def _argsort(x: Any, axis: int, descending: bool = False) -> Any:
    out = np.empty(x.shape, int)
    for i in np.ndindex(*x.shape[:axis], *x.shape[axis + 1 :]):
        row = (*i[:axis], slice(None), *i[axis:])
        keys = list(map(functools.cmp_to_key(_order), x[row]))
        out[row] = sorted(range(len(keys)), key=keys.__getitem__, reverse=descending)  # stable both ways
    return out


def _searchsorted(x1: Any, x2: Any, side: str = "left", sorter: Any = None) -> Any:
    xs = x1 if sorter is None else x1[sorter]

    def place(v: Any) -> int:
        return sum(1 for x in xs if (less(x, v) if side == "left" else not less(v, x)))

    return elementwise(place, 1)(x2)


# Sums of exponentials. Any shift near the greatest element keeps them in range.

_less_top = elementwise(lambda x, top: below(x, top) if top.is_finite() else NAN, 2)
_exp = elementwise(settled(method("exp")), 1)
_log = elementwise(settled(log), 1)


def _shifted(x: Any, axis: Any) -> Any:
    """x less its greatest; of an infinite greatest there are no shares."""
    return as_array(_less_top(x, _along(lambda xs: larger_middle(*xs))(x, axis, keepdims=True)))


def _softmax(x: Any, axis: Any) -> Any:
    weights = as_array(_exp(_shifted(x, axis)))
    return weights / np.sum(weights, axis=axis, keepdims=True)


def _log_softmax(x: Any, axis: Any) -> Any:
    shifted = _shifted(x, axis)
    return shifted - _log(np.sum(as_array(_exp(shifted)), axis=axis, keepdims=True))


def _astype(x: Any, dtype: Any) -> Any:
    """A cast between floating dtypes rounds nothing; one to integers needs a decision."""
    kind = np.dtype(dtype).kind
    if kind in "fc" or not _has_objects(x):
        return x
    return elementwise(truth if kind == "b" else trunc, 1)(x)


def _share_of_ties(x: Any, y: Any) -> Any:
    """1 where x is the extremum y, shared among ties along the axes in which y has size one."""
    hit = elementwise(lambda a, b: ball(int(equal(a, b))), 2)(x, y)
    return hit / np.sum(hit, axis=tuple(i for i, size in enumerate(y.shape) if size != x.shape[i]), keepdims=True)


ARRAYS: dict[str, Callable[..., Any]] = {
    "astype": _astype,
    "set_at": _set_at,
    "add_at": _add_at,
    "clear_at": _clear_at,
    "add_along_axis": _add_along,
    "add_taken": _add_taken,
    "from_diagonal": _from_diagonal,
    "max": _along(lambda xs: functools.reduce(greater_of, xs)),
    "min": _along(lambda xs: functools.reduce(less_of, xs)),
    "argmax": _along(_place_of(1)),
    "argmin": _along(_place_of(-1)),
    "all": _along(lambda xs: all(map(truth, xs))),
    "any": _along(lambda xs: any(map(truth, xs))),
    "argsort": _argsort,
    "searchsorted": _searchsorted,
    "logsumexp": _along(lambda xs: log_of_sum(*xs)),
    "share_of_ties": _share_of_ties,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}
