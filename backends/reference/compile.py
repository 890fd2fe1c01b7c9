"""A program compiled to straight-line NumPy source with planned buffers.

Every step writes into memory that was laid out beforehand: a step's result takes the place of an operand that is
not needed any more, and a view of a buffer is made once, not at every call. Elementwise steps over large arrays
run block by block, all of them on one block before the next, so that what is between them stays in the cache and
is never stored whole. Results are new arrays.

A call takes a workspace (the buffers, and the source run with them) from a pool, so that threads do not share one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adbridge.backends.reference.algebra import FINITE, REGULAR, ZERO
from adbridge.backends.reference.blocks import write_block
from adbridge.backends.reference.planning import IN_PLACE, REDUCTIONS, Plan, Storage, Unit, is_ufunc, planned
from adbridge.backends.reference.primitives import Var
from adbridge.backends.reference.program import Equation, Guard, Program
from adbridge.backends.reference.rules.shaping import Slot
from adbridge.backends.reference.simplify import simplify
from adbridge.backends.reference.workspaces import Workspaces


def compile_program(program: Program, assume: bool = True) -> Callable[..., tuple[Any, ...]]:
    """A function of NumPy arrays like the program's inputs. Raises GuardFailed when called, as guards say."""
    return Compiler(simplify(program, assume)).function()


@dataclass
class Place:
    """Where a variable is: `name` in the source; its storage, if planned; the array as first laid out."""

    name: str
    storage: Storage | None = None
    proto: Any = None  # an array laid out like it, if its layout is known beforehand
    static: bool = False  # whether the name is bound once for a workspace


