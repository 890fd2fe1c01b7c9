"""The standard's main namespace and NumPy's own spellings, on tracers of the reference engine.

Values are NumPy's. Forward derivatives are compared with central differences of NumPy itself, extrapolated
(no rule of ours); reverse ones by the adjoint identity; second derivatives pushed against pulled, and with
differences of first ones.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import adbridge as ad
from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.primitives import PRIMITIVES
from adbridge.backends.reference.tracer import Tracer

B = "reference"


def jvp(fun: Any, primals: Any, tangents: Any) -> Any:
    return ad.jvp(fun, tuple(primals), tuple(tangents), backend=B)


def pull(fun: Any, primals: Any, cotangents: Any) -> Any:
    return ad.vjp(fun, *primals, backend=B)[1](cotangents)


def spread(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """No two elements closer than 0.04, none closer than 0.02 to 0: away from every kink used here."""
    rng = np.random.default_rng([seed, *shape])
    size = math.prod(shape)
    places = 0.06 * (rng.permutation(size) - size // 2) + 0.03 + rng.uniform(-0.01, 0.01, size)
    return places.reshape(shape)


def direction(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(-1.0, 1.0, shape)


def extrapolated(fun: Callable[[float], Any]) -> Any:
    """d fun / dh at 0 by Richardson's extrapolation of central differences: error h^6 plus eps / h, about 1e-11."""
    differences = [(fun(h) - fun(-h)) / (2 * h) for h in (4e-3, 2e-3, 1e-3)]
    once = [(4 * b - a) / 3 for a, b in pairwise(differences)]
    return (16 * once[1] - once[0]) / 15


def check(fun: Callable[[Any], Any], x: np.ndarray, expected: Callable[[Any], Any] | None = None) -> None:
    """Value, forward, reverse, and second order of one function of one array."""
    expected = expected or fun
    t = direction(x.shape)
    out, pushed = jvp(fun, (x,), (t,))
    value = np.asarray(expected(x))
    assert out.shape == value.shape and out.dtype == value.dtype
    np.testing.assert_allclose(out, value, rtol=1e-13, atol=1e-15)
    assert pushed.shape == value.shape
    np.testing.assert_allclose(pushed, extrapolated(lambda h: expected(x + h * t)), rtol=1e-8, atol=1e-9)
    weights = direction(value.shape, 2)
    (pulled,) = pull(fun, (x,), weights)
    assert pulled.shape == x.shape and pulled.dtype == x.dtype
    np.testing.assert_allclose(np.sum(pulled * t), np.sum(weights * pushed), rtol=1e-12, atol=1e-13)

    def gradient(x: Any) -> Any:
        return pull(fun, (x,), weights)[0]

    along = jvp(gradient, (x,), (t,))[1]
    np.testing.assert_allclose(along, extrapolated(lambda h: gradient(x + h * t)), rtol=1e-7, atol=1e-7)
    again = pull(gradient, (x,), t)[0]  # the Hessian is symmetric
    np.testing.assert_allclose(again, along, rtol=1e-10, atol=1e-12)


# The standard, revision 2024.12, main namespace without constants and dtypes.

STANDARD = {
    "creation": "arange asarray empty empty_like eye from_dlpack full full_like linspace meshgrid ones ones_like tril "
    "triu zeros zeros_like",
    "dtypes": "astype can_cast finfo iinfo isdtype result_type",
    "elementwise": "abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_invert "
    "bitwise_or bitwise_right_shift bitwise_xor ceil clip conj copysign cos cosh divide equal exp expm1 floor "
    "floor_divide greater greater_equal hypot imag isfinite isinf isnan less less_equal log log1p log2 log10 logaddexp "
    "logical_and logical_not logical_or logical_xor maximum minimum multiply negative nextafter not_equal positive pow "
    "real reciprocal remainder round sign signbit sin sinh square sqrt subtract tan tanh trunc",
    "indexing": "take take_along_axis",
    "inspection": "__array_namespace_info__",
    "linear algebra": "matmul matrix_transpose tensordot vecdot",
    "manipulation": "broadcast_arrays broadcast_to concat expand_dims flip moveaxis permute_dims repeat reshape roll "
    "squeeze stack tile unstack",
    "searching": "argmax argmin count_nonzero nonzero searchsorted where",
    "sets": "unique_all unique_counts unique_inverse unique_values",
    "sorting": "argsort sort",
    "statistics": "cumulative_prod cumulative_sum max mean min prod std sum var",
    "utility": "all any diff",
}
NAMES = [name for group in STANDARD.values() for name in group.split()]

