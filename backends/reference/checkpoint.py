"""Recomputing instead of storing: one step of the linear program stands for a whole function, or a whole loop.

The step keeps the function's inputs alone. Run forward it pushes tangents through the function; run backward
it linearises the function anew at these inputs, and pulls. Tracers that the function closes over are found in
its first run; from then on they are inputs like its arguments.

A loop keeps a few of its states, by the binomial schedule: A. Griewank & A. Walther, "Algorithm 799: Revolve",
ACM TOMS 26(1), 2000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from math import comb, prod
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import Primitive, Spec, Traced, Var, defzero, fit, unfit
from adbridge.backends.reference.rules.elementwise import add
from adbridge.backends.reference.rules.shaping import concat, getitem, reshape
from adbridge.backends.reference.tracer import Trace, Tracer
from adbridge.backends.reference.transforms import Linearizer, Pusher, pull, push_through, zero_like
from adbridge.errors import NotDifferentiable
from adbridge.protocol import Arrays

Function = Callable[..., Arrays]
"""Of flat arrays, to flat arrays."""
Attached = list[Any]
"""A tangent, or the Var of one, for each input; None for zero."""


def checkpoint(fun: Function, arrays: Arrays) -> Arrays:
    """``fun(*arrays)``; reverse mode keeps its inputs, and runs it once more instead of storing what it computes."""
    return _at_top(_top(arrays), lambda trace: _checkpointed(fun, arrays, trace)) or fun(*arrays)


def checkpoint_loop(step: Callable[..., Arrays], state: Arrays, steps: int, snapshots: int) -> Arrays:
    """``state = step(i, *state)`` for i from 0 to `steps` - 1; reverse mode keeps about `snapshots` states."""
    done, top, reached = 0, _top(state), state
    if steps and top is None:  # the first step tells whether it closes over tracers
        done, reached = 1, step(0, *state)
        top = _top(reached)
    found = _at_top(top, lambda trace: _looped(step, state, steps, snapshots, trace))
    if found is not None:
        return found
    for i in range(done, steps):
        reached = step(i, *reached)
    return reached


def _at_top(top: Trace | None, run: Callable[[Linearizer], Arrays | Trace]) -> Arrays | None:
    """The run on the highest level that reverse mode uses here; None where none does.

    A function that closes over tracers of a higher level than its arguments' shows it by its results: a run that
    finds them returns their trace.
    """
    while type(top) is Linearizer:
        result = run(top)
        if not isinstance(result, Trace):
            return result
        top = result
    return None


def _above(trace: Trace, arrays: Sequence[Any]) -> Trace | None:
    """The trace of tracers among the arrays of a higher level than the trace's."""
    top = _top(arrays)
    return top if top is not None and top.level > trace.level else None


def _top(arrays: Sequence[Any]) -> Trace | None:
    traces = [x.trace for x in arrays if isinstance(x, Traced)]
    return max(traces, key=lambda trace: trace.level, default=None)


