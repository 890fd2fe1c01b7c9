"""Checkpoints: the same derivatives, fewer stored bytes, the binomial schedule's number of evaluations; refusals."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import cache
from math import comb
from typing import Any

import numpy as np
import pytest

import adbridge as ad
from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.checkpoint import split
from conftest import backend_params
from test_reference import random

B = "reference"


def grad(fun: Any, *args: Any, **options: Any) -> Any:
    return ad.grad(fun, backend=B, **options)(*args)


def check(plain: Callable[[Any], Any], saving: Callable[[Any], Any], x: Any) -> None:
    """Derivatives of both are the same, in all modes, to second order."""
    np.testing.assert_array_equal(saving(x), plain(x))
    np.testing.assert_allclose(grad(saving, x), grad(plain, x), rtol=1e-14, atol=1e-15)
    t = random(x.shape, 3)
    np.testing.assert_array_equal(*(ad.jvp(f, (x,), (t,), backend=B)[1] for f in (saving, plain)))
    np.testing.assert_array_equal(*(ad.taylor(f, x, t, 3, backend=B) for f in (saving, plain)))
    for mode in ("forward-over-reverse", "reverse-over-forward", "reverse-over-reverse", "forward-over-forward"):
        ours, theirs = (ad.hessian(f, mode=mode, backend=B)(x) for f in (saving, plain))
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    (_, ours), (_, theirs) = (ad.linearize(f, x, backend=B) for f in (saving, plain))
    for seed in (t, 2 * t):
        np.testing.assert_allclose(ours(seed), theirs(seed), rtol=1e-14)


def wave(x: Any) -> Any:
    return xp.sin(xp.exp(x) * x[::-1])


def test_one_argument() -> None:
    check(lambda x: xp.sum(wave(x) ** 2), lambda x: xp.sum(ad.checkpoint(wave)(x) ** 2), random((4,)))


def test_trees_keywords_and_constants() -> None:
    def fun(p: Any, scale: float, *, other: Any, name: str = "a") -> Any:
        return {"sum": xp.sum(p[name] * scale), "all": [xp.exp(p[name]) * other, p["n"], "text", None]}

    def loss(fun: Any, x: Any) -> Any:
        out = fun({"a": x * x, "n": 3}, 2.0, other=x + np.ones(3), name="a")
        assert out["all"][1:] == [3, "text", None]
        return out["sum"] * xp.sum(out["all"][0])

    check(lambda x: loss(fun, x), lambda x: loss(ad.checkpoint(fun), x), random((3,)))


def test_several_dtypes() -> None:
    """Results of different dtypes, and whole numbers among them."""

    def fun(x: Any) -> Any:
        return xp.astype(x, np.float32) * 2, xp.exp(1j * x), xp.astype(x * 10, np.int64), x[0]

    def loss(fun: Any, x: Any) -> Any:
        low, z, n, first = fun(x * 3)
        return xp.sum(xp.astype(low, np.float64) * xp.real(z) * n) + xp.sum(xp.imag(z)) * first

    x = random((3,))
    np.testing.assert_array_equal(grad(lambda x: loss(ad.checkpoint(fun), x), x), grad(lambda x: loss(fun, x), x))


@pytest.mark.parametrize("level", ["same", "outer", "inner", "output", "two"])
def test_closures(level: str) -> None:
    """What is closed over keeps its derivative, whatever level it is of."""

    def same(run: Any, x: Any) -> Any:
        w = xp.exp(x)
        return xp.sum(run(lambda y: y * w * xp.sin(w) + xp.sum(w))(x * x))

    def outer(run: Any, x: Any) -> Any:
        return xp.sum(ad.grad(lambda y: xp.sum(run(lambda y: xp.sin(y * x) * x)(y * y)))(2.0 * x))

    def inner(run: Any, x: Any) -> Any:
        return xp.sum(ad.grad(lambda y: xp.sum(run(lambda x: xp.sin(y * x) * y)(x * x)))(2.0 * x) * x)

    def output(run: Any, x: Any) -> Any:
        y = x * 2
        a, b = run(lambda z: (y, z * z))(x + 1)
        return xp.sum(a * b)

    def two(run: Any, x: Any) -> Any:
        w = xp.exp(x)

        def deep(y: Any) -> Any:
            v = xp.cos(y)
            return run(lambda z: xp.tanh(z * w) * v + w)(y * y) * v

        return xp.sum(run(deep)(x + w))

    fun = {"same": same, "outer": outer, "inner": inner, "output": output, "two": two}[level]
    check(lambda x: fun(lambda f: f, x), lambda x: fun(ad.checkpoint, x), random((3,)))


def test_closure_alone() -> None:
    x = random((3,))
    np.testing.assert_array_equal(grad(lambda x: xp.sum(ad.checkpoint(lambda: xp.exp(x))()), x), np.exp(x))


def test_closed_over_arrays_may_change_afterwards() -> None:
    def fun(x: Any, run: Any) -> Any:
        w = x * 1
        y = run(lambda z: z * w)(x)
        w[0] = 100.0
        w += 1
        return xp.sum(y) + w[1]

    x = random((3,))
    np.testing.assert_array_equal(grad(lambda x: fun(x, ad.checkpoint), x), grad(lambda x: fun(x, lambda f: f), x))


def test_nested() -> None:
    def nested(run: Any, x: Any) -> Any:
        inner = run(lambda y: xp.sin(y) * x[0])
        middle = run(lambda y: inner(inner(y)) * y)
        return xp.sum(run(lambda y: middle(middle(y) + x))(x))

    check(lambda x: nested(lambda f: f, x), lambda x: nested(ad.checkpoint, x), random((3,)))


def test_operators_within() -> None:
    def fun(x: Any) -> Any:
        return ad.grad(lambda y: xp.sum(xp.exp(y) * x))(x * x) * ad.jvp(xp.sin, (x,), (x,))[1]

    check(lambda x: xp.sum(fun(x)), lambda x: xp.sum(ad.checkpoint(fun)(x)), random((3,)))


def test_branches_and_jacobians() -> None:
    fun = ad.checkpoint(lambda x: x * x if x[0] > 0 else xp.exp(x))
    for x in (np.array([1.0, 2.0]), np.array([-1.0, 2.0])):
        expected = np.diag(2 * x if x[0] > 0 else np.exp(x))
        for mode in ("forward", "reverse"):
            np.testing.assert_allclose(ad.jacobian(fun, mode=mode, backend=B)(x), expected, rtol=1e-15)


def test_pulled_back_often() -> None:
    x = random((3,))
    out, pull = ad.vjp(ad.checkpoint(wave), x, backend=B)
    _, plain = ad.vjp(wave, x, backend=B)
    for seed in range(3):
        np.testing.assert_array_equal(pull(random(out.shape, seed)), plain(random(out.shape, seed)))


def test_runs_twice_and_no_more() -> None:
    runs = []
    fun = ad.checkpoint(lambda x: runs.append(1) or x * x)
    grad(lambda x: fun(fun(x)), 2.0)
    assert len(runs) == 4
    runs.clear()
    assert fun(3.0) == 9 and len(runs) == 1
    ad.jvp(fun, (2.0,), (1.0,), backend=B)
    assert len(runs) == 2
    ad.vjp(fun, 2.0, backend=B)
    assert len(runs) == 3


# Loops.


def step(i: int, state: Any) -> Any:
    position, speed = state
    return position + 0.1 * speed, speed - 0.1 * xp.sin(position) * (1 + 0.01 * i)


def plainly(step: Any, state: Any, steps: int, **_: Any) -> Any:
    for i in range(steps):
        state = step(i, state)
    return state


def pendulum(loop: Any, x: Any, steps: int, **options: Any) -> Any:
    position, speed = loop(step, (x, x * x), steps, **options)
    return xp.sum(position * speed)


@pytest.mark.parametrize("snapshots", [None, 1, 2, 3, 7, 100])
def test_loop(snapshots: int | None) -> None:
    x = random((3,))
    ours = grad(lambda x: pendulum(ad.checkpoint_loop, x, 37, snapshots=snapshots), x)
    np.testing.assert_allclose(ours, grad(lambda x: pendulum(plainly, x, 37), x), rtol=1e-14)


def test_loop_in_all_modes() -> None:
    check(lambda x: pendulum(plainly, x, 9), lambda x: pendulum(ad.checkpoint_loop, x, 9), random((2,)))


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_short_loops(steps: int) -> None:
    x = random((3,))
    np.testing.assert_array_equal(
        grad(lambda x: pendulum(ad.checkpoint_loop, x, steps), x), grad(lambda x: pendulum(plainly, x, steps), x)
    )


def test_loop_over_what_it_closes_over() -> None:
    """Parameters are closed over, the state starts as a constant, a counter and a number are part of it."""

    def loss(loop: Any, w: Any) -> Any:
        def step(i: int, state: Any) -> Any:
            hidden = xp.tanh(xp.matmul(w, state["hidden"]) + state["count"])
            return {"hidden": hidden, "count": state["count"] + 1, "sum": state["sum"] + xp.sum(hidden)}

        return loop(step, {"hidden": np.ones(3), "count": 0, "sum": 0.0}, 12)["sum"]

    w = random((3, 3))
    check(
        lambda x: loss(plainly, xp.reshape(x, (3, 3))),
        lambda x: loss(ad.checkpoint_loop, xp.reshape(x, (3, 3))),
        w.ravel(),
    )


def test_loop_within_loop() -> None:
    def nested(loop: Any, x: Any) -> Any:
        return pendulum(lambda step, state, n: loop(lambda i, s: loop(step, s, 4), state, n), x, 5)

    x = random((3,))
    np.testing.assert_allclose(
        grad(lambda x: nested(ad.checkpoint_loop, x), x), grad(lambda x: nested(plainly, x), x), rtol=1e-14
    )


def revolve(steps: int, snapshots: int) -> int:
    """Griewank & Walther 2000: the fewest forward steps, r l - beta(s + 1, r - 1), beta(s, r) = C(s + r, s)."""
    r = next(r for r in range(steps + 1) if comb(snapshots + r, snapshots) >= steps)
    return r * steps - (comb(snapshots + r, snapshots + 1) if r else 0)


@cache
def fewest(steps: int, snapshots: int) -> int:
    """The same by dynamic programming over all schedules."""
    if steps <= 1:
        return 0
    if snapshots == 1:
        return steps * (steps - 1) // 2
    return min(m + fewest(steps - m, snapshots - 1) + fewest(m, snapshots) for m in range(1, steps))


def by_split(steps: int, snapshots: int) -> int:
    if steps <= 1:
        return 0
    m = split(steps, snapshots)
    return m + by_split(steps - m, snapshots - 1) + by_split(m, snapshots) if snapshots > 1 else revolve(steps, 1)


def test_schedule_is_optimal() -> None:
    for steps in range(1, 60):
        for snapshots in range(1, 9):
            assert by_split(steps, snapshots) == fewest(steps, snapshots) == revolve(steps, snapshots)


@pytest.mark.parametrize(("steps", "snapshots"), [(1, 1), (10, 1), (10, 3), (56, 5), (57, 5), (100, 6), (30, 40)])
def test_number_of_evaluations(steps: int, snapshots: int) -> None:
    """One sweep for the value, whose states are used again; one linearisation of each step; and Revolve's rest."""
    runs: Counter[int] = Counter()

    def counted(i: int, state: Any) -> Any:
        runs[i] += 1
        return step(i, state)

    def last(x: Any) -> Any:
        return xp.sum(ad.checkpoint_loop(counted, (x, x), steps, snapshots=snapshots)[0])

    grad(last, random((2,)))
    assert runs.total() == revolve(steps, snapshots) + 1 + steps
    r = next(r for r in range(steps + 1) if comb(snapshots + r, snapshots) >= steps)
    assert max(runs.values()) <= r + 2


