"""Programs made smaller without changing what they compute: each value once (common subexpressions), none in
vain (dead code), and little algebra.

The algebra moves numbers outward: a value is kept as a number times a variable for as long as the steps that use
it are linear in it, so that signs and factors meet, cancel, and are applied once, late, where arrays are small.
Results may differ from the program's in the last place, as in ``(2 x) y = 2 (x y)``, and in the sign of a zero, as in
``-(a - b) = b - a``. Infinities and NaN stay where they are, but for values that come within the moved factor of the
dtype's range (factors stay below 1e20, in single precision 1e4), and for an infinite a in ``sum(a x) = a sum(x)``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.algebra import RULES, RULES_BY_KIND, ZERO, Scaled, movable, splat
from adbridge.backends.reference.primitives import PRIMITIVES, Primitive, Var
from adbridge.backends.reference.program import Equation, Guard, Program
from adbridge.backends.reference.rules.shaping import Slot


def simplify(program: Program, assume: bool = False) -> Program:
    """The same inputs, outputs and guards by fewer and cheaper equations.

    With `assume`, quotients ``x / x`` are 1, under a further guard that x is finite and not zero.
    """
    return prune(_share_factors(_join_reciprocals(prune(Simplifier(program, assume).run()))))


def prune(program: Program) -> Program:
    """Without the equations that neither an output nor a guard needs."""
    needed = {x.index for x in (*program.outputs, *(guard.var for guard in program.guards)) if type(x) is Var}
    kept = []
    for eq in reversed(program.equations):
        if eq.output.index in needed:
            kept.append(eq)
            needed.update(x.index for x in eq.inputs if type(x) is Var)
    return Program(program.inputs, kept[::-1], program.outputs, program.guards, program.size)


def _join_reciprocals(program: Program) -> Program:
    """``a * (1 / b)`` is ``a / b`` where nothing else uses 1 / b."""
    uses = Counter(x.index for eq in program.equations for x in eq.inputs if type(x) is Var)
    uses.update(x.index for x in program.outputs if type(x) is Var)
    below: dict[int, Var] = {}
    equations = []
    for eq in program.equations:
        name, inputs = eq.primitive.name, eq.inputs
        if name == "divide" and type(inputs[0]) is float and inputs[0] == 1 and uses[eq.output.index] == 1:
            below[eq.output.index] = inputs[1]
        if name == "multiply":
            for a, b in (inputs, inputs[::-1]):
                if type(b) is Var and b.index in below and type(a) is Var:
                    eq = Equation(PRIMITIVES["divide"], (a, below[b.index]), {}, eq.output)
                    break
        equations.append(eq)
    return Program(program.inputs, equations, program.outputs, program.guards, program.size)


def _share_factors(program: Program) -> Program:
    """``c (v w) = (c v) w`` where c v is there anyway, and nothing else uses v w."""
    uses = Counter(x.index for eq in program.equations for x in eq.inputs if type(x) is Var)
    uses.update(x.index for x in program.outputs if type(x) is Var)
    products: dict[int, Equation] = {}
    scaled: dict[tuple[int, float], Equation] = {}
    for eq in program.equations:
        if eq.primitive.name == "multiply":
            a, b = eq.inputs
            if type(b) is float and type(a) is Var:
                scaled.setdefault((a.index, b), eq)
            products[eq.output.index] = eq
    equations: list[Equation] = []
    done: set[int] = set()
    for eq in program.equations:
        if eq.output.index in done:
            continue
        if (found := _shared_factor(eq, products, scaled, uses)) is not None:
            first, rest = found
            if first.output.index not in done:
                equations.append(first)
                done.add(first.output.index)
            eq = Equation(eq.primitive, (first.output, rest), {}, eq.output)
        equations.append(eq)
        done.add(eq.output.index)
    return Program(program.inputs, equations, program.outputs, program.guards, program.size)


def _shared_factor(
    eq: Equation, products: dict[int, Equation], scaled: dict[tuple[int, float], Equation], uses: Counter[int]
) -> tuple[Equation, Var] | None:
    """Of ``c (v w)``: the equation of c v, and w."""
    if eq.output.index not in products or type(eq.inputs[1]) is not float or type(eq.inputs[0]) is not Var:
        return None
    inner, c = products.get(eq.inputs[0].index), eq.inputs[1]
    if inner is None or uses[inner.output.index] != 1 or type(inner.inputs[1]) is not Var:
        return None
    for v, w in (inner.inputs, inner.inputs[::-1]):
        other = scaled.get((v.index, c)) if type(v) is Var else None
        if other is not None and other is not eq and (v.shape, v.dtype) == (eq.output.shape, eq.output.dtype):
            return other, w
    return None


class Simplifier:
    def __init__(self, program: Program, assume: bool) -> None:
        self.old = program
        self.assume = assume
        self.uses = Counter(x.index for eq in program.equations for x in eq.inputs if type(x) is Var)
        self.assumptions: list[tuple[Var, object]] = []
        self.new = Program()
        self.known: dict[Any, Var] = {}  # equations already there
        self.source: dict[int, Equation] = {}  # of each variable of the new program
        self.values: list[Any] = [None] * program.size
        self.quotients: dict[tuple[int, float], float] = {}  # x / d, kept as 1/d times x: d

    def run(self) -> Program:
        for var in self.old.inputs:
            self.values[var.index] = Scaled(1.0, self.new.add_input(var.shape, var.dtype))
        for eq in self.old.equations:
            args = [self.value(x) for x in eq.inputs]
            if not any(type(x.operand) is Var for x in args) and eq.output.dtype is not None:
                operands = [np.zeros(eq.output.shape) if x.operand is ZERO else self.whole(x) for x in args]
                self.values[eq.output.index] = Scaled(1.0, eq.primitive.impl(*operands, **eq.params))
                continue
            rule = RULES.get(eq.primitive.name, RULES_BY_KIND[eq.primitive.linear is not None])
            found = rule(self, eq, args)
            if found is None or (found.factor != 1 and not movable(found.factor, eq.output.dtype)):
                found = self.plain(eq, args)
            self.values[eq.output.index] = self.settled(found) if self.uses[eq.output.index] > 1 else found
        self.new.outputs = tuple(self.whole(self.value(x)) for x in self.old.outputs)
        self.new.guards = [
            Guard(var, guard.value, guard.at)
            for guard in self.old.guards
            if type(var := self.whole(self.values[guard.var.index])) is Var
        ]
        self.new.guards += [Guard(var, what, 0) for var, what in dict.fromkeys(self.assumptions)]
        return self.new

    def settled(self, x: Scaled) -> Scaled:
        """With its factor applied, but for the sign: once here is less work than at every use."""
        if abs(x.factor) == 1 or type(x.operand) is not Var:
            return x
        return Scaled(1.0 if x.factor > 0 else -1.0, self.whole(Scaled(abs(x.factor), x.operand)))

    def value(self, x: Any) -> Scaled:
        return self.values[x.index] if type(x) is Var else Scaled(1.0, x)

    def whole(self, x: Scaled) -> Any:
        """The operand itself, its factor applied."""
        factor, operand = x
        if factor == 1:
            return operand
        if type(operand) is not Var:
            return np.asarray(operand * factor, operand.dtype)
        if factor == -1:
            if self.is_by(operand, "subtract"):
                a, b = self.source[operand.index].inputs
                return self.emit(PRIMITIVES["subtract"], (b, a), {}, operand)
            return self.emit(PRIMITIVES["negative"], (operand,), {}, operand)
        if (over := self.quotients.get((operand.index, factor))) is not None:
            return self.emit(PRIMITIVES["divide"], (operand, over), {}, operand)  # to the last place: 49 / 49 is 1
        return self.emit(PRIMITIVES["multiply"], (operand, factor), {}, operand)

    def plain(self, eq: Equation, args: Sequence[Scaled]) -> Scaled:
        return Scaled(1.0, self.emit(eq.primitive, tuple(map(self.whole, args)), eq.params, eq.output))

    def emit(self, primitive: Primitive, inputs: tuple[Any, ...], params: dict[str, Any], like: Any) -> Var:
        """The variable of this step: an old one, if it has been taken before."""
        if primitive.partials is not None:
            inputs = self.unbroadcast(inputs, like)
        key = (primitive.name, like.shape, *_order(primitive.name, [_key(x) for x in inputs]), _params_key(params))
        if key not in self.known:
            var = self.known[key] = self.new.add(primitive, inputs, params, like)
            self.source[var.index] = self.new.equations[-1]
        return self.known[key]

    def unbroadcast(self, inputs: tuple[Any, ...], like: Any) -> tuple[Any, ...]:
        """Operands of an elementwise step before they were broadcast, where another one has the whole shape."""
        full = [type(x) is Var and x.shape == like.shape and not self.is_by(x, "broadcast_to") for x in inputs]
        if not any(full):
            return inputs
        kept = next((i for i, x in enumerate(inputs) if full[i] and self.thin(x) is x), full.index(True))
        thin = []
        for i, x in enumerate(inputs):
            if type(x) is Var and i != kept:
                x = self.thin(x)
            elif (number := splat(x, like)) is not None:
                x = number
            thin.append(x)
        return tuple(thin)

    def thin(self, x: Var) -> Var:
        """x before it was broadcast, or given leading axes of size one."""
        while x.index in self.source:
            name, y = self.source[x.index].primitive.name, self.source[x.index].inputs[0]
            if name not in ("reshape", "broadcast_to") or type(y) is not Var:
                break
            if name == "reshape" and x.shape != (1,) * (len(x.shape) - len(y.shape)) + y.shape:
                break
            x = y
        return x

    def is_by(self, x: Any, name: str) -> bool:
        return type(x) is Var and x.index in self.source and self.source[x.index].primitive.name == name


def _key(x: Any) -> Any:
    if type(x) is Var:
        return x.index
    # By its digits: 0.0 and -0.0 are equal.
    return (type(x).__name__, repr(x)) if isinstance(x, (int, float, complex, bool)) else ("constant", id(x))


def _params_key(params: dict[str, Any]) -> Any:
    """Arrays and what else prints in part count by identity."""
    return tuple((k, repr(v) if isinstance(v, _PLAIN) else ("object", id(v))) for k, v in params.items())


_PLAIN = (int, float, complex, str, bytes, tuple, slice, type(None), np.dtype, Slot)


def _order(name: str, keys: list[Any]) -> list[Any]:
    return sorted(keys, key=repr) if name in ("add", "multiply") else keys
