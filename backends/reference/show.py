"""Programs as the tables of the textbooks: the evaluation trace, and the tangents and adjoints beside it.

A. Griewank, A. Walther, Evaluating Derivatives, 2nd ed., SIAM (2008), chapters 1 to 3; A. G. Baydin, B. A.
Pearlmutter, A. A. Radul, J. M. Siskind, "Automatic differentiation in machine learning: a survey", JMLR 18 (2018),
tables 2 and 3, whose layout and numbering this is.

The local formulas are the rules themselves, run on a step's operands, recorded, and written as maths.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adbridge.backends.reference.formulas import composed, constant, formula, names_of, number, numbered
from adbridge.backends.reference.primitives import Var
from adbridge.backends.reference.program import Equation, Guard, Program, evaluate
from adbridge.backends.reference.simplify import prune
from adbridge.backends.reference.transforms import jvp, linearize, pull, record, zero_like
from adbridge.protocol import Arrays, FlatFunction

_LONGEST, _MANY = 72, 24  # columns and steps of a local formula; of a longer one only ∂ is written

Row = tuple[str, ...]


def table(program: Program) -> str:
    """Step, operation, value; without values if the program keeps no run."""
    names = names_of(program)
    if program.run is None:
        return _aligned([(left, f"= {right}") for left, right, _ in _steps(program, names)], ("step", "operation"))
    values = program.run.values
    rows = [
        (left, f"= {right}", short(values[x.index] if type(x) is Var else x))
        for left, right, x in _steps(program, names)
    ]
    return _aligned(rows, ("step", "operation", "value"))


def _steps(program: Program, names: dict[int, str]) -> Iterator[tuple[str, str, Any]]:
    """Name, right-hand side and Var (or constant) of every line of the evaluation trace."""
    for var, x in zip(program.inputs, numbered("x", len(program.inputs)), strict=True):
        yield names[var.index], x, var
    for eq in program.equations:
        yield names[eq.output.index], formula(eq, names), eq.output
    for y, out in zip(numbered("y", len(program.outputs)), program.outputs, strict=True):
        yield y, names[out.index] if type(out) is Var else constant(out).text, out


def tangent_table(program: Program, seeds: Arrays) -> str:
    """The evaluation trace with each step's tangent beside it."""
    names, values, tangents = names_of(program), values_of(program), tangents_of(program, seeds)
    moves = dict(_moves(program, names, values, tangents))
    for var, x in zip(program.inputs, numbered("x", len(seeds)), strict=True):
        moves[var.index] = f"d{x}"
    rows = []
    for left, right, x in _steps(program, names):
        value, tangent = (values[x.index], tangents.get(x.index)) if type(x) is Var else (x, None)
        is_output = left.startswith("y")
        move = "0" if tangent is None else f"d{right}" if is_output else moves.get(x.index, "0")
        moved = "0" if tangent is None else short(tangent)
        rows.append((left, f"= {right}", short(value), f"d{left}", f"= {move}", moved))
    return _aligned(rows, ("step", "operation", "value", "", "tangent", "value"))


def adjoint_table(program: Program, seeds: Arrays) -> str:
    """The evaluation trace, then the adjoints: each contribution in the order of the reverse sweep."""
    rows = [
        (line.name, f"= {line.origin}", line.formula and f"= {line.formula}", short(line.value))
        for line in adjoints(program, seeds)
    ]
    return f"{table(program)}\n\n{_aligned(rows, ('', 'adjoint', '', 'value'))}"


def tangent_notes(program: Program, seeds: Arrays) -> dict[int, str]:
    """What to write below each value of a graph."""
    names = names_of(program)
    return {i: f"d{names[i]} = {'0' if t is None else short(t)}" for i, t in tangents_of(program, seeds).items()}


def adjoint_notes(program: Program, seeds: Arrays) -> dict[int, str]:
    """What to write below each value of a graph: its whole adjoint."""
    found: dict[int, str] = {}
    for line in adjoints(program, seeds):
        if line.index is not None:
            found[line.index] = f"{line.name} = {short(line.value)}"
    return found


# Values.


def values_of(program: Program) -> dict[int, Any]:
    """The values of the recorded run, by variable."""
    assert program.run is not None
    return program.run.values


def short(value: Any) -> str:
    """A scalar to six digits; of an array its dtype and shape, and its first and last elements."""
    if isinstance(value, tuple):
        return f"{len(value)} results"
    array = np.asarray(value)
    if not array.shape:
        return number(array[()])
    flat = array.ravel()
    shown = [*flat[:2].tolist(), ..., *flat[-1:].tolist()] if flat.size > 4 else flat.tolist()
    words = ", ".join("..." if x is ... else number(x) for x in shown)
    return f"{array.dtype}[{','.join(map(str, array.shape))}]: {words}".rstrip(": ")


