"""A result of an engine judged against the referee: the verdict, the worst entry, and how far it is off.

Errors are counted in units in the last place of the result's dtype, relative to the exact value plus what rounding in
f carries into it (`rounding.py`). They agree up to `verdict.TOLERANCE`, in these units; array sizes do not enter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from adbridge.trees import PyTree
from adbridge.validate.judgement.choices import TRIANGLE, branches, of_branches, symmetric, symmetric_part
from adbridge.validate.judgement.entries import (
    between_roundings,
    excused_entry,
    interval_of_entry,
    judge_entry,
    judge_second,
    later,
    part_of_entry,
    scale_of_output,
)
from adbridge.validate.judgement.findings import Finding, against, against_value, worst_after, worst_of
from adbridge.validate.judgement.structure import argument_structure, output_structure
from adbridge.validate.judgement.wholes import as_subgradient, beside_axes, by_probes, common_scale, second_by_probes
from adbridge.validate.oracle.arguments import Direction
from adbridge.validate.oracle.classify import NOT_LINEAR
from adbridge.validate.oracle.limits import Limit
from adbridge.validate.referee import FEW, Referee

__all__ = ["Finding", "judge_hvp", "judge_jvp", "judge_value", "judge_vjp"]


def judge_value(referee: Referee, got: PyTree) -> Finding:
    """The function's value, a tree like its output. Where that is no number, "undefined"; infinities must be equal."""
    wrong, arrays = output_structure(referee, got, "out")
    if wrong:
        return wrong
    exact = referee.oracle.value()
    carried = later(referee, None)

    def judged(j: int, c: tuple[int, int, complex]) -> Finding:
        entry, scale, value = referee.outputs.entry(*c[:2]), scale_of_output(referee, c[0]), part_of_entry(arrays, c)
        expected = float(exact[j])
        if math.isnan(expected):
            return Finding("undefined", entry=entry, got=value, note="the function itself is not a number here")
        if math.isinf(expected) and not is_finite(exact[j]):
            return Finding("agree" if value == expected else "wrong", entry=entry, got=value, expected=expected)
        return against_value(Limit("finite", exact[j], 0.0), value, scale, carried(j), entry)

    coordinates = referee.outputs.coordinates
    return worst_after(
        [judged(j, c) for j, c in enumerate(coordinates)],
        lambda j, f: between_roundings(referee, None, {j: 1.0}, f, scale_of_output(referee, coordinates[j][0]).eps),
    )


def judge_jvp(referee: Referee, tangents: PyTree, got: PyTree) -> Finding:
    """A tangent of the output, along `tangents` (a tuple like the arguments)."""
    wrong, arrays = output_structure(referee, got, "tangent")
    if wrong:
        return wrong
    direction = referee.arguments.seeds("tangents", tangents)
    found = _judged_jvp(referee, direction, arrays)
    other = symmetric(referee) if found.verdict == "wrong" else None
    if other is not None and _judged_jvp(other, direction, arrays).verdict == "agree":
        return replace(found, verdict="convention", note=TRIANGLE)
    return found


def _judged_jvp(referee: Referee, direction: Direction, arrays: list[Any]) -> Finding:
    sides, carried = referee.sides(direction), later(referee, direction)

    coordinates = referee.outputs.coordinates

    def judged(j: int, c: tuple[int, int, complex]) -> Finding:
        entry, scale, value = referee.outputs.entry(*c[:2]), scale_of_output(referee, c[0]), part_of_entry(arrays, c)
        return against(*sides[j], value, scale, carried(j), interval_of_entry(referee, direction, {j: 1.0}), entry)

    def excused(j: int, found: Finding) -> Finding:
        which = coordinates[j][0]
        scale = scale_of_output(referee, which)
        found = between_roundings(referee, direction, {j: 1.0}, found, scale.eps)
        value = part_of_entry(arrays, coordinates[j])
        if found.verdict != "wrong" or not math.isfinite(value):
            return found
        return of_branches(found, branches(referee, [direction], {j: 1.0}), np.array([value]), scale.tolerance)

    return worst_after([judged(j, c) for j, c in enumerate(coordinates)], excused)


