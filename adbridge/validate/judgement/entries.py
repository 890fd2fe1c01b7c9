"""One entry of a derivative against the referee."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from adbridge.errors import SignatureMismatch
from adbridge.validate.judgement.findings import CARRIED_ULP, ZERO, Finding, Scale, against, scale_of_dtype
from adbridge.validate.judgement.structure import expected_dtype
from adbridge.validate.oracle.arguments import Direction
from adbridge.validate.oracle.subgradients import around, bounds_it, interval
from adbridge.validate.referee import Referee, same

Weights = dict[int, float]


def judge_entry(referee: Referee, weights: Weights, arrays: list[Any], i: int) -> Finding:
    """One entry of a gradient, whatever may excuse it."""
    coordinate = referee.arguments.coordinates[i]
    direction = referee.arguments.one_hot(i)
    left, right = referee.column(i, weights)[0] if weights else (ZERO, ZERO)

    def amplification() -> float:
        return amplified(referee, direction, weights)[0] if weights else 0.0

    value, scale = part_of_entry(arrays, coordinate, conjugate=True), scale_within(referee, arrays[coordinate[0]].dtype)
    entry = referee.arguments.entry(*coordinate[:2])
    found = against(left, right, value, scale, amplification, interval_of_entry(referee, direction, weights), entry)
    return _beside_largest(referee, arrays[coordinate[0]], found)


def excused_entry(referee: Referee, weights: Weights, arrays: list[Any], i: int, finding: Finding) -> Finding:
    """The finding of `judge_entry`, unless rounding in f explains it."""
    eps = scale_within(referee, arrays[referee.arguments.coordinates[i][0]].dtype).eps
    return between_roundings(referee, referee.arguments.one_hot(i), weights, finding, eps)


def judge_second(referee: Referee, direction: Direction, arrays: list[Any], i: int) -> Finding:
    coordinate = referee.arguments.coordinates[i]
    found = referee.second(i, direction)
    value = part_of_entry(arrays, coordinate, conjugate=True)
    entry = referee.arguments.entry(*coordinate[:2])
    if found.kind == "kink":
        return Finding("convention", entry=entry, got=value, expected="any", note="kink: no second derivative here")
    if found.kind == "undefined" and math.isnan(value):
        return Finding("undefined", entry=entry, got=value, note="no second derivative here")

    def amplification() -> float:
        if referee.method != "arb":
            return amplified(referee, None, {0: 1.0})[0]
        first = referee.arguments.one_hot(i)
        from adbridge.validate.oracle.carried import second_amplification

        return second_amplification(referee.oracle, first, direction, {0: 1.0})

    array = arrays[coordinate[0]]
    scale = scale_within(referee, array.dtype)
    return _beside_largest(referee, array, against(found, found, value, scale, amplification, _nowhere, entry))


def _nowhere() -> tuple[float, float]:
    return math.nan, math.nan


def _beside_largest(referee: Referee, array: Any, finding: Finding) -> Finding:
    """An entry that is off by less than the rounding of the array's largest agrees, where the referee is told so."""
    got, expected = finding.got, finding.expected
    if not (finding.verdict == "wrong" and referee.floor and isinstance(got, float) and isinstance(expected, float)):
        return finding
    largest = float(np.max(np.abs(array), initial=0.0))
    allowed = referee.floor * float(np.finfo(array.dtype).eps) * largest
    if not abs(got - expected) <= allowed < math.inf:
        return finding
    note = "off by less than the rounding of the largest entry"
    return replace(finding, verdict="agree", error_ulp=abs(got - expected) / (allowed / referee.floor), note=note)


def part_of_entry(arrays: list[Any], coordinate: tuple[int, int, complex], conjugate: bool = False) -> float:
    """The real coordinate of an array's entry; of a gradient d/dx - i d/dy, the derivative by that coordinate."""
    which, place, unit = coordinate
    entry = complex(arrays[which].reshape(-1)[place])
    return entry.real if unit == 1 else -entry.imag if conjugate else entry.imag


