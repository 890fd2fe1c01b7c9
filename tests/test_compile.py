"""Prepared calls of the reference engine: buffers, views, blocks, guards, threads.

What a call gives is what the same call at once gives, whatever earlier calls left in the buffers, whoever wrote to
their results, and whichever branches the arguments take.
"""

from __future__ import annotations

import threading
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import adbridge as ad
from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference import planning
from adbridge.backends.reference.compile import compile_program
from adbridge.backends.reference.primitives import PRIMITIVES
from adbridge.backends.reference.transforms import record
from adbridge.registry import is_installed
from rule_rows import CONSTANT, ROWS

B = "reference"
Fun = Callable[..., Any]
RNG = np.random.default_rng(5)
X = RNG.uniform(-1, 1, 6)
A = RNG.uniform(-1, 1, (4, 4))


def leaves(tree: Any) -> list[np.ndarray]:
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, (tuple, list)) else [np.asarray(tree)]


def assert_same(got: Any, want: Any, rtol: float = 1e-12) -> None:
    for g, w in zip(leaves(got), leaves(want), strict=True):
        assert (g.shape, g.dtype) == (w.shape, w.dtype)
        scale = float(np.max(np.abs(w[np.isfinite(w)]), initial=0)) if w.dtype.kind in "fc" else 0.0
        np.testing.assert_allclose(g, w, rtol=rtol, atol=rtol * max(scale, 1e-2))


def check(fun: Fun, *calls: tuple[np.ndarray, ...], argnums: Any = 0, rtol: float = 1e-12) -> None:
    """Prepared for the first call; every call, twice and in both orders, gives what it gives at once."""
    op = ad.value_and_grad(fun, argnums, backend=B)
    prepared = ad.prepare(op, *calls[0])
    for args in (*calls, *calls[::-1]):
        before = [a.copy() for a in args]
        assert_same(prepared(*args), op(*args), rtol)
        for a, b in zip(args, before, strict=True):
            np.testing.assert_array_equal(a, b)


def values(fun: Fun, *args: np.ndarray) -> tuple[Any, Any]:
    """The compiled function itself, and its outputs as recorded."""

    def flat(*tracers: Any) -> Any:
        return fun(*tracers)

    return compile_program(record(flat, *args)), flat(*args)


# Buffers.

