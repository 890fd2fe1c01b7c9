"""A simplified program as operations on memory: what views are becomes offsets and strides, and every step one of
a few kinds that kernels are made of.

- `Map`     elementwise, over the shape of its result
- `Reduce`  sum, max, min (or "any", of booleans) of a value over some of its axes
- `Write`   a value into a part of an array, stored or added
- `Product` a matrix product, over leading axes
- `Step`    any other primitive, by its NumPy implementation
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adbridge.backends.reference.algebra import FINITE, REGULAR, ZERO
from adbridge.backends.reference.fast.functions import C_LIBRARY, LLVM_TYPES, TRANSCENDENTAL
from adbridge.backends.reference.primitives import Var
from adbridge.backends.reference.program import Equation, Program

C_LIBRARY_SIZE = 1024
"""Elements up to which functions of the C library are called one by one."""


LARGE_CONSTANT = 4096
"""Bytes from which on constants are not copied."""


class Memory:
    """What an array's elements are in: an argument, a result, constants, or a part of the workspace."""

    __slots__ = ("base", "fill", "first", "last", "nbytes", "offset", "whole")

    def __init__(self, nbytes: int, base: str = "") -> None:
        self.nbytes = nbytes
        self.base = base  # "x0", "r0", "c" or "w"; "" until it is planned
        self.offset = 0
        self.first, self.last = -1, -1  # units
        self.fill: tuple[int, int] | None = None  # from and to which byte zeros are needed first
        self.whole: Value | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """An array laid out in memory; strides and offset in bytes."""

    shape: tuple[int, ...]
    dtype: Any
    memory: Memory
    offset: int
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(slots=True, eq=False)
class Map:
    name: str
    inputs: tuple[Any, ...]  # Values and numbers
    out: Value
    contract: bool = False  # whether it may be one operation with the next


@dataclass(slots=True, eq=False)
class Reduce:
    name: str
    input: Value
    out: Value  # as large as the input, with strides 0 along what is reduced
    contract: bool = False

    @property
    def inputs(self) -> tuple[Any, ...]:
        return (self.input,)


@dataclass(slots=True, eq=False)
class Write:
    input: Any
    out: Value
    adds: bool
    ordered: bool  # whether it must follow what has been written there before

    @property
    def inputs(self) -> tuple[Any, ...]:
        return (self.input,)


@dataclass(slots=True, eq=False)
class Product:
    a: Value
    b: Value
    out: Value

    @property
    def inputs(self) -> tuple[Any, ...]:
        return self.a, self.b


@dataclass(slots=True, eq=False)
class Step:
    """Inputs are Values, names of Python variables, or constants; so is the output a Value or a name."""

    eq: Equation
    inputs: tuple[Any, ...]
    out: Value | str


@dataclass(slots=True, eq=False)
class Check:
    """Whether a boolean that a kernel has made is False; with `expected`, whether an array is the same, in NumPy."""

    value: Any
    expected: Any = None
    out: None = None

    @property
    def inputs(self) -> tuple[Any, ...]:
        return (self.value,)


Elementwise = Map | Reduce | Write
Op = Elementwise | Product | Step | Check


class Unsupported(Exception):
    """The program, or its native code, cannot be had; the text says why."""


