"""The coverage table has no hole, and what it claims is run: every row of the test table, under each transformation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import exact
from adbridge.backends.reference import batching, taylor, transforms
from adbridge.backends.reference.batching import batching_kind
from adbridge.backends.reference.coverage import HOLE, coverage, has_zero_derivative, markdown
from adbridge.backends.reference.numbers import rounded
from adbridge.backends.reference.primitives import PRIMITIVES, Primitive, defzero
from rule_rows import CONSTANT, ROWS, Row
from test_rules import CASES, Case

every_row = pytest.mark.parametrize("row", ROWS, ids=str)
SIZE = 3


def test_every_primitive_is_in_the_table() -> None:
    assert [row.primitive for row in coverage()] == list(PRIMITIVES)


@pytest.mark.parametrize("row", coverage(), ids=lambda row: row.primitive)
def test_no_hole(row: Any) -> None:
    assert not row.holes()


def test_a_primitive_without_rules_is_a_hole() -> None:
    (row,) = coverage([Primitive("planted", np.sin)])
    assert row.holes() == ["jvp", "taylor", "arb"]
    assert HOLE in markdown([row])


def test_a_linear_primitive_without_its_transpose_is_a_hole() -> None:
    planted = Primitive("planted", np.negative)
    planted.linear = (True,)
    assert "transpose" in coverage([planted])[0].holes()


def test_piecewise_constant_primitives_need_no_rules() -> None:
    (row,) = coverage([defzero(Primitive("floor", np.floor))])
    assert not row.holes()
    assert row.jvp.startswith("zero") and row.transpose.startswith("not needed")


# What the table claims.


def test_every_primitive_of_zero_derivative_has_a_row() -> None:
    assert {row.name for row in CONSTANT} == {p.name for p in PRIMITIVES.values() if has_zero_derivative(p)}


@pytest.mark.parametrize("row", CONSTANT, ids=str)
def test_zero_derivatives(row: Row) -> None:
    """No tangent, the same values in Arb, and the same ones one by one as in a batch."""
    _, (tangent,), _ = transforms.jvp(lambda *xs: ((row.fun(*xs),), ()), row.args, [np.ones_like(x) for x in row.args])
    assert tangent is None
    out = row.fun(*row.args)
    in_arb = exact.run(exact.record(row.fun, row.args), row.args)
    np.testing.assert_array_equal(rounded(in_arb) if in_arb.dtype == object else in_arb, out)
    stacks = [np.stack([x] * SIZE) for x in row.args]
    _assert_looped(batching.batched(lambda *xs: (row.fun(*xs),), *stacks), lambda *xs: (row.fun(*xs),), stacks)


@pytest.mark.parametrize("name", ["floor", "ceil", "round", "trunc", "sign", "floor_divide"])
def test_piecewise_constant_ones_are_constant(name: str) -> None:
    """Their differences in Arb are zero, away from the jumps."""
    x = [np.array([0.3, -0.7, 5.2, -1e5 - 0.2])]
    args = x if name != "floor_divide" else [*x, np.full(4, 0.45)]
    difference = exact.first_difference(PRIMITIVES[name], args, [np.ones_like(a) for a in args])
    assert all(d == 0 for d in difference)


def _linearized(row: Row) -> tuple[Any, Any]:
    with np.errstate(all="ignore"):
        outs, linear, _ = transforms.linearize(lambda *ys: ((row.fun(*ys),), ()), row.args)
    return outs, linear


def _stacks(arrays: Any, hermitian: bool = False) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    stacks = [rng.uniform(-1, 1, (SIZE, *x.shape)) * (1 + 0.5j if x.dtype.kind == "c" else 1) for x in arrays]
    return [x + np.conj(np.swapaxes(x, -1, -2)) for x in stacks] if hermitian else stacks


def _assert_looped(batched: Any, one: Callable[..., Any], stacks: Any) -> None:
    rows = [one(*(x[i] for x in stacks)) for i in range(SIZE)]
    for got, expected in zip(batched, zip(*rows, strict=True), strict=True):
        scale = np.max(np.abs(expected), initial=1e-300)
        np.testing.assert_allclose(got, np.stack(expected), rtol=1e-13, atol=1e-13 * scale)


@every_row
def test_batches_of_tangents_are_looped_ones(row: Row) -> None:
    outs, linear = _linearized(row)
    stacks = _stacks(row.args)
    with np.errstate(all="ignore"):
        pushed = batching.push(linear, stacks, outs)
        _assert_looped(pushed, lambda *t: transforms.push(linear, t, outs), stacks)


@every_row
def test_batches_of_cotangents_are_looped_ones(row: Row) -> None:
    outs, linear = _linearized(row)
    stacks = _stacks(outs)
    with np.errstate(all="ignore"):
        _assert_looped(batching.pull(linear, stacks), lambda *ct: transforms.pull(linear, ct), stacks)


@every_row
def test_batches_of_points_are_looped_ones(row: Row) -> None:
    """The primitive itself, of stacked arguments, as Jacobians of derivatives need it."""
    stacks = [np.stack([x * (1 - k / 64) for k in range(SIZE)]) for x in row.args]

    def fun(*xs: Any) -> Any:
        return (row.fun(*xs),)

    with np.errstate(all="ignore"):
        assert batching_kind(PRIMITIVES[row.name]) in ("elementwise", "rule", "loop")
        _assert_looped(batching.batched(fun, *stacks), fun, stacks)


ORDER = 2


@pytest.mark.parametrize("case", CASES, ids=str)
def test_taylor_coefficients(case: Case) -> None:
    """The first two, against differences; as a program in Arb, so that rounding has no say."""
    fun, half = case.row.fun, len(case.row.args)

    def coefficients(*both: Any) -> Any:
        (_, *rest), _ = taylor.taylor(lambda *ys: ((fun(*ys),), ()), both[:half], both[half:], ORDER)
        (first,), (second,) = rest
        return first, 2 * second

    args = (*case.row.args, *case.directions)
    with np.errstate(all="ignore"):
        program = transforms.record(coefficients, *args)
    first, second = program.evaluate(*args, number="arb", bits=exact.BITS[1])
    keep = ~np.isin(np.arange(first.size), np.flatnonzero(case.row.is_inexact()))
    for got, difference in (
        (first, exact.first_difference(fun, case.row.args, case.directions)),
        (second, exact.second_difference(fun, case.row.args, case.directions)),
    ):
        assert exact.digits(exact.wrapped(got).ravel()[keep], difference.ravel()[keep]) >= 30


@every_row
def test_taylor_coefficients_in_floats(row: Row) -> None:
    """The first coefficient is the tangent, whatever the order."""
    (case, *_) = (case for case in CASES if case.row is row)
    with np.errstate(all="ignore"):
        coefficients, _ = taylor.taylor(lambda *ys: ((row.fun(*ys),), ()), row.args, case.directions, ORDER)
        _, (tangent,), _ = transforms.jvp(lambda *ys: ((row.fun(*ys),), ()), row.args, case.directions)
    tangent = np.zeros_like(coefficients[1][0]) if tangent is None else tangent
    np.testing.assert_allclose(coefficients[1][0], tangent, rtol=1e-13, atol=1e-14 * np.max(np.abs(tangent), initial=0))