def judge_vjp(referee: Referee, cotangents: PyTree, got: Sequence[Any]) -> Finding:
    """Cotangents of the arguments, one for each (None for those not asked for), pulled back from `cotangents`."""
    wrong, arrays = argument_structure(referee, got)
    if wrong:
        return wrong
    found = _judged_vjp(referee, cotangents, arrays)
    other = symmetric(referee) if found.verdict == "wrong" else None
    if other is not None and _judged_vjp(other, cotangents, [symmetric_part(a) for a in arrays]).verdict == "agree":
        return replace(found, verdict="convention", note=TRIANGLE)
    return found


def _judged_vjp(referee: Referee, cotangents: PyTree, arrays: list[Any]) -> Finding:
    weights = referee.weights(cotangents)
    asked = [i for i, (which, _, _) in enumerate(referee.arguments.coordinates) if arrays[which] is not None]
    if len(asked) > FEW and not referee.looks_at_each:
        return by_probes(referee, weights, arrays)
    found = [judge_entry(referee, weights, arrays, i) for i in asked]
    worst = worst_after(found, lambda k, finding: excused_entry(referee, weights, arrays, asked[k], finding))
    if worst.verdict == "convention":
        return as_subgradient(referee, weights, arrays, dict(zip(asked, found, strict=True)), worst)
    if worst.verdict != "wrong":
        return worst
    if referee.classify().note.endswith(NOT_LINEAR):
        return worst_of(
            beside_axes(referee, weights, arrays, i, finding) for i, finding in zip(asked, found, strict=True)
        )
    values = np.array([part_of_entry(arrays, referee.arguments.coordinates[i], conjugate=True) for i in asked])
    if not np.all(np.isfinite(values)):
        return worst
    slopes = branches(referee, [referee.arguments.one_hot(i) for i in asked], weights)
    return of_branches(worst, slopes, values, common_scale(referee, arrays).tolerance)


def judge_hvp(referee: Referee, tangents: PyTree, got: Sequence[Any]) -> Finding:
    """A Hessian-vector product of a real scalar function, a tuple like the arguments."""
    wrong, arrays = argument_structure(referee, got)
    if wrong:
        return wrong
    direction = referee.arguments.seeds("tangents", tangents)
    found = _judged_hvp(referee, direction, arrays)
    other = symmetric(referee) if found.verdict == "wrong" else None
    if other is None:
        return found
    if _judged_hvp(other, direction, [symmetric_part(a) for a in arrays]).verdict == "agree":
        return replace(found, verdict="convention", note=TRIANGLE)
    if all(d is None or np.array_equal(d, symmetric_part(d)) for d in direction):
        return found
    return replace(found, verdict="unresolved", note=f"{TRIANGLE}; take symmetric tangents to judge it")


def _judged_hvp(referee: Referee, direction: Direction, arrays: list[Any]) -> Finding:
    coordinates = referee.arguments.coordinates
    asked = [i for i, (which, _, _) in enumerate(coordinates) if arrays[which] is not None]
    if len(asked) > FEW and not referee.looks_at_each:
        return second_by_probes(referee, direction, arrays)
    worst = worst_of(judge_second(referee, direction, arrays, i) for i in asked)
    values = np.array([part_of_entry(arrays, coordinates[i], conjugate=True) for i in asked])
    if worst.verdict != "wrong" or not np.all(np.isfinite(values)):
        return worst
    bends = branches(referee, [referee.arguments.one_hot(i) for i in asked], {0: 1.0}, direction)
    return of_branches(worst, bends, values, common_scale(referee, arrays).tolerance)


def is_finite(value: Any) -> bool:
    return math.isfinite(value) if isinstance(value, float) else bool(value.is_finite())
