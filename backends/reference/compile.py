"""A program compiled to straight-line NumPy source with planned buffers.

Every step writes into memory that was laid out beforehand: a step's result takes the place of an operand that is
not needed any more, and a view of a buffer is made once, not at every call. Elementwise steps over large arrays
run block by block, all of them on one block before the next, so that what is between them stays in the cache and
is never stored whole. Results are new arrays.

A call takes a workspace (the buffers, and the source run with them) from a pool, so that threads do not share one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy._core.multiarray import c_einsum

from adbridge.backends.reference.primitives import Var
from adbridge.backends.reference.program import Equation, Guard, Program
from adbridge.backends.reference.rules.shaping import Slot
from adbridge.backends.reference.simplify import FINITE, REGULAR, ZERO, simplify

BLOCK_BYTES = 2**18
"""What the buffers of a block may take together: a share of a core's second-level cache."""
LEAST_BLOCK = 2**12
"""Elements of a block at the least: a step costs as much to start as to run on a few hundred."""
BLOCKED_SIZE = 2**14
"""Elements from which on elementwise steps run in blocks."""


class GuardFailed(Exception):
    """The run took another branch than the recorded one."""


def compile_program(program: Program, assume: bool = True) -> Callable[..., tuple[Any, ...]]:
    """A function of NumPy arrays like the program's inputs. Raises GuardFailed when called, as guards say."""
    return Compiler(simplify(program, assume)).function()


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


@dataclass
class Place:
    """Where a variable is: `name` in the source; its storage, if planned; the array as first laid out."""

    name: str
    storage: Storage | None = None
    proto: Any = None  # an array laid out like it, if its layout is known beforehand
    static: bool = False  # whether the name is bound once for a workspace


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
_IN_PLACE = frozenset({"add_at", "set_at", "clear_at"})
_VIEWS = frozenset({"getitem", "reshape", "permute_dims", "broadcast_to"})
_PARTS = frozenset({"real", "imag", "diagonal"})