HAZARDS: dict[str, tuple[Fun, tuple[np.ndarray, ...]]] = {
    "an operand twice": (lambda x: xp.sum(xp.sin(x) * xp.sin(x) + xp.exp(x) / xp.exp(x)), (X,)),
    "an operand and its view": (lambda a: xp.sum(xp.sin(a) * xp.sin(a).T + xp.cos(a)[::-1] * xp.cos(a)), (A,)),
    "a view that outlives": (
        lambda a: xp.sum((b := xp.sin(a))[1] * xp.cos(xp.exp(xp.tanh(a * 2) * 3)) * b[:, 2:3]),
        (A,),
    ),
    "a view of a view": (
        lambda a: xp.sum((b := xp.sin(a)).T[1:][:, ::-1][0] * xp.exp(xp.cos(xp.tanh(a) * xp.exp(a)))) + xp.sum(b),
        (A,),
    ),
    "an element as a view": (
        lambda x: xp.sum((s := xp.sin(x)[..., 1]) * xp.cos(xp.exp(xp.tanh(x * 2) * 3)) * s),
        (X,),
    ),
    "an only element": (
        lambda x: xp.sum((s := xp.reshape(xp.sin(x), ())) * xp.cos(xp.exp(xp.tanh(x * 2) * 3)) * s),
        (X[:1],),
    ),
    "parts of complex numbers": (
        lambda x: xp.sum(xp.real(z := xp.exp(x * (1 + 2j))) * xp.abs(xp.sin(xp.exp(xp.cos(z * 3)))) * xp.imag(z)),
        (X,),
    ),
    "a diagonal": (
        lambda a: xp.sum(np.diagonal(xp.sin(a)) * xp.sum(xp.tanh(xp.exp(xp.cos(a * 2)) ** 2), axis=0)),
        (A,),
    ),
    "a product into a part": (lambda a, b: xp.sum(xp.sin(a[:, :2] @ b)) + xp.sum(xp.cos(a[:, 2:])), (A, A[:2])),
    "products into columns": (lambda a: xp.sum(xp.sin(A.T @ a[:, :2])) + xp.sum(xp.cos(A.T @ a[:, 2:])), (A,)),
    "parts that overlap": (lambda x: xp.sum(xp.sin(x[:4]) * xp.cos(x[2:])) + xp.sum(x[1:3] ** 3), (X,)),
    "parts that cover": (lambda x: xp.sum(xp.sin(x[:3]) * 2) - xp.sum(xp.cos(x[3:]) * x[3:]), (X,)),
    "parts within parts": (lambda x: xp.sum(xp.sin(x[:4])) + xp.sum(x[1:3] ** 3) + x[2] * x[5], (X,)),
    "a part twice": (lambda x: xp.sum(xp.sin(x[1:4])) * xp.sum(xp.cos(x[1:4])) + x[1], (X,)),
    "items": (lambda x: x[0] * x[1] - xp.sin(x[2]) * x[0] + x[-1] ** 2, (X,)),
    "rows in a loop": (lambda a: loop(a), (A,)),
    "gathered": (
        lambda x: xp.sum(xp.sin(x[np.array([0, 2, 2, 5])]) * xp.take(x, np.array([1, 1, 0, 3]), axis=0)),
        (X,),
    ),
    "one concatenated": (lambda x: xp.sum(xp.concat([2 * x]) ** 2), (X,)),
    "one concatenated, two axes": (lambda a: xp.sum(xp.concat([xp.sin(a)], axis=1) ** 2), (A,)),
    "concatenated": (lambda x: xp.sum(xp.concat([xp.sin(x), x, -xp.sin(x)]) ** 2 * np.arange(18.0)), (X,)),
    "a short sum of products": (
        lambda a, b: xp.sum(xp.sum(a * b, axis=1) ** 2) + xp.sum(xp.square(a), axis=(0, 1)),
        (A, A.T),
    ),
    "sums over nothing": (lambda a: xp.sum(xp.sum(a * a, axis=0) + 1) + xp.sum(a), (np.zeros((0, 3)),)),
    "nothing times nothing": (lambda a: xp.sum(xp.sin(a @ a.T)) + xp.sum(a.T @ a), (np.zeros((3, 0)),)),
    "of no dimensions": (lambda x: xp.sin(x) * x / (1 + x * x) - 2**x, (np.array(0.7),)),
    "of one element": (lambda x: xp.sum(xp.sin(x) * x / (1 + x * x)), (np.array([[0.7]]),)),
}


def loop(a: Any) -> Any:
    total = a[0] * 0
    for i in range(a.shape[0]):
        total = total * xp.tanh(a[i]) + xp.sin(a[i, ::-1]) * a[i - 1]
    return xp.sum(total * total)


@pytest.mark.parametrize("name", HAZARDS)
def test_buffers(name: str) -> None:
    fun, args = HAZARDS[name]
    check(fun, args, tuple(0.5 * a + 0.1 for a in args), argnums=tuple(range(len(args))))


def test_primitives_that_make_views_are_known() -> None:
    """Else their memory would be used again while they are needed."""
    known = planning.VIEWS | planning._PARTS
    for row in (*ROWS, *CONSTANT):
        made: list[Any] = []
        primitive = PRIMITIVES.get(row.name)
        if primitive is None or row.name in known:
            continue
        impl, given = primitive.impl, []

        def spy(*args: Any, impl: Any = impl, made: list[Any] = made, given: list[Any] = given, **params: Any) -> Any:
            given.extend(args)
            made.append(impl(*args, **params))
            return made[-1]

        primitive.impl = spy
        try:
            with np.errstate(all="ignore"):
                row.fun(*row.args)
        finally:
            primitive.impl = impl
        for y in made:
            for part in y if isinstance(y, tuple) else (y,):
                shared = [x for x in given if isinstance(x, np.ndarray) and np.may_share_memory(part, x)]
                assert not shared, f"{row.name} makes views: name it in compile._PARTS"


# Arguments and results.


def test_outputs_that_are_alike() -> None:
    w = np.arange(6.0)

    def fun(x: Any, y: Any) -> Any:
        z = xp.sin(x) * y
        return x, z, z, z[::-1], z[2:], w, x[1:], xp.reshape(z, (2, 3)), -z, z * 1.0, np.zeros(3), z

    run, want = values(fun, X, X[::-1].copy())
    first = run(X, X[::-1].copy())
    assert_same(first, want)
    for i, out in enumerate(first):
        for other in (*first[:i], X, w):
            assert not np.may_share_memory(out, other)
        out[...] = 100 + i
    assert_same(run(X, X[::-1].copy()), want)
    assert w[1] == 1


