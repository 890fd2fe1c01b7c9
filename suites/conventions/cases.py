"""How an entry of the suite is written: one call of `case`, in our own words, with its truth in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from adbridge.bench.problem import Instance, Problem
from adbridge.errors import UsageError
from adbridge.validate.special_points.portable import portable
from adbridge.validate.special_points.truth import Special, Truth, unique

Function = Callable[..., Any]


def case(
    name: str,
    fun: Function,
    *point: Any,
    topic: str,
    grad: Any = None,
    jvp: Any = None,
    hessian: Any = None,
    third: Any = None,
    fourth: Any = None,
    threads: tuple[str, ...] = (),
    unjudged: str = "",
    tolerance: float = 0.0,
    scale: float = 0.0,
) -> Problem:
    """A function ``fun(xp, *point)``, differentiated with respect to the first argument, at one point.

    `grad` ... `fourth`: the truth about each derivative that is asked for; a plain value is the one right answer.
    Forward mode is asked, too, wherever the gradient is.
    """
    asked = {"grad": grad, "jvp": jvp, "hessian": hessian, "third": third, "fourth": fourth}
    truths = {op: t if isinstance(t, Truth) else unique(t) for op, t in asked.items() if t is not None}
    args = tuple(map(_argument, point))

    def make(n: int, m: int, rng: np.random.Generator) -> Instance:
        return Instance(lambda *xs: fun(portable(*xs), *xs), tuple(map(np.copy, args)), _no_answer)

    special = Special(truths, topic, threads, unjudged, tolerance, scale)
    return Problem(
        name,
        make,
        sizes=((args[0].size, 1),),
        operators=tuple(truths),
        source=", ".join(threads),
        special=special,
    )


def _argument(value: Any) -> Any:
    """Python numbers are float64 (or complex128); arrays keep their dtype."""
    found = np.asarray(value)
    return found if isinstance(value, np.ndarray) or found.dtype.kind in "fc" else found.astype(float)


def _no_answer(*args: Any) -> NoReturn:
    raise UsageError("a special point may have several right answers or none; run: adbridge check conventions")


def const(xp: Any, value: Any) -> Any:
    """A constant of the engine."""
    return xp.asarray(np.asarray(value, float))
