"""The suites: answers against numerical differentiation and printed digits, engines against answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optree
import pytest

import adbridge as ad
from adbridge.backends.reference.primitives import PRIMITIVES, Primitive
from adbridge.backends.reference.rules import elementwise, reductions, shaping
from adbridge.bench.problem import Answer, Instance, Problem, get_suite, gradient_answer
from adbridge.operators import Operator
from adbridge.registry import default_names
from adbridge.suites import BUILTIN
from adbridge.suites.adbench import find_gmm, gmm_answer, read_gmm
from adbridge.suites.textbook import _quotient, _rosenbrock

BACKENDS = default_names()

PROBLEMS = [(suite, problem) for suite in BUILTIN if suite != "quick" for problem in get_suite(suite).problems]
MATRICES = get_suite("linalg").problems
each_problem = pytest.mark.parametrize("problem", [pytest.param(p, id=f"{s}-{p.name}") for s, p in PROBLEMS])


each_case = pytest.mark.parametrize(
    ("problem", "backend"),
    [pytest.param(p, backend, id=f"{suite}-{p.name}-{backend}") for suite, p in PROBLEMS for backend in BACKENDS],
)


def load_gmm(path: Path) -> dict[str, Instance]:
    return {label: read_gmm(file) for label, file in find_gmm(path).items()}


@cache
def small(problem: Problem) -> Instance:
    """At its smallest default size, or below it where that is not small."""
    n, m = problem.sizes[0]
    return problem.instance(min(n, 140) if "n" in problem.free else n, m)


def cast(tree: Any, dtype: Any) -> Any:
    return optree.tree_map(lambda x: x.astype(dtype) if x.dtype.kind == "f" else x, tree)


def directions(instance: Instance, value: Any) -> tuple[Any, Any]:
    """A tangent of the first argument and a cotangent of the output."""
    rng = np.random.default_rng(31)
    return tuple(optree.tree_map(lambda x: rng.standard_normal(np.shape(x)), t) for t in (instance.args[0], value))


def error(got: Any, expected: Any, floor: float = 0.0) -> float:
    """The largest difference, relative to the largest entry of `expected`, or to `floor` if that is larger."""
    shapes = [optree.tree_map(np.shape, tree) for tree in (got, expected)]
    assert shapes[0] == shapes[1]
    pairs = list(zip(optree.tree_leaves(got), optree.tree_leaves(expected), strict=True))
    largest = max(np.max(np.abs(x), initial=0.0) for x in optree.tree_leaves(expected))
    return float(max(np.max(np.abs(a - b), initial=0.0) for a, b in pairs) / (max(largest, floor) or 1.0))


def inner(a: Any, b: Any) -> tuple[float, float]:
    """The inner product, and that of the magnitudes."""
    products = optree.tree_leaves(optree.tree_map(lambda x, y: x * y, a, b))
    return sum(float(np.sum(p)) for p in products), sum(float(np.sum(np.abs(p))) for p in products)


# The answers, without any engine.

# Of differences, relative: with h = 1e-3, h^6 is 1e-18 and rounding / h is 1e-16 (1e-13 in plain doubles).
TOLERANCE = 1e-10 if np.finfo(np.longdouble).eps < 1e-18 else 1e-8


@each_problem
def test_answer_keeps_the_adjoint_identity(problem: Problem) -> None:
    """<c, J t> = <J^T c, t>, to 1e-12 of the sum of magnitudes."""
    instance = small(problem)
    answer = instance.answer(*instance.args)
    tangent, cotangent = directions(instance, answer.value)
    forward, scale = inner(cotangent, answer.jvp(tangent))
    reverse, other_scale = inner(answer.vjp(cotangent), tangent)
    assert abs(forward - reverse) <= 1e-12 * max(scale, other_scale)


def _slope(fun: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """f' by the complex step, exact to rounding (the step's square underflows)."""
    return lambda x: np.imag(fun(x + np.longdouble("1e-40") * 1j)) / np.longdouble("1e-40")


def _gradient(fun: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def gradient(x: Any) -> Any:
        return np.array(
            [np.imag(fun(x + 1j * row)) for row in np.longdouble("1e-40") * np.eye(len(x))]
        ) / np.longdouble("1e-40")

    return gradient


# Their functions differentiate: here without an engine.
NESTED: dict[str, Callable[[Any], Any]] = {
    "complex-step-second": _slope(_quotient),
    "rosenbrock-hessian": _gradient(_rosenbrock),
    "perturbation-confusion": lambda x: x,
}


def extrapolated(fun: Callable[[Any], Any], x: Any, tangent: Any) -> Any:
    """df/dt at x by central differences at h, h/2, h/4, extrapolated to order h^6, in extended precision."""

    def central(h: Any) -> Any:
        ends = [optree.tree_map(lambda a, t, s=s: a + s * t, x, tangent) for s in (h, -h)]
        return (fun(ends[0]) - fun(ends[1])) / (2 * h)

    two = optree.tree_leaves(x)[0].dtype.type(2)
    first, second, third = (central(two**-k) for k in (10, 11, 12))
    coarse, fine = (4 * second - first) / 3, (4 * third - second) / 3
    return (16 * fine - coarse) / 15


@each_problem
def test_answer_is_what_differences_give(problem: Problem) -> None:
    """To 1e-10 of the largest entry, or of 1 % of the value, whose rounding the differences magnify."""
    instance = small(problem)
    answer = instance.answer(*instance.args)
    tangent, _ = directions(instance, answer.value)
    data = instance.args[1:]
    fun = NESTED.get(problem.name, lambda x: instance.fun(x, *data))
    # LAPACK has no extended precision.
    wide, tolerance = (np.float64, 1e-8) if problem in MATRICES else (np.longdouble, TOLERANCE)
    x, direction = (cast(tree, wide) for tree in (instance.args[0], tangent))
    assert error(fun(x), answer.value) < 1e-13
    found = extrapolated(fun, x, direction)
    assert error(found, answer.jvp(tangent), floor=1e-2 * np.max(np.abs(answer.value))) < tolerance


# Engines against the answers.


@contextmanager
def whatever_autograd_lacks(problem: Problem, backend: str) -> Iterator[None]:
    """A rule of linear algebra that autograd does not have is its own NotImplementedError: unsupported, not wrong."""
    try:
        yield
    except NotImplementedError as exc:
        if backend != "autograd" or problem not in MATRICES:
            raise
        pytest.skip(str(exc))


@each_case
def test_value_and_jvp(problem: Problem, backend: str) -> None:
    instance = small(problem)
    answer = instance.answer(*instance.args)
    tangent, _ = directions(instance, answer.value)
    call = instance.args, (tangent,)
    with whatever_autograd_lacks(problem, backend):
        value, out = ad.prepare(Operator("jvp", instance.fun, backend=backend), *call)(*call)
    assert error(value, answer.value) < 1e-10
    assert error(out, answer.jvp(tangent)) < 1e-10


@each_case
def test_vjp(problem: Problem, backend: str) -> None:
    instance = small(problem)
    answer = instance.answer(*instance.args)
    _, cotangent = directions(instance, answer.value)
    call = instance.args, cotangent
    with whatever_autograd_lacks(problem, backend):
        out = ad.prepare(Operator("vjp", instance.fun, backend=backend), *call)(*call)
    assert error(out, answer.vjp(cotangent)) < 1e-10


@each_case
def test_float32(problem: Problem, backend: str) -> None:
    """dtype in = dtype out, and within 1e-4 of the answer at the rounded arguments."""
    instance = small(problem)
    args = cast(instance.args, np.float32)
    answer = instance.answer(*cast(args, np.float64))
    cotangent = cast(directions(instance, answer.value)[1], np.float32)
    with whatever_autograd_lacks(problem, backend):
        out = ad.prepare(Operator("vjp", instance.fun, backend=backend), args, cotangent)(args, cotangent)
    assert {leaf.dtype for leaf in optree.tree_leaves(out)} == {np.dtype(np.float32)}
    assert error(out, answer.vjp(cast(cotangent, np.float64))) < 1e-4


# Instances.


def sizes(instance: Instance) -> tuple[int, int]:
    value = instance.answer(*instance.args).value
    n, m = (sum(np.size(leaf) for leaf in optree.tree_leaves(tree)) for tree in (instance.args[0], value))
    return n, m


@pytest.mark.parametrize("suite", BUILTIN)
def test_default_sizes_are_the_real_ones(suite: str) -> None:
    for problem in get_suite(suite).problems:
        for n, m in problem.sizes:
            assert sizes(problem.instance(n, m)) == (n, m), problem.name


@pytest.mark.parametrize(("name", "n", "m"), [("chain", 17, 1), ("rosenbrock", 17, 1), ("log-sum-exp", 17, 1)])
def test_size_is_what_was_asked(name: str, n: int, m: int) -> None:
    assert sizes(get_suite("scaling").problem(name).instance(n, m)) == (n, m)


def test_both_sizes_of_the_layer_are_free() -> None:
    layer = get_suite("scaling").problem("tanh-layer")
    assert [sizes(layer.instance(n, m)) for n, m in layer.grid((3, 5), (7, 2))] == [(3, 7), (3, 2), (5, 7), (5, 2)]


@each_problem
def test_free_size_is_nearly_what_was_asked(problem: Problem) -> None:
    """Within half a column: at 660 inputs, 5 %."""
    if "n" in problem.free:
        assert abs(sizes(problem.instance(660, problem.sizes[0][1]))[0] - 660) <= 33


@each_problem
def test_smallest_size_runs(problem: Problem) -> None:
    if "n" in problem.free and problem.name != "getitem-strided":
        instance = problem.instance(2, problem.sizes[0][1])
        assert np.all(np.isfinite(instance.fun(*instance.args)))


@each_problem
def test_instances_repeat(problem: Problem) -> None:
    n, m = problem.sizes[0]
    first, second = (optree.tree_leaves(problem.instance(n, m).args) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("suite", BUILTIN)
def test_names_are_unique(suite: str) -> None:
    names = [problem.name for problem in get_suite(suite).problems]
    assert len(set(names)) == len(names)


BOOLEAN, WHOLE = "its result is boolean", "its result is an integer"
NOT_IN_THE_SUITE = {
    **dict.fromkeys(("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"), BOOLEAN),
    **dict.fromkeys(("logical_and", "logical_or", "logical_xor", "logical_not", "all", "any"), BOOLEAN),
    **dict.fromkeys(("isnan", "isinf", "isfinite", "signbit"), BOOLEAN),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert", "argmax", "argmin"), WHOLE),
}


def test_every_primitive_with_a_float_result_is_in_the_suite() -> None:
    names = {
        name
        for table in (elementwise, reductions)
        for name, row in vars(table).items()
        if isinstance(row, Primitive) and PRIMITIVES[row.name] is row and row.name == name
    }
    # What the tables import from each other is a primitive of theirs, or moves elements.
    names -= {name for name in vars(shaping) if name in PRIMITIVES}
    names -= {"share_of_ties"}  # the slope of max and min, which no namespace has
    rows = {problem.name for problem in get_suite("elementary").problems}
    assert names - rows == set(NOT_IN_THE_SUITE)


def test_quick_stays_small() -> None:
    """Each is compiled by JAX twice; 80 of them on four engines take about a minute."""
    problems = get_suite("quick").problems
    assert sum(len(p.sizes) * len(p.operators or ("value", "grad", "jvp")) for p in problems) <= 80


# Printed digits.


def textbook(name: str) -> Answer:
    instance = get_suite("textbook").problem(name).instance(*get_suite("textbook").problem(name).sizes[0])
    return instance.answer(*instance.args)


# Problem -> value and gradient (or slope): exact decimals, or all the digits of a double.
PRINTED = {
    "cubic": (33.0, [29.0]),
    "square-plus-one": (10.0, [6.0]),
    "exp-sin": (0.0, [1.0]),
    "complex-step": (4.497780053946162, [4.053427893898621]),
    "complex-step-second": (4.053427893898621, [9.463073681596601]),
    "perturbation-confusion": (1.0, [1.0]),
    "rosenbrock": (24.2, [-215.6, -88.0]),
    "powell-singular": (215.0, [306.0, -144.0, -2.0, -310.0]),
}

# Problem -> value, gradient and half a unit of the last printed digit.
ROUNDED = {
    "heron": (1.41421356, [0.35355339], 0.5e-8),
    "survey": (11.652, [5.5, 1.716], 0.5e-3),
    # A whole unit: the book's table multiplies the rounded numbers that it prints.
    "evaluation-trace": (2.0167, [3.0118, -13.7239], 1e-4),
}


@pytest.mark.parametrize("name", PRINTED)
def test_printed_numbers(name: str) -> None:
    value, gradient = PRINTED[name]
    answer = textbook(name)
    np.testing.assert_allclose(answer.value, value, rtol=2e-15)
    np.testing.assert_allclose(np.atleast_1d(answer.vjp(1.0)), gradient, rtol=2e-15)


@pytest.mark.parametrize("name", ROUNDED)
def test_printed_digits(name: str) -> None:
    value, gradient, unit = ROUNDED[name]
    answer = textbook(name)
    np.testing.assert_allclose(answer.value, value, rtol=0, atol=unit)
    np.testing.assert_allclose(np.atleast_1d(answer.vjp(1.0)), gradient, rtol=0, atol=unit)


def test_printed_jacobian_action() -> None:
    """J u = (-1 + 2 cos 1, 3) at (1, 0) for u = (2, -1)."""
    np.testing.assert_allclose(textbook("two-outputs").jvp(np.array([2.0, -1.0])), [-1 + 2 * math.cos(1), 3], 1e-15)


def test_printed_gradients_in_closed_form() -> None:
    s, c = math.sin(1), math.cos(1)
    np.testing.assert_allclose(
        textbook("square-of-sum").vjp(1.0), [4 * (2 + s) + 2 * (2 + s) * c, 2 * (2 + s)], rtol=1e-15
    )
    e2, pi = math.exp(2), math.pi
    np.testing.assert_allclose(
        textbook("graph").vjp(1.0), [(4 + 4 * e2) / pi, (2 + 2 * e2) / pi, (-8 - 4 * e2) / pi**2], rtol=1e-15
    )


def test_hessian_at_the_standard_start() -> None:
    hessian = np.stack([textbook("rosenbrock-hessian").vjp(row) for row in np.eye(2)])
    np.testing.assert_allclose(hessian, [[1330, 480], [480, 200]], rtol=1e-14)


def test_logistic_map_in_angles() -> None:
    """With x = sin^2 a, four terms of the map are sin^2 8a, of slope 8 sin 16a / sin 2a."""
    angle = math.asin(math.sqrt(0.2))
    answer = textbook("logistic-map")
    assert answer.value == pytest.approx(math.sin(8 * angle) ** 2, rel=1e-13)
    assert answer.vjp(1.0) == pytest.approx(8 * math.sin(16 * angle) / math.sin(2 * angle), rel=1e-13)


def test_speelpenning_product() -> None:
    """1 / (n + 1) at x_i = i / (i + 1)."""
    answer = textbook("speelpenning")
    assert answer.value == pytest.approx(1 / 11, rel=1e-14)
    np.testing.assert_allclose(answer.vjp(1.0), [(i + 1) / i / 11 for i in range(1, 11)], rtol=1e-14)


def test_broyden_residuals() -> None:
    """At the standard start, -1: -2, then -1, and -3 at the end."""
    np.testing.assert_array_equal(textbook("broyden-tridiagonal").value, [-2.0, *[-1.0] * 8, -3.0])


# ADBench.

DATA = Path(__file__).parents[2] / "shared" / "data" / "adbench"

# A made-up instance in ADBench's format: D K N, alphas, means, icf, points, gamma m.
TINY = """2 3 2
0.5
-0.25
-1.0
0.1 0.2
0.3 -0.4
-0.5 0.6
0.2 -0.1 0.3
-0.3 0.4 -0.5
0.0 0.1 0.7
1.0 2.0
-0.5 0.25
1.5 2
"""


def direct_log_posterior(parameters: Any, points: Any, gamma: float, wishart_m: int, sign: float = 1.0) -> Any:
    """From the textbook densities: precision matrices, determinants and quadratic forms, point by point."""
    alphas, means, icf = parameters
    weights = np.exp(alphas) / np.sum(np.exp(alphas))
    precisions = [q.T @ q for q in (_factor(row) for row in icf)]
    total = sum(sign * _log_wishart(precision, gamma, wishart_m) for precision in precisions)
    for x in points:
        densities = (w * _normal(x - mean, p) for w, mean, p in zip(weights, means, precisions, strict=True))
        total += np.log(sum(densities))
    return total


def _normal(x: Any, precision: Any) -> Any:
    return np.sqrt(_det(precision)) / (2 * np.pi) ** (len(x) / 2) * np.exp(-x @ precision @ x / 2)


def _factor(row: Any) -> Any:
    """Of three parameters: the lower triangle of order 2."""
    return np.array([[np.exp(row[0]), 0.0], [row[2], np.exp(row[1])]])


def _det(matrix: Any) -> Any:
    (a, b), (c, d) = matrix
    return a * d - b * c


def _log_wishart(precision: Any, gamma: float, wishart_m: int) -> Any:
    """Wishart density with p = d + m + 1 degrees of freedom and scale I / gamma^2, in d = 2 dimensions."""
    p = 2 + wishart_m + 1
    gammas = math.sqrt(math.pi) * math.gamma(p / 2) * math.gamma((p - 1) / 2)
    density = _det(precision) ** ((p - 3) / 2) * np.exp(-(gamma**2) * np.trace(precision) / 2)
    return np.log(density * gamma ** (2 * p) / (2**p * gammas))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "gmm_d2_K3.txt"
    path.write_text(TINY)
    return path


def test_gmm_is_the_posterior(tiny: Path) -> None:
    (instance,) = load_gmm(tiny).values()
    expected = direct_log_posterior(*instance.args[:2], 1.5, 2)
    assert instance.answer(*instance.args).value == pytest.approx(expected, rel=1e-13)
    assert instance.fun(*instance.args) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gmm_gradient_is_what_differences_give(tiny: Path, sign: float) -> None:
    """Every entry, with either sign of the prior, to 1e-10."""
    (instance,) = load_gmm(tiny).values()
    parameters, points, _ = cast(instance.args, np.longdouble)
    gradient = gmm_answer(*instance.args[:2], 1.5, 2, prior_sign=sign).vjp(1.0)

    def value(p: Any) -> Any:
        return direct_log_posterior(p, points, 1.5, 2, sign)

    for part, derivative in enumerate(gradient):
        for entry in np.ndindex(derivative.shape):
            seed = optree.tree_map(np.zeros_like, parameters)
            seed[part][entry] = 1.0
            found = float(extrapolated(value, parameters, seed))
            assert found == pytest.approx(derivative[entry], rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.skipif(not DATA.exists(), reason="ADBench's files are not here")
def test_published_objective() -> None:
    """gmm/test.txt: 8.0738 as published, with the prior's sign flipped; -20.07 with the right sign."""
    instance = load_gmm(DATA / "gmm" / "test.txt")["gmm/test"]
    assert instance.answer(*instance.args).value == pytest.approx(-20.07, abs=5e-3)
    assert instance.fun(*instance.args) == pytest.approx(-20.07, abs=5e-3)
    assert gmm_answer(*instance.args[:2], 1.0, 0, prior_sign=-1.0).value == pytest.approx(8.0738, abs=5e-5)


