"""A gradient, or a Hessian-vector product, as a whole: of the subdifferential, or probed along random directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from adbridge.validate.judgement.entries import (
    Weights,
    excused_entry,
    interval_of_entry,
    judge_entry,
    judge_second,
    scale_within,
)
from adbridge.validate.judgement.findings import ZERO, Finding, Scale, against, within, worst_of
from adbridge.validate.oracle.arguments import Direction
from adbridge.validate.oracle.classify import NOT_LINEAR, random_direction
from adbridge.validate.oracle.limits import Limit
from adbridge.validate.oracle.second import second_along
from adbridge.validate.oracle.subgradients import interval
from adbridge.validate.referee import Referee


def as_subgradient(
    referee: Referee, weights: Weights, arrays: list[Any], found: dict[int, Finding], entrywise: Finding
) -> Finding:
    """Each entry in its interval is not enough: along no direction may the vector exceed the function.

    Entries in `found`, by coordinate, that agree with a derivative are taken for it: their rounding is no matter here.
    """
    if any(a is not None and not np.all(np.isfinite(a)) for a in arrays) or referee.method != "arb":
        return entrywise
    tolerance = max(1e-9, common_scale(referee, arrays).tolerance)
    arrays = _with_expected(referee, arrays, found)
    for direction in _directions(referee, arrays):
        low, high = interval(referee, direction, weights)
        along, size = _pairing(arrays, direction)
        if not low - tolerance * size <= along <= high + tolerance * size:
            note = (
                f"no subgradient: along {_show(direction)} it gives {along:.6g}, "
                f"the function's derivatives there are in [{low:.6g}, {high:.6g}]"
            )
            return replace(entrywise, verdict="wrong", note=note)
    return entrywise


def _with_expected(referee: Referee, arrays: list[Any], found: dict[int, Finding]) -> list[Any]:
    """Copies in double precision, with the expected value of each entry that agrees."""
    out = [None if a is None else a.astype(complex if a.dtype.kind == "c" else float) for a in arrays]
    for i, finding in found.items():
        which, place, unit = referee.arguments.coordinates[i]
        array, expected = out[which], finding.expected
        if array is None or finding.verdict != "agree" or not isinstance(expected, float) or math.isinf(expected):
            continue
        part = array.reshape(-1)
        (part.real if unit == 1 else part.imag)[place] = expected if unit == 1 else -expected
    return out


def _directions(referee: Referee, arrays: list[Any]) -> Iterator[Direction]:
    gradient = [None if a is None else np.conj(a).astype(complex if a.dtype.kind == "c" else float) for a in arrays]
    yield gradient
    yield [None if g is None else np.sign(g) for g in gradient]
    yield [None if g is None else np.ones_like(g) for g in gradient]
    rng = np.random.default_rng(4)
    for _ in range(6):
        yield [None if a is None else d for a, d in zip(arrays, random_direction(referee, rng), strict=True)]


def _pairing(arrays: list[Any], direction: Direction) -> tuple[float, float]:
    """<g, v> by the convention df/dx - i df/dy, and the sum of the terms' magnitudes."""
    terms = [np.real(a * d).ravel() for a, d in zip(arrays, direction, strict=True) if a is not None and d is not None]
    together = np.concatenate(terms) if terms else np.zeros(0)
    return math.fsum(together.astype(float)), math.fsum(np.abs(together).astype(float))


def _show(direction: Direction) -> str:
    shown = [np.array2string(d, precision=3, threshold=12) for d in direction if d is not None]
    return shown[0] if len(shown) == 1 else f"({', '.join(shown)})"


def beside_axes(referee: Referee, weights: Weights, arrays: list[Any], i: int, finding: Finding) -> Finding:
    """Derivatives along the axes that do not make a gradient: an entry may be what it is at points around."""
    got = finding.got
    if finding.verdict != "wrong" or not isinstance(got, float) or math.isinf(got):
        return finding
    low, high = interval(referee, referee.arguments.one_hot(i), weights)
    if not (math.isnan(got) or within(got, low, high, common_scale(referee, arrays))):
        return finding
    return replace(finding, verdict="convention", expected=f"[{low:.6g}, {high:.6g}]", note=f"kink: {NOT_LINEAR}")


Probe = Callable[[Direction], Finding]
"""The verdict on what a result gives along a direction."""


def by_probes(referee: Referee, weights: Weights, arrays: list[Any]) -> Finding:
    """A gradient by random signed directions; one that is off is halved until the entry is found."""
    scale = common_scale(referee, arrays)

    def probe(direction: Direction) -> Finding:
        left, right = referee.sides(direction, weights)[0] if weights else (ZERO, ZERO)
        return _along(arrays, direction, left, right, interval_of_entry(referee, direction, weights), scale)

    def entry(i: int) -> Finding:
        return excused_entry(referee, weights, arrays, i, judge_entry(referee, weights, arrays, i))

    return _probed(referee, arrays, probe, entry)


