"""Derivatives: jvp, linearize, transpose; and vjp, which is linearize then transpose.

A. Radul et al., "You only linearize once: tangents transpose to gradients", POPL 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import PRIMITIVES, Spec, Var, unfit
from adbridge.backends.reference.program import Program, evaluate
from adbridge.backends.reference.tracer import LinearRecorder, Pusher, Recorder, Tracer
from adbridge.errors import NotDifferentiable
from adbridge.protocol import Arrays, FlatFunction


def record(fun: Callable[..., Any], *args: Any) -> Program:
    """The Wengert list of one run of ``fun(*args)``, which returns a flat tuple of arrays."""
    trace = Recorder()
    try:
        outs = fun(*(trace.new_input(arg) for arg in args))
    finally:
        trace.close()
    trace.program.outputs = tuple(trace.var_of(out) for out in outs)
    return trace.program


def jvp(fun: FlatFunction, primals: Arrays, tangents: Sequence[Any]) -> tuple[Arrays, list[Any], Arrays]:
    """``(outputs, their tangents (None for zero), aux)``, in one pass that stores nothing."""
    trace = Pusher()
    try:
        outs, aux = fun(*(Tracer(trace, x, t) for x, t in zip(primals, tangents, strict=True)))
    finally:
        trace.close()
    for x in (*outs, *aux):
        if isinstance(x, Tracer) and not x.trace.open and x.trace is not trace:
            raise NotDifferentiable("the function returned a tracer of an earlier call: it leaked through a global")
    pushed = [out.extra if isinstance(out, Tracer) and out.trace is trace else None for out in outs]
    return tuple(map(trace.value_of, outs)), pushed, tuple(map(trace.value_of, aux))


def linearize(fun: FlatFunction, primals: Arrays) -> tuple[Arrays, Program, Arrays]:
    """``(outputs, linear program, aux)``: the program maps tangents to the outputs' tangents at this point.

    f runs once, pushing tangents that are only written down; the JVP rules' coefficients are computed on
    the way and stay in the program as its constants.
    """
    trace = LinearRecorder()
    try:
        outs, tangents, aux = jvp(fun, primals, [trace.new_input(Spec(x.shape, x.dtype)) for x in primals])
    finally:
        trace.close()
    trace.program.outputs = tuple(map(trace.var_of, tangents))
    return outs, trace.program, aux


def push(program: Program, tangents: Sequence[Any], outs: Arrays) -> Arrays:
    """Run a linear program forward."""
    return tuple(zero_like(out) if t is None else t for t, out in zip(evaluate(program, *tangents), outs, strict=True))


def pull(program: Program, cotangents: Sequence[Any]) -> Arrays:
    """Run a linear program backward: each step's cotangent goes to its linear operands by their transposes."""
    held: list[Any] = [None] * program.size

    def give(var: Var, cotangent: Any) -> None:
        cotangent = unfit(cotangent, var)
        before = held[var.index]
        held[var.index] = cotangent if before is None else PRIMITIVES["add"](before, cotangent)

    for out, cotangent in zip(program.outputs, cotangents, strict=True):
        if type(out) is Var:
            give(out, cotangent)
    for eq in reversed(program.equations):
        cotangent, held[eq.output.index] = held[eq.output.index], None
        if cotangent is None:
            continue
        assert eq.primitive.transpose is not None, f"{eq.primitive.name!r} has no transpose"
        for operand, part in zip(eq.inputs, eq.primitive.transpose(cotangent, eq.inputs, eq.params), strict=True):
            if part is not None:
                give(operand, part)
    return tuple(zero_like(var) if held[var.index] is None else held[var.index] for var in program.inputs)


def zero_like(x: Any) -> Any:
    return np.zeros(x.shape, x.dtype)
