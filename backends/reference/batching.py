"""Batching: a linear program run once for many tangents or cotangents, stacked along a first axis.

A tracer of a `Batcher` holds a `Batch` or a `OneHot`, whose shape is that of one row; operations on it go by the
primitive's batch rule, with what is shared by all rows left as it is. Levels keep batches apart from each other
and from derivatives, so that Jacobians nest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference import one_hot, transforms
from adbridge.backends.reference.one_hot import OneHot
from adbridge.backends.reference.primitives import Batch, Primitive, Var
from adbridge.backends.reference.program import Program
from adbridge.backends.reference.rules import batching
from adbridge.backends.reference.rules.batching import batching_kind, data_dependent, front, parts_of
from adbridge.backends.reference.rules.shaping import add_at, concat, getitem
from adbridge.backends.reference.tracer import Trace, Tracer
from adbridge.protocol import Arrays

__all__ = ["Batcher", "batched", "batching_kind", "pull", "push"]


class Batcher(Trace):
    """Evaluates for all rows of a batch at once."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Tracer:
        self.refuse_if_closed(primitive)
        values = [self.value_of(arg) for arg in args]
        return self.make(primitive, args, params, self.evaluate(primitive, values, params), None)

    def evaluate(self, primitive: Primitive, values: list[Any], params: dict[str, Any]) -> Any:
        sparse = any(isinstance(x, OneHot) for x in values)
        if not sparse and not any(isinstance(x, Batch) for x in values):
            return primitive(*values, **params)
        y = one_hot.apply(primitive.name, values, params) if sparse else None
        if y is None:
            operands = [Batch(one_hot.dense(x)) if isinstance(x, OneHot) else x for x in values]
            y = batching.apply(primitive, self.size, operands, params)
        return y if isinstance(y, OneHot) else Batch(y)

    def make(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any], y: Any, extra: Any) -> Tracer:
        # An element is no view in NumPy, though the stack of those of all rows is.
        if primitive.name == "getitem" and y.shape == () and Ellipsis not in parts_of(params["key"]):
            return Tracer(self, y, extra)
        return super().make(primitive, args, params, y, extra)

    def observe(self, x: Tracer) -> None:
        if isinstance(x.value, (Batch, OneHot)):
            raise data_dependent("a branch, an index or a length")

    def add_into(self, x: Any, value: Any, *indices: Any, key: Any) -> tuple[Any, bool]:
        held, part = self.value_of(x), self.value_of(value)
        if indices or not (_is_plain(held) and _is_plain(part)):
            return add_at(x, value, *indices, key=key), True
        held.array[(slice(None), *parts_of(key))] += part.array
        return x, True

    def stacked(self, seed: Any) -> Tracer:
        """The tracer of arrays stacked along a first axis."""
        return Tracer(self, seed if isinstance(seed, OneHot) else Batch(seed), None)

    def unstacked(self, x: Any) -> Any:
        """The array of a result, with its batch axis."""
        value = self.value_of(x)
        return one_hot.dense(value) if isinstance(value, OneHot) else front(value, self.size)


def _is_plain(x: Any) -> bool:
    return isinstance(x, Batch) and type(x.array) is np.ndarray


def size_of(seeds: Sequence[Any]) -> int:
    return seeds[0].size if isinstance(seeds[0], OneHot) else seeds[0].shape[0]


def batched(fun: Callable[..., Sequence[Any]], *args: Any) -> Arrays:
    """``fun`` of every row of `args`, stacked: a flat function of arrays, run once.

    Raises:
        NotDifferentiable: it branches on the data of a row, or has a shape that depends on them.
    """
    trace = Batcher(size_of(args))
    try:
        outs = fun(*map(trace.stacked, args))
        return tuple(map(trace.unstacked, outs))
    finally:
        trace.close()


# A sweep holds at most this many elements of any step's result at once (64 MB in float64): it takes the rows of
# a large batch in several goes.
_WIDEST = 2**23


def push(program: Program, tangents: Sequence[Any], outs: Arrays) -> Arrays:
    """As `transforms.push`, of stacked tangents."""
    live = [i for i, t in enumerate(program.outputs) if t is not None]
    results = _in_goes(program, tangents, lambda *seeds: _run(program, seeds))
    pushed = dict(zip(live, results, strict=True))
    size = size_of(tangents)
    return tuple(pushed[i] if i in pushed else np.zeros((size, *x.shape), x.dtype) for i, x in enumerate(outs))


def pull(program: Program, cotangents: Sequence[Any]) -> Arrays:
    """As `transforms.pull`, of stacked cotangents."""
    return _in_goes(program, cotangents, lambda *seeds: transforms.pull(program, seeds))


def _in_goes(program: Program, seeds: Sequence[Any], sweep: Callable[..., Sequence[Any]]) -> Arrays:
    size = size_of(seeds)
    widest = max(math.prod(x.shape) for x in (*program.inputs, *(eq.output for eq in program.equations)))
    step = max(1, _WIDEST // max(1, widest))
    if size <= step:
        return batched(sweep, *seeds)
    goes = [slice(first, min(first + step, size)) for first in range(0, size, step)]
    parts = [batched(sweep, *(_part(seed, rows) for seed in seeds)) for rows in goes]
    return tuple(concat(*column, axis=0) for column in zip(*parts, strict=True))


def _part(seed: Any, rows: slice) -> Any:
    return seed.part(rows) if isinstance(seed, OneHot) else getitem(seed, key=rows)


def _run(program: Program, seeds: Sequence[Tracer]) -> list[Any]:
    """The outputs that depend on the inputs. A step's result goes when nothing needs it any more: a batch of all of
    them would take as many times the memory."""
    wanted = [x for x in program.outputs if x is not None]
    last = {x.index: i for i, eq in enumerate(program.equations) for x in eq.inputs if type(x) is Var}
    for x in wanted:
        last[x.index] = len(program.equations)
    held = {var.index: seed for var, seed in zip(program.inputs, seeds, strict=True)}
    for i, eq in enumerate(program.equations):
        result = eq.primitive(*(held[x.index] if type(x) is Var else x for x in eq.inputs), **eq.params)
        for x in eq.inputs:
            if type(x) is Var and last[x.index] == i:
                held.pop(x.index, None)
        if eq.output.index in last:
            held[eq.output.index] = result
    return [held[x.index] for x in wanted]