# Each on a tracer: floating, unless `whole`.
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "arange": lambda m, x: m.arange(x[0, 1], x[0, 1] + 3.0, 0.5) if m is xp else x[0, 1] + 0.5 * np.arange(6),
    "asarray": lambda m, x: m.asarray(x, dtype=m.float64),
    "full": lambda m, x: m.full((2, 2), x[0, 0]),
    "full_like": lambda m, x: m.full_like(x, x[0, 0]),
    "linspace": lambda m, x: m.linspace(x[0, 0], x[0, 1], 5) * m.linspace(x[0, 0], 1.0, 5, endpoint=False),
    "meshgrid": lambda m, x: m.meshgrid(x[0], x[1], x[0, :2])[1] * m.meshgrid(x[1], x[0], indexing="ij")[0][..., None],
    "tril": lambda m, x: m.tril(x, k=-1) + m.tril(x * x),
    "triu": lambda m, x: m.triu(x, k=1) + m.triu(x * x),
    "astype": lambda m, x: m.astype(x * x, m.float64),
    "clip": lambda m, x: m.clip(x, x[:1] + 0.015, None) + m.clip(x, -0.07, 0.07) + m.clip(x, None, x[:, :1] + 0.01),
    "nextafter": lambda m, x: m.nextafter(x, m.asarray(1.0)),
    "positive": lambda m, x: m.positive(x),
    "copysign": lambda m, x: m.copysign(x, -x[:1]),
    "hypot": lambda m, x: m.hypot(x, x[:1]),
    "round": lambda m, x: m.round(9 * x) * x,
    "trunc": lambda m, x: m.trunc(9 * x) * x,
    "take": lambda m, x: m.take(x * x, m.asarray([[2, 0], [2, -1]]), axis=1),
    "take_along_axis": lambda m, x: m.take_along_axis(x * x, m.asarray([[2, 0, 0, 1], [1, 1, -1, 1]]), axis=1),
    "matrix_transpose": lambda m, x: m.matrix_transpose(x * x),
    "matmul": lambda m, x: m.matmul(x, x[0]),
    "tensordot": lambda m, x: m.tensordot(x, x, axes=((1,), (1,))),
    "vecdot": lambda m, x: m.vecdot(x, x[:1], axis=-1) + m.sum(m.vecdot(x, x, axis=0)),
    "broadcast_arrays": lambda m, x: m.broadcast_arrays(x[:1], x * x)[0] * x,
    "broadcast_to": lambda m, x: m.broadcast_to(x * x, (3, 2, 3)),
    "concat": lambda m, x: m.concat([x, x[:, :1] ** 2], axis=-1),
    "expand_dims": lambda m, x: m.expand_dims(x * x, axis=1),
    "flip": lambda m, x: m.flip(x * x, axis=-1),
    "moveaxis": lambda m, x: m.moveaxis((x * x)[None], (0, 1), (1, -1)),
    "permute_dims": lambda m, x: m.permute_dims(x * x, (1, 0)),
    "repeat": lambda m, x: m.repeat(x * x, 3, axis=1) + m.repeat(x, m.asarray([2, 0, 7]), axis=1),
    "reshape": lambda m, x: m.reshape(x * x, (3, -1)),
    "roll": lambda m, x: m.roll(x * x, 1, axis=1) + m.roll(x, (4, -2), axis=(0, 1)) + m.roll(x, 2),
    "squeeze": lambda m, x: m.squeeze((x * x)[:, None], axis=1),
    "stack": lambda m, x: m.stack([x, x * x], axis=1),
    "tile": lambda m, x: m.tile(x * x, (2, 1, 3)),
    "unstack": lambda m, x: m.unstack(x * x, axis=1)[1],
    "searchsorted": lambda m, x: x * m.searchsorted(m.sort(x[0]), x[0, 1]),
    "argsort": lambda m, x: x * m.argsort(x, axis=0),
    "argmax": lambda m, x: x * m.argmax(x, axis=0),
    "argmin": lambda m, x: x * m.argmin(x),
    "count_nonzero": lambda m, x: x * m.count_nonzero(x > 0, axis=0) + m.count_nonzero(x),
    "nonzero": lambda m, x: (x * x)[m.nonzero(x > 0)],
    "where": lambda m, x: m.where(x > 0, x * x, 3 * x),
    "unique_all": lambda m, x: m.unique_all(x * x).values + m.unique_all(x).counts,
    "unique_counts": lambda m, x: m.unique_counts(x * x).values * m.unique_counts(x).counts,
    "unique_inverse": lambda m, x: m.unique_inverse(x * x).values[m.unique_inverse(x).inverse_indices],
    "unique_values": lambda m, x: m.unique_values(m.concat([x * x, x * x])),
    "sort": lambda m, x: m.sort(x * x, axis=0) + m.sort(x, axis=1, stable=True),
    "cumulative_prod": lambda m, x: m.cumulative_prod(x + 2, axis=1, include_initial=True),
    "cumulative_sum": lambda m, x: m.cumulative_sum(x * x, axis=0, include_initial=True),
    "max": lambda m, x: m.max(x * x, axis=1, keepdims=True),
    "mean": lambda m, x: m.mean(x * x, axis=(0, 1)),
    "min": lambda m, x: m.min(x * x, axis=-2),
    "prod": lambda m, x: m.prod(x + 2, axis=1),
    "std": lambda m, x: m.std(x, axis=1, correction=1),
    "sum": lambda m, x: m.sum(x * x, axis=(1,), dtype=m.float64),
    "var": lambda m, x: m.var(x, axis=(0, 1), keepdims=True),
    "all": lambda m, x: m.where(m.all(x > 0, axis=0), x, x * x),
    "any": lambda m, x: m.where(m.any(x > 0, axis=0), x, x * x),
    "diff": lambda m, x: m.diff(x * x, axis=1, n=2, prepend=x[:, :1], append=m.ones((2, 1))),
    "bitwise_invert": lambda m, x: x * m.bitwise_invert(m.astype(9 * x, m.int64)),
}

ONE = {
    "abs acos asin asinh atan atanh ceil conj cos cosh exp expm1 floor imag real sign sin sinh square tan tanh "
    "negative log1p": lambda m, x, name: getattr(m, name)(x / 2),
    "acosh log log2 log10 reciprocal sqrt": lambda m, x, name: getattr(m, name)(x + 3),
    "add atan2 divide floor_divide logaddexp maximum minimum multiply pow remainder subtract": lambda m, x, name: (
        getattr(m, name)(x + 3.01, x[:1] + 2)
    ),
    "equal greater greater_equal less less_equal not_equal": lambda m, x, name: m.where(
        getattr(m, name)(x, x[:1]), x, x * x
    ),
    "logical_and logical_or logical_xor": lambda m, x, name: m.where(getattr(m, name)(x > 0, x[:1] > 0), x, x * x),
    "isfinite isinf isnan logical_not signbit": lambda m, x, name: m.where(getattr(m, name)(x), x, x * x),
    "bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift": lambda m, x, name: (
        x * getattr(m, name)(m.astype(9 * x + 5, m.int64), 3)
    ),
}
CALLS |= {name: partial(call, name=name) for names, call in ONE.items() for name in names.split()}

# Of these no argument is an array whose derivative counts; a test below calls each with a tracer all the same.
WITHOUT_DERIVATIVE = {
    "empty": "a shape gives no derivative",
    "empty_like": "only shape and dtype are read",
    "eye": "a shape gives no derivative",
    "from_dlpack": "a tracer has no memory to share: refused",
    "ones": "a shape gives no derivative",
    "ones_like": "only shape and dtype are read",
    "zeros": "a shape gives no derivative",
    "zeros_like": "only shape and dtype are read",
    "can_cast": "of dtypes",
    "finfo": "of dtypes",
    "iinfo": "of dtypes",
    "isdtype": "of dtypes",
    "result_type": "of dtypes",
    "__array_namespace_info__": "takes no array",
}


def test_every_name_of_the_standard_is_here() -> None:
    assert set(CALLS) | set(WITHOUT_DERIVATIVE) == set(NAMES)
    assert not set(CALLS) & set(WITHOUT_DERIVATIVE)
    assert xp.__array_api_version__ == "2024.12"
    for name in NAMES:
        assert callable(getattr(xp, name))


@pytest.mark.parametrize("name", CALLS)
def test_the_standard_on_tracers(name: str) -> None:
    check(lambda x: CALLS[name](xp, x), spread((2, 3)), lambda x: CALLS[name](np, x))


