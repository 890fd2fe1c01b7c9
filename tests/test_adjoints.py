"""The hand-written adjoints are right, and the benchmark over them tells right from wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import optree
import pytest
from click.testing import CliRunner

import adbridge as ad
from adbridge.bench.problem import Vector
from adbridge.suites.benchmarks import against_adjoints
from adbridge.suites.benchmarks.adjoints import PROBLEMS, TANH_JACOBIAN, Case, Handwritten
from adbridge.suites.benchmarks.against_adjoints import Contender, Ready
from adbridge.trees import PyTree

every_problem = pytest.mark.parametrize("problem", (*PROBLEMS, TANH_JACOBIAN), ids=lambda problem: problem.name)
CASE = PROBLEMS[0].case("small")
RIGHT = CASE.adjoint(*CASE.args)


def difference_quotients(case: Case) -> PyTree:
    """The derivatives of the function by central differences in extended precision, of fourth order.

    The error is about h^4 + eps/h: 1e-15 where long double has 64 bits, 1e-12 where it has 53.
    """
    h = np.finfo(np.longdouble).eps ** np.longdouble(0.2)
    leaves, treedef = optree.tree_flatten(case.args[0])
    long = [np.array(leaf, np.longdouble) for leaf in leaves]

    def moved(leaf: Vector, place: int, by: np.longdouble) -> Vector:
        was = leaf.flat[place]
        leaf.flat[place] = was + by
        try:
            return np.array(case.fun(optree.tree_unflatten(treedef, long), *case.args[1:]))
        finally:
            leaf.flat[place] = was

    def quotient(leaf: Vector, place: int) -> Vector:
        near = moved(leaf, place, h) - moved(leaf, place, -h)
        far = moved(leaf, place, 2 * h) - moved(leaf, place, -2 * h)
        return np.asarray((8 * near - far) / (12 * h))

    columns = [np.stack([quotient(leaf, i) for i in range(leaf.size)], axis=-1) for leaf in long]
    shaped = [c.reshape(*c.shape[:-1], *leaf.shape).astype(float) for c, leaf in zip(columns, long, strict=True)]
    return optree.tree_unflatten(treedef, shaped)


@every_problem
def test_adjoints_are_the_limits_of_difference_quotients(problem: Handwritten) -> None:
    case = problem.case("small")
    assert against_adjoints.mismatch(case.adjoint(*case.args), difference_quotients(case)) == ""


@every_problem
def test_adjoints_agree_with_every_backend(problem: Handwritten, backend: str) -> None:
    case = problem.case("small")
    gradient = getattr(ad, case.operator)(case.fun, backend=backend)(*case.args)
    assert against_adjoints.mismatch(gradient, case.adjoint(*case.args)) == ""


@every_problem
@pytest.mark.parametrize("size", ["small", "medium"])
def test_adjoints_leave_their_arguments_alone(problem: Handwritten, size: str) -> None:
    """And give the same again: the benchmark calls them many times."""
    case = problem.case(size)
    for array in optree.tree_leaves(case.args):
        array.flags.writeable = False
    first, second = case.adjoint(*case.args), case.adjoint(*case.args)
    optree.tree_map(np.testing.assert_array_equal, first, second)


# Testing the tester.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (RIGHT * (1 + 1e-8), "off by 1.0e-08"),
        (np.where(np.arange(10) == 3, np.nan, RIGHT), "off by inf"),
        (RIGHT[:-1], "has shapes [(9,)], should have [(10,)]"),
        (RIGHT[None], "has shapes"),
        ((RIGHT, RIGHT), "has shapes"),
        (np.zeros_like(RIGHT), "off by 1.0e+00"),
    ],
)
def test_a_wrong_gradient_is_told(wrong: PyTree, message: str) -> None:
    assert against_adjoints.mismatch(wrong, RIGHT).startswith(message)


def test_rounding_is_not_an_error() -> None:
    assert against_adjoints.mismatch(RIGHT * (1 + 1e-12), RIGHT) == ""


def test_every_part_is_judged_on_its_own_scale() -> None:
    right = (np.array([1e6]), np.array([1e-6]))
    assert against_adjoints.mismatch((np.array([1e6]), np.array([1.1e-6])), right) == (
        "off by 1.0e-01 of the largest entry"
    )


@every_problem
def test_a_planted_error_in_an_adjoint_is_found(problem: Handwritten) -> None:
    """One in a thousand, in its smallest part."""
    case = problem.case("small")
    leaves, treedef = optree.tree_flatten(case.adjoint(*case.args))
    smallest = min(range(len(leaves)), key=lambda i: np.max(np.abs(leaves[i])))
    leaves[smallest] = leaves[smallest] * 1.001
    planted = optree.tree_unflatten(treedef, leaves)
    assert against_adjoints.mismatch(planted, difference_quotients(case)).startswith("off by 1.0e-03")


# Measuring.


def _contender(name: str, gradient: Callable[..., PyTree]) -> Contender:
    return Contender(name, lambda case: Ready(lambda: gradient(*case.args)))


def _fails(x: Vector) -> Vector:
    raise ValueError("no such rule\nand more")


CONTENDERS = [
    _contender("right", CASE.adjoint),
    _contender("double", lambda x: 2 * RIGHT),
    _contender("broken", _fails),
]


def test_outcomes_of_right_wrong_and_failing_contenders() -> None:
    adjoint, right, double, broken = against_adjoints.measure(CASE, CONTENDERS, 0.01)
    assert (adjoint.contender, adjoint.ratio, adjoint.fault) == ("adjoint", 1.0, "")
    assert right.fault == "" and right.seconds > 0 and right.first_seconds > 0
    assert right.ratio == right.seconds / adjoint.seconds
    assert (double.fault, double.note) == ("WRONG", "off by 1.0e+00 of the largest entry")
    assert (broken.fault, broken.note) == ("error", "ValueError: no such rule")
    assert math.isnan(double.seconds) and math.isnan(broken.ratio)


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def slow(name: str) -> Callable[[], None]:
        def call() -> None:
            order.append(name)
            sum(range(50_000))  # longer than a sample must be

        return call

    against_adjoints.least_seconds({"a": slow("a"), "b": slow("b")}, 0.0)
    assert "".join(order).endswith("ab" * against_adjoints.MIN_ROUNDS)


def test_means_leave_failures_out_and_say_so() -> None:
    ok = [against_adjoints.Outcome(str(i), "small", "x", ratio=r) for i, r in enumerate([2.0, 8.0])]
    assert against_adjoints._mean_cell(ok) == "4.00"
    assert against_adjoints._mean_cell([*ok, replace(ok[0], fault="error")]) == "4.00 (2 of 3)"
    assert against_adjoints._mean_cell([replace(ok[0], fault="error")]) == "-"


def test_memory_counts_the_peak_and_what_is_held() -> None:
    n = 100_000

    def make(case: Case) -> Ready:
        kept = np.zeros(n)
        return Ready(lambda: np.add(kept, 1.0).sum())

    case = Case("ones", "small", np.sum, (np.zeros(n),), np.ones_like)
    adjoint, holder = against_adjoints.weigh(case, [Contender("holder", make)])
    assert adjoint.peak == pytest.approx(8 * n, rel=0.02) and adjoint.held < 0.02 * 8 * n
    assert holder.peak == pytest.approx(16 * n, rel=0.02) and holder.held == pytest.approx(8 * n, rel=0.02)


# The command.


def _run(*options: str) -> tuple[int, str]:
    done = CliRunner().invoke(against_adjoints.main, ["--seconds", "0.01", "--sizes", "small", *options])
    return done.exit_code, done.output


def test_the_command_prints_tables_and_writes_figures(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    options = ("--problems", "log-sum-exp", "--contenders", "autograd,primal", "--json", str(path))
    pytest.importorskip("autograd")
    code, output = _run(*options)
    assert code == 0, output
    assert "small: gradient over hand-written adjoint, in time" in " ".join(output.split())
    assert "│ log-sum-exp │" in output
    written = json.loads(path.read_text())
    assert [row["contender"] for row in written["times"]] == ["adjoint", "autograd", "primal"]
    assert all(row["seconds"] > 0 and not row["fault"] for row in written["times"])
    assert written["rtol"] == against_adjoints.RTOL and written["environment"]["numpy"] == np.__version__


def test_a_wrong_contender_makes_the_command_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against_adjoints, "CONTENDERS", CONTENDERS)
    code, output = _run("--problems", "chain")
    assert code == 1
    assert "geometric mean" not in output
    assert "double, WRONG on chain: off by 1.0e+00 of the largest entry" in output
    assert "broken, error on chain: ValueError: no such rule" in output


def test_a_failing_contender_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against_adjoints, "CONTENDERS", [CONTENDERS[0], CONTENDERS[2]])
    assert _run("--problems", "chain")[0] == 0


def test_contenders_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(CONTENDERS[0], name="mygrad", needs=("no_such_engine",))
    monkeypatch.setattr(against_adjoints, "CONTENDERS", [CONTENDERS[0], absent])
    assert "left out" not in _run("--problems", "chain")[1]
    assert (
        "mygrad is left out: no_such_engine is not installed"
        in (_run("--problems", "chain", "--contenders", "mygrad")[1])
    )


@pytest.mark.parametrize("option", ["--problems", "--contenders", "--sizes"])
def test_unknown_names_are_wrong_usage(option: str) -> None:
    code, output = _run(option, "nothing")
    assert code == 2
    assert "nothing is unknown; choose from: " in output
