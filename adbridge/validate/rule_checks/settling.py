"""Is one derivative right? First against the referee's numbers, entry by entry; what is off, by the judges.

What is off at a point far from 1, in float32, or in its last digits alone, is not held against a rule if the engine's
own derivative of the plain function is as far off there: no rule could be seen to be wrong at such a point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adbridge.errors import AdbridgeError
from adbridge.validate.judging import Finding, judge_jvp, judge_vjp
from adbridge.validate.rule_checks.candidate import Leaves, Vector, cotangents_of, tangents_of
from adbridge.validate.rule_checks.exact import FEW, Exact, Sides
from adbridge.validate.verdict import TOLERANCE

FLOOR = 64
"""Rounding errors, of what the derivatives are large as, that are forgiven in an entry that is tiny beside them."""
SLIGHT = 1e-3
"""A relative error below which the engine's own derivative is asked for comparison, anywhere."""


@dataclass(frozen=True)
class Scale:
    """What counts as equal: in this dtype, where derivatives are up to `typical`."""

    dtype: str
    typical: float

    @property
    def floor(self) -> float:
        return FLOOR * float(np.finfo(self.dtype).eps) * self.typical

    def close(self, got: Vector, expected: Vector, slack: Any = 0.0) -> Any:
        """Which entries are equal; NaN equals nothing, an infinity itself."""
        with np.errstate(all="ignore"):
            finite = np.where(np.isfinite(expected), np.abs(expected), 0.0)
            apart = np.abs(got - expected)
            return (got == expected) | (apart <= TOLERANCE[self.dtype] * finite + slack + self.floor)


@dataclass(frozen=True)
class Control:
    """The engine's own derivative of the plain function; `lenient` where it may excuse more than last digits.

    `beside` the example it excuses lost digits, too: where tanh has saturated, say, 1 - y^2 has none left.
    """

    own: Callable[[], Vector]
    lenient: bool
    beside: bool = False

    def may_excuse(self, relative_error: float) -> bool:
        return self.lenient or relative_error < SLIGHT or (self.beside and relative_error <= 1)


@dataclass(frozen=True)
class Outcome:
    """A verdict, the number of comparisons, and the entry that shows it."""

    verdict: str
    comparisons: int
    entry: str = ""
    got: Any = None
    expected: Any = None
    note: str = ""
    coordinate: int | None = None
    suspects: tuple[int, ...] = ()
    """Coordinates that the numbers alone do not clear."""


NOTHING = Outcome("unresolved", 0, note="nothing could be compared here")


def precision_of(leaves: Leaves) -> str:
    """The dtype whose rounding counts: ``"float32"`` if any leaf is of single precision."""
    narrow = any(leaf.dtype.name in ("float32", "complex64") for leaf in leaves)
    return "float32" if narrow else "float64"


def typical_size(sides: Sides) -> float:
    """The largest finite derivative."""
    return float(np.max(np.abs(sides.right), initial=0.0, where=np.isfinite(sides.right)))


def forward(exact: Exact, scale: Scale, tangent: Vector, outs: Leaves, got: Vector, control: Control) -> Outcome:
    """The tangent `got` of the output, against J @ tangent."""
    sides = exact.sides(tangent)
    fine, open_ = _compare(scale, sides, got)
    count = int(np.count_nonzero(~open_ | _settled(sides)))
    if np.all(fine | open_) and not np.any(~sides.smooth & ~open_):
        return Outcome("agree", count) if count else NOTHING
    patched, suspects = np.where(fine, sides.right, got), tuple(np.flatnonzero(~fine & ~open_).tolist())
    seeds = tangents_of(tangent, exact.leaves)

    def judge(vector: Vector) -> Finding:
        arrays = tangents_of(vector, outs)
        return judge_jvp(exact.referee, seeds, arrays if exact.several else arrays[0])

    return replace(_judged(judge, patched, control, count), suspects=suspects)