class Compiler:
    """Writes the source of a program that is simplified."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.plan = Plan(program)
        self.places: dict[int, Place] = {}
        self.constants: dict[str, Any] = {}
        self.setup: list[str] = []  # run once for a workspace
        self.body: list[str] = []  # run at every call
        self.numbers: dict[Any, str] = {}
        self.results: set[int] = set()  # variables handed out so far
        self.names = 0

    def function(self) -> Callable[..., tuple[Any, ...]]:
        for i, var in enumerate(self.program.inputs):
            self.places[var.index] = Place(f"x{i}")
            if var.shape == ():
                self.body.append(f"x{i} = x{i}[()]")
        guards: dict[int, list[Guard]] = {}
        for guard in self.program.guards:
            guards.setdefault(self.plan.unit_of.get(guard.var.index, -1), []).append(guard)
        self.emit_guards(guards.get(-1, []))
        for i, unit in enumerate(self.plan.units):
            if unit.blocked:
                write_block(self, unit, i)
            else:
                self.emit(unit.equations[0], unit, i)
            self.plan.release(unit, i)
            self.emit_guards(guards.get(i, []))
        self.body.append(f"return ({''.join(self.result(x) + ', ' for x in self.program.outputs)})")
        inputs = ", ".join(f"x{i}" for i in range(len(self.program.inputs)))
        return Workspaces(inputs, self.setup, self.body, self.constants, self.plan.slots)

    def fresh_name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def constant(self, value: Any) -> str:
        name = self.fresh_name("c")
        if isinstance(value, np.ndarray) and value.flags.writeable:
            value = value.copy(order="K")  # as it was when it was recorded, whatever its owner does with it later
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
        return place.name if ours and x.index not in self.plan.root else f"array({place.name})"

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

    def emit(self, eq: Equation, unit: Unit, i: int) -> None:
        out, name = eq.output, eq.primitive.name
        if self.plan.is_view(eq):
            self.emit_view(eq)
            return
        if not planned(eq):
            self.places[out.index] = Place(self.fresh_name("v"))
            self.body.append(f"{self.places[out.index].name} = {self.expression(eq)}")
            return
        if (write := self.plan.destination.get(out.index)) is not None:
            self.places[out.index] = self.part_of(write)
            self.body.append(self.into(eq, self.places[out.index].name))
            return
        storage = self.plan.storage[out.index]
        if name in IN_PLACE:
            self.emit_write(eq, storage)
            return
        if is_ufunc(eq):
            self.release_alike(eq, unit, i)
        self.plan.take(storage)
        if storage.fresh and name != "concat":  # the step makes its own result
            place = self.places[out.index] = Place(self.fresh_name("r"), storage)
            self.body.append(f"{place.name} = {self.into(eq, 'None')}")
            return
        place = self.places[out.index] = self.lay_out(out, storage)
        self.body.append(self.into(eq, place.name))

    def release_alike(self, eq: Equation, unit: Unit, i: int) -> None:
        """Before the result has a place: it may take that of an operand that is laid out alike."""
        variables = [x for x in eq.inputs if type(x) is Var]
        used_as_view = {self.plan.root_of(x) for x in variables if x.index in self.plan.root}
        whole = {x.index for x in variables if x.shape == eq.output.shape and x.index not in self.plan.root}
        self.plan.release(unit, i, [*(whole - used_as_view)])

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
        if name in REDUCTIONS and eq.inputs[0].dtype == eq.output.dtype:
            axis = None if len(eq.params["axis"]) == len(eq.inputs[0].shape) else eq.params["axis"]
            return f"{REDUCTIONS[name]}({args[0]}, {axis}, None, None, {eq.params['keepdims']})"
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
            contiguous = eq.output.index not in self.plan.destination  # what np.dot writes to has to be
            return f"{'dot' if contiguous and _dottable(eq) else 'matmul'}({', '.join(args)}, {out})"
        if name in REDUCTIONS:
            return f"{REDUCTIONS[name]}({args[0]}, {eq.params['axis']}, None, {out}, {eq.params['keepdims']})"
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
        if (product := self.plan.summed.get(eq.output.index)) is not None:
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

    def emit_write(self, eq: Equation, storage: Storage) -> None:
        key = eq.params["key"]
        value = eq.inputs[1] if eq.primitive.name != "clear_at" else 0.0
        indices = eq.inputs[1:] if eq.primitive.name == "clear_at" else eq.inputs[2:]
        place = self.target(eq)
        self.places[eq.output.index] = place
        if indices:
            at = self.index_expression(key, indices)
            call = f"add_to({place.name}, {at}, {self.operand(value)})"
            self.body.append(call if eq.primitive.name == "add_at" else f"{place.name}[{at}] = {self.operand(value)}")
            return
        if type(value) is Var and self.plan.destination.get(value.index) is eq:
            return
        if self.is_item(eq):
            sign = "+" if eq.primitive.name == "add_at" and eq.output.index not in self.plan.overwrites else ""
            self.body.append(f"{place.name}[{self.constant(key)}] {sign}= {self.operand(value)}")
            return
        part = self.part_of(eq)
        if eq.primitive.name == "add_at" and eq.output.index not in self.plan.overwrites:
            self.body.append(f"np_add({part.name}, {self.operand(value)}, {part.name})")
        else:
            self.body.append(f"copyto({part.name}, {self.operand(value)})")

    def is_item(self, eq: Equation) -> bool:
        """Whether a write is to one element, of which NumPy makes no view."""
        return type(np.broadcast_to(np.False_, eq.output.shape)[eq.params["key"]]) is not np.ndarray

    def target(self, eq: Equation) -> Place:
        """Where a write goes: into its base, or a copy of it."""
        if eq.output.index in self.places:
            return self.places[eq.output.index]
        base, storage = eq.inputs[0], self.plan.storage[eq.output.index]
        if type(base) is Var and self.plan.storage.get(base.index) is storage:
            before = self.places[base.index]
            place = Place(before.name, storage, before.proto, not storage.fresh)
        else:
            self.plan.take(storage)
            place = self.lay_out(eq.output, storage)
            if base is not ZERO:
                self.body.append(f"copyto({place.name}, {self.operand(base)})")
            elif eq.output.index not in self.plan.covered:
                self.emit_zeros(eq, place)
        self.places[eq.output.index] = place
        return place

    def emit_zeros(self, eq: Equation, place: Place) -> None:
        """Where nothing is going to be written over."""
        gaps = self.plan.gaps.get(eq.output.index)
        if gaps is None:
            self.body.append(f"{place.name}.fill(0)")
            return
        for gap in gaps:
            part = Place(self.fresh_name("w"), place.storage, None, place.static)
            self.bind(f"{place.name}[{gap.start}:{gap.stop}]", part)
            self.body.append(f"{part.name}.fill(0)")

    def part_of(self, eq: Equation) -> Place:
        """The part that a write goes to, as a view."""
        place = self.target(eq)
        part = Place(self.fresh_name("w"), self.plan.storage[eq.output.index], None, place.static)
        self.bind(f"{place.name}[{self.constant(eq.params['key'])}]", part)
        return part

    def index_expression(self, key: Any, indices: Sequence[Any]) -> str:
        names = [self.operand(x) for x in indices]
        parts = key if isinstance(key, tuple) else (key,)
        shown = [names[part.i] if type(part) is Slot else self.constant(part) for part in parts]
        return f"({', '.join(shown)},)" if isinstance(key, tuple) else shown[0]


_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


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