def test_extra_work_is_logarithmic() -> None:
    for steps in (10, 100, 1000, 10_000, 100_000):
        snapshots = steps.bit_length()
        assert revolve(steps, snapshots) <= 0.5 * snapshots * steps


# Memory.


def peak(fun: Callable[[], Any]) -> int:
    fun()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        fun()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_memory_of_a_checkpoint() -> None:
    """A chain of 10 blocks of 10 operations: what is stored is one array per block, and one block's operations."""

    def block(x: Any) -> Any:
        for _ in range(10):
            x = xp.sin(x)
        return x

    def chain(run: Any, x: Any) -> Any:
        for _ in range(10):
            x = run(block)(x)
        return xp.sum(x)

    x = random((10_000,))
    plain, saving = (peak(lambda run=run: grad(lambda x: chain(run, x), x)) for run in (lambda f: f, ad.checkpoint))
    assert plain > 100 * x.nbytes
    assert saving < 35 * x.nbytes


def test_memory_of_a_loop_grows_as_the_logarithm() -> None:
    x = random((10_000,))

    def state_arrays(loop: Any, steps: int) -> float:
        return peak(lambda: grad(lambda x: xp.sum(loop(lambda i, x: x + 0.01 * xp.sin(x), x, steps)), x)) / x.nbytes

    measured = {steps: state_arrays(ad.checkpoint_loop, steps) for steps in (10, 100, 1000)}
    # Twice log2 states, and a step's own.
    assert all(arrays < 2 * np.log2(steps) + 12 for steps, arrays in measured.items()), measured
    assert state_arrays(plainly, 100) > 95