def reverse(
    exact: Exact, scale: Scale, cotangent: Vector, outs: Leaves, got: Vector, control: Control, few: int = FEW
) -> Outcome:
    """The cotangents `got` of the arguments, against cotangent @ J: up to `few` of them one by one."""
    if exact.count > few:
        outcome = _by_probes(exact, scale, cotangent, got, control)
        if outcome.verdict == "agree" or exact.count > FEW:
            return outcome
    expected = _pulled(exact, cotangent)
    fine, open_ = _compare(scale, expected, got)
    count = int(np.count_nonzero(~open_ | _settled(expected)))
    if np.all(fine | open_) and not np.any(~expected.smooth & ~open_):
        return Outcome("agree", count) if count else NOTHING
    patched, suspects = np.where(fine, expected.right, got), tuple(np.flatnonzero(~fine & ~open_).tolist())
    judge = _judge_of_cotangents(exact, cotangent, outs)
    return replace(_judged(judge, patched, control, count), suspects=suspects)


def reverse_of_elements(
    exact: Exact, scale: Scale, cotangent: Vector, outs: Leaves, got: Vector, control: Control
) -> list[Outcome]:
    """As `reverse`, of a function of the elements alone: its Jacobian is diagonal, and cotangent @ J the derivative
    along the cotangent, an outcome for each argument."""
    size = len(cotangent)

    def part(i: int) -> Outcome:
        mine = slice(i * size, (i + 1) * size)
        alone = np.zeros(exact.count)
        alone[mine] = cotangent
        own = replace(control, own=lambda: control.own()[mine])
        return forward(exact, scale, alone, outs, got[mine], own)

    return [part(i) for i in range(len(exact.leaves))]


def _judge_of_cotangents(exact: Exact, cotangent: Vector, outs: Leaves) -> Callable[[Vector], Finding]:
    seeds = cotangents_of(cotangent, outs)

    def judge(vector: Vector) -> Finding:
        return judge_vjp(exact.referee, seeds if exact.several else seeds[0], cotangents_of(vector, exact.leaves))

    return judge


def _pulled(exact: Exact, cotangent: Vector) -> Sides:
    """cotangent @ J, entry by entry."""
    live = cotangent != 0
    weights, columns = cotangent[live], [column[live] for column in exact.columns]
    sizes = np.abs(weights)
    return Sides(
        np.array([float(weights @ c.left) for c in columns]),
        np.array([float(weights @ c.right) for c in columns]),
        np.array([float(sizes @ (c.error + 1e-15 * np.abs(c.right))) for c in columns]),
        np.array([bool(np.all(c.smooth)) for c in columns], bool),
    )


def _compare(scale: Scale, sides: Sides, got: Vector) -> tuple[Any, Any]:
    """Which entries are right at a smooth place, and which are not to be judged."""
    nothing = ~np.isfinite(sides.left) & ~np.isfinite(sides.right) & ~_settled(sides)
    wide = sides.error > 1e3 * (TOLERANCE[scale.dtype] * np.abs(sides.right) + scale.floor)
    with np.errstate(all="ignore"):
        # Nearer than the bound of what is known is no proof of an error, and beyond it no pass.
        open_ = nothing | (wide & ~(np.abs(got - sides.right) > 100 * sides.error))
    return sides.smooth & scale.close(got, sides.right, sides.error), open_


def _settled(sides: Sides) -> Any:
    return np.isinf(sides.left) | np.isinf(sides.right)


def _judged(judge: Callable[[Vector], Finding], got: Vector, control: Control, count: int) -> Outcome:
    try:
        found = judge(got)
    except AdbridgeError as exc:
        return Outcome("unresolved", 0, note=str(exc).splitlines()[0])
    if found.verdict != "wrong" or not control.may_excuse(found.relative_error):
        return _outcome(found, count)
    try:
        own = judge(control.own())
    except Exception:  # an engine's own derivative may fail in any way; then it excuses nothing
        return _outcome(found, count)
    if own.verdict == "wrong" and _as_bad(own, found):
        note = f"the engine's own derivative is as far off at this point ({_number(own.got)} at {own.entry})"
        return Outcome("unresolved", 0, found.entry, found.got, found.expected, note)
    return _outcome(found, count)


