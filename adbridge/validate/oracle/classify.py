"""What kind of point it is: smooth, kink, infinite, jump, undefined, or unresolved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from adbridge.validate.oracle.arguments import Direction
from adbridge.validate.oracle.limits import Limit

if TYPE_CHECKING:
    from adbridge.validate.referee import Point, Referee

NOT_LINEAR = "the derivative is not linear in the direction"
PROBES = 2
"""Random signed directions along which derivatives must add up."""


def classify(referee: Referee) -> Point:
    """The worst kind that an entry, or a random direction, shows."""
    from adbridge.validate.referee import KINDS, Point

    if _is_nan(referee):
        return Point("undefined", note="the function itself is not a number here")
    count = len(referee.arguments.coordinates)
    found = list(_of_entries(referee) if referee.looks_at_each else _of_probes(referee))
    worst = max(found, key=lambda point: KINDS.index(point.kind), default=Point("smooth"))
    if worst.kind == "smooth" and count > 1 and referee.looks_at_each:
        return next((p for p in _of_sums(referee) if p.kind != "smooth"), worst)
    return worst


def _is_nan(referee: Referee) -> bool:
    return any(math.isnan(v) if isinstance(v, float) else v.is_nan() for v in referee.oracle.value())


def _of_entries(referee: Referee) -> Iterator[Point]:
    arguments = referee.arguments
    for i, (which, place, unit) in enumerate(arguments.coordinates):
        part = " (imaginary part)" if unit == 1j else ""
        yield _worst(referee, arguments.one_hot(i), referee.column(i), arguments.entry(which, place) + part)


def _of_probes(referee: Referee) -> Iterator[Point]:
    """Along random directions; one that shows a kink is halved until one entry shows it."""
    rng = np.random.default_rng(0)
    for _ in range(PROBES + 2):
        direction = random_direction(referee, rng)
        point = _worst(referee, direction, referee.sides(direction), "a random direction")
        yield point if point.kind == "smooth" else _narrowed(referee, direction, point)


def _narrowed(referee: Referee, direction: Direction, point: Point) -> Point:
    arguments = referee.arguments
    entries = [(w, p, u) for w, p, u in arguments.coordinates if direction[w] is not None]
    while len(entries) > 1:
        half = entries[: len(entries) // 2]
        part = _restricted(referee, direction, half)
        found = _worst(referee, part, referee.sides(part), "")
        if found.kind == "smooth":
            half = entries[len(entries) // 2 :]
            part = _restricted(referee, direction, half)
            found = _worst(referee, part, referee.sides(part), "")
        if found.kind == "smooth":
            return point  # only together
        entries, point = half, found
    which, place, _ = entries[0]
    part = _restricted(referee, direction, entries)
    return _worst(referee, part, referee.sides(part), arguments.entry(which, place))


def _restricted(referee: Referee, direction: Direction, entries: list[tuple[int, int, complex]]) -> Direction:
    values = {(w, p): complex(direction[w].reshape(-1)[p]) for w, p, _ in entries}
    return referee.arguments.direction_of({k: v.real if not v.imag else v for k, v in values.items()})


def random_direction(referee: Referee, rng: np.random.Generator) -> Direction:
    """Signs at random, at magnitudes between a half and one, so that no two entries cancel."""
    return [
        rng.choice([-1.0, 1.0], leaf.shape) * rng.uniform(0.5, 1, leaf.shape)
        * (np.exp(1j * rng.uniform(0, 6, leaf.shape)) if leaf.dtype.kind == "c" else 1)
        for leaf in referee.arguments.active
    ]  # fmt: skip


def _of_sums(referee: Referee) -> Iterator[Point]:
    """Whether derivatives along random directions are the sums of those along the entries."""
    from adbridge.validate.referee import Point

    rng = np.random.default_rng(1)
    for _ in range(PROBES):
        direction = random_direction(referee, rng)
        parts = [
            complex(direction[w].reshape(-1)[p]).real if u == 1 else complex(direction[w].reshape(-1)[p]).imag
            for w, p, u in referee.arguments.coordinates
        ]
        whole = referee.sides(direction)
        point = _worst(referee, direction, whole, "a direction that moves several entries")
        if point.kind != "smooth":
            yield point
            continue
        for j, (_, right) in enumerate(whole):
            columns = [referee.column(i)[j][1] for i in range(len(parts))]
            total = sum(c * float(limit.value) for c, limit in zip(parts, columns, strict=True))
            size = sum(abs(c * float(limit.value)) for c, limit in zip(parts, columns, strict=True))
            error = sum(abs(c) * limit.error for c, limit in zip(parts, columns, strict=True)) + right.error
            if abs(total - float(right.value)) > 1e-9 * size + 4 * error:
                where = "a direction that moves several entries"
                tree = referee.arguments.like(direction)
                yield Point("kink", where, tree, total, float(right.value), NOT_LINEAR)
                break


def _worst(referee: Referee, direction: Direction, sides: list[tuple[Limit, Limit]], where: str) -> Point:
    from adbridge.validate.referee import KINDS, Point

    kinds = [kind_of(left, right) for left, right in sides]
    j = max(range(len(kinds)), key=lambda j: KINDS.index(kinds[j][0]), default=None)
    if j is None or kinds[j][0] == "smooth":
        return Point("smooth")
    (kind, note), (left, right) = kinds[j], sides[j]
    which, place, _ = referee.outputs.coordinates[j]
    if len(sides) > 1:
        note = f"{referee.outputs.entry(which, place)}{': ' + note if note else ''}"
    return Point(kind, where, referee.arguments.like(direction), float(left.value), float(right.value), note)


def kind_of(left: Limit, right: Limit) -> tuple[str, str]:
    """The kind that a pair of one-sided derivatives shows, and a note."""
    from adbridge.validate.referee import same

    kinds = {left.kind, right.kind}
    if "unresolved" in kinds:
        return "unresolved", "the difference quotients settle neither on a number nor on infinity"
    if kinds == {"finite"}:
        return ("smooth", "") if same(left, right) else ("kink", "")
    if "jump" in kinds:
        return "jump", ""
    if "infinite" in kinds:
        return "infinite", "" if len(kinds) == 1 else "on one side"
    if kinds == {"undefined"}:
        return "undefined", "not a number on both sides"
    return "kink", f"border of the domain: differentiable from the {'right' if right.is_finite else 'left'} alone"
