"""The derivatives at other points than the example, and in single precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from adbridge.validate.rule_checks.bench import Bench
from adbridge.validate.rule_checks.candidate import as_tangent, sizes
from adbridge.validate.rule_checks.points import Point
from adbridge.validate.rule_checks.rule_report import Row
from adbridge.validate.rule_checks.settling import Outcome, Scale, precision_of, random_signs

SUSPECTS = 4
"""Values that are looked at one by one when a whole row of them shows something."""
ONE_BY_ONE = 4
"""Arguments up to which each cotangent is compared; else their sums with random signs."""
FEWER = 8
"""Points at which single precision is checked."""


def special_points(bench: Bench) -> Iterator[Row]:
    """At every point that the library has, in the precision of the example."""
    dtype = precision_of(bench.example.leaves)
    yield from _at_all(bench, bench.library.points(dtype), "special points")
    if dtype == "float32":
        yield from _at_all(
            bench, [bench.library.example("float64"), *bench.library.points("float64")], "special points"
        )


def single_precision(bench: Bench) -> Iterator[Row]:
    """At the example and the first points, in float32."""
    if precision_of(bench.example.leaves) == "float32":
        return
    example = bench.library.example("float32")
    usable = [example] if bench.library.is_usable(example) or bench.library.elementwise else []
    yield from _at_all(bench, [*usable, *bench.library.points("float32")[:FEWER]], "single precision")


def _at_all(bench: Bench, points: list[Point], check: str) -> Iterator[Row]:
    for point in points:
        for row in _at(bench, point, check):
            yield row
            if row.failed:
                return


def _at(bench: Bench, point: Point, check: str) -> Iterator[Row]:
    shapes = [leaf.shape for leaf in point.leaves]
    is_row = shapes != [leaf.shape for leaf in bench.example.leaves]
    for row in _derivatives(bench, point, check):
        if not (row.failed and is_row):
            yield row
            continue
        yield from _one_by_one(bench, point, check)
        return


def _derivatives(bench: Bench, point: Point, check: str) -> Iterator[Row]:
    bench.values.clear()
    rng, n = bench.rng(83), sum(sizes(point.leaves))
    if "forward" in bench.modes:
        yield bench.forward(check, point, random_signs(rng, n))
    if "reverse" in bench.modes:
        yield from bench.reverse(check, point, 2, few=ONE_BY_ONE)
    yield from _value(bench, point, check)


def _value(bench: Bench, point: Point, check: str) -> Iterator[Row]:
    """The value that came with the derivatives is the plain function's."""
    try:
        expected = as_tangent(bench.plain.value(point.leaves))
    except Exception:  # a point that this engine cannot do
        return
    size = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
    for outs in bench.values:
        got = as_tangent(outs)
        same = Scale(precision_of(point.leaves), 0.0 if bench.library.elementwise else size).close(got, expected)
        same |= np.isnan(got) & np.isnan(expected) | (np.abs(got - expected) < np.finfo(np.float32).tiny)
        if not np.all(same):
            j = int(np.argmin(same))
            note = "the value that comes with the derivative is not the plain function's"
            yield bench.row(
                check,
                "",
                point,
                Outcome("wrong", 1, bench.output_name(j, outs), float(got[j]), float(expected[j]), note),
            )
            return


def _one_by_one(bench: Bench, point: Point, check: str) -> Iterator[Row]:
    """Values of a row that looks wrong, put into the example's shape: there alone the rule must be right."""
    shape = bench.example.leaves[0].shape
    size = max(1, bench.example.leaves[0].size)
    found: list[Row] = []
    for chosen in _suspects(bench, point, size):
        leaves = tuple(np.resize(leaf[chosen], shape).astype(leaf.dtype) for leaf in point.leaves)
        names = zip(bench.candidate.ruled.names, leaves, strict=True)
        shown = ", ".join(f"{name} = {np.array2string(x, precision=6, threshold=6)}" for name, x in names)
        alone = Point(shown.replace("\n", ""), leaves, point.extreme)
        found = list(_derivatives(bench, alone, check))
        if any(row.failed for row in found):
            yield from found
            return
    note = f"off at {point.label} put in a row, and right in the shape of the example"
    yield replace(bench.row(check, "", point, Outcome("unresolved", 0, note=note)), beside=True)


def _suspects(bench: Bench, point: Point, size: int) -> list[Any]:
    """Places in a row, the most suspect first: by halving the row as long as a half shows the failure."""
    places = np.arange(len(point.leaves[0]))
    while len(places) > size:
        halves = np.array_split(places, 2)
        shown = next((half for half in halves if _fails(bench, point, half)), None)
        if shown is None:
            break
        places = shown
    return [places[i : i + size] for i in range(0, len(places), size)][:SUSPECTS]


def _fails(bench: Bench, point: Point, places: Any) -> bool:
    part = replace(point, leaves=tuple(leaf[places] for leaf in point.leaves))
    return any(row.failed for row in _derivatives(bench, part, ""))
