"""Simplified programs compiled to native code, with LLVM: the second compiler behind `prepare`.

- `lower.py`     equations as operations on memory, views as offsets and strides
- `plan.py`      operations that run in one loop, and where arrays are in the workspace
- `blocks.py`    loops that run on some rows at a time
- `kernels.py`   what LLVM text is written with       - `functions.py`  exp, sin, ... on vectors
- `loops.py`     loops over elements                  - `products.py`   matrix products
- `driver.py`    the calls of the kernels, in order   - `machine.py`    LLVM, and its code on disk

A program becomes one native function where it can: elementwise steps of one shape are one loop over their elements
with the steps in registers, sums included; small matrix products are loops, large ones BLAS's; other primitives are
NumPy's, between native parts. Equal units, as those of an unrolled loop's steps, share one kernel.

Results agree with `compile.py`'s to a few units in the last place: arithmetic is the same operation by operation,
sums and products are added up in another order, and exp, log, sin, cos, tanh and others are this package's own,
within two units. Warnings of NumPy's about overflow and the like are not given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from adbridge.backends.reference import compile as numpy_compiler
from adbridge.backends.reference.fast import machine
from adbridge.backends.reference.fast.driver import Driver
from adbridge.backends.reference.fast.lower import Lowered, Unsupported
from adbridge.backends.reference.program import Program
from adbridge.backends.reference.simplify import simplify


def compile_program(program: Program, assume: bool = True) -> Callable[..., tuple[Any, ...]]:
    """As `compile.compile_program`; by that itself, with the reason in `fallback`, where there is no native code."""
    simplified = simplify(program, assume)
    try:
        return Native(simplified)
    except Unsupported as exc:
        return Fallback(numpy_compiler.compile_program(program, assume), str(exc))


@dataclass
class Fallback:
    """NumPy's compiled program, and why it is not a native one."""

    run: Callable[..., tuple[Any, ...]]
    fallback: str

    def __call__(self, *arrays: Any) -> tuple[Any, ...]:
        return self.run(*arrays)


class Native:
    """The compiled function: takes a workspace, or makes one, and gives it back."""

    fallback = ""

    def __init__(self, program: Program) -> None:
        if machine.layout() is None:
            raise Unsupported("NumPy's arrays are not laid out as expected")
        self.driver = Driver(Lowered(program).run())
        self.make: Callable[..., Any] = self.driver.function()
        self.size = self.driver.workspace_size
        self.pool: list[Callable[..., tuple[Any, ...]]] = []

    def workspace(self) -> Callable[..., tuple[Any, ...]]:
        memory = np.empty(self.size + machine.vector_bytes(), np.uint8)
        start = -memory.ctypes.data % machine.vector_bytes()
        return self.make(memory[start:])  # type: ignore[no-any-return]

    def __call__(self, *arrays: Any) -> tuple[Any, ...]:
        try:
            run = self.pool.pop()
        except IndexError:
            run = self.workspace()
        try:
            return run(*arrays)
        finally:
            self.pool.append(run)