# Other engines, and what stops derivatives.


MODES = ("forward-over-reverse", "reverse-over-forward", "reverse-over-reverse", "forward-over-forward")
Fun = Callable[[Any], Any]


def alike(backend: str, plain: Fun, other: Fun, x: Any) -> None:
    """The same derivatives on this backend, in every mode and prepared."""

    def same(derivative: Callable[[Fun], Any]) -> None:
        np.testing.assert_allclose(derivative(other), derivative(plain), rtol=1e-12, atol=1e-13)

    t = random(x.shape, 3)
    same(lambda f: ad.grad(f, backend=backend)(x))
    same(lambda f: ad.prepare(ad.grad(f, backend=backend), x)(x))
    same(lambda f: ad.jvp(f, (x,), (t,), backend=backend)[1])
    same(lambda f: ad.vjp(f, x, backend=backend)[1](np.array(2.0)))
    same(lambda f: ad.hvp(f, (x,), (t,), backend=backend)[0])
    for mode in MODES:
        same(lambda f, mode=mode: ad.hessian(f, mode=mode, backend=backend)(x))
    for mode in ("forward", "reverse"):
        same(lambda f, mode=mode: ad.jacobian(lambda x: f(x) * x, mode=mode, backend=backend)(x))


def portable(x: Any) -> Any:
    xp = ad.array_namespace(x)
    return xp.sin(xp.exp(x) * xp.flip(x, axis=0))