@pytest.mark.skipif(not DATA.exists(), reason="ADBench's files are not here")
@pytest.mark.parametrize("backend", BACKENDS)
def test_data_folder(backend: str) -> None:
    """A folder of all of ADBench's data gives its GMM files, and engines agree with the answer on the largest."""
    found = load_gmm(DATA)
    assert {"gmm/test", "1k/gmm_d2_K5", "1k/gmm_d64_K5"} <= set(found)
    instance = found["1k/gmm_d64_K5"]
    answer = instance.answer(*instance.args)
    value, gradient = ad.value_and_grad(instance.fun, backend=backend)(*instance.args)
    assert error(value, answer.value) < 1e-12
    assert error(gradient, answer.vjp(1.0)) < 1e-12


def test_labels_tell_folders_apart(tmp_path: Path) -> None:
    for folder in ("1k", "10k", "gmm", "ba"):
        (tmp_path / folder).mkdir()
    for name in ("1k/gmm_d2_K3.txt", "10k/gmm_d2_K3.txt", "gmm/test.txt", "ba/test.txt"):
        (tmp_path / name).write_text(TINY)
    assert set(load_gmm(tmp_path)) == {"1k/gmm_d2_K3", "10k/gmm_d2_K3", "gmm/test"}


def test_one_label_twice(tmp_path: Path) -> None:
    for folder in ("a/1k", "b/1k"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "gmm_d2_K3.txt").write_text(TINY)
    with pytest.raises(ad.DataError, match=r"holds two files 1k/gmm_d2_K3\.txt; pass one of the folders"):
        load_gmm(tmp_path)


