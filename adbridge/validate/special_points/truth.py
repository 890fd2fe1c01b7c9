"""What is right at a special point, in closed form: one answer, a set of them, an infinite one, or none.

A truth is mathematics written down beside the problem; no engine and no referee has a part in it, so that it judges
all of them. Verdicts as in `verdict`: at a kink every subgradient and NaN are legal (`convention`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]
Member = Callable[[Values, float], bool]
"""Whether an array is in a set, up to a tolerance."""
Span = Callable[[Values], tuple[float, float]]
"""The least and the greatest directional derivative of a set of gradients, along a tangent."""

KINDS = ("unique", "set", "infinite", "jump", "limit", "undefined")
_LEGAL = {"unique": "agree", "infinite": "infinite", "undefined": "undefined"}

# Relative, entry by entry: rounding in a few dozen operations stays a thousand times below it.
TOLERANCE = {"float64": 1e-10, "complex128": 1e-10, "float32": 1e-4, "complex64": 1e-4}


@dataclass(frozen=True)
class Truth:
    """All right answers to one question.

    - ``unique``: the first of `accepted`.
    - ``set``: those of which `member` says so; `accepted` are examples. NaN is legal, too, unless `nan` says not.
      `span` gives the interval along a direction.
    - ``infinite``: the first of `accepted`, with infinite entries of the right sign.
    - ``jump``: the derivative beside the jump is the first of `accepted`; anything else is undefined.
    - ``limit``: at the border of the domain, or at infinity: each of `accepted` is defensible, and NaN.
    - ``undefined``: the function has no value there; every answer is undefined.
    """

    kind: str
    accepted: Mapping[str, Values] = field(default_factory=dict)
    member: Member | None = None
    says: str = ""
    nan: bool = True
    span: Span | None = None

    def __str__(self) -> str:
        if self.says:
            return self.says
        return " or ".join(_short(value) for value in self.accepted.values()) or self.kind

    @property
    def value(self) -> Values | None:
        """The one right answer, where there is one."""
        return next(iter(self.accepted.values())) if self.kind in ("unique", "infinite") else None

    def verdict(self, got: Any, like: Any, tolerance: float, scale: float = 0.0) -> tuple[str, str]:
        """The verdict on an answer that should have the shape and dtype of `like`, and a note.

        `tolerance` is relative, entry by entry; of terms of magnitude `scale`, which cancel, rounding counts, too.
        """
        got, like = np.asarray(got), np.asarray(like)
        if got.shape != like.shape:
            return "wrong", f"shape {got.shape}, expected {like.shape}"
        if got.dtype != like.dtype:
            return "wrong", f"dtype {got.dtype}, expected {like.dtype}"
        return self._judge(got, tolerance, scale)

    def _judge(self, got: Values, tolerance: float, scale: float) -> tuple[str, str]:
        if self.kind == "undefined":
            return "undefined", ""
        name = next((name for name, value in self.accepted.items() if close(got, value, tolerance, scale)), None)
        if name is not None:
            return _LEGAL.get(self.kind, "convention"), "" if self.kind in _LEGAL else name
        if self.kind == "jump":
            return ("convention", "nan") if np.isnan(got).any() else ("undefined", "not the slope beside the jump")
        if self.kind in ("set", "limit") and self.nan and np.isnan(got).any():
            return "convention", "nan"
        if self.member is not None and self.member(got, tolerance):
            return "convention", "another member"
        return "wrong", "nan" if np.isnan(got).any() else ""

    def along(self, tangent: Any) -> Truth | None:
        """The truth about the directional derivative, where it follows from the gradient: Re(g t) summed."""
        if self.span is not None:
            return box(*self.span(np.asarray(tangent)))
        if self.value is None:
            return None
        if not np.isfinite(self.value).all() and np.ndim(tangent):
            return None
        with np.errstate(invalid="ignore"):
            slope = np.real(np.sum(self.value * tangent))
        return Truth(self.kind, {"true": np.asarray(slope)})


def close(got: Values, expected: Values, tolerance: float, scale: float = 0.0) -> bool:
    """Entry by entry, relative to each; below a few units in the last place of the largest, rounding counts."""
    if got.shape != expected.shape:
        return False
    finite = np.where(np.isfinite(expected), np.abs(expected), 0.0)
    floor = 10 * np.finfo(np.float64).eps * np.max(finite, initial=scale) * (tolerance / TOLERANCE["float64"])
    with np.errstate(invalid="ignore"):
        near = np.abs(got - expected) <= tolerance * finite + floor
    return bool(np.all(near | (got == expected) | (np.isnan(got) & np.isnan(expected))))


def _short(value: Values) -> str:
    return np.array2string(np.asarray(value), precision=6, separator=", ", max_line_width=10**6).replace("\n", "")


def _array(value: Any) -> Values:
    found = np.asarray(value)
    return found if found.dtype.kind in "fc" else found.astype(float)


# Kinds.


def unique(value: Any) -> Truth:
    return Truth("unique", {"true": _array(value)})


def infinite(value: Any) -> Truth:
    return Truth("infinite", {"true": _array(value)})


def jump(beside: Any) -> Truth:
    return Truth("jump", {"beside": _array(beside)}, says=f"{_short(_array(beside))} beside the jump")


def limit(**accepted: Any) -> Truth:
    return Truth("limit", {name: _array(value) for name, value in accepted.items()})


UNDEFINED = Truth("undefined", says="undefined")


# Sets of subgradients, as closed forms: Clarke's subdifferential.


def members(says: str, member: Member, **examples: Any) -> Truth:
    return Truth("set", {name: _array(value) for name, value in examples.items()}, member, says)


def box(low: Any, high: Any) -> Truth:
    """Each entry between two numbers, independently."""
    low, high = _array(low), _array(high)

    def member(got: Values, tolerance: float) -> bool:
        slack = tolerance * (1 + np.maximum(np.abs(low), np.abs(high)))
        return bool(np.all((got >= low - slack) & (got <= high + slack)))

    def span(tangent: Values) -> tuple[float, float]:
        ends = low * tangent, high * tangent
        return float(np.sum(np.minimum(*ends))), float(np.sum(np.maximum(*ends)))

    return Truth("set", {}, member, f"from {_short(low)} to {_short(high)}", span=span)


def hull(*corners: Any) -> Truth:
    """Convex combinations of a few arrays."""
    points = np.stack([_array(corner) for corner in corners])
    flat = points.reshape(len(points), -1)
    scale = max(1.0, float(np.max(np.abs(points))))

    def member(got: Values, tolerance: float) -> bool:
        from scipy.optimize import nnls  # type: ignore[import-untyped]  # SciPy has no annotations

        # Weights that are not negative and add up to 1, by least squares.
        system = np.vstack([flat.T, np.full(len(points), scale)])
        _, residual = nnls(system, np.append(np.reshape(got, -1), scale))
        return bool(residual <= max(tolerance, 1e-12) * scale * 10)

    def span(tangent: Values) -> tuple[float, float]:
        slopes = flat @ np.reshape(tangent, -1)
        return float(np.min(slopes)), float(np.max(slopes))

    return Truth("set", {}, member, f"between {' and '.join(map(_short, points))}", span=span)


def ties(count: int, *tied: int, of: float = 1.0) -> Truth:
    """Shares of `of` among the tied places of a vector: what a maximum with ties has."""
    return hull(*(of * np.eye(count)[place] for place in tied))


def ball(norm: Callable[[Values], Any], says: str) -> Truth:
    """Arrays whose (dual) norm is at most 1."""
    return members(says, lambda got, tolerance: bool(norm(got) <= 1 + 10 * tolerance))


def symmetric(gradient: Any) -> Truth:
    """Of functions of symmetric matrices: how an off-diagonal slope is split between the two places is free."""
    even = _array(gradient)
    says = f"{_short(even)}, off-diagonal slopes split in any way"

    def member(got: Values, tolerance: float) -> bool:
        return close(got + got.T, even + even.T, tolerance)

    accepted = {"split evenly": (even + even.T) / 2, "lower triangle": np.tril(even + even.T) - np.diag(np.diag(even))}
    return Truth("set", accepted, member, says, nan=False)


@dataclass(frozen=True)
class Special:
    """What is known of a function at a special point.

    Args:
        truths: by operator: ``"grad"``, ``"jvp"``, ``"hessian"`` (of a 0-d argument: the second derivative),
            ``"third"``, ``"fourth"``.
        topic: what makes the point special, in a word.
        threads: where users met it, as ``"owner/repository#number"``.
        unjudged: why the referee is not asked (empty: it is).
        tolerance: relative, where rounding in the function itself is larger than usual.
        scale: magnitude of terms that cancel in the answer; rounding in these counts.
    """

    truths: Mapping[str, Truth]
    topic: str
    threads: tuple[str, ...] = ()
    unjudged: str = ""
    tolerance: float = 0.0
    scale: float = 0.0