def closing(run: Any, x: Any) -> Any:
    """Over an array under differentiation, and one of the operator within."""
    xp = ad.array_namespace(x)
    w = xp.exp(x)
    inner = ad.grad(lambda y: xp.sum(run(lambda z: xp.sin(y * z) * w)(x * x)))(2.0 * x)
    return xp.sum(run(lambda y: portable(y) * w + xp.sum(w))(x * x) * inner)


def nesting(run: Any, x: Any) -> Any:
    xp = ad.array_namespace(x)
    inner = run(lambda y: xp.sin(y) * x[0])
    middle = run(lambda y: inner(inner(y)) * y)
    return xp.sum(run(lambda y: middle(middle(y) + x))(x))


def differentiating(run: Any, x: Any) -> Any:
    """The operators within, one of them on a constant alone."""
    xp = ad.array_namespace(x)

    def fun(x: Any) -> Any:
        constant = ad.stop_gradient(x)
        return ad.grad(lambda y: xp.sum(xp.exp(y) * x))(constant) * ad.jvp(xp.sin, (x,), (x,))[1]

    return xp.sum(run(fun)(x))


@pytest.mark.parametrize("fun", [closing, nesting, differentiating])
@pytest.mark.parametrize("backend", backend_params())
def test_checkpoints_on_every_backend(backend: str, fun: Callable[[Any, Any], Any]) -> None:
    alike(backend, lambda x: fun(lambda f: f, x), lambda x: fun(ad.checkpoint, x), random((3,)))


@pytest.mark.parametrize("backend", backend_params())
def test_branches_on_every_backend(backend: str) -> None:
    """Where the engine shows values to a function, it shows them to a checkpointed one."""
    fun = ad.checkpoint(lambda x: x * x if x[0] > 0 else -x)
    for x, expected in ((np.array([1.0, 2.0]), [2.0, 4.0]), (np.array([-1.0, 2.0]), [-1.0, -1.0])):
        got = ad.grad(lambda x: ad.array_namespace(x).sum(fun(x)), backend=backend)(x)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("backend", backend_params())
