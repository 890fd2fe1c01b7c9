"""What a backend answers when it is asked for a derivative at a special point: an array, or why there is none."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from adbridge.bench.problem import Instance, Problem
from adbridge.errors import NotDifferentiable
from adbridge.operators import grad, jvp
from adbridge.protocol import Backend
from adbridge.second_order import hessian
from adbridge.validate.special_points.truth import TOLERANCE, Truth

MODES = {
    "hessian fr": "forward-over-reverse",
    "hessian rf": "reverse-over-forward",
    "hessian rr": "reverse-over-reverse",
    "hessian ff": "forward-over-forward",
}


@dataclass(frozen=True)
class Question:
    """One derivative at one point, and every right answer; None where only the referee knows."""

    problem: Problem
    instance: Instance
    operator: str
    truth: Truth | None

    @property
    def scale(self) -> float:
        return self.problem.special.scale if self.problem.special else 0.0

    @property
    def tolerance(self) -> float:
        own = self.problem.special.tolerance if self.problem.special else 0.0
        return max(own, TOLERANCE[str(self.instance.args[0].dtype)])


def questions(problem: Problem) -> Iterator[Question]:
    """All that is to be asked at a special point: forward mode wherever reverse is, Hessians in all four modes."""
    assert problem.special is not None, f"{problem.name} is not a special point"
    truths = problem.special.truths
    instance = problem.instance(*problem.sizes[0])
    for operator, truth in truths.items():
        names = list(MODES) if operator == "hessian" else [operator]
        yield from (Question(problem, instance, name, truth) for name in names)
    gradient = truths.get("grad")
    if "jvp" not in truths and gradient is not None and gradient.kind in ("unique", "infinite", "set"):
        along = gradient.along(tangent_of(instance.args[0]))
        whole = any(a.dtype.kind not in "fc" for a in instance.args)  # `jvp` takes no integers
        if not whole and (along is not None or not problem.special.unjudged):
            yield Question(problem, instance, "jvp", along)


def tangent_of(x: Any) -> Any:
    """A direction with signs that change and no two entries alike; 1 for a single number."""
    steps = np.arange(x.size)
    tangent = np.where(steps % 2, -1.0, 1.0) * (1 + steps / 8)
    return tangent.reshape(x.shape).astype(x.dtype)


def tangents_of(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Along the first argument; the other floating ones stay, integers have no tangent."""
    rest = (np.zeros_like(a) if a.dtype.kind in "fc" else None for a in args[1:])
    return (tangent_of(args[0]), *rest)


@dataclass(frozen=True)
class Reply:
    """The answer, and an array of the shape and dtype that it should have; or `failed` and the reason.

    `failed` is "unsupported" or "error".
    """

    value: Any = None
    like: Any = None
    failed: str = ""
    note: str = ""


def ask(question: Question, backend: Backend) -> Reply:
    """Run it; what the engine raises is an answer, too."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of the point's infinities
            value, like = _derivative(question, backend)
            return Reply(np.asarray(value), np.asarray(like))
    except (NotImplementedError, NotDifferentiable, AttributeError) as exc:  # it lacks the function, or its rule
        return Reply(failed="unsupported", note=_line(exc))
    except Exception as exc:
        return Reply(failed="error", note=f"{type(exc).__name__}: {_line(exc)}")


def _line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0][:160]


def _derivative(question: Question, backend: Backend) -> tuple[Any, Any]:
    """The derivative, and what it should be like."""
    fun, args = question.instance.fun, question.instance.args
    x = args[0]
    if question.operator == "jvp":
        out, tangent = jvp(fun, args, tangents_of(args), backend=backend)
        return tangent, out
    if question.operator in MODES:
        return hessian(fun, mode=MODES[question.operator], backend=backend)(*args), np.zeros(x.shape * 2, x.dtype)
    for _ in range(_TIMES[question.operator]):
        fun = grad(fun, backend=backend)
    return fun(*args), x


_TIMES = {"grad": 1, "third": 3, "fourth": 4}
