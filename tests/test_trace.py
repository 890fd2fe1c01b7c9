"""Programs that people read: the traces of the textbooks, source, graph and counts."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import adbridge as ad
import planted
import rule_rows
from adbridge.backends.reference.graph import _crossings, _layers, _nodes, _order, _place
from adbridge.backends.reference.primitives import Var
from adbridge.backends.reference.program import Program, evaluate
from adbridge.suites import elementary, textbook

RNG = np.random.default_rng(7)


# The textbooks. A. G. Baydin et al., JMLR 18 (2018), tables 2 and 3, printed there to three decimals.


def survey(x1: Any, x2: Any) -> Any:
    v1 = np.log(x1)
    v2 = x1 * x2
    v3 = np.sin(x2)
    v4 = v1 + v2
    return v4 - v3


SURVEY_PRIMAL = [
    ("v-1", "x1", 2),
    ("v0", "x2", 5),
    ("v1", "ln v-1", 0.693),
    ("v2", "v-1 × v0", 10),
    ("v3", "sin v0", -0.959),
    ("v4", "v1 + v2", 10.693),
    ("v5", "v4 - v3", 11.652),
    ("y", "v5", 11.652),
]
SURVEY_TANGENT = [
    ("dv-1", "dx1", 1),
    ("dv0", "dx2", 0),
    ("dv1", "dv-1 / v-1", 0.5),
    ("dv2", "dv-1 × v0 + dv0 × v-1", 5),
    ("dv3", "dv0 × cos v0", 0),
    ("dv4", "dv1 + dv2", 5.5),
    ("dv5", "dv4 - dv3", 5.5),
    ("dy", "dv5", 5.5),
]
SURVEY_ADJOINT = [
    ("v̄5", "ȳ", "", 1),
    ("v̄4", "v̄5 ∂v5/∂v4", "v̄5", 1),
    ("v̄3", "v̄5 ∂v5/∂v3", "-v̄5", -1),
    ("v̄1", "v̄4 ∂v4/∂v1", "v̄4", 1),
    ("v̄2", "v̄4 ∂v4/∂v2", "v̄4", 1),
    ("v̄0", "v̄3 ∂v3/∂v0", "v̄3 × cos v0", -0.284),
    ("v̄-1", "v̄2 ∂v2/∂v-1", "v̄2 × v0", 5),
    ("v̄0", "v̄0 + v̄2 ∂v2/∂v0", "v̄0 + v̄2 × v-1", 1.716),
    ("v̄-1", "v̄-1 + v̄1 ∂v1/∂v-1", "v̄-1 + v̄1 / v-1", 5.5),
    ("x̄1", "v̄-1", "", 5.5),
    ("x̄2", "v̄0", "", 1.716),
]


def evaluation_trace(x1: Any, x2: Any) -> Any:
    """A. Griewank, A. Walther, Evaluating Derivatives, chapter 1: (sin(x1/x2) + x1/x2 - e^x2) (x1/x2 - e^x2)."""
    v1 = x1 / x2
    v2 = np.sin(v1)
    v3 = np.exp(x2)
    v4 = v1 - v3
    v5 = v2 + v4
    return v5 * v4


GRIEWANK_PRIMAL = [
    ("v-1", "x1", 1.5),
    ("v0", "x2", 0.5),
    ("v1", "v-1 / v0", 3.0),
    ("v2", "sin v1", 0.1411),
    ("v3", "exp v0", 1.6487),
    ("v4", "v1 - v3", 1.3513),
    ("v5", "v2 + v4", 1.4924),
    ("v6", "v5 × v4", 2.0167),
    ("y", "v6", 2.0167),
]
GRIEWANK_TANGENT = [1.0, 0.0, 2.0, -1.9800, 0.0, 2.0, 0.0200, 3.0118, 3.0118]
# The book's v̄5 = 1.3513, v̄4 = 1.4924 then 2.8437, v̄2 = 1.3513, v̄3 = -2.8437, v̄1 = 2.8437 then 1.5059, and so on.
GRIEWANK_ADJOINTS = {
    "v̄6": [1.0],
    "v̄5": [1.3513],
    "v̄4": [1.4924, 2.8437],
    "v̄3": [-2.8437],
    "v̄2": [1.3513],
    "v̄1": [2.8437, 1.5059],
    "v̄0": [-4.6884, -13.7239],
    "v̄-1": [3.0118],
    "x̄1": [3.0118],
    "x̄2": [-13.7239],
}


def cells(table: str) -> list[tuple[str, ...]]:
    """The rows of a printed table below its header: name, right-hand sides without "=", values."""
    rows = table.splitlines()[1:]
    return [tuple(cell.strip() for cell in re.split(r"\s+= |\s{2,}", row.strip()) if cell.strip()) for row in rows]


def check(found: list[tuple[str, ...]], published: list[tuple[Any, ...]], digits: int, ulps: int = 0) -> None:
    """The operations, in their order, and each number rounded as published (to `ulps` of its last digit)."""
    assert [row[:-1] for row in found] == [tuple(word for word in row[:-1] if word) for row in published]
    for row, wanted in zip(found, published, strict=True):
        assert abs(round(float(row[-1]), digits) - wanted[-1]) < (ulps + 0.5) * 10**-digits


def test_the_surveys_evaluation_trace() -> None:
    check(cells(str(ad.trace(survey, 2.0, 5.0))), SURVEY_PRIMAL, 3)


def test_the_surveys_tangent_trace() -> None:
    tangents = ad.trace(survey, 2.0, 5.0).jvp((1.0, 0.0))
    rows = cells(str(tangents))
    check([row[:3] for row in rows], SURVEY_PRIMAL, 3)
    check([row[3:] for row in rows], SURVEY_TANGENT, 3)
    assert tangents.tangents == 5.5


def test_the_surveys_adjoint_trace() -> None:
    adjoints = ad.trace(survey, 2.0, 5.0).vjp()
    primal, reverse = str(adjoints).split("\n\n")
    check(cells(primal), SURVEY_PRIMAL, 3)
    check(cells(reverse), SURVEY_ADJOINT, 3)
    assert [round(float(x), 3) for x in adjoints.cotangents] == [5.5, 1.716]


def test_griewank_and_walthers_traces() -> None:
    program = ad.trace(evaluation_trace, 1.5, 0.5)
    # The book multiplies rounded numbers: its y = 2.0167 is 2.01665.
    check(cells(str(program)), GRIEWANK_PRIMAL, 4, ulps=1)
    rows = cells(str(program.jvp((1.0, 0.0))))
    assert [float(row[-1]) for row in rows] == pytest.approx(GRIEWANK_TANGENT, abs=6e-5)
    found: dict[str, list[float]] = {}
    for row in cells(str(program.vjp()).split("\n\n")[1]):
        found.setdefault(row[0], []).append(float(row[-1]))
    assert found.keys() == GRIEWANK_ADJOINTS.keys()
    for name, numbers in found.items():
        assert numbers == pytest.approx(GRIEWANK_ADJOINTS[name], abs=2e-4), name  # printed to six digits


def graph(x1: Any, x2: Any, x3: Any) -> Any:
    """J. Nocedal, S. J. Wright, Numerical Optimization, chapter 8: (x1 x2 sin x3 + e^(x1 x2)) / x3."""
    x4 = x1 * x2
    x5 = np.sin(x3)
    x6 = np.exp(x4)
    x7 = x4 * x5
    x8 = x6 + x7
    return x8 / x3


def test_nocedal_and_wrights_graph() -> None:
    """At (1, 2, pi/2): the value (4 + 2 e^2)/pi; the sweep's results (4 + 4 e^2)/pi, (2 + 2 e^2)/pi, and for x3
    -(8 + 4 e^2)/pi^2, as the book prints them."""
    program = ad.trace(graph, 1.0, 2.0, np.pi / 2)
    rows = cells(str(program))
    assert [row[1] for row in rows[3:]] == ["v-2 × v-1", "sin v0", "exp v1", "v1 × v2", "v3 + v4", "v5 / v0", "v6"]
    e2 = np.exp(2)
    assert float(rows[-1][-1]) == pytest.approx((4 + 2 * e2) / np.pi, rel=1e-5)
    wanted = (4 + 4 * e2) / np.pi, (2 + 2 * e2) / np.pi, -(8 + 4 * e2) / np.pi**2
    np.testing.assert_allclose(program.vjp().cotangents, wanted, rtol=1e-14)


# Every program below is also drawn, counted, differentiated and written as source.


def branches(x: Any) -> Any:
    for _ in range(3):
        x = np.sin(x) * 2.0 if x[0] > 0 else x - 1.0
    return np.sum(x * x)


def indices(x: Any) -> Any:
    taken = x[np.array([0, 0, 2])]
    y = np.zeros_like(x)
    y[1:3] = taken[:2] * 3.0
    y[np.array([0, 4])] = taken[1:]
    return np.sum(np.exp(y) * x[::-1]) + x[-1]


def reductions(x: Any) -> Any:
    matrix = x.reshape(2, 3)
    largest = np.max(matrix, axis=1, keepdims=True)
    shares = np.exp(matrix - largest) / np.sum(np.exp(matrix - largest), axis=1, keepdims=True)
    return np.cumsum(shares, axis=0), np.prod(x), np.var(x), np.argmax(x)


def constants(x: Any) -> Any:
    large = np.linspace(0.0, 1.0, 1200).reshape(6, 200)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-310, 5.0])
    turned = np.asfortranarray(np.arange(30.0).reshape(6, 5) / 7.0)
    return np.sum(np.tanh(x @ large)) + np.sum(np.where(np.isfinite(odd), odd, 1.0) * x), np.sum(turned * x[:, None])


def half(x: Any) -> Any:
    x = x.astype(np.float32)
    return np.sum(np.maximum(x, np.float32(0.5)) ** 2 * 0.1), np.sqrt(np.abs(x)) / np.float64(3)


def complex_numbers(x: Any) -> Any:
    z = x * (1.0 + 2.0j)
    return np.real(np.sum(z * z / (z + 1.0))), np.abs(z)


def networks(tree: Any) -> Any:
    hidden = np.tanh(tree["w"] @ tree["x"] + tree["b"])
    return {"loss": hidden @ hidden, "hidden": hidden}


X = RNG.normal(size=6)
CASES: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (survey, (2.0, 5.0)),
    (evaluation_trace, (1.5, 0.5)),
    (graph, (1.0, 2.0, 1.5)),
    (branches, (X + 0.1,)),
    (indices, (X,)),
    (constants, (X,)),
    (networks, ({"w": RNG.normal(size=(4, 3)), "x": RNG.normal(size=3), "b": RNG.normal(size=4)},)),
    (lambda x: x, (X,)),
    (lambda x: np.sum(x) * 0.0 + np.zeros(3), (X[:0],)),
]
WITHOUT_ADJOINT: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [(reductions, (X,))]
MORE: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [(half, (X,)), (complex_numbers, (X,))]
PROBLEMS = [
    pytest.param(case.fun, case.args, id=f"{suite.SUITE.name} {problem.name}")
    for suite in (textbook, elementary)
    for problem in suite.SUITE.problems
    for case in [problem.make(*problem.sizes[0], np.random.default_rng(0))]
]
every = pytest.mark.parametrize(("fun", "args"), [*CASES, *WITHOUT_ADJOINT, *MORE, *PROBLEMS])


def bits(x: Any) -> tuple[Any, ...]:
    array = np.asarray(x)
    return array.dtype, array.shape, array.tobytes()


def run_source(source: str, name: str, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    namespace: dict[str, Any] = {}
    exec(compile(source, name, "exec"), namespace)
    with np.errstate(all="ignore"):
        found = namespace[name](*inputs)
    return found if isinstance(found, tuple) else (found,)


def check_source(program: Program) -> None:
    assert program.run is not None
    with np.errstate(all="ignore"):
        wanted = evaluate(program, *program.run.inputs)
    found = run_source(program.to_python("some"), "some", program.run.inputs)
    assert list(map(bits, found)) == list(map(bits, wanted))


def seeds_like(program: Program) -> Any:
    import optree

    assert program.run is not None
    values = [program.run.values[x.index] if type(x) is Var else x for x in program.outputs]
    leaves = [np.asarray(RNG.normal(size=np.shape(x))).astype(np.asarray(x).dtype) for x in values]
    return optree.tree_unflatten(program.run.out_tree, leaves)


@every
def test_source_gives_the_very_same_bits(fun: Any, args: tuple[Any, ...]) -> None:
    with np.errstate(all="ignore"):
        program = ad.trace(fun, *args)
        check_source(program)
        check_source(program.jvp(tangents_like(program)).program)
        if fun is not reductions:
            check_source(program.vjp(seeds_like(program)).program)


@every
def test_traces_print_and_draw(fun: Any, args: tuple[Any, ...]) -> None:
    with np.errstate(all="ignore"):
        program = ad.trace(fun, *args)
        shown = [program.jvp(tangents_like(program))]
        if fun is not reductions:
            shown.append(program.vjp(seeds_like(program)))  # type: ignore[arg-type]
        for trace in (program, *shown):
            assert str(trace).startswith("step")
            ET.fromstring(trace.to_svg())


@every
def test_derivatives_are_those_of_the_engine(fun: Any, args: tuple[Any, ...]) -> None:
    import optree

    if fun is reductions:
        return
    with np.errstate(all="ignore"):
        program = ad.trace(fun, *args)
        seeds = seeds_like(program)
        moving = [i for i, arg in enumerate(args) if getattr(arg, "dtype", np.dtype(float)).kind == "f"]
        _, pull = ad.vjp(_of_some(fun, args, moving), *(args[i] for i in moving), backend="reference")
        found, wanted = program.vjp(seeds), pull(seeds)
        optree.tree_map(np.testing.assert_array_equal, tuple(found.cotangents[i] for i in moving), wanted)
        text = str(found)
        assert len(text.splitlines()) > len(str(program).splitlines())


def tangents_like(program: Program) -> Any:
    import optree

    assert program.run is not None
    return optree.tree_unflatten(
        program.run.active_tree, [RNG.normal(size=x.shape).astype(x.dtype) for x in program.run.inputs]
    )


@pytest.mark.parametrize("row", rule_rows.ROWS, ids=str)
def test_every_primitive(row: rule_rows.Row) -> None:
    """Source to the last bit, of the rules too; and their tables and drawings."""
    with np.errstate(all="ignore"):
        program = ad.trace(row.fun, *row.args)
        for traced in (program.jvp(tangents_like(program)), program.vjp(seeds_like(program))):
            check_source(traced.program)
            assert str(traced).startswith("step")
            ET.fromstring(traced.to_svg())
    check_source(program)


def _of_some(fun: Any, args: tuple[Any, ...], moving: list[int]) -> Any:
    def some(*given: Any) -> Any:
        filled = list(args)
        for i, x in zip(moving, given, strict=True):
            filled[i] = x
        return fun(*filled)

    return some


SMOOTH = [np.sin, np.cos, np.exp, np.tanh, lambda x: x * x, np.negative, lambda x: 1.0 / (2.0 + np.sin(x))]
JOINS = [np.add, np.subtract, np.multiply, lambda a, b: a @ b * b, lambda a, b: a / (1.0 + b * b), np.maximum]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=25))
def test_random_programs(steps: list[tuple[int, int, int]]) -> None:
    def fun(x: Any, y: Any) -> Any:
        known = [x, y]
        for which, i, j in steps:
            a, b = known[i % len(known)], known[j % len(known)]
            new = SMOOTH[which](a) if which < len(SMOOTH) else JOINS[which - len(SMOOTH)](a, b)
            known.append(new / (1.0 + np.sum(new * new)))
        return np.sum(known[-1] * known[-2])

    x, y = np.array([0.3, -0.2, 0.9]), np.array([1.1, 0.4, -0.6])
    program = ad.trace(fun, x, y)
    check_source(program)
    check_source(program.vjp().program)
    ET.fromstring(program.to_svg())
    wanted = ad.grad(fun, (0, 1), backend="reference")(x, y)
    np.testing.assert_allclose(program.vjp().cotangents, wanted, rtol=1e-9, atol=1e-12)
    assert cells(str(program.vjp()))[-1][:2] == ("x̄2", "v̄0")


def test_source_runs_alone(tmp_path: Path) -> None:
    """In a process that has only NumPy."""
    program = ad.trace(indices, X).vjp().program
    script = tmp_path / "alone.py"
    script.write_text(program.to_python("grad_f") + f"\nprint(grad_f(np.array({X.tolist()})).tobytes().hex())\n")
    done = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == program(X)[0].tobytes().hex()
    assert "adbridge" not in script.read_text()


def test_source_reads_as_numpy() -> None:
    assert ad.trace(survey, 2.0, 5.0).to_python() == (
        "import numpy as np\n\n\n"
        "def f(x1, x2):\n"
        '    """x1: float64[], x2: float64[] -> float64[]"""\n'
        "    x1 = np.asarray(x1, np.float64)\n"
        "    x2 = np.asarray(x2, np.float64)\n"
        "    v1 = np.log(x1)\n"
        "    v2 = x1 * x2\n"
        "    v3 = np.sin(x2)\n"
        "    v4 = v1 + v2\n"
        "    v5 = v4 - v3\n"
        "    return v5\n"
    )
    source = ad.trace(lambda x: np.sum(x[1:] * 2.0, axis=0), np.ones((3, 2))).to_python()
    assert "v1 = x[1:]" in source and "np.sum(v2, axis=0)" in source


def test_source_of_a_guard_asserts_it() -> None:
    source = ad.trace(branches, np.array([1.0, 2.0])).to_python()
    with pytest.raises(AssertionError, match="another branch"):
        run_source(source, "f", (np.array([-1.0, 2.0]),))
    with pytest.raises(ad.CapabilityError, match="'a b' is no name"):
        ad.trace(survey, 2.0, 5.0).to_python("a b")


# Running a program again.


def test_a_program_runs_on_other_arguments() -> None:
    program = ad.trace(survey, 2.0, 5.0)
    assert program(3.0, 4.0) == survey(3.0, 4.0)
    gradient = program.vjp().program
    np.testing.assert_allclose(gradient(3.0, 4.0), [1 / 3 + 4, 3 - np.cos(4)], rtol=1e-15)
    hessian = [gradient.vjp(seed).program(3.0, 4.0, seed) for seed in ((1.0, 0.0), (0.0, 1.0))]
    np.testing.assert_allclose(hessian, [[-1 / 9, 1], [1, np.sin(4)]], rtol=1e-15)
    third = gradient.jvp((1.0, 0.0)).program.jvp((1.0, 0.0, 0.0, 0.0))
    np.testing.assert_allclose(third.tangents, [2 / 8, 0], rtol=1e-14)
    assert ad.grad(program, backend="reference")(3.0, 4.0) == pytest.approx(1 / 3 + 4)


def test_a_program_keeps_the_trees() -> None:
    args = CASES[6][1]
    program = ad.trace(networks, *args)
    out = program(*args)
    assert set(out) == {"loss", "hidden"}
    np.testing.assert_array_equal(out["hidden"], networks(*args)["hidden"])
    (found,) = program.vjp({"loss": 1.0, "hidden": np.zeros(4)}).cotangents
    np.testing.assert_allclose(found["b"], 2 * out["hidden"] * (1 - out["hidden"] ** 2), rtol=1e-14)


def test_whole_numbers_are_constants() -> None:
    program = ad.trace(lambda x, n: x**n, 2.0, 3)
    assert program(3.0, 3) == 27.0
    assert program.vjp().cotangents == (12.0, None)
    with pytest.raises(ad.SignatureMismatch, match=r"args\[1\] was 3 when this program was recorded"):
        program(3.0, 2)


def test_another_branch_is_an_error() -> None:
    def chosen(x: Any) -> Any:
        return np.log(x) if x > 0 else x * 0.0

    program = ad.trace(chosen, 2.0)
    assert program(3.0) == np.log(3.0)
    for again in (program, program.vjp().program):
        with pytest.raises(ad.SignatureMismatch, match=r"recorded with v\d = True, where v\d is v0 > 0; .* is False"):
            again(-1.0)


def test_a_guard_stands_before_what_would_fail() -> None:
    def picked(x: Any) -> Any:
        return x[int(np.argmax(x))] if np.all(x > 0) else x[0]

    program = ad.trace(picked, np.array([1.0, 3.0, 2.0]))
    assert program(np.array([2.0, 5.0, 1.0])) == 5.0
    with pytest.raises(ad.SignatureMismatch, match="trace it again"):
        program(np.array([7.0, 5.0, 1.0]))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: ad.trace(survey, 2, 5), ad.NotDifferentiable, "args[0] is 2, args[1] is 5: pass floats"),
        (lambda: ad.trace(lambda x: "no", 1.0), ad.SignatureMismatch, "output is 'no'"),
        (lambda: ad.trace(survey, 2.0, 5.0)(1.0), ad.SignatureMismatch, "expected (*, *), got (*,)"),
        (lambda: ad.trace(np.sum, X)(X[:2]), ad.SignatureMismatch, "expected float64[6]"),
        (lambda: ad.trace(survey, 2.0, 5.0).jvp(1.0), ad.SignatureMismatch, "tangents as a tuple"),  # type: ignore
        (lambda: ad.trace(lambda x: x, X).vjp(), ad.SignatureMismatch, "cotangents like the output, float64[6]"),
        (lambda: ad.trace(reductions, X).vjp(), ad.NotDifferentiable, "output[3] is int64[], which has no cotangent"),
        (lambda: ad.grad(lambda x: ad.trace(np.sin, x)(x))(1.0), ad.NotDifferentiable, "tracer of reference"),
        (lambda: Program()(1.0), ad.UsageError, "make it with adbridge.trace"),
    ],
)
def test_bad_input(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        call()


# The graph.


def test_layers_flow_downwards_and_nothing_overlaps() -> None:
    program = ad.trace(evaluation_trace, 1.5, 0.5).vjp().program
    layers = _layers(_nodes(program, {}))
    before = _crossings(layers)
    _order(layers)
    _place(layers)
    assert _crossings(layers) <= before
    for layer in layers:
        assert all(b.x - b.width / 2 >= a.x + a.width / 2 - 1e-6 for a, b in pairwise(layer))
        assert all(lower.layer == node.layer + 1 for node in layer for lower in node.below)
    assert sum(node.kind == "output" for node in layers[-1]) == 2


def test_crossing_edges_are_uncrossed() -> None:
    def crossed(a: Any, b: Any, c: Any) -> Any:
        return np.sin(c), np.sin(b), np.sin(a)

    layers = _layers(_nodes(ad.trace(crossed, 1.0, 2.0, 3.0), {}))
    assert _crossings(layers) > 0
    _order(layers)
    assert _crossings(layers) == 0


def test_svg_is_written_and_escaped(tmp_path: Path) -> None:
    program = ad.trace(lambda x: np.where(x < 1.0, x, 2.0), 0.5)
    text = program.to_svg(tmp_path / "graph.svg")
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8") == text
    words = [node.text for node in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    assert words == ["v0 = x", "0.5", "v1 = v0 < 1", "True", "v2 = where(v1, v0, 2)", "0.5", "y = v2", "0.5"]
    assert "v0 = 1" in program.vjp().to_svg()
    assert "<pre>" in program._repr_html_()


# Counts.


def test_costs_by_hand() -> None:
    found = ad.trace(survey, 2.0, 5.0).cost()
    assert (found.additions, found.multiplications, found.transcendental, found.operations) == (2, 1, 2, 5)
    assert (found.equations, found.sweeps, found.bytes_read, found.bytes_written) == (5, 1, 64, 40)
    product = ad.trace(lambda a, b: a @ b, np.ones((3, 4)), np.ones((4, 5))).cost()
    assert product.operations == 2 * 3 * 4 * 5 and product.bytes_read == 8 * (12 + 20)
    assert product.to_dict()["multiplications"] == 60
    view = ad.trace(lambda x: x[1:].reshape(1, 5), X).cost()
    assert view.operations == view.bytes_read == view.bytes_written == 0
    assert ad.trace(np.sum, X).cost().additions == 5


@pytest.mark.parametrize(("fun", "args"), [CASES[0], CASES[1], CASES[2], CASES[3], CASES[5]])
def test_gradients_are_cheap(fun: Any, args: tuple[Any, ...]) -> None:
    """A gradient costs at most about five times its function, whatever the number of inputs: W. Baur, V. Strassen,
    "The complexity of partial derivatives", Theoretical Computer Science 22 (1983)."""
    program = ad.trace(fun, *args)
    gradient = program.vjp(seeds_like(program)).program
    assert gradient.cost().sweeps == 2
    assert gradient.cost().operations <= 5 * program.cost().operations


# The command.


def command(*args: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "adbridge.cli", "trace", *args]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=planted.HERE)


def test_command(tmp_path: Path) -> None:
    done = command("test_trace:survey", "--args", "2.0", "5.0")
    assert done.returncode == 0, done.stderr
    check(cells(done.stdout), SURVEY_PRIMAL, 3)
    svg = tmp_path / "graph.svg"
    done = command("test_trace:survey", "--args", "2.0", "5.0", "--vjp", "--svg", str(svg))
    check(cells(done.stdout.strip().split("\n\n")[1]), SURVEY_ADJOINT, 3)
    ET.parse(svg)
    done = command("test_trace:survey", "--jvp", "1,0", "--python", "--args", "2.0", "-5.0")
    assert "def derivative_of_survey(x1, x2, x3, x4):" in done.stdout


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["numpy:nosuch", "1.0"], "no function at 'numpy:nosuch'"),
        (["numpy:pi", "1.0"], "of type float, not a function"),
        (["test_trace:survey", "2.0"], "missing a required argument: 'x2'"),
        (["test_trace:survey", "2.0", "a"], "'a' is neither a number"),
        (["test_trace:survey", "2.0", "5.0", "--jvp", "1"], "tangents must have the tree structure"),
        (["test_trace:survey", "2.0", "5.0", "--jvp", "1,0", "--vjp"], "give --jvp or --vjp, not both"),
        (["test_trace:reductions", "[1,2,3,4,5,6]", "--vjp"], "has no cotangent"),
    ],
)
def test_bad_commands_exit_2(args: list[str], text: str) -> None:
    done = command(*args)
    assert done.returncode == 2 and text in done.stderr, done.stderr


def test_a_program_keeps_what_it_closed_over() -> None:
    c = np.arange(3.0)
    program = ad.trace(lambda x: np.sum(x * c), np.ones(3))
    c[:] = 0.0
    assert program(np.ones(3)) == 3.0
    assert repr(program) == str(program)