@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.parametrize("snapshots", [None, 1, 3])
def test_loops_on_every_backend(backend: str, steps: int, snapshots: int | None) -> None:
    def loss(loop: Any, x: Any) -> Any:
        xp = ad.array_namespace(x)

        def step(i: int, state: Any) -> Any:
            hidden = xp.tanh(state["hidden"] * x + i)
            return {"hidden": hidden, "count": state["count"] + 1, "sum": state["sum"] + xp.sum(hidden)}

        return loop(step, {"hidden": xp.exp(x), "count": 0, "sum": 0.0 * x[0]}, steps, snapshots=snapshots)["sum"]

    alike(backend, lambda x: loss(plainly, x), lambda x: loss(ad.checkpoint_loop, x), random((3,)))


@pytest.mark.parametrize("backend", backend_params())
def test_pulled_back_outside_of_the_operator(backend: str) -> None:
    x = random((3,))
    (_, ours), (_, plain) = (
        ad.vjp(lambda x, run=run: differentiating(run, x), x, backend=backend) for run in (ad.checkpoint, lambda f: f)
    )
    for seed in (1.0, 2.0):
        np.testing.assert_allclose(ours(np.array(seed)), plain(np.array(seed)), rtol=1e-12)


def test_memory_on_jax() -> None:
    """What the way back holds, in arrays like x: one per block, and a few states of a loop."""
    jax = pytest.importorskip("jax")

    def held(fun: Any, x: Any) -> float:
        def total() -> int:
            return sum(array.nbytes for array in jax.live_arrays())

        before = total()
        _, pull = ad.vjp(fun, x, backend="jax")
        return (total() - before) / x.nbytes if pull else 0.0

    _saves_memory(held)


def test_memory_on_torch() -> None:
    """The same at its peak."""
    pytest.importorskip("torch")
    backend = ad.get_backend("torch")

    def peak(fun: Any, x: Any) -> float:
        gradient = ad.prepare(ad.grad(fun, backend="torch"), x)
        return backend.peak_alloc(gradient.compiled, gradient.arrays(x))[0] / x.nbytes

    _saves_memory(peak)


def _saves_memory(arrays: Callable[[Any, Any], float]) -> None:
    def chain(run: Any, x: Any) -> Any:
        xp = ad.array_namespace(x)

        def block(x: Any) -> Any:
            for _ in range(10):
                x = xp.sin(x)
            return x

        for _ in range(10):
            x = run(block)(x)
        return xp.sum(x)

    def steps(loop: Any, x: Any) -> Any:
        xp = ad.array_namespace(x)
        return xp.sum(loop(lambda i, x: x + 0.01 * xp.sin(x), x, 100))

    x = random((10_000,))
    assert arrays(lambda x: chain(lambda f: f, x), x) > 100
    assert arrays(lambda x: chain(ad.checkpoint, x), x) < 25
    assert arrays(lambda x: steps(plainly, x), x) > 95
    assert arrays(lambda x: steps(ad.checkpoint_loop, x), x) < 25


