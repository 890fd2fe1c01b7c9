"""Elementwise steps over large arrays, block by block: the source of one unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from adbridge.backends.reference.planning import Unit
from adbridge.backends.reference.primitives import Var
from adbridge.backends.reference.program import Equation

if TYPE_CHECKING:
    from adbridge.backends.reference.compile import Compiler

BLOCK_BYTES = 2**18
"""What the buffers of a block may take together: a share of a core's second-level cache."""
LEAST_BLOCK = 2**12
"""Elements of a block at the least: a step costs as much to start as to run on a few hundred."""


def write_block(c: Compiler, unit: Unit, i: int) -> None:
    """All steps on one block of the first axis, then the next block: a function of a block, and the loop."""
    shape = unit.shape
    assert shape is not None
    axis = next((k for k, size in enumerate(shape) if size > 1), 0)
    inside = {eq.output.index for eq in unit.equations}
    leaving = [eq.output for eq in unit.equations if _leaves(c, eq.output, i)]
    for out in leaving:
        _place(c, out)
    temps = _temporaries(unit, {v.index for v in leaving})
    dtypes = {f"t{k}": _dtype_of(unit, temps, k) for k in set(temps.values())}
    rows = _rows(unit, axis, len(dtypes) + len(leaving) + 1)
    params, sources = _arguments(c, unit, inside, axis, leaving)
    group = c.fresh_name("g")
    c.setup.append(f"def {group}({', '.join([*dict.fromkeys(params.values()), *dtypes])}):")
    c.setup += [f"    {line}" for line in _lines(c, unit, temps, params, dtypes)]
    every = ":, " * axis
    for t, dtype in dtypes.items():
        c.setup.append(f"{group}_{t} = scratch({(*shape[:axis], rows, *shape[axis + 1 :])}, {c.dtype(dtype)})")
        c.setup.append(f"{group}_{t}_tail = {group}_{t}[{every}:{shape[axis] % rows}]")
    whole = shape[axis] - shape[axis] % rows
    cut = [f"{source}[{every}i:j]" if sliced else source for source, sliced in sources]
    c.body.append(f"for i in range(0, {whole}, {rows}):")
    c.body.append(f"    j = i + {rows}")
    c.body.append(f"    {group}({', '.join([*cut, *(f'{group}_{t}' for t in dtypes)])})")
    if whole < shape[axis]:
        c.body.append(f"i, j = {whole}, {shape[axis]}")
        c.body.append(f"{group}({', '.join([*cut, *(f'{group}_{t}_tail' for t in dtypes)])})")


def _place(c: Compiler, out: Var) -> None:
    """Memory for what leaves the block."""
    if (write := c.plan.destination.get(out.index)) is not None:
        c.places[out.index] = c.part_of(write)
        return
    c.plan.take(c.plan.storage[out.index])
    c.places[out.index] = c.lay_out(out, c.plan.storage[out.index])


def _rows(unit: Unit, axis: int, buffers: int) -> int:
    """How much of the first axis makes a block."""
    assert unit.shape is not None
    row = int(np.prod(unit.shape)) // unit.shape[axis]
    itemsize = max(eq.output.dtype.itemsize for eq in unit.equations)
    rows = BLOCK_BYTES // max(1, row * itemsize * buffers)
    return int(min(unit.shape[axis], max(1, rows, LEAST_BLOCK // max(1, row))))


def _leaves(c: Compiler, var: Var, i: int) -> bool:
    """Whether a variable of a block is used outside it."""
    if var.index in c.plan.destination:
        return True
    s = c.plan.storage[var.index]
    return s.last > i or any(c.plan.root_of(g.var) == var.index for g in c.program.guards)


def _arguments(
    c: Compiler, unit: Unit, inside: set[int], axis: int, leaving: list[Var]
) -> tuple[dict[Any, str], list[tuple[str, bool]]]:
    """The block function's parameter for each operand from outside, and what is passed for it."""
    params: dict[Any, str] = {}
    sources: list[tuple[str, bool]] = []
    assert unit.shape is not None
    for x in [*(x for eq in unit.equations for x in eq.inputs), *leaving]:
        key = x.index if type(x) is Var else id(x)
        if key in params or (type(x) is Var and x.index in inside and all(x is not v for v in leaving)):
            continue
        if type(x) is not Var and np.shape(x) == ():
            continue
        shape = (1,) * (len(unit.shape) - len(x.shape)) + tuple(x.shape)
        k = axis - (len(unit.shape) - len(x.shape))
        sliced = shape[axis] > 1
        source = c.operand(x)
        if sliced and k < axis:  # fewer leading axes than the result
            source = f"{source}.reshape({shape})"
        params[key] = f"p{len(params)}"
        sources.append((source, sliced))
    return params, sources


def _lines(c: Compiler, unit: Unit, temps: dict[int, int], params: dict[Any, str], names: dict[str, Any]) -> list[str]:
    def name_of(x: Any, eq: Equation) -> str:
        if type(x) is Var:
            return params[x.index] if x.index in params else f"t{temps[x.index]}"
        return params[id(x)] if id(x) in params else c.number(x, eq)

    def out(eq: Equation) -> str:
        if eq.output.index in params:
            return params[eq.output.index]
        t = f"t{temps[eq.output.index]}"
        return t if names[t] == eq.output.dtype else f"{t}.view({c.dtype(eq.output.dtype)})"

    return [c.call_ufunc(eq, [name_of(x, eq) for x in eq.inputs], out(eq)) for eq in unit.equations]


def _temporaries(unit: Unit, leaving: set[int]) -> dict[int, int]:
    """A block buffer for each variable that stays within the block; one dtype to a buffer."""
    last_use = {x.index: k for k, eq in enumerate(unit.equations) for x in eq.inputs if type(x) is Var}
    temps: dict[int, int] = {}
    free: dict[Any, list[int]] = {}
    count = 0
    for k, eq in enumerate(unit.equations):
        for x in {x.index: x for x in eq.inputs if type(x) is Var}.values():
            if x.index in temps and last_use[x.index] == k:
                free.setdefault(x.dtype, []).append(temps[x.index])
        if eq.output.index in leaving:
            continue
        pool = free.get(eq.output.dtype)
        if pool:
            temps[eq.output.index] = pool.pop()
        else:
            temps[eq.output.index], count = count, count + 1
    return temps


def _dtype_of(unit: Unit, temps: dict[int, int], k: int) -> Any:
    return next(eq.output.dtype for eq in unit.equations if temps.get(eq.output.index) == k)
