"""Derivatives: jvp, linearize, transpose; and vjp, which is linearize then transpose.

A. Radul et al., "You only linearize once: tangents transpose to gradients", POPL 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import (
    NUMBERS,
    Primitive,
    Spec,
    Traced,
    Var,
    check_count,
    fit,
    in_precision_of,
    unfit,
)
from adbridge.backends.reference.program import Program, evaluate
from adbridge.backends.reference.rules.elementwise import add, multiply, negative
from adbridge.backends.reference.rules.shaping import add_at, getitem
from adbridge.backends.reference.tracer import LinearRecorder, Recorder, Trace, Tracer
from adbridge.errors import NotDifferentiable
from adbridge.protocol import Arrays, FlatFunction

Params = dict[str, Any]
NO_PARAMS: Params = {}


class Pusher(Trace):
    """Forward mode: evaluates, and pushes a tangent (None for zero) by the primitive's JVP rule."""

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Tracer:
        if not self.open:
            self.refuse_if_closed(primitive)
        values, tangents, moving, compute = [], [], False, primitive.impl
        for arg in args:
            if isinstance(arg, Tracer) and arg.trace is self:
                value, t = arg.value, arg.extra
                if t is not None:
                    moving = True
            else:
                value, t = arg, None
            if isinstance(value, Traced):
                compute = primitive  # a lower level has to know
            values.append(value)
            tangents.append(t)
        y = compute(*values, **params) if params else compute(*values)
        t = self.tangent(primitive, tangents, y, values, params) if moving else None
        if primitive.rebase is None:
            return Tracer(self, y, t)
        return self.make(primitive, args, params, y, t)

    def tangent(self, primitive: Primitive, tangents: list[Any], y: Any, args: list[Any], params: Params) -> Any:
        return primitive.jvp(tangents, y, args, params)


