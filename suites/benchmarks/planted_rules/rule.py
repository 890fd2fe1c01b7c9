"""What a planted rule is: a function, its derivative rule, and an example to check it at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import adbridge as ad

Array = Any
Interval = tuple[float, float]
REALS: Interval = (-np.inf, np.inf)


@dataclass(frozen=True)
class Rule:
    """A function with a derivative rule in one or both modes, as they are given to `ad.custom_rule`.

    ``fun(*args)`` is the primal, ``jvp(primals, tangents)`` gives its value and tangent, ``fwd(*args)`` its value and
    residuals, ``bwd(residuals, cotangent)`` a cotangent per argument. `args` is where it is checked. `domain`, an
    interval per argument or a predicate of them, is where the function and its rule are meant to be used. `source`
    says where the formula is from, if it is not school calculus.
    """

    name: str
    fun: Callable[..., Any]
    args: tuple[Any, ...]
    jvp: Callable[..., Any] | None = None
    fwd: Callable[..., Any] | None = None
    bwd: Callable[..., Any] | None = None
    domain: tuple[Interval, ...] | Callable[..., bool] | None = None
    nondiff_argnums: tuple[int, ...] = ()
    source: str = ""

    def custom(self) -> Any:
        """The rule made active: an `ad.CustomRule`."""
        rule = ad.custom_rule(self.fun, nondiff_argnums=self.nondiff_argnums)
        if self.jvp is not None:
            rule.defjvp(self.jvp)
        if self.fwd is not None and self.bwd is not None:
            rule.defvjp(self.fwd, self.bwd)
        return rule

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that the rule itself gives: "forward", "reverse"."""
        return tuple(m for m, part in (("forward", self.jvp), ("reverse", self.bwd)) if part is not None)


def linear(
    name: str, fun: Callable[[Array], Array], transpose: Callable[[Array], Array], x: Array, source: str = ""
) -> Rule:
    """A linear map of one array: it is its own tangent; ``transpose(ct)`` is its transpose."""
    return Rule(
        name,
        fun,
        (x,),
        jvp=lambda primals, tangents: (fun(primals[0]), fun(tangents[0])),
        fwd=lambda x: (fun(x), ()),
        bwd=lambda _, ct: (transpose(ct),),
        source=source,
    )


def unbroadcast(xp: Any, ct: Array, shape: tuple[int, ...]) -> Array:
    """Broadcast axes are summed back: the transpose of broadcast is sum."""
    lead = ct.ndim - len(shape)
    summed = xp.sum(ct, axis=tuple(range(lead))) if lead else ct
    for axis, length in enumerate(shape):
        if length == 1 and summed.shape[axis] != 1:
            summed = xp.sum(summed, axis=axis, keepdims=True)
    return summed


space = ad.array_namespace


def array(*values: Any) -> Array:
    return np.array(values, dtype=np.float64)


def draw(seed: int, *shape: int, low: float = -1.0, high: float = 1.0) -> Array:
    """A fixed random array, uniform in an interval."""
    return np.random.default_rng(seed).uniform(low, high, shape)
