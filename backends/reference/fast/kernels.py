"""Functions of pointers in LLVM, as they are written: loops, memory, and one elementwise operation.

A kernel is written for its shapes and strides: one that several units have in common is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.fast.functions import C_LIBRARY, LLVM_TYPES, TRANSCENDENTAL, Lines
from adbridge.backends.reference.fast.lower import Map


class Kernel(Lines):
    """A function's text. `vector_bytes` is what the machine's registers hold."""

    def __init__(self, vector_bytes: int) -> None:
        super().__init__()
        self.vector_bytes = vector_bytes
        self.entry: list[str] = []
        self.mask: str | None = None

    def text(self, name: str, count: int) -> str:
        args = ", ".join(f"ptr %p{i}" for i in range(count))
        head = f"define internal void @{name}({args}) noinline nounwind ATTR {{\nentry:"
        return "\n".join([head, *self.entry, *self.lines, "  ret void", "}"])

    # Control.

    def loop(self, start: str | int, stop: str | int, step: int, body: Callable[[str], None]) -> None:
        """At least one round."""
        self.names += 1
        head, before, i = f"loop{self.names}", self.block, f"%i{self.names}"
        self.put(f"br label %{head}")
        self.open(head)
        at = len(self.lines)
        body(i)
        following = self.let(f"add i64 {i}, {step}")
        self.lines.insert(at, f"  {i} = phi i64 [ {start}, %{before} ], [ {following}, %{self.block} ]")
        more = self.let(f"icmp ult i64 {following}, {stop}")
        done = f"{head}.done"
        self.put(f"br i1 {more}, label %{head}, label %{done}")
        self.open(done)

    # Memory.

    def at(self, pointer: str, index: str | int, stride: int) -> str:
        """The address `index` strides (in bytes) on."""
        if stride == 0 or index == 0:
            return pointer
        offset = str(index * stride) if isinstance(index, int) else self.let(f"mul i64 {index}, {stride}")
        return self.let(f"getelementptr i8, ptr {pointer}, i64 {offset}")

    def load(self, pointer: str, dtype: Any, stride: int) -> str:
        element = LLVM_TYPES[dtype.name]
        stored = "i8" if element == "i1" else element
        loaded = self._load(pointer, stored, dtype.itemsize, stride)
        if element == "i1":
            return self.let(f"icmp ne {self.type('i8')} {loaded}, {self.splat('0', 'i8')}")
        return loaded

    def _load(self, pointer: str, stored: str, itemsize: int, stride: int) -> str:
        if self.width == 1:
            return self.let(f"load {stored}, ptr {pointer}, align {itemsize}")
        if stride == 0:
            one = self.let(f"load {stored}, ptr {pointer}, align {itemsize}")
            return self.broadcast(one, stored)
        t = self.type(stored)
        if stride == itemsize and self.mask is None:
            return self.let(f"load {t}, ptr {pointer}, align {itemsize}")
        kind, where = ("load", "p0") if stride == itemsize else ("gather", f"v{self.width}p0")
        address = f"ptr {pointer}" if kind == "load" else self.lanes(pointer, stride)
        return self.masked(kind, where, stored, itemsize, address, f"{t} zeroinitializer", result=t)

    def store(self, x: str, pointer: str, dtype: Any, stride: int) -> None:
        element = LLVM_TYPES[dtype.name]
        stored = element
        if element == "i1":
            x, stored = self.let(f"zext {self.type('i1')} {x} to {self.type('i8')}"), "i8"
        t = self.type(stored)
        if self.width == 1 or (stride == dtype.itemsize and self.mask is None):
            self.put(f"store {t} {x}, ptr {pointer}, align {dtype.itemsize}")
            return
        kind, where = ("store", "p0") if stride == dtype.itemsize else ("scatter", f"v{self.width}p0")
        address = f"ptr {pointer}" if kind == "store" else self.lanes(pointer, stride)
        self.masked(kind, where, stored, dtype.itemsize, f"{t} {x}", address, result=None)

    def masked(self, kind: str, where: str, stored: str, align: int, *args: str, result: str | None) -> str:
        short = {"double": "f64", "float": "f32", "i8": "i8"}[stored]
        name = f"llvm.masked.{kind}.v{self.width}{short}.{where}"
        m = self.type("i1")
        mask = f"{m} {self.mask or self.splat('true', 'i1')}"
        # Of the arguments, the mask comes before what unread lanes are, and the alignment before the mask.
        reads = kind in ("load", "gather")
        given = [args[0], f"i32 {align}", mask, args[1]] if reads else [args[0], args[1], f"i32 {align}", mask]
        types = [" ".join(x.split(" ")[:1]) if not x.startswith("<") else x[: x.index(">") + 1] for x in given]
        self.needs[name] = f"declare {result or 'void'} @{name}({', '.join(types)})"
        call = f"call {result or 'void'} @{name}({', '.join(given)})"
        if result is None:
            self.put(call)
            return ""
        return self.let(call)

    def lanes(self, pointer: str, stride: int) -> str:
        """Addresses of the lanes."""
        steps = ", ".join(f"i64 {k * stride}" for k in range(self.width))
        return f"<{self.width} x ptr> " + self.let(f"getelementptr i8, ptr {pointer}, <{self.width} x i64> <{steps}>")

    def broadcast(self, x: str, element: str) -> str:
        if self.width == 1:
            return x
        t = self.type(element)
        one = self.let(f"insertelement {t} poison, {element} {x}, i32 0")
        return self.let(f"shufflevector {t} {one}, {t} poison, <{self.width} x i32> zeroinitializer")


# Elementwise operations.

_INFIX = {"add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv"}
_ORDER = {
    "equal": "oeq", "not_equal": "une", "less": "olt", "less_equal": "ole", "greater": "ogt", "greater_equal": "oge",
    "maximum": "oge", "minimum": "ole",
}  # fmt: skip
_INTRINSICS = {"sqrt": "sqrt", "abs": "fabs", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint"}


def emit(k: Kernel, op: Map, args: Sequence[str], dtype: Any) -> str:
    """One elementwise operation on operands of one dtype (of `where`, all but the first)."""
    name, element = op.name, LLVM_TYPES[dtype.name]
    if element == "i1" and name not in ("where", "copy", "astype"):
        return _logical(k, name, args)
    if name in _INFIX:
        flag = " contract" if op.contract else ""
        return k.op(_INFIX[name] + flag, args[0], args[1], element)
    if name in _INTRINSICS:
        return k.intrinsic(_INTRINSICS[name], args[0], element=element)
    if name in ("maximum", "minimum"):
        return extremum(k, name, args[0], args[1], element)
    if name in _ORDER:
        return k.compare(_ORDER[name], args[0], args[1], element)
    if name in TRANSCENDENTAL or name in C_LIBRARY:
        wide = (
            [k.let(f"fpext {k.type('float')} {a} to {k.type('double')}") for a in args] if element == "float" else args
        )
        y = TRANSCENDENTAL[name](k, *wide) if name in TRANSCENDENTAL else k.by_lane(C_LIBRARY[name], *wide)
        return k.let(f"fptrunc {k.type('double')} {y} to {k.type('float')}") if element == "float" else y
    return _OTHERS[name](k, args, element, op)


def _logical(k: Kernel, name: str, args: Sequence[str]) -> str:
    if name == "logical_not":
        return k.op("xor", args[0], k.splat("true", "i1"), "i1")
    how = {"logical_and": "and", "logical_or": "or", "logical_xor": "xor", "not_equal": "xor", "differs": "xor"}
    return k.op(how[name], args[0], args[1], "i1")


def extremum(k: Kernel, name: str, a: str, b: str, element: str) -> str:
    """As in NumPy: NaN if either is."""
    y = k.select(k.compare(_ORDER[name], a, b, element), a, b, element)
    return k.select(k.compare("uno", a, a, element), a, y, element)


def _sign(k: Kernel, args: Sequence[str], element: str, op: Map) -> str:
    x, zero = args[0], k.number(0.0, element)
    y = k.select(k.compare("olt", x, zero, element), k.number(-1.0, element), zero, element)
    y = k.select(k.compare("ogt", x, zero, element), k.number(1.0, element), y, element)
    return k.select(k.compare("uno", x, x, element), x, y, element)


def _irregular(k: Kernel, args: Sequence[str], element: str, op: Map) -> str:
    """Zero, infinite or NaN."""
    size = k.intrinsic("fabs", args[0], element=element)
    zero = k.compare("ule", size, k.number(0.0, element), element)
    return k.op("or", zero, k.compare("uge", size, k.number(np.inf, element), element), "i1")


def _differs(k: Kernel, args: Sequence[str], element: str, op: Map) -> str:
    """Unequal, and not both NaN."""
    a, b = args
    numbers = k.compare("ord", a, b, element)
    some = k.op("xor", k.compare("uno", a, a, element), k.compare("uno", b, b, element), "i1")
    return k.op("or", k.op("and", k.compare("one", a, b, element), numbers, "i1"), some, "i1")


def _astype(k: Kernel, args: Sequence[str], element: str, op: Map) -> str:
    to = LLVM_TYPES[op.out.dtype.name]
    if to == element:
        return args[0]
    how = "uitofp" if element == "i1" else "fpext" if to == "double" else "fptrunc"
    return k.let(f"{how} {k.type(element)} {args[0]} to {k.type(to)}")


def _test(how: str, bound: float) -> Callable[..., str]:
    def test(k: Kernel, args: Sequence[str], element: str, op: Map) -> str:
        return k.compare(how, k.intrinsic("fabs", args[0], element=element), k.number(bound, element), element)

    return test


_OTHERS: dict[str, Callable[..., str]] = {
    "astype": _astype,
    "copy": lambda k, args, element, op: args[0],
    "copysign": lambda k, args, element, op: k.intrinsic("copysign", *args, element=element),
    "differs": _differs,
    "infinite": _test("uge", np.inf),
    "irregular": _irregular,
    "isfinite": _test("olt", np.inf),
    "isinf": _test("oeq", np.inf),
    "isnan": lambda k, args, element, op: k.compare("uno", args[0], args[0], element),
    "negative": lambda k, args, element, op: k.let(f"fneg {k.type(element)} {args[0]}"),
    "reciprocal": lambda k, args, element, op: k.op("fdiv", k.number(1.0, element), args[0], element),
    "sign": _sign,
    "square": lambda k, args, element, op: k.op("fmul", args[0], args[0], element),
    "tie": lambda k, args, element, op: k.select(
        k.compare("oeq", *args, element), k.number(1.0, element), k.number(0.0, element), element
    ),
    "where": lambda k, args, element, op: k.select(args[0], args[1], args[2], element),
}
