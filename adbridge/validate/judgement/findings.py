"""A number of an engine against the one-sided derivatives at its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from adbridge.validate.oracle.classify import kind_of
from adbridge.validate.oracle.limits import Limit
from adbridge.validate.verdict import TOLERANCE, VERDICTS

ZERO = Limit("finite", 0.0, 0.0)
SHARP = 1e-40
"""A bound that no dtype resolves beside numbers of ordinary size: an exact zero is known to no relative accuracy."""
CARRIED_ULP = 4096
"""Units in the last place that agree beside what rounding carries into the result: three random choices of rounding
errors show their size, and real ones come to some hundred times as much in factorisations of matrices."""


TOLD_ULP = 8
"""Units in the last place, beside what rounding carries, by which even a number that is lost in it may be off."""


@dataclass(frozen=True)
class Finding:
    """The verdict on one result. `entry` is where it is worst; there `got` stands and `expected` should.

    `error_ulp` is |got - exact| in units in the last place, against the program's own rounding; `expected` is text
    where it is a set. Where a result has several verdicts, the worst counts.
    """

    verdict: str
    error_ulp: float = math.nan
    relative_error: float = math.nan
    entry: str = ""
    got: float | complex | None = None
    expected: float | complex | str | None = None
    note: str = ""


@dataclass(frozen=True)
class Scale:
    """Of the dtype judged in: its epsilon, the relative error that still agrees, and its range."""

    eps: float
    tolerance: float
    tiny: float
    largest: float


def scale_of_dtype(dtype: Any) -> Scale:
    info = np.finfo(dtype)
    name = str(dtype)
    tolerance = TOLERANCE.get(name, 1e4 * float(info.eps))  # half precision: as float32's, in units of its epsilon
    return Scale(float(info.eps), min(tolerance, 0.1), float(info.smallest_normal), float(info.max))


def against(
    left: Limit,
    right: Limit,
    got: float,
    scale: Scale,
    amplification: Callable[[], float],
    interval_of: Callable[[], tuple[float, float]],
    entry: str,
) -> Finding:
    """A number against the one-sided derivatives at its place."""
    kind, note = kind_of(left, right)
    if kind == "smooth":
        return against_value(right, got, scale, amplification, entry)
    if kind == "kink":
        return _at_kink(left, right, got, scale, interval_of, entry)
    if kind == "infinite":
        return _at_infinity(left, right, got, entry)
    if kind == "jump":
        low, high = interval_of()
        legal = not math.isfinite(got) or within(got, low, high, scale)
        expected = f"[{low:.6g}, {high:.6g}] beside it"
        return Finding("convention" if legal else "undefined", entry=entry, got=got, expected=expected, note="jump")
    return Finding(kind, entry=entry, got=got, note=note)


def against_value(exact: Limit, got: float, scale: Scale, amplification: Callable[[], float], entry: str) -> Finding:
    expected = float(exact.value)
    if abs(expected) > scale.largest:  # the dtype has no such number
        right = abs(got) == math.inf and (got > 0) == (expected > 0)
        return Finding("agree" if right else "wrong", 0.0, 0.0, entry, got, expected, "beyond the range of the dtype")
    if not math.isfinite(got):
        return Finding("wrong", math.inf, math.inf, entry, got, expected, "not finite, where the derivative exists")
    error = max(abs(got - expected) - exact.error, 0.0)
    if error <= scale.tiny >= exact.error:  # underflow
        return Finding("agree", error / scale.tiny, 0.0, entry, got, expected)
    relative = error / abs(expected) if expected else math.inf
    size = abs(expected)
    allowed = scale.tolerance * size
    if max(error, exact.error) > 16 * scale.eps * size:
        size += amplification()
        allowed = max(allowed, min(CARRIED_ULP * scale.eps, scale.tolerance) * size)
    unit = scale.eps * size  # which may underflow
    ulp = error / unit if unit else math.inf if error else 0.0
    if exact.error > max(scale.tolerance * size, SHARP) and error < 100 * exact.error:
        note = f"the expected value is known to +-{exact.error:.1e} only"
        return Finding("unresolved", ulp, relative, entry, got, expected, note)
    if error <= allowed and expected and error > abs(expected) and ulp > TOLD_ULP:
        note = "rounding in f may be larger than the expected value: nothing can be told"
        return Finding("unresolved", ulp, relative, entry, got, expected, note)
    return Finding("agree" if error <= allowed else "wrong", ulp, relative, entry, got, expected)


def _at_kink(
    left: Limit, right: Limit, got: float, scale: Scale, interval_of: Callable[[], tuple[float, float]], entry: str
) -> Finding:
    if not (left.is_finite and right.is_finite):  # the border of the domain
        beside = float((left if left.is_finite else right).value)
        if not math.isfinite(got):
            return Finding("convention", entry=entry, got=got, expected=beside, note="border of the domain")
        close = within(got, beside, beside, scale)
        return Finding(
            "agree" if close else "wrong", entry=entry, got=got, expected=beside, note="border of the domain"
        )
    low, high = interval_of()
    legal = math.isnan(got) or within(got, low, high, scale)
    expected = f"[{low:.6g}, {high:.6g}]"
    return Finding("convention" if legal else "wrong", entry=entry, got=got, expected=expected, note="kink")


def _at_infinity(left: Limit, right: Limit, got: float, entry: str) -> Finding:
    ends = [float(side.value) for side in (left, right) if side.kind != "undefined"]
    infinite = [end for end in ends if math.isinf(end)]
    expected = infinite[0] if len(set(ends)) == 1 else f"[{min(ends):.6g}, {max(ends):.6g}]"
    if got in infinite:
        return Finding("infinite", entry=entry, got=got, expected=expected, note="the derivative is infinite")
    between = len(set(ends)) > 1 and (math.isnan(got) or min(ends) <= got <= max(ends))
    verdict = "convention" if between else "wrong"
    return Finding(verdict, entry=entry, got=got, expected=expected, note="the derivative is infinite")


def within(x: float, low: float, high: float, scale: Scale) -> bool:
    slack = scale.tolerance * max(abs(low), abs(high), abs(x))
    return low - slack <= x <= high + slack


def worst_of(findings: Iterator[Finding]) -> Finding:
    def rank(finding: Finding) -> tuple[int, float]:
        error = finding.error_ulp
        return VERDICTS.index(finding.verdict), -1.0 if math.isnan(error) else error

    return max(findings, key=rank, default=Finding("agree", 0.0, 0.0, note="nothing to compare"))


EXCUSED = 8
"""So many wrong entries are looked at for an excuse, the worst first; what excuses them all excuses the others."""


def worst_after(findings: list[Finding], excuse: Callable[[int, Finding], Finding]) -> Finding:
    """The worst of the findings, where `excuse` may turn the wrong ones, by their places, into something else."""
    wrong = [i for i, finding in enumerate(findings) if finding.verdict == "wrong"]
    rest = [finding for finding in findings if finding.verdict != "wrong"]
    for i in sorted(wrong, key=lambda i: -findings[i].error_ulp)[:EXCUSED]:
        found = excuse(i, findings[i])
        if found.verdict == "wrong":
            return found
        rest.append(found)
    return worst_of(iter(rest))
