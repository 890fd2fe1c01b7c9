"""Programs of random compositions: forward = reverse = prepared = the other engines, to second order.

Blocks are the test rows of all primitives (of the reference engine alone), and functions of the namespaces (of every
engine). What a prepared call may differ by is rounding: its algebra moves signs and factors, so that a product or sum
is rounded in another order. Tolerances are therefore ulps of the largest entry of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.array_api import make_strategies_namespace

import adbridge as ad
from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.primitives import PRIMITIVES
from adbridge.backends.reference.rules.linalg import cofactor
from adbridge.registry import is_installed
from rule_rows import CONSTANT, ROWS, Row

B = "reference"
Fun = Callable[..., Any]
cofactor(0)  # made when it is first asked for


def leaves(tree: Any) -> list[np.ndarray]:
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, (tuple, list)) else [np.asarray(tree)]


def assert_near(got: Any, want: Any, ulps: float, least: float = 1e-300) -> None:
    """Entries within so many units in the last place of the largest, or of `least`; non-finite ones in the same
    places.
    """
    for g, w in zip(leaves(got), leaves(want), strict=True):
        assert (g.shape, g.dtype) == (w.shape, w.dtype)
        fine = np.isfinite(w)
        np.testing.assert_array_equal(np.isfinite(g), fine)
        np.testing.assert_array_equal(np.isnan(g), np.isnan(w))
        scale = np.max(np.abs(w[fine]), initial=0.0)
        np.testing.assert_allclose(g[fine], w[fine], rtol=0, atol=ulps * np.finfo(w.dtype).eps * max(scale, least))


def is_active(x: np.ndarray) -> bool:
    return x.dtype.kind in "fc"


def with_slopes(fun: Fun, args: Sequence[np.ndarray]) -> Any:
    active = tuple(i for i, x in enumerate(args) if is_active(x))
    return ad.value_and_grad(fun, active, backend=B)


# Every primitive, by the rows of its rules' tests.


def weighed(y: Any) -> Any:
    """A real number that every entry of y has its own share in."""
    weights = np.cos(np.arange(1.0, int(np.prod(y.shape)) + 1)).reshape(y.shape) + 1.5
    if y.dtype.kind == "c":
        return xp.sum(xp.real(y) * weights) + xp.sum(xp.imag(y) * np.flip(weights))
    if y.dtype.kind == "f":
        return xp.sum(y * weights.astype(y.dtype))
    return xp.sum(xp.astype(y, np.dtype(np.float64)) * weights)


def every_row(rows: Sequence[Row]) -> Any:
    return pytest.mark.parametrize("row", rows, ids=[f"{i}-{row}" for i, row in enumerate(rows)])


def two_thirds(row: Row) -> Fun:
    """The row between factors and signs, which the simplifier moves through it."""

    def fun(*args: Any) -> Any:
        y = row.fun(*args)
        return -weighed(y) / 3 if y.shape else -2.0 * weighed(y * 0.5)

    return fun


@every_row([*ROWS, *CONSTANT])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # rows go to where slopes overflow
def test_every_primitive_prepared(row: Row) -> None:
    fun = two_thirds(row)
    if not any(map(is_active, row.args)):
        return
    op = with_slopes(fun, row.args)
    prepared = ad.prepare(op, *row.args)
    moved = [x[::-1].copy() if row.elementwise else x * 1.0 if is_active(x) else x for x in row.args]
    for args in (row.args, moved, row.args):
        # A row's own sum, its weights and their factor: a dozen roundings of terms of one size.
        assert_near(prepared(*args), op(*args), 64)


REAL = [row for row in ROWS if all(x.dtype.kind == "f" for x in row.args) and not row.elementwise]
MODERATE = [
    (
        row,
        [
            i
            for i, p in enumerate(zip(*row.args, strict=True))
            if all(1e-3 < abs(x) < 50 and abs(abs(x) - 1) > 0.01 for x in p)
        ],
    )
    for row in ROWS
    if row.elementwise
]


def composition(seed: int) -> tuple[Fun, tuple[np.ndarray, ...]]:
    """Four rows, their arguments stirred by a vector and by what the rows before them gave; and where to call it."""
    rng = np.random.default_rng(seed)
    parts: list[tuple[Row, tuple[np.ndarray, ...]]] = []
    for _ in range(4):
        if rng.random() < 0.5:
            row, at = MODERATE[rng.integers(len(MODERATE))]
            parts.append((row, tuple(x[at] for x in row.args)))
        else:
            row = REAL[rng.integers(len(REAL))]
            parts.append((row, row.args))
    factors = rng.choice([-1.0, 2.0, -0.5, 1.0, 1 / 3], size=(4, 3))

    def fun(z: Any, *args: Any) -> Any:
        n = array_namespace(z)
        total, at = n.sum(z * z), 0
        for (row, own), (f, g, h) in zip(parts, factors.tolist(), strict=True):
            # Near 1, so that arguments stay where the row has its derivative; matrices stay symmetric.
            near = 1 + 1e-3 * n.sin(f * z[0] - g * total)
            y = row.fun(*(x * near for x in args[at : at + len(own)]))
            at += len(own)
            y = n.real(y) / (1 + n.sum(n.real(y * y)))
            total = total * g + h * n.sum(y * n.cos(y * f)) - z[1]
        return n.tanh(total) * f + n.sum(z)

    return fun, (np.array([0.3, -0.7, 0.2]), *(x for _, own in parts for x in own))


array_namespace = ad.array_namespace


@pytest.mark.parametrize("seed", range(60))
def test_compositions_of_primitives(seed: int) -> None:
    fun, args = composition(seed)
    op = with_slopes(fun, args)
    want = op(*args)
    # Each of four rows may lose what its condition number costs (matrices here: up to about 100).
    assert_near(ad.prepare(op, *args)(*args), want, 1e4, least=1.0)
    rng = np.random.default_rng(seed)
    tangents = tuple(rng.uniform(-1, 1, x.shape) for x in args)
    pushed = ad.jvp(fun, args, tangents, backend=B)[1]
    pulled = sum(np.sum(g * t) for g, t in zip(want[1], tangents, strict=True))
    scale = sum(np.sum(np.abs(g * t)) for g, t in zip(want[1], tangents, strict=True))
    assert abs(pushed - pulled) <= 1e-11 * scale


@pytest.mark.parametrize("seed", range(25))
def test_compositions_of_primitives_to_second_order(seed: int) -> None:
    """Reverse over reverse, forward over reverse, and the former prepared."""
    fun, args = composition(seed)
    slope = ad.grad(fun, backend=B)
    t = np.array([1.0, -2.0, 0.5])

    def along(z: Any, *rest: Any) -> Any:
        return xp.sum(slope(z, *rest) * t)

    twice = ad.grad(along, backend=B)
    want = twice(*args)
    forward = ad.jvp(lambda z: slope(z, *args[1:]), args[:1], (t,), backend=B)[1]
    assert_near(forward, want, 1e5, least=1.0)
    assert_near(ad.prepare(twice, *args)(*args), want, 1e5, least=1.0)


# Every engine: functions of the standard's namespace, on arrays of one shape.

UNARIES: list[Callable[[Any, Any], Any]] = [
    lambda n, x: n.sin(x),
    lambda n, x: n.tanh(-x),
    lambda n, x: n.exp(-n.abs(x)),
    lambda n, x: n.log1p(x * x),
    lambda n, x: n.sqrt(2.0 + n.cos(3.0 * x)),
    lambda n, x: -x / 3,
    lambda n, x: x - n.mean(x),
    lambda n, x: x * n.sum(x * x) / (1 + n.sum(n.abs(x))),
    lambda n, x: n.flip(x, axis=-1),
    lambda n, x: n.permute_dims(n.permute_dims(x, tuple(range(x.ndim))[::-1]), tuple(range(x.ndim))[::-1]),
    lambda n, x: n.reshape(n.reshape(x, (-1,)), x.shape),
    lambda n, x: n.broadcast_to(n.max(-2 * x, axis=-1, keepdims=True), x.shape) * x,
    lambda n, x: n.where(x > 0.1, x * x, -2.0 * x),
    lambda n, x: n.square(x) - 0.5 * x**3,
    lambda n, x: 1 / (1 + x * x),
    lambda n, x: x - n.sum(x, axis=0, keepdims=True) / 7,
    lambda n, x: n.concat([x[1:], x[:1]], axis=0),
    lambda n, x: n.stack([x, 2 * x, -x], axis=0)[1] * 0.3,
    lambda n, x: n.expand_dims(x, axis=0)[0, ...],
    lambda n, x: n.roll(x, 1, axis=0) * x,
]
BINARIES: list[Callable[[Any, Any, Any], Any]] = [
    lambda n, a, b: a + b,
    lambda n, a, b: a * b,
    lambda n, a, b: 2 * a - b / 3,
    lambda n, a, b: a / (1.5 + n.tanh(b)),
    lambda n, a, b: n.maximum(a, -b),
    lambda n, a, b: n.hypot(a, b + 2.5),
    lambda n, a, b: n.atan2(a, 2.5 + n.sin(b)),
    lambda n, a, b: n.logaddexp(a, -b),
    lambda n, a, b: n.sum(a * b, axis=-1, keepdims=True) * a,
    lambda n, a, b: n.tensordot(a, b, axes=a.ndim) * b,
    lambda n, a, b: n.minimum(a * 2, b * 2) * (-1.0),
    lambda n, a, b: a * b[..., :1],
    lambda n, a, b: n.matmul(a, n.matrix_transpose(b)) @ n.exp(-a * a) if a.ndim == 2 else a - b,
]
SHAPES = [(4,), (3, 4), (1, 3), (3, 1), (2, 3, 2), (1,), (5, 5)]
Step = tuple[int, int, int]


def program(steps: Sequence[Step], shape: tuple[int, ...]) -> Fun:
    def fun(x: Any, y: Any) -> Any:
        n = array_namespace(x)
        values = [x, 0.5 * y + 0.1]
        for which, i, j in steps:
            a, b = values[i % len(values)], values[j % len(values)]
            k = which % (len(UNARIES) + len(BINARIES))
            values.append(UNARIES[k](n, a) if k < len(UNARIES) else BINARIES[k - len(UNARIES)](n, a, b))
        return n.sum(n.sin(values[-1] + 0.1 * values[-2]))

    return fun


def case(seed: int) -> tuple[Fun, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng([7, seed])
    steps = [tuple(map(int, rng.integers(0, 990, 3))) for _ in range(6)]
    shape = SHAPES[seed % len(SHAPES)]
    whole = rng.uniform(-1.2, 1.2, (2, *shape))
    x, y = whole[0], whole[1]
    if seed % 3 == 1:  # not contiguous
        x = np.asfortranarray(x)[::-1]
    return program(steps, shape), (x, y)  # type: ignore[arg-type]


def amplified(want: Any) -> bool:
    return any(not np.all(np.isfinite(w)) or np.max(np.abs(w), initial=0) > 1e6 for w in leaves(want))


@pytest.mark.parametrize("seed", range(150))
def test_programs_at_once_and_prepared(seed: int) -> None:
    fun, args = case(seed)
    op = ad.value_and_grad(fun, (0, 1), backend=B)
    want = op(*args)
    assume_moderate(want)
    prepared = ad.prepare(op, *args)
    for _ in range(2):
        # Six steps, each of which may lose a digit or two to cancellation.
        assert_near(prepared(*args), want, 1e4, least=1.0)
    other = tuple(np.ascontiguousarray(0.7 * a) for a in args)
    assert_near(prepared(*other), op(*other), 1e4, least=1.0)
    tangents = tuple(np.random.default_rng(seed).uniform(-1, 1, a.shape) for a in args)
    pushed = ad.jvp(fun, args, tangents, backend=B)[1]
    terms = [g * t for g, t in zip(want[1], tangents, strict=True)]
    assert abs(pushed - sum(map(np.sum, terms))) <= 1e-11 * max(1.0, sum(np.sum(np.abs(t)) for t in terms))


def assume_moderate(want: Any) -> None:
    if amplified(want):
        pytest.skip("a program that blows up")


@pytest.mark.parametrize("seed", range(30))
def test_programs_in_single_precision(seed: int) -> None:
    fun, args = case(seed)
    single = tuple(a.astype(np.float32) for a in args)
    op = ad.value_and_grad(fun, (0, 1), backend=B)
    want = op(*(a.astype(np.float64) for a in single))
    assume_moderate(want)
    for got in (op(*single), ad.prepare(op, *single)(*single)):
        assert all(g.dtype == np.float32 for g in leaves(got))
        for g, w in zip(leaves(got), leaves(want), strict=True):
            np.testing.assert_allclose(g, w, rtol=0, atol=2e-3 * max(1.0, float(np.max(np.abs(w)))))


@pytest.mark.parametrize("seed", range(30))
def test_programs_to_second_order(seed: int) -> None:
    fun, (x, y) = case(seed)
    slope = ad.grad(fun, backend=B)
    t = np.random.default_rng(seed).uniform(-1, 1, x.shape)
    twice = ad.grad(lambda x, y: xp.sum(slope(x, y) * t), backend=B)
    want = twice(x, y)
    assume_moderate(want)
    forward = ad.jvp(lambda x: slope(x, y), (x,), (t,), backend=B)[1]
    scale = 1 + np.max(np.abs(want))
    np.testing.assert_allclose(forward / scale, want / scale, rtol=0, atol=1e-10)
    np.testing.assert_allclose(ad.prepare(twice, x, y)(x, y) / scale, want / scale, rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ["jax", "torch", "autograd"])
@pytest.mark.parametrize("seed", range(12))
def test_programs_agree_with_other_engines(engine: str, seed: int) -> None:
    if not is_installed(engine):
        pytest.skip(f"{engine} is not installed")
    fun, args = case(seed)
    want = ad.value_and_grad(fun, (0, 1), backend=engine)(*(np.ascontiguousarray(a) for a in args))
    assume_moderate(want)
    op = ad.value_and_grad(fun, (0, 1), backend=B)
    for got in (op(*args), ad.prepare(op, *args)(*args)):
        for g, w in zip(leaves(got), leaves(want), strict=True):
            np.testing.assert_allclose(g, w, rtol=0, atol=1e-11 * max(1.0, float(np.max(np.abs(w)))))


@pytest.mark.parametrize("seed", range(40))
def test_programs_of_complex_numbers(seed: int) -> None:
    """Against a complex step in each part: df = Re(c dz), c the cotangent."""
    rng = np.random.default_rng([3, seed])
    picked = [HOLOMORPHIC[i] for i in rng.integers(0, len(HOLOMORPHIC), 4)]
    shape = SHAPES[seed % len(SHAPES)]
    z = rng.uniform(-0.7, 0.7, shape) + 1j * rng.uniform(-0.7, 0.7, shape)

    def fun(z: Any) -> Any:
        n, y = array_namespace(z), z
        for f in picked:
            y = f(n, y, z)
        return n.sum(n.real(y)) - 2 * n.sum(n.imag(y) * n.abs(z))

    op = ad.value_and_grad(fun, backend=B)
    want = op(z)
    assert_near(ad.prepare(op, z)(z), want, 1e4, least=1.0)
    t = rng.uniform(-1, 1, shape) + 1j * rng.uniform(-1, 1, shape)
    h = 1e-6
    step = (fun(z + h * t) - fun(z - h * t)) / (2 * h)
    pushed = ad.jvp(fun, (z,), (t,), backend=B)[1]
    np.testing.assert_allclose(pushed, step, rtol=1e-6, atol=1e-6 * (1 + abs(step)))


HOLOMORPHIC: list[Callable[[Any, Any, Any], Any]] = [
    lambda n, y, z: n.sin(-y),
    lambda n, y, z: y * z - 2 * y,
    lambda n, y, z: n.exp(y) / 3,
    lambda n, y, z: n.square(y) * 1j,
    lambda n, y, z: n.conj(y) + z,
    lambda n, y, z: y / (3 + z * z),
    lambda n, y, z: y - n.sum(y, axis=0, keepdims=True) / 5,
    lambda n, y, z: n.real(y) * z + n.imag(-y),
    lambda n, y, z: (2 - 1j) * n.flip(y, axis=0),
    lambda n, y, z: y**2 - y**3 / 2,
    lambda n, y, z: n.where(n.real(y) > 0, y, -y * z),
]


# Shapes, dtypes and indices.

kinds = st.sampled_from([np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.complex128)])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
quick = settings(max_examples=60, deadline=None)
standard = make_strategies_namespace(xp, api_version="2024.12") if hasattr(xp, "__array_api_version__") else None


def numbered(shape: tuple[int, ...], dtype: np.dtype, start: float = 1.0) -> np.ndarray:
    """Small whole numbers, so that sums of them are exact: all different."""
    x = (np.arange(int(np.prod(shape))) + start).reshape(shape).astype(dtype)
    return x * (1 - 2j) if dtype.kind == "c" else x


def both(fun: Fun, *args: np.ndarray, argnums: Any = 0) -> list[Any]:
    """The gradient at once, and prepared with other values of the same shapes."""
    op = ad.grad(fun, argnums, backend=B)
    prepared = ad.prepare(op, *(a + a if is_active(a) else a for a in args))
    return [op(*args), prepared(*args), prepared(*args)]


def real_part_of_sum(y: Any) -> Any:
    return xp.sum(xp.real(y)) if y.dtype.kind == "c" else xp.sum(y)


def scattered(w: Any, shape: tuple[int, ...], key: Any, dtype: Any) -> Any:
    out = np.zeros(shape, dtype)
    np.add.at(out, key, w)
    return out


@st.composite
def arrays_with_keys(draw: Any) -> tuple[np.ndarray, Any]:
    shape = draw(shapes)
    x = numbered(shape, draw(kinds))
    keys = [hnp.basic_indices(shape, allow_newaxis=True)]
    if shape and 0 not in shape:
        keys.append(hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, min_side=0, max_side=3)))
        keys.append(hnp.arrays(np.bool_, shape))
        keys.append(hnp.arrays(np.bool_, shape[:1]))
    return x, draw(st.one_of(keys))


@quick
@given(arrays_with_keys())
def test_getitem(drawn: tuple[np.ndarray, Any]) -> None:
    x, key = drawn
    taken = x[key]
    w = numbered(np.shape(taken), x.dtype, start=2.0)
    for got in both(lambda x: real_part_of_sum(x[key] * w), x):
        np.testing.assert_array_equal(got, scattered(w, x.shape, key, x.dtype))
        assert got.dtype == x.dtype


def last_written(shape: tuple[int, ...], key: Any) -> np.ndarray:
    """Of a write by this key: for each element the number of the entry that it has afterwards, or -1."""
    owner = np.full(shape, -1)
    size = np.shape(owner[key])
    owner[key] = np.arange(int(np.prod(size))).reshape(size)
    return owner


@quick
@given(arrays_with_keys(), st.booleans())
def test_setitem(drawn: tuple[np.ndarray, Any], scalar: bool) -> None:
    x, key = drawn
    part = np.shape(x[key])
    v = numbered((), x.dtype, 5.0) if scalar else numbered(part, x.dtype, 5.0)
    w = numbered(x.shape, x.dtype, 2.0)

    def fun(x: Any, v: Any) -> Any:
        y = x * 1
        y[key] = v
        return real_part_of_sum(y * w)

    owner = last_written(x.shape, key)
    of_x = np.where(owner < 0, w, 0)
    counted = scattered(w[owner >= 0], (int(np.prod(part)),), owner[owner >= 0], x.dtype)
    of_v = np.sum(counted) if scalar else counted.reshape(part)
    if x.shape == ():
        return  # a 0-d array's product is a scalar, which nothing can be written to
    for got_x, got_v in both(fun, x, v, argnums=(0, 1)):
        np.testing.assert_array_equal(got_x, of_x)
        np.testing.assert_array_equal(got_v, of_v)


def summed_to(w: Any, shape: tuple[int, ...]) -> Any:
    """The transpose of broadcasting."""
    w = w.sum(axis=tuple(range(w.ndim - len(shape))))
    return w.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True) if shape else w


@quick
@given(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, min_side=0, max_side=3), kinds)
def test_broadcasting(drawn: Any, dtype: np.dtype) -> None:
    a, b, c = (numbered(shape, dtype, k) for k, shape in enumerate(drawn.input_shapes, 1))
    w = numbered(drawn.result_shape, dtype, 2.0)

    def fun(a: Any, b: Any, c: Any) -> Any:
        return real_part_of_sum((2 * a - b * c - a * -b) * w)

    wanted = ((2 + b) * w, (a - c) * w, -b * w)
    wanted = tuple(summed_to(np.broadcast_to(g, w.shape), s) for g, s in zip(wanted, drawn.input_shapes, strict=True))
    for got in both(fun, a, b, c, argnums=(0, 1, 2)):
        for g, want in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(g, want)


@st.composite
def arrays_with_axes(draw: Any) -> tuple[np.ndarray, Any, bool]:
    shape = draw(shapes)
    axis = draw(st.one_of(st.none(), hnp.valid_tuple_axes(len(shape))))
    return numbered(shape, draw(kinds)), axis, draw(st.booleans())


@quick
@given(arrays_with_axes())
def test_sums(drawn: tuple[np.ndarray, Any, bool]) -> None:
    x, axis, keepdims = drawn
    y = x.sum(axis=axis, keepdims=True)
    w = numbered(y.shape, x.dtype, 2.0)
    weights = w if keepdims else w.reshape(x.sum(axis=axis).shape)
    for got in both(lambda x: real_part_of_sum(-3 * xp.sum(-x * 2, axis=axis, keepdims=keepdims) * weights), x):
        np.testing.assert_array_equal(got, np.broadcast_to(6 * w, x.shape))
    for got in both(lambda x: real_part_of_sum(xp.sum(x * x, axis=axis, keepdims=keepdims) * weights), x):
        np.testing.assert_array_equal(got, 2 * x * w)


@quick
@given(arrays_with_axes(), st.sampled_from([1.0, -1.0, 2.0, -0.5]), st.sampled_from(["max", "min"]))
def test_extrema(drawn: tuple[np.ndarray, Any, bool], factor: float, name: str) -> None:
    """Ties share, whatever factor the simplifier moves out."""
    x, axis, keepdims = drawn
    assume(x.dtype.kind == "f" and x.size)
    x = np.floor(x / 3)  # ties
    top = getattr(np, name)(factor * x, axis=axis, keepdims=True)
    hit = (factor * x == top).astype(x.dtype)
    share = hit / hit.sum(axis=axis, keepdims=True) if axis != () else hit
    w = numbered(top.shape, x.dtype, 2.0)
    weights = w if keepdims else w.reshape(getattr(np, name)(x, axis=axis).shape)

    def fun(x: Any) -> Any:
        return xp.sum(getattr(xp, name)(factor * x, axis=axis, keepdims=keepdims) * weights)

    for got in both(fun, x):
        np.testing.assert_allclose(got, factor * share * w, rtol=4 * np.finfo(x.dtype).eps)


@quick
@given(st.data())
def test_elementwise_functions_of_the_standard(data: Any) -> None:
    """Arrays as the standard's strategies draw them: extreme values, signed zeros, infinities and NaN too."""
    assert standard is not None
    dtype = data.draw(st.sampled_from([xp.float32, xp.float64]))
    x = np.asarray(data.draw(standard.arrays(dtype=dtype, shape=standard.array_shapes(max_dims=2, max_side=3))))
    name = data.draw(st.sampled_from(["sin", "exp", "tanh", "abs", "square", "sqrt", "log1p", "negative", "atan"]))

    def fun(x: Any) -> Any:
        return xp.sum(-2 * getattr(xp, name)(-x) + x / 3)

    op = ad.grad(fun, backend=B)
    with np.errstate(all="ignore"):
        want = op(x)
        got = ad.prepare(op, x)(x)
    np.testing.assert_allclose(got, want, rtol=16 * np.finfo(x.dtype).eps, atol=np.finfo(x.dtype).tiny * 16)
    assert PRIMITIVES[name] is not None
