"""A flat function prepared: recorded for its shapes and dtypes, simplified, compiled, and recorded anew for
another branch.

What the recorded run relied on (a branch, an index, a mask computed from the inputs) is a guard of the compiled
program. A call for which a guard fails is run by a program recorded for it, so that no call gets the value or the
derivative of a branch that it does not take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adbridge.backends.reference.compile import compile_program
from adbridge.backends.reference.primitives import Traced
from adbridge.backends.reference.program import Program
from adbridge.backends.reference.tracer import Recorder
from adbridge.backends.reference.transforms import record_on
from adbridge.backends.reference.workspaces import GuardFailed
from adbridge.protocol import Arrays, Compiled

MAX_VARIANTS = 16
"""Programs kept for one function: for as many combinations of branches."""

Compiler = Callable[[Program, bool], Callable[..., Arrays]]


def prepare(fun: Callable[..., Arrays], arrays: Arrays, compiler: Compiler = compile_program) -> Compiled:
    """`fun` compiled for NumPy arrays like `arrays`; as it is, if it does with a tracer what only arrays can do."""
    if any(isinstance(a, Traced) for a in arrays):
        return Compiled(fun)
    try:
        trace = Recorder(inline=True)
        program = record_on(trace, fun, arrays)
    except Exception:  # NumPy's own errors among them, as for an item of a tracer in an array
        fun(*arrays)  # raises what is wrong at once, too
        return Compiled(fun)
    if _holds_tracers(program):
        return Compiled(fun)
    variants = Variants(fun, compiler, _as_recorded(trace, compiler(program, True), arrays))
    # Without a guard, one program is for all arguments.
    matched = variants.matched if getattr(variants.last, "guarded", True) else variants.last
    return Compiled(variants, takes_numpy=True, fresh=True, matched=matched)


def _holds_tracers(program: Program) -> bool:
    """Whether the function closes over an array that is being differentiated outside."""
    constants = (x for eq in program.equations for x in eq.inputs)
    return any(isinstance(x, Traced) for x in (*constants, *program.outputs))


def _entry(compiled: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """The function itself, of an object that is called like it."""
    return getattr(compiled, "entry", compiled)


def _as_recorded(trace: Recorder, compiled: Callable[..., Arrays], arrays: Arrays) -> Callable[..., Arrays]:
    """Where a write was to a reshaped array, a view or a copy by its layout in memory: for arrays laid out alike."""
    run, strides = _entry(compiled), [a.strides for a in arrays]
    if not trace.layout_matters:
        return run

    def checked(*arrays: Any) -> Arrays:
        if [a.strides for a in arrays] != strides:
            raise GuardFailed
        return run(*arrays)

    checked.pool = getattr(run, "pool", [])  # type: ignore[attr-defined]
    return checked


class Variants:
    """Compiled programs of one function, the last used first."""

    def __init__(self, fun: Callable[..., Arrays], compiler: Compiler, first: Callable[..., Arrays]) -> None:
        self.fun = fun
        self.compiler = compiler
        self.last = first
        self.others: tuple[Callable[..., Arrays], ...] = ()

    def __call__(self, *arrays: Any) -> Arrays:
        for array in arrays:
            if type(array) is not np.ndarray:
                return self.fun(*arrays)
        return self.matched(*arrays)

    def matched(self, *arrays: Any) -> Arrays:
        """Of NumPy arrays."""
        try:
            return self.last(*arrays)
        except GuardFailed:
            return self.another(arrays)

    def another(self, arrays: Arrays) -> Arrays:
        """By a program whose guards hold: one that is there, or a new one."""
        for variant in self.others:
            if (outs := self.tried(variant, arrays)) is not None:
                return outs
        for assume in (True, False):
            try:
                program = record_on(trace := Recorder(inline=True), self.fun, arrays)
            except Exception:
                return self.fun(*arrays)  # as in `prepare`
            if _holds_tracers(program):
                return self.fun(*arrays)
            variant = _as_recorded(trace, self.compiler(program, assume), arrays)
            if (outs := self.tried(variant, arrays)) is not None:
                return outs
        return self.fun(*arrays)  # it took another branch the second time: it is not a function of its arguments

    def tried(self, variant: Callable[..., Arrays], arrays: Arrays) -> Arrays | None:
        """What a program gives, which is the first from now on; None if its guards fail."""
        try:
            outs = variant(*arrays)
        except GuardFailed:
            return None
        self.put_first(variant)
        return outs

    def forget(self) -> None:
        """Let go of the buffers that are held between calls: the next call makes its own."""
        for variant in (self.last, *self.others):
            getattr(variant, "pool", []).clear()

    def put_first(self, variant: Callable[..., Arrays]) -> None:
        kept = [v for v in (self.last, *self.others) if v is not variant]
        self.last, self.others = variant, tuple(kept[: MAX_VARIANTS - 1])
