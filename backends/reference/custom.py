"""Custom rules: a function that is a primitive for as long as a call of it lasts.

Forward mode runs its forward rule. In reverse mode its reverse rule is a step of the linear program, or the linear
program that its forward rule makes of tangents, transposed. Below that level the function is called anew, and
differentiated by its rule there, too; the rules' own code is differentiated like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.batching import Batcher
from adbridge.backends.reference.checkpoint import Step, recorded_step, standing
from adbridge.backends.reference.one_hot import OneHot, dense
from adbridge.backends.reference.primitives import Batch, Primitive, Spec, Traced, fit, pick
from adbridge.backends.reference.program import Program, evaluate
from adbridge.backends.reference.rules.elementwise import negative
from adbridge.backends.reference.taylor import Taylor
from adbridge.backends.reference.tracer import LinearRecorder, Recorder, Trace, Tracer, concrete
from adbridge.backends.reference.transforms import Linearizer, Pusher, pull, zero_like
from adbridge.errors import NotDifferentiable
from adbridge.protocol import Arrays
from adbridge.rule_calls import Parts, RuleCall, guarded, is_floating
from adbridge.rule_rows import RowsCall

Call = RuleCall | RowsCall


class _Name(str):
    """A user's name, which is none of the engine's: another primitive may be called so."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


