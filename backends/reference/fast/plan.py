"""Which operations run in one loop, and where arrays are in the workspace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from adbridge.backends.reference.fast.lower import (
    Check,
    Elementwise,
    Map,
    Memory,
    Op,
    Product,
    Reduce,
    Step,
    Value,
    Write,
)

MOST_OPS = 20_000
"""Operations of a unit, so that no loop takes LLVM long."""


@dataclass(eq=False)
class Loop:
    """Operations over one shape, done element by element."""

    shape: tuple[int, ...]
    ops: list[Elementwise]
    fills: list[Memory] = field(default_factory=list)
    """What is to be zero before it runs."""
    partial: bool = False
    """Whether it is over some rows of many: what is reduced along them is added to what is there."""


@dataclass(eq=False)
class Alone:
    """An operation of another kind."""

    op: Product | Step | Check

    @property
    def ops(self) -> Sequence[Op]:
        return (self.op,)


Unit = Loop | Alone


def schedule(ops: Sequence[Op]) -> list[Unit]:
    """Units in order. An operation joins the last loop of its shape that comes after all it needs.

    The result of a `Map` is there, element by element, in the loop that makes it; everything else after the unit.
    """
    units: list[Unit] = []
    ready = Readiness()
    last_of_shape: dict[tuple[int, ...], int] = {}
    for op in ops:
        if not isinstance(op, Map | Reduce | Write):
            units.append(Alone(op))
            ready.made(op, len(units) - 1)
            continue
        shape = op.input.shape if isinstance(op, Reduce) else op.out.shape
        at = last_of_shape.get(shape, -1)
        loop = units[at] if at >= 0 else None
        if not isinstance(loop, Loop) or at < ready.needs(op, shape) or len(loop.ops) >= MOST_OPS:
            at, loop = len(units), Loop(shape, [])
            units.append(loop)
            last_of_shape[shape] = at
        loop.ops.append(op)
        ready.made(op, at)
    find_fills(units)
    return units


def find_fills(units: Sequence[Unit]) -> None:
    """An array is filled before the first unit that writes to it, which need not be the first operation that does."""
    seen: set[int] = set()
    for unit in units:
        for op in unit.ops:
            if isinstance(op, Write) and op.out.memory.fill is not None and id(op.out.memory) not in seen:
                assert isinstance(unit, Loop)
                seen.add(id(op.out.memory))
                unit.fills.append(op.out.memory)


class Readiness:
    """From which unit on what has been made can be used."""

    def __init__(self) -> None:
        self.memory: dict[int, int] = {}  # by identity, the last unit that writes to it
        self.elements: dict[int, int] = {}  # of the results of maps, the loop

    def needs(self, op: Elementwise, shape: tuple[int, ...]) -> int:
        need = self.memory[id(op.out.memory)] + 1 if isinstance(op, Write) and op.ordered else 0
        for x in op.inputs:
            if isinstance(x, Value):
                inside = self.elements.get(id(x), -1) if x.shape == shape else -1
                need = max(need, inside if inside >= 0 else self.memory.get(id(x.memory), -1) + 1)
        return need

    def made(self, op: Op, at: int) -> None:
        if not isinstance(op.out, Value):
            return
        key = id(op.out.memory)
        self.memory[key] = max(self.memory.get(key, -1), at)
        if isinstance(op, Map):
            self.elements[id(op.out)] = at
        elif isinstance(op, Write):
            self.elements.pop(id(op.out.memory.whole), None)


def used_outside(units: Sequence[Unit]) -> set[int]:
    """The memories, by identity, that are read by another unit than the one that makes the value, or as a whole."""
    found: set[int] = set()
    for unit in units:
        own = {id(op.out) for op in unit.ops if isinstance(op, Map)}
        for op in unit.ops:
            for x in op.inputs:
                if isinstance(x, Value) and (id(x) not in own or x.shape != getattr(unit, "shape", None)):
                    found.add(id(x.memory))
    return found


def memories(unit: Unit) -> Iterator[Memory]:
    for op in unit.ops:
        for x in (*op.inputs, op.out):
            if isinstance(x, Value):
                yield x.memory


def lay_out(runs: Sequence[Sequence[Unit]]) -> int:
    """Give every memory that is needed its place in the workspace; the workspace's size.

    The units of a run may be under way at the same time: what one uses is free after all of them.
    """
    stored = used_outside([unit for run in runs for unit in run])
    spans: dict[int, tuple[Memory, int, int]] = {}
    for i, run in enumerate(runs):
        for unit in run:
            written = {id(op.out.memory) for op in unit.ops if isinstance(op, Reduce | Write)}
            for memory in memories(unit):
                if memory.base == "" and (id(memory) in stored or id(memory) in written):
                    spans[id(memory)] = memory, spans.get(id(memory), (memory, i, i))[1], i
    arena = Arena()
    starts: dict[int, list[Memory]] = {}
    ends: dict[int, list[Memory]] = {}
    for memory, first, last in spans.values():
        starts.setdefault(first, []).append(memory)
        ends.setdefault(last, []).append(memory)
    for i in range(len(runs)):
        for memory in starts.get(i, []):
            memory.base, memory.offset = "w", arena.take(memory.nbytes)
        for memory in ends.get(i, []):
            arena.give(memory.offset, memory.nbytes)
    return arena.size


class Arena:
    """Offsets in a workspace that grows; what is given back is used again. All in steps of a cache line."""

    LINE = 64

    def __init__(self) -> None:
        self.size = 0
        self.free: list[tuple[int, int]] = []  # start, end, by start

    def take(self, nbytes: int) -> int:
        need = max(1, -(-nbytes // self.LINE)) * self.LINE
        fits = [(end - start, start, end) for start, end in self.free if end - start >= need]
        if fits:
            _, start, end = min(fits)
            self.free.remove((start, end))
            if end - start > need:
                self.free.append((start + need, end))
                self.free.sort()
            return start
        grows = self.free and self.free[-1][1] == self.size
        start = self.free.pop()[0] if grows else self.size
        self.size = start + need
        return start

    def give(self, start: int, nbytes: int) -> None:
        end = start + max(1, -(-nbytes // self.LINE)) * self.LINE
        merged = []
        for a, b in self.free:
            if b == start:
                start = a
            elif a == end:
                end = b
            else:
                merged.append((a, b))
        self.free = sorted([*merged, (start, end)])
