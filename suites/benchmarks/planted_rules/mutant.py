"""A planted error, and short ways of writing one down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .mutations import (
    Mutation,
    space,
)
from .rule import Array, Rule
from .rules import RULES

FORWARD, REVERSE = ("forward",), ("reverse",)


@dataclass(frozen=True)
class Mutant:
    """A wrong rule: `kind` is the class of its error, `rule` the right rule that it was, `what` what is wrong."""

    kind: str
    rule: str
    what: str
    mutation: Mutation
    args: tuple[Any, ...] | None = None  # another example, at which the error does not show

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.rule}, {self.what}" if self.what else f"{self.kind}: {self.rule}"

    def build(self) -> Rule:
        """A new rule, with no memory of earlier calls."""
        right = RULES[self.rule]
        return self.mutation(right if self.args is None else replace(right, args=self.args))


def over(kind: str, what: str, mutation: Mutation, *rules: str) -> Iterator[Mutant]:
    for rule in rules:
        yield Mutant(kind, rule, what, mutation)


def moved(kind: str, what: str, mutation: Mutation, **examples: Array) -> Iterator[Mutant]:
    """At another example: where the error does not show."""
    for rule, x in examples.items():
        yield Mutant(kind, rule.replace("_", "-"), what, mutation, (x,))


def with_bwd(change: Callable[[Any, Any], Any]) -> Mutation:
    return lambda rule: replace(rule, bwd=change)


def with_jvp(change: Callable[[Any, Any], Any]) -> Mutation:
    """``change(primals, tangents)`` gives the tangent."""
    return lambda rule: replace(rule, jvp=lambda p, t: (rule.fun(*p), change(p, t)))


def with_slope(slope: Callable[[Any, Array, Array], Array]) -> Mutation:
    """Another slope, ``slope(xp, x, y)``, of an elementwise function."""

    def mutate(rule: Rule) -> Rule:
        made: dict[str, Any] = {}
        if rule.jvp is not None:
            made["jvp"] = lambda p, t: (rule.fun(*p), slope(space(p), p[0], rule.fun(*p)) * t[0])
        if rule.bwd is not None:
            made["bwd"] = lambda r, ct: (slope(space(ct), *r) * ct,)
        return replace(rule, **made)

    return mutate


def on_cotangent(change: Callable[[Any], Any]) -> Mutation:
    """`bwd` is given another tree of cotangents."""

    def mutate(rule: Rule) -> Rule:
        old = rule.bwd
        assert old is not None
        return replace(rule, bwd=lambda residuals, ct: old(residuals, change(ct)))

    return mutate


def rounded(xp: Any, g: Array) -> Array:
    """The right dtype, with half of its digits gone."""
    return xp.astype(xp.astype(g, xp.float32), g.dtype)
