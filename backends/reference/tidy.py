"""Recorded derivatives made readable, every bit of their results kept: each value once, no factor 1, none in vain.

`simplify.py` does far more, for speed; its programs may round otherwise.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import PRIMITIVES, Primitive, Var
from adbridge.backends.reference.program import Equation, Program
from adbridge.backends.reference.simplify import prune


def tidy(program: Program) -> Program:
    """The same inputs, results and guards by fewer steps."""
    known: dict[Hashable, Var] = {}
    instead: dict[int, Var] = {}
    equations = []
    for eq in program.equations:
        inputs = tuple(instead.get(x.index, x) if type(x) is Var else x for x in eq.inputs)
        primitive, inputs = _without_unit(eq.primitive, inputs, eq.output)
        if primitive is None:
            instead[eq.output.index] = inputs[0]
            continue
        key = (primitive.name, repr(eq.params), *map(_identity, inputs))
        if key in known:
            instead[eq.output.index] = known[key]
            continue
        known[key] = eq.output
        equations.append(Equation(primitive, inputs, eq.params, eq.output))
    outputs = tuple(instead.get(x.index, x) if type(x) is Var else x for x in program.outputs)
    kept = [guard for guard in program.guards if guard.var.index not in instead]
    return prune(Program(program.inputs, equations, outputs, kept, program.size))


def _without_unit(primitive: Primitive, inputs: tuple[Any, ...], out: Var) -> tuple[Primitive | None, tuple[Any, ...]]:
    """Of a product with 1 the operand alone, of one with -1 the negative: these are exact."""
    if primitive.name != "multiply":
        return primitive, inputs
    for x, factor in (inputs, inputs[::-1]):
        if type(x) is not Var or type(factor) is Var or x.shape != out.shape or x.dtype != out.dtype:
            continue
        if np.size(factor) and np.all(np.asarray(factor) == 1):
            return None, (x,)
        if np.size(factor) and out.dtype.kind == "f" and np.all(np.asarray(factor) == -1):
            return PRIMITIVES["negative"], (x,)
    return primitive, inputs


def _identity(x: Any) -> Hashable:
    if type(x) is Var:
        return ("v", x.index)
    return (type(x), repr(x)) if isinstance(x, (int, float, complex, np.generic)) else ("object", id(x))
