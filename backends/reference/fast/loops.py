"""Loops over elements, with sums and extrema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adbridge.backends.reference.fast.functions import LLVM_TYPES, literal
from adbridge.backends.reference.fast.kernels import Kernel, emit, extremum
from adbridge.backends.reference.fast.lower import Map, Reduce, Value, Write
from adbridge.backends.reference.fast.plan import Loop

RUN = 2048
"""Elements that are added up in one accumulator's lanes; longer sums are sums of such, for their accuracy."""
SHORT = 12
"""Operations up to which a loop with sums takes four vectors at a time."""
LONG = 200
"""Operations from which on a loop's body is written once, masked, instead of for whole and part vectors."""


# Reductions.


def identity(op: Reduce) -> float:
    return {"sum": -0.0, "max": -np.inf, "min": np.inf, "any": 0.0}[op.name]


def combine(k: Kernel, op: Reduce, a: str, b: str) -> str:
    element = LLVM_TYPES[op.out.dtype.name]
    if op.name == "any":
        return k.op("or", a, b, element)
    if op.name == "sum":
        return k.op("fadd contract" if op.contract else "fadd", a, b, element)
    return extremum(k, "maximum" if op.name == "max" else "minimum", a, b, element)


def across(k: Kernel, op: Reduce, x: str) -> str:
    """All lanes of a vector combined, in halves; `k.width` is 1 afterwards."""
    element = LLVM_TYPES[op.out.dtype.name]
    while k.width > 1:
        t, half = k.type(element), k.width // 2
        k.width = half
        low, high = (
            k.let(
                f"shufflevector {t} {x}, {t} poison, <{half} x i32> <{', '.join(f'i32 {i + s}' for i in range(half))}>"
            )
            for s in (0, half)
        )
        if half == 1:
            low, high = (k.let(f"extractelement <1 x {element}> {part}, i32 0") for part in (low, high))
        x = combine(k, op, low, high)
    return x


# Loops.