def contiguous(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    strides, step = [], itemsize
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def new_value(shape: Sequence[int], dtype: Any, base: str = "") -> Value:
    shape, dtype = tuple(shape), np.dtype(dtype)
    memory = Memory(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, base)
    memory.whole = value = Value(shape, dtype, memory, 0, contiguous(shape, dtype.itemsize))
    return value


def view(value: Value, make: Any) -> Value | None:
    """What NumPy's view of such an array is; None if NumPy would copy. No element is looked at."""
    base = np.lib.stride_tricks.as_strided(np.empty(1, value.dtype), value.shape, value.strides)
    try:
        made = make(base)
    except ValueError:
        return None
    offset = made.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return Value(made.shape, value.dtype, value.memory, value.offset + offset, made.strides)


def part(value: Value, key: Any) -> Value | None:
    parts = key if isinstance(key, tuple) else (key,)
    if not all(p is None or p is ... or isinstance(p, (int, np.integer, slice)) for p in parts):
        return None
    full = parts if any(p is ... for p in parts) else (*parts, ...)
    return view(value, lambda x: x[full])


def spread(value: Value, shape: Sequence[int]) -> Value:
    """Broadcast."""
    made = view(value, lambda x: np.broadcast_to(x, tuple(shape)))
    assert made is not None
    return made


ARITHMETIC = {
    "add", "subtract", "multiply", "divide", "negative", "square", "sqrt", "reciprocal", "abs", "sign", "maximum",
    "minimum", "floor", "ceil", "trunc", "round", "copysign", "copy",
}  # fmt: skip
COMPARISONS = {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "isnan", "isinf", "isfinite"}
LOGICAL = {"logical_and", "logical_or", "logical_xor", "logical_not"}


@dataclass
class Lowered:
    program: Program
    ops: list[Op] = field(default_factory=list)
    values: dict[int, Any] = field(default_factory=dict)  # of variables: Values, or names in Python
    outputs: list[Any] = field(default_factory=list)  # Values in memory "r0", ..., or constants
    small: list[Any] = field(default_factory=list)  # constants
    large: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parts: dict[int, tuple[Value, Any]] = {}  # of arrays under construction: what has been written
        uses = Counter(x.index for eq in self.program.equations for x in eq.inputs if type(x) is Var)
        uses.update(x.index for x in self.program.outputs if type(x) is Var)
        uses.update(guard.var.index for guard in self.program.guards)
        self.uses = uses
        self.by_identity: dict[int, Value] = {}

    # Operands.

    def operand(self, x: Any, like: Any = None) -> Any:
        """A Value, or a number for a kernel."""
        if type(x) is Var:
            return self.values[x.index]
        if type(x) in (int, float, bool):
            return x
        array = np.asarray(x)
        if array.dtype == object:
            return x
        if id(x) not in self.by_identity:
            self.by_identity[id(x)] = self.constant(array)
        return self.by_identity[id(x)]

    def constant(self, array: Any) -> Value:
        """Small ones are together in an array "c"; others are arrays "c0", "c1", ... as they are."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        if array.nbytes > LARGE_CONSTANT:
            name = f"c{len(self.large)}"
            self.large[name] = array
            return new_value(array.shape, array.dtype, name)
        value = new_value(array.shape, array.dtype, "c")
        value.memory.offset = sum(-(-a.nbytes // 64) * 64 for a in self.small)
        self.small.append(array)
        return value

    def small_constants(self) -> Any:
        """The array "c"."""
        padded = [np.frombuffer(a.tobytes().ljust(-(-a.nbytes // 64) * 64, b"\0"), np.uint8) for a in self.small]
        return np.concatenate([*padded, np.zeros(64, np.uint8)])

    def map(self, name: str, inputs: Sequence[Any], like: Any, contract: bool = False) -> Value:
        out = new_value(like.shape, like.dtype)
        self.ops.append(Map(name, tuple(inputs), out, contract))
        return out

    def reduce(self, name: str, x: Value, axis: Sequence[int], like: Any, contract: bool = False) -> Value:
        out = new_value(like.shape, like.dtype)
        kept = new_value([1 if i in axis else size for i, size in enumerate(x.shape)], like.dtype)
        same = Value(kept.shape, out.dtype, out.memory, 0, kept.strides)
        self.ops.append(Reduce(name, x, spread(same, x.shape), contract))
        return out

    # Equations.

    def run(self) -> Lowered:
        program = self.program
        if any(0 in var.shape for var in program.inputs):
            raise Unsupported("arrays without elements")
        for i, var in enumerate(program.inputs):
            self.values[var.index] = new_value(var.shape, var.dtype, f"x{i}")
        guards: dict[int, list[Any]] = {}
        place = {eq.output.index: i for i, eq in enumerate(program.equations)}
        for guard in program.guards:
            guards.setdefault(place.get(guard.var.index, -1), []).append(guard)
        self.guard(guards.get(-1, []))
        for i, eq in enumerate(program.equations):
            self.values[eq.output.index] = self.lower(eq)
            self.guard(guards.get(i, []))
        for i, x in enumerate(program.outputs):
            self.outputs.append(self.result(x, f"r{i}"))
        return self

    def result(self, x: Any, name: str) -> Any:
        if type(x) is not Var:
            return np.asarray(x)
        value = self.values[x.index]
        if isinstance(value, str):
            return value
        if value.memory.base or value.memory.whole is not value:  # an argument, a view, or given out already
            if not in_kernels(value.dtype):
                raise Unsupported(f"a result of dtype {value.dtype} that is a view")
            value = self.map("copy", [value], value)
        value.memory.base = name
        return value

    def lower(self, eq: Equation) -> Any:
        out = eq.output
        if out.dtype is not None and 0 in out.shape:
            raise Unsupported("arrays without elements")
        if out.dtype is not None and not any(isinstance(self.operand(x), str) for x in eq.inputs if type(x) is Var):
            rule = _RULES.get(eq.primitive.name)
            found = rule(self, eq) if rule is not None else None
            if found is None and eq.primitive.name in _MAPS:
                found = self.elementwise(eq)
            if found is not None:
                return found
        return self.step(eq)

    def step(self, eq: Equation) -> Any:
        inputs = tuple(self.operand(x) if type(x) is Var else x for x in eq.inputs)
        if eq.inputs and eq.inputs[0] is ZERO:
            inputs = (np.zeros(eq.output.shape, eq.output.dtype), *inputs[1:])
        known = eq.output.dtype is not None and eq.output.dtype.kind in "fcbiu"
        out: Any = new_value(eq.output.shape, eq.output.dtype) if known else f"v{eq.output.index}"
        self.ops.append(Step(eq, inputs, out))
        return out

    def elementwise(self, eq: Equation) -> Value | None:
        name, out = eq.primitive.name, eq.output
        inputs = [self.operand(x) for x in eq.inputs]
        values = [x for x in inputs if isinstance(x, Value)]
        if not values or len(inputs) > 3 or eq.params or not in_kernels(out.dtype):
            return None
        if not all(isinstance(x, Value) or type(x) in (int, float) for x in inputs):
            return None
        if not all(in_kernels(x.dtype) for x in values):
            return None
        data = inputs[1:] if name == "where" else inputs
        dtypes = {x.dtype for x in data if isinstance(x, Value)}
        if name == "where" and not (isinstance(inputs[0], Value) and inputs[0].dtype == np.bool_):
            return None
        kind = "b" if name in LOGICAL else "f"
        if any(d.kind != kind for d in dtypes) or len(dtypes) > 1:
            return None
        if name not in COMPARISONS and dtypes and dtypes != {out.dtype}:
            return None
        if name in C_LIBRARY and int(np.prod(out.shape)) > C_LIBRARY_SIZE:
            return None
        return self.map(name, inputs, out)

    def guard(self, guards: Sequence[Any]) -> None:
        for guard in guards:
            value, counts = self.values[guard.var.index], guard.value is REGULAR or guard.value is FINITE
            if not counts and not (isinstance(value, Value) and in_kernels(value.dtype)):
                self.ops.append(Check(value, np.asarray(guard.value)))
                continue
            if not in_kernels(value.dtype):
                raise Unsupported(f"an assumption on values of dtype {value.dtype}")
            mask = Var(-1, value.shape, np.dtype(np.bool_))
            if guard.value is REGULAR or guard.value is FINITE:
                failed = self.map("irregular" if guard.value is REGULAR else "infinite", [value], mask)
            else:
                expected = np.asarray(guard.value, value.dtype)
                number = expected.item() if expected.ndim == 0 else self.operand(expected)
                failed = self.map("differs", [value, number], mask)
            if value.shape:
                failed = self.reduce("any", failed, range(len(value.shape)), Var(-1, (), np.dtype(np.bool_)))
            self.ops.append(Check(failed))


def in_kernels(dtype: Any) -> bool:
    return dtype.name in LLVM_TYPES and bool(dtype.isnative)


_MAPS = {*ARITHMETIC, *COMPARISONS, *LOGICAL, *TRANSCENDENTAL, *C_LIBRARY, "where"} - {"copy"}


# Rules: the Value that an equation becomes, or None to leave it to NumPy.


def _view(low: Lowered, eq: Equation) -> Value | None:
    x, params = low.operand(eq.inputs[0]), eq.params
    if not isinstance(x, Value) or len(eq.inputs) > 1:
        return None
    if eq.primitive.name == "getitem":
        return part(x, params["key"])
    if eq.primitive.name == "permute_dims":
        return view(x, lambda a: a.transpose(params["axes"]))
    if eq.primitive.name == "broadcast_to":
        return spread(x, params["shape"])
    made = view(x, lambda a: np.reshape(a, eq.output.shape, copy=False))
    if made is None and in_kernels(x.dtype):
        x = low.map("copy", [x], x)
        made = view(x, lambda a: np.reshape(a, eq.output.shape, copy=False))
    return made


def _astype(low: Lowered, eq: Equation) -> Value | None:
    x = low.operand(eq.inputs[0])
    if not isinstance(x, Value) or not in_kernels(x.dtype) or not in_kernels(eq.output.dtype):
        return None
    return None if eq.output.dtype == np.bool_ else low.map("astype", [x], eq.output)


def _reduction(low: Lowered, eq: Equation) -> Value | None:
    x = low.operand(eq.inputs[0])
    if not isinstance(x, Value) or x.dtype != eq.output.dtype or x.dtype.kind != "f" or x.size == 0:
        return None
    return low.reduce(eq.primitive.name, x, eq.params["axis"], eq.output) if in_kernels(x.dtype) else None


def _share_of_ties(low: Lowered, eq: Equation) -> Value | None:
    x, y = (low.operand(arg) for arg in eq.inputs)
    if not all(isinstance(v, Value) and v.dtype == eq.output.dtype for v in (x, y)) or not in_kernels(x.dtype):
        return None
    hit = low.map("tie", [x, y], eq.output)
    axis = [i for i, size in enumerate(y.shape) if size != x.shape[i]]
    ties = low.reduce("sum", hit, axis, Var(-1, y.shape, y.dtype))
    return low.map("divide", [hit, ties], eq.output)


def _matmul(low: Lowered, eq: Equation) -> Value | None:
    a, b = (low.operand(x) for x in eq.inputs)
    out = eq.output
    if not all(isinstance(v, Value) and v.dtype == out.dtype and v.size for v in (a, b)) or out.dtype.kind != "f":
        return None
    if not in_kernels(out.dtype):
        return None
    if len(a.shape) == len(b.shape) == 1 or (len(a.shape) == 2 and len(b.shape) == 1):
        axis = len(a.shape) - 1
        product = low.map("multiply", [a, b], Var(-1, a.shape, a.dtype), contract=True)
        return low.reduce("sum", product, [axis], out, contract=True)
    if len(a.shape) == 1 and len(b.shape) == 2:
        column = view(a, lambda x: x[:, None])
        product = low.map("multiply", [column, b], Var(-1, b.shape, b.dtype), contract=True)
        return low.reduce("sum", product, [0], out, contract=True)
    if len(a.shape) < 2 or len(b.shape) < 2:
        return None
    value = new_value(out.shape, out.dtype)
    low.ops.append(Product(_laid_out(low, a), _laid_out(low, b), value))
    return value


def _laid_out(low: Lowered, x: Value) -> Value:
    """x, or a copy, with one of its last two axes contiguous."""
    for axis, other in ((-1, -2), (-2, -1)):
        step = x.strides[axis] == x.dtype.itemsize or x.shape[axis] == 1
        if step and (x.strides[other] >= x.dtype.itemsize * x.shape[axis] or x.shape[other] == 1):
            return x
    return low.map("copy", [x], x)


def _write(low: Lowered, eq: Equation) -> Value | None:
    """A part written into an array: into the one under construction, or into a copy."""
    name, (base, *rest), out = eq.primitive.name, eq.inputs, eq.output
    if len(rest) != (name != "clear_at") or not in_kernels(out.dtype) or out.dtype == np.bool_:
        return None
    given = low.operand(rest[0]) if rest else 0.0
    if isinstance(given, Value) and given.dtype != out.dtype:
        return None
    under = low.parts.get(base.index) if type(base) is Var and low.uses[base.index] == 1 else None
    if under is not None:
        whole, written = under
    elif base is ZERO:
        whole, written = new_value(out.shape, out.dtype), np.zeros(out.shape, np.bool_)
        whole.memory.fill = (0, whole.memory.nbytes)
    else:
        source = low.operand(base)
        if not isinstance(source, Value) or source.dtype != out.dtype:
            return None
        whole, written = low.map("copy", [source], out), np.ones(out.shape, np.bool_)
    place = part(whole, eq.params["key"])
    if place is None or (isinstance(given, Value) and len(given.shape) > len(place.shape)):
        return None
    if isinstance(given, Value) and given.shape != place.shape:
        given = spread(given, place.shape)
    again = bool(np.any(written[eq.params["key"]]))
    if again:
        written[...] = True  # the zeros below what has not been written yet stay
    adds = name == "add_at" and again
    if not again:
        written[eq.params["key"]] = True
        whole.memory.fill = _span(~written, out.dtype.itemsize)
    low.ops.append(Write(given, place, adds, again))
    low.parts[out.index] = whole, written
    return whole


def _span(missing: Any, itemsize: int) -> tuple[int, int] | None:
    """From and to which byte the elements that nothing is written to reach."""
    places = np.flatnonzero(missing)
    return (int(places[0]) * itemsize, (int(places[-1]) + 1) * itemsize) if places.size else None


def _concat(low: Lowered, eq: Equation) -> Value | None:
    inputs, axis, out = [low.operand(x) for x in eq.inputs], eq.params["axis"], eq.output
    if not in_kernels(out.dtype) or not all(isinstance(x, Value) and x.dtype == out.dtype for x in inputs):
        return None
    whole, start = new_value(out.shape, out.dtype), 0
    for x in inputs:
        stop = start + x.shape[axis]
        place = part(whole, (slice(None),) * axis + (slice(start, stop),))
        assert place is not None
        if x.size:
            low.ops.append(Write(x, place, False, False))
        start = stop
    return whole


_RULES = {
    "getitem": _view, "reshape": _view, "permute_dims": _view, "broadcast_to": _view, "astype": _astype,
    "sum": _reduction, "max": _reduction, "min": _reduction, "share_of_ties": _share_of_ties, "matmul": _matmul,
    "add_at": _write, "set_at": _write, "clear_at": _write, "concat": _concat,
}  # fmt: skip