def test_earlier_results_stay() -> None:
    op = ad.value_and_grad(lambda a: xp.sum(xp.sin(a @ a) * a), backend=B)
    prepared = ad.prepare(op, A)
    inputs = [A * k for k in (1.0, 0.5, -2.0)]
    results = [prepared(a) for a in inputs]
    for a, result in zip(inputs, results, strict=True):
        assert_same(result, op(a))
        result[1][...] = np.nan
    assert_same(prepared(A), op(A))


def test_what_is_constant_or_passed_through() -> None:
    for fun in (
        lambda x: xp.sum(x * 0),
        lambda x: xp.sum(np.ones(3)) + xp.sum(x) * 0,
        lambda x: x[2],
        lambda x: xp.sum(x),
    ):
        check(fun, (X,), (2 * X,))
    got = ad.prepare(ad.grad(lambda x: xp.sum(x), backend=B), X)
    got(X)[...] = 7
    np.testing.assert_array_equal(got(X), np.ones(6))


def test_arguments_of_any_layout() -> None:
    def fun(a: Any, b: Any) -> Any:
        return xp.sum(xp.sin(a @ b) * xp.reshape(a.T, (4, 4)) + xp.reshape(xp.reshape(b, (-1,)) ** 2, (4, 4)))

    whole = RNG.uniform(-1, 1, (8, 8))
    locked = A.copy()
    locked.flags.writeable = False
    layouts = [A, np.asfortranarray(A), whole[::2, ::-2], np.broadcast_to(X[:4], (4, 4)), locked, whole[1:5, 1:5]]
    check(fun, *((a, b) for a in layouts for b in (A, a, a.T)), argnums=(0, 1))


def test_arguments_that_share_memory() -> None:
    whole = RNG.uniform(-1, 1, 9)
    check(
        lambda x, y: xp.sum(x * xp.sin(y)) + x[0] * y[1], (X, X), (whole[:6], whole[3:]), (X, X[::-1]), argnums=(0, 1)
    )


def test_writes_to_a_reshaped_array_follow_the_layout() -> None:
    """What is a view of one array is a copy of another, which a write does not reach."""

    def fun(a: Any) -> Any:
        flat = a.reshape(-1)
        flat[0] = 5.0 * flat[1]
        return (a * a).sum()

    check(fun, (A,), (np.asfortranarray(A),), (A[::-1],), (A.T,))


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_other_dtypes(dtype: Any) -> None:
    a = A.astype(dtype) * (1 + 0.5j if dtype is np.complex128 else 1)

    def fun(a: Any) -> Any:
        y = xp.sin(a) @ a.T / 3 - a**2 * 0.1
        return xp.sum(xp.real(y)) + xp.sum(xp.abs(y[1:]))

    check(fun, (a,), (a[::-1],), rtol=1e-5 if dtype is np.float32 else 1e-12)


# Blocks.

N = 2**14


def chain(x: Any, steps: int = 3) -> Any:
    for _ in range(steps):
        x = xp.sin(x) * xp.cos(0.5 * x) + 0.1 * x
    return x


