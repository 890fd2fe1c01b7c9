"""What runs when, and in which memory: the plan of a compiled program.

Steps are put into units, elementwise ones over large arrays together. Every value gets a storage, from the unit
that computes it to the last one that uses it or a view of it; what is written in place shares one. Storages that
are not needed at the same time share memory (a linear scan, as compilers allot registers).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from adbridge.backends.reference.algebra import FINITE, REGULAR, ZERO
from adbridge.backends.reference.primitives import Var
from adbridge.backends.reference.program import Equation, Program

BLOCKED_SIZE = 2**14
"""Elements from which on elementwise steps run in blocks."""


@dataclass(eq=False)
class Storage:
    """Memory of one value, and of what is updated in place. `last` is the last unit that uses it."""

    nbytes: int
    first: int
    last: int = -1
    fresh: bool = False  # handed out as a result: new at every call
    slot: int | None = None


@dataclass
class Unit:
    """Equations that run together: one, or elementwise ones of one shape in blocks."""

    equations: list[Equation]
    shape: tuple[int, ...] | None = None

    @property
    def blocked(self) -> bool:
        return self.shape is not None


def schedule(equations: Sequence[Equation], inlined: Mapping[int, Equation], branches: Set[int]) -> list[Unit]:
    """Units in order. A large elementwise step joins the last unit of its shape that has all it needs, but not
    from beyond a branch: what is computed there may be computed there alone.
    """
    units: list[Unit] = []
    of_var: dict[int, int] = {}
    open_units: dict[tuple[int, ...], int] = {}
    for eq in equations:
        need = max((of_var.get(x.index, -1) for x in operands(eq, inlined) if type(x) is Var), default=-1)
        shape = eq.output.shape
        if is_ufunc(eq) and int(np.prod(shape)) >= BLOCKED_SIZE:
            at = open_units.get(shape, -1)
            if at < max(need, 0):
                at = open_units[shape] = len(units)
                units.append(Unit([], shape))
            units[at].equations.append(eq)
        else:
            at = len(units)
            units.append(Unit([eq]))
        of_var[eq.output.index] = at
        if eq.output.index in branches:
            open_units.clear()
    for unit in units:
        if len(unit.equations) == 1:
            unit.shape = None  # blocks gain nothing
    return units


def operands(eq: Equation, inlined: Mapping[int, Equation]) -> tuple[Any, ...]:
    """What a step reads: of a sum of products, the factors."""
    maker = inlined.get(eq.output.index)
    return eq.inputs if maker is None else maker.inputs


def is_ufunc(eq: Equation) -> bool:
    elementwise = eq.primitive.partials is not None or eq.primitive.name in _COMPARISONS
    return elementwise and isinstance(eq.primitive.impl, np.ufunc)


_COMPARISONS = frozenset({"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"})
IN_PLACE = frozenset({"add_at", "set_at", "clear_at"})
VIEWS = frozenset({"getitem", "reshape", "permute_dims", "broadcast_to"})
_PARTS = frozenset({"real", "imag", "diagonal"})


class Plan:
    """Of a program that is simplified."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.maker = {eq.output.index: eq for eq in program.equations}
        self.summed = self.find_summed_products()
        inlined = {id(eq) for eq in self.summed.values()}
        branches = {g.var.index for g in program.guards if g.value is not REGULAR and g.value is not FINITE}
        self.units = schedule([eq for eq in program.equations if id(eq) not in inlined], self.summed, branches)
        self.unit_of = {eq.output.index: i for i, unit in enumerate(self.units) for eq in unit.equations}
        self.root: dict[int, int] = {}  # of a view, the variable that it is a view of
        self.storage: dict[int, Storage] = {}  # by root variable
        self.overwrites: set[int] = set()  # writes to what was zero until then
        self.gaps: dict[int, list[slice] | None] = {}  # of zeros, the few parts that are not written over
        self.covered: set[int] = set()  # zeros that are written over in full
        self.destination: dict[int, Equation] = {}  # of a value, the write that it is computed for
        self.slots: list[int] = []  # sizes in bytes
        self.free: dict[int, list[int]] = {}  # slots that are not in use, by size
        self.analyse()

    def is_view(self, eq: Equation) -> bool:
        return (
            eq.primitive.name in VIEWS and len(eq.inputs) == 1 and type(eq.inputs[0]) is Var and eq.output.shape != ()
        )

    def root_of(self, x: Var) -> int:
        while x.index in self.root:
            x = Var(self.root[x.index], (), None)
        return x.index

    def analyse(self) -> None:
        """Roots of views, and when each value is used last."""
        for i, unit in enumerate(self.units):
            for eq in unit.equations:
                if self.is_view(eq) or may_be_view(eq):
                    self.root[eq.output.index] = eq.inputs[0].index
                elif planned(eq):
                    self.storage[eq.output.index] = Storage(_nbytes(eq.output), i, i)
                for x in operands(eq, self.summed):
                    if type(x) is Var and (s := self.storage.get(self.root_of(x))):
                        s.last = max(s.last, i)
        end = len(self.units)
        for guard in self.program.guards:
            self.use(guard.var, self.unit_of.get(guard.var.index, 0))
        for x in self.program.outputs:
            if type(x) is Var:
                self.use(x, end)
                if (s := self.storage.get(x.index)) is not None:
                    s.fresh = True
        self.share_in_place()
        self.find_destinations()

    def find_destinations(self) -> None:
        """What is added to zeros, each part of them once, is put there, best by the step that computes it."""
        uses = self.uses()
        masks: dict[int, Any] = {}
        starts: dict[int, int] = {}
        for i, unit in enumerate(self.units):
            eq = unit.equations[0]
            if eq.primitive.name != "add_at" or len(eq.inputs) > 2 or unit.blocked:
                continue
            out, base, key = eq.output, eq.inputs[0], eq.params["key"]
            if base is ZERO:
                mask, start = np.zeros(out.shape, np.bool_), out.index
            elif (
                type(base) is Var
                and uses[base.index] == 1
                and base.index in masks
                and self.storage[base.index] is self.storage[out.index]
            ):
                mask, start = masks.pop(base.index), starts[base.index]
            else:
                continue
            if not mask[key].any():
                self.overwrites.add(out.index)
                self.find_destination(eq, i, uses)
                if base is ZERO or self.gaps.get(start) is not None:
                    written = mask.copy()
                    written[key] = True
                    self.gaps[start] = _gaps(written)
            elif not mask[key].all():
                continue  # adds to what has not been written: the zeros are needed
            mask[key] = True
            masks[out.index], starts[out.index] = mask, start
            if mask.all():
                self.covered.add(start)

    def find_destination(self, eq: Equation, i: int, uses: Counter[int]) -> None:
        base, value = eq.inputs
        if type(value) is not Var or uses[value.index] != 1 or value.index in self.root:
            return
        mine = self.storage.get(value.index)
        maker = next((e for e in self.units[self.unit_of.get(value.index, 0)].equations if e.output is value), None)
        if mine is None or maker is None or maker.primitive.name in IN_PLACE or value.dtype != eq.output.dtype:
            return
        if base is not ZERO and self.unit_of[value.index] < self.unit_of[base.index]:
            return  # computed before the array is begun
        if value.shape == np.broadcast_to(np.False_, eq.output.shape)[eq.params["key"]].shape:
            self.destination[value.index] = eq
            del self.storage[value.index]

    def uses(self) -> Counter[int]:
        uses = Counter(x.index for eq in self.program.equations for x in eq.inputs if type(x) is Var)
        uses.update(x.index for x in self.program.outputs if type(x) is Var)
        uses.update(guard.var.index for guard in self.program.guards)
        return uses

    def find_summed_products(self) -> dict[int, Equation]:
        """Sums of products that nothing else needs: einsum makes no array of the product.

        It adds one term after the other, so that rounding grows with their number: only short sums.
        """
        uses = self.uses()
        found = {}
        for eq in self.program.equations:
            if eq.primitive.name != "sum" or eq.params["keepdims"] or not planned(eq):
                continue
            x = eq.inputs[0]
            maker = self.maker.get(x.index)
            terms = int(np.prod([x.shape[i] for i in eq.params["axis"]]))
            if (
                maker is None
                or uses[x.index] != 1
                or terms > 1000
                or maker.primitive.name not in ("multiply", "square")
            ):
                continue
            if all(type(y) is Var and y.shape == x.shape and y.dtype == x.dtype for y in maker.inputs):
                found[eq.output.index] = maker
        return found

    def use(self, x: Var, at: int) -> None:
        if (s := self.storage.get(self.root_of(x))) is not None:
            s.last = max(s.last, at)

    def share_in_place(self) -> None:
        """A write to an array that nothing needs afterwards is a write into its memory."""
        for i, unit in enumerate(self.units):
            eq = unit.equations[0]
            if eq.primitive.name not in IN_PLACE or type(eq.inputs[0]) is not Var or unit.blocked:
                continue
            base, mine = eq.inputs[0], self.storage.get(eq.output.index)
            theirs = self.storage.get(base.index)  # not of a view
            others = {self.root_of(x) for x in eq.inputs[1:] if type(x) is Var}
            if mine is None or theirs is None or theirs.last != i or base.index in others or theirs.fresh:
                continue
            if theirs.nbytes != mine.nbytes or base.dtype != eq.output.dtype:
                continue
            theirs.last, theirs.fresh = mine.last, mine.fresh
            for var, storage in self.storage.items():
                if storage is mine:
                    self.storage[var] = theirs

    def take(self, storage: Storage) -> None:
        """Memory for a value: what an earlier one has left, or more."""
        if storage.fresh or storage.slot is not None:
            return
        if self.free.get(storage.nbytes):
            storage.slot = self.free[storage.nbytes].pop()
        else:
            storage.slot = len(self.slots)
            self.slots.append(storage.nbytes)

    def release(self, unit: Unit, i: int, only: Sequence[int] | None = None) -> None:
        """Give back the memory of what the unit uses last (of the variables `only`)."""
        seen = {
            self.root_of(x) for eq in unit.equations for x in (*operands(eq, self.summed), eq.output) if type(x) is Var
        }
        for root in seen:
            s = self.storage.get(root)
            if s is None or s.slot is None or s.last != i or (only is not None and root not in only):
                continue
            if s.slot >= 0:
                self.free.setdefault(s.nbytes, []).append(s.slot)
                s.last = -2  # released


