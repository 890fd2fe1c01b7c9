"""A custom rule over a batch, for engines that leave it to their adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from adbridge.protocol import Arrays
from adbridge.rule_calls import Parts, RuleCall


class RowsCall:
    """A call of a rule for every row of stacked arrays: a `RuleCall` again. `rows` tells which arrays are stacked.

    ``mapped(fun, rows)`` is the engine's map: `fun` takes and returns flat tuples of arrays, and its results are
    stacked, all of them.
    """

    def __init__(
        self,
        call: RuleCall | RowsCall,
        rows: Sequence[bool],
        mapped: Callable[[Callable[..., Arrays], Sequence[bool]], Callable[..., Arrays]],
    ) -> None:
        self.call, self.rows, self.mapped = call, rows, mapped
        self.whole: RuleCall = call if isinstance(call, RuleCall) else call.whole
        self.name, self.moving, self.frozen = self.whole.name, self.whole.moving, self.whole.frozen
        self.has_jvp, self.has_vjp, self.backend = self.whole.has_jvp, self.whole.has_vjp, self.whole.backend
        self.refuse_frozen, self.refuse_closed_over = self.whole.refuse_frozen, self.whole.refuse_closed_over
        self.cannot_derive, self.refuse_unless_linear = self.whole.cannot_derive, self.whole.refuse_unless_linear

    @property
    def floating(self) -> Sequence[int]:
        return self.whole.floating

    def primal(self, *arrays: Any) -> Arrays:
        return self.mapped(self.call.primal, self.rows)(*arrays)

    def jvp(self, arrays: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
        def run(*xs: Any) -> Arrays:
            outs, pushed = self.call.jvp(xs[: len(arrays)], xs[len(arrays) :])
            return *outs, *pushed

        moving = [self.rows[i] for i in self.moving]
        found = self.mapped(run, [*self.rows, *moving])(*arrays, *tangents)
        count = len(found) - len(self.floating)
        return found[:count], found[count:]

    def fwd(self, *arrays: Any) -> tuple[Arrays, Parts, Arrays]:
        about: list[Any] = []

        def run(*xs: Any) -> Arrays:
            outs, parts, kept = self.call.fwd(*xs)
            about[:] = parts, len(outs)
            return *outs, *kept

        found = self.mapped(run, self.rows)(*arrays)
        parts, count = about
        return found[:count], parts, found[count:]

    def bwd(self, parts: Parts, kept: Arrays, cotangents: Arrays) -> Arrays:
        def run(*xs: Any) -> Arrays:
            return self.call.bwd(parts, xs[: len(kept)], xs[len(kept) :])

        found = self.mapped(run, [True] * (len(kept) + len(cotangents)))(*kept, *cotangents)
        xp = self.backend.namespace
        return tuple(c if self.rows[i] else xp.sum(c, axis=0) for c, i in zip(found, self.moving, strict=True))

    def is_like(self, other: Any) -> bool:
        return self is other
