"""The Wengert list: a straight-line program of primitive operations, in single-assignment form.

R. E. Wengert, "A simple automatic derivative evaluation program", CACM 7(8), 1964.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adbridge.backends.reference.primitives import Primitive, Var

if TYPE_CHECKING:
    from pathlib import Path

    from adbridge.backends.reference.cost import Cost
    from adbridge.backends.reference.recorded import AdjointTrace, Run, TangentTrace


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


@dataclass(slots=True, repr=False)
class Program:
    """Inputs, equations in order of execution, outputs (Vars or constants), and what the run relied on."""

    inputs: list[Var] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    outputs: tuple[Any, ...] = ()
    guards: list[Guard] = field(default_factory=list)
    size: int = 0
    run: Run | None = field(default=None, repr=False, compare=False)
    """The run that it was recorded from, with all values: of a program made by `adbridge.trace`."""

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
        size = self.size
        output = Var(size, shape, dtype)
        self.size = size + 1
        self.equations.append(Equation(primitive, inputs, params, output))
        return output

    def evaluate(self, *args: Any, number: str = "float64", bits: int = 256) -> tuple[Any, ...]:
        """The outputs over another number type, always as a tuple: see `numbers.evaluate_in`.

        Raises SignatureMismatch: arguments unlike the recorded ones, or such that the function takes another branch.
        """
        from adbridge.backends.reference.recorded import over_numbers, without_rules

        return over_numbers(without_rules(self), args, number, bits)

    # To read and to run: programs made by `adbridge.trace`.

    def __call__(self, *args: Any) -> Any:
        """Run on other arguments of the same tree, shapes and dtypes.

        Raises SignatureMismatch: unlike the recorded ones, or such that the function may take another branch.
        """
        from adbridge.backends.reference.recorded import call

        return call(self, args)

    def jvp(self, tangents: Sequence[Any]) -> TangentTrace:
        """The forward tangent trace: printable, with `.tangents` of the output and `.program`, to any order.

        `tangents` is a tuple, one per argument, like the arguments (None for what is not an input).
        """
        from adbridge.backends.reference.recorded import tangent_trace

        return tangent_trace(self, tangents)

    def vjp(self, cotangents: Any = None) -> AdjointTrace:
        """The reverse adjoint trace: printable, with `.cotangents` of the arguments and `.program`, to any order.

        `cotangents` are like the output; of a scalar output they may be left out, and are 1: `.program` is then
        the gradient, a function of the arguments alone.
        """
        from adbridge.backends.reference.recorded import adjoint_trace

        return adjoint_trace(self, cotangents)

    def to_python(self, name: str = "f") -> str:
        """The program as NumPy source that runs on its own, with bit-identical results: see `source.py`."""
        from adbridge.backends.reference.recorded import without_rules
        from adbridge.backends.reference.source import to_python

        return to_python(without_rules(self), name)

    def to_svg(self, path: str | Path | None = None) -> str:
        """The computational graph, drawn in layers, as SVG; also written to `path`."""
        from adbridge.backends.reference.graph import to_svg

        return to_svg(self, path)

    def cost(self) -> Cost:
        """Operations and bytes of one run, counted rather than measured."""
        from adbridge.backends.reference.cost import cost
        from adbridge.backends.reference.recorded import without_rules

        return cost(without_rules(self))

    def _repr_html_(self) -> str:
        """For notebooks: the table."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def _repr_svg_(self) -> str:
        return self.to_svg()

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        if self.run is not None:
            from adbridge.backends.reference.show import table

            return table(self)
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