class Linearizer(Pusher):
    """Evaluates, and writes down the linear part: tangents are Vars of a linear program.

    The same as pushing tracers of a LinearRecorder, with short cuts for the two common kinds of rules.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recorder = LinearRecorder()
        self.program = self.recorder.program
        self._append = self.program.append

    def tangent(self, primitive: Primitive, tangents: list[Any], y: Any, args: list[Any], params: Params) -> Any:
        partials = primitive.partials
        if partials is None:
            if primitive.linear is not None and y.dtype.kind in "fc":
                return self._linear(primitive, tangents, y, args, params)
            wrapped = [_wrap(self.recorder, t) for t in tangents]
            return _unwrap(self.recorder, primitive.jvp(wrapped, y, args, params))
        if len(args) != len(partials):
            check_count(primitive, args, len(partials))
        total = None
        if len(partials) == 2 and tangents[0] is tangents[1] and None not in partials:
            first, second = partials  # of one variable, as in x * x
            return self._scaled(tangents[0], first(y, *args, **params) + second(y, *args, **params), y)  # type: ignore[misc]
        for t, partial in zip(tangents, partials, strict=True):
            if t is not None and partial is not None:
                part = self._scaled(t, partial(y, *args, **params), y)
                total = part if total is None else self._append(add, (total, part), NO_PARAMS, y.shape, y.dtype)
        return total

    def _scaled(self, t: Var, factor: Any, y: Any) -> Var:
        """The Var of `primitives.scale`."""
        shape, dtype = y.shape, y.dtype
        if type(factor) in NUMBERS:
            if t.shape != shape or t.dtype != dtype:
                t = _unwrap(self.recorder, fit(_wrap(self.recorder, t), y))
            if factor == 1:
                return t
            if factor == -1:
                return self._append(negative, (t,), NO_PARAMS, shape, dtype)
        else:
            if factor.dtype is not dtype:
                factor = in_precision_of(y, factor)
            if t.shape != shape and factor.shape != shape:
                t = _unwrap(self.recorder, fit(_wrap(self.recorder, t), y))
        return self._append(multiply, (t, factor), NO_PARAMS, shape, dtype)

    def _linear(self, primitive: Primitive, tangents: list[Any], y: Any, args: list[Any], params: Params) -> Any:
        assert primitive.linear is not None
        if len(args) != len(primitive.linear):
            check_count(primitive, args, len(primitive.linear))
        total, shape, dtype = None, y.shape, y.dtype
        for i, linear in enumerate(primitive.linear):
            if linear and tangents[i] is not None:
                inputs = (tangents[i],) if len(args) == 1 else (*args[:i], tangents[i], *args[i + 1 :])
                part = self._append(primitive, inputs, params, shape, dtype)
                total = part if total is None else self._append(add, (total, part), NO_PARAMS, shape, dtype)
        return total


def _wrap(recorder: LinearRecorder, t: Any) -> Any:
    """A tangent Var as a tracer that JVP rules can compute with; of a bundle, a tuple of them."""
    if isinstance(t, tuple):
        return tuple(_wrap(recorder, part) for part in t)
    return None if t is None else Tracer(recorder, t, t)


def _unwrap(recorder: LinearRecorder, t: Any) -> Any:
    if isinstance(t, tuple):
        return tuple(_unwrap(recorder, part) for part in t)
    return recorder.var_of(t)


def record(fun: Callable[..., Any], *args: Any) -> Program:
    """The Wengert list of one run of ``fun(*args)``, which returns a flat tuple of arrays."""
    return record_on(Recorder(), fun, args)


def record_on(trace: Recorder, fun: Callable[..., Any], args: Arrays) -> Program:
    """`record`, by a trace that tells afterwards what else the run relied on."""
    try:
        outs = _refreshed(fun(*(trace.new_input(arg) for arg in args)))
    except (TypeError, ValueError) as exc:
        raise _behind(exc) from exc.__cause__
    finally:
        trace.close()
    trace.program.outputs = tuple(trace.var_of(out) for out in outs)
    return trace.program


def jvp(fun: FlatFunction, primals: Arrays, tangents: Sequence[Any]) -> tuple[Arrays, list[Any], Arrays]:
    """``(outputs, their tangents (None for zero), aux)``, in one pass that stores nothing."""
    return push_through(Pusher(), fun, primals, tangents)


def linearize(fun: FlatFunction, primals: Arrays) -> tuple[Arrays, Program, Arrays]:
    """``(outputs, linear program, aux)``: the program maps tangents to the outputs' tangents at this point.

    f runs once, pushing tangents that are only written down; the JVP rules' coefficients are computed on
    the way and stay in the program as its constants.
    """
    trace = Linearizer()
    inputs = [trace.program.add_input(x.shape, x.dtype) for x in primals]
    try:
        outs, tangents, aux = push_through(trace, fun, primals, inputs)
    finally:
        trace.recorder.close()
    trace.program.outputs = tuple(tangents)
    return outs, trace.program, aux


def push_through(
    trace: Trace, fun: FlatFunction, primals: Arrays, tangents: Sequence[Any]
) -> tuple[Arrays, list[Any], Arrays]:
    """``(outputs, what the trace attached to each, aux)`` of one run of `fun` under the trace, which it closes."""
    try:
        outs, aux = fun(*(Tracer(trace, x, t) for x, t in zip(primals, tangents, strict=True)))
        outs, aux = _refreshed(outs), _refreshed(aux)
    except (TypeError, ValueError) as exc:
        raise _behind(exc) from exc.__cause__
    finally:
        trace.close()
    for x in (*outs, *aux):
        if isinstance(x, Tracer) and not x.trace.open and x.trace is not trace:
            raise NotDifferentiable("the function returned a tracer of an earlier call: it leaked through a global")
    pushed = [out.extra if isinstance(out, Tracer) and out.trace is trace else None for out in outs]
    return tuple(map(trace.value_of, outs)), pushed, tuple(map(trace.value_of, aux))


def _behind(exc: Exception) -> Exception:
    """Our refusal, which NumPy puts an error of its own in front of when a tracer is written into an array."""
    return exc.__cause__ if isinstance(exc.__cause__, NotDifferentiable) else exc


def _refreshed(arrays: Iterable[Any]) -> Arrays:
    """The arrays, those that were written to by way of a view caught up."""
    arrays = tuple(arrays)
    for x in arrays:
        if isinstance(x, Tracer):
            x.refresh()
    return arrays


def push(program: Program, tangents: Sequence[Any], outs: Arrays) -> Arrays:
    """Run a linear program forward."""
    return tuple(zero_like(out) if t is None else t for t, out in zip(evaluate(program, *tangents), outs, strict=True))


def pull(program: Program, cotangents: Sequence[Any]) -> Arrays:
    """Run a linear program backward: each step's cotangent goes to its linear operands by their transposes."""
    held: list[Any] = [None] * program.size
    ours = [False] * program.size  # whether nobody else has the held array, so that it may be written to

    def give(var: Var, cotangent: Any, fresh: bool = False) -> None:
        if cotangent.shape != var.shape or (cotangent.dtype is not var.dtype and cotangent.dtype != var.dtype):
            cotangent = unfit(cotangent, var)
        i = var.index
        before = held[i]
        if before is None:
            held[i], ours[i] = cotangent, fresh
        elif ours[i] and type(before) is type(cotangent) is np.ndarray:
            np.add(before, cotangent, out=before)
        else:
            held[i] = add(before, cotangent)
            ours[i] = type(held[i]) is np.ndarray

    for out, cotangent in zip(program.outputs, cotangents, strict=True):
        if type(out) is Var:
            give(out, cotangent)
    for eq in reversed(program.equations):
        i = eq.output.index
        cotangent = held[i]
        if cotangent is None:
            continue
        held[i] = None
        primitive, inputs = eq.primitive, eq.inputs
        if primitive is multiply and type(inputs[0]) is Var:
            give(inputs[0], _times(cotangent, inputs[1], ours[i]), True)
        elif primitive is add:
            give(inputs[0], cotangent)
            give(inputs[1], cotangent)
        elif primitive is negative:
            give(inputs[0], -cotangent, True)
        elif primitive is getitem:
            j = inputs[0].index
            held[j], ours[j] = _gathered(eq, cotangent, held[j], ours[j])
        else:
            assert primitive.transpose is not None, f"{primitive.name!r} has no transpose"
            for operand, part in zip(inputs, primitive.transpose(cotangent, inputs, eq.params), strict=False):
                if part is not None:
                    give(operand, part)
    return tuple(zero_like(var) if held[var.index] is None else held[var.index] for var in program.inputs)