def guard(program: Program, which: Guard) -> str:
    """What the recorded run relied on: ``v1 = True, where v1 = v0 > 0``."""
    names = names_of(program)
    name = names.get(which.var.index, repr(which.var))
    made = next((formula(eq, names) for eq in program.equations if eq.output is which.var), "an input")
    return f"{name} = {short(which.value)}, where {name} is {made}"


# One step at a time. A step is an equation; or one with several results, together with those taken out of it.


@dataclass(frozen=True)
class Step:
    """Equations that are differentiated together, with the variables that come from outside, each once."""

    equations: tuple[Equation, ...]
    operands: tuple[Var, ...]
    outputs: tuple[Var, ...]

    def program(self) -> Program:
        """The step alone, its operands the inputs."""
        places = {x.index: Var(i, x.shape, x.dtype) for i, x in enumerate(self.operands)}
        inputs, equations = list(places.values()), []
        for eq in self.equations:
            output = Var(len(places), eq.output.shape, eq.output.dtype)
            operands = tuple(places[x.index] if type(x) is Var else x for x in eq.inputs)
            equations.append(Equation(eq.primitive, operands, eq.params, output))
            places[eq.output.index] = output
        return Program(inputs, equations, tuple(places[x.index] for x in self.outputs), [], len(places))


def _in_steps(program: Program) -> list[Step]:
    picks: dict[int, list[Equation]] = {}
    for eq in program.equations:
        if eq.primitive.name == "pick":
            picks.setdefault(eq.inputs[0].index, []).append(eq)
    steps = []
    for eq in program.equations:
        if eq.primitive.name != "pick":
            taken = picks.get(eq.output.index, [])
            operands = {x.index: x for x in eq.inputs if type(x) is Var}
            outputs = tuple(e.output for e in taken) if eq.output.dtype is None else (eq.output,)
            steps.append(Step((eq, *taken), tuple(operands.values()), outputs))
    return steps


def _is_smooth(x: Var) -> bool:
    return x.dtype is not None and x.dtype.kind in "fc"


def _function_of(step: Step, moving: Sequence[Var], arrays: Sequence[Any]) -> tuple[FlatFunction, Arrays]:
    """The step as a flat function of the `moving` ones among its operands, and those of `arrays`."""
    local, places = step.program(), [step.operands.index(x) for x in moving]

    def fun(*given: Any) -> tuple[Arrays, Arrays]:
        operands = list(arrays)
        for i, x in zip(places, given, strict=True):
            operands[i] = x
        return evaluate(local, *operands), ()

    return fun, tuple(arrays[i] for i in places)


def _rule_as_formulas(step: Step, recorded: Program, names: dict[int, str], seeds: Sequence[str]) -> list[str] | None:
    """The outputs of a step's recorded rule, in the names of its operands, its result and the seeds."""
    if len(step.equations) > 1 or recorded.equations[0].primitive is not step.equations[0].primitive:
        return None
    words = [*(names[x.index] for x in step.operands), *seeds]
    known = {var.index: word for var, word in zip(recorded.inputs, words, strict=True)}
    known[recorded.equations[0].output.index] = names[step.outputs[0].index]
    if len(prune(recorded).equations) > _MANY:
        return None
    found = composed(recorded, known)
    return None if any(len(text) > _LONGEST for text in found) else found


# Tangents.


def tangents_of(program: Program, seeds: Arrays) -> dict[int, Any]:
    """The tangent of every variable, by index; None for zero."""
    values = values_of(program)
    inputs = [values[var.index] for var in program.inputs]
    every = tuple(eq.output for eq in program.equations if eq.output.dtype is not None)
    steps = Program(program.inputs, program.equations, every, [], program.size)
    _, found, _ = jvp(lambda *xs: (evaluate(steps, *xs), ()), tuple(inputs), seeds)
    outputs = {var.index: t for var, t in zip(every, found, strict=True)}
    return outputs | {var.index: t for var, t in zip(program.inputs, seeds, strict=True)}


def _moves(
    program: Program, names: dict[int, str], values: dict[int, Any], tangents: dict[int, Any]
) -> Iterator[tuple[int, str]]:
    """For every step's variables the formula of the tangent."""
    for step in _in_steps(program):
        moving = [x for x in step.operands if tangents.get(x.index) is not None and _is_smooth(x)]
        if not moving:
            continue
        arrays = [values[x.index] for x in step.operands]
        recorded = _tangent_rule(step, moving, arrays, [tangents[x.index] for x in moving])
        texts = _rule_as_formulas(step, recorded, names, [f"d{names[x.index]}" for x in moving])
        for i, out in enumerate(step.outputs):
            name = names[out.index]
            by_name = " + ".join(f"∂{name}/∂{names[x.index]} d{names[x.index]}" for x in moving)
            yield out.index, by_name if texts is None else texts[i]