class Ruled(Primitive):
    """One call of a rule as a primitive: its result is an array, or the tuple of several."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        super().__init__(_Name(call.name), lambda *arrays: _single(call.primal(*map(guarded, arrays))))
        self.call = call
        self.jvp = self.tangents

    def __hash__(self) -> int:
        return hash(self.call.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ruled) and self.call.is_like(other.call)

    def __call__(self, *arrays: Any, **params: Any) -> Any:
        return _single(self.outputs(arrays))

    def outputs(self, arrays: Arrays) -> Arrays:
        """The function's outputs, by way of the highest trace among the arrays'."""
        arrays = standing(arrays)
        for x in arrays:
            if isinstance(x, Tracer):
                x.refresh()
        top = max((x.trace for x in arrays if isinstance(x, Tracer)), key=lambda trace: trace.level, default=None)
        if isinstance(top, Pusher):
            return self._under(top, arrays)
        if isinstance(top, Batcher):
            return self._batched(top, arrays)
        if isinstance(top, Taylor) or (isinstance(top, Recorder) and not _inlines(top)):
            return self._processed(top, arrays)
        outs = self.call.primal(*map(guarded, arrays))
        return outs if top is not None else self._open(outs, 0)

    def _under(self, top: Pusher, arrays: Arrays) -> Arrays:
        values = tuple(guarded(top.value_of(a)) for a in arrays)
        tangents = [a.extra if isinstance(a, Tracer) and a.trace is top else None for a in arrays]
        for i in self.call.frozen:
            if tangents[i] is not None:
                self.call.refuse_frozen(i)
        live = [i for i in self.call.moving if tangents[i] is not None]
        if not live:
            return tuple(Tracer(top, out, None) for out in self._open(self.outputs(values), top.level))
        if isinstance(top, Linearizer):
            return self._linearized(top, values, [tangents[i] for i in live], live)
        outs, pushed = self._pushed(values, [tangents[i] for i in self.call.moving])
        rest = iter(self._open(pushed, top.level))
        return tuple(
            Tracer(top, out, next(rest) if is_floating(out) else None) for out in self._below(outs, values, top)
        )

    def _pushed(self, values: Arrays, tangents: Sequence[Any]) -> tuple[Arrays, Arrays]:
        """``(outputs, tangents)`` by the forward rule, or by the reverse rule transposed; None is a zero tangent."""
        call = self.call
        filled = self._filled(values, tangents)
        if call.has_jvp:
            return call.jvp(values, filled)
        outs, parts, kept = call.fwd(*values)
        return outs, _pushed_back(call, outs, parts, kept, filled)

    def tangents(self, tangents: Sequence[Any], y: Any, args: Sequence[Any], params: dict[str, Any]) -> Any:
        """The rule, as that of a primitive."""
        outs, pushed = self._pushed(tuple(args), [tangents[i] for i in self.call.moving])
        rest = iter(pushed)
        return _single(tuple(next(rest) if is_floating(out) else None for out in outs))

    def _linearized(self, top: Linearizer, values: Arrays, tangents: list[Any], live: list[int]) -> Arrays:
        call = self.call
        places = [call.moving.index(i) for i in live]
        if call.has_vjp:
            outs, parts, kept = call.fwd(*values)
            self._open(kept, top.level)

            def push(filled: Arrays) -> Arrays:
                return call.jvp(values, filled)[1] if call.has_jvp else _pushed_back(call, outs, parts, kept, filled)

            def pulled(cotangents: Sequence[Any]) -> Arrays:
                return call.bwd(parts, kept, tuple(cotangents))
        else:
            outs, program = self._recorded(values)

            def push(filled: Arrays) -> Arrays:
                return evaluate(program, *filled)

            def pulled(cotangents: Sequence[Any]) -> Arrays:
                return pull(program, cotangents)

        def spread(*some: Any) -> Arrays:
            every: list[Any] = [None] * len(call.moving)
            for place, t in zip(places, some, strict=True):
                every[place] = t
            return push(self._filled(values, every))

        def gathered(cotangents: Sequence[Any]) -> list[Any]:
            found = pulled(cotangents)
            return [found[place] for place in places]

        outs = self._below(outs, values, top)
        return recorded_step(top, lambda specs: Step(spread, gathered, specs), tangents, outs)

    def _recorded(self, values: Arrays) -> tuple[Arrays, Program]:
        """The outputs, and what the forward rule does to tangents."""
        found: list[Arrays] = []

        def push(*tangents: Any) -> Arrays:
            outs, pushed = self.call.jvp(values, tangents)
            found.append(outs)
            return pushed

        try:
            program = linear_program(push, [values[i] for i in self.call.moving])
        except NotLinear as exc:
            raise self.call.cannot_derive("reverse", exc) from None
        return found[0], program

    def _below(self, outs: Arrays, values: Arrays, top: Trace) -> Arrays:
        """The outputs: where lower levels take part, of a call there, which they differentiate by the rule."""
        again = any(isinstance(x, Traced) for x in values)
        return self._open(self.outputs(values) if again else outs, top.level)

    def _filled(self, values: Arrays, tangents: Sequence[Any]) -> Arrays:
        """The moving arrays' tangents, zeros for None."""
        like = (values[i] for i in self.call.moving)
        return tuple(zero_like(x) if t is None else t for t, x in zip(tangents, like, strict=True))

    def _open(self, arrays: Arrays, level: int) -> Arrays:
        """The arrays below this level. Raises RuleError: one depends on a tracer of it that is no argument."""
        return tuple(self._opened(x, level) for x in standing(arrays))

    def _opened(self, x: Any, level: int) -> Any:
        while isinstance(x, Tracer) and x.trace.level >= level:
            x.refresh()
            if x.extra is not None or isinstance(x.value, (Batch, OneHot)):
                self.call.refuse_closed_over()
            x = x.value
        return x

    def _processed(self, top: Trace, arrays: Arrays) -> Arrays:
        """As a step that the trace knows nothing of but its rule."""
        y = top.process(self, arrays, {})
        if isinstance(top, Taylor) and top.memo is not None:  # it may know the result from a call before
            same = next(key[0] for key in top.memo if isinstance(key[0], Ruled) and key[0] == self)
            if isinstance(self.call, RuleCall) and isinstance(same.call, RuleCall):
                self.call.adopt(same.call)
        if hasattr(y.value, "dtype"):
            self._open((y.value,), top.level)
            return (y,)
        self._open(y.value, top.level)
        return tuple(pick(y, index=i) for i in range(len(y.value)))

    def _batched(self, top: Batcher, arrays: Arrays) -> Arrays:
        values = [dense(v) if isinstance(v := top.value_of(a), OneHot) else v for a in arrays]
        rows = tuple(isinstance(v, (Batch, OneHot)) for v in map(top.value_of, arrays))
        lower = tuple(v.array if isinstance(v, Batch) else v for v in values)
        if not any(isinstance(x, Traced) for x in lower):
            return self.call.primal(*arrays)
        outs = Ruled(RowsCall(self.call, rows, _mapped(top.size))).outputs(lower)
        return tuple(Tracer(top, Batch(out), None) for out in outs)


