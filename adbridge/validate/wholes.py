"""A gradient as a whole: a vector of the subdifferential, or probed along random directions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from adbridge.validate.arguments import Direction
from adbridge.validate.classify import NOT_LINEAR, random_direction
from adbridge.validate.entries import Weights, interval_of_entry, judge_entry
from adbridge.validate.findings import ZERO, Finding, against, scale_of_dtype, worst_of
from adbridge.validate.referee import Referee
from adbridge.validate.subgradients import interval


def as_subgradient(referee: Referee, weights: Weights, arrays: list[Any], entrywise: Finding) -> Finding:
    """Each entry in its interval is not enough: along no direction may the vector exceed the function."""
    if any(a is not None and not np.all(np.isfinite(a)) for a in arrays) or referee.method != "arb":
        return entrywise
    for direction in _directions(referee, arrays):
        low, high = interval(referee, direction, weights)
        along, size = _pairing(arrays, direction)
        if not low - 1e-9 * size <= along <= high + 1e-9 * size:
            note = (
                f"no subgradient: along {_show(direction)} it gives {along:.6g}, "
                f"the function's derivatives there are in [{low:.6g}, {high:.6g}]"
            )
            return replace(entrywise, verdict="wrong", note=note)
    return entrywise


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


def beside_axes(referee: Referee, weights: Weights, i: int, finding: Finding) -> Finding:
    """Derivatives along the axes that do not make a gradient: an entry may be what it is at points around."""
    got = finding.got
    if finding.verdict != "wrong" or not isinstance(got, float) or math.isinf(got):
        return finding
    low, high = interval(referee, referee.arguments.one_hot(i), weights)
    if not (math.isnan(got) or low <= got <= high):
        return finding
    return replace(finding, verdict="convention", expected=f"[{low:.6g}, {high:.6g}]", note=f"kink: {NOT_LINEAR}")


def by_probes(referee: Referee, weights: Weights, arrays: list[Any]) -> Finding:
    """Random signed directions; one that is off is halved until the entry is found."""
    rng = np.random.default_rng(5)
    findings = []
    for _ in range(4):
        direction = [None if a is None else d for a, d in zip(arrays, random_direction(referee, rng), strict=True)]
        finding = _probe(referee, weights, arrays, direction)
        findings.append(
            finding if finding.verdict != "wrong" else _bisected(referee, weights, arrays, direction, finding)
        )
        if findings[-1].verdict == "wrong":
            break
    return worst_of(iter(findings))


def _probe(referee: Referee, weights: Weights, arrays: list[Any], direction: Direction) -> Finding:
    along, size = _pairing(arrays, direction)
    left, right = referee.sides(direction, weights)[0] if weights else (ZERO, ZERO)
    scale = scale_of_dtype(next(a.dtype for a in arrays if a is not None))
    carried = size if math.isfinite(size) else 0.0
    return against(
        left, right, along, scale, lambda: carried, interval_of_entry(referee, direction, weights), "a random direction"
    )


def _bisected(referee: Referee, weights: Weights, arrays: list[Any], direction: Direction, finding: Finding) -> Finding:
    places = [(w, p) for w, d in enumerate(direction) if d is not None for p in range(d.size)]
    while len(places) > 1:
        half = places[: len(places) // 2]
        probe = _probe(referee, weights, arrays, _part_of(direction, half))
        if probe.verdict != "wrong":
            half = places[len(places) // 2 :]
            probe = _probe(referee, weights, arrays, _part_of(direction, half))
        if probe.verdict != "wrong":
            return finding
        places = half
    coordinates = referee.arguments.coordinates
    return worst_of(judge_entry(referee, weights, arrays, i) for i, c in enumerate(coordinates) if c[:2] == places[0])


def _part_of(direction: Direction, places: list[tuple[int, int]]) -> Direction:
    out: Direction = [None] * len(direction)
    for which, place in places:
        if out[which] is None:
            out[which] = np.zeros_like(direction[which])
        out[which].reshape(-1)[place] = direction[which].reshape(-1)[place]
    return out
