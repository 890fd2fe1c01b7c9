"""Batching: every primitive of stacked arrays as in a loop, one-hot seeds, Jacobians and Hessians, refusals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import adbridge as ad
from adbridge import jacobians
from adbridge.backends.reference import batching as sweeps
from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference import one_hot, primitives
from adbridge.backends.reference.batching import Batcher, batched, batching_kind
from adbridge.backends.reference.one_hot import OneHot
from adbridge.backends.reference.primitives import PRIMITIVES, bundle, pick, primitive
from adbridge.backends.reference.rules.shaping import Slot
from test_reference import KEYS, MATMUL, REDUCTIONS, SHAPES, random

B = "reference"
MODES = ("forward", "reverse")


def subsets(count: int) -> list[tuple[int, ...]]:
    """Which operands have a batch axis."""
    return [s for k in range(1, count + 1) for s in itertools.combinations(range(count), k)]


def run(fun: Callable[..., Any], args: Sequence[Any], which: Sequence[int]) -> np.ndarray:
    """fun(*args) with the args in `which` stacked."""

    def flat(*rows: Any) -> tuple[Any]:
        whole = list(args)
        for i, row in zip(which, rows, strict=True):
            whole[i] = row
        return (fun(*whole),)

    return batched(flat, *(args[i] for i in which))[0]  # type: ignore[no-any-return]


def looped(fun: Callable[..., Any], args: Sequence[Any], which: Sequence[int]) -> np.ndarray:
    size = len(args[which[0]])
    rows = [fun(*(x[i] if j in which else x for j, x in enumerate(args))) for i in range(size)]
    return np.stack([np.asarray(row) for row in rows])


def check(fun: Callable[..., Any], rows: Sequence[Sequence[Any]], candidates: Sequence[int] | None = None) -> None:
    """Batched = looped for each subset of the operands; `rows` are the operands of each row."""
    candidates = range(len(rows[0])) if candidates is None else candidates
    for chosen in subsets(len(candidates)):
        which = [candidates[i] for i in chosen]
        args = [np.stack([row[i] for row in rows]) if i in which else x for i, x in enumerate(rows[0])]
        with np.errstate(all="ignore"):
            got, expected = run(fun, args, which), looped(fun, args, which)
        assert got.shape == expected.shape and got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-14, atol=1e-15)


# Elementwise primitives.


def arity(prim: primitives.Primitive) -> int:
    known = {"astype": 1, "where": 3, "real": 1, "imag": 1, "conj": 1, "round": 1}
    if prim.name in known:
        return known[prim.name]
    return prim.impl.nin if isinstance(prim.impl, np.ufunc) else len(prim.partials or (0,))


ELEMENTWISE = [name for name, prim in PRIMITIVES.items() if batching_kind(prim) == "elementwise"]
WHOLE = {"bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert", "bitwise_left_shift", "bitwise_right_shift"}


def elementwise_operands(name: str, shapes: Sequence[tuple[int, ...]], seed: int) -> list[np.ndarray]:
    arrays = [1.5 + random(shape, 10 * seed + i) for i, shape in enumerate(shapes)]
    if name in ("asin", "acos", "atanh", "logit", "erfinv"):
        arrays = [a - 1.5 for a in arrays]
    if name in WHOLE:
        return [(4 * a).astype(np.int64) for a in arrays]
    return [arrays[0] > 1.5, *arrays[1:]] if name == "where" else arrays


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_primitives(name: str) -> None:
    prim = PRIMITIVES[name]
    params = {"astype": {"dtype": np.dtype(np.float32)}, "polygamma": {"n": 1}}.get(name, {})
    params = {"order": 1} if name.startswith("bessel") else params
    shapes = [s[:1] for s in SHAPES] if arity(prim) == 1 else SHAPES
    for shape in shapes:
        whole = (*shape, ()) if arity(prim) == 3 else shape
        check(lambda *args: prim(*args, **params), [elementwise_operands(name, whole, seed) for seed in range(3)])


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_elementwise_primitives_of_other_dtypes(dtype: Any) -> None:
    rows = [(random((2, 1), seed, dtype), random((3,), seed + 5, dtype)) for seed in range(3)]
    for name in ("add", "multiply", "divide", "pow"):
        check(PRIMITIVES[name], rows)
    check(lambda a: a * 2 + 1, [row[:1] for row in rows])


# The others: operands, parameters, and which operands may be batched (all).

I3 = np.array([0, 2, 2])
Row = tuple[list[Callable[[int], Any]], dict[str, Any]]


def floats(*shape: int, dtype: Any = np.float64) -> Callable[[int], Any]:
    return lambda seed: random(shape, seed, dtype)


def whole(*shape: int, below: int) -> Callable[[int], Any]:
    return lambda seed: np.random.default_rng(seed).integers(-below, below, shape)


def positive(n: int) -> Callable[[int], Any]:
    return lambda seed: random((n, n), seed) @ random((n, n), seed).T + n * np.eye(n)


OTHERS: dict[str, list[Row]] = {
    **{
        name: [([floats(2, 3)], {"axis": axis, "keepdims": keep}) for axis in ((0,), (0, 1), ()) for keep in (0, 1)]
        for name in ("sum", "max", "min", "all", "any")
    },
    **{
        name: [([floats(2, 3)], {"axis": axis, "keepdims": keep}) for axis in (None, 1) for keep in (False, True)]
        for name in ("argmax", "argmin")
    },
    **{name: [([floats(2, 3)], {"axis": axis}) for axis in (0, 1)] for name in ("cumulative_sum", "cumulative_prod")},
    "share_of_ties": [([lambda seed: 1.0 * whole(2, 3, below=2)(seed), lambda seed: np.ones((2, 1))], {})],
    "reshape": [([floats(2, 3)], {"shape": shape}) for shape in ((3, 2), (6,), (1, 2, 3))]
    + [([floats()], {"shape": (1,)})],
    "permute_dims": [([floats(2, 3, 4)], {"axes": (2, 0, 1)}), ([floats()], {"axes": ()})],
    "broadcast_to": [
        ([floats(3)], {"shape": (2, 3)}),
        ([floats(2, 1)], {"shape": (4, 2, 3)}),
        ([floats()], {"shape": (2,)}),
    ],
    "concat": [([floats(2, 3), floats(2, 1), floats(2, 2)], {"axis": 1})],
    "matmul": [([floats(*a), floats(*b)], {}) for a, b in MATMUL],
    "getitem": [
        ([floats(3, 4)], {"key": (1, slice(None, None, -1))}),
        ([floats(3, 4), whole(2, below=3)], {"key": Slot(0)}),
        ([floats(3, 4), whole(2, below=4)], {"key": (slice(None), Slot(0))}),
        ([floats(3, 4), whole(2, below=3), whole(2, 1, below=4)], {"key": (Slot(0), Slot(1))}),
        ([floats(3, 2, 4), whole(2, below=3), whole(3, 1, below=4)], {"key": (Slot(0), slice(None), Slot(1))}),
        ([floats(2, 3, 4, 2), whole(2, below=3)], {"key": (Ellipsis, Slot(0), slice(1, None), 0)}),
        ([floats(2, 3, 4, 2), whole(2, below=4)], {"key": (Ellipsis, None, 1, Slot(0), slice(None))}),
        ([floats(3, 4), whole(below=3)], {"key": (Slot(0), None)}),
        ([floats(3, 4), whole(below=3)], {"key": (slice(None), None, Slot(0))}),
    ],
    **{
        name: [
            ([floats(3, 4), floats(4)], {"key": (1, slice(None))}),
            ([floats(3, 4), floats()], {"key": (slice(1, None), 2)}),
            ([floats(3, 4), floats(1, 4), whole(2, below=3)], {"key": Slot(0)}),
            ([floats(3, 4), floats(3, 2), whole(2, below=4)], {"key": (slice(None), Slot(0))}),
            (
                [floats(3, 2, 4), floats(5, 2), whole(5, below=3), whole(5, below=4)],
                {"key": (Slot(0), slice(None), Slot(1))},
            ),
            ([floats(2, 3, 4), floats(2, 5, 1), whole(5, below=3)], {"key": (slice(None), Slot(0), slice(1, 3))}),
        ]
        for name in ("add_at", "set_at")
    },
    "clear_at": [
        ([floats(3, 4)], {"key": (slice(None), 1)}),
        ([floats(3, 4), whole(2, below=3)], {"key": Slot(0)}),
        ([floats(3, 2, 4), whole(2, below=3), whole(3, 1, below=4)], {"key": (Slot(0), slice(None), Slot(1))}),
    ],
    "last_writes": [
        ([whole(4, below=3)], {"key": Slot(0), "shape": (3, 2)}),
        ([whole(4, below=3), whole(4, below=2)], {"key": (Slot(0), slice(None), Slot(1)), "shape": (3, 4, 2)}),
    ],
    **{name: [([positive(3)], {})] for name in ("cholesky", "inv", "det", "cofactor")},
    "pinv": [([floats(3, 2)], {"rtol": 1e-12})],
    "matrix_rank": [([floats(3, 2)], {"rtol": 1e-12})],
    "solve": [([positive(3), floats(3, 2)], {}), ([positive(3), floats(4, 3, 2)], {})],
    "diagonal": [([floats(2, 3, 4)], {"offset": 1})],
    "from_diagonal": [([floats(2, 3)], {"offset": 1, "shape": (3, 4)})],
    "fft": [([floats(2, 4, dtype=complex)], {"axes": (0, 1), "norm": "ortho"})],
    "ifft": [([floats(2, 4, dtype=complex)], {"axes": (1,), "norm": "forward"})],
    "rfft": [([floats(2, 4)], {"axis": 0, "norm": "backward"})],
    "irfft": [([floats(2, 4, dtype=complex)], {"n": 5, "axis": 1, "norm": "backward"})],
    "take_along_axis": [([floats(3, 4), lambda seed: whole(3, 2, below=4)(seed) % 4], {"axis": 1})],
    "take": [([floats(2, 3, 2), whole(2, 2, below=3)], {"axis": 1}), ([floats(3), whole(below=3)], {"axis": 0})],
    "add_taken": [([floats(2, 3, 4), whole(3, 4, below=3)], {"axis": 1, "size": 5})],
    "add_along_axis": [([floats(3, 2), lambda seed: whole(3, 2, below=4)(seed) % 4], {"axis": 1, "size": 4})],
    "argsort": [([floats(3, 4)], {"axis": 0, "descending": True})],
    "searchsorted": [([lambda seed: np.sort(random((5,), seed)), floats(2, 3)], {"side": "left"})],
    "logsumexp": [([floats(2, 3)], {"axis": (1,), "keepdims": False})],
    "softmax": [([floats(2, 3)], {"axis": (0,)})],
    "log_softmax": [([floats(2, 3)], {"axis": (0, 1)})],
    "convolve": [([floats(4), floats(3)], {})],
}
CASES = [(name, i) for name, table in OTHERS.items() for i in range(len(table)) if name in PRIMITIVES]


@pytest.mark.parametrize(("name", "i"), CASES)
def test_other_primitives(name: str, i: int) -> None:
    makers, params = OTHERS[name][i]
    rows = [[make(10 * seed + j) for j, make in enumerate(makers)] for seed in range(3)]
    check(lambda *args: PRIMITIVES[name](*args, **params), rows)


BUNDLES = ("qr", "eigh", "svd", "slogdet")


@pytest.mark.parametrize("name", [name for name in BUNDLES if name in PRIMITIVES])
def test_bundles_of_matrices(name: str) -> None:
    for index in range(2):
        check(lambda x, index=index: pick(PRIMITIVES[name](x), index=index), [[positive(3)(seed)] for seed in range(3)])


def test_every_primitive_is_tested_in_a_batch() -> None:
    """A new row in a rule table needs one here, unless it is elementwise."""
    assert PRIMITIVES.keys() <= {*ELEMENTWISE, *OTHERS, *BUNDLES, "pick"} | {n for n in PRIMITIVES if "cofactor_" in n}


def test_which_primitives_go_by_a_loop() -> None:
    loops = {name for name, prim in PRIMITIVES.items() if batching_kind(prim) == "loop"}
    assert loops <= {"convolve"}
    assert batching_kind(PRIMITIVES["tanh"]) == "elementwise" and batching_kind(PRIMITIVES["matmul"]) == "rule"


@pytest.mark.parametrize("key", KEYS)
def test_keys(key: str) -> None:
    value, indices = xp.index_of(KEYS[key])
    taken = random((3, 4))[KEYS[key]]
    check(lambda x: PRIMITIVES["getitem"](x, *indices, key=value), [[random((3, 4), seed)] for seed in range(3)])
    for name in ("add_at", "set_at"):
        rows = [[random((3, 4), seed), random(taken.shape, seed)] for seed in range(3)]
        check(lambda x, v, name=name: PRIMITIVES[name](x, v, *indices, key=value), rows)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_functions_of_the_namespace(name: str) -> None:
    check(REDUCTIONS[name], [[random((2, 4), seed)] for seed in range(3)])


def test_masks_with_batched_indices_go_by_the_loop() -> None:
    mask = np.array([True, False, True])
    rows = [[random((3, 4), seed), whole(2, below=4)(seed)] for seed in range(3)]
    key = (Slot(0), Slot(1))
    check(lambda x, i: PRIMITIVES["getitem"](x, mask, i, key=key), rows)
    check(lambda x, i: PRIMITIVES["set_at"](x, np.ones(2), mask, i, key=key), rows)
    check(lambda x, i: PRIMITIVES["clear_at"](x, mask, i, key=key), rows)
    check(lambda i: PRIMITIVES["last_writes"](mask, i, key=key, shape=(3, 4)), [row[1:] for row in rows])


@pytest.fixture
def without_rules() -> Any:
    """Primitives that no table knows: one with a result, one with two."""
    cube = primitive("cube_row", lambda x, y: x**3 + y)
    both = bundle("both_row", lambda x: (x + 1, np.sum(x)), lambda t, y, x: (t, xp.sum(t)))
    try:
        yield cube, both
    finally:
        del PRIMITIVES["cube_row"], PRIMITIVES["both_row"]


def test_a_primitive_without_a_rule_goes_by_the_loop(without_rules: Any) -> None:
    cube, both = without_rules
    assert batching_kind(cube) == "loop"
    rows = [[random((2, 3), seed), random((3,), seed)] for seed in range(3)]
    check(cube, rows)
    for index in (0, 1):
        check(lambda x: pick(both(x), index=index), [row[:1] for row in rows])  # noqa: B023
        none = batched(lambda x: (pick(both(x), index=index),), np.zeros((0, 2, 3)))[0]  # noqa: B023
        assert none.shape == ((0, 2, 3), (0,))[index]
    assert batched(lambda x: (cube(x, 1.0),), np.zeros((0, 2, 3)))[0].shape == (0, 2, 3)
    nested = batched(lambda x: batched(lambda y: (pick(both(y), index=1),), x), random((4, 3, 2)))[0]
    np.testing.assert_allclose(nested, random((4, 3, 2)).sum(axis=2))


# Batches in themselves.


def test_one_matrix_product_for_a_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[Any] = []
    impl = PRIMITIVES["matmul"].impl
    monkeypatch.setattr(PRIMITIVES["matmul"], "impl", lambda a, b: shapes.append((a.shape, b.shape)) or impl(a, b))
    matrix = random((4, 5))
    run(lambda v: matrix @ v, [random((7, 5))], [0])
    run(lambda v: v @ matrix, [random((7, 4))], [0])
    run(lambda v: matrix @ v, [random((7, 5, 1))], [0])
    run(lambda m: m @ matrix, [random((7, 3, 4))], [0])
    assert shapes == [((7, 5), (5, 4)), ((7, 4), (4, 5)), ((7, 5), (5, 4)), ((21, 4), (4, 5))]


def test_batches_of_batches() -> None:
    x, y = random((3, 2, 4)), random((5, 4))

    def outer(rows: Any) -> tuple[Any]:
        return (batched(lambda row: batched(lambda other: (xp.sin(row) * other + rows[0],), y), rows)[0],)

    expected = np.sin(x)[:, :, None] * y[None, None] + x[:, 0][:, None, None]
    np.testing.assert_allclose(batched(outer, x)[0], expected, rtol=1e-14)


def test_derivatives_of_rows() -> None:
    x = random((5, 3))
    got = batched(lambda row: (ad.grad(lambda z: xp.sum(xp.sin(z) * z), backend=B)(row),), x)[0]
    np.testing.assert_allclose(got, np.cos(x) * x + np.sin(x), rtol=1e-14)
    got = batched(lambda row: (ad.jacobian(lambda z: xp.cumulative_sum(z * z), backend=B)(row),), x)[0]
    np.testing.assert_allclose(got, np.tri(3) * (2 * x)[:, None, :], rtol=1e-14)


def test_writes_to_rows() -> None:
    def fun(row: Any, i: Any) -> Any:
        y = xp.zeros_like(row)
        y[1:] = row[:-1]
        y[i] = row[0] * 10
        view, element = y[:2], y[3]
        view += 1
        y[3] = element + y[3]  # an element is a copy
        return y

    index = np.array([0, 2, 1])
    x = random((3, 4))
    expected = np.concatenate([np.zeros((3, 1)), x[:, :-1]], axis=1)
    expected[np.arange(3), index] = x[:, 0] * 10
    expected[:, :2] += 1
    expected[:, 3] *= 2
    np.testing.assert_array_equal(run(fun, [x, index], [0, 1]), expected)
    slope = batched(lambda row, i: (ad.jacobian(lambda z: fun(z, i), backend=B)(row),), x, index)[0]
    for row, i in zip(slope, index, strict=True):
        one = np.eye(4, k=-1)
        one[i] = 10 * np.eye(4)[0]
        one[3] *= 2
        np.testing.assert_array_equal(row, one)


def test_no_rows_no_elements_no_axes() -> None:
    matrix = random((3, 4))
    assert run(lambda x: xp.sum(xp.sin(matrix @ x)), [np.zeros((0, 4))], [0]).shape == (0,)
    assert run(lambda x: x[np.array([0, 2]), None] * 2, [np.zeros((0, 4))], [0]).shape == (0, 2, 1)
    assert run(lambda x: xp.concat([x, x]) + 1, [np.zeros((3, 0))], [0]).shape == (3, 0)
    np.testing.assert_array_equal(
        run(lambda x: x * 2 + np.arange(2.0), [np.arange(3.0)], [0]), [[0, 1], [2, 3], [4, 5]]
    )


# Refusals.

REFUSALS: dict[str, Callable[[Any], Any]] = {
    "branch": lambda x: x if x[0] > 0 else -x,
    "mask": lambda x: x[x > 0],
    "int": lambda x: x * int(xp.astype(x[0], np.int64)),
    "index": lambda x: x * [1, 2][xp.astype(x[0], np.int64)],
    "slice": lambda x: x[: xp.astype(x[0], np.int64)],
    "mask as an operand": lambda x: PRIMITIVES["getitem"](np.ones(2), x > 0, key=Slot(0)),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_depends_on_the_data_is_refused(name: str) -> None:
    message = "depends on the data of a batched array.*Data-dependent shapes and branches under batching need where"
    with pytest.raises(ad.NotDifferentiable, match=message):
        run(REFUSALS[name], [np.ones((3, 2))], [0])


def test_what_is_shared_by_all_rows_may_be_looked_at() -> None:
    shared = xp.ones_like
    got = run(lambda x: x * 2 if shared(x)[0] > 0 else x, [np.ones((3, 2))], [0])
    np.testing.assert_array_equal(got, np.full((3, 2), 2.0))


def test_leaked_rows_are_refused() -> None:
    leaked: list[Any] = []
    run(lambda x: leaked.append(x) or x, [np.ones((3, 2))], [0])
    with pytest.raises(ad.NotDifferentiable, match="the tracer leaked"):
        leaked[0] * 2


# One-hot seeds.

X34 = random((3, 4), 1) + 3


def expanding(x: Any) -> Any:
    return x * np.ones((2, 3, 4))


LINEAR: dict[str, tuple[Callable[[Any], Any], bool]] = {  # and whether it stays one-hot
    "number": (lambda x: x * 2.0, True),
    "0-d array": (lambda x: np.float64(3.0) * x, True),
    "elements": (lambda x: X34 * x, True),
    "row": (lambda x: x * X34[0], True),
    "column": (lambda x: x / X34[:, :1], True),
    "expanding": (expanding, False),
    "divide": (lambda x: x / X34 / 3.0, True),
    "negative": (lambda x: xp.negative(-x) * 3 - x, True),
    "add": (lambda x: x + x * X34, True),
    "subtract": (lambda x: x - X34 * x, True),
    "add another": (lambda x: x + x[::-1], False),
    "astype": (lambda x: (x * X34).astype(np.float32), True),
    "parts": (lambda x: xp.real(xp.conj(x.astype(complex) * (2 + 1j))), True),
    "imag": (lambda x: xp.imag(x * 1j), True),
    "where": (lambda x: PRIMITIVES["where"](X34 > 3, x, 0.0) - PRIMITIVES["where"](X34 > 3, 0.0, x), True),
    "where else": (lambda x: xp.where(X34 > 3, x, x[0]), False),
    "reshape": (lambda x: xp.reshape(x * X34, (2, 6)), True),
    "permute": (lambda x: (x * X34).T * X34.T, True),
    "broadcast": (lambda x: xp.broadcast_to(x, (1, 3, 4)), True),
    "broadcast more": (lambda x: xp.broadcast_to(x, (2, 3, 4)), False),
    "sum": (lambda x: xp.sum(x * X34, axis=0), True),
    "sum keep": (lambda x: xp.sum(x, axis=1, keepdims=True), True),
    "sum of all": (lambda x: xp.sum(x * X34), False),
    "slice": (lambda x: (x * X34)[1:, ::-1], True),
    "int": (lambda x: x[1], True),
    "None": (lambda x: x[None, :, 2], True),
    "element": (lambda x: x[1, 2], False),
    "nothing": (lambda x: x[3:], False),
    "gather": (lambda x: x[I3], False),
    "flip": (lambda x: xp.flip(x), True),
    "scatter": (lambda x: PRIMITIVES["add_at"](np.zeros((5, 4)), x * X34, key=slice(1, 4)), True),
    "scatter twice": (lambda x: PRIMITIVES["add_at"](np.zeros((3, 4)), x, I3, key=Slot(0)), True),
    "scatter into ones": (lambda x: PRIMITIVES["add_at"](np.zeros(4), xp.sum(x), key=1), False),
    "matmul": (lambda x: (x * 2) @ X34.T, False),
    "matmul left": (lambda x: X34.T @ x, False),
    "matvec": (lambda x: X34 @ (X34 * x)[1], False),
    "matvec as it is": (lambda x: X34 @ x[2], False),
    "vecmat": (lambda x: x[:, 1] @ X34, False),
    "row matrix": (lambda x: x[:1] @ X34.T, False),
    "column matrix": (lambda x: X34.T @ x[:, 1:2], False),
    "vecdot": (lambda x: x[0] @ X34[0], False),
    "stack of matrices": (lambda x: x @ np.ones((2, 4, 5)), False),
    "cumulative": (lambda x: xp.cumulative_sum(x, axis=0), False),
    "concat": (lambda x: xp.concat([x, X34 * x]), False),
    "stays out of the way": (lambda x: xp.sum(x @ x.T), False),
}
PLACES = {
    "all": np.arange(12),
    "some": np.arange(3, 7),
    "other order": np.array([5, 5, 0, 11]),
    "out of range": np.array([-1, 3, 12, 4]),
    "one": np.array([7]),
}


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("name", LINEAR)
def test_one_hot_is_its_dense_batch(name: str, places: str) -> None:
    fun, stays = LINEAR[name]
    seed = one_hot.one_hot(PLACES[places], (3, 4), np.dtype(float))
    dense = one_hot.dense(seed)
    rows = np.concatenate([np.zeros((1, 12)), np.eye(12), np.zeros((1, 12))])[PLACES[places] + 1]
    np.testing.assert_array_equal(dense, rows.reshape(-1, 3, 4))
    kept: list[Any] = []
    got = batched(lambda x: kept.append(fun(x)) or kept, seed)[0]  # type: ignore[func-returns-value]
    expected = batched(lambda x: (fun(x),), dense)[0]
    assert got.dtype == expected.dtype and got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-14, atol=1e-15)
    if places != "one":  # of which more is one-hot
        assert isinstance(kept[0].value, OneHot) == stays
    assert "OneHot" in repr(seed) and "Batch" in repr(primitives.Batch(dense))


def test_one_hot_of_next_to_nothing_is_an_array() -> None:
    for shape in ((), (1,), (1, 1), (0,), (2, 0)):
        got = one_hot.one_hot(np.array([0, 1, -1]), shape, np.float32)
        np.testing.assert_array_equal(got, np.eye(3, math.prod(shape), dtype=np.float32).reshape(3, *shape))
        assert got.dtype == np.float32
    assert one_hot.dense(one_hot.one_hot(np.arange(0), (2, 3), float)).shape == (0, 2, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_one_hot_keeps_its_dtype(dtype: Any) -> None:
    real = random((3, 3)).astype(np.float32)
    for fun in (lambda x: x * 2, lambda x: x * real[0], lambda x: real @ x, lambda x: xp.sum(x), lambda x: x[:2]):
        got = batched(lambda x: (fun(x),), one_hot.one_hot(np.arange(3), (3,), np.dtype(dtype)))[0]  # noqa: B023
        assert got.dtype == dtype


# Jacobians.

A = random((4, 3), 2)
VECTOR: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "linear": (lambda x: A @ x, lambda x: A),
    "layer": (lambda x: np.tanh(A @ x), lambda x: (1 - np.tanh(A @ x) ** 2)[:, None] * A),
    "two layers": (
        lambda x: np.sin(A.T @ np.tanh(A @ x)),
        lambda x: np.cos(A.T @ np.tanh(A @ x))[:, None] * (A.T @ ((1 - np.tanh(A @ x) ** 2)[:, None] * A)),
    ),
    "elementwise": (lambda x: np.exp(x) * x, lambda x: np.diag(np.exp(x) * (1 + x))),
    "banded": (lambda x: x[1:] * x[:-1], lambda x: banded_slope(x)),
    "identity": (lambda x: x, lambda x: np.eye(3)),
    "constant": (lambda x: np.ones(2), lambda x: np.zeros((2, 3))),
    "outer": (lambda x: x[:, None] * x, lambda x: np.eye(3)[:, None] * x[None, :, None] + np.eye(3) * x[:, None, None]),
    "max": (lambda x: np.max(x * x), lambda x: 2 * x * (x * x == np.max(x * x))),
    "cumsum": (lambda x: np.cumsum(x**2), lambda x: np.tri(3) * 2 * x),
    "gather": (lambda x: (x * x)[I3], lambda x: (2 * x * np.eye(3))[I3]),
    "norm": (lambda x: x / np.sqrt(np.sum(x * x)), lambda x: _turning(x)),
    "by elements": (lambda x: xp.stack([x[i] * x[(i + 1) % 3] for i in range(3)]), lambda x: _neighbours(x)),
}


def _turning(x: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.sum(x * x))
    return np.eye(3) / length - np.outer(x, x) / length**3


def _neighbours(x: np.ndarray) -> np.ndarray:
    return np.array([[x[1], x[0], 0], [0, x[2], x[1]], [x[2], 0, x[0]]])


def banded_slope(x: np.ndarray) -> np.ndarray:
    return np.array([[x[1], x[0], 0], [0, x[2], x[1]]])


@pytest.mark.parametrize("chunk", [2**23, 1, 9])
@pytest.mark.parametrize("mode", ["auto", *MODES])
@pytest.mark.parametrize("name", VECTOR)
def test_jacobians(name: str, mode: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobians, "_CHUNK_ELEMENTS", chunk)
    fun, slope = VECTOR[name]
    x = random((3,), 4)
    got = ad.jacobian(fun, mode=mode, backend=B)(x)
    np.testing.assert_allclose(got, slope(x), rtol=1e-13, atol=1e-15)
    assert got.flags.writeable and not np.may_share_memory(got, A)
    got = ad.jacobian(fun, mode=mode, backend=B)(x.astype(np.float32))
    np.testing.assert_allclose(got, slope(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VECTOR)
def test_wide_sweeps_take_a_few_rows_at_a_time(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fun, slope = VECTOR[name]
    x = random((3,), 4)
    for widest in (1, 8):
        monkeypatch.setattr(sweeps, "_WIDEST", widest)
        np.testing.assert_allclose(ad.jacobian(fun, mode=mode, backend=B)(x), slope(x), rtol=1e-13, atol=1e-15)
        pair = ad.jacobian(lambda p: p["x"] * p["y"], mode=mode, backend=B)({"x": x, "y": 2 * x})
        np.testing.assert_array_equal(pair["x"], np.diag(2 * x))
        np.testing.assert_array_equal(pair["y"], np.diag(x))


@pytest.mark.parametrize("mode", ["auto", *MODES])
def test_jacobian_of_many_inputs_and_outputs(mode: str) -> None:
    w, b, x = random((2, 3)), random((2,)), random((3,), 7)

    def layer(p: Any) -> Any:
        y = p["w"] @ x + p["b"] * p["s"]
        return y, (xp.sum(y), p["b"])

    rows, (total, same) = ad.jacobian(layer, mode=mode, backend=B)({"w": w, "b": b, "s": np.array(2.0)})
    np.testing.assert_allclose(rows["w"], np.eye(2)[:, :, None] * x, rtol=1e-14)
    np.testing.assert_allclose(rows["b"], 2 * np.eye(2))
    np.testing.assert_allclose(rows["s"], b)
    np.testing.assert_allclose(total["w"], np.stack([x, x]), rtol=1e-14)
    np.testing.assert_allclose(total["b"], [2, 2])
    np.testing.assert_array_equal(same["b"], np.eye(2))
    np.testing.assert_array_equal(same["w"], np.zeros((2, 2, 3)))


@pytest.mark.parametrize("mode", MODES)
def test_jacobians_of_nothing(mode: str) -> None:
    for shape in ((0,), (2, 0)):
        assert ad.jacobian(lambda x: x * 2, mode=mode, backend=B)(np.zeros(shape)).shape == shape * 2
    got = ad.jacobian(lambda x: (x[0] * 1.0, x[1] * x[1]), mode=mode, backend=B)((np.zeros(0), np.ones(2)))
    np.testing.assert_array_equal(got[1][1], 2 * np.eye(2))
    assert got[0][1].shape == (0, 2) and got[1][0].shape == (2, 0)


def test_complex_jacobians() -> None:
    z = random((3,), 0, complex)
    got = ad.jacobian(lambda z: xp.real(z * z), backend=B)(z)
    np.testing.assert_allclose(got, np.diag(2 * z), rtol=1e-14)
    got = ad.jacobian(lambda x: x * (1 + 2j) * x, backend=B)(z.real)
    np.testing.assert_allclose(got, np.diag((2 + 4j) * z.real), rtol=1e-14)
    got = ad.jacobian(lambda z: xp.imag(np.ones((2, 3)) @ z), mode="reverse", backend=B)(z)
    np.testing.assert_allclose(got, np.full((2, 3), -1j))


def test_a_jacobian_is_one_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many batched operations for 3 inputs as for 30, in Hessians too."""
    evaluate, calls = Batcher.evaluate, {}

    def counted(self: Any, primitive: Any, values: Any, params: Any) -> Any:
        calls[n].append(primitive.name)
        return evaluate(self, primitive, values, params)

    monkeypatch.setattr(Batcher, "evaluate", counted)
    for n in (3, 30):
        calls[n] = []
        for mode in MODES:
            ad.jacobian(lambda x: np.cumsum(np.sin(x)) * x, mode=mode, backend=B)(np.ones(n))
        ad.hessian(lambda x: np.sum(np.sin(x) * np.cumsum(x)), backend=B)(np.ones(n))
    assert calls[3] == calls[30] and 10 < len(calls[3]) < 60