class Nest:
    """The loops of a unit: axes merged where every operand allows it."""

    def __init__(self, unit: Loop, stored: Callable[[Value], bool], vector_bytes: int) -> None:
        self.unit, self.k = unit, Kernel(vector_bytes)
        self.pointers: dict[Any, str] = {}
        self.values: list[Value] = []  # what the pointers are to
        own = {id(op.out) for op in unit.ops if isinstance(op, Map)}
        self.own = own
        for op in unit.ops:
            for x in op.inputs:
                if isinstance(x, Value) and id(x) not in own:
                    self.pointer(x)
            if not isinstance(op, Map) or stored(op.out):
                self.pointer(op.out)
        self.stored = stored
        self.turn, self.turns = 0, 1
        self.accumulators: dict[Reduce, list[str]] = {}
        self.merge()
        self.writes()

    def key(self, x: Value) -> Any:
        return id(x.memory), x.offset, self.strides(x), x.dtype

    def strides(self, x: Value) -> tuple[int, ...]:
        """Along the axes of the loop; 0 where x is broadcast."""
        extra = len(self.unit.shape) - len(x.shape)
        return (0,) * extra + tuple(s if n > 1 else 0 for n, s in zip(x.shape, x.strides, strict=True))

    def pointer(self, x: Value) -> None:
        if self.key(x) not in self.pointers:
            self.pointers[self.key(x)] = f"%p{len(self.values)}"
            self.values.append(x)

    def merge(self) -> None:
        """Axes of size one fall away; two are one if no operand can tell."""
        columns = [self.strides(x) for x in self.values]
        sizes: list[int] = []
        steps: list[list[int]] = []  # of each axis, the operands' strides
        for axis, size in enumerate(self.unit.shape):
            if size == 1:
                continue
            now = [c[axis] for c in columns]
            if sizes and all(before == s * size for before, s in zip(steps[-1], now, strict=True)):
                sizes[-1], steps[-1] = sizes[-1] * size, now
            else:
                sizes.append(size)
                steps.append(now)
        self.sizes, self.steps = sizes, steps
        self.inner = sizes[-1] if sizes else 1
        self.inner_steps = dict(zip(self.pointers, steps[-1] if sizes else [0] * len(columns), strict=True))

    def writes(self) -> None:
        """How each reduction gets to memory: at once, or added to what is there, which must be set first."""
        self.runs = self.inner > 4 * RUN and any(
            isinstance(op, Reduce) and not self.inner_steps[self.key(op.out)] for op in self.unit.ops
        )
        self.prepared: list[Reduce] = []
        for op in self.unit.ops:
            if isinstance(op, Reduce):
                strides = [s[list(self.pointers).index(self.key(op.out))] for s in self.steps]
                once = not any(s == 0 for s in strides[:-1]) and not (strides and strides[-1]) and not self.runs
                if not once or (self.unit.partial and not self.strides(op.out)[0]):
                    self.prepared.append(op)

    def text(self, name: str) -> str:
        k = self.k
        element = max((x.dtype.itemsize for x in self.values), default=8)
        computed = max((op.out.dtype.itemsize for op in self.unit.ops), default=8)
        lanes = k.vector_bytes // max(element, computed)
        self.lanes = min(lanes, 1 << max(0, (self.inner - 1).bit_length()))
        self.make_accumulators()
        self.outer(0, dict(self.pointers))
        return k.text(name, len(self.values))

    def outer(self, axis: int, at: dict[Any, str]) -> None:
        if axis >= len(self.sizes) - 1:
            self.row(at)
            return
        steps = dict(zip(self.pointers, self.steps[axis], strict=True))
        self.k.loop(
            0, self.sizes[axis], 1,
            lambda i: self.outer(axis + 1, {key: self.k.at(p, i, steps[key]) for key, p in at.items()}),
        )  # fmt: skip

    def row(self, at: dict[Any, str]) -> None:
        """The innermost axis, in vectors; what is left over in a masked one."""
        k, n, width = self.k, self.inner, self.lanes
        k.width = width
        fixed = {key: k.load(p, key[3], 0) for key, p in at.items() if not self.inner_steps[key] and self.reads(key)}
        full = n // width * width
        throughout = 0 < full < n and len(self.unit.ops) > LONG  # masked
        stop = n if throughout else full // (width * self.turns) * width * self.turns

        def vector(j: str | int, mask: str | None = None) -> None:
            k.width, k.seen, k.mask = width, {}, mask
            self.body({key: k.at(p, j, self.inner_steps[key]) for key, p in at.items()}, fixed)
            k.mask = None

        def vectors(j: str | int) -> None:
            if throughout:
                vector(j, self.first_lanes(j, n))
                return
            for turn in range(self.turns):
                self.turn, ahead = turn, turn * width
                vector(j + ahead if isinstance(j, int) else k.let(f"add i64 {j}, {ahead}") if ahead else j)
            self.turn = 0

        def run(start: str) -> None:
            self.start()
            end = k.let(f"add i64 {start}, {RUN}")
            last = k.let(f"icmp ult i64 {end}, {stop}")
            k.loop(start, k.let(f"select i1 {last}, i64 {end}, i64 {stop}"), width * self.turns, vectors)
            self.finish(at)

        if self.runs:
            k.loop(0, stop, RUN, run)
        self.start()
        if stop == width * self.turns:
            vectors(0)
        elif stop and not self.runs:
            k.loop(0, stop, width * self.turns, vectors)
        for j in range(stop, full, width):
            vector(j)
        if full < n and not throughout:
            vector(full, self.constant_mask(n - full))
        self.finish(at)

    def reads(self, key: Any) -> bool:
        """Whether what is there is an operand."""
        return any(
            isinstance(x, Value) and id(x) not in self.own and self.key(x) == key
            for op in self.unit.ops
            for x in op.inputs
        )

    def first_lanes(self, j: str | int, n: int) -> str:
        k = self.k
        t = k.type("i64")
        steps = f"<{', '.join(f'i64 {i}' for i in range(k.width))}>"
        place = k.let(f"add {t} {k.broadcast(str(j), 'i64')}, {steps}")
        return k.let(f"icmp ult {t} {place}, {k.splat(str(n), 'i64')}")

    def constant_mask(self, count: int) -> str:
        return f"<{', '.join('i1 true' if i < count else 'i1 false' for i in range(self.k.width))}>"

    # Accumulators.

    def start(self) -> None:
        k = self.k
        for op, slots in self.accumulators.items():
            element, t = self.accumulated(op)
            for slot in slots:
                k.put(f"store {t} {k.splat(literal(identity(op), op.out.dtype.name), element)}, ptr {slot}")

    def finish(self, at: dict[Any, str]) -> None:
        k = self.k
        for op, (first, *others) in self.accumulators.items():
            _, t = self.accumulated(op)
            total = k.let(f"load {t}, ptr {first}")
            for slot in others:
                total = combine(k, op, total, k.let(f"load {t}, ptr {slot}"))
            total = across(k, op, total)
            pointer = at[self.key(op.out)]
            if op in self.prepared:
                total = combine(k, op, k.load(pointer, op.out.dtype, 0), total)
            k.store(total, pointer, op.out.dtype, 0)
        k.width = self.lanes

    def accumulated(self, op: Reduce) -> tuple[str, str]:
        """LLVM's type of an element and of a vector."""
        self.k.width = self.lanes
        element = LLVM_TYPES[op.out.dtype.name]
        return element, self.k.type(element)

    def make_accumulators(self) -> None:
        """Vectors, of which a loop uses several in turn: one would have to wait for itself."""
        found = [op for op in self.unit.ops if isinstance(op, Reduce) and not self.inner_steps[self.key(op.out)]]
        if found and len(self.unit.ops) <= SHORT and self.inner >= 4 * self.lanes:
            self.turns = 4
        for i, op in enumerate(found):
            self.accumulators[op] = [f"%acc{i}.{turn}" for turn in range(self.turns)]
            self.k.entry += [f"  {slot} = alloca {self.accumulated(op)[1]}" for slot in self.accumulators[op]]

    # One vector.

    def body(self, at: dict[Any, str], fixed: dict[Any, str]) -> None:
        k = self.k
        done: dict[int, str] = {}
        loaded: dict[Any, str] = {}

        def value(x: Any, dtype: Any) -> str:
            if not isinstance(x, Value):
                return k.splat(literal(float(x), dtype.name), LLVM_TYPES[dtype.name])
            if id(x) in self.own:
                return done[id(x)]
            key = self.key(x)
            if key in fixed:
                return fixed[key]
            if key not in loaded:
                loaded[key] = k.load(at[key], x.dtype, self.inner_steps[key])
            return loaded[key]

        for op in self.unit.ops:
            if isinstance(op, Map):
                dtype = data_dtype(op)
                args = [value(x, dtype) for x in op.inputs]
                done[id(op.out)] = y = emit(k, op, args, dtype)
                if self.stored(op.out):
                    self.put(y, op.out, at)
            elif isinstance(op, Write):
                x = value(op.input, op.out.dtype)
                if op.adds:
                    key = self.key(op.out)
                    x = k.op(
                        "fadd", k.load(at[key], op.out.dtype, self.inner_steps[key]), x, LLVM_TYPES[op.out.dtype.name]
                    )
                self.put(x, op.out, at)
            elif isinstance(op, Reduce):
                self.accumulate(op, value(op.input, op.out.dtype), at)

    def put(self, x: str, out: Value, at: dict[Any, str]) -> None:
        self.k.store(x, at[self.key(out)], out.dtype, self.inner_steps[self.key(out)])

    def accumulate(self, op: Reduce, x: str, at: dict[Any, str]) -> None:
        k, key = self.k, self.key(op.out)
        element = LLVM_TYPES[op.out.dtype.name]
        if self.inner_steps[key]:
            self.put(combine(k, op, k.load(at[key], op.out.dtype, self.inner_steps[key]), x), op.out, at)
            return
        if k.mask is not None:
            x = k.select(k.mask, x, k.splat(literal(identity(op), op.out.dtype.name), element), element)
        slot, t = self.accumulators[op][self.turn], k.type(element)
        k.put(f"store {t} {combine(k, op, k.let(f'load {t}, ptr {slot}'), x)}, ptr {slot}")


def data_dtype(op: Map) -> Any:
    """Of what it computes with, numbers too."""
    inputs = op.inputs[1:] if op.name == "where" else op.inputs
    return next((x.dtype for x in inputs if isinstance(x, Value)), op.out.dtype)
