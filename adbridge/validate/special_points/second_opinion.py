"""The referee's view of an answer whose truth is known in closed form: it is itself on trial here."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from adbridge.bench.problem import Instance, Problem
from adbridge.validate.special_points.asking import MODES, Question, tangent_of
from adbridge.validate.special_points.truth import TOLERANCE

RIGHT = frozenset({"agree", "convention", "infinite", "undefined"})
SILENT = frozenset({"unresolved", "unsupported"})

# Which kinds of point the referee may find where the gradient's truth is of a kind. At a border of the domain it may
# speak of a kink, where the other side has no value.
_KINDS = {
    "unique": ("smooth",),
    "set": ("kink",),
    "infinite": ("infinite",),
    "jump": ("jump",),
    "limit": ("infinite", "undefined", "jump", "kink", "smooth"),
    "undefined": ("undefined", "jump", "infinite", "kink"),
}


@dataclass(frozen=True)
class View:
    """A verdict of the referee; or why it has none."""

    verdict: str
    note: str = ""
    expected: str = ""
    contradicts: bool = False
    ulp: float = math.nan
    forgiving: bool = False
    """It knows the one right value, and lets another pass as an engine's choice."""

    def contradicts_verdict(self, verdict: str) -> bool:
        """Whether one of the two calls right what the other calls wrong."""
        if self.verdict in SILENT or (self.forgiving and verdict == "wrong"):
            return False
        return (self.verdict in RIGHT) != (verdict in RIGHT)


class Opinion:
    """The referee at one special point; it is called when it is first asked."""

    def __init__(self, problem: Problem, instance: Instance) -> None:
        self.problem, self.instance = problem, instance
        self._said: dict[tuple[Any, ...], View] = {}

    @cached_property
    def _referee(self) -> Any:
        from adbridge.validate.referee import referee

        x, *rest = self.instance.args  # a function of the first argument alone: the others are data
        return referee(lambda x: self.instance.fun(x, *rest), x)

    @property
    def _excuse(self) -> str:
        special = self.problem.special
        return special.unjudged if special is not None else ""

    def on_kind(self) -> View:
        """Does it find the kind of point that the closed form says?"""
        special = self.problem.special
        truth = special.truths.get("grad") if special is not None else None
        if self._excuse or truth is None:
            return View("unresolved", self._excuse or "the gradient is not asked for")
        found = self._judge(lambda: self._referee.classify())
        if isinstance(found, View):
            return found
        expected = " or ".join(_KINDS[truth.kind])
        if found.kind == "unresolved":
            return View("unresolved", str(found), expected)
        border = truth.kind == "unique" and "border of the domain" in found.note
        written = truth.kind == "set" and not truth.nan  # one of several values, all of them smooth
        right = found.kind in _KINDS[truth.kind] or border or written
        return View("agree" if right else "wrong", str(found), expected, not right)

    def on_value(self) -> tuple[Any, View] | None:
        """Its own gradient against the closed form; None where that is not one value."""
        special = self.problem.special
        truth = special.truths.get("grad") if special is not None else None
        if self._excuse or special is None or truth is None or truth.value is None or not truth.value.size:
            return None
        found = self._judge(lambda: np.asarray(self._referee.grad()))
        if isinstance(found, View):
            return None, found
        like = self.instance.args[0].astype(found.dtype)
        name = "complex128" if like.dtype.kind == "c" else "float64"
        verdict, note = truth.verdict(found, like, max(TOLERANCE[name], special.tolerance), special.scale)
        return found, View(verdict, note, str(truth), verdict == "wrong")

    def on(self, question: Question, got: Any) -> View:
        """Its verdict on an engine's answer; engines that answer alike are judged once."""
        if self._excuse:
            return View("unresolved", self._excuse)
        key = (question.operator, got.shape, str(got.dtype), got.tobytes())
        if key not in self._said:
            self._said[key] = self._on(question, got)
        return self._said[key]

    def _on(self, question: Question, got: Any) -> View:
        found = self._judge(lambda: self._finding(question, got))
        if found is None:
            return View("unresolved", "no judge of this order")
        if isinstance(found, View):
            return found
        expected = "" if found.expected is None else str(found.expected)
        note = f"{found.entry} {expected} {found.note}".strip()
        forgiving = found.verdict == "convention" and isinstance(found.expected, float)
        return View(found.verdict, note, expected, ulp=found.error_ulp, forgiving=forgiving)

    def _finding(self, question: Question, got: Any) -> Any:
        from adbridge.validate import judging

        x = self.instance.args[0]
        if question.operator == "grad":
            return judging.judge_vjp(self._referee, 1.0, (got,))
        if question.operator == "jvp":
            return judging.judge_jvp(self._referee, (tangent_of(x),), got)
        if question.operator in MODES and got.shape == x.shape * 2 and x.dtype.kind == "f":
            along = np.tensordot(got, tangent_of(x), axes=x.ndim).astype(x.dtype)
            return judging.judge_hvp(self._referee, (tangent_of(x),), (along,))
        return None

    def _judge(self, call: Callable[[], Any]) -> Any:
        """What it says; a failure of its own is a verdict ``error`` on nobody but itself."""
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                return call()
        except Exception as exc:
            line = str(exc).partition("\n")[0][:160]
            return View("unresolved", f"the referee failed: {type(exc).__name__}: {line}")