REDUCTIONS = {"sum": "add_reduce", "max": "maximum_reduce", "min": "minimum_reduce"}


def planned(eq: Equation) -> bool:
    """Whether a step writes into memory that is laid out beforehand."""
    out, name = eq.output, eq.primitive.name
    if out.dtype is None or out.shape == () or 0 in out.shape:
        return False
    if name in REDUCTIONS:
        return bool(eq.inputs[0].dtype == out.dtype)
    if name == "matmul":
        return all(getattr(x, "dtype", None) == out.dtype for x in eq.inputs)
    if name in IN_PLACE:
        return eq.inputs[0] is ZERO or eq.inputs[0].dtype == out.dtype
    return is_ufunc(eq) or name == "concat"


def _gaps(written: Any) -> list[slice] | None:
    """The one or two short runs of a vector that are not written; None if it is not so."""
    if written.ndim != 1:
        return None
    edges = np.flatnonzero(np.diff(np.concatenate(([True], written, [True])).astype(np.int8)))
    gaps = [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    few = len(gaps) <= 2 and sum(gap.stop - gap.start for gap in gaps) <= written.size // 4
    return gaps if few else None


def may_be_view(eq: Equation) -> bool:
    """Whether a step that makes its own result may make a view: of no dimensions, or a part of complex numbers."""
    return eq.primitive.name in VIEWS | _PARTS and len(eq.inputs) == 1 and type(eq.inputs[0]) is Var


def _nbytes(var: Var) -> int:
    return int(np.prod(var.shape)) * int(var.dtype.itemsize)
