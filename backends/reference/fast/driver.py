"""A planned program as LLVM text and the Python source that calls it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.fast import blocks, machine
from adbridge.backends.reference.fast.kernels import Kernel
from adbridge.backends.reference.fast.loops import Nest, identity
from adbridge.backends.reference.fast.lower import Check, Lowered, Map, Memory, Product, Step, Unsupported, Value
from adbridge.backends.reference.fast.plan import Alone, Loop, Unit, lay_out, schedule
from adbridge.backends.reference.fast.products import product
from adbridge.backends.reference.workspaces import GuardFailed, same

MOST_LINES = 100_000
"""Of LLVM text: more takes too long to compile."""
FAILED, UNUSABLE = 1, 2
"""What native code returns where a guard fails, and where an argument is not laid out as it needs."""
LET_GO = 20_000
"""Elements from which on other threads may run meanwhile."""


class Driver:
    def __init__(self, low: Lowered) -> None:
        self.low = low
        self.units = schedule(low.ops)
        self.runs = blocks.runs(self.units)
        self.workspace_size = lay_out(self.runs)
        self.inputs = [f"x{i}" for i in range(len(low.program.inputs))]
        self.results = {v.memory.base: v for v in low.outputs if isinstance(v, Value)}
        self.arrays = [*self.inputs, *self.results, "w", "c", *low.large]
        self.kernels: dict[str, str] = {}  # text without its name -> name
        self.needs: dict[str, str] = {}
        self.segments: list[list[str]] = []  # lines of LLVM
        self.source: list[str] = []  # Python
        self.namespace: dict[str, Any] = {
            "empty": np.empty,
            "GuardFailed": GuardFailed,
            "ndarray": np.ndarray,
            "copyto": np.copyto,
            "same": same,
        }
        self.setup: list[str] = []
        self.names = 0
        self.work = 0

    def function(self) -> Callable[..., Any]:
        """Of a workspace: the function of the arguments that runs in it."""
        for value in self.results.values():
            self.source.append(f"{value.memory.base} = empty({value.shape}, {self.constant(value.dtype)})")
        self.begin()  # it looks at the arguments, even if the first step is NumPy's
        for run in self.runs:
            op = run[0].op if isinstance(run[0], Alone) else None
            if isinstance(op, Step) or (isinstance(op, Check) and op.expected is not None):
                self.close()
                self.step(op) if isinstance(op, Step) else self.compare(op)
            else:
                self.begin()
                self.native(run)
        self.close()
        self.source.append(f"return ({''.join(self.result(x) + ', ' for x in self.low.outputs)})")
        return self.load()

    current: list[str] | None = None

    def begin(self) -> None:
        if self.current is None:
            self.current = []
            self.segments.append(self.current)

    def close(self) -> None:
        if self.current is not None:
            name = f"native{len(self.segments) - 1}"
            self.source.append(f"code = {name}({', '.join(self.arrays)})")
            if name == "native0":
                self.source.append(f"if code == {UNUSABLE}: return run(*usable({', '.join(self.inputs)}))")
            self.source.append("if code: raise GuardFailed")
            self.current = None

    def constant(self, value: Any) -> str:
        self.names += 1
        self.namespace[f"k{self.names}"] = value
        return f"k{self.names}"

    def result(self, x: Any) -> str:
        if isinstance(x, Value):
            return x.memory.base
        return f"{self.constant(np.array)}({x if isinstance(x, str) else self.constant(x)})"

    # NumPy.

    def step(self, op: Step) -> None:
        args = [
            self.seen(x) if isinstance(x, Value) else x if isinstance(x, str) else self.constant(x) for x in op.inputs
        ]
        params = f", **{self.constant(op.eq.params)}" if op.eq.params else ""
        call = f"{self.constant(op.eq.primitive.impl)}({', '.join(args)}{params})"
        if isinstance(op.out, Value):
            self.source.append(f"copyto({self.seen(op.out)}, {call})")
        else:
            self.source.append(f"{op.out} = {call}")

    def compare(self, op: Check) -> None:
        value = self.seen(op.value) if isinstance(op.value, Value) else op.value
        self.source.append(f"if not same({value}, {self.constant(op.expected)}): raise GuardFailed")

    def seen(self, x: Value) -> str:
        """A NumPy array of it: of the workspace made once, else at every call."""
        base = x.memory.base
        place = f"ndarray({x.shape}, {self.constant(x.dtype)}, {base}, {x.memory.offset + x.offset}, {x.strides})"
        if base[0] not in "wc":
            return place
        self.names += 1
        self.setup.append(f"a{self.names} = {place}")
        return f"a{self.names}"

    # Native code.

    def native(self, run: Sequence[Unit]) -> None:
        loops = [unit for unit in run if isinstance(unit, Loop)]
        for memory in (memory for loop in loops for memory in loop.fills):
            assert memory.fill is not None
            self.clear(memory, *memory.fill)
        op = run[0].op if isinstance(run[0], Alone) else None
        if isinstance(op, Product):
            kernel = Kernel(machine.vector_bytes())
            product(kernel, op)
            self.call(kernel, lambda name: kernel.text(name, 3), [op.a, op.b, op.out])
            self.work += op.out.size * op.a.shape[-1]
        elif isinstance(op, Check):
            self.check(op)
        elif len(loops) > 1 and (rows := blocks.rows_of_block(loops)) < loops[0].shape[0]:
            self.by_blocks(loops, rows)
        else:
            for loop in loops:
                self.loop(loop)

    def loop(self, loop: Loop) -> None:
        self.prepare(nest := self.nest(loop))
        self.call(nest.k, nest.text, nest.values)

    def nest(self, loop: Loop) -> Nest:
        self.work += len(loop.ops) * math.prod(loop.shape)
        return Nest(loop, lambda value: value.memory.base != "", machine.vector_bytes())

    def prepare(self, nest: Nest) -> None:
        """Set what its reductions start from."""
        for reduction in nest.prepared:
            memory = reduction.out.memory
            if reduction.name in ("sum", "any"):
                self.clear(memory, 0, memory.nbytes)
            else:
                assert memory.whole is not None
                self.loop(Loop(memory.whole.shape, [Map("copy", (identity(reduction),), memory.whole)]))

    def by_blocks(self, loops: Sequence[Loop], rows: int) -> None:
        """All loops on `rows` rows, then on the next; at last on those that are left over."""
        total = loops[0].shape[0]
        whole = total // rows * rows
        some = [blocks.some_rows(loop, 0, rows) for loop in loops]
        nests = [self.nest(loop) for loop, _ in some]
        for nest in nests:
            self.prepare(nest)
        self.names += 1
        head, count = f"rows{self.names}", f"%count{self.names}"
        self.put(f"{count} = alloca i64")
        self.put(f"store i64 0, ptr {count}")
        self.put(f"br label %{head}")
        self.open(head)
        self.put(f"%{head}.now = load i64, ptr {count}")
        for nest, (_, moves) in zip(nests, some, strict=True):
            self.call(nest.k, nest.text, nest.values, moves, f"%{head}.now")
        self.put(f"%{head}.next = add i64 %{head}.now, {rows}")
        self.put(f"store i64 %{head}.next, ptr {count}")
        self.put(f"%{head}.more = icmp ult i64 %{head}.next, {whole}")
        self.put(f"br i1 %{head}.more, label %{head}, label %{head}.done")
        self.open(f"{head}.done")
        if whole < total:
            for loop in loops:
                rest = self.nest(blocks.some_rows(loop, whole, total - whole)[0])
                self.call(rest.k, rest.text, rest.values)

    def open(self, label: str) -> None:
        assert self.current is not None
        self.current.append(f"{label}:")

    def call(
        self,
        kernel: Kernel,
        text: Callable[[str], str],
        values: Sequence[Value],
        moves: Mapping[int, int] | None = None,
        row: str = "0",
    ) -> None:
        """Call the kernel, made if it is new, with its arrays; those that `moves` names, by `row` rows on."""
        body = text("NAME")
        if body not in self.kernels:
            self.kernels[body] = f"kernel{len(self.kernels)}"
            self.needs.update(kernel.needs)
        pointers = []
        for value in values:
            pointer = self.address(value.memory, value.offset)
            if moves is not None and id(value) in moves:
                pointer = self.further(pointer, row, moves[id(value)])
            pointers.append(f"ptr {pointer}")
        self.put(f"call void @{self.kernels[body]}({', '.join(pointers)})")

    def further(self, pointer: str, row: str, step: int) -> str:
        self.names += 1
        self.put(f"%bytes{self.names} = mul i64 {row}, {step}")
        self.put(f"%row{self.names} = getelementptr i8, ptr {pointer}, i64 %bytes{self.names}")
        return f"%row{self.names}"

    def put(self, line: str) -> None:
        assert self.current is not None
        self.current.append(f"  {line}")

    def address(self, memory: Memory, offset: int) -> str:
        base = f"%data{self.arrays.index(memory.base)}"
        offset += memory.offset
        if not offset:
            return base
        self.names += 1
        self.put(f"%at{self.names} = getelementptr i8, ptr {base}, i64 {offset}")
        return f"%at{self.names}"

    def clear(self, memory: Memory, start: int, stop: int) -> None:
        self.needs["llvm.memset"] = "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)"
        place = self.address(memory, start)
        self.put(f"call void @llvm.memset.p0.i64(ptr {place}, i8 0, i64 {stop - start}, i1 false)")

    def check(self, op: Check) -> None:
        self.names += 1
        n, place = self.names, self.address(op.value.memory, op.value.offset)
        self.put(f"%flag{n} = load i8, ptr {place}")
        self.put(f"%fails{n} = icmp ne i8 %flag{n}, 0")
        self.put(f"br i1 %fails{n}, label %failed, label %passed{n}")
        self.open(f"passed{n}")

    def text(self) -> str:
        """The module: kernels, and of each segment a function of the array objects."""
        wide = machine.vector_bytes() * 8
        parts = [body.replace("@NAME(", f"@{name}(") for body, name in self.kernels.items()]
        for i, lines in enumerate(self.segments):
            parts.append(self.segment(i, lines))
        declared = "\n".join([*self.needs.values(), *_INTERPRETER])
        attributes = f'attributes #0 = {{ "min-legal-vector-width"="{wide}" "prefer-vector-width"="{wide}" }}'
        weights = '!0 = !{!"branch_weights", i32 1, i32 100000}'
        return "\n".join([declared, *parts, attributes, weights]).replace(" ATTR {", " #0 {")

    def segment(self, i: int, lines: list[str]) -> str:
        """``object native0(object self, object *args, ssize_t count)``."""
        place = machine.layout()
        assert place is not None
        head = [f"define ptr @native{i}(ptr %self, ptr %args, i64 %count) nounwind {{"]
        for n in range(len(self.arrays)):
            head.append(f"  %slot{n} = getelementptr ptr, ptr %args, i64 {n}")
            head.append(f"  %object{n} = load ptr, ptr %slot{n}")
            head += read(f"%data{n}", "ptr", f"%object{n}", place.data)
        if i == 0:
            for n, var in enumerate(self.low.program.inputs):
                head += looks_like(n, var, place)
        if self.work > LET_GO:
            head.append("  %thread = call ptr @PyEval_SaveThread()")

        def end(code: int) -> list[str]:
            back = ["  call void @PyEval_RestoreThread(ptr %thread)"] if self.work > LET_GO and code != UNUSABLE else []
            return [*back, f"  %end{code} = call ptr @PyLong_FromLong(i64 {code})", f"  ret ptr %end{code}"]

        unusable = ["unusable:", *end(UNUSABLE)] if any("label %unusable" in line for line in head) else []
        failed = ["failed:", *end(FAILED)] if any("label %failed" in line for line in lines) else []
        return "\n".join([*head, *lines, *end(0), *failed, *unusable, "}"])

    def load(self) -> Callable[..., Any]:
        self.namespace.update({"c": self.low.small_constants(), "usable": self.usable, **self.low.large})
        text = self.text()
        if (count := text.count("\n")) > MOST_LINES:
            raise Unsupported(f"{count} lines of LLVM, of which {MOST_LINES} at most are compiled")
        try:
            loaded = machine.Loaded(text, [f"native{i}" for i in range(len(self.segments))])
        except RuntimeError as exc:
            raise Unsupported(f"LLVM does not compile it: {exc}") from exc
        self.namespace.update({f"native{i}": f for i, f in enumerate(loaded.functions)})
        lines = ["def make(w):", *(f"    {line}" for line in self.setup)]
        lines += [
            f"    def run({', '.join(self.inputs)}):",
            *(f"        {line}" for line in self.source),
            "    return run",
        ]
        self.python = "\n".join(lines)
        exec(compile(self.python, "<compiled by adbridge>", "exec"), self.namespace)
        return self.namespace["make"]  # type: ignore[no-any-return]

    def usable(self, *arrays: Any) -> list[Any]:
        """The arguments laid out as native code takes them. Raises GuardFailed: they are of other shapes or dtypes."""
        for array, var in zip(arrays, self.low.program.inputs, strict=True):
            if array.shape != var.shape or array.dtype != var.dtype:
                raise GuardFailed
        return [
            np.require(a, var.dtype, ["C", "A"]).reshape(a.shape)
            for a, var in zip(arrays, self.low.program.inputs, strict=True)
        ]


_INTERPRETER = [
    "declare ptr @PyLong_FromLong(i64)",
    "declare ptr @PyEval_SaveThread()",
    "declare void @PyEval_RestoreThread(ptr)",
]


def read(name: str, kind: str, start: str, offset: int) -> list[str]:
    return [f"  {name}.at = getelementptr i8, ptr {start}, i64 {offset}", f"  {name} = load {kind}, ptr {name}.at"]


def looks_like(n: int, var: Any, place: machine.Layout) -> list[str]:
    """Go to `unusable` unless the array has this shape and dtype, and is contiguous and aligned."""
    lines: list[str] = []

    def demand(test: str, name: str) -> None:
        lines.append(f"  {name}.ok = icmp {test}")
        lines.append(f"  br i1 {name}.ok, label {name}.next, label %unusable")
        lines.append(f"{name[1:]}.next:")

    lines += read(f"%ndim{n}", "i32", f"%object{n}", place.ndim)
    demand(f"eq i32 %ndim{n}, {len(var.shape)}", f"%ndim{n}")
    lines += read(f"%shape{n}", "ptr", f"%object{n}", place.shape)
    for axis, size in enumerate(var.shape):
        lines += read(f"%size{n}.{axis}", "i64", f"%shape{n}", 8 * axis)
        demand(f"eq i64 %size{n}.{axis}, {size}", f"%size{n}.{axis}")
    lines += read(f"%dtype{n}", "ptr", f"%object{n}", place.dtype)
    lines += read(f"%number{n}", "i32", f"%dtype{n}", place.number)
    demand(f"eq i32 %number{n}, {np.dtype(var.dtype).num}", f"%number{n}")
    lines += read(f"%order{n}", "i8", f"%dtype{n}", place.order)
    demand(f"ne i8 %order{n}, {ord('>')}", f"%order{n}")
    lines += read(f"%flags{n}", "i32", f"%object{n}", place.flags)
    lines.append(f"  %usable{n} = and i32 %flags{n}, {machine.USABLE}")
    demand(f"eq i32 %usable{n}, {machine.USABLE}", f"%usable{n}")
    return lines
