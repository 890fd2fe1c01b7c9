"""Every rule of the reference engine, against the primal in Arb: no derivative rule judges another.

The engine's float64 and float32 tangents are held against exact ones in units in the last place; its derivative
programs, run in Arb themselves, to fifty digits and more: that is the rule itself, free of rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import exact
from adbridge.backends.reference import transforms
from adbridge.backends.reference.coverage import has_zero_derivative
from adbridge.backends.reference.primitives import PRIMITIVES
from rule_rows import ROWS, Row, points


@dataclass(frozen=True)
class Case:
    """A row with the arguments that move, and where to."""

    row: Row
    moving: tuple[int, ...]

    def __str__(self) -> str:
        return str(self.row) + ("-by-" + "ab"[self.moving[0]] if len(self.moving) < len(self.row.args) else "")

    @property
    def directions(self) -> tuple[Any, ...]:
        return tuple(
            self._direction(i, x) if i in self.moving else np.zeros_like(x) for i, x in enumerate(self.row.args)
        )

    def _direction(self, i: int, x: np.ndarray) -> np.ndarray:
        if self.row.elementwise:
            return np.ones_like(x)
        rng = np.random.default_rng(i + 7)
        v = rng.uniform(-1, 1, x.shape) + (1j * rng.uniform(-1, 1, x.shape) if x.dtype.kind == "c" else 0)
        return np.asarray(v + v.conj().T if self.row.hermitian else v)

    def fun(self, *moved: Any) -> Any:
        """The row's function of the arguments that move."""
        args = list(self.row.args)
        for i, x in zip(self.moving, moved, strict=True):
            args[i] = x
        return self.row.fun(*args)

    def tangent(self, *args: Any) -> Any:
        """By the engine; the arguments that stand still have no tangent."""
        tangents = [v.astype(x.dtype) if i in self.moving else None for i, (x, v) in enumerate(self.pairs(args))]
        with np.errstate(all="ignore"):
            (out,), (t,), _ = transforms.jvp(lambda *ys: ((self.row.fun(*ys),), ()), args, tangents)
        return np.zeros(out.shape, out.dtype) if t is None else np.asarray(t)

    def pairs(self, args: Any) -> Iterator[tuple[Any, Any]]:
        return zip(args, self.directions, strict=True)


def cases(row: Row) -> list[Case]:
    """Of elementwise primitives each argument by itself, of the others all together."""
    every = tuple(range(len(row.args)))
    return [Case(row, (i,)) for i in every] if row.elementwise else [Case(row, every)]


CASES = [case for row in ROWS for case in cases(row)]
INACCURATE = [row for row in ROWS if row.inaccurate]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_differentiable_primitive_has_a_row() -> None:
    named = {row.name for row in ROWS}
    # Cofactors of higher order are made when they are asked for; the row of `cofactor` reaches the first.
    wanted = {name for name, p in PRIMITIVES.items() if not has_zero_derivative(p) and "cofactor_" not in name}
    assert wanted <= named, f"add rows to rule_rows.py for: {sorted(wanted - named)}"


@every_case
def test_tangents_in_double_precision(case: Case) -> None:
    difference = exact.first_difference(case.row.fun, case.row.args, case.directions)
    tangent = case.tangent(*case.row.args)
    if not case.row.elementwise:
        assert exact.relative(tangent, difference) <= case.row.relative
        return
    assert not _too_far(case.row, np.where(case.row.is_inaccurate(), 0, exact.ulps(tangent, difference)))


def _too_far(row: Row, errors: Any, limit: float | None = None) -> dict[Any, float]:
    """The points where more ulps are wrong than the row allows."""
    limit = row.ulps if limit is None else limit
    return {p: round(e, 1) for p, e in zip(row.points(), errors.tolist(), strict=True) if not e <= limit}


@pytest.mark.xfail(reason="the rule cancels there, or what it takes from y has y's rounding amplified", strict=True)
@pytest.mark.parametrize("row", INACCURATE, ids=str)
def test_points_that_lose_digits(row: Row) -> None:
    """Each of them: a rule that got better is noticed."""
    errors = [
        exact.ulps(case.tangent(*row.args), exact.first_difference(row.fun, row.args, case.directions))
        for case in cases(row)
    ]
    far = _too_far(row, np.max(errors, axis=0))
    assert any(p not in far for p in row.inaccurate)