@pytest.mark.parametrize("name", CALLS)
def test_the_standard_on_arrays(name: str) -> None:
    """Not contiguous, and in single precision."""
    x = spread((3, 4))[:, ::2].T
    np.testing.assert_allclose(CALLS[name](xp, x), CALLS[name](np, x), rtol=1e-13, atol=1e-15)


SINGLE = [n for n in CALLS if n not in ("asarray", "astype", "sum", "argsort", "argmax", "argmin", "searchsorted")]


@pytest.mark.parametrize(
    "name", [n for n in SINGLE if not n.startswith(("bitwise", "count", "unique_", "diff", "next"))]
)
def test_the_standard_keeps_single_precision(name: str) -> None:
    x = spread((2, 3))
    t = direction(x.shape)
    fun = lambda x: CALLS[name](xp, x)  # noqa: E731
    out, pushed = jvp(fun, (x.astype(np.float32),), (t.astype(np.float32),))
    assert out.dtype == pushed.dtype == np.float32
    assert pull(fun, (x.astype(np.float32),), out)[0].dtype == np.float32
    # eps is 6e-8, the condition of the worst (the standard deviation, the tangent) about 50.
    np.testing.assert_allclose(pushed, jvp(fun, (x,), (t,))[1], rtol=1e-4, atol=1e-4)


def test_what_reads_only_shapes_and_dtypes() -> None:
    def fun(x: Any) -> Any:
        assert isinstance(x, Tracer)
        assert xp.result_type(x, np.float32) == np.float64 and xp.result_type(x, 1) == np.float64
        assert xp.can_cast(x, np.float64) and not xp.can_cast(x, np.int64)
        assert xp.isdtype(x.dtype, "real floating") and xp.finfo(x).bits == 64
        assert xp.iinfo(xp.astype(x, np.int32)).max == 2**31 - 1
        assert xp.finfo(np.float32).bits == 32 and xp.finfo(xp.float32).bits == 32
        info = xp.__array_namespace_info__()
        assert info.default_device() == "cpu" and info.dtypes()["float64"] == np.float64
        for make in (xp.zeros_like, xp.ones_like, xp.empty_like):
            assert make(x).shape == x.shape and make(x, dtype=xp.int8).dtype == np.int8
        assert xp.empty((2,)).shape == (2,)
        return x + xp.zeros_like(x) + xp.ones(3) + xp.eye(3)[0]

    assert ad.grad(lambda x: xp.sum(fun(x)), backend=B)(np.ones(3)).tolist() == [1, 1, 1]
    with pytest.raises((ad.NotDifferentiable, BufferError, AttributeError, TypeError)):
        ad.grad(lambda x: xp.from_dlpack(x), backend=B)(1.0)


# Corners: 0-d and empty arrays, axes, dtypes, zeros, ties.

CORNERS: dict[str, tuple[Callable[[Any, Any], Any], np.ndarray]] = {
    "sum of nothing": (lambda m, x: m.sum(x, axis=0) + 0 * m.sum(x), np.zeros((0, 3))),
    "prod of nothing": (lambda m, x: m.prod(x, axis=0), np.zeros((0, 3))),
    "cumulative_prod of nothing": (lambda m, x: m.cumulative_prod(x, axis=0, include_initial=True), np.zeros((0, 3))),
    "cumulative_prod of one": (lambda m, x: m.cumulative_prod(x, axis=1), np.ones((3, 1))),
    "cumulative_prod of seven": (lambda m, x: m.cumulative_prod(x + 1), spread((7,))),
    "cumulative_prod of eight": (lambda m, x: m.cumulative_prod(x + 1, axis=0), spread((8, 2))),
    "cumulative_prod with zeros": (lambda m, x: m.cumulative_prod(x), np.array([2.0, 0.0, 3.0, 0.0, 5.0, 7.0])),
    "sort of nothing": (lambda m, x: m.sort(x), np.zeros((2, 0))),
    "sort of one": (lambda m, x: m.sort(x), np.zeros(1)),
    "take of nothing": (lambda m, x: m.take(x, m.asarray([], dtype=m.int64), axis=1), np.zeros((2, 3))),
    "take repeated": (lambda m, x: m.take(x, m.asarray([1, 1, 1])), spread((2,))),
    "take one": (lambda m, x: m.take(x, m.asarray(1), axis=0), spread((3, 2))),
    "take_along_axis stretched": (lambda m, x: m.take_along_axis(x, m.asarray([[1], [0]]), axis=0), spread((3, 4))),
    "take_along_axis by one row": (lambda m, x: m.take_along_axis(x, m.asarray([[1, 0, 1]]), axis=1), spread((3, 4))),
    "repeat flat": (lambda m, x: m.repeat(x, 2), spread((2, 3))),
    "repeat never": (lambda m, x: m.repeat(x, 0, axis=0), spread((2, 3))),
    "roll of nothing": (lambda m, x: m.roll(x, 1, axis=0), np.zeros((0, 2))),
    "roll 0-d": (lambda m, x: m.roll(x, 1), np.array(2.0)),
    "tile 0-d": (lambda m, x: m.tile(x, (2, 2)), np.array(2.0)),
    "tile short": (lambda m, x: m.tile(x, (2,)), spread((2, 3))),
    "reshape 0-d": (lambda m, x: m.reshape(x, (1, 1)), np.array(2.0)),
    "flip 0-d": (lambda m, x: m.flip(x) * 1, np.array(2.0)),
    "expand_dims 0-d": (lambda m, x: m.expand_dims(x, axis=0), np.array(2.0)),
    "expand_dims twice": (lambda m, x: m.expand_dims(x, axis=(0, -1)), spread((2, 3))),
    "mean 0-d": (lambda m, x: m.mean(x) + m.var(x), np.array(2.0)),
    "max 0-d": (lambda m, x: m.max(x) * m.min(x), np.array(2.0)),
    "sum no axis": (lambda m, x: m.sum(x * x, axis=()), spread((2, 3))),
    "diff of one": (lambda m, x: m.diff(x), np.ones((2, 1))),
    "linspace of one": (lambda m, x: m.linspace(x, 2.0, 1), np.array(0.5)),
    "linspace of none": (lambda m, x: m.linspace(x, 2.0, 0), np.array(0.5)),
    "linspace of arrays": (lambda m, x: m.linspace(x, x * x, 4), spread((3,))),
    "meshgrid of one": (lambda m, x: m.meshgrid(x)[0], spread((3,))),
    "meshgrid of none": (lambda m, x: x * len(m.meshgrid()), spread((3,))),
    "tril stack": (lambda m, x: m.tril(x) * m.triu(x, k=-1), spread((2, 3, 4))),
    "stack 0-d": (lambda m, x: m.stack([x, x * x]), np.array(2.0)),
    "concat flat": (lambda m, x: m.concat([x, x * x], axis=None), spread((2, 2))),
    "broadcast strided": (lambda m, x: m.sort(m.broadcast_to(x, (3, 4)), axis=1), spread((4,))),
}