class Compiler:
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
        self.places: dict[int, Place] = {}
        self.constants: dict[str, Any] = {}
        self.setup: list[str] = []  # run once for a workspace
        self.body: list[str] = []  # run at every call
        self.slots: list[int] = []  # sizes in bytes
        self.numbers: dict[Any, str] = {}
        self.overwrites: set[int] = set()  # writes to what was zero until then
        self.gaps: dict[int, list[slice] | None] = {}  # of zeros, the few parts that are not written over
        self.covered: set[int] = set()  # zeros that are written over in full
        self.destination: dict[int, Equation] = {}  # of a value, the write that it is computed for
        self.results: set[int] = set()  # variables handed out so far
        self.names = 0

    # Analysis.

    def is_view(self, eq: Equation) -> bool:
        return (
            eq.primitive.name in _VIEWS and len(eq.inputs) == 1 and type(eq.inputs[0]) is Var and eq.output.shape != ()
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
        if mine is None or maker is None or maker.primitive.name in _IN_PLACE or value.dtype != eq.output.dtype:
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
            if eq.primitive.name not in _IN_PLACE or type(eq.inputs[0]) is not Var or unit.blocked:
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

    # Memory.

    def take(self, storage: Storage, free: dict[int, list[int]]) -> None:
        if storage.fresh or storage.slot is not None:
            return
        if free.get(storage.nbytes):
            storage.slot = free[storage.nbytes].pop()
        else:
            storage.slot = len(self.slots)
            self.slots.append(storage.nbytes)

    def release(self, unit: Unit, i: int, free: dict[int, list[int]], only: Sequence[int] | None = None) -> None:
        seen = {
            self.root_of(x) for eq in unit.equations for x in (*operands(eq, self.summed), eq.output) if type(x) is Var
        }
        for root in seen:
            s = self.storage.get(root)
            if s is None or s.slot is None or s.last != i or (only is not None and root not in only):
                continue
            if s.slot >= 0:
                free.setdefault(s.nbytes, []).append(s.slot)
                s.last = -2  # released

    # Source.

    def function(self) -> Callable[..., tuple[Any, ...]]:
        self.analyse()
        for i, var in enumerate(self.program.inputs):
            self.places[var.index] = Place(f"x{i}")
            if var.shape == ():
                self.body.append(f"x{i} = x{i}[()]")
        guards: dict[int, list[Guard]] = {}
        for guard in self.program.guards:
            guards.setdefault(self.unit_of.get(guard.var.index, -1), []).append(guard)
        free: dict[int, list[int]] = {}
        self.emit_guards(guards.get(-1, []))
        for i, unit in enumerate(self.units):
            if unit.blocked:
                self.emit_block(unit, i, free)
            else:
                self.emit(unit.equations[0], unit, i, free)
            self.release(unit, i, free)
            self.emit_guards(guards.get(i, []))
        self.body.append(f"return ({''.join(self.result(x) + ', ' for x in self.program.outputs)})")
        return Workspaces(self)

    def fresh_name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def constant(self, value: Any) -> str:
        name = self.fresh_name("c")
        self.constants[name] = value
        return name

    def emit_guards(self, guards: list[Guard]) -> None:
        for guard in guards:
            if guard.value is REGULAR or guard.value is FINITE:
                name, scalar = self.operand(guard.var), guard.var.shape == ()
                least, test = ("0.0 < ", "regular") if guard.value is REGULAR else ("", "finite")
                test = f"{least}abs({name}) < inf" if scalar else f"{test}({name})"
            else:
                test = f"same({self.operand(guard.var)}, {self.constant(guard.value)})"
            self.body.append(f"if not {test}: raise GuardFailed")

    def operand(self, x: Any) -> str:
        if type(x) is Var:
            return self.places[x.index].name
        if type(x) in (int, float, bool) and x == x and abs(x) != float("inf"):
            return repr(x)
        return self.constant(x)

    def result(self, x: Any) -> str:
        """A program's output as a new array."""
        if type(x) is not Var:
            return f"array({self.constant(x)})"
        place = self.places[x.index]
        ours = place.storage is not None and place.storage.fresh and x.index not in self.results
        self.results.add(x.index)
        return place.name if ours and x.index not in self.root else f"array({place.name})"

    def lay_out(self, var: Var, storage: Storage) -> Place:
        """The place of a value with memory of its own."""
        proto = np.empty(var.shape, var.dtype)
        if storage.fresh:
            name = self.fresh_name("r")
            self.body.append(f"{name} = empty({var.shape}, {self.dtype(var.dtype)})")
            return Place(name, storage, proto)
        name = self.fresh_name("b")
        self.setup.append(f"{name} = buffer({storage.slot}, {var.shape}, {self.dtype(var.dtype)})")
        return Place(name, storage, proto, static=True)

    def dtype(self, dtype: Any) -> str:
        return self.constant(dtype)

    def bind(self, expression: str, place: Place) -> None:
        """A view: made once if what it is a view of is, else at every call."""
        (self.setup if place.static else self.body).append(f"{place.name} = {expression}")

    def emit(self, eq: Equation, unit: Unit, i: int, free: dict[int, list[int]]) -> None:
        out, name = eq.output, eq.primitive.name
        if self.is_view(eq):
            self.emit_view(eq)
            return
        if not planned(eq):
            self.places[out.index] = Place(self.fresh_name("v"))
            self.body.append(f"{self.places[out.index].name} = {self.expression(eq)}")
            return
        if (write := self.destination.get(out.index)) is not None:
            self.places[out.index] = self.part_of(write, free)
            self.body.append(self.into(eq, self.places[out.index].name))
            return
        storage = self.storage[out.index]
        if name in _IN_PLACE:
            self.emit_write(eq, storage, free)
            return
        if is_ufunc(eq):
            # The result may take an operand's place if it is laid out alike.
            whole = [x.index for x in eq.inputs if type(x) is Var and x.shape == out.shape and x.index not in self.root]
            used_as_view = {self.root_of(x) for x in eq.inputs if type(x) is Var and x.index in self.root}
            self.release(unit, i, free, [x for x in whole if x not in used_as_view])
        self.take(storage, free)
        if storage.fresh and name != "concat":  # the step makes its own result
            place = self.places[out.index] = Place(self.fresh_name("r"), storage)
            self.body.append(f"{place.name} = {self.into(eq, 'None')}")
            return
        place = self.places[out.index] = self.lay_out(out, storage)
        self.body.append(self.into(eq, place.name))

    def emit_view(self, eq: Equation) -> None:
        base = self.places[eq.inputs[0].index]
        expression, proto = _view_of(eq, base)
        if expression is None:  # a reshape that copies
            place = Place(self.fresh_name("v"))
            self.body.append(f"{place.name} = {base.name}.reshape({eq.output.shape})")
            self.places[eq.output.index] = place
            return
        place = Place(self.fresh_name("w"), base.storage, proto, base.static)
        self.bind(self.with_key(expression, eq), place)
        self.places[eq.output.index] = place

    def with_key(self, expression: str, eq: Equation) -> str:
        return expression.replace("KEY", self.constant(eq.params["key"])) if "KEY" in expression else expression

    def expression(self, eq: Equation) -> str:
        """A step that makes its own result."""
        name, args = eq.primitive.name, [self.operand(x) for x in eq.inputs]
        scalar = eq.output.shape == () and all(type(x) is not Var or x.shape == () for x in eq.inputs)
        if scalar and name in _INFIX and any(type(x) is Var for x in eq.inputs):
            return f" {_INFIX[name]} ".join(args)
        if name in _REDUCTIONS and eq.inputs[0].dtype == eq.output.dtype:
            axis = None if len(eq.params["axis"]) == len(eq.inputs[0].shape) else eq.params["axis"]
            return f"{_REDUCTIONS[name]}({args[0]}, {axis}, None, None, {eq.params['keepdims']})"
        if name == "getitem" and not eq.inputs[1:]:
            return f"{args[0]}[{self.constant(eq.params['key'])}]"
        if name == "take":
            return f"{args[0]}.take({args[1]}, {eq.params['axis']})"
        function = self.constant(eq.primitive.impl)
        params = f", **{self.constant(eq.params)}" if eq.params else ""
        return f"{function}({', '.join(args)}{params})"

    def into(self, eq: Equation, out: str) -> str:
        """A step that writes its result into `out`."""
        if is_ufunc(eq):
            return self.call_ufunc(eq, [self.number(x, eq) for x in eq.inputs], out)
        name = eq.primitive.name
        if name == "sum":
            return self.sum_into(eq, out)
        args = [self.operand(x) for x in eq.inputs]
        if name == "matmul":
            contiguous = eq.output.index not in self.destination  # what np.dot writes to has to be
            return f"{'dot' if contiguous and _dottable(eq) else 'matmul'}({', '.join(args)}, {out})"
        if name in _REDUCTIONS:
            return f"{_REDUCTIONS[name]}({args[0]}, {eq.params['axis']}, None, {out}, {eq.params['keepdims']})"
        if name == "concat":
            return f"concatenate(({', '.join(args)},), {eq.params['axis']}, {out})"
        raise AssertionError(name)

    def call_ufunc(self, eq: Equation, args: Sequence[str], out: str) -> str:
        by_name = "out=" if eq.primitive.impl in (np.maximum, np.minimum) else ""  # a third argument is deprecated
        return f"{self.ufunc(eq)}({', '.join(args)}, {by_name}{out})"

    def number(self, x: Any, eq: Equation) -> str:
        """An operand; a number as an array of no dimensions, which costs a ufunc less than to make it one."""
        if type(x) not in (int, float):
            return self.operand(x)
        like = next((y for y in eq.inputs if type(y) is Var), eq.output)
        key = (repr(x), like.dtype)  # 0.0 is not -0.0, nor 1 1.0
        if key not in self.numbers:
            self.numbers[key] = self.constant(np.asarray(x, like.dtype) if like.dtype.kind in "fc" else x)
        return self.numbers[key]

    def sum_into(self, eq: Equation, out: str) -> str:
        if (product := self.summed.get(eq.output.index)) is not None:
            letters = "abcdefghijklmnopqrstuvwxyz"[: len(eq.inputs[0].shape)]
            kept = "".join(c for i, c in enumerate(letters) if i not in eq.params["axis"])
            into = "" if out == "None" else f", out={out}"
            first, second = (self.operand(y) for y in product.inputs * (3 - len(product.inputs)))
            return f"einsum('{letters},{letters}->{kept}', {first}, {second}{into})"
        return f"add_reduce({self.operand(eq.inputs[0])}, {eq.params['axis']}, None, {out}, {eq.params['keepdims']})"

    def ufunc(self, eq: Equation) -> str:
        name = eq.primitive.impl.__name__
        self.constants.setdefault(f"np_{name}", eq.primitive.impl)
        return f"np_{name}"

    def emit_write(self, eq: Equation, storage: Storage, free: dict[int, list[int]]) -> None:
        key = eq.params["key"]
        value = eq.inputs[1] if eq.primitive.name != "clear_at" else 0.0
        indices = eq.inputs[1:] if eq.primitive.name == "clear_at" else eq.inputs[2:]
        place = self.target(eq, free)
        self.places[eq.output.index] = place
        if indices:
            at = self.index_expression(key, indices)
            call = f"add_to({place.name}, {at}, {self.operand(value)})"
            self.body.append(call if eq.primitive.name == "add_at" else f"{place.name}[{at}] = {self.operand(value)}")
            return
        if type(value) is Var and self.destination.get(value.index) is eq:
            return
        if self.is_item(eq):
            sign = "+" if eq.primitive.name == "add_at" and eq.output.index not in self.overwrites else ""
            self.body.append(f"{place.name}[{self.constant(key)}] {sign}= {self.operand(value)}")
            return
        part = self.part_of(eq, free)
        if eq.primitive.name == "add_at" and eq.output.index not in self.overwrites:
            self.body.append(f"np_add({part.name}, {self.operand(value)}, {part.name})")
        else:
            self.body.append(f"copyto({part.name}, {self.operand(value)})")

    def is_item(self, eq: Equation) -> bool:
        """Whether a write is to one element, of which NumPy makes no view."""
        return type(np.broadcast_to(np.False_, eq.output.shape)[eq.params["key"]]) is not np.ndarray

    def target(self, eq: Equation, free: dict[int, list[int]]) -> Place:
        """Where a write goes: into its base, or a copy of it."""
        if eq.output.index in self.places:
            return self.places[eq.output.index]
        base, storage = eq.inputs[0], self.storage[eq.output.index]
        if type(base) is Var and self.storage.get(base.index) is storage:
            before = self.places[base.index]
            place = Place(before.name, storage, before.proto, not storage.fresh)
        else:
            self.take(storage, free)
            place = self.lay_out(eq.output, storage)
            if base is not ZERO:
                self.body.append(f"copyto({place.name}, {self.operand(base)})")
            elif eq.output.index not in self.covered:
                self.emit_zeros(eq, place)
        self.places[eq.output.index] = place
        return place

    def emit_zeros(self, eq: Equation, place: Place) -> None:
        """Where nothing is going to be written over."""
        gaps = self.gaps.get(eq.output.index)
        if gaps is None:
            self.body.append(f"{place.name}.fill(0)")
            return
        for gap in gaps:
            part = Place(self.fresh_name("w"), place.storage, None, place.static)
            self.bind(f"{place.name}[{gap.start}:{gap.stop}]", part)
            self.body.append(f"{part.name}.fill(0)")

    def part_of(self, eq: Equation, free: dict[int, list[int]]) -> Place:
        """The part that a write goes to, as a view."""
        place = self.target(eq, free)
        part = Place(self.fresh_name("w"), self.storage[eq.output.index], None, place.static)
        self.bind(f"{place.name}[{self.constant(eq.params['key'])}]", part)
        return part

    def index_expression(self, key: Any, indices: Sequence[Any]) -> str:
        names = [self.operand(x) for x in indices]
        parts = key if isinstance(key, tuple) else (key,)
        shown = [names[part.i] if type(part) is Slot else self.constant(part) for part in parts]
        return f"({', '.join(shown)},)" if isinstance(key, tuple) else shown[0]

    # Blocks.

    def emit_block(self, unit: Unit, i: int, free: dict[int, list[int]]) -> None:
        """All steps on one block of the first axis, then the next block."""
        shape = unit.shape
        assert shape is not None
        axis = next((k for k, size in enumerate(shape) if size > 1), 0)
        inside = {eq.output.index for eq in unit.equations}
        last_use = {x.index: k for k, eq in enumerate(unit.equations) for x in eq.inputs if type(x) is Var}
        leaving = [eq.output for eq in unit.equations if self.leaves(eq.output, i, unit)]
        for out in leaving:
            if (write := self.destination.get(out.index)) is not None:
                self.places[out.index] = self.part_of(write, free)
                continue
            self.take(self.storage[out.index], free)
            self.places[out.index] = self.lay_out(out, self.storage[out.index])
        temps = _temporaries(unit, {v.index for v in leaving}, last_use)
        row = int(np.prod(shape)) // shape[axis]
        count = max(temps.values(), default=-1) + 1
        itemsize = max(eq.output.dtype.itemsize for eq in unit.equations)
        rows = BLOCK_BYTES // max(1, row * itemsize * (count + len(leaving) + 1))
        rows = min(shape[axis], max(1, rows, LEAST_BLOCK // max(1, row)))
        block_shape = (*shape[:axis], rows, *shape[axis + 1 :])
        group = self.fresh_name("g")
        params, sources = self.block_arguments(unit, inside, axis, leaving)
        names = {f"t{k}": _widest(unit, temps, k) for k in range(count)}
        self.setup += [f"{group}_{t} = scratch({block_shape}, {self.dtype(d)})" for t, d in names.items()]
        lines = self.block_lines(unit, temps, params, names)
        slices = "slice(None), " * axis
        self.setup.append(f"def {group}({', '.join([*dict.fromkeys(params.values()), *names])}):")
        self.setup += [f"    {line}" for line in lines]
        self.setup.append(f"{group}_tail = {shape[axis] % rows}")
        for t in names:
            self.setup.append(
                f"{group}_{t}_tail = {group}_{t}[{slices}:{group}_tail]"
                if axis
                else f"{group}_{t}_tail = {group}_{t}[:{group}_tail]"
            )
        cut = [f"{source}[{slices}i:j]" if sliced else source for source, sliced in sources]
        self.body.append(f"for i in range(0, {shape[axis] - shape[axis] % rows}, {rows}):")
        self.body.append(f"    j = i + {rows}")
        self.body.append(f"    {group}({', '.join([*cut, *(f'{group}_{t}' for t in names)])})")
        if shape[axis] % rows:
            self.body.append(f"i, j = {shape[axis] - shape[axis] % rows}, {shape[axis]}")
            self.body.append(f"{group}({', '.join([*cut, *(f'{group}_{t}_tail' for t in names)])})")

    def leaves(self, var: Var, i: int, unit: Unit) -> bool:
        """Whether a variable of a block is used outside it."""
        if var.index in self.destination:
            return True
        s = self.storage[var.index]
        return s.last > i or any(self.root_of(g.var) == var.index for g in self.program.guards)

    def block_arguments(
        self, unit: Unit, inside: set[int], axis: int, leaving: list[Var]
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
            source = self.operand(x)
            if sliced and k < axis:  # fewer leading axes than the result
                source = f"{source}.reshape({shape})"
            params[key] = f"p{len(params)}"
            sources.append((source, sliced))
        return params, sources

    def block_lines(
        self, unit: Unit, temps: dict[int, int], params: dict[Any, str], names: dict[str, Any]
    ) -> list[str]:
        def name_of(x: Any, eq: Equation) -> str:
            if type(x) is Var:
                return params[x.index] if x.index in params else f"t{temps[x.index]}"
            return params[id(x)] if id(x) in params else self.number(x, eq)

        def out(eq: Equation) -> str:
            if eq.output.index in params:
                return params[eq.output.index]
            t = f"t{temps[eq.output.index]}"
            return t if names[t] == eq.output.dtype else f"{t}.view({self.dtype(eq.output.dtype)})"

        return [self.call_ufunc(eq, [name_of(x, eq) for x in eq.inputs], out(eq)) for eq in unit.equations]


def _temporaries(unit: Unit, leaving: set[int], last_use: dict[int, int]) -> dict[int, int]:
    """A block buffer for each variable that stays within the block; one dtype to a buffer."""
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


def _widest(unit: Unit, temps: dict[int, int], k: int) -> Any:
    return next(eq.output.dtype for eq in unit.equations if temps.get(eq.output.index) == k)


_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
_REDUCTIONS = {"sum": "add_reduce", "max": "maximum_reduce", "min": "minimum_reduce"}


def planned(eq: Equation) -> bool:
    """Whether a step writes into memory that is laid out beforehand."""
    out, name = eq.output, eq.primitive.name
    if out.dtype is None or out.shape == () or 0 in out.shape:
        return False
    if name in _REDUCTIONS:
        return bool(eq.inputs[0].dtype == out.dtype)
    if name == "matmul":
        return all(getattr(x, "dtype", None) == out.dtype for x in eq.inputs)
    if name in _IN_PLACE:
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
    return eq.primitive.name in _VIEWS | _PARTS and len(eq.inputs) == 1 and type(eq.inputs[0]) is Var


def _dottable(eq: Equation) -> bool:
    """np.dot is quicker to start than np.matmul, and the same for vectors and matrices."""
    return all(len(x.shape) <= 2 for x in eq.inputs)


def _view_of(eq: Equation, base: Place) -> tuple[str | None, Any]:
    """The expression of a view, and an array laid out like it; None if NumPy would copy."""
    name, params, proto = eq.primitive.name, eq.params, base.proto
    made = None if proto is None else eq.primitive.impl(proto, **params)
    if name == "getitem":
        return f"{base.name}[KEY]", made
    if name == "permute_dims":
        return f"{base.name}.transpose({params['axes']})", made
    if name == "broadcast_to":
        return f"broadcast_to({base.name}, {params['shape']})", made
    if made is not None and not np.may_share_memory(made, proto):
        return None, None
    return f"{base.name}.reshape({params['shape']})", made


def _nbytes(var: Var) -> int:
    return int(np.prod(var.shape)) * int(var.dtype.itemsize)


def same(x: Any, y: Any) -> bool:
    return np.array_equal(x, y, equal_nan=np.asarray(x).dtype.kind in "fc")


def regular(x: Any) -> bool:
    return bool(np.isfinite(x).all() and np.all(x))


def finite(x: Any) -> bool:
    return bool(np.isfinite(x).all())


class Workspaces:
    """The compiled function: takes a workspace, or makes one, and gives it back."""

    def __init__(self, made: Compiler) -> None:
        inputs = ", ".join(f"x{i}" for i in range(len(made.program.inputs)))
        lines = ["def make(buffer, scratch):", *(f"    {line}" for line in made.setup)]
        lines += [f"    def run({inputs}):", *(f"        {line}" for line in made.body), "    return run"]
        lines += [line.replace("INPUTS", inputs) for line in _ENTRY]
        self.source = "\n".join(lines)
        self.sizes = made.slots
        self.pool: list[Callable[..., Any]] = []
        namespace = {**_NAMES, **made.constants, "workspace": self.workspace}
        namespace |= {"pop": self.pool.pop, "push": self.pool.append}
        exec(compile(self.source, "<compiled by adbridge>", "exec"), namespace)
        self.make = namespace["make"]
        self.entry: Callable[..., tuple[Any, ...]] = namespace["entry"]

    def workspace(self) -> Callable[..., Any]:
        memory = [np.empty(size, np.uint8) for size in self.sizes]

        def buffer(slot: int, shape: tuple[int, ...], dtype: Any) -> Any:
            return memory[slot].view(dtype).reshape(shape)

        return self.make(buffer, np.empty)  # type: ignore[no-any-return]

    def __call__(self, *arrays: Any) -> tuple[Any, ...]:
        return self.entry(*arrays)


# With the program's own number of arguments: no tuple of them is made.
_ENTRY = """def entry(INPUTS):
    try:
        run = pop()
    except IndexError:
        run = workspace()
    try:
        return run(INPUTS)
    finally:
        push(run)""".splitlines()

_NAMES = {
    "add_reduce": np.add.reduce,
    "add_to": np.add.at,
    "array": np.array,
    "broadcast_to": np.broadcast_to,
    "concatenate": np.concatenate,
    "copyto": np.copyto,
    "dot": np.dot,
    "einsum": c_einsum,
    "empty": np.empty,
    "finite": finite,
    "matmul": np.matmul,
    "maximum_reduce": np.maximum.reduce,
    "minimum_reduce": np.minimum.reduce,
    "np_add": np.add,
    "inf": float("inf"),
    "regular": regular,
    "same": same,
    "GuardFailed": GuardFailed,
}