@pytest.mark.parametrize("backend", backend_params())
def test_stop_gradient_on_every_backend(backend: str) -> None:
    """sum(c x^3) with c = x^2 held: gradient 3 c x^2, Hessian 6 c x, in every mode."""

    def fun(x: Any) -> Any:
        held = ad.stop_gradient({"x": x * x, "name": "text"})
        return ad.array_namespace(x).sum(held["x"] * x**3)

    x, t = random((3,)), random((3,), 3)
    c = x * x
    np.testing.assert_allclose(ad.grad(fun, backend=backend)(x), 3 * c * c, rtol=1e-14)
    value, tangent = ad.jvp(fun, (x,), (t,), backend=backend)
    np.testing.assert_allclose([value, tangent], [np.sum(c * x**3), np.sum(3 * c * c * t)], rtol=1e-13)
    np.testing.assert_allclose(ad.vjp(fun, x, backend=backend)[1](np.array(2.0))[0], 6 * c * c, rtol=1e-14)
    np.testing.assert_allclose(ad.hvp(fun, (x,), (t,), backend=backend)[0], 6 * c * x * t, rtol=1e-14)
    for mode in MODES:
        got = ad.hessian(fun, mode=mode, backend=backend)(x)
        np.testing.assert_allclose(got, np.diag(6 * c * x), rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(ad.jacobian(ad.stop_gradient, backend=backend)(x), np.zeros((3, 3)))
    np.testing.assert_array_equal(ad.jvp(ad.stop_gradient, (x,), (t,), backend=backend), [x, 0 * x])


def test_stop_gradient() -> None:
    x = random((3,))
    np.testing.assert_array_equal(grad(lambda x: xp.sum(ad.stop_gradient(x) * x), x), x)
    np.testing.assert_array_equal(ad.jvp(ad.stop_gradient, (x,), (x,), backend=B), [x, 0 * x])
    got = ad.taylor(lambda x: ad.stop_gradient(x * x) * x, x, x, 2, backend=B)
    np.testing.assert_allclose(got, [x**3, x**3, 0 * x], rtol=1e-15)
    assert ad.hessian(lambda x: ad.stop_gradient(x) * x, backend=B)(2.0) == 0
    got = ad.stop_gradient({"a": x, "b": "text"})
    assert got["a"] is x and got["b"] == "text"


# Wrong uses.


def test_impure_functions_are_refused() -> None:
    def writes(x: Any) -> Any:
        x[0] = 1.0
        return x * x

    def writes_outside(x: Any) -> Any:
        w = x * 2

        def fun(y: Any) -> Any:
            w[0] = y[0]
            return y * w

        out = ad.checkpoint(fun)(x)
        return xp.sum(out)

    x = random((3,))
    with pytest.raises(ad.NotDifferentiable, match=r"must be pure, and this one writes into its argument; copy it"):
        grad(lambda x: xp.sum(ad.checkpoint(writes)(x * 1)), x)
    with pytest.raises(ad.NotDifferentiable, match="writes into an array that it closes over; pass it as an argument"):
        grad(writes_outside, x)

    def fickle(x: Any) -> Any:
        others = iter([x * 1, x * 2])
        return xp.sum(ad.checkpoint(lambda y: y * next(others))(x))

    with pytest.raises(ad.NotDifferentiable, match="closes over other arrays when it is run again"):
        grad(fickle, x)


def test_errors_leave_nothing_behind() -> None:
    x = random((3,))

    def fun(x: Any) -> Any:
        w = x * 2
        with pytest.raises(ZeroDivisionError):
            ad.checkpoint(lambda y: y * w * (1 // 0))(x)
        return xp.sum(w * ad.checkpoint(lambda y: y * w)(x))

    np.testing.assert_allclose(grad(fun, x), 12 * x * x, rtol=1e-15)


def test_loops_that_are_none() -> None:
    x = random((3,))
    for steps in (-1, 2.5, None):
        with pytest.raises(ad.SignatureMismatch, match="checkpoint_loop needs steps as a whole number, 0 or more; got"):
            ad.checkpoint_loop(step, (x, x), steps)
    for snapshots in (0, -2, 1.5):
        with pytest.raises(ad.SignatureMismatch, match="checkpoint_loop needs snapshots as a whole number, 1 or more"):
            ad.checkpoint_loop(step, (x, x), 3, snapshots=snapshots)
    with pytest.raises(ad.SignatureMismatch, match="a state of arrays and numbers; state\\['a'\\] is neither"):
        ad.checkpoint_loop(lambda i, s: s, {"a": "text"}, 3)
    for wrong, message in (
        (lambda i, x: (x, x), "the state that step returns must have the tree structure of the state"),
        (lambda i, x: x[:2], r"state has the wrong shape: expected float64\[3\] like the state that step was given"),
        (lambda i, x: xp.astype(x, np.float32), "state has the wrong dtype"),
    ):
        for run in (
            lambda x, f=wrong: xp.sum(ad.checkpoint_loop(f, x, 3)),
            lambda x, f=wrong: xp.sum(ad.checkpoint_loop(f, x * 1, 3)),
        ):
            with pytest.raises(ad.SignatureMismatch, match=message):
                grad(run, x)