class Rerun:
    """Runs of functions at one level: `trace` takes no part in them, and what is closed over of it is an input."""

    def __init__(self, trace: Linearizer) -> None:
        self.trace = trace
        self.context: Context = copy_context()  # the backend in force, NumPy's error state
        self.found: list[tuple[Tracer, Any, Any]] = []
        """The closed-over tracers, in the order of their first use, with their values and tangents then."""
        self.complete = False
        """Whether the first run is over, which finds them."""

    def evaluate(self, fun: Function, values: Sequence[Any]) -> Arrays:
        """The function's values; nothing is recorded."""
        trace = Pusher()
        with self._replaced(trace, [None] * len(self.found)):
            return self._run(trace, fun, values, [None] * len(values))[0]

    def push(self, fun: Function, values: Sequence[Any], tangents: Attached, closed: Attached) -> list[Any]:
        """The outputs' tangents; `closed` are those of what it closes over."""
        trace = Pusher()
        with self._replaced(trace, closed):
            outs, pushed = self._run(trace, fun, values, tangents)
        return [zero_like(out) if t is None else t for t, out in zip(pushed, outs, strict=True) if _is_inexact(out)]

    def pull(self, fun: Function, values: Sequence[Any], cotangents: Sequence[Any]) -> tuple[Attached, Attached]:
        """The cotangents of the arguments, and of what it closes over; both have them of floating arrays alone."""
        trace = Linearizer()
        program = trace.program
        inputs = [program.add_input(x.shape, x.dtype) if _is_inexact(x) else None for x in values]
        closed = [None if t is None else program.add_input(v.shape, v.dtype) for _, v, t in self.found]
        try:
            with self._replaced(trace, closed):
                outs, tangents = self._run(trace, fun, values, inputs)
                program.outputs = tuple(t for t, out in zip(tangents, outs, strict=True) if _is_inexact(out))
                # Still with the replacements: checkpoints within `fun` run it in part.
                pulled = iter(self.context.copy().run(pull, program, cotangents))
        finally:
            trace.recorder.close()
        by_input = [None if var is None else next(pulled) for var in inputs]
        return by_input, [None if var is None else next(pulled) for var in closed]

    def _run(self, trace: Pusher, fun: Function, values: Sequence[Any], attached: Attached) -> tuple[Arrays, Attached]:
        def checked(*args: Any) -> tuple[Arrays, Arrays]:
            outs = fun(*args)
            if any(a.value is not x for a, x in zip(args, values, strict=True)):
                raise _refusal("writes into its argument; copy it first (x = x * 1)")
            return standing(outs), ()

        return self.context.copy().run(push_through, trace, checked, tuple(values), attached)[:2]

    @contextmanager
    def _replaced(self, trace: Trace, closed: Attached) -> Iterator[None]:
        """For a while, operations on the closed-over tracers are operations on tracers of `trace` instead."""
        stand_ins = [Tracer(trace, value, t) for (_, value, _), t in zip(self.found, closed, strict=True)]

        def stand_in(x: Tracer) -> Tracer:
            for (known, _, _), other in zip(self.found, stand_ins, strict=True):
                if known is x:
                    return other
            if self.complete:
                raise _refusal("closes over other arrays when it is run again; it must do the same each time")
            self.found.append((x, x.value, x.extra))
            stand_ins.append(Tracer(trace, x.value, None))
            return stand_ins[-1]

        before = dict(self.trace.__dict__)
        vars(self.trace).update(stand_in=stand_in, process=_elsewhere)
        vars(trace)["process"] = _beside(trace)
        try:
            yield
        finally:
            vars(self.trace).clear()
            vars(self.trace).update(before)
            del vars(trace)["process"]  # a cycle: what the trace holds would stay until it is collected
            self._restore()

    def _owns(self, x: Any) -> bool:
        return isinstance(x, Tracer) and x.trace is self.trace

    def _restore(self) -> None:
        """Raises NotDifferentiable if a closed-over array was written to; it is as before."""
        written = [entry for entry in self.found if not self._owns(entry[0])]
        for x, value, extra in written:
            x.trace, x.value, x.extra = self.trace, value, extra
        if written:
            raise _refusal("writes into an array that it closes over; pass it as an argument and return the new one")


def standing(arrays: Sequence[Any]) -> Arrays:
    """The arrays, with what stands for those of traces that take no part at present (in nested runs: in turn)."""
    arrays = list(arrays)
    for i, x in enumerate(arrays):
        while isinstance(x, Tracer) and (stand_in := vars(x.trace).get("stand_in")) is not None:
            x = stand_in(x)
        arrays[i] = x
    return tuple(arrays)