def _times(cotangent: Any, factor: Any, ours: bool) -> Any:
    """The product, in place of the cotangent if it fits there."""
    if not ours or not (type(cotangent) is type(factor) is np.ndarray):
        return cotangent * factor
    if cotangent.shape != factor.shape or cotangent.dtype != factor.dtype:
        return cotangent * factor
    return np.multiply(cotangent, factor, out=cotangent)


def _gathered(eq: Any, cotangent: Any, before: Any, ours: bool) -> tuple[Any, bool]:
    """The cotangent of an array of which a part was taken: added in place, where nobody else sees it."""
    x = eq.inputs[0]
    if before is None:
        before, ours = zero_like(x), True
    if cotangent.dtype != x.dtype:
        cotangent = unfit(cotangent, Spec(cotangent.shape, x.dtype))
    if ours and type(before) is np.ndarray and isinstance(cotangent, (np.ndarray, np.generic)):
        add_at.impl(before, cotangent, *eq.inputs[1:], **eq.params, into=before)
        return before, True
    if ours and isinstance(cotangent, Tracer):
        return cotangent.trace.add_into(before, cotangent, *eq.inputs[1:], **eq.params)
    return add_at(before, cotangent, *eq.inputs[1:], **eq.params), False


def zero_like(x: Any) -> Any:
    return np.zeros(x.shape, x.dtype)
