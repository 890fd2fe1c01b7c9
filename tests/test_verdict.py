"""The judge: what counts as equal, who is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adbridge.validate.verdict import Difference, difference, disagreement, judge, worst

DTYPE = "float64"
EXPECTED = {"gradient": {"w": np.array([[1.0, 2.0], [3.0, -40.0]]), "b": np.array(5.0)}}


def one(array: Any) -> dict[str, Any]:
    return {"value": array}


def compare(got: Any, expected: Any, dtype: str = DTYPE) -> Difference:
    return difference(one(got), one(expected), dtype)


def changed(entry: tuple[int, int], value: float) -> dict[str, Any]:
    w = EXPECTED["gradient"]["w"].copy()
    w[entry] = value
    return {"gradient": {"w": w, "b": EXPECTED["gradient"]["b"]}}


def test_equal_trees_have_no_difference() -> None:
    assert difference(EXPECTED, EXPECTED, DTYPE).error == 0.0


def test_difference_names_the_worst_entry() -> None:
    found = difference(changed((1, 0), 3.4), EXPECTED, DTYPE)
    assert found.error == pytest.approx(0.4 / 40)
    assert (found.entry, found.got, found.expected) == ("gradient['w'][1, 0]", 3.4, 3.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_infinitely_wrong(bad: float) -> None:
    found = difference(changed((0, 0), bad), EXPECTED, DTYPE)
    assert found.error == np.inf
    assert found.note == "not finite"
    assert found.entry == "gradient['w'][0, 0]"


def test_nan_does_not_equal_nan() -> None:
    nan = np.array([np.nan])
    assert compare(nan, nan).error == np.inf


def test_equal_infinities_agree() -> None:
    assert compare(np.array([np.inf, 1.0]), np.array([np.inf, 1.0])).error == 0.0


def test_structure_shape_and_dtype_are_compared() -> None:
    assert "tree structure" in compare([np.ones(1)], (np.ones(1),)).note
    assert "shape (2,), expected (2, 1)" in compare(np.ones(2), np.ones((2, 1))).note
    for got in (np.ones(2, np.float32), np.ones(2, bool), np.ones(2, complex)):
        found = compare(got, np.ones(2))
        assert found.error == np.inf and found.note == f"dtype {got.dtype}, expected float64"


def test_a_zero_result_never_agrees_with_a_nonzero_answer() -> None:
    assert compare(np.zeros(3), np.array([0.0, 1e-300, 0.0])).error == 1.0


def test_zero_answer_is_judged_absolutely() -> None:
    assert compare(np.full(3, 1e-3), np.zeros(3)).error == 1e-3
    assert compare(np.zeros(3), np.zeros(3)).error == 0.0


def test_error_does_not_shrink_with_size() -> None:
    """One wrong entry among a million counts as much as one among ten."""
    errors = []
    for n in (10, 10**6):
        got = np.ones(n)
        got[n // 2] = 1 + 1e-8
        errors.append(compare(got, np.ones(n)).error)
    assert errors[0] == errors[1] == pytest.approx(1e-8)


def test_each_leaf_is_judged_at_its_own_scale() -> None:
    big, small = np.array([1e6]), np.array([1e3])
    assert compare((big, small * 1.001), (big, small)).error == pytest.approx(1e-3)


@pytest.mark.parametrize(("dtype", "value", "off"), [("float64", 1e15, 1.0), ("float32", 1e6, 0.005)])
def test_a_large_value_does_not_hide_a_wrong_tangent(dtype: str, value: float, off: float) -> None:
    answer = {"value": np.array(value), "tangent": np.array(1.0)}
    got = {"value": np.array(value, dtype), "tangent": np.array(1.0 - off, dtype)}
    judgement = judge({"planted": got}, answer, dtype)["planted"]
    assert judgement.verdict == "wrong"
    assert judgement.difference.entry == "tangent"
    assert judgement.difference.error == pytest.approx(off, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_of_large_leaves_is_not_blamed_on_small_ones(dtype: str) -> None:
    """A leaf that is a cancelled sum of large terms is right to some units in their last place."""
    answer = (np.array(1e8), np.array(0.0))
    noise = 5 * np.finfo(dtype).eps * 1e8
    verdicts = judge({"rounded": one((np.array(1e8, dtype), np.array(noise, dtype)))}, one(answer), dtype)
    assert verdicts["rounded"].verdict == "agree"


def test_empty_arrays_agree() -> None:
    assert compare(np.zeros((0, 3)), np.zeros((0, 3))).error == 0.0


def test_against_a_known_answer() -> None:
    verdicts = judge({"good": EXPECTED, "bad": changed((0, 1), 2.0001)}, EXPECTED, DTYPE)
    assert {name: j.verdict for name, j in verdicts.items()} == {"good": "agree", "bad": "wrong"}


def test_without_an_answer_the_majority_decides() -> None:
    results = {"odd": one(np.array(1.1)), "a": one(np.array(1.0)), "b": one(np.array(1.0))}
    assert {name: j.verdict for name, j in judge(results, None, DTYPE).items()} == {
        "odd": "wrong",
        "a": "agree",
        "b": "agree",
    }


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 2.0, 2.0], [np.nan] * 3])
def test_without_answer_and_majority_nobody_can_say(values: list[float]) -> None:
    results = {str(i): one(np.array(value)) for i, value in enumerate(values)}
    assert {j.verdict for j in judge(results, None, DTYPE).values()} == {"unresolved"}


def test_disagreement_is_measured_against_those_that_are_right() -> None:
    results = {"a": one(np.array(1.0)), "b": one(np.array(1.0 + 1e-12)), "wrong": one(np.array(2.0))}
    assert disagreement(results, "a", ["a", "b"], DTYPE) == pytest.approx(1e-12, rel=1e-3)
    assert np.isnan(disagreement(results, "a", ["a"], DTYPE))


def test_worst_of_nothing_is_not_a_pass() -> None:
    assert worst([]) == "unresolved"
    assert worst(["agree", "unsupported"]) == "unsupported"
    assert worst(["agree", "wrong", "error"]) == "wrong"