def test_the_identity_makes_no_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Jacobian of a layer is its matrix, scaled: the one product is that of the function itself."""
    n, products = 50, []
    matrix = random((n, n))
    impl = PRIMITIVES["matmul"].impl
    monkeypatch.setattr(PRIMITIVES["matmul"], "impl", lambda a, b: products.append(b.shape) or impl(a, b))
    for mode in MODES:
        ad.jacobian(lambda x: np.tanh(matrix @ x), mode=mode, backend=B)(random((n,)))
    assert products == [(n,), (n,)]


def test_zeros_of_the_seeds_are_not_multiplied() -> None:
    x = np.array([0.0, 1.0])
    with np.errstate(divide="ignore"):
        for mode in MODES:
            got = ad.jacobian(np.sqrt, mode=mode, backend=B)(x)
            np.testing.assert_array_equal(got, [[np.inf, 0], [0, 0.5]])


# Second order.


@pytest.mark.parametrize(
    "mode", ["forward-over-reverse", "reverse-over-forward", "reverse-over-reverse", "forward-over-forward"]
)
@pytest.mark.parametrize("chunk", [2**23, 1])
def test_hessians(mode: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobians, "_CHUNK_ELEMENTS", chunk)
    x = random((3,), 4)
    y = A @ x
    got = ad.hessian(lambda x: np.sum(np.sin(A @ x)) + x[0] * x[2] ** 2, mode=mode, backend=B)(x)
    expected = -A.T @ (np.sin(y)[:, None] * A)
    expected[2, 2] += 2 * x[0]
    expected[[0, 2], [2, 0]] += 2 * x[2]
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("modes", list(itertools.product(MODES, MODES)))
def test_jacobians_nest(modes: tuple[str, str]) -> None:
    x = random((3,), 4)
    for fun, third in (
        (lambda x: x**3, lambda x: 6 * x[:, None, None] * np.eye(3)[:, :, None] * np.eye(3)[:, None, :]),
        (lambda x: (A @ x) ** 2, lambda x: 2 * A[:, :, None] * A[:, None, :]),
    ):
        inner = ad.jacobian(fun, mode=modes[0], backend=B)
        np.testing.assert_allclose(ad.jacobian(inner, mode=modes[1], backend=B)(x), third(x), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("mode", MODES)
def test_gradient_of_a_jacobian(mode: str) -> None:
    x = random((3,), 4)

    def size(x: Any) -> Any:
        return xp.sum(ad.jacobian(lambda x: xp.concat([x * x, A @ x]), mode=mode, backend=B)(x) ** 2)

    np.testing.assert_allclose(ad.grad(size, backend=B)(x), 8 * x, rtol=1e-13)
    np.testing.assert_allclose(ad.hessian(size, backend=B)(x), 8 * np.eye(3), rtol=1e-13, atol=1e-14)
    product = lambda w: xp.sum(ad.jacobian(lambda x: w @ x, mode=mode, backend=B)(x) * A)  # noqa: E731
    np.testing.assert_allclose(ad.grad(product, backend=B)(2 * A), A, rtol=1e-14)


# Properties.

small = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
seeds = st.integers(0, 9)


def rows_of(shape: tuple[int, ...], seed: int, size: int = 2) -> np.ndarray:
    return random((size, *shape), seed)


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3), seeds)
def test_any_broadcast(shapes: Any, seed: int) -> None:
    a, b = (rows_of(shape, seed + i) for i, shape in enumerate(shapes.input_shapes))
    check(xp.multiply, list(zip(a, b, strict=True)))
    check(lambda a, b: xp.where(a > b, a, 2.0), list(zip(a, b, strict=True)))
    check(lambda a: xp.broadcast_to(a, shapes.result_shape), [[row] for row in a])


@given(small, seeds, st.data(), st.booleans())
def test_any_reduction(shape: tuple[int, ...], seed: int, data: Any, keepdims: bool) -> None:
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1)) if shape else st.just(set()))
    rows = [[row] for row in rows_of(shape, seed)]
    check(lambda x: xp.sum(x, axis=tuple(axes), keepdims=keepdims), rows)
    check(lambda x: xp.var(x + 1, axis=tuple(axes), keepdims=keepdims), rows)


@given(hnp.array_shapes(max_dims=3, max_side=3), seeds, st.data())
def test_any_basic_key(shape: tuple[int, ...], seed: int, data: Any) -> None:
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    check_key(shape, key, seed)


@given(hnp.array_shapes(max_dims=4, max_side=3), seeds, st.data())
def test_any_advanced_key(shape: tuple[int, ...], seed: int, data: Any) -> None:
    arrays = st.sampled_from([np.array(0), np.array([0, 0]), np.array([[0], [0]])])
    part = st.one_of(arrays, st.just(0), st.just(slice(None)), st.none())
    parts = data.draw(st.lists(part, max_size=4))
    taken = [p for p in parts if p is not None]
    key = tuple(parts)[: len(parts) - max(0, len(taken) - len(shape))] if len(taken) <= len(shape) else ()
    check_key(shape, key, seed)
    if any(isinstance(p, np.ndarray) for p in key):  # the last one with a batch axis
        check_batched_index(shape, key, seed)


def check_key(shape: tuple[int, ...], key: Any, seed: int) -> None:
    check(lambda x: x[key], [[row] for row in rows_of(shape, seed)])
    indices: list[Any]
    value, indices = xp.index_of(key)
    taken = np.zeros(shape)[key].shape
    rows = list(zip(rows_of(shape, seed), rows_of(taken, seed + 1), strict=True))
    check(lambda x, v: PRIMITIVES["set_at"](x, v, *indices, key=value), rows)


def check_batched_index(shape: tuple[int, ...], key: Any, seed: int) -> None:
    value, indices = xp.index_of(key)
    others, last = indices[:-1], indices[-1]
    taken = np.zeros(shape)[key].shape
    rows = list(zip(rows_of(shape, seed), rows_of(taken, seed + 1), [last, last - 1], strict=True))
    check(lambda x, v, i: PRIMITIVES["getitem"](x, *others, i, key=value), rows)
    check(lambda x, v, i: PRIMITIVES["add_at"](x, v, *others, i, key=value), rows)
