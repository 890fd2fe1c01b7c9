"""Second order: the rule differentiated, in all four nestings of the modes, against the plain function's own values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from adbridge.second_order import MODES
from adbridge.validate.rule_checks.bench import SHORT, Bench
from adbridge.validate.rule_checks.candidate import Leaves, Vector, cotangents_of, sizes
from adbridge.validate.rule_checks.exact import FEW
from adbridge.validate.rule_checks.points import Point
from adbridge.validate.rule_checks.rule_report import Row
from adbridge.validate.rule_checks.running import Runner, bent, weighted
from adbridge.validate.rule_checks.settling import Outcome, Scale, bisected, precision_of, random_signs
from adbridge.validate.verdict import TOLERANCE

ROUNDING = 1e4
"""Rounding errors, of the largest entry, that a second derivative of an engine may have."""
MOST_SWEEPS = 64
"""Inputs up to which forward-over-forward, a sweep for each, is run."""


def second_order(bench: Bench) -> Iterator[Row]:
    """Hessian times a vector, of a random combination of the outputs, at the example."""
    yield from _all_modes(bench, bench.example)


def second_order_elsewhere(bench: Bench) -> Iterator[Row]:
    """The same at a few other points."""
    for point in _places(bench):
        for row in _all_modes(bench, point):
            yield row
            if row.failed:
                return


def _all_modes(bench: Bench, point: Point) -> Iterator[Row]:
    for mode in MODES:
        if not _has(bench, mode, point):
            continue
        row = _nested(bench, point, mode)
        if row.comparisons or row.verdict == "unsupported" or row.failed:
            yield row
        if row.failed:
            return
    yield from _symmetry(bench, point)


def _has(bench: Bench, mode: str, point: Point) -> bool:
    if mode == "forward-over-forward" and sum(sizes(point.leaves)) > MOST_SWEEPS:
        return False
    return all(part in bench.modes for part in mode.split("-over-"))


def _places(bench: Bench) -> list[Point]:
    """Up to three points that are not extreme; of rows of values, some of the first."""
    dtype = precision_of(bench.example.leaves)
    others = [p for p in bench.library.points(dtype) if not p.extreme]
    if not bench.library.elementwise:
        return others[:3]
    moderate = [p for p in others if p.label == "moderate values"][:1]
    rng = np.random.default_rng(67)
    places = [rng.permutation(len(p.leaves[0]))[:SHORT] for p in moderate]
    return [replace(p, leaves=tuple(x[i] for x in p.leaves)) for p, i in zip(moderate, places, strict=True)]


def _nested(bench: Bench, point: Point, mode: str) -> Row:
    weights, along = _seeds(bench, point)
    outs = bench.plain.value(point.leaves)
    result = bench.attempt(
        "second order", mode, point, lambda runner: _product(runner, weights, point.leaves, along, mode, outs)
    )
    if isinstance(result, Row):
        # Rules need not be differentiable themselves; a rule that gives wrong numbers is another matter.
        return replace(result, verdict="unsupported", comparisons=0) if result.verdict == "error" else result
    outcome = _judged(bench, weights, along, result, mode, point)
    return bench.row("second order", mode, point, outcome)


def _seeds(bench: Bench, point: Point) -> tuple[Vector, Vector]:
    """Weights of the outputs, and a direction."""
    m, rng = sum(sizes(bench.plain.value(point.leaves))), bench.rng(71)
    return random_signs(rng, m), random_signs(rng, sum(sizes(point.leaves)))


def _product(runner: Runner, weights: Vector, leaves: Leaves, along: Vector, mode: str, outs: Leaves) -> Vector:
    scalar = weighted(bent(runner.fun, leaves, outs), cotangents_of(weights, outs))
    return Runner(scalar, runner.backend).hvp(leaves, along, mode)


def _judged(bench: Bench, weights: Vector, along: Vector, got: Vector, mode: str, point: Point) -> Outcome:
    """Entry by entry where they are few; else by random probes, and bisection."""
    n = len(got)
    entries = n <= FEW or bench.library.elementwise
    probes = list(np.eye(n)) if entries else [random_signs(bench.rng(73), n) for _ in range(2)]
    products = _Products(bench, point, weights, along, got)
    count = 0
    for probe in probes:
        verdict = products.same(got, probe)
        if verdict is False:
            return _located(bench, products, got, probe, mode, point)
        count += n if verdict and not entries else int(verdict is True)
    return Outcome("agree", count) if count else Outcome("unresolved", 0, note="no second derivative here")


class _Products:
    """The exact <probe, H along>, and how near to it is near enough."""

    def __init__(self, bench: Bench, point: Point, weights: Vector, along: Vector, got: Vector) -> None:
        self.exact, self.weights, self.along = bench.library.curved(point.leaves), weights, along
        self.dtype, self.elementwise = precision_of(point.leaves), bench.library.elementwise
        finite, sizes = np.abs(got[np.isfinite(got)]), [np.abs(x).max(initial=0.0) for x in point.leaves]
        # The middle of the entries and not the largest: one that is wrong must not set the scale for the others.
        typical = float(np.median(finite)) if len(finite) else 0.0
        slope = bench.library.scale(point.leaves).typical / max(1.0, *sizes)
        self.floor = float(np.finfo(self.dtype).eps) * (ROUNDING * typical + 16 * slope)

    def expected(self, probe: Vector) -> tuple[float, float]:
        if not self.elementwise:
            return self.exact.second(self.weights, probe, self.along)
        # The Hessian is diagonal: the same runs along all elements at once serve every one of them.
        place, m = int(np.flatnonzero(probe)[0]), len(self.weights)
        first = np.zeros(len(probe))
        first[place // m * m : (place // m + 1) * m] = 1.0
        return self.exact.second(np.eye(1, m, place % m)[0] * self.weights, first, self.along)

    def same(self, got: Vector, probe: Vector) -> bool | None:
        expected, error = self.expected(probe)
        if not np.isfinite(expected):
            return None
        live = probe != 0
        with np.errstate(all="ignore"):
            terms = got[live] * probe[live]
            size = float(np.sum(np.abs(terms))) if np.count_nonzero(live) > 1 else 0.0
            apart = abs(float(np.sum(terms)) - expected)
        tolerance = TOLERANCE[self.dtype] * max(abs(expected), size) + self.floor
        if error > 10 * tolerance and apart < 100 * error:
            return None
        return bool(apart <= tolerance + error)


def _located(bench: Bench, products: _Products, got: Vector, probe: Vector, mode: str, point: Point) -> Outcome:
    places = np.flatnonzero(probe)
    place: int | None = int(places[0])
    if len(places) > 1:
        place = bisected(lambda part: products.same(got, np.where(part, probe, 0.0)) is False, len(got))
    if place is None:
        return Outcome("unresolved", 0, note="off by rounding in a sum of many entries, and in none of them alone")
    unit = np.eye(1, len(got), place)[0]
    expected = products.expected(unit)[0]
    if products.same(_own(bench, products, mode, point), unit) is False:
        note = "the engine's own second derivative is off here, too"
        return Outcome("unresolved", 0, got=float(got[place]), expected=expected, note=note, coordinate=place)
    return Outcome("wrong", 1, got=float(got[place]), expected=expected, coordinate=place)


def _own(bench: Bench, products: _Products, mode: str, point: Point) -> Any:
    try:
        outs = bench.plain.value(point.leaves)
        return _product(bench.plain, products.weights, point.leaves, products.along, mode, outs)
    except Exception:  # an engine's own derivative may fail in any way; then it excuses nothing
        return np.full(sum(sizes(point.leaves)), np.nan)


def _symmetry(bench: Bench, point: Point) -> Iterator[Row]:
    """u' H v = v' H u."""
    mode = next((mode for mode in MODES if _has(bench, mode, point)), None)
    n = sum(sizes(point.leaves))
    if mode is None or n < 2:
        return
    weights, v = _seeds(bench, point)
    u = random_signs(bench.rng(79), n)
    outs = bench.plain.value(point.leaves)

    def both(runner: Runner) -> tuple[Vector, Vector]:
        return tuple(_product(runner, weights, point.leaves, seed, mode, outs) for seed in (u, v))  # type: ignore[return-value]

    result = bench.attempt("second order", mode, point, both)
    if isinstance(result, Row) or not all(np.all(np.isfinite(x)) for x in result):
        return
    hu, hv = result
    left, right = float(v @ hu), float(u @ hv)
    size = float(np.sum(np.abs(v * hu)) + np.sum(np.abs(u * hv)))
    dtype = precision_of(point.leaves)
    if Scale(dtype, size * ROUNDING / 64).close(np.array([left]), np.array([right]))[0]:
        yield bench.row("second order", mode, point, Outcome("agree", 1))
    elif bench.regular is not None and np.isfinite(bench.library.curved(point.leaves).second(weights, u, v)[0]):
        note = "the Hessian is not symmetric: u' H v is not v' H u"
        yield bench.row("second order", mode, point, Outcome("wrong", 1, "", left, right, note))