def _tangent_rule(step: Step, moving: Sequence[Var], arrays: Sequence[Any], tangents: Sequence[Any]) -> Program:
    count = len(arrays)

    def pushed(*given: Any) -> Arrays:
        outs, moved, _ = jvp(*_function_of(step, moving, given[:count]), tangents=given[count:])
        return tuple(zero_like(out) if t is None else t for t, out in zip(moved, outs, strict=True))

    return record(pushed, *arrays, *tangents)


# Adjoints.


@dataclass(frozen=True)
class AdjointLine:
    """``name = origin = formula``, and the adjoint's value so far; `index` of the variable it belongs to."""

    name: str
    origin: str
    formula: str
    value: Any
    index: int | None = None


def adjoints(program: Program, seeds: Arrays) -> list[AdjointLine]:
    """The reverse sweep, a line for each contribution to a variable's adjoint, in the order in which they come."""
    return _Reverse(program).run(seeds)


class _Reverse:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.names = names_of(program)
        self.held: dict[int, Any] = {}
        self.lines: list[AdjointLine] = []

    def run(self, seeds: Arrays) -> list[AdjointLine]:
        outputs = self.program.outputs
        for y, out, seed in zip(numbered("y", len(outputs)), outputs, seeds, strict=True):
            if type(out) is Var:
                self.give(out, seed, bar(y), "")
        for step in reversed(_in_steps(self.program)):
            if any(out.index in self.held for out in step.outputs):
                self.pull(step)
        for x, var in zip(numbered("x", len(self.program.inputs)), self.program.inputs, strict=True):
            if var.index not in self.held:
                self.give(var, zero_like(var), "0", "")
            self.lines.append(AdjointLine(bar(x), bar(self.names[var.index]), "", self.held[var.index]))
        return self.lines

    def give(self, var: Var, part: Any, origin: str, text: str) -> None:
        name = bar(self.names[var.index])
        if var.index in self.held:
            origin, text = f"{name} + {origin}", _added(name, text)
            part = self.held[var.index] + part
        self.held[var.index] = part
        self.lines.append(AdjointLine(name, origin, text, part, var.index))

    def pull(self, step: Step) -> None:
        """What a step gives to the adjoints of its operands."""
        values, names = values_of(self.program), self.names
        moving = [x for x in step.operands if _is_smooth(x)]
        reached = [out for out in step.outputs if out.index in self.held]
        arrays = [values[x.index] for x in step.operands]
        seeds = [self.held[out.index] for out in reached]
        rule = _adjoint_rule(Step(step.equations, step.operands, tuple(reached)), moving, len(arrays))
        bars = [bar(names[out.index]) for out in reached]
        texts = _rule_as_formulas(step, record(rule, *arrays, *seeds), names, bars) if moving else None
        for i, (x, part) in enumerate(zip(moving, rule(*arrays, *seeds), strict=True)):
            by = (f"{word} ∂{names[out.index]}/∂{names[x.index]}" for word, out in zip(bars, reached, strict=True))
            self.give(x, part, " + ".join(by), "" if texts is None else texts[i])


def _adjoint_rule(step: Step, moving: Sequence[Var], count: int) -> Any:
    def pulled(*given: Any) -> Arrays:
        _, linear, _ = linearize(*_function_of(step, moving, given[:count]))
        return pull(linear, given[count:])

    return pulled


def _added(name: str, text: str) -> str:
    if not text:
        return ""
    return f"{name} - {text[1:]}" if text.startswith("-") else f"{name} + {text}"


# Text.


BAR = "\u0304"


def bar(name: str) -> str:
    """``v̄1``: the letter with a bar, as the books write adjoints."""
    return unicodedata.normalize("NFC", f"{name[0]}{BAR}{name[1:]}")


def _aligned(rows: Sequence[Row], header: Row) -> str:
    """Columns padded to their widest word; "= ..." stands next to the name on its left."""
    lines = [""] * (len(rows) + 1)
    for title, *words in zip(header, *rows, strict=True):
        glued = any(word.startswith("=") for word in words)
        column = [f"  {title}" if glued else title, *words]
        width = max(map(text_width, column))
        gap = "" if not lines[-1] else " " if glued else "  "
        padded = (gap + word + " " * (width - text_width(word)) for word in column)
        lines = [line + more for line, more in zip(lines, padded, strict=True)]
    return "\n".join(line.rstrip() for line in lines)


def text_width(text: str) -> int:
    """Columns that a text takes."""
    return sum(not unicodedata.combining(character) for character in text)