def second_by_probes(referee: Referee, direction: Direction, arrays: list[Any]) -> Finding:
    """A Hessian-vector product by its products with random signed directions; as `by_probes`."""
    scale = common_scale(referee, arrays)

    def probe(first: Direction) -> Finding:
        found = second_along(referee, first, direction, {0: 1.0})
        if found.kind == "kink":
            return Finding("convention", entry=_ANYWHERE, expected="any", note="kink: no second derivative here")
        return _along(arrays, first, found, found, lambda: (math.nan,) * 2, scale)

    return _probed(referee, arrays, probe, lambda i: judge_second(referee, direction, arrays, i))


_ANYWHERE = "a random direction"
PROBES = 2


def _probed(referee: Referee, arrays: list[Any], probe: Probe, entry: Callable[[int], Finding]) -> Finding:
    rng = np.random.default_rng(5)
    findings = []
    for _ in range(PROBES):
        direction = [None if a is None else d for a, d in zip(arrays, random_direction(referee, rng), strict=True)]
        finding = probe(direction)
        if finding.verdict == "wrong":
            return _located(referee, arrays, direction, finding, probe, entry)
        findings.append(finding)
    return worst_of(iter(findings))


def common_scale(referee: Referee, arrays: list[Any]) -> Scale:
    """Of the arrays' dtype of least precision: their sum has no more digits."""
    return max(
        (scale_within(referee, a.dtype) for a in arrays if a is not None and a.size), key=lambda scale: scale.eps
    )


def _along(
    arrays: list[Any],
    direction: Direction,
    left: Limit,
    right: Limit,
    interval_of: Callable[[], tuple[float, float]],
    scale: Scale,
) -> Finding:
    along, size = _pairing(arrays, direction)
    carried = size if math.isfinite(size) else 0.0
    return against(left, right, along, scale, lambda: carried, interval_of, _ANYWHERE)


def _located(
    referee: Referee,
    arrays: list[Any],
    direction: Direction,
    finding: Finding,
    probe: Probe,
    entry: Callable[[int], Finding],
) -> Finding:
    """The entry that is off: the one not finite, or the only one, whose place a second probe tells; or by halving."""
    for i in (_not_finite(referee, arrays), _only_one(referee, direction, finding, probe)):
        if i is not None and (found := entry(i)).verdict == "wrong":
            return found
    return _bisected(referee, direction, finding, probe, entry)


def _not_finite(referee: Referee, arrays: list[Any]) -> int | None:
    places = enumerate(referee.arguments.coordinates)
    return next((i for i, (w, p, _) in places if arrays[w] is not None and not np.isfinite(arrays[w].flat[p])), None)


def _only_one(referee: Referee, direction: Direction, finding: Finding, probe: Probe) -> int | None:
    """If entries are weighted by their places, a single wrong one shows its place as the ratio of two errors."""
    coordinates, count = referee.arguments.coordinates, len(referee.arguments.coordinates)
    weighted = [None if d is None else d.copy() for d in direction]
    for i, (which, place, unit) in enumerate(coordinates):
        if unit == 1 and (part := weighted[which]) is not None:
            part.flat[place] *= (i + 1) / count
    errors = [_error(finding), _error(probe(weighted))]
    ratio = errors[1] / errors[0] * count - 1 if errors[0] else math.nan
    return round(ratio) if 0 <= ratio < count else None


def _error(finding: Finding) -> float:
    got, expected = finding.got, finding.expected
    return got - expected if isinstance(got, float) and isinstance(expected, float) else math.nan


def _bisected(
    referee: Referee, direction: Direction, finding: Finding, probe: Probe, entry: Callable[[int], Finding]
) -> Finding:
    places = [(w, p) for w, d in enumerate(direction) if d is not None for p in range(d.size)]
    while len(places) > 1:
        half = places[: len(places) // 2]
        if probe(_part_of(direction, half)).verdict != "wrong":
            half = places[len(places) // 2 :]
            if probe(_part_of(direction, half)).verdict != "wrong":
                return finding
        places = half
    coordinates = referee.arguments.coordinates
    return worst_of(entry(i) for i, c in enumerate(coordinates) if c[:2] == places[0])


def _part_of(direction: Direction, places: list[tuple[int, int]]) -> Direction:
    out: Direction = [None] * len(direction)
    for which, place in places:
        if out[which] is None:
            out[which] = np.zeros_like(direction[which])
        out[which].reshape(-1)[place] = direction[which].reshape(-1)[place]
    return out