@pytest.mark.parametrize("name", CORNERS)
def test_corners(name: str) -> None:
    fun, x = CORNERS[name]
    check(lambda x: fun(xp, x), x, lambda x: fun(np, x))


COMPLEX: dict[str, Callable[[Any], Any]] = {
    "cumprod": np.cumprod,
    "convolve": lambda z: np.convolve(z, z * z[0]),
    "correlate": lambda z: np.correlate(z, z[:2], "full"),
    "take": lambda z: np.take(z * z, [1, 1, 0]),
    "take_along_axis": lambda z: xp.take_along_axis(z * z, np.array([1, 1, 0]), axis=0),
    "linspace": lambda z: np.linspace(z, 1.0, 3),
    "angle": lambda z: np.angle(z) * np.abs(z),
    "cov": lambda z: np.cov(np.reshape(z, (2, 2))),
    "vdot": lambda z: np.vdot(z, z * z),
    "average": lambda z: np.average(z, weights=np.abs(z)),
    "diag": lambda z: np.diag(z * z, 1),
    "pad": lambda z: np.pad(z * z, 1, mode="edge"),
    "std": lambda z: np.std(z),
    "repeat": lambda z: np.repeat(z * z, [1, 0, 2, 1]),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_numbers(name: str) -> None:
    """Forward by differences, reverse by Re <w, J t> = Re <J^T w, t> (no conjugation, as in JAX)."""
    fun = COMPLEX[name]
    z, t = spread((4,)) + 1j * spread((4,), 3) + 0.3, direction((4,)) + 1j * direction((4,), 2)
    out, pushed = jvp(fun, (z,), (t,))
    np.testing.assert_allclose(out, fun(z), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(pushed, extrapolated(lambda h: fun(z + h * t)), rtol=1e-7, atol=1e-8)
    w = direction(out.shape) + (1j * direction(out.shape, 5) if out.dtype.kind == "c" else 0)
    (pulled,) = pull(fun, (z,), w)
    assert pulled.dtype == np.complex128
    np.testing.assert_allclose(np.sum(pulled * t).real, np.sum(w * pushed).real, rtol=1e-12, atol=1e-14)


def test_cumulative_product_at_zeros() -> None:
    x = np.array([2.0, 0.0, 3.0, 0.0, 5.0])
    jacobian = [[np.prod(np.delete(x[: j + 1], i)) if i <= j else 0.0 for i in range(5)] for j in range(5)]
    np.testing.assert_array_equal(ad.jacobian(xp.cumulative_prod, backend=B)(x), jacobian)


def test_deviation_of_constant_data_has_derivative_0() -> None:
    for fun in (xp.std, np.std, np.nanstd):
        np.testing.assert_array_equal(ad.grad(fun, backend=B)(np.full(4, 3.0)), np.zeros(4))
    np.testing.assert_array_equal(
        ad.grad(lambda x: xp.sum(xp.std(x, axis=1)), backend=B)(np.array([[1.0, 1.0], [0.0, 4.0]])),
        [[0, 0], [-0.5, 0.5]],
    )


def test_sorting_moves_ties_as_a_stable_sort_does() -> None:
    x, w = np.array([2.0, 1.0, 2.0, 1.0]), np.array([1.0, 10.0, 100.0, 1000.0])
    assert pull(xp.sort, (x,), w)[0].tolist() == [100, 1, 1000, 10]
    assert pull(lambda x: xp.sort(x, descending=True), (x,), w)[0].tolist() == [1, 100, 10, 1000]
    assert xp.argsort(x, descending=True).tolist() == [0, 2, 1, 3]
    np.testing.assert_array_equal(xp.sort(x, descending=True), [2, 2, 1, 1])


def test_values_of_a_set_move_with_their_first_element() -> None:
    x = np.array([3.0, 1.0, 3.0, 1.0, 2.0])
    jacobian = ad.jacobian(xp.unique_values, mode="forward", backend=B)(x)
    np.testing.assert_array_equal(jacobian, np.eye(5)[[1, 4, 0]])


def test_integer_results_are_arrays_of_integers() -> None:
    def fun(x: Any) -> Any:
        for found in (xp.argsort(x), xp.searchsorted(x, x), xp.count_nonzero(x), *xp.nonzero(x)):
            assert found.dtype == np.int64
        assert xp.unique_counts(x).counts.tolist() == [1, 1, 1]
        return x[xp.argsort(x)[0]]

    assert ad.grad(fun, backend=B)(np.array([2.0, 1.0, 3.0])).tolist() == [0, 1, 0]


def test_an_index_changed_after_its_use_is_as_it_was() -> None:
    index = np.array([0, 1, 2])

    def fun(x: Any) -> Any:
        total = xp.sum(xp.take(x, index) * np.array([1.0, 2.0, 3.0]))
        total = total + xp.sum(xp.take_along_axis(x, index))
        index[:] = 2
        return total

    assert ad.grad(fun, backend=B)(np.ones(3)).tolist() == [2, 3, 4]


def test_lists_of_tracers_are_stacked() -> None:
    x = np.array([1.0, 2.0])
    got = ad.jacobian(lambda x: xp.asarray([[x[0], 1], [x[1] * x[0], x[1]]]), backend=B)(x)
    np.testing.assert_array_equal(got, [[[1, 0], [0, 0]], [[2, 1], [0, 1]]])


def test_bad_arguments_of_the_standard() -> None:
    x = np.ones((2, 3))
    for fun, message in (
        (lambda x: xp.take(x, np.array([0.0]), axis=0), "take takes an array of integers as indices, got float64"),
        (lambda x: xp.take_along_axis(x, np.array([0])), "as many dimensions as the array, 2; got 1"),
        (lambda x: xp.stack([x, x[0]]), "stack needs arrays of one shape"),
        (lambda x: xp.nonzero(x[0, 0]), "at least one dimension"),
        (lambda x: xp.meshgrid(x, indexing="ji"), "indexing='xy' or 'ij'"),
        (lambda x: xp.matrix_transpose(x[0]), "at least 2 dimensions"),
        (lambda x: xp.cumulative_prod(x), "needs axis="),
        (lambda x: xp.max(x[:0]), "zero-size array"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            jvp(fun, (x,), (x,))


# NumPy's spellings.


@dataclass(frozen=True)
class Row:
    call: Callable[[Any], Any]
    shape: tuple[int, ...] = (2, 3)
    shift: float = 0.0


def _pair(x: Any) -> Any:
    """The two parts of an answer in one array."""
    first, second = x
    return first + 2 * second


NUMPY: dict[str, Row] = {
    "sum": Row(lambda x: np.sum(x * x, axis=-1, keepdims=True, dtype=float) + np.sum(a=x)),
    "sum out=None": Row(lambda x: np.sum(x * x, 0, None, out=None)),
    "mean": Row(lambda x: np.mean(x * x, 0, keepdims=True, dtype=np.float64)),
    "var ddof": Row(lambda x: np.var(x, axis=1, ddof=1) + np.var(x, correction=1)),
    "std ddof": Row(lambda x: np.std(x, 1, ddof=1, keepdims=True)),
    "prod": Row(lambda x: np.prod(x, 1)),
    "max min": Row(lambda x: np.max(x, 1) * np.amin(x, axis=1) * np.min(x)),
    "ptp": Row(lambda x: np.ptp(x, axis=1)),
    "cumsum": Row(lambda x: np.cumsum(x * x, 1) + np.cumsum(x * x)[-1]),
    "cumprod": Row(lambda x: np.cumprod(x + 1, axis=0) + np.cumprod(x)[:3]),
    "concatenate": Row(lambda x: np.concatenate((x, x * x), axis=1)),
    "vstack": Row(lambda x: np.vstack([x[0], x * x])),
    "hstack": Row(lambda x: np.hstack([x, x * x]) * np.hstack([x[0], x[1]])),
    "dstack": Row(lambda x: np.dstack([x, x * x])),
    "column_stack": Row(lambda x: np.column_stack([x[0], x[1] * x[0], np.ones(3)])),
    "stack": Row(lambda x: np.stack([x, x * x], -1)),
    "split": Row(lambda x: np.split(x * x, 3, axis=1)[1] + np.split(x, [1], 1)[0]),
    "array_split": Row(lambda x: np.array_split(x * x, 2, axis=1)[0]),
    "hsplit vsplit": Row(lambda x: np.hsplit(x * x, 3)[0] + np.vsplit(x, 2)[1][:, :1]),
    "append": Row(lambda x: np.append(x * x, [1.0, 2.0])),
    "append axis": Row(lambda x: np.append(x * x, x[:1], axis=0)),
    "pad": Row(lambda x: np.pad(x * x, ((1, 2), (0, 1)), constant_values=5.0) + np.pad(x, ((3, 0), (1, 0)))),
    "pad edge": Row(lambda x: np.pad(x * x, 2, mode="edge") + np.pad(x, 2, "wrap")),
    "pad reflect": Row(lambda x: np.pad(x * x, ((0, 1), (2, 1)), "reflect")),
    "median": Row(lambda x: np.median(x, axis=1) + np.median(x)),
    "quantile": Row(lambda x: np.quantile(x * x, [0.1, 0.5, 1.0], axis=1)),
    "quantile keepdims": Row(lambda x: np.quantile(x, 0.3, axis=(0, 1), keepdims=True)),
    "quantile lower": Row(lambda x: np.quantile(x, 0.3, method="lower") + np.quantile(x, 0.3, method="higher")),
    "quantile midpoint": Row(lambda x: np.quantile(x, 0.3, method="midpoint")),
    "percentile": Row(lambda x: np.percentile(x, [[10, 20], [30, 40]], axis=0)),
    "average": Row(lambda x: np.average(x * x, axis=1) + np.average(x, weights=x * x + 1)),
    "average weights": Row(lambda x: np.average(x, axis=1, weights=x[0] + 2)),
    "average returned": Row(lambda x: _pair(np.average(x, axis=0, weights=[1.0, 2.0], returned=True))),
    "nansum": Row(lambda x: np.nansum(np.where(x > 0, x * x, np.nan), axis=0)),
    "nanmean": Row(lambda x: np.nanmean(np.where(x > 0.05, np.nan, x * x)), (3, 3)),
    "nanvar": Row(lambda x: np.nanvar(np.where(x > 0.05, np.nan, x)) + np.nanstd(x), (3, 3)),
    "nanmax nanmin": Row(lambda x: np.nanmax(np.where(x > 0.05, np.nan, x)) * np.nanmin(x) * np.nanprod(x + 1)),
    "nan_to_num": Row(lambda x: np.nan_to_num(np.where(x > 0, np.nan, x * x), nan=1.5)),
    "cov": Row(lambda x: np.cov(x) + np.cov(x[0], x[1], bias=True), (2, 5)),
    "corrcoef": Row(lambda x: np.corrcoef(x), (3, 5)),
    "trapezoid": Row(lambda x: np.trapezoid(x * x, dx=0.5) + np.trapezoid(x, x * x, axis=0)[:2]),
    "trapezoid x": Row(lambda x: np.trapezoid(x, x=[0.0, 1.0, 3.0]) + np.trapezoid(x.T, x=x[0], axis=0)),
    "interp": Row(lambda x: np.interp(x, [-1.0, 0.0, 1.0], [1.0, 5.0, 2.0])),
    "interp fp": Row(lambda x: np.interp([-2.0, 0.3, 0.7, 5.0], xp=[0.0, 0.5, 1.0], fp=x * x), (3,)),
    "interp xp": Row(lambda x: np.interp([0.3, 0.7, 1.4], np.arange(3.0) + x, [2.0, 3.0, 7.0], left=-1, right=1), (3,)),
    "gradient": Row(lambda x: np.gradient(x * x, 0.5, axis=1)),
    "gradient axes": Row(lambda x: _pair(np.gradient(x * x)), (3, 4)),
    "convolve": Row(lambda x: np.convolve(x, x * x) + np.convolve(x, [1.0], "full")[0], (4,)),
    "convolve same": Row(lambda x: np.convolve(x, x[:3], "same") + np.convolve([1.0, 2.0], x, mode="same"), (4,)),
    "convolve valid": Row(
        lambda x: np.convolve(x, [1.0, 2.0, 4.0, 5.0], "valid") * np.convolve(x[:2], x, "valid")[0], (6,)
    ),
    "correlate": Row(lambda x: np.correlate(x, x[:2] * x[0]) + np.correlate([1.0, 2.0], x, "full")[:3], (4,)),
    "roll": Row(lambda x: np.roll(x * x, 2) + np.roll(x, (1, 1), (0, 1)) + np.roll(x, shift=1, axis=-1)),
    "rot90": Row(
        lambda x: np.rot90(x * x) + np.rot90(x, 3) + np.rot90(x, 2).T + np.rot90(x, axes=(1, 0)) + np.rot90(x, 0).T
    ),
    "flips": Row(lambda x: np.flipud(x * x) + np.fliplr(x) + np.flip(x, 0) + np.flip(x)),
    "atleast": Row(lambda x: np.atleast_1d(x[0, 0]) + np.atleast_2d(x[0]) + np.atleast_3d(x * x)[:, :, 0]),
    "swapaxes": Row(lambda x: np.swapaxes(x * x, 0, -1)),
    "rollaxis": Row(lambda x: np.rollaxis(x[None] * x, 2) + np.rollaxis(x[None], 0, 3).transpose(1, 2, 0)),
    "moveaxis": Row(lambda x: np.moveaxis(x * x, 0, 1)),
    "diag": Row(lambda x: np.diag(x[0], 1) + np.diag(x[0] ** 2, -1) + np.diag(np.diag(x)[0] * np.ones(4))),
    "diagonal": Row(lambda x: np.diagonal(x * x, 1) + np.trace(x)),
    "tril": Row(lambda x: np.tril(x * x, -1) + np.triu(x, 1)),
    "where one": Row(lambda x: (x * x)[np.where(x > 0)]),
    "where": Row(lambda x: np.where(x > 0, x * x, 0)),
    "select": Row(lambda x: np.select([x > 0.1, x > 0], [x * x, 3 * x], default=x**3)),
    "piecewise": Row(lambda x: np.piecewise(x, [x < -0.05, x > 0.05], [lambda x: x * x, np.sin, 7.0])),
    "clip": Row(lambda x: np.clip(x, -0.07, 0.07) + np.clip(x, a_min=None, a_max=0.07) + np.clip(x, min=0.0)),
    "power": Row(lambda x: np.power(x, 3) + np.float_power(x, 2) + np.power(2.0, x)),
    "cbrt": Row(lambda x: np.cbrt(x - 1)),
    "angles": Row(lambda x: np.deg2rad(x * x) + np.rad2deg(x) + np.radians(x) + np.degrees(x)),
    "sinc": Row(lambda x: np.sinc(x) + np.sinc(20 * x)),
    "heaviside": Row(lambda x: np.heaviside(x, 0.5) * x),
    "fabs": Row(lambda x: np.fabs(x) + np.absolute(x)),
    "fmax": Row(lambda x: np.fmax(x, 0.01 * x + 0.01) + np.fmin(x, np.nan) + np.fmin(0.01, x)),
    "fmod": Row(lambda x: np.fmod(3 * x + 5, 2.0) + np.fmod(30.0, x + 3) + np.mod(30.0, x + 3)),
    "ldexp": Row(lambda x: np.ldexp(x, 3) + np.ldexp(x, np.arange(3))),
    "modf": Row(lambda x: _pair(np.modf(20 * x)) * x),
    "divmod": Row(lambda x: _pair(np.divmod(20 * x, 0.7)) * x + _pair(divmod(20 * x, 0.7))),
    "rounding": Row(lambda x: (np.rint(9 * x) + np.round(x, 1) + np.around(x, 1) + np.fix(9 * x)) * x),
    "angle": Row(lambda x: np.angle(x + 1j) + np.angle(x * (1 - 2j), deg=True)),
    "logaddexp": Row(lambda x: np.logaddexp2(x, 3 * x) + np.logaddexp(x, 0)),
    "positive": Row(lambda x: np.positive(x) + np.copy(x) * x),
    "isclose": Row(lambda x: np.where(np.isclose(x, x[:1]), x, x * x) * (2 if np.allclose(x, x) else 1)),
    "array_equal": Row(lambda x: x if np.array_equal(x, x) else x * x),
    "shape": Row(lambda x: x * np.shape(x)[1] + np.ndim(x) + np.size(x) + np.size(x, 1)),
    "add.reduce": Row(
        lambda x: np.add.reduce(x * x) + np.add.reduce(x, axis=None) + np.add.reduce(x, 1, keepdims=True)[0]
    ),
    "multiply.reduce": Row(lambda x: np.multiply.reduce(x, axis=1)),
    "maximum.reduce": Row(lambda x: np.maximum.reduce(x, axis=1) * np.minimum.reduce(x, axis=(0, 1))),
    "logaddexp.reduce": Row(lambda x: np.logaddexp.reduce(x, axis=1)),
    "add.accumulate": Row(lambda x: np.add.accumulate(x * x, axis=1)),
    "multiply.accumulate": Row(lambda x: np.multiply.accumulate(x + 2)),
    "maximum.accumulate": Row(lambda x: np.maximum.accumulate(x, axis=1) * np.minimum.accumulate(x), (2, 7)),
    "logaddexp.accumulate": Row(lambda x: np.logaddexp.accumulate(x, axis=1), (2, 5)),
    "multiply.outer": Row(lambda x: np.multiply.outer(x, x[0]) + np.subtract.outer(x[0], [1.0, 2.0, 3.0])[None]),
    "outer": Row(lambda x: np.outer(x, x[0]) + np.inner(x, x)[0, 0] + np.vdot(x, x)),
    "kron": Row(lambda x: np.kron(x, x[:1])),
    "dot": Row(lambda x: np.dot(x, x.T) + np.dot(x, x[0])),
    "tensordot": Row(lambda x: np.tensordot(x, x, axes=[0, 0]) + np.tensordot(x, x)),
    "take": Row(lambda x: np.take(x * x, [[0, 5], [5, 5]]) + np.take(x, 1, axis=1)),
    "take mode": Row(lambda x: np.take(x, indices=[1, 1], axis=-1)),
    "take_along_axis": Row(lambda x: np.take_along_axis(x * x, np.argsort(x, axis=1), axis=1)),
    "compress": Row(lambda x: np.compress([True, False, True], x * x, axis=1) + np.extract(x[0] > -9, x[0])[:2]),
    "repeat": Row(lambda x: np.repeat(x * x, 2, 0) + np.repeat(x, [1, 3], axis=0)),
    "tile": Row(lambda x: np.tile(x * x, 2)),
    "sort": Row(lambda x: np.sort(x * x, 0) + np.sort(x, axis=None)[0] + np.sort(x, kind="stable")),
    "argsort": Row(lambda x: x * np.argsort(x, axis=0) + np.argsort(x, axis=None)[0]),
    "searchsorted": Row(lambda x: x * np.searchsorted([-0.1, 0.0, 0.1], x, side="right")),
    "unique": Row(lambda x: np.unique(x * x) * np.unique(x, return_counts=True)[1]),
    "diff": Row(lambda x: np.diff(x * x, 1, 0) + np.diff(x, prepend=0.0, append=1.0)[:, :3]),
    "squeeze": Row(lambda x: np.squeeze(x[:, None] ** 2, axis=1) + np.squeeze(x[None])),
    "expand_dims": Row(lambda x: np.expand_dims(x * x, (0, 2))),
    "broadcast_arrays": Row(lambda x: np.broadcast_arrays(x, x[:1])[1] * x),
    "meshgrid": Row(lambda x: _pair(np.meshgrid(x[0], x[1] ** 2))),
    "full_like": Row(lambda x: np.full_like(x, x[0, 0] ** 2) + np.ones_like(x)),
    "linspace": Row(lambda x: np.linspace(x[0], x[1], 4) + np.linspace(x[0, 0], 2, num=3, endpoint=False)),
    "polyval": Row(lambda x: np.polyval([1.0, 2.0, 3.0], x) + np.polyval(x[0], x)),
    "vander": Row(lambda x: np.vander(x[0] + 2) + np.vander(x[0], 3, increasing=True)),
    "reshape": Row(lambda x: np.reshape(x * x, (3, 2), order="C") + np.ravel(x * x)[0]),
    "linalg": Row(lambda x: np.linalg.norm(x, axis=1)),
    # Methods.
    "x.sum": Row(lambda x: x.sum(axis=0, keepdims=True) + x.mean(1, keepdims=True) * x.std(ddof=1) + x.var(ddof=1)),
    "x.dot": Row(lambda x: x.dot(x[0]) + x.T.dot(x[:, 0])[0]),
    "x.reshape": Row(lambda x: (x * x).reshape(-1, 2) + (x * x).reshape((3, 2)) + x.reshape(3, 2, order="C")),
    "x.ravel": Row(lambda x: x.ravel() * x.flatten() + x.flatten(order="C")),
    "x.swapaxes": Row(lambda x: x.swapaxes(0, 1) * x.transpose() + x.transpose(1, 0) + x.transpose((1, 0))),
    "x.take": Row(lambda x: (x * x).take([0, 1]) + x.take([1, 1], axis=1) + x.repeat(2)[:2]),
    "x.clip": Row(lambda x: x.clip(-0.05, 0.05) + x.clip(max=0.06)),
    "x.cumsum": Row(lambda x: x.cumsum(1) * x.cumprod(axis=1)),
    "x.argsort": Row(lambda x: x * x.argsort() + x.argmax(1)[:, None] + x.argmin() + x[0] * x[0].searchsorted(0.0)),
    "x.copy": Row(lambda x: x.copy() * x.conjugate() + x.round(1) + x.conj()),
    "x.nbytes": Row(lambda x: x * x.nbytes * x.itemsize * x.size),
    "x.nonzero": Row(lambda x: (x * x)[(x > 0).nonzero()]),
    "x.flat": Row(lambda x: x * x.ravel()[2] + sum(y * y for y in x.flat)),
    "x.max": Row(lambda x: x.max(axis=1) * x.min(1) * x.prod()),
    "x.any": Row(lambda x: x * x if (x > 0).any() and not (x > 0).all() else x),
    "x.diagonal": Row(lambda x: (x * x).diagonal() + x.compress([True, False, True], axis=1)[0]),
    "x.squeeze": Row(lambda x: x[:, None].squeeze(1) * x[None].squeeze()),
    "bits": Row(lambda x: x * ((9 * x).astype(int) << 2) * (7 & (9 * x).astype(int)) + (1 << abs(9 * x).astype(int))),
}


@pytest.mark.parametrize("name", NUMPY)
def test_plain_numpy_on_tracers(name: str) -> None:
    row = NUMPY[name]
    check(row.call, spread(row.shape) + row.shift)


def test_extrema_that_tie_in_an_accumulation_share_pair_by_pair() -> None:
    assert pull(np.maximum.accumulate, (np.array([1.0, 1.0]),), np.array([0.0, 1.0]))[0].tolist() == [0.5, 0.5]


def test_quantiles_of_nan_are_nan() -> None:
    out, _ = jvp(np.median, (np.array([1.0, np.nan, 2.0]),), (np.ones(3),))
    assert np.isnan(out)


@pytest.mark.parametrize(
    "reduced", [np.sum, np.mean, np.prod, np.cumsum, np.cumprod, np.var, np.std, np.median, np.sort]
)
def test_numpy_keeps_single_precision(reduced: Any) -> None:
    x = spread((5,)).astype(np.float32)
    out, pushed = jvp(reduced, (x,), (x,))
    assert out.dtype == pushed.dtype == reduced(x).dtype == np.float32


def test_convolution_is_linear_in_each_argument() -> None:
    a, v = spread((5,)), spread((3,), 7)
    ta, tv, w = direction((5,)), direction((3,)), direction((7,))
    pushed = jvp(np.convolve, (a, v), (ta, tv))[1]
    np.testing.assert_allclose(pushed, np.convolve(ta, v) + np.convolve(a, tv), rtol=1e-13)
    by_a, by_v = pull(np.convolve, (a, v), w)
    np.testing.assert_allclose(by_a @ ta + by_v @ tv, w @ pushed, rtol=1e-12)


def test_additions_at_indices_are_the_transposes_of_taking() -> None:
    x, i = np.array([1.0, 10.0, 100.0]), np.array([0, 2, 0])
    for name in ("add_taken", "add_along_axis"):
        put = PRIMITIVES[name]
        fun = lambda x, put=put: put(x, i, axis=0, size=4)  # noqa: E731
        np.testing.assert_array_equal(fun(x), [101, 0, 10, 0])
        w = direction((4,))
        np.testing.assert_array_equal(pull(fun, (x,), w)[0], w[i])
        np.testing.assert_array_equal(jvp(fun, (x,), (x,))[1], fun(x))


@pytest.mark.parametrize("decimals", [-1, 0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128", "int64"])
def test_rounding_to_decimals_is_numpys(decimals: int, dtype: str) -> None:
    x = (np.linspace(-47.0, 61.0, 50) * (1 + 0.3j if dtype == "complex128" else 1)).astype(dtype)
    fun = lambda y: (y, np.round(xp.astype(y, x.dtype) * x, decimals))  # noqa: E731
    rounded = ad.grad(fun, has_aux=True, backend=B)(1.0)[1]
    np.testing.assert_array_equal(rounded, np.round(x, decimals), strict=True)


@pytest.mark.parametrize("compiler", ["numpy", "llvm"])
def test_rounding_to_decimals_prepared(compiler: str) -> None:
    if compiler == "llvm":
        pytest.importorskip("llvmlite")
    backend, x = ad.get_backend(B, compiler=compiler), np.linspace(-4.7, 6.1, 7)
    slope = ad.prepare(ad.grad(lambda y: np.sum(np.round(y, 1) * y), backend=backend), x)
    np.testing.assert_allclose(slope(x / 3), np.round(x / 3, 1), rtol=1e-15)


@pytest.mark.parametrize("made", [copy.copy, copy.deepcopy, lambda x: copy.deepcopy([x])[0]])
def test_copies_keep_the_derivative_and_share_nothing(made: Callable[[Any], Any]) -> None:
    def fun(x: Any) -> Any:
        square = x * x
        part = made(square[1:])
        part[0] = 7.0
        return np.sum(square) + np.sum(part)

    np.testing.assert_array_equal(ad.grad(fun, backend=B)(np.array([1.0, 2.0, 3.0])), [2.0, 4.0, 12.0])


def test_lists_beside_tracers_are_arrays() -> None:
    def fun(x: Any) -> Any:
        y = x * 1.0
        y += [1.0, 2.0, 3.0]
        y *= (2.0, 2.0, 2.0)
        return np.sum([1.0, 2.0, 3.0] * y) + x @ [x[0], 5.0, 6.0]

    np.testing.assert_array_equal(ad.grad(fun, backend=B)(np.array([1.0, 2.0, 3.0])), [4.0, 9.0, 12.0])


def test_arrays_made_of_numbers_that_are_tracers() -> None:
    def fun(x: Any) -> Any:
        a = np.array([[x[0], 2.0], [3.0, x[1] * x[2]]], like=x)
        a[0, 1] = x[1]
        return np.sum(a) + np.sum(np.full((2, 2), x[0], like=x)) + np.sum(np.full(3, 1.0, like=x) * x)

    np.testing.assert_array_equal(ad.grad(fun, backend=B)(np.array([1.0, 2.0, 3.0])), [6.0, 5.0, 3.0])


def test_places_by_value() -> None:
    fun = lambda x: np.sum(x[np.flatnonzero(x > 1)]) + np.sum(x[np.argwhere(x > 2)[:, 0]])  # noqa: E731
    np.testing.assert_array_equal(ad.grad(fun, backend=B)(np.array([1.0, 2.0, 3.0])), [0.0, 1.0, 2.0])


def test_a_tracer_in_a_format_string() -> None:
    text = ad.grad(lambda x: (x, f"{x:.3f} {x}"), has_aux=True, backend=B)(1.0)[1]
    assert text == "1.000 Tracer(array(1.))"


def test_the_namespace_says_what_it_lacks() -> None:
    with pytest.raises(AttributeError, match="reference engine's namespace has no 'relu'"):
        xp.relu  # noqa: B018


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "sum out": (lambda x: np.sum(x, out=np.zeros(())), r"numpy.sum\(out=...\) .* write y = numpy.sum"),
    "sum where": (lambda x: np.sum(x, where=x > 0), "numpy.sum: .*'where'"),
    "ufunc where": (lambda x: np.sin(x, where=np.array([True, False, True])), r"numpy.where\(condition, sin"),
    "ufunc dtype": (lambda x: np.sin(x, dtype=np.float32), r"numpy.sin\(dtype=...\)"),
    "ufunc out": (lambda x: np.sin(x, out=np.zeros(3)), r"numpy.sin\(out=...\).* write y = numpy.sin"),
    "reduce out": (lambda x: np.add.reduce(x, 0, None, np.zeros(())), r"numpy.add.reduce\(out=...\)"),
    "add.at": (lambda x: np.add.at(x, [0], 1.0), "numpy.add.at"),
    "add.reduceat": (lambda x: np.add.reduceat(x, [0]), "numpy.add.reduceat"),
    "hypot.reduce": (lambda x: np.hypot.reduce(x), "numpy.hypot.reduce"),
    "sin.accumulate": (lambda x: np.arctan2.accumulate(x), "numpy.arctan2.accumulate"),
    "frexp": (lambda x: np.frexp(x), "no numpy.frexp"),
    "spacing": (lambda x: np.spacing(x), "no numpy.spacing"),
    "quantile method": (lambda x: np.quantile(x, 0.3, method="weibull"), "not 'weibull'"),
    "quantile weights": (lambda x: np.quantile(x, 0.3, weights=np.ones(3)), "'weights'"),
    "gradient": (lambda x: np.gradient(x, [0.0, 1.0, 3.0]), "one distance per axis"),
    "sort order": (lambda x: np.reshape(x, (3, 1), order="F"), "'order'"),
    "histogram": (lambda x: np.histogram(x), "no numpy.histogram"),
    "partition": (lambda x: np.partition(x, 1), "no numpy.partition"),
    "put": (lambda x: np.put(x, 0, 1.0), "no numpy.put"),
    "in place": (lambda x: np.zeros(3).__imul__(x), r"\+= of a tracer on a NumPy array"),
    "x.item": (lambda x: x[0].item(), r"x.item\(\) would lose its derivative"),
    "x.tolist": (lambda x: x.tolist(), r"x.tolist\(\) would lose"),
    "x.view": (lambda x: x.view(np.int64), r"x.astype\(dtype\)"),
    "x.sort": (lambda x: x.sort(), r"write y = numpy.sort\(x\)"),
    "x.fill": (lambda x: x.fill(0.0), "writes to x"),
    "x.put": (lambda x: x.put(0, 1.0), "numpy.where"),
    "pickle": (lambda x: pickle.dumps(x), "pickling x would lose its derivative"),
    "array ndmin": (lambda x: np.array([x[0]], ndmin=2, like=x), r"'ndmin'; it takes \(object, dtype=None\)"),
    "x.reshape order": (lambda x: x.reshape(3, 1, order="F"), "'order'"),
    "x.sum out": (lambda x: x.sum(out=np.zeros(())), r"numpy.sum\(out=...\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_remedy(name: str) -> None:
    fun, message = REFUSED[name]
    with pytest.raises(ad.NotDifferentiable, match=message):
        jvp(fun, (np.array([1.0, 2.0, 4.0]),), (np.ones(3),))