BORDERS = [(N - 1,), (N,), (N + 1,), (1, N), (N, 1), (1, 1, N + 3), (N // 8 + 1, 8), (2, N), (3, 1, N // 2), (129, 129)]


@pytest.mark.parametrize("shape", BORDERS, ids=str)
def test_blocks(shape: tuple[int, ...]) -> None:
    x = RNG.uniform(-1, 1, shape)
    row = RNG.uniform(-1, 1, shape[-1:])
    column = RNG.uniform(-1, 1, (*shape[:1], *(1,) * (len(shape) - 1)))

    def fun(x: Any, row: Any, column: Any) -> Any:
        y = chain(x) * row + column
        z = y - xp.mean(y) + xp.max(x)
        flipped = z[::-1] if z.shape[0] > 1 else z
        return xp.sum(xp.tanh(z) * flipped * (x > 0)) / x.size

    others = [x[::-1], np.asfortranarray(x) * 0.5, np.broadcast_to(row, shape)]
    check(fun, (x, row, column), *((other, row, column) for other in others), argnums=(0, 1, 2), rtol=1e-11)


def test_blocks_of_several_dtypes() -> None:
    x = RNG.uniform(-1, 1, N + 5).astype(np.float32)
    i = np.arange(N + 5) % 7

    def fun(x: Any, i: Any) -> Any:
        y = chain(x) * (i * 2 - 3) + xp.where(x > 0.2, x, -x)
        return xp.sum(y * (i > 2)) + xp.sum(xp.astype(y, np.dtype(np.float64)) * 0.5)

    check(fun, (x, i), (x[::-1], i), rtol=1e-4)


def test_blocks_that_outputs_and_guards_leave() -> None:
    x = RNG.uniform(0.1, 1, N + 1)

    def fun(x: Any) -> Any:
        y = xp.exp(x)
        z = y * x
        mask = z > 0
        w = xp.log(z) if bool(xp.all(mask)) else z * z
        return xp.sum(w * y)

    check(fun, (x,), (-x,), (x * 2,))
    run, want = values(lambda x: (xp.sin(x), xp.sin(x) * x, -xp.sin(x), xp.sin(x)[::2]), x)
    assert_same(run(x), want)
    assert_same(run(x), want)


# Guards.


def test_branches() -> None:
    def fun(x: Any) -> Any:
        y = x[0]
        for k in range(4):
            y = y * x[1] if x[k] > 0 else xp.sin(y) * 2 if x[k] > -0.5 else y - x[k]
        return y * y

    rng = np.random.default_rng(1)
    check(fun, *((rng.uniform(-1, 1, 5),) for _ in range(60)))


def test_alternating_branches_are_recorded_once() -> None:
    runs: list[int] = []

    def fun(x: Any) -> Any:
        runs.append(1)
        return x * x if x > 0 else -3 * x

    prepared = ad.prepare(ad.grad(fun, backend=B), 1.0)
    for x in (2.0, -1.0) * 20:
        assert prepared(x) == (2 * x if x > 0 else -3)
    assert len(runs) <= 3


def test_loops_with_counts_from_data() -> None:
    def fun(x: Any) -> Any:
        y = x
        while xp.sum(y * y) < 50:
            y = y * 1.5 + 0.1
        return xp.sum(y)

    check(fun, *((np.array([k, -k / 2]),) for k in (0.1, 1.0, 5.0, 20.0, 0.3, 0.1)))


def test_a_nan_in_a_guard() -> None:
    def fun(x: Any, n: Any) -> Any:
        return x * 2 if x > 1 else x * 3 if x <= 1 else x * 5

    nan = np.array(np.nan)
    check(lambda x: fun(x, 0), (nan,), (np.array(2.0),), (np.array(0.5),), (nan,))
    check(lambda x: fun(x, 0), (np.array(2.0),), (nan,))


def test_whole_numbers_as_indices_and_masks() -> None:
    def fun(x: Any, i: Any, mask: Any) -> Any:
        k = int(i[0])
        return x[k] ** 2 + xp.sum(x[i] * 3) + xp.sum(x[mask] ** 3) + xp.sum(x[: int(i[1])])

    masks = [X > 0, X < 0, X > 10, X < 10]
    check(fun, *((X, np.array([k, 5 - k]), m) for k in range(4) for m in masks))


def test_guards_do_not_look_at_the_callers_array() -> None:
    """The index that the program was recorded with is changed in place."""
    for index in (np.array(0), np.array([0])):
        op = ad.grad(lambda x, i: x[int(i.sum())] ** 2, backend=B)
        prepared = ad.prepare(op, X, index)
        index[...] = 3
        np.testing.assert_array_equal(prepared(X, index), op(X, index))
    mask = X > 0
    op = ad.grad(lambda x, m: xp.sum(x[m] ** 2), backend=B)
    prepared = ad.prepare(op, X, mask)
    mask[...] = ~mask
    np.testing.assert_array_equal(prepared(X, mask), op(X, mask))


@pytest.mark.parametrize("n", [3, N])
def test_nothing_is_computed_beyond_a_branch_that_is_not_taken(n: int) -> None:
    """No warning, and no error, comes from it: a block does not run ahead of the guard."""

    def fun(x: Any) -> Any:
        return xp.sum(xp.log(x)) if bool(xp.all(x > 0)) else xp.sum(x * x)

    x = np.ones(n)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        check(fun, (x,), (-x,), (0 * x,), (2 * x,))
    singular = lambda a: xp.sum(xp.linalg.inv(a)) if xp.linalg.det(a) > 0.5 else xp.sum(a)  # noqa: E731
    check(singular, (np.eye(3),), (np.zeros((3, 3)),), (2 * np.eye(3),))


def test_no_warnings_of_its_own() -> None:
    functions: list[Fun] = [
        lambda x: xp.sum(xp.where(x > 0, xp.log(xp.where(x > 0, x, 1.0)), x)),
        lambda x: xp.sum(xp.sqrt(x * x + 1) / 3),
        lambda x: xp.log(xp.sum(xp.exp(x - xp.max(x)))),
        lambda x: xp.sum(xp.abs(x) ** 3 / (1 + x * x)),
        lambda x: xp.sum(xp.hypot(x, x)) + xp.sum(xp.xlogy(xp.abs(x), 1 + xp.abs(x))),
    ]
    for fun in functions:
        for x in (X, 0 * X, np.linspace(-3, 3, N + 3)):
            with np.errstate(all="raise"):
                check(fun, (np.abs(x) + 1,), (x,))


def items_of_an_argument(x: Any, w: Any) -> Any:
    """Does with w what a tracer refuses; w has no derivative, so that at once it is an array."""
    buffer = np.zeros(6)
    buffer[0] = w[0]
    return xp.sum(x * buffer * float(w[1]))


def test_arguments_that_have_to_be_arrays() -> None:
    """Then the call runs at once, and so does the call for a branch that was found later."""
    check(items_of_an_argument, (X, X), (X, 2 * X))
    late = lambda x, w: items_of_an_argument(x, w) if w[0] > 2 else xp.sum(x * w)  # noqa: E731
    check(late, (X, 0 * X), (X, X + 5), (X, X), (2 * X, X + 5))


# Calls within calls, at the same time, and that fail.


def test_threads() -> None:
    op = ad.value_and_grad(
        lambda a: xp.sum(xp.sin(a @ a) * chain(a)) if xp.sum(a) > 0 else xp.sum(xp.exp(a.T @ a)), backend=B
    )
    inputs = [RNG.uniform(-1, 1, (40, 40)) for _ in range(8)]
    wanted = [op(a) for a in inputs]
    prepared, errors = ad.prepare(op, inputs[0]), []

    def work(k: int) -> None:
        try:
            for i in range(40):
                j = (k + i) % 8
                assert_same(prepared(inputs[j]), wanted[j], 1e-10)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_prepared_call_within_another() -> None:
    inner = ad.prepare(ad.grad(lambda x: xp.sum(xp.sin(x) * x), backend=B), X)
    outer = ad.grad(lambda x: xp.sum(inner(x) * x), backend=B)
    want = 2 * np.cos(X) * X - X * X * np.sin(X) + np.sin(X) + X * np.cos(X)
    assert_same(outer(X), want)
    assert_same(ad.prepare(outer, X)(X), want)
    assert_same(ad.prepare(ad.grad(lambda x: xp.sum(inner(X) * x), backend=B), X)(X), inner(X))


def test_an_exception_gives_the_workspace_back() -> None:
    def fun(a: Any) -> Any:
        return xp.sum(xp.linalg.inv(xp.sin(a) * 2) * a)

    op = ad.grad(fun, backend=B)
    prepared = ad.prepare(op, A)
    for _ in range(3):
        with pytest.raises(np.linalg.LinAlgError):
            prepared(np.zeros((4, 4)))
        assert_same(prepared(A), op(A))
    run = compile_program(record(lambda a: (xp.linalg.inv(xp.sin(a) * 2),), A))
    for a in (A, np.zeros((4, 4)), A, np.zeros((4, 4))):
        try:
            run(a)
        except np.linalg.LinAlgError:
            continue
    assert len(run.pool) == 1  # type: ignore[attr-defined]


def test_what_the_program_depends_on_is_only_its_arguments() -> None:
    """A function that draws its branch by itself is run at once, not by the wrong program."""
    flips = iter(range(1000))

    def fun(x: Any) -> Any:
        return x * 2 if next(flips) % 2 and x > 0 else x * 3

    prepared = ad.prepare(ad.grad(fun, backend=B), 1.0)
    assert all(prepared(x) in (2, 3) for x in (1.0, -1.0, 2.0, -2.0))


# In place, by the complex step.


def swapped(x: Any) -> Any:
    y = x * 1.0
    a, b = y[:3], y[3:]
    a[...], b[...] = b * 2, a * x[:3]
    return y * y


def shifted_into_itself(x: Any) -> Any:
    y = x * x
    y[1:] = y[:-1]
    y[::2] += y[::-1][::2] * x[0]
    return y


def filled_in_a_loop(x: Any) -> Any:
    y = np.zeros_like(x)
    y[0] = x[0]
    for i in range(1, 6):
        y[i] = y[i - 1] * x[i] + 0.5
        y[i - 1] *= 2.0
    return y


def summed_in_a_loop(x: Any) -> Any:
    total = x[:2] * 0.0
    for i in range(3):
        total += x[2 * i : 2 * i + 2] ** 2
        total -= total[::-1] * x[i]
    return total


def gathered_and_written(x: Any) -> Any:
    y = x * 1.0
    y[np.array([0, 2, 0])] = x[np.array([1, 3, 5])] ** 2
    y[np.arange(6) > 3] *= x[0]
    return y


IN_PLACE = (swapped, shifted_into_itself, filled_in_a_loop, summed_in_a_loop, gathered_and_written)
WEIGHTS = np.array([1.0, -2.0, 0.5, 3.0, -1.0, 0.25])


def complex_step(fun: Fun, x: np.ndarray) -> np.ndarray:
    """Exact to rounding: the imaginary part of an analytic function 1e-200 i beside x."""
    columns = [fun(x + 1e-200j * unit).imag / 1e-200 for unit in np.eye(x.size)]
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("fun", IN_PLACE)
def test_writes_in_prepared_functions(fun: Fun) -> None:
    def total(x: Any) -> Any:
        y = fun(x)
        return (y * WEIGHTS[: y.shape[0]]).sum()

    want = complex_step(total, X)
    slope = ad.grad(total, backend=B)
    prepared = ad.prepare(slope, X * 0.5)
    assert_same([slope(X), prepared(X), prepared(X)], [want] * 3)
    t = X[::-1].copy()
    jacobian = complex_step(fun, X)
    assert_same(ad.jvp(fun, (X,), (t,), backend=B)[1], jacobian @ t)
    # Reverse over forward, and it prepared: the slope of the directional derivative, by differences of exact slopes.
    along = ad.grad(lambda x: ad.jvp(total, (x,), (t,), backend=B)[1], backend=B)
    second = (complex_step(total, X + 1e-6 * t) - complex_step(total, X - 1e-6 * t)) / 2e-6
    assert_same(along(X), second, 1e-8)
    assert_same(ad.prepare(along, X * 0.5)(X), along(X))


# Memory.


def held_and_peak(call: Callable[[], Any]) -> int:
    """Bytes at the most during the second call, with what the first one left."""
    tracemalloc.start()
    try:
        call()
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not is_installed("autograd"), reason="autograd is not installed")
def test_memory_of_a_chain() -> None:
    """A tenth of autograd's, the buffers held between calls among it."""
    x = np.linspace(-1, 1, 200_000)

    def fun(x: Any) -> Any:
        n = ad.array_namespace(x)
        for _ in range(10):
            x = n.cos(n.sin(x))
        return n.sum(x)

    theirs = held_and_peak(lambda: ad.grad(fun, backend="autograd")(x))
    prepared = ad.prepare(ad.grad(fun, backend=B), x)
    ours = held_and_peak(lambda: prepared(x))
    assert ours <= theirs / 10


@pytest.mark.parametrize("compiler", ["numpy", "llvm"])
def test_measured_memory_counts_the_buffers_that_are_held(compiler: str) -> None:
    if compiler == "llvm":
        pytest.importorskip("llvmlite")
    backend = ad.get_backend("reference", compiler=compiler)
    a, x = np.ones((300, 300)), np.ones(300)

    def fun(x: Any) -> Any:
        return np.sum(np.tanh(a @ (a * x)))  # [300, 300] in between

    prepared = ad.prepare(ad.grad(fun, backend=backend), x)
    arrays = prepared.arrays(x)
    first = backend.peak_alloc(prepared.compiled, arrays)[0]
    prepared(x)
    assert first >= 300 * 300 * 8
    assert abs(backend.peak_alloc(prepared.compiled, arrays)[0] - first) < 10_000
