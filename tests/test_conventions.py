"""Suite `conventions`: its shape, its closed forms against the referee; the atlas and its ledger against lies."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adbridge as ad
from adbridge.bench.problem import Problem, Suite, get_suite
from adbridge.errors import CapabilityError, UsageError
from adbridge.registry import default_names
from adbridge.suites.benchmarks import corpus
from adbridge.suites.conventions.cases import case
from adbridge.validate.atlas import Atlas, atlas
from adbridge.validate.ledger import LEDGER, Defect
from adbridge.validate.special_points import truth as truths
from adbridge.validate.special_points.asking import MODES, questions
from adbridge.validate.special_points.portable import PLACES, portable
from adbridge.validate.special_points.truth import Truth, box, hull, infinite, jump, limit, symmetric, ties, unique
from adbridge.validate.verdict import VERDICTS

SUITE = get_suite("conventions")
ENGINES = default_names()
CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "derivative_cases.json"

each_problem = pytest.mark.parametrize("problem", SUITE.problems, ids=lambda p: p.name)


def small(*names: str) -> Suite:
    return Suite("small", tuple(map(SUITE.problem, names)))


def at_point(fun: Any, *point: Any, **asked: Any) -> Suite:
    return Suite("planted", (case("planted", fun, *point, topic="planted", **asked),))


# The shape of the suite.


def test_there_are_enough_points_and_their_names_are_unique() -> None:
    names = [problem.name for problem in SUITE.problems]
    assert len(names) >= 110
    assert len(set(names)) == len(names)


@each_problem
def test_every_question_has_a_truth_of_the_right_shape(problem: Problem) -> None:
    assert problem.special is not None and problem.special.truths
    for question in questions(problem):
        x = question.instance.args[0]
        shape = {"jvp": ()}.get(question.operator, x.shape * 2 if question.operator in MODES else x.shape)
        if question.truth is not None:
            assert question.truth.kind in truths.KINDS
            assert all(value.shape == shape for value in question.truth.accepted.values())


@each_problem
def test_a_set_holds_its_examples_and_not_all_numbers(problem: Problem) -> None:
    assert problem.special is not None
    for operator, truth in problem.special.truths.items():
        if truth.member is None:
            continue
        shape = problem.instance(1, 1).args[0].shape * (2 if operator == "hessian" else 1)
        assert all(truth.member(value, 1e-10) for value in truth.accepted.values())
        assert not truth.member(np.full(shape, 1e3), 1e-10)


def test_threads_are_written_as_repository_and_number() -> None:
    assert SUITE.problems
    for problem in SUITE.problems:
        assert problem.special is not None
        assert all("/" in thread and ("#" in thread or "@" in thread) for thread in problem.special.threads)


def test_special_points_are_not_timed() -> None:
    with pytest.raises(UsageError, match="is checked, not timed; run: adbridge check conventions"):
        SUITE.problems[0].grid(None, None)
    with pytest.raises(UsageError, match="several right answers or none"):
        SUITE.problems[0].instance(1, 1).answer(0.0)


# Truths.


@pytest.mark.parametrize(
    ("truth", "got", "verdict"),
    [
        (unique(2.0), 2.0 * (1 + 1e-12), "agree"),
        (unique(2.0), 2.0 * (1 + 1e-8), "wrong"),
        (unique(2.0), math.nan, "wrong"),
        (unique([1.0, 1e-18]), [1.0, 0.0], "agree"),  # far below rounding in the first
        (unique(1e-18), 0.0, "wrong"),
        (infinite(math.inf), math.inf, "infinite"),
        (infinite(math.inf), -math.inf, "wrong"),
        (infinite(math.inf), 1e300, "wrong"),
        (infinite(math.inf), math.nan, "wrong"),
        (jump(1.0), 1.0, "convention"),
        (jump(1.0), math.nan, "convention"),
        (jump(1.0), 0.0, "undefined"),
        (limit(one=1.0, none=0.0), 0.0, "convention"),
        (limit(one=1.0, none=0.0), math.nan, "convention"),
        (limit(one=1.0, none=0.0), 0.5, "wrong"),
        (truths.UNDEFINED, 17.0, "undefined"),
        (box(-1, 1), 0.3, "convention"),
        (box(-1, 1), math.nan, "convention"),
        (box(-1, 1), 1.001, "wrong"),
        (ties(3, 0, 1), [0.5, 0.5, 0.0], "convention"),
        (ties(3, 0, 1), [1.0, 1.0, 0.0], "wrong"),
        (ties(3, 0, 1), [0.5, 0.4, 0.1], "wrong"),
        (hull([2.0, 0.0], [1.0, 1.0]), [1.25, 0.75], "convention"),
        (hull([2.0, 0.0], [1.0, 1.0]), [2.5, -0.5], "wrong"),
        (symmetric([[1.0, 2.0], [2.0, 3.0]]), [[1.0, 0.0], [4.0, 3.0]], "convention"),
        (symmetric([[1.0, 2.0], [2.0, 3.0]]), [[1.0, 4.0], [4.0, 3.0]], "wrong"),
        (symmetric([[1.0, 2.0], [2.0, 3.0]]), [[math.nan] * 2] * 2, "wrong"),
    ],
)
def test_a_truth_judges(truth: Truth, got: Any, verdict: str) -> None:
    answer = np.asarray(got, float)
    assert truth.verdict(answer, np.zeros(answer.shape), 1e-10)[0] == verdict


def test_shape_and_dtype_count() -> None:
    assert unique([1.0]).verdict(np.ones(()), np.ones(1), 1e-10) == ("wrong", "shape (), expected (1,)")
    assert unique(1.0).verdict(np.float32(1), np.ones(()), 1e-10) == ("wrong", "dtype float32, expected float64")


def test_the_interval_along_a_direction_follows_from_the_set() -> None:
    along = ties(2, 0, 1).along(np.array([3.0, -1.0]))
    assert along is not None and str(along) == "from -1. to 3."
    assert unique([2.0, 1.0]).along(np.array([3.0, -1.0])).value == 5.0  # type: ignore[union-attr]


# The portable namespace.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PLACES)
def test_each_function_is_found_or_refused_by_name(name: str, engine: str) -> None:
    """Found for real: an attribute that does not exist would raise AttributeError."""
    backend = ad.get_backend(engine)
    found: list[Any] = []

    def look(x: Any) -> Any:
        space = portable(x)
        try:
            for part in name.split("."):
                space = getattr(space, part)
            found.append(callable(space))
        except CapabilityError as exc:
            found.append(f"{engine} has no function '{name}'" in str(exc))
        return x * 1.0

    ad.grad(look, backend=backend)(1.0)
    assert found and all(found)


@pytest.mark.parametrize(("engine", "slope"), [("jax", 1.0), ("torch", 0.2)])
def test_an_engine_runs_its_own_function(engine: str, slope: float) -> None:
    """Of leaky relu at 0, JAX has chosen the slope on the right, torch that on the left."""
    pytest.importorskip(engine)
    assert ad.grad(lambda x: portable(x).special.leaky_relu(x, 0.2), backend=engine)(0.0) == slope


@pytest.mark.parametrize("engine", ENGINES)
def test_functions_agree_across_engines_at_a_smooth_point(engine: str) -> None:
    x = np.array([0.3, -0.7, 1.9])
    for name in ("relu", "relu6", "elu", "celu", "selu", "silu", "gelu", "softplus", "hard_tanh", "log_sigmoid", "erf"):

        def total(x: Any, name: str = name) -> Any:
            return portable(x).sum(getattr(portable(x).special, name)(x))

        try:
            got = ad.grad(total, backend=engine)(x)
        except CapabilityError:
            continue
        assert np.allclose(got, ad.grad(total, backend="reference")(x), rtol=1e-12), name


# The atlas.


def test_right_engines_pass_and_every_answer_is_counted() -> None:
    found = atlas(small("power-2-at-0", "abs-0", "sqrt-0", "sign-0"), ["reference"])
    assert {row.verdict for row in found.rows} == {"agree", "convention", "infinite"}
    assert not found.failed and not found.new_defects and not found.contradictions
    assert sum(sum(of.values()) for of in found.counts().values()) == len(found.rows)


def test_a_backend_that_answers_zero_is_found() -> None:
    found = atlas(small("power-at-zero-exponent", "atan2-order", "rfft"), ["zero"], ledger=())
    assert found.failed and found.verdict == "wrong"
    assert {row.case for row in found.new_defects} == {"power-at-zero-exponent", "atan2-order", "rfft"}


def test_a_wrong_rule_is_found_and_named() -> None:
    tripled = ad.custom_rule(lambda x: portable(x).sin(x))
    tripled.defjvp(lambda primals, tangents: (portable(primals[0]).sin(primals[0]), 3.0 * tangents[0]))
    found = atlas(at_point(lambda xp, x: tripled(x), 0.0, grad=1.0), ["reference"], ledger=())
    assert [(row.operator, float(row.value), row.verdict) for row in found.new_defects] == [
        ("grad", 3.0, "wrong"),
        ("jvp", 3.0, "wrong"),
    ]
    assert "new defect: planted, grad, jvp by reference: got 3., right is 1." in str(found)


def test_a_referee_that_contradicts_the_closed_form_is_reported() -> None:
    """The planted truth is a lie: the engine and the referee are right."""
    found = atlas(at_point(lambda xp, x: x * x, 1.0, grad=3.0), ["reference"], ledger=())
    assert {row.operator for row in found.contradictions} == {"grad", "jvp"}
    assert found.failed and "the referee says agree" in found.contradictions[-1].note
    assert next((row.backend, row.operator) for row in found.contradictions) == ("referee", "grad")


def test_a_contradiction_is_not_excused_by_the_ledger() -> None:
    planted = Defect("planted", "reference", ">=0.1", "", "a lie", ("grad", "jvp"))
    found = atlas(at_point(lambda xp, x: x * x, 1.0, grad=3.0), ["reference"], ledger=[planted])
    assert found.failed and found.verdict == "error" and not found.known_defects and not found.mended


def test_a_truth_of_the_wrong_kind_is_reported() -> None:
    found = atlas(at_point(lambda xp, x: x * x, 0.0, grad=box(-1, 1)), ["reference"], ledger=())
    assert [row.operator for row in found.contradictions] == ["kind"]
    assert "referee against closed form: planted, kind" in str(found)


WRONG = at_point(lambda xp, x: xp.where(x == 0, x * 0.0, xp.sin(x)), 0.0, grad=1.0)
KNOWN = Defect("planted", "reference", ">=0.1", "owner/repository#1", "the guard is a constant", ("grad", "jvp"))


def test_a_known_defect_does_not_fail() -> None:
    found = atlas(WRONG, ["reference"], ledger=[KNOWN])
    assert not found.new_defects and not found.mended and len(found.known_defects) == 2
    assert found.verdict in ("agree", "unresolved")
    assert "owner/repository#1" in str(found)


@pytest.mark.parametrize(
    "other",
    [
        replace(KNOWN, versions="<0.1"),
        replace(KNOWN, engine="jax"),
        replace(KNOWN, case="another"),
        replace(KNOWN, operators=("grad",)),
    ],
)
def test_what_the_ledger_does_not_say_exactly_is_new(other: Defect) -> None:
    assert atlas(WRONG, ["reference"], ledger=[other]).new_defects


def test_a_mended_defect_is_named_operator_by_operator() -> None:
    found = atlas(WRONG, ["reference"], ledger=[replace(KNOWN, operators=("grad", "jvp", "third"))])
    assert [defect.operators for defect in found.mended] == [("third",)]
    assert "mended: reference is right about planted, third; please take it out of" in str(found)
    assert not found.failed


def test_a_defect_of_another_version_is_not_mended() -> None:
    right = at_point(lambda xp, x: x * x, 1.0, grad=2.0)
    assert not atlas(right, ["reference"], ledger=[replace(KNOWN, versions=">=99")]).mended
    assert atlas(right, ["reference"], ledger=[KNOWN]).mended


def test_no_comparison_is_no_pass() -> None:
    found = atlas(Suite("empty", ()), ["reference"])
    assert found.failed and found.verdict == "unresolved"


@pytest.mark.parametrize(("version", "covered"), [("2.13.0+cpu", True), ("2.14.0.dev1", True), ("2.12.1", False)])
def test_versions_are_matched_as_packages_write_them(version: str, covered: bool) -> None:
    assert replace(KNOWN, versions=">=2.13").covers(version) is covered


def test_the_frame_and_the_json_hold_every_row() -> None:
    found = atlas(small("max-ties", "complex-abs", "sqrt-0"), ["reference"])
    frame = found.to_frame()
    assert list(frame.columns)[:3] == ["case", "topic", "backend"] and len(frame) == len(found.rows)
    assert set(frame.verdict) <= set(VERDICTS)
    read = json.loads(found.to_json())
    assert len(read["rows"]) == len(found.rows) and read["failed"] is False
    values = {(r["case"], r["backend"], r["operator"]): r["value"] for r in read["rows"]}
    assert values["sqrt-0", "reference", "grad"] == "inf"
    assert complex(values["complex-abs", "reference", "grad"]) == pytest.approx(0.6 - 0.8j)


def test_unsupported_is_neither_right_nor_wrong() -> None:
    pytest.importorskip("autograd")
    found = atlas(small("relu6-borders"), ["autograd"])
    assert {row.verdict for row in found.rows if row.backend == "autograd"} == {"unsupported"}
    assert not found.failed


# The ledger.


def test_the_ledger_speaks_of_what_there_is() -> None:
    asked = {p.name: {q.operator for q in questions(p)} for p in SUITE.problems}
    assert LEDGER
    for defect in LEDGER:
        assert defect.engine in ("reference", "jax", "torch", "autograd") and defect.what
        names = asked[defect.case] | {name.partition(" ")[0] for name in asked[defect.case]}
        assert set(defect.operators) <= names, defect


def test_the_ledger_has_no_entry_twice() -> None:
    seen = [(d.case, d.engine, operator) for d in LEDGER for operator in d.operators]
    assert len(seen) == len(set(seen))


@pytest.fixture(scope="module")
def whole() -> Iterator[Atlas]:
    yield atlas()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_atlas_has_nothing_new_and_nothing_mended(whole: Atlas) -> None:
    assert len(whole.rows) > 1000
    assert not whole.new_defects
    assert not whole.mended
    assert not whole.contradictions


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_referee_finds_the_kind_of_every_point(whole: Atlas) -> None:
    kinds = [row for row in whole.rows if row.backend == "referee" and row.operator == "kind"]
    assert len(kinds) == len(SUITE.problems)
    assert sum(row.verdict == "agree" for row in kinds) >= 0.9 * len(kinds)


# The script over a file of cases.


def _case(**changes: Any) -> dict[str, Any]:
    return {
        "id": "planted",
        "category": "kink",
        "classification": "bug",
        "kind": "portable",
        "source": [],
        "operator": "grad",
        "code": "def f(xp, x): return xp.sum(x**2)",
        "points": [[1.0, 2.0]],
        "accepted": {"true": [2.0, 4.0]},
    } | changes


def test_a_right_answer_is_legal_and_not_flagged() -> None:
    (entry,) = corpus.entries([_case()], ["reference"])
    assert entry.legal and not entry.flagged and not entry.missed and not entry.false_alarm


def test_a_wrong_answer_is_flagged_by_the_judge() -> None:
    (entry,) = corpus.entries([_case()], ["zero"])
    assert entry.legal is False and entry.view.verdict == "wrong" and entry.flagged


def test_a_legal_answer_called_wrong_is_a_false_alarm() -> None:
    (entry,) = corpus.entries([_case(accepted={"a lie": [0.0, 0.0]})], ["zero"])
    assert entry.false_alarm


def test_a_snippet_runs_in_a_process_of_its_own() -> None:
    assert corpus.run_snippet("result = [1.0, float('inf')]") == ([1.0, math.inf], "")
    assert corpus.run_snippet("raise ValueError('no')") == (None, "ValueError: no")


def test_an_interval_is_a_legal_answer() -> None:
    planted = _case(accepted={"0": 0.0}, interval=[-1, 1])
    assert corpus.legal(planted, np.array(0.5)) and not corpus.legal(planted, np.array(1.5))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not CORPUS.exists(), reason="the file of cases is not here")
def test_portable_cases_are_flagged_and_nothing_legal_is_called_wrong() -> None:
    cases = [c for c in json.loads(CORPUS.read_text()) if c["kind"] == "portable"]
    found = list(corpus.entries(cases, ENGINES))
    assert not [(e.case, e.engine) for e in found if e.missed]
    assert not [(e.case, e.engine, e.note) for e in found if e.false_alarm]
