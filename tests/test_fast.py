"""The native compiler: against the adjoints written by hand, the NumPy compiler, NumPy itself, and exact values."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optree
import pytest

import adbridge as ad
from adbridge.errors import BackendUnavailable, CapabilityError
from adbridge.suites.benchmarks.adjoints import PROBLEMS

pytest.importorskip("llvmlite")
from adbridge.backends.reference import ReferenceBackend, fast
from adbridge.backends.reference import compile as numpy_compiler
from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.fast import driver, machine
from adbridge.backends.reference.fast.functions import C_LIBRARY, TRANSCENDENTAL
from adbridge.backends.reference.primitives import PRIMITIVES
from adbridge.backends.reference.transforms import record
from adbridge.backends.reference.workspaces import GuardFailed

TINY = np.finfo(np.float64).tiny
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, np.inf, -np.inf, np.nan, 5e-324, -TINY / 4, 1e-300, 1e308, -1e308, 709.9, -745.2]
SPECIAL += [-746.0, 710.0, np.pi / 2, 1e6, 3e8, -1e22, 0.1, 20.5, -40.0, 1e-9, -0.3, 2.0, 3.7]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(home))
        yield home


def native(fun: Callable[..., Any], *arrays: Any) -> fast.Native:
    """The function, which returns a tuple, compiled; it must not have been left to NumPy."""
    compiled = fast.compile_program(record(fun, *arrays))
    assert isinstance(compiled, fast.Native), compiled.fallback
    return compiled


def numpy_compiled(fun: Callable[..., Any], *arrays: Any) -> Any:
    return numpy_compiler.compile_program(record(fun, *arrays))


def agree(fun: Callable[..., Any], *arrays: Any, rtol: float = 1e-13) -> fast.Native:
    compiled = native(fun, *arrays)
    wanted = numpy_compiled(fun, *arrays)(*arrays)
    for _ in range(2):  # the second call finds the workspace used
        for got, want in zip(compiled(*arrays), wanted, strict=True):
            assert np.shape(got) == np.shape(want) and got.dtype == np.asarray(want).dtype
            scale = np.max(np.abs(want), initial=0.0, where=np.isfinite(want)) if got.dtype.kind == "f" else 0.0
            np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * scale)
    return compiled


# The problems of the benchmark.


@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_problems_agree_with_the_adjoints_written_by_hand(problem: Any, size: str) -> None:
    case = problem.case(size)
    prepared = ad.prepare(ad.grad(case.fun, backend=ad.get_backend("reference", compiler="llvm")), *case.args)
    want = optree.tree_leaves(case.adjoint(*case.args))
    for _ in range(2):
        for got, exact in zip(optree.tree_leaves(prepared(*case.args)), want, strict=True):
            np.testing.assert_allclose(got, exact, rtol=1e-9, atol=1e-9 * np.max(np.abs(exact)))


def test_a_long_loop_is_few_kernels() -> None:
    case = next(p for p in PROBLEMS if p.name == "lstm").case("small")
    leaves, tree = optree.tree_flatten(case.args)
    compiled = native(lambda *xs: (case.fun(*optree.tree_unflatten(tree, xs)),), *leaves)
    assert len(compiled.driver.units) > 100 > 20 > len(compiled.driver.kernels)


# Elementwise functions.

UNARY = [
    "abs", "ceil", "floor", "isfinite", "isinf", "isnan", "negative", "reciprocal", "round", "sign", "sqrt", "square",
    "trunc", *TRANSCENDENTAL, *(name for name in C_LIBRARY if name not in ("atan2", "hypot", "pow")),
]  # fmt: skip
BINARY = [
    "add", "atan2", "copysign", "divide", "equal", "greater", "greater_equal", "hypot", "less", "less_equal", "maximum",
    "minimum", "multiply", "not_equal", "pow", "subtract",
]  # fmt: skip
ROUNDED = {*TRANSCENDENTAL, *C_LIBRARY}
"""Of which two libraries differ in the last places; the others are the same to the bit."""


def check_values(got: Any, want: Any, ulps: int) -> None:
    assert got.dtype == want.dtype and got.shape == want.shape
    if got.dtype == np.bool_ or ulps == 0:
        np.testing.assert_array_equal(got, want)
    else:
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        near = np.abs(got - want) <= ulps * np.spacing(np.abs(want))
        assert np.all(same | near), (got[~(same | near)], want[~(same | near)])
    if got.dtype.kind == "f":
        zero = want == 0
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(want[zero]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", UNARY)
def test_unary_functions_on_special_values(name: str, dtype: Any) -> None:
    with np.errstate(all="ignore"):
        x = np.array(SPECIAL, dtype)
        compiled = native(lambda x: (PRIMITIVES[name](x),), x)
        assert "ndarray(" not in compiled.driver.python  # no step of it is NumPy's
        check_values(compiled(x)[0], PRIMITIVES[name].impl(x), 4 if name in ROUNDED else 0)
        for size in (1, 3, 8, 9):  # parts of vectors
            part = np.ascontiguousarray(x[:size])
            got = native(lambda x: (PRIMITIVES[name](x),), part)(part)[0]
            np.testing.assert_array_equal(got, compiled(x)[0][:size])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", BINARY)
def test_binary_functions_on_special_values(name: str, dtype: Any) -> None:
    with np.errstate(all="ignore"):
        a, b = (np.ravel(m) for m in np.meshgrid(np.array(SPECIAL, dtype), np.array(SPECIAL, dtype)))
        compiled = native(lambda a, b: (PRIMITIVES[name](a, b),), a, b)
        got, want = compiled(a, b)[0], PRIMITIVES[name].impl(a, b)
        if name in ("maximum", "minimum"):  # of 0 and -0 either
            got, want = got + 0.0, want + 0.0
        check_values(got, want, 4 if name in ROUNDED else 0)


def spread_out(low: float, high: float) -> Any:
    """Numbers of all sizes, of both signs."""
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(np.log(low), np.log(high), 200_000))
    return sizes * rng.choice([-1.0, 1.0], sizes.shape)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="nothing more precise to compare with")
@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("exp", spread_out(1e-18, 700.0)),
        ("expm1", spread_out(1e-18, 700.0)),
        ("log", np.abs(spread_out(1e-300, 1e300))),
        ("log", 1 + spread_out(1e-12, 0.9)),
        ("log1p", np.maximum(spread_out(1e-18, 1e3), -1 + 1e-12)),
        ("sin", spread_out(1e-18, 1e9)),
        ("cos", spread_out(1e-18, 1e9)),
        ("sin", np.round(spread_out(1, 1e7)) * np.pi / 2),
        ("cos", np.round(spread_out(1, 1e7)) * np.pi / 2),
        ("tanh", spread_out(1e-18, 30.0)),
    ],
)
def test_functions_are_within_two_units_in_the_last_place(name: str, x: Any) -> None:
    got = native(lambda x: (PRIMITIVES[name](x),), x)(x)[0]
    exact = PRIMITIVES[name].impl(x.astype(np.longdouble))
    error = np.abs(got.astype(np.longdouble) - exact) / np.spacing(np.abs(exact).astype(np.float64))
    assert np.max(error) <= 2.0


@pytest.mark.parametrize("size", [16, 32])
def test_narrower_registers_give_the_same(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fun(x: Any) -> Any:
        return xp.sin(x * 1e7), xp.exp(x) / xp.tanh(x), xp.where(x > 0, x, 0.0)

    wide = native(fun, LONG[:1001])(LONG[:1001])
    monkeypatch.setattr(machine, "vector_bytes", lambda: size)
    for got, want in zip(native(fun, LONG[:1001])(LONG[:1001]), wide, strict=True):
        np.testing.assert_array_equal(got, want)


# Programs.


def some_operation(rng: np.random.Generator, values: list[Any]) -> Any:
    """A random operation on values that are there; of shapes that broadcast."""
    x = values[rng.integers(len(values))]
    rows = [v for v in values if v.shape in ((), x.shape[-1:], x.shape)]
    y = rows[rng.integers(len(rows))] if rows else x
    choice = rng.integers(16)
    if choice < 4:
        return [x + y, x - 0.5 * y, x * y, x / (2.0 + y * y)][choice]
    if choice < 9:
        return [xp.sin, xp.cos, xp.tanh, lambda v: xp.exp(-v * v), xp.abs][choice - 4](x)
    if choice == 9:
        return xp.where(x > y, x, y * 0.5)
    if choice == 10:
        return xp.maximum(x, y)
    if x.ndim == 0:
        return x * x
    axis = int(rng.integers(x.ndim))
    if choice == 11:
        return xp.sum(x, axis=axis)
    if choice == 12:
        return xp.max(x, axis=axis, keepdims=True) + 0.0 * x
    if choice == 13:
        return x[::-1] * 0.5 if x.shape[0] > 1 else x[0]
    if choice == 14 and x.ndim == 2:
        return xp.matmul(x, xp.permute_dims(x, (1, 0))) @ x / x.shape[0]
    return xp.concat([x[:1], x[1:] * 2.0], axis=0) if x.shape[0] > 1 else x


@pytest.mark.parametrize("seed", range(25))
def test_gradients_of_random_programs_agree_with_the_numpy_compiler(seed: int) -> None:
    """To 1e-10 of the largest element: what cancels keeps the rounding of what it was."""
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.choice([1, 2, 3, 5, 8, 17, 40], 2)]
    plan = int(rng.integers(2**31))

    def fun(a: Any, b: Any, c: Any) -> Any:
        choices, values = np.random.default_rng(plan), [a, b, c]
        for _ in range(12):
            values.append(some_operation(choices, values))
        return sum(xp.sum(v) for v in values)

    args = rng.standard_normal(sizes), rng.standard_normal(sizes[1]), rng.standard_normal(sizes)
    results = []
    for compiler in ("numpy", "llvm"):
        backend = ad.get_backend("reference", compiler=compiler)
        results.append(ad.prepare(ad.grad(fun, argnums=(0, 1, 2), backend=backend), *args)(*args))
    for got, want in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10 * np.max(np.abs(want)))


RNG = np.random.default_rng(1)
MATRIX, ROW, COLUMN = RNG.standard_normal((7, 9)), RNG.standard_normal(9), RNG.standard_normal((7, 1))
LONG = RNG.standard_normal(50_000)


@pytest.mark.parametrize(
    ("fun", "arrays"),
    [
        (lambda x, r, c: (x * r + c, xp.sum(x * r, axis=0), xp.sum(x + c, axis=1)), (MATRIX, ROW, COLUMN)),
        (lambda r, c: (r * c, c / r), (ROW, COLUMN)),
        (lambda x: (x[1::2, ::-3] * 2.0, x[::-1].T + 1.0, x[-1], x[:, 4]), (MATRIX,)),
        (lambda x: (xp.reshape(xp.permute_dims(x, (1, 0)), (63,)) * 2.0,), (MATRIX,)),
        (lambda x: (xp.max(x), xp.min(x, axis=0), xp.max(-x, axis=1, keepdims=True)), (MATRIX,)),
        (lambda x: (x + 1.0, xp.sum(x)), (np.array(2.5),)),
        (lambda x: (xp.sum(x), xp.max(x), xp.sum(x * x)), (LONG,)),
        (lambda x: (xp.exp(x - xp.max(x)) / xp.sum(xp.exp(x - xp.max(x))),), (LONG,)),
        (lambda x, y: (x @ y.T, x.T @ y, x @ y[0], x[:, 0] @ y, x[0] @ y[1]), (MATRIX, MATRIX * 2)),
        (lambda x, y: (x @ y,), (RNG.standard_normal((3, 50, 40)), RNG.standard_normal((40, 30)))),
        (
            lambda x, y: (x @ xp.permute_dims(y, (0, 2, 1)),),
            (RNG.standard_normal((2, 1, 6, 5)), RNG.standard_normal((3, 4, 5))),
        ),
        (lambda x: (xp.astype(x > 0, x.dtype) * x, xp.where(xp.isnan(x), 0.0, x)), (MATRIX,)),
        (lambda x: (x, x, x[0], x.T, xp.zeros((2,))), (MATRIX,)),  # results that no step makes
        (lambda x: (xp.cumulative_sum(x), xp.sort(x) * 2.0, xp.take(x, np.array([3, 0, 3]))), (ROW,)),  # NumPy's steps
        (lambda x: (xp.linalg.inv(x @ x.T + 9.0 * np.eye(7)) @ x,), (MATRIX,)),
        (lambda x: (xp.real(xp.fft.fft(x)) + x,), (ROW,)),
    ],
)
def test_programs_agree_with_the_numpy_compiler(fun: Any, arrays: Any) -> None:
    agree(fun, *arrays)
    single = [a.astype(np.float32) for a in arrays]
    assert all(g.dtype in (np.float32, np.float64, np.bool_) for g in native(fun, *single)(*single))


def test_written_parts() -> None:
    def fun(x: Any) -> Any:
        y = xp.zeros((6,)) + 0.0 * x[:6]
        y[1:3] = x[:2]
        y[2:5] += x[2:5]
        z = xp.zeros((8,)) + x[0]
        z[::2] = x[4:8]
        return y * 2.0, z, xp.sum(y)

    def late(x: Any) -> Any:
        early, y = x[:3] * 2.0, xp.zeros((8,)) + 0.0 * x[0]
        y[:2] = x[:2] * xp.sum(xp.sin(early))
        y[4:7] = early
        return (y,)

    agree(fun, ROW)
    agree(late, ROW)
    agree(lambda x: (ad.grad(lambda v: xp.sum(late(v)[0] ** 2))(x),), ROW)
    agree(lambda x: (ad.jacobian(lambda v: v[1:] * v[:-1])(x),), ROW)


def test_float32_is_computed_in_float32() -> None:
    x = LONG[:1000].astype(np.float32)
    (got,) = native(lambda x: ((x * x + x) / 3.0,), x)(x)
    np.testing.assert_array_equal(got, (x * x + x) / np.float32(3.0))


def test_sums_of_many_terms_are_accurate() -> None:
    x = np.full(1_000_000, 0.1)
    (total,) = native(lambda x: (xp.sum(x),), x)(x)
    assert abs(total - 100_000.0) < 1e-8


def softmax_of_rows(x: Any) -> Any:
    y = xp.exp(x - xp.max(x, axis=1, keepdims=True))
    return y / xp.sum(y, axis=1, keepdims=True)


@pytest.mark.parametrize("rows", [4096, 5003])
def test_loops_over_rows_run_by_blocks(rows: int) -> None:
    matrix = RNG.standard_normal((rows, 60))
    vector, other = RNG.standard_normal(60), RNG.standard_normal(rows)

    def regression(x: Any, a: Any, b: Any) -> Any:
        z = a @ x
        return (xp.tanh(z) - b) @ a, xp.sum(z), xp.max(z), z

    for fun, arrays in (
        (regression, (vector, matrix, other)),
        (lambda a: (softmax_of_rows(a), xp.sum(softmax_of_rows(a), axis=0)), (matrix,)),
        (lambda a: (ad.grad(lambda v: xp.sum((v[1:] - v[:-1] ** 2) ** 2))(a),), (matrix,)),
        (lambda a: (ad.grad(lambda v: xp.sum((v[:-1] - v[1:] ** 2) ** 2))(a),), (matrix,)),
    ):
        agree(fun, *arrays, rtol=1e-12)
    assert len(native(regression, vector, matrix, other).driver.runs) < 3


# Arguments, results, guards, threads.


def test_arguments_that_are_not_contiguous_and_results_that_stay() -> None:
    compiled = native(lambda x: (x * 2.0, xp.sum(x, axis=0)), MATRIX)
    turned, backward = np.asfortranarray(MATRIX), MATRIX[::-1][:, ::-1]
    unaligned = np.ndarray(MATRIX.shape, np.float64, bytearray(b"\0" + MATRIX.tobytes()), 1)
    first = compiled(MATRIX)
    kept = [np.array(a) for a in first]
    for x in (turned, backward, unaligned):
        np.testing.assert_array_equal(compiled(x)[0], x * 2.0)
    for a, b in zip(first, kept, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "other", [MATRIX[:3], MATRIX.astype(np.float32), MATRIX.astype(">f8"), MATRIX[0], MATRIX.astype(int)]
)
def test_other_arguments_are_refused(other: Any) -> None:
    with pytest.raises(GuardFailed):
        native(lambda x: (x * 2.0,), MATRIX)(other)


def test_another_branch_is_recorded_anew() -> None:
    backend = ad.get_backend("reference", compiler="llvm")

    def fun(x: Any) -> Any:
        if x[0] > 0:
            return xp.sum(x * x)
        return xp.sum(xp.sin(x)) if int(xp.argmax(x)) == 1 else xp.sum(x)

    gradient = ad.prepare(ad.grad(fun, backend=backend), np.ones(3))
    for x in (
        np.array([1.0, 2.0, 3.0]),
        np.array([-1.0, 2.0, 1.0]),
        np.array([-1.0, 2.0, 5.0]),
        np.array([4.0, 2.0, 3.0]),
    ):
        np.testing.assert_allclose(gradient(x), ad.grad(fun, backend="reference")(x), rtol=1e-14)


def test_assumptions_that_do_not_hold() -> None:
    def fun(x: Any) -> Any:
        return xp.max(x) + xp.log(xp.sum(xp.exp(x - xp.max(x))))

    gradient = ad.prepare(ad.grad(fun, backend=ad.get_backend("reference", compiler="llvm")), np.ones(3))
    with np.errstate(all="ignore"):
        for x in (np.array([1.0, 2.0, 3.0]), np.array([np.inf, 1.0, 2.0]), np.array([np.nan, 1.0, 2.0])):
            np.testing.assert_allclose(gradient(x), ad.grad(fun, backend="reference")(x), rtol=1e-14)


def test_threads() -> None:
    compiled = native(lambda x: (xp.cumulative_sum(xp.sin(x)) * 2.0, xp.sum(x * x)), LONG)
    arrays = [LONG + i for i in range(4)]
    wanted = [compiled(x) for x in arrays]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(30):
            if any(not np.array_equal(a, b) for a, b in zip(compiled(arrays[i]), wanted[i], strict=True)):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


# What is left to NumPy, or not there.


def test_empty_arrays_are_left_to_numpy() -> None:
    compiled = fast.compile_program(record(lambda x: (x * 2.0, xp.sum(x)), np.empty((0, 3))))
    assert compiled.fallback == "arrays without elements"
    assert compiled(np.empty((0, 3)))[1] == 0


def test_what_takes_too_long_to_compile_is_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MOST_LINES", 10)
    compiled = fast.compile_program(record(lambda x: (xp.sin(x),), ROW))
    assert "of which 10 at most are compiled" in compiled.fallback
    np.testing.assert_allclose(compiled(ROW)[0], np.sin(ROW), rtol=1e-15)


def test_unknown_compiler() -> None:
    with pytest.raises(CapabilityError, match="'reference' has no compiler 'gcc'; it has: numpy, llvm"):
        ad.get_backend("reference", compiler="gcc")


def test_without_llvmlite(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in ("llvmlite",):
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    for name in [m for m in sys.modules if m.startswith("adbridge.backends.reference.fast")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(sys.modules["adbridge.backends.reference"], "fast")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        BackendUnavailable, match=r"needs llvmlite 0\.45.*No module named.*pip install adbridge\[fast\]"
    ):
        ReferenceBackend(compiler="llvm")


# Code on disk.

TEXT = "define i64 @one() {\n  ret i64 1\n}"


def test_code_is_kept_and_a_changed_file_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = machine.object_code(TEXT)
    (file,) = (tmp_path / "adbridge").iterdir()
    monkeypatch.setattr(machine, "_compiled", lambda text: pytest.fail("compiled again"))
    assert machine.object_code(TEXT) == code
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    monkeypatch.setattr(machine, "_compiled", lambda text: b"anew")
    assert machine.object_code(TEXT) == b"anew"
    assert machine.object_code(TEXT) == b"anew" and len(list((tmp_path / "adbridge").iterdir())) == 1


def test_a_directory_that_others_may_write_to_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "adbridge").mkdir()
    (tmp_path / "adbridge").chmod(0o777)
    assert machine.cache_directory() is None
    machine.object_code(TEXT)
    assert not list((tmp_path / "adbridge").iterdir())


def test_without_a_directory_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert machine.cache_directory() is None and machine.object_code(TEXT)


@pytest.mark.slow
def test_two_processes_compile_at_once(tmp_path: Path) -> None:
    program = (
        "import adbridge as ad, numpy as np\n"
        "b = ad.get_backend('reference', compiler='llvm')\n"
        "f = lambda x: ad.array_namespace(x).sum(ad.array_namespace(x).sin(x))\n"
        "print(ad.prepare(ad.grad(f, backend=b), np.zeros(3))(np.zeros(3)))\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.communicate(timeout=100)[0].strip() for p in both] == ["[1. 1. 1.]"] * 2
    files = list((tmp_path / "adbridge").iterdir())
    assert len(files) == 1 and files[0].suffix == ".o"
