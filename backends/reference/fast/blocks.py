"""Loops that follow one another over the same rows, run block by block: all of them on some rows, then on the next,
so that what they share stays in the cache. `A @ x`, a function of its elements, and `y @ A` read A once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from adbridge.backends.reference.fast.lower import Elementwise, Map, Value
from adbridge.backends.reference.fast.plan import Loop, Unit

LEAST_ROWS = 64
LARGE = 2**20
"""Bytes that loops must touch together to be worth it: what a core's cache holds anyway is not."""
BLOCK_BYTES = 2**17
"""What a block touches."""


def runs(units: Sequence[Unit]) -> list[Sequence[Unit]]:
    """The units in order, those together that can run by blocks."""
    found: list[list[Unit]] = []
    for unit in units:
        if found and all(may_share(before, unit) for before in found[-1]):
            found[-1].append(unit)
        else:
            found.append([unit])
    together: list[Sequence[Unit]] = []
    for run in found:
        together += [run] if touched(run) > LARGE else [[unit] for unit in run]
    return together


def may_share(first: Unit, second: Unit) -> bool:
    """Whether the second may run on some rows before the first has run on those that follow."""
    if not (isinstance(first, Loop) and isinstance(second, Loop)) or first is second:
        return False
    if not (first.shape and second.shape and first.shape[0] == second.shape[0] >= LEAST_ROWS):
        return False
    for x, writes_x in accesses(first):
        for y, writes_y in accesses(second):
            if x.memory is y.memory and (writes_x or writes_y) and not in_order(x, y, first, second):
                return False
    return True


def in_order(x: Value, y: Value, first: Loop, second: Loop) -> bool:
    """Whether no row of y is one that follows the row of x; both one row after the other in the same array."""
    places = [row_of(x, first), row_of(y, second)]
    if places[0] is None or places[1] is None or x.strides[0] != y.strides[0]:
        return False
    return places[1] <= places[0]


def row_of(x: Value, loop: Loop) -> int | None:
    """The row of the array that the loop's first row is; None if rows are not apart from one another."""
    if not is_by_rows(x, loop) or min(x.strides) < 0:
        return None
    start = x.offset % x.strides[0]
    end = start + x.dtype.itemsize + sum((n - 1) * s for n, s in zip(x.shape[1:], x.strides[1:], strict=True))
    return x.offset // x.strides[0] if end <= x.strides[0] else None


def is_by_rows(x: Value, loop: Loop) -> bool:
    return len(x.shape) == len(loop.shape) and x.shape[0] == loop.shape[0] and x.strides[0] != 0


def accesses(loop: Loop) -> list[tuple[Value, bool]]:
    """The arrays that it reads, or writes."""
    own = {id(op.out) for op in loop.ops if isinstance(op, Map)}
    read = [(x, False) for op in loop.ops for x in op.inputs if isinstance(x, Value) and id(x) not in own]
    return read + [(op.out, True) for op in loop.ops]


def touched(run: Sequence[Unit]) -> int:
    """Bytes of the arrays that several of its loops use."""
    if len(run) < 2:
        return 0
    memories = [{id(x.memory): x.memory.nbytes for x, _ in accesses(loop)} for loop in run if isinstance(loop, Loop)]
    shared = {
        key: n for i, some in enumerate(memories) for key, n in some.items() if any(key in m for m in memories[:i])
    }
    return sum(shared.values())


def rows_of_block(run: Sequence[Loop]) -> int:
    """How many, in whole vectors."""
    rows = run[0].shape[0]
    sizes = {
        (id(x.memory), x.offset): x.size * x.dtype.itemsize
        for loop in run
        for x, _ in accesses(loop)
        if is_by_rows(x, loop)
    }
    per_row = sum(sizes.values()) / rows
    return min(rows, max(16, int(BLOCK_BYTES / per_row) // 16 * 16))


def some_rows(loop: Loop, start: int, count: int) -> tuple[Loop, dict[int, int]]:
    """The loop over `count` rows from `start`; by how many bytes its arrays, by identity, move for each row more."""
    made: dict[int, Value] = {}
    moves: dict[int, int] = {}

    def cut(x: Value) -> Value:
        if not is_by_rows(x, loop):
            return x
        if id(x) not in made:
            made[id(x)] = cut_x = replace(x, shape=(count, *x.shape[1:]), offset=x.offset + start * x.strides[0])
            moves[id(cut_x)] = x.strides[0]
        return made[id(x)]

    def cut_op(op: Elementwise) -> Elementwise:
        inputs = tuple(cut(x) if isinstance(x, Value) else x for x in op.inputs)
        if isinstance(op, Map):
            return replace(op, inputs=inputs, out=cut(op.out))
        out = op.out if is_by_rows(op.out, loop) else replace(op.out, shape=(count, *op.out.shape[1:]))
        return replace(op, input=inputs[0], out=cut(op.out) if out is op.out else out)

    return Loop((count, *loop.shape[1:]), [cut_op(op) for op in loop.ops], partial=True), moves