def _as_bad(own: Finding, found: Finding) -> bool:
    if not math.isfinite(own.relative_error):
        return not math.isfinite(found.relative_error)
    return own.relative_error > 0.1 * found.relative_error


def _outcome(found: Finding, count: int) -> Outcome:
    return Outcome(found.verdict, max(count, 1), found.entry, found.got, found.expected, found.note)


def _number(x: Any) -> str:
    return f"{x:.6g}" if isinstance(x, (float, complex)) else str(x)


# More inputs than can be asked one by one: random signed directions, and bisection.


GUESSES = 4
"""Entries tried before bisection: of a result that is wrong all over, one of them shows it."""


def _by_probes(exact: Exact, scale: Scale, cotangent: Vector, got: Vector, control: Control) -> Outcome:
    rng = np.random.default_rng(11)
    compared = 0
    for _ in range(2):
        probe = random_signs(rng, exact.count)
        verdict = _dot(exact, scale, cotangent, got, probe)
        if verdict is False:
            return _located(exact, scale, cotangent, got, probe, control)
        compared += exact.count if verdict else 0
    return Outcome("agree", compared) if compared else NOTHING


def _dot(exact: Exact, scale: Scale, cotangent: Vector, got: Vector, probe: Vector) -> bool | None:
    """Whether <got, probe> is <cotangent, J @ probe>; None where that is not known."""
    sides, live = exact.sides(probe), cotangent != 0
    if not np.all(sides.smooth[live]):
        return None
    pushed, error = sides.right[live], sides.error[live]
    with np.errstate(all="ignore"):
        size = float(np.sum(np.abs(got * probe))) + float(np.abs(cotangent[live]) @ np.abs(pushed))
        apart = abs(float(got @ probe) - float(cotangent[live] @ pushed))
    return bool(apart <= TOLERANCE[scale.dtype] * size + float(np.abs(cotangent[live]) @ error) + scale.floor)


def _located(exact: Exact, scale: Scale, cotangent: Vector, got: Vector, probe: Vector, control: Control) -> Outcome:
    def shows(part: Any) -> bool:
        return _dot(exact, scale, cotangent, got, np.where(part, probe, 0.0)) is False

    tried = np.random.default_rng(13).integers(exact.count, size=GUESSES)
    guessed = next((int(i) for i in tried if shows(np.arange(exact.count) == i)), None)
    place = bisected(shows, exact.count) if guessed is None else guessed
    if place is None:
        return Outcome("unresolved", 0, note="off by rounding in a sum of many entries, and in none of them alone")
    unit = np.eye(1, exact.count, place)[0]
    live = cotangent != 0
    found, expected = float(got[place]), float(cotangent[live] @ exact.sides(unit).right[live])
    relative = abs(found - expected) / abs(expected) if expected else math.inf
    if control.may_excuse(relative) and _dot(exact, scale, cotangent, control.own(), unit) is False:
        note = "the engine's own derivative is off at this point, too"
        return Outcome("unresolved", 0, got=found, expected=expected, note=note, coordinate=place)
    return Outcome("wrong", 1, got=found, expected=expected, coordinate=place)


def bisected(shows: Callable[[Any], bool], count: int) -> int | None:
    """The place that alone shows what the whole shows, by halving; `shows` is asked of masks of places."""
    places = np.arange(count)
    while len(places) > 1:
        halves = np.array_split(places, 2)
        found = next((half for half in halves if shows(np.isin(np.arange(count), half))), None)
        if found is None:
            return None
        places = found
    return int(places[0])


def random_signs(rng: np.random.Generator, count: int) -> Vector:
    """Both signs, at multiples of 1/128 between 1/2 and 3/2: exact in every dtype."""
    return rng.choice((-1.0, 1.0), count) * rng.integers(64, 193, count) / 128