def _mapped(size: int) -> Callable[[Callable[..., Arrays], Sequence[bool]], Callable[..., Arrays]]:
    """`RowsCall.mapped` for this number of rows."""

    def mapped(fun: Callable[..., Arrays], rows: Sequence[bool]) -> Callable[..., Arrays]:
        def over(*arrays: Any) -> Arrays:
            trace = Batcher(size)
            try:
                outs = fun(*(trace.stacked(x) if row else x for x, row in zip(arrays, rows, strict=True)))
                return tuple(map(trace.unstacked, outs))
            finally:
                trace.close()

        return over

    return mapped


# Linear functions: what a forward rule does to tangents, and a reverse rule to cotangents.


class NotLinear(Exception):
    """A function of tangents, or of cotangents, that cannot be transposed."""


def linear_program(fun: Callable[..., Arrays], like: Sequence[Any]) -> Program:
    """The linear program of a function of arrays like these. Raises NotLinear."""
    trace = _LinearOnly()
    inputs = [trace.program.add_input(x.shape, x.dtype) for x in like]
    try:
        outs = standing(fun(*(_Unwritable(trace, var, var) for var in inputs)))
    finally:
        trace.close()
    trace.program.outputs = tuple(trace.var_of(out) for out in outs)
    if any(np.any(concrete(out)) for out in trace.program.outputs if not isinstance(out, Spec)):
        raise NotLinear("it does not depend on it and is not zero")
    return trace.program


def _pushed_back(call: Call, outs: Arrays, parts: Parts, kept: Arrays, tangents: Arrays) -> Arrays:
    """Tangents pushed by the reverse rule, transposed."""
    try:
        program = linear_program(lambda *cts: call.bwd(parts, kept, cts), [out for out in outs if is_floating(out)])
    except NotLinear as exc:
        raise call.cannot_derive("forward", exc) from None
    return pull(program, tangents)


_SUMS = frozenset({"add", "subtract", "where", "concat", "add_at"})
"""Linear in all their operands together; the others in each taken alone."""
_PLACES = {"divide": (0,), "solve": (1,), "where": (1, 2)}
"""The operands that a primitive is linear in, where it is not in every one of them."""


class _LinearOnly(LinearRecorder):
    """Refuses what cannot be transposed."""

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Tracer:
        self.refuse_if_closed(primitive)
        own = [i for i, a in enumerate(args) if isinstance(a, Tracer) and a.trace is self]
        if primitive.spec is None or any(not self._is_linear_in(primitive, i) for i in own):
            raise NotLinear(f"{primitive.name} of it is not linear")
        if len(own) > 1 and primitive.name not in _SUMS:
            raise NotLinear(f"{primitive.name} of it with itself is not linear")
        if primitive.name in _SUMS:
            rest = [a for i, a in enumerate(args) if i not in own and self._is_linear_in(primitive, i)]
            if any(np.any(concrete(a)) for a in rest):
                raise NotLinear(f"{primitive.name} adds what does not depend on it")
            if rest and primitive.name in ("add", "subtract"):
                x = fit(args[own[0]], primitive.spec(*map(self.value_of, args)))
                return negative(x) if own[0] == 1 and primitive.name == "subtract" else x  # type: ignore[no-any-return]
        found = super().process(primitive, args, params)
        return _Unwritable(self, found.value, found.extra)

    def _is_linear_in(self, primitive: Primitive, place: int) -> bool:
        if primitive.linear is not None:
            return place < len(primitive.linear) and primitive.linear[place]
        if primitive.name.startswith("cofactor"):
            return place > 0
        return place in _PLACES.get(primitive.name, (place,))


class _Unwritable(Tracer):
    """A tangent or cotangent. Writes are not recorded here: what is a view of it would not see them."""

    __slots__ = ()

    def update(self, new: Tracer) -> None:
        raise NotDifferentiable("a rule must not write into tangents or cotangents; make a new array")


def _inlines(trace: Recorder) -> bool:
    return trace.inline or isinstance(trace, LinearRecorder)


def _single(outs: Arrays) -> Any:
    return outs[0] if len(outs) == 1 else outs
