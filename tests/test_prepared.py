"""Calls that look alike: prepared for one signature, or read once and remembered; from several threads."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import optree
import pytest

import adbridge as ad
from adbridge.backends.zero import ZeroBackend
from adbridge.operators import Operator
from adbridge.protocol import Arrays, Compiled, FlatFunction, Remembered
from contract import X, Y, wave, wave_slope

Pair = namedtuple("Pair", "first second")


class Compiling(ZeroBackend):
    """Its compiler takes NumPy arrays and gives new ones: what `program` gives, called with `fun` and the arrays."""

    def __init__(self, program: Callable[..., Arrays]) -> None:
        super().__init__()
        self.program = program

    def compile(self, fun: Callable[..., Arrays], arrays: Arrays) -> Compiled:
        fun(*arrays)
        return Compiled(lambda *given: self.program(fun, *given), takes_numpy=True, fresh=True)


def total(*args: Any, **kwargs: Any) -> Any:
    leaves: list[Any] = optree.tree_leaves((args, kwargs))  # type: ignore[arg-type]  # optree's own type is recursive
    return sum(leaf.sum() for leaf in leaves)


def twice(tree: Any) -> Any:
    return optree.tree_map(lambda leaf: leaf + leaf, tree)


def same_trees(got: Any, expected: Any) -> bool:
    leaves, tree = optree.tree_flatten(got)
    wanted, like = optree.tree_flatten(expected)
    return tree == like and all(np.array_equal(a, b) for a, b in zip(leaves, wanted, strict=True))


# Compiled functions that need no conversion.


def test_arrays_go_in_and_out_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def tripled(fun: Any, x: Any) -> Arrays:
        given.append(x)
        return (3 * x,)

    prepared = ad.prepare(ad.grad(total, backend=Compiling(tripled)), X)
    for name in ("from_numpy", "to_numpy"):
        monkeypatch.setattr(Compiling, name, lambda *args: pytest.fail("converted"))
    made = [prepared(x) for x in (X, Y)]
    assert given[0] is X and given[1] is Y
    np.testing.assert_array_equal(made, [3 * X, 3 * Y])
    assert all(type(m) is np.ndarray and m.flags.writeable for m in made)


def test_only_fresh_results_are_handed_out() -> None:
    kept = np.zeros(3)

    class Keeping(Compiling):
        def compile(self, fun: Callable[..., Arrays], arrays: Arrays) -> Compiled:
            fun(*arrays)
            return Compiled(lambda x: (kept,), takes_numpy=True)

    prepared = ad.prepare(ad.grad(total, backend=Keeping(lambda fun, x: ())), X)
    prepared(X)[:] = 7
    assert not kept.any()


def test_scalars_come_out_as_arrays() -> None:
    backend = Compiling(lambda fun, x: (x[0], x + 1))
    value, slope = ad.prepare(ad.value_and_grad(total, backend=backend), X)(Y)
    assert type(value) is np.ndarray and value.shape == () and value == Y[0]
    np.testing.assert_array_equal(slope, Y + 1)
    alone = ad.prepare(ad.grad(total, backend=Compiling(lambda fun, x: (x[()],))), np.array(1.0))
    for x in (2.0, np.array(2.0)):
        assert type(alone(x)) is np.ndarray and alone(x) == 2.0


TREES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((X,), {}),
    ((X, Y), {}),
    (((X, Y),), {}),
    (([X, {"b": Y, "a": X}], (Y,)), {}),
    (({},), {"w": X}),
    (({"b": Y, "a": X}, None), {"w": [X], "v": (Y,)}),
    ((Pair(X, [Y]), X), {}),
    ((OrderedDict(b=Y, a=X),), {}),
    (({2: Y, 1: X},), {}),
    (({(1, 2): Y},), {"w": Pair(X, Y)}),
]


@pytest.mark.parametrize("example", TREES, ids=str)
def test_arrays_meet_their_places_in_any_tree(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a function whose gradient is said to be twice its arguments."""
    (args, kwargs), every = example, tuple(range(len(example[0])))
    count = len(optree.tree_leaves(args))
    backend = Compiling(lambda fun, *arrays: tuple(2 * a for a in arrays[:count]))
    prepared = ad.prepare(ad.grad(lambda *a, **k: total(*a, **k) + 0.0, every, backend=backend), *args, **kwargs)
    monkeypatch.setattr(Operator, "read", None)
    shifted = optree.tree_map(lambda leaf: leaf + 1, args)
    for arguments in (args, shifted):
        got = prepared(*arguments, **kwargs)
        assert same_trees(got, twice(arguments))
        assert str(type(got[0])) == str(type(arguments[0]))


