"""Difference quotients along a line, with bounds on their rounding errors: of a fixed step, and extrapolated.

All outputs' elements are treated at once, as one vector. A step at which an output is not finite, or where the
function raises a ValueError or ArithmeticError, has left its domain: the quotient is NaN there, and is not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from adbridge.errors import NotDifferentiable
from adbridge.protocol import Arrays, FlatFunction, read_only

Vector = npt.NDArray[Any]


@dataclass(frozen=True)
class Slopes:
    """Difference quotients: a vector each. `noise` bounds what rounding makes of them, `error` the whole error."""

    slope: Vector
    noise: Vector
    error: Vector
    step: Vector

    @property
    def missing(self) -> Vector:
        return np.isnan(self.slope)

    def where(self, better: Vector, other: Slopes) -> Slopes:
        """The elements of `other` where `better` says so."""
        pairs = zip(vars(other).values(), vars(self).values(), strict=True)
        return Slopes(*(np.where(better, new, old) for new, old in pairs))


class Line:
    """A function's values at x + h v, as a vector (float64 or complex128) for each h."""

    def __init__(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> None:
        self.fun = fun
        self.primals = primals
        self.tangents = tangents
        self.length = max((float(np.max(np.abs(t), initial=0.0)) for t in tangents), default=0.0)
        moving = [(x, t != 0) for x, t in zip(primals, tangents, strict=True) if np.any(t != 0)]
        sizes = np.concatenate([np.abs(x[moves]).astype(float).ravel() for x, moves in moving] or [np.zeros(0)])
        self.scale = float(np.max(sizes, initial=1.0))
        """The largest |x| that moves, at least 1."""
        self.finest = float(np.min(sizes, initial=self.scale, where=sizes > 0))
        """The smallest, zero aside."""
        self.reach = float(np.max(sizes, initial=0.0)) / self.length if moving else 0.0
        """The largest, in units of v."""
        self.eps = max((float(np.finfo(x.dtype).eps) for x, _ in moving), default=0.0)
        self.failure: Exception | None = None
        self.center = self._run(primals)

    @property
    def is_still(self) -> bool:
        """Nothing moves: every derivative is zero."""
        return self.length == 0

    def _run(self, points: Arrays) -> Vector:
        outs, _ = self.fun(*points)
        self.eps = max([self.eps, *(float(np.finfo(out.dtype).eps) for out in outs)])
        return np.concatenate([np.asarray(out, np.result_type(out, float)).ravel() for out in outs] or [np.zeros(0)])

    def at(self, h: float) -> tuple[Arrays, Vector]:
        """The points, as rounded, and the values there."""
        if h == 0:
            return self.primals, self.center
        points = tuple(
            read_only(np.asarray(x + np.asarray(h * t, x.dtype), x.dtype))
            for x, t in zip(self.primals, self.tangents, strict=True)
        )
        try:
            with np.errstate(all="ignore"):
                values = self._run(points)
        except (ArithmeticError, ValueError) as exc:  # a singular matrix, math.log of a negative number
            self.failure = exc
            values = np.full_like(self.center, np.nan)
        return points, values

    def quotient(self, first: float, second: float) -> Slopes:
        """Between two places on the line, over the distance that rounding has left between them."""
        (a, at_a), (b, at_b) = self.at(first), self.at(second)
        moved = [np.asarray(q, np.result_type(q, float)) - p for p, q in zip(a, b, strict=True)]
        units = [t / self.length for t in self.tangents]
        along = sum(float(np.sum((np.conj(u) * d).real)) for u, d in zip(units, moved, strict=True))
        distance = along / sum(float(np.sum(np.abs(u) ** 2)) for u in units)
        if not 0 < distance < math.inf:  # the step is below the last place of x
            lost = np.full(at_a.shape, np.nan)
            return Slopes(lost, lost, lost, lost)
        aside = max(float(np.max(np.abs(d / distance - u), initial=0.0)) for d, u in zip(moved, units, strict=True))
        with np.errstate(all="ignore"):
            slope = (at_b - at_a) / (distance / self.length)
            slope = np.where(np.isfinite(slope), slope, np.nan)
            noise = self.eps * (np.abs(at_a) + np.abs(at_b)) / (distance / self.length) + np.abs(slope) * aside
        return Slopes(slope, noise, noise, np.full(slope.shape, distance / self.length))


# Of a fixed step.


def fixed(line: Line, forward: bool, step: float | None) -> tuple[Slopes, float]:
    """A quotient and its step h; one-sided where that alone stays inside the domain.

    Raises NotDifferentiable: neither side does.
    """
    h = step or line.eps ** (1 / 2 if forward else 1 / 3) * line.scale / line.length
    found = line.quotient(0.0, h) if forward else line.quotient(-h, h)
    for span in ((0.0, h), (-h, 0.0)):
        if _outside(line, found):
            found = found.where(found.missing, line.quotient(*span))
    if _outside(line, found):
        raise NotDifferentiable(
            f"a difference with step {h:.3g} leaves the function's domain on both sides; give a smaller step=, or use "
            "scheme='richardson', which finds one"
        ) from line.failure
    return found, h


def _outside(line: Line, found: Slopes) -> bool:
    return bool(np.any(found.missing & np.isfinite(line.center)))


def with_error(line: Line, forward: bool, step: float | None) -> Slopes:
    """As `fixed`, with its distance from the extrapolated quotient as error: one step cannot judge itself."""
    found, _ = fixed(line, forward, step)
    limit = extrapolated(line)
    error = np.abs(found.slope - limit.slope) + limit.error + found.noise
    return Slopes(found.slope, found.noise, _or_inf(error), found.step)


# Extrapolated.
#
# Ridders leaves one thing to the caller: the length over which f changes. Too long a first step finds limits that
# are none (those of a sine sampled over thousands of waves), too short a one drowns in rounding. Here a few probes
# on steps far apart (factors of 32) find it for each output by itself: the probe that agrees best with the next
# longer one is the reference, and the tableau starts from the longest step on the way to which all agree with it, or
# their differences shrink as powers of h do. What the tableau says must agree with the reference; what does not is
# added to its error.

_APART = 32.0
_ROWS = 9
_GOOD = 2.0**14  # an error of so many units in the last place: no second tableau
_SAFE = 2.0  # of Numerical Recipes' dfridr: stop where the next order is so much worse

Sample = Callable[[float], Slopes]


def extrapolated(line: Line, longest: float | None = None) -> Slopes:
    """Central quotients extrapolated to h = 0; one-sided ones for outputs whose domain ends at x.

    The error allows for a function that is right to the last place of its value or of its argument.
    """
    found = _to_zero(line, lambda h: line.quotient(-h, h), 2, longest)
    for span in ((0.0, 1.0), (-1.0, 0.0)):
        if _outside(line, found):
            side = _to_zero(line, lambda h, s=span: line.quotient(s[0] * h, s[1] * h), 1, longest)  # type: ignore[misc]
            found = found.where(found.missing, side)
    behind = 2 * line.eps * np.abs(found.slope) * line.reach / found.step
    return Slopes(found.slope, found.noise, _or_inf(found.error + behind), found.step)


def _to_zero(line: Line, sample: Sample, power: int, longest: float | None) -> Slopes:
    """The limit of quotients whose error is a series in h^power."""
    probes = _probes(line, sample, longest)
    if len(probes) < 2:
        lost = np.full(line.center.shape, np.nan)
        return Slopes(lost, lost, _or_inf(lost), lost)
    reference, place = _reference(probes)
    starts = _starts(probes, reference, place, _APART**power)
    best = reference
    floor = np.take_along_axis(np.stack([p.noise for p in probes]), starts[None], 0)[0]
    for start in range(len(probes)):
        poor = best.error > _GOOD * line.eps * np.abs(best.slope) + 64 * floor
        open_ = (starts == start) | ((starts < start) & (start <= place) & poor)
        if not open_.any():
            continue
        found = _tableau(sample, float(np.nanmax(probes[start].step)), 2.0**power)
        apart = np.abs(found.slope - reference.slope) - reference.error
        found = Slopes(found.slope, found.noise, found.error + np.maximum(apart, 0), found.step)
        best = best.where(open_ & (found.error < best.error), found)
    return _unless_diverging(best, probes)


def _unless_diverging(found: Slopes, probes: Sequence[Slopes]) -> Slopes:
    """No limit where the shortest step is far from it, and from the step before: an infinite slope, a jump."""
    last, before = probes[-1], probes[-2]
    apart = np.abs(found.slope - last.slope) - np.abs(last.slope - before.slope) / 8 - 64 * last.noise
    error = found.error + np.maximum(_or_inf(apart), 0)
    largest = np.max([np.where(p.missing, 0, np.abs(p.slope)) for p in probes], axis=0)
    return Slopes(
        np.where(error > 0.1 * largest + 1e3 * found.noise, np.nan, found.slope), found.noise, error, found.step
    )


def _probes(line: Line, sample: Sample, longest: float | None) -> list[Slopes]:
    """From a quarter of |x| down until three in turn agree, or rounding leaves a few digits."""
    h = longest or 2.0 ** math.floor(math.log2(line.scale / line.length)) / 4
    shortest = min(line.eps**0.875 * line.finest / line.length, h / _APART**2)
    probes: list[Slopes] = []
    while h >= shortest and len(probes) < 64:
        found = sample(h)
        if not found.missing.all():
            probes.append(found)
        if len(probes) >= 3 and _agree(*probes[-3:]):
            break
        h /= _APART
    return probes


def _agree(a: Slopes, b: Slopes, c: Slopes) -> bool:
    tolerance = 1e-6 * np.abs(c.slope) + 4 * (a.noise + b.noise + c.noise)
    return bool(np.all((np.abs(b.slope - c.slope) <= tolerance) & (np.abs(a.slope - b.slope) <= 1e3 * tolerance)))


def _reference(probes: Sequence[Slopes]) -> tuple[Slopes, Vector]:
    """The probe that is nearest to the longer one before it, relative to itself; and which one that is."""
    slopes, noises = (np.stack([getattr(p, name) for p in probes]) for name in ("slope", "noise"))
    errors = np.abs(slopes[1:] - slopes[:-1]) + noises[1:] + noises[:-1]
    with np.errstate(all="ignore"):
        relative = np.where(np.abs(slopes[1:]) > 0, errors / np.abs(slopes[1:]), np.inf)
    ranked = np.where(np.nanmin(_or_inf(relative), axis=0, initial=np.inf) < 0.9, _or_inf(relative), _or_inf(errors))
    place = 1 + np.argmin(ranked, axis=0)
    steps = np.stack([p.step for p in probes])
    error = np.take_along_axis(_or_inf(errors), place[None] - 1, 0)[0]
    slope, noise, step = (np.take_along_axis(a, place[None], 0)[0] for a in (slopes, noises, steps))
    return Slopes(np.where(np.isfinite(error), slope, np.nan), noise, error, step), place


def _or_inf(x: Vector) -> Vector:
    return np.where(np.isnan(x), np.inf, x)


def _starts(probes: Sequence[Slopes], reference: Slopes, place: Vector, decay: float) -> Vector:
    """For each output the first probe from which on all are consistent with the reference."""
    starts = place.copy()
    going = np.ones(place.shape, bool)
    for k in range(len(probes) - 2, -1, -1):
        here, after = probes[k], probes[k + 1]
        change = np.abs(here.slope - after.slope)
        near = np.abs(here.slope - reference.slope) <= np.abs(reference.slope) / 4 + here.noise + reference.error
        further = np.abs(after.slope - probes[k + 2].slope) if k + 2 < len(probes) else np.full(change.shape, np.inf)
        going &= (k >= place) | near | ((change >= decay / 16 * further) & (change <= decay * 16 * further))
        starts = np.where(going & (k < place), k, starts)
    return starts


def _tableau(sample: Sample, h: float, factor: float) -> Slopes:
    """Ridders' tableau: of each output the entry that differs least from those that it was made of."""
    row = [sample(h)]
    best = Slopes(row[0].slope, row[0].noise, np.full(row[0].slope.shape, np.inf), row[0].step)
    for i in range(1, _ROWS):
        h /= 2
        above, row = row, [sample(h)]
        weight = 1.0
        for before in above:
            weight *= factor
            row.append(_combined(row[-1], before, weight))
            best = best.where(row[-1].error < best.error, row[-1])
        with np.errstate(over="ignore", invalid="ignore"):
            worse = np.abs(row[-1].slope - above[-1].slope) >= _SAFE * best.error
        if np.all((best.error <= 4 * best.noise) | (worse & (i > 4)) | np.isnan(row[0].slope)):
            break
    return Slopes(np.where(np.isfinite(best.error), best.slope, np.nan), best.noise, best.error, best.step)


@np.errstate(over="ignore", invalid="ignore")  # what overflows has an infinite error
def _combined(short: Slopes, long: Slopes, weight: float) -> Slopes:
    """Without the leading error term; its error by both differences, and the rounding errors of both."""
    slope = (short.slope * weight - long.slope) / (weight - 1)
    noise = (short.noise * weight + long.noise) / (weight - 1)
    error = np.maximum(np.abs(slope - short.slope), np.abs(slope - long.slope)) + noise
    return Slopes(slope, noise, _or_inf(error), short.step)