@every_case
def test_tangents_in_single_precision(case: Case) -> None:
    """At the points that single precision has; those whose values or tangents come near its ends are left out."""
    row = case.row
    with np.errstate(all="ignore"):
        single = tuple(x.astype(np.complex64 if x.dtype.kind == "c" else np.float32) for x in row.args)
    tangent = case.tangent(*single)
    assert row.name == "astype" or np.finfo(tangent.dtype).dtype == np.float32
    difference = exact.first_difference(row.fun, [x.astype(np.result_type(x, float)) for x in single], case.directions)
    if not row.elementwise:
        assert exact.relative(tangent, difference) <= row.relative * 2.0**29
        return
    usual = _in_range(row.args, single) & _between(difference)
    assert not _too_far(row, np.where(usual & ~row.is_inaccurate(), exact.ulps(tangent, difference), 0), row.ulps * 2)


def _in_range(args: Any, single: Any) -> Any:
    fits = [
        np.isclose(x, y, rtol=1e-6, atol=0) & (np.abs(x) < 1e15) & ((y != 1) | (x == 1)) & ((y != -1) | (x == -1))
        for x, y in zip(args, single, strict=True)
    ]
    return np.logical_and.reduce(fits)


def _between(difference: Any) -> Any:
    sizes = np.array([float(abs(x)) for x in difference.flat])
    return (sizes == 0) | ((sizes > 1e-30) & (sizes < 1e30))


@every_case
def test_derivative_programs_in_arb(case: Case) -> None:
    """The recorded rule, with no rounding in it, has the digits of the difference."""
    program = exact.record(exact.tangent_of(case.row.fun), (*case.row.args, *case.directions))
    tangent = exact.run(program, (*case.row.args, *case.directions))
    difference = exact.first_difference(case.row.fun, case.row.args, case.directions)
    keep = ~np.isin(np.arange(difference.size), np.flatnonzero(case.row.is_inexact()))
    assert exact.digits(tangent.ravel()[keep], difference.ravel()[keep]) >= case.row.digits


@every_case
def test_second_derivative_programs_in_arb(case: Case) -> None:
    first = exact.tangent_of(case.row.fun)
    half = len(case.row.args)

    def second(*both: Any) -> Any:
        xs, vs = both[:half], both[half:]
        still = tuple(np.zeros(v.shape, v.dtype) for v in case.directions)
        return exact.tangent_of(first)(*xs, *vs, *vs, *still)

    program = exact.record(second, (*case.row.args, *case.directions))
    got = exact.run(program, (*case.row.args, *case.directions))
    difference = exact.second_difference(case.row.fun, case.row.args, case.directions)
    keep = ~np.isin(np.arange(difference.size), np.flatnonzero(case.row.is_inexact()))
    assert exact.digits(got.ravel()[keep], difference.ravel()[keep]) >= min(30, case.row.digits)


@every_case
def test_transposes_in_arb(case: Case) -> None:
    """<w, J v> = <J^T w, v>, to as many digits."""
    fun, v = case.fun, [case.directions[i] for i in case.moving]
    x = [case.row.args[i] for i in case.moving]
    with np.errstate(all="ignore"):
        out = np.asarray(fun(*x))
    w = np.random.default_rng(3).uniform(0.5, 1, out.shape) * (1 + 0.3j if out.dtype.kind == "c" else 1)
    n = len(x)

    def sides(*args: Any) -> tuple[Any, Any]:
        x, v, w = args[:n], args[n : 2 * n], args[-1]
        outs, linear, _ = transforms.linearize(lambda *ys: ((fun(*ys),), ()), x)
        pushed = _pairing(w, transforms.push(linear, v, outs)[0])
        pulled = [_pairing(ct, t) for ct, t in zip(transforms.pull(linear, (w,)), v, strict=True)]
        return pushed, sum(pulled[1:], pulled[0])

    with np.errstate(all="ignore"):
        program = transforms.record(sides, *x, *v, w)
    pushed, pulled = program.evaluate(*x, *v, w, number="arb", bits=exact.BITS[1])
    assert exact.digits(pulled, pushed) >= 50


def _pairing(a: Any, b: Any) -> Any:
    """Re sum a b, in which our cotangents live."""
    total = PRIMITIVES["real"](a * b)
    return PRIMITIVES["sum"](total, axis=tuple(range(len(total.shape))), keepdims=False)


@pytest.mark.parametrize("name", ["sin", "divide", "exp"])
@pytest.mark.parametrize("factor", [1 + 1e-3, 1 + 1e-12])
def test_a_wrong_rule_fails(name: str, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = PRIMITIVES[name].jvp
    monkeypatch.setattr(PRIMITIVES[name], "jvp", lambda *args: rule(*args) * factor)
    case = Case(points(name, *([(0.3, 0.7)] if name == "divide" else [0.3])), (0,))
    for test in (test_tangents_in_double_precision, test_derivative_programs_in_arb):
        with pytest.raises(AssertionError):
            test(case)