EXAMPLE: Any = ({"a": X, "b": (Y, 2)}, 1.0, 2)
UNLIKE: list[tuple[Any, str]] = [
    (({"a": X, "b": (Y, 2)}, 1.0, 3), "prepared for arguments .* called with"),
    (({"a": X, "b": (Y, 2)}, 1.0, 2.0), "prepared for arguments .* called with"),
    (({"a": X, "b": (Y, True)}, 1.0, 2), "prepared for arguments .* called with"),
    (({"a": X, "b": [Y, 2]}, 1.0, 2), "prepared for arguments .* called with"),
    (({"a": X, "c": (Y, 2)}, 1.0, 2), "prepared for arguments .* called with"),
    (({"a": X, "b": (Y, 2), "c": X}, 1.0, 2), "prepared for arguments .* called with"),
    (({"a": X, "b": (Y, 2)}, 1.0, 2, 3), "prepared for arguments .* called with"),
    (({"a": X, "b": (Y[:2], 2)}, 1.0, 2), r"argument 0\['b'\]\[0\] has the wrong shape"),
    (({"a": X.astype("f4"), "b": (Y, 2)}, 1.0, 2), r"argument 0\['a'\] has the wrong dtype"),
    (({"a": X, "b": (Y, 2)}, X, 2), "argument 1 has the wrong shape"),
]


@pytest.mark.parametrize(("args", "message"), UNLIKE, ids=str)
def test_a_call_that_is_unlike_the_example_is_told_where(args: Any, message: str) -> None:
    backend = Compiling(lambda fun, *arrays: pytest.fail("ran"))
    prepared = ad.prepare(ad.grad(lambda p, t, n: total(p["a"], p["b"][0]) * t**n, 1, backend=backend), *EXAMPLE)
    with pytest.raises(ad.SignatureMismatch, match=message):
        prepared(*args)


def test_dicts_are_alike_in_any_order() -> None:
    prepared = ad.prepare(ad.grad(total, backend=Compiling(lambda fun, a, b: (a, b))), {"a": X, "b": Y})
    got = prepared({"b": X, "a": Y})
    assert got["a"] is Y and got["b"] is X


# Compiled functions that run the function itself for some arguments.


def test_a_run_by_itself_cannot_write_to_its_arguments() -> None:
    def fun(x: Any, w: Any) -> Any:
        w *= 2
        return (x * w).sum()

    backend = Compiling(lambda fun, *arrays: fun(*arrays))
    with pytest.raises(ValueError, match="read-only"):
        ad.prepare(ad.grad(fun, backend=backend), X, Y)
    late = ad.prepare(ad.grad(lambda x, w: fun(x, w) if x[0] < 0 else x.sum(), backend=backend), X, Y)
    w = Y.copy()
    with pytest.raises(ValueError, match="read-only"):
        late(-1 - X, w)
    np.testing.assert_array_equal(w, Y)


def test_a_tree_that_depends_on_values_is_that_of_its_run() -> None:
    calls: list[str] = []

    def program(fun: Any, x: Any) -> Arrays:
        calls.append("compiled")
        return fun(x) if x[0] < 0 else (x.copy(), 0 * x)

    def forked(x: Any) -> Any:
        return {"only": x * 1} if x[0] < 0 else (x * 1, x * 0)

    prepared = ad.prepare(Operator("value", forked, backend=Compiling(program)), 1 + X)
    assert same_trees(prepared(2 + X), (2 + X, 0 * X))
    for x in (-2 - X, 2 + X, -2 - X):
        assert same_trees(prepared(x), forked(x))
    assert len(calls) == 2  # from the run that gave another tree on, the function runs itself


# Remembered readings.


def test_the_backend_is_chosen_anew_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    g = ad.grad(wave)
    for _ in range(2):
        np.testing.assert_allclose(g(X), wave_slope(X))
        with ad.use_backend("zero"):
            assert not g(X).any()
        monkeypatch.setenv("ADBRIDGE_BACKEND", "zero")
        assert not g(X).any()
        assert ad.grad(lambda w: w * g(X).sum(), backend="reference")(2.0) == wave_slope(X).sum()
        monkeypatch.delenv("ADBRIDGE_BACKEND")


