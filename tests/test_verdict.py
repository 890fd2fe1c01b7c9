"""The judge: what counts as equal, who is right."""

from __future__ import annotations

import numpy as np
import pytest

from adbridge.validate.verdict import TOLERANCE, difference, disagreement, judge, worst

TOL = TOLERANCE["float64"]
EXPECTED = {"w": np.array([[1.0, 2.0], [3.0, -40.0]]), "b": np.array(5.0)}


def changed(entry: tuple[int, int], value: float) -> dict[str, np.ndarray]:
    w = EXPECTED["w"].copy()
    w[entry] = value
    return {"w": w, "b": EXPECTED["b"]}


def test_equal_trees_have_no_difference() -> None:
    assert difference(EXPECTED, EXPECTED).error == 0.0


def test_difference_names_the_worst_entry() -> None:
    found = difference(changed((1, 0), 3.4), EXPECTED)
    assert found.error == pytest.approx(0.4 / 40)
    assert (found.entry, found.got, found.expected) == ("['w'][1, 0]", 3.4, 3.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_infinitely_wrong(bad: float) -> None:
    found = difference(changed((0, 0), bad), EXPECTED)
    assert found.error == np.inf
    assert found.note == "not finite"
    assert found.entry == "['w'][0, 0]"


def test_nan_does_not_equal_nan() -> None:
    nan = np.array([np.nan])
    assert difference(nan, nan).error == np.inf


def test_equal_infinities_agree() -> None:
    assert difference(np.array([np.inf, 1.0]), np.array([np.inf, 1.0])).error == 0.0


def test_structure_and_shape_are_compared() -> None:
    assert "tree structure" in difference([1.0], (1.0,)).note
    assert "shape (2,), expected (2, 1)" in difference(np.ones(2), np.ones((2, 1))).note


def test_a_zero_result_never_agrees_with_a_nonzero_answer() -> None:
    assert difference(np.zeros(3), np.array([0.0, 1e-300, 0.0])).error == 1.0


def test_zero_answer_is_judged_absolutely() -> None:
    assert difference(np.full(3, 1e-3), np.zeros(3)).error == 1e-3
    assert difference(np.zeros(3), np.zeros(3)).error == 0.0


def test_error_does_not_shrink_with_size() -> None:
    """One wrong entry among a million counts as much as one among ten."""
    errors = []
    for n in (10, 10**6):
        got = np.ones(n)
        got[n // 2] = 1 + 1e-8
        errors.append(difference(got, np.ones(n)).error)
    assert errors[0] == errors[1] == pytest.approx(1e-8)


def test_each_leaf_is_judged_at_its_own_scale() -> None:
    big, small = np.array([1e6]), np.array([1e3])
    assert difference((big, small * 1.001), (big, small)).error == pytest.approx(1e-3)


def test_empty_arrays_agree() -> None:
    assert difference(np.zeros((0, 3)), np.zeros((0, 3))).error == 0.0


def test_against_a_known_answer() -> None:
    verdicts = judge({"good": EXPECTED, "bad": changed((0, 1), 2.0001)}, EXPECTED, TOL)
    assert {name: j.verdict for name, j in verdicts.items()} == {"good": "agree", "bad": "wrong"}


def test_without_an_answer_the_majority_decides() -> None:
    results = {"odd": np.array(1.1), "a": np.array(1.0), "b": np.array(1.0)}
    assert {name: j.verdict for name, j in judge(results, None, TOL).items()} == {
        "odd": "wrong",
        "a": "agree",
        "b": "agree",
    }


@pytest.mark.parametrize(
    "results",
    [{"alone": np.array(1.0)}, {"a": np.array(1.0), "b": np.array(2.0)}, {c: np.array(float(c)) for c in "1234"}],
)
def test_without_answer_and_majority_nobody_can_say(results: dict[str, np.ndarray]) -> None:
    assert {j.verdict for j in judge(results, None, TOL).values()} == {"unresolved"}


def test_two_pairs_are_no_majority() -> None:
    results = {name: np.array(float(value)) for name, value in zip("abcd", (1, 1, 2, 2), strict=True)}
    assert {j.verdict for j in judge(results, None, TOL).values()} == {"unresolved"}


def test_all_nan_is_unresolved() -> None:
    results = {name: np.array(np.nan) for name in "abc"}
    assert {j.verdict for j in judge(results, None, TOL).values()} == {"unresolved"}


def test_disagreement_is_measured_against_those_that_are_right() -> None:
    results = {"a": np.array(1.0), "b": np.array(1.0 + 1e-12), "wrong": np.array(2.0)}
    assert disagreement(results, "a", ["a", "b"]) == pytest.approx(1e-12, rel=1e-3)
    assert np.isnan(disagreement(results, "a", ["a"]))


def test_worst_of_nothing_is_not_a_pass() -> None:
    assert worst([]) == "unresolved"
    assert worst(["agree", "unsupported"]) == "unsupported"
    assert worst(["agree", "wrong", "error"]) == "wrong"