def _elsewhere(primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """`Trace.process` of a trace that takes no part."""
    return primitive(*standing(args), **params)


def _beside(trace: Trace) -> Callable[..., Any]:
    """`Trace.process` of the trace that its tracers are replaced for."""
    process = trace.process
    return lambda primitive, args, params: process(primitive, standing(args), params)


def _refusal(what: str) -> NotDifferentiable:
    return NotDifferentiable(f"a checkpointed function must be pure, and this one {what}")


class Step(Primitive):
    """A step of a linear program that is not one operation. It computes with tangents of any level by itself.

    Its result is all its outputs' tangents in one array (a program's steps have one result).
    """

    __slots__ = ()

    def __init__(
        self, push: Callable[..., Sequence[Any]], pull: Callable[[Sequence[Any]], Attached], outs: Sequence[Spec]
    ) -> None:
        super().__init__("checkpoint", lambda *tangents: _packed(push(*tangents), outs))
        self.transpose = lambda ct, args, params: pull(_unpacked_cotangents(ct, outs))

    def __call__(self, *tangents: Any, **params: Any) -> Any:
        return self.impl(*tangents)


def _packed(arrays: Sequence[Any], specs: Sequence[Spec]) -> Any:
    if len(specs) == 1:
        return fit(arrays[0], specs[0])
    whole = _whole(specs)
    flat = [
        fit(reshape(a, shape=(prod(s.shape),)), Spec((prod(s.shape),), whole.dtype))
        for a, s in zip(arrays, specs, strict=True)
    ]
    return concat(*flat, axis=0)


def _whole(specs: Sequence[Spec]) -> Spec:
    if len(specs) == 1:
        return specs[0]
    return Spec((sum(prod(s.shape) for s in specs),), np.result_type(*(s.dtype for s in specs)))


def _unpacked(packed: Any, specs: Sequence[Spec], cast: Callable[[Any, Spec], Any]) -> list[Any]:
    if len(specs) == 1:
        return [packed]
    parts, start = [], 0
    for spec in specs:
        stop = start + prod(spec.shape)
        parts.append(cast(reshape(getitem(packed, key=slice(start, stop)), shape=spec.shape), spec))
        start = stop
    return parts


def _unpacked_cotangents(packed: Any, specs: Sequence[Spec]) -> list[Any]:
    return _unpacked(packed, specs, unfit)


def recorded_step(
    trace: Linearizer, step: Callable[[Sequence[Spec]], Step], tangents: Sequence[Var], outs: Arrays
) -> Arrays:
    """The step in the linear program: the outputs' values as tracers with its results as tangents."""
    specs = [Spec(out.shape, out.dtype) for out in outs if _is_inexact(out)]
    if not specs or not tangents:
        return tuple(Tracer(trace, out, None) for out in outs)
    whole = _whole(specs)
    var = trace.program.append(step(specs), tuple(tangents), {}, whole.shape, whole.dtype)
    parts = iter(_unpacked(Tracer(trace.recorder, var, var), specs, fit))
    return tuple(Tracer(trace, out, next(parts).extra if _is_inexact(out) else None) for out in outs)


def _moving(arrays: Sequence[Any], rerun: Rerun) -> list[Any]:
    """The tangents of the arguments, then of what is closed over: Vars, None for zero."""
    own = [x.extra if isinstance(x, Tracer) and x.trace is rerun.trace else None for x in arrays]
    return [*own, *(t for _, _, t in rerun.found)]


def _spread(tangents: Sequence[Any], moving: Sequence[Any]) -> list[Any]:
    """Tangents of those that move, in the places of all."""
    rest = iter(tangents)
    return [None if t is None else next(rest) for t in moving]


def _checkpointed(fun: Function, arrays: Arrays, trace: Linearizer) -> Arrays | Trace:
    rerun, values = Rerun(trace), [trace.value_of(a) for a in arrays]
    outs = rerun.evaluate(fun, values)
    if higher := _above(trace, outs):
        return higher
    rerun.complete = True
    moving = _moving(arrays, rerun)

    def push(*tangents: Any) -> list[Any]:
        every = _spread(tangents, moving)
        return rerun.push(fun, values, every[: len(values)], every[len(values) :])

    def pull(cotangents: Sequence[Any]) -> Attached:
        by_input, closed = rerun.pull(fun, values, cotangents)
        return [c for c, t in zip([*by_input, *closed], moving, strict=True) if t is not None]

    return recorded_step(trace, lambda specs: Step(push, pull, specs), [t for t in moving if t is not None], outs)


stop_gradient = defzero(Primitive("stop_gradient", lambda x: x))
"""The array itself, with a zero derivative."""

# Loops.


def _looped(
    step: Callable[..., Arrays], state: Arrays, steps: int, snapshots: int, trace: Linearizer
) -> Arrays | Trace:
    rerun, values = Rerun(trace), tuple(trace.value_of(x) for x in state)
    kept = {0: values}
    spine = set(_spine(steps, snapshots))
    for i in range(steps):
        values = rerun.evaluate(partial(step, i), values)
        if higher := _above(trace, values):
            return higher
        if i + 1 in spine:
            kept[i + 1] = values
    rerun.complete = True
    moving = _moving(state, rerun)

    def whole(*state: Any) -> Arrays:
        for i in range(steps):
            state = step(i, *state)
        return state

    def push(*tangents: Any) -> list[Any]:
        every = _spread(tangents, moving)
        return rerun.push(whole, kept[0], every[: len(state)], every[len(state) :])

    def pull(cotangents: Sequence[Any]) -> Attached:
        reverse = _Reversal(rerun, step, kept, list(cotangents), [None] * len(rerun.found))
        reverse.over(0, steps, snapshots, kept[0])
        initial = iter(reverse.cotangents)
        by_input = [next(initial) if _is_inexact(x) else None for x in kept[0]]
        return [c for c, t in zip([*by_input, *reverse.closed], moving, strict=True) if t is not None]

    return recorded_step(trace, lambda specs: Step(push, pull, specs), [t for t in moving if t is not None], values)


@dataclass
class _Reversal:
    """A loop being pulled: the cotangents of the state that has been reached, and of what the steps close over."""

    rerun: Rerun
    step: Callable[..., Arrays]
    kept: dict[int, Arrays]
    cotangents: list[Any]
    closed: list[Any]

    def over(self, start: int, stop: int, snapshots: int, state: Arrays) -> None:
        """Pull steps `stop` - 1 down to `start`, where `state` is that before them; it is one of the snapshots."""
        while stop - start > 1:
            middle = start + split(stop - start, snapshots)
            self.over(middle, stop, snapshots - 1, self._advanced(start, middle, state))
            stop = middle
        if stop > start:
            self._pull(start, state)

    def _advanced(self, start: int, stop: int, state: Arrays) -> Arrays:
        if stop in self.kept:
            return self.kept[stop]
        for i in range(start, stop):
            state = self.rerun.evaluate(partial(self.step, i), state)
        return state

    def _pull(self, i: int, state: Arrays) -> None:
        by_input, closed = self.rerun.pull(partial(self.step, i), state, self.cotangents)
        self.cotangents = [c for c, x in zip(by_input, state, strict=True) if _is_inexact(x)]
        self.closed = [
            b if a is None else a if b is None else add(a, b) for a, b in zip(self.closed, closed, strict=True)
        ]


def split(steps: int, snapshots: int) -> int:
    """How far the next snapshot is from the last, for the fewest evaluations (Revolve's choice is not unique).

    With s snapshots and r runs of each step, beta(s, r) = C(s + r, s) steps can be reversed.
    """
    if snapshots <= 1:
        return steps - 1
    runs = next(r for r in range(1, steps + 1) if comb(snapshots + r, snapshots) >= steps)
    return max(1, min(comb(snapshots + runs - 1, snapshots), steps - comb(snapshots + runs - 2, snapshots - 1)))


def _spine(steps: int, snapshots: int) -> Iterator[int]:
    """Where the first sweep takes snapshots."""
    start = 0
    while steps - start > 1:
        start += split(steps - start, snapshots)
        snapshots -= 1
        yield start


def _is_inexact(x: Any) -> bool:
    return bool(x.dtype.kind in "fc")