def interval_of_entry(referee: Referee, direction: Direction, weights: Weights) -> Callable[[], tuple[float, float]]:
    def of_kink() -> tuple[float, float]:
        left, right = referee.sides(direction, weights)[0]
        if left.is_finite and right.is_finite and not same(left, right):
            return interval(referee, direction, weights)
        beside = around(referee, direction, weights) if referee.method == "arb" else []
        ends = [*beside, *(float(s.value) for s in (left, right) if s.is_finite)]
        return (min(ends), max(ends)) if ends else (math.nan, math.nan)

    return of_kink


def amplified(referee: Referee, direction: Direction | None, weights: Weights | None) -> list[float]:
    """What a rounding error in every operation is multiplied by, on its way into the derivative along `direction`.

    Where the referee works in floats nobody can tell: the function's own size then stands for it.
    """
    if referee.method == "arb":
        from adbridge.validate.oracle.carried import amplification

        return amplification(referee.oracle, direction, weights)
    values = [abs(float(v)) for v in referee.oracle.value() if math.isfinite(v)]
    return [max(values, default=0.0)] * (1 if weights is not None else referee.outputs.size)


def between_roundings(
    referee: Referee, direction: Direction | None, weights: Weights, finding: Finding, eps: float
) -> Finding:
    """A wrong number that rounding alone explains is unresolved: f takes another branch, or jumps, so near by."""
    got = finding.got
    if finding.verdict == "wrong" and finding.note == "kink" and direction is not None and referee.method == "arb":
        return _beyond_samples(referee, direction, weights, finding)
    if finding.verdict != "wrong" or referee.method != "arb" or not isinstance(got, float) or not math.isfinite(got):
        return finding
    if not isinstance(finding.expected, float):
        return finding
    bits = round(-math.log2(eps)) - 1
    from adbridge.validate.oracle.carried import rounded

    found = rounded(referee.oracle, direction, bits, weights)
    low, high = min(found), max(found)
    slack = CARRIED_ULP * eps * max(abs(low), abs(high))
    if not (math.isfinite(low) and math.isfinite(high) and low - slack <= got <= high + slack):
        return finding
    return replace(finding, verdict="unresolved", note="a rounding error in f is enough to take it there")


def _beyond_samples(referee: Referee, direction: Direction, weights: Weights, finding: Finding) -> Finding:
    """A number outside of an interval that is known by samples alone, at a kink of many pieces, is unresolved."""
    low, high = interval(referee, direction, weights)
    width, got = high - low, finding.got
    if bounds_it(referee, direction, weights) or not isinstance(got, float) or not low - width <= got <= high + width:
        return finding
    return replace(finding, verdict="unresolved", note="kink of many pieces: more than was seen of it may be legal")


def later(referee: Referee, direction: Direction | None) -> Callable[[int], Callable[[], float]]:
    """For each output coordinate what rounding carries into it, computed when it is first asked for."""
    known: list[float] = []

    def ask(j: int) -> float:
        if not known:
            known.extend(amplified(referee, direction, None))
        return known[j]

    return lambda j: lambda: ask(j)


def scale_of_output(referee: Referee, which: int) -> Scale:
    dtype = expected_dtype(referee, referee.outputs.likes[which])
    if dtype.kind not in "fc":
        raise SignatureMismatch(f"output {which} is of dtype {dtype}: derivatives need a floating dtype")
    return scale_within(referee, dtype)


def scale_within(referee: Referee, dtype: Any) -> Scale:
    """Of results in this dtype, of a program that rounds to a narrower one on the way: they have no more digits."""
    scale, narrow = scale_of_dtype(dtype), referee.oracle.narrowest
    if narrow is None or float(np.finfo(narrow).eps) <= scale.eps:
        return scale
    within = scale_of_dtype(narrow)
    return replace(scale, eps=within.eps, tolerance=within.tolerance)