def test_what_looks_almost_alike_is_read_apart() -> None:
    seen: list[Any] = []

    def fun(x: Any, n: Any) -> Any:
        seen.append(n)
        return (x["a"] if "a" in x else x[1]).sum() * 1.0

    g = ad.grad(fun, backend="reference")
    for _ in range(2):
        seen.clear()
        for n in (1, True, 1.0, "1", None, 1j, np.float64(1)):
            assert g({"a": X}, n)["a"].tolist() == [1, 1, 1]
        assert [type(n) for n in seen[:6]] == [int, bool, float, str, type(None), complex] and seen[6] == 1
        assert [type(k) for key in (1, True, 1.0) for k in g({key: X}, 0)] == [int, bool, float]
        assert list(g({"b": 2 * Y, "a": X}, 0)) == ["b", "a"] and list(g({"a": X, "b": Y}, 0)) == ["a", "b"]
        for dtype in ("f4", "f8", ">f8", ">f4"):
            assert g({"a": X.astype(dtype)}, 0)["a"].dtype == np.dtype(dtype).newbyteorder("=")
        with pytest.raises(ad.NotDifferentiable, match="int64"):
            g({"a": np.arange(3)}, 0)


def test_argnums_are_part_of_what_is_remembered() -> None:
    fun = lambda x, y: (x * x * y).sum()  # noqa: E731
    for _ in range(2):
        np.testing.assert_allclose(ad.grad(fun, 0, backend="reference")(X, Y), 2 * X * Y)
        np.testing.assert_allclose(ad.grad(fun, 1, backend="reference")(X, Y), X * X)
        np.testing.assert_allclose(ad.grad(fun, -1, backend="reference")(X, Y), X * X)
        (only,) = ad.grad(fun, (1,), backend="reference")(X, Y)
        np.testing.assert_allclose(only, X * X)


def test_memory_is_bounded_and_stays_where_it_is() -> None:
    memory = Remembered()
    for i in range(5000):
        memory.put(i, i)
    assert 0 < len(memory) <= 1024 and memory[4999] == 4999
    assert copy.deepcopy(memory) == pickle.loads(pickle.dumps(memory)) == {}


# Threads.


def run_threads(count: int, job: Callable[[int], None]) -> None:
    """Runs ``job(i)`` in each, at the same time; raises their first failure."""
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    def guarded(i: int) -> None:
        try:
            start.wait()
            job(i)
        except BaseException as exc:
            failures.append(exc)

    pool = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    if failures:
        raise failures[0]


def branched(x: Any) -> Any:
    """Another tree, of other shapes, for each of four ranges of the first element."""
    y, first = x * x, x[0]
    if first < 2:
        return {"b": y, "a": 2 * y}
    if first < 4:
        return y, [y, 3 * y[:1]]
    return [y] if first < 6 else y


@pytest.mark.parametrize("name", ["reference", "zero"])
def test_threads_share_an_operator_and_what_is_prepared(name: str) -> None:
    shared, pushed = (Operator(operator, branched, (0,), backend=name) for operator in ("value", "jvp"))
    prepared = ad.prepare(shared, 0 * X)
    slope = ad.prepare(ad.grad(lambda x: (x * x).sum(), backend=name), X)

    def job(i: int) -> None:
        for k in range(80):
            x, like = np.full(i % 3 + 1, float((i + k) % 8)), np.full(3, float((i + k) % 8))
            assert same_trees(shared(x), branched(x))
            out, tangent = pushed((x,), (x,))
            assert same_trees(out, branched(x))
            assert same_trees(tangent, optree.tree_map(lambda y: 2 * y if name == "reference" else 0 * y, out))
            assert same_trees(prepared(like), branched(like))
            np.testing.assert_array_equal(slope(like), 2 * like if name == "reference" else 0 * like)

    switch = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)
        run_threads(8, job)
    finally:
        sys.setswitchinterval(switch)


class Meeting(ZeroBackend):
    """Its runs wait for each other between the function's run and the use of what it gave."""

    meet = threading.Barrier(1)

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        found = super().jvp(fun, primals, tangents)
        self.meet.wait(timeout=60)
        return found


@pytest.mark.parametrize("ready", [False, True])
def test_runs_at_the_same_time_keep_their_own_trees(ready: bool) -> None:
    backend = Meeting()
    pushed: Any = Operator("jvp", branched, (0,), backend=backend)
    if ready:
        pushed = ad.prepare(pushed, (X,), (X,))
    backend.meet = threading.Barrier(4)

    def job(i: int) -> None:
        x = np.full(3, 2.0 * i)
        assert same_trees(pushed((x,), (x,))[0], branched(x))

    run_threads(4, job)
