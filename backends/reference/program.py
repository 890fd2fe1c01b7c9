"""The Wengert list: a straight-line program of primitive operations, in single-assignment form.

R. E. Wengert, "A simple automatic derivative evaluation program", CACM 7(8), 1964.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adbridge.backends.reference.primitives import Primitive, Var


class Equation:
    """One step, ``output = primitive(*inputs, **params)``; inputs are Vars or constants."""

    __slots__ = ("inputs", "output", "params", "primitive")

    def __init__(self, primitive: Primitive, inputs: tuple[Any, ...], params: dict[str, Any], output: Var) -> None:
        self.primitive = primitive
        self.inputs = inputs
        self.params = params
        self.output = output

    def __str__(self) -> str:
        if self.output.dtype is None:  # a bundle
            return f"{self.output!r} = {self._call()}"
        spec = f"{self.output.dtype}[{','.join(map(str, self.output.shape))}]"
        return f"{self.output!r}:{spec} = {self._call()}"

    def _call(self) -> str:
        words = [_show(x) for x in self.inputs] + [f"{k}={v}" for k, v in self.params.items()]
        return f"{self.primitive.name}({', '.join(words)})"


@dataclass(frozen=True, slots=True)
class Guard:
    """What the recorded run relied on: `var` had this concrete value when `at` equations had run."""

    var: Var
    value: Any
    at: int


@dataclass(slots=True)
class Program:
    """Inputs, equations in order of execution, outputs (Vars or constants), and what the run relied on."""

    inputs: list[Var] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    outputs: tuple[Any, ...] = ()
    guards: list[Guard] = field(default_factory=list)
    size: int = 0

    def new_var(self, shape: tuple[int, ...], dtype: Any) -> Var:
        var = Var(self.size, shape, dtype)
        self.size += 1
        return var

    def add_input(self, shape: tuple[int, ...], dtype: Any) -> Var:
        self.inputs.append(self.new_var(shape, dtype))
        return self.inputs[-1]

    def add(self, primitive: Primitive, inputs: tuple[Any, ...], params: dict[str, Any], like: Any) -> Var:
        """Append a step whose result has `like`'s shape and dtype (none, if it is a bundle of several)."""
        return self.append(primitive, inputs, params, getattr(like, "shape", None), getattr(like, "dtype", None))

    def append(
        self, primitive: Primitive, inputs: tuple[Any, ...], params: dict[str, Any], shape: Any, dtype: Any
    ) -> Var:
        output = Var(self.size, shape, dtype)
        self.size += 1
        self.equations.append(Equation(primitive, inputs, params, output))
        return output

    def __str__(self) -> str:
        lines = [f"program({', '.join(map(repr, self.inputs))}):"]
        lines += [f"    {equation}" for equation in self.equations]
        return "\n".join([*lines, f"    return {', '.join(map(_show, self.outputs))}"])


def evaluate(program: Program, *args: Any) -> tuple[Any, ...]:
    """Run the program on arrays, or on tracers of another run."""
    values: list[Any] = [None] * program.size
    for var, arg in zip(program.inputs, args, strict=True):
        values[var.index] = arg
    for eq in program.equations:
        operands = [values[x.index] if type(x) is Var else x for x in eq.inputs]
        values[eq.output.index] = eq.primitive(*operands, **eq.params)
    return tuple(values[x.index] if type(x) is Var else x for x in program.outputs)


def _show(x: Any) -> str:
    if type(x) is Var:
        return repr(x)
    shape = getattr(x, "shape", ())
    return f"<constant {getattr(x, 'dtype', '')}{list(shape)}>" if shape else str(x)
