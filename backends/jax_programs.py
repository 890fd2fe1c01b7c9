"""A JAX function as a function of any array namespace: its jaxpr, interpreted with the reference engine's operations.

So plain JAX code runs in Arb arithmetic, and can be judged to the last place. Custom rules are passed by: of a
function with `jax.custom_vjp` or `custom_jvp` the primal runs. What only moves elements (indexing, padding,
transposing) is run by JAX itself once, on the elements' numbers, and then done by one `take`. Branches and loops follow
the values at hand.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.primitives import Traced
from adbridge.backends.reference.tracer import concrete
from adbridge.errors import CapabilityError
from adbridge.protocol import Arrays

Row = Callable[..., Any]
"""``row(*operands, **params)``: the result, or a tuple of the results."""


def interpreted(fun: Callable[..., Arrays], arrays: Arrays) -> Callable[..., Arrays]:
    """``fun`` of the reference engine's arrays in place of JAX's; `arrays` are NumPy arrays of the shapes and dtypes.

    Raises CapabilityError, when called: a primitive that has no row here.
    """
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(lambda *xs: tuple(fun(*xs)))(*map(_abstract, arrays))

    def run(*operands: Any) -> Arrays:
        return tuple(_run(closed, operands))

    return run


def _abstract(array: Any) -> Any:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)  # type: ignore[no-untyped-call]  # JAX's own annotation lacks


def _run(closed: Any, operands: Sequence[Any]) -> list[Any]:
    jaxpr = getattr(closed, "jaxpr", closed)  # that of a checkpoint is not closed
    known: dict[Any, Any] = {}
    known.update(zip(jaxpr.constvars, map(_constant, getattr(closed, "consts", ())), strict=True))
    known.update(zip(jaxpr.invars, operands, strict=True))

    def read(atom: Any) -> Any:
        return _constant(atom.val) if hasattr(atom, "val") else known[atom]

    for eqn in jaxpr.eqns:
        results = _apply(eqn, [read(atom) for atom in eqn.invars])
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _constant(value: Any) -> Any:
    is_key = hasattr(value, "dtype") and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
    return value if is_key else np.asarray(value)


def _apply(eqn: Any, operands: list[Any]) -> Sequence[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name in _CALLS:
        return _run(params[_CALLS[name]], operands)
    if name in _CONTROL:
        return _CONTROL[name](operands, params)
    if not any(isinstance(x, Traced) for x in operands) or _is_of_integers(eqn):
        return _by_jax(eqn, operands)
    if name in _MOVES:
        return [_moved(eqn, operands)]
    if name not in ROWS:
        raise CapabilityError(f"JAX's primitive {name!r} has no counterpart here: the function runs on JAX alone")
    out = ROWS[name](*operands, **params)
    return out if isinstance(out, (tuple, list)) else [out]


def _is_of_integers(eqn: Any) -> bool:
    """Whether nothing but integers and booleans goes in and comes out: they are exact, and wrap as JAX has it."""
    return all(atom.aval.dtype.kind in "iub" for atom in (*eqn.invars, *eqn.outvars))


def _by_jax(eqn: Any, operands: list[Any]) -> list[Any]:
    values = [
        np.asarray(concrete(x), atom.aval.dtype) if isinstance(x, Traced) else x
        for x, atom in zip(operands, eqn.invars, strict=True)
    ]
    with jax.enable_x64(True):
        out = eqn.primitive.bind(*values, **eqn.params)
    return [_constant(x) for x in (out if eqn.primitive.multiple_results else [out])]


# Calls, branches and loops.

_CALLS = {
    "jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "remat2": "jaxpr",
    "checkpoint": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}  # fmt: skip


def _cond(operands: list[Any], params: dict[str, Any]) -> list[Any]:
    branches = params["branches"]
    index = min(max(int(concrete(operands[0])), 0), len(branches) - 1)
    return _run(branches[index], operands[1:])


def _while(operands: list[Any], params: dict[str, Any]) -> list[Any]:
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    asked, fixed, state = operands[:first], operands[first:second], operands[second:]
    while bool(concrete(_run(params["cond_jaxpr"], [*asked, *state])[0])):
        state = _run(params["body_jaxpr"], [*fixed, *state])
    return state


def _scan(operands: list[Any], params: dict[str, Any]) -> list[Any]:
    fixed, carried = params["num_consts"], params["num_carry"]
    consts, state, rows = operands[:fixed], operands[fixed : fixed + carried], operands[fixed + carried :]
    order = range(params["length"])
    stacked: list[list[Any]] = []
    for i in reversed(order) if params["reverse"] else order:
        results = _run(params["jaxpr"], [*consts, *state, *(row[i, ...] for row in rows)])
        state = results[:carried]
        stacked.append(results[carried:])
    if not stacked:
        empty = params["jaxpr"].out_avals[carried:]
        return [*state, *(np.zeros((0, *aval.shape), aval.dtype) for aval in empty)]
    columns = zip(*(reversed(stacked) if params["reverse"] else stacked), strict=True)
    return [*state, *(xp.stack([xp.asarray(x) for x in column]) for column in columns)]


def _linear_solve(operands: list[Any], params: dict[str, Any]) -> list[Any]:
    lengths, programs = params["const_lengths"], params["jaxprs"]
    start = lengths.matvec + lengths.vecmat
    consts = operands[start : start + lengths.solve]
    right = operands[start + lengths.solve + lengths.transpose_solve :]
    return _run(programs.solve, [*consts, *right])


_CONTROL: dict[str, Callable[[list[Any], dict[str, Any]], list[Any]]] = {
    "cond": _cond,
    "while": _while,
    "scan": _scan,
    "custom_linear_solve": _linear_solve,
}

# What moves elements.

_MOVES = frozenset(
    {"slice", "dynamic_slice", "gather", "rev", "transpose", "reshape", "broadcast_in_dim", "squeeze", "pad"}
    | {"concatenate", "expand_dims", "dynamic_update_slice", "scatter", "tile", "stack"}
)
_INDICES = {"gather": (1,), "scatter": (1,)}
_FIRST_INDEX = {"dynamic_slice": 1, "dynamic_update_slice": 2}


def _moved(eqn: Any, operands: list[Any]) -> Any:
    """Run on the numbers of the elements, then take the elements of these numbers."""
    name = eqn.primitive.name
    first = _FIRST_INDEX.get(name, len(operands))
    places = [i for i in range(len(operands)) if i not in _INDICES.get(name, ()) and i < first]
    sizes = [math.prod(operands[i].shape) for i in places]
    starts = np.cumsum([1, *sizes])  # 0 stands for what is filled in
    inputs = [np.asarray(concrete(x), atom.aval.dtype) for x, atom in zip(operands, eqn.invars, strict=True)]
    for i, start, size in zip(places, starts, sizes, strict=False):
        inputs[i] = (start + np.arange(size, dtype=np.int64)).reshape(operands[i].shape)
    params = eqn.params if name != "gather" else {**eqn.params, "fill_value": 0}
    with jax.enable_x64(True):
        numbers = np.asarray(eqn.primitive.bind(*inputs, **params))
    dtype = eqn.outvars[0].aval.dtype
    filler = np.full(1, _filled_in(eqn.params.get("fill_value"), dtype), dtype)
    flat = [xp.reshape(xp.astype(xp.asarray(operands[i]), dtype), (-1,)) for i in places]
    elements = xp.concat([filler, *flat])
    return xp.reshape(xp.take(elements, numbers.reshape(-1), axis=0), numbers.shape)


def _filled_in(value: Any, dtype: Any) -> Any:
    """What a gather gives out of bounds: by default nan, or of integers the least signed and the largest unsigned."""
    if value is not None:
        return value
    if dtype.kind in "fc":
        return np.nan
    return True if dtype.kind == "b" else np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max


def _scatter_add(x: Any, indices: Any, updates: Any, **params: Any) -> Any:
    """Each update's place: the transpose of a scatter-add, of the places' numbers, is what it is read from."""
    indices = np.asarray(concrete(indices))

    def add(values: Any) -> Any:
        return jax.lax.scatter_add(
            jax.numpy.zeros(x.shape), indices, values, params["dimension_numbers"], mode=params["mode"]
        )

    with jax.enable_x64(True):
        numbers = 1.0 + np.arange(math.prod(x.shape)).reshape(x.shape)
        places = np.asarray(jax.vjp(add, jax.numpy.zeros(updates.shape))[1](jax.numpy.asarray(numbers))[0])
    flat, out = places.astype(int).reshape(-1), xp.reshape(x, (-1,))
    inside = np.flatnonzero(flat)  # updates out of bounds are dropped
    one_hot = (flat[inside][:, None] - 1 == np.arange(out.shape[0])).astype(float)
    moved = xp.matmul(xp.reshape(updates, (-1,))[inside], one_hot)
    return xp.reshape(out + xp.astype(moved, out.dtype), x.shape)


# Arithmetic, reductions, matrices.


def _dot_general(a: Any, b: Any, dimension_numbers: Any, **_: Any) -> Any:
    (contract_a, contract_b), (batch_a, batch_b) = dimension_numbers
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left, right = [next(letters) for _ in a.shape], [next(letters) for _ in b.shape]
    for i, j in (*zip(contract_a, contract_b, strict=True), *zip(batch_a, batch_b, strict=True)):
        right[j] = left[i]
    batch = [left[i] for i in batch_a]
    free = [c for i, c in enumerate(left) if i not in (*contract_a, *batch_a)]
    free += [c for j, c in enumerate(right) if j not in (*contract_b, *batch_b)]
    return xp.einsum(f"{''.join(left)},{''.join(right)}->{''.join([*batch, *free])}", a, b)


def _select(which: Any, *cases: Any) -> Any:
    out = cases[0]
    for k, case in enumerate(cases[1:], start=1):
        out = xp.where(which == k if len(cases) > 2 else which, case, out)
    return out


def _cumulative(function: Callable[..., Any]) -> Row:
    def row(x: Any, axis: int, reverse: bool) -> Any:
        return xp.flip(function(xp.flip(x, axis=axis), axis=axis), axis=axis) if reverse else function(x, axis=axis)

    return row


def _running(name: str) -> Callable[..., Any]:
    def over(x: Any, axis: int) -> Any:
        parts = [x[(*(slice(None),) * axis, i)] for i in range(x.shape[axis])]
        for i in range(1, len(parts)):
            parts[i] = getattr(xp, name)(parts[i - 1], parts[i])
        return xp.stack(parts, axis=axis) if parts else x

    return over


def _split(x: Any, sizes: Sequence[int], axis: int) -> list[Any]:
    ends = np.cumsum([0, *sizes])
    return [x[(*(slice(None),) * axis, slice(int(a), int(b)))] for a, b in itertools.pairwise(ends)]


def _top_k(x: Any, k: int, axis: int) -> tuple[Any, Any]:
    order = xp.argsort(-x, axis=axis)[(*(slice(None),) * axis, slice(k))]  # stable: the first of equals
    return xp.take_along_axis(x, order, axis=axis), xp.astype(order, np.dtype(np.int32))


def _round(x: Any, rounding_method: Any) -> Any:
    if rounding_method == jax.lax.RoundingMethod.AWAY_FROM_ZERO:
        return xp.sign(x) * xp.floor(xp.abs(x) + 0.5)
    return xp.round(x)


def _sort(*arrays: Any, dimension: int, num_keys: int, **_: Any) -> list[Any]:
    if num_keys > 1:
        raise CapabilityError("JAX's sort by several keys has no counterpart here")
    order = xp.argsort(arrays[0], axis=dimension)
    return [xp.take_along_axis(xp.asarray(x), order, axis=dimension) for x in arrays]


def _triangular_solve(a: Any, b: Any, left_side: bool, lower: bool, transpose_a: int, **params: Any) -> Any:
    a = xp.tril(a) if lower else xp.triu(a)
    if params["unit_diagonal"]:
        a = a - a * np.eye(a.shape[-1]) + np.eye(a.shape[-1])
    a = xp.conj(a) if params["conjugate_a"] else a
    a = xp.matrix_transpose(a) if transpose_a else a
    if left_side:
        return xp.linalg.solve(a, b)
    return xp.matrix_transpose(xp.linalg.solve(xp.matrix_transpose(a), xp.matrix_transpose(b)))


def _lu(a: Any) -> tuple[Any, Any, Any]:
    """Of one matrix, by rows, with the pivots that LAPACK takes at the values at hand."""
    if len(a.shape) != 2:
        raise CapabilityError("JAX's lu of stacked matrices has no counterpart here")
    rows, order = [a[i, :] for i in range(a.shape[0])], list(range(a.shape[0]))
    pivots = []
    for k in range(min(a.shape)):
        sizes = xp.stack([xp.abs(row[k]) for row in rows[k:]])
        best = k + int(concrete(xp.argmax(sizes)))
        pivots.append(best)
        rows[k], rows[best], order[k], order[best] = rows[best], rows[k], order[best], order[k]
        for i in range(k + 1, len(rows)):
            factor = rows[i][k] / rows[k][k]
            rest = rows[i] - factor * xp.where(np.arange(a.shape[1]) > k, rows[k], 0.0)
            rows[i] = xp.where(np.arange(a.shape[1]) == k, factor, rest)
    return xp.stack(rows), np.array(pivots, np.int32), np.array(order, np.int32)


def _eigh(a: Any, **_: Any) -> tuple[Any, Any]:
    found = xp.linalg.eigh(a)
    return found.eigenvectors, found.eigenvalues


def _svd(a: Any, compute_uv: bool = True, full_matrices: bool = False, **_: Any) -> tuple[Any, ...]:
    found = xp.linalg.svd(a, full_matrices=full_matrices)
    return (found.S, found.U, found.Vh) if compute_uv else (found.S,)


def _fft(x: Any, fft_lengths: Sequence[int], fft_type: Any) -> Any:
    name = ("fft", "ifft", "rfft", "irfft")[int(fft_type)]
    lengths = tuple(fft_lengths)
    axes = tuple(range(len(x.shape) - len(lengths), len(x.shape)))
    if name in ("fft", "ifft"):
        return getattr(xp.fft, f"{name}n")(x, s=lengths, axes=axes)
    if len(lengths) != 1:
        raise CapabilityError(f"JAX's {name} over {len(lengths)} axes has no counterpart here")
    return getattr(xp.fft, name)(x, n=lengths[0], axis=-1)


def _named(*names: str) -> dict[str, Row]:
    """JAX's elementwise primitives that have the array API's (or SciPy's) name; how accurate they are is no matter."""
    return {name: _elementwise(name) for name in names}


def _elementwise(name: str) -> Row:
    return lambda *operands, **_: getattr(xp, name)(*operands)


def _renamed(**names: str) -> dict[str, Row]:
    return {name: _elementwise(ours) for name, ours in names.items()}


def _reducing(name: str) -> Row:
    return lambda x, axes, **_: getattr(xp, name)(x, axis=tuple(axes))


ROWS: dict[str, Row] = {
    **_named(
        "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
        "exp", "exp2", "expm1", "log", "log1p", "sqrt", "cbrt", "square", "abs", "sign", "floor", "ceil", "pow",
        "nextafter", "real", "imag", "conj", "erf", "erfc", "digamma",
    ),
    **_renamed(
        add="add", add_any="add", sub="subtract", mul="multiply", div="divide", neg="negative", max="maximum",
        min="minimum", rem="fmod", logistic="expit", erf_inv="erfinv", lgamma="gammaln", is_finite="isfinite",
        eq="equal", ne="not_equal", lt="less", le="less_equal", gt="greater", ge="greater_equal",
        lt_to="less", le_to="less_equal", eq_to="equal",
        bessel_i0e="i0e", bessel_i1e="i1e",
    ),
    **{f"reduce_{name}": _reducing(name) for name in ("sum", "max", "min", "prod")},
    "integer_pow": lambda x, y: x**y,
    "rsqrt": lambda x, **_: 1 / xp.sqrt(x),
    "polygamma": lambda n, x: xp.polygamma(int(np.asarray(concrete(n)).flat[0]), x),
    "round": _round,
    "clamp": lambda low, x, high: xp.minimum(xp.maximum(x, low), high),
    "select_n": _select,
    "stop_gradient": lambda x: x,
    "copy": lambda x: x,
    "copy_p": lambda x: x,
    "convert_element_type": lambda x, new_dtype, **_: xp.astype(x, np.dtype(new_dtype)),
    "complex": lambda a, b: a + 1j * b,
    "argmax": lambda x, axes, index_dtype: xp.astype(xp.argmax(x, axis=axes[0]), np.dtype(index_dtype)),
    "argmin": lambda x, axes, index_dtype: xp.astype(xp.argmin(x, axis=axes[0]), np.dtype(index_dtype)),
    "dot_general": _dot_general,
    "cumsum": _cumulative(lambda x, axis: xp.cumulative_sum(x, axis=axis)),
    "cumprod": _cumulative(lambda x, axis: xp.cumulative_prod(x, axis=axis)),
    "cummax": _cumulative(_running("maximum")),
    "cummin": _cumulative(_running("minimum")),
    "cumlogsumexp": _cumulative(_running("logaddexp")),
    "sort": _sort,
    "split": _split,
    "top_k": _top_k,
    "optimization_barrier": lambda *xs: xs,
    "scatter-add": _scatter_add,
    "scatter-sub": lambda x, indices, updates, **params: _scatter_add(x, indices, -updates, **params),
    "cholesky": lambda a, **_: xp.linalg.cholesky(a),
    "triangular_solve": _triangular_solve,
    "lu": _lu,
    "eigh": _eigh,
    "svd": _svd,
    "fft": _fft,
}  # fmt: skip