LINES = TINY.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected a GMM instance that starts with 'D K N'"),
        ("2 3\n", "expected 'D K N', three positive integers, first; found '2 3'"),
        ("2 x 3\n1.0\n", "expected 'D K N', three positive integers, first; found '2 x 3'"),
        ("0 3 2\n", "expected 'D K N', three positive integers, first; found '0 3 2'"),
        ("".join(LINES[:-2]), r"'D K N' = 2 3 2 needs 24 numbers after it; found 20"),
        (TINY + "7.0\n", r"'D K N' = 2 3 2 needs 24 numbers after it; found 25"),
        (TINY.replace("-0.4", "-0,4"), "line 6: expected a finite number; found '-0,4'"),
        (TINY.replace("1.0 2.0", "1.0 nan"), "line 11: expected a finite number; found 'nan'"),
        (TINY.replace("1.5 2\n", "-1.5 2\n"), "expected gamma > 0 and a whole m >= 0 at the end; found -1.5 2"),
        (TINY.replace("1.5 2\n", "1.5 0.5\n"), "expected gamma > 0 and a whole m >= 0 at the end; found 1.5 0.5"),
    ],
)
def test_wrong_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gmm_wrong.txt"
    path.write_text(text)
    with pytest.raises(ad.DataError, match=message) as caught:
        load_gmm(path)
    assert str(path) in str(caught.value)


def test_missing_data(tmp_path: Path) -> None:
    with pytest.raises(ad.DataError, match=r"there is no file or folder .*nowhere; pass one with ADBench's GMM data"):
        load_gmm(tmp_path / "nowhere")
    with pytest.raises(ad.DataError, match=r"holds no GMM data: expected gmm\*.txt, or gmm/test.txt, at any depth"):
        load_gmm(tmp_path)


# The checks above find what is planted.


@pytest.mark.parametrize("factor", [1.001, -1.0, 0.0])
def test_wrong_answer_is_found(factor: float) -> None:
    """An answer whose jvp is 0.1 % off, of the wrong sign, or zero."""
    instance = small(get_suite("textbook").problem("survey"))
    right = instance.answer(*instance.args)
    tangent, _ = directions(instance, right.value)
    wrong = gradient_answer(right.value, factor * right.vjp(1.0))
    x, direction = (cast(tree, np.longdouble) for tree in (instance.args[0], tangent))
    assert error(extrapolated(instance.fun, x, direction), wrong.jvp(tangent)) > 1e-4
