"""Steps of a program as readable maths: ``v1 = ln v-1``, ``v2 = v-1 × v0``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import Var
from adbridge.backends.reference.program import Equation, Program

SUM, PRODUCT, UNARY, POWER, ATOM = range(5)  # how tightly a term binds


@dataclass(frozen=True)
class Term:
    """A formula. `closed` is the same where something may follow it: ``sin(x)`` for ``sin x``."""

    text: str
    level: int = ATOM
    closed: str = ""
    negated: Term | None = None
    """What this is the negative of."""
    below: Term | None = None
    """What this is the reciprocal of."""

    def within(self, level: int, last: bool = True) -> str:
        """As an operand: in brackets unless it binds as tightly as `level`."""
        text = self.text if last else self.closed or self.text
        return text if self.level >= level else f"({self.text})"


def names_of(program: Program) -> dict[int, str]:
    """The textbooks' numbering, by index of variable: n inputs are v1-n to v0, the other steps v1, v2, ..."""
    n = len(program.inputs)
    inputs = {var.index: f"v{i + 1 - n}" for i, var in enumerate(program.inputs)}
    return inputs | {eq.output.index: f"v{i + 1}" for i, eq in enumerate(program.equations)}


def numbered(letter: str, count: int) -> list[str]:
    """``x1``, ``x2``, ...; ``x`` alone."""
    return [letter] if count == 1 else [f"{letter}{i + 1}" for i in range(count)]


def formula(eq: Equation, names: dict[int, str]) -> str:
    """The right-hand side of one step."""
    return term(eq, [Term(names[x.index]) if type(x) is Var else constant(x) for x in eq.inputs]).text


def composed(program: Program, known: dict[int, str]) -> list[str]:
    """The outputs of a small program, each as one formula in the variables that have a name."""
    terms = {index: Term(name) for index, name in known.items()}

    def of(x: Any) -> Term:
        return terms[x.index] if type(x) is Var else constant(x)

    for eq in program.equations:
        if eq.output.index not in terms:
            operands = [of(x) for x in eq.inputs]
            # Shapes and dtypes are understood.
            terms[eq.output.index] = operands[0] if eq.primitive.name in _SILENT else _simpler(eq, operands)
    return [of(x).text for x in program.outputs]


_SILENT = frozenset({"astype", "broadcast_to", "reshape"})


def _simpler(eq: Equation, operands: Sequence[Term]) -> Term:
    """Without what zeros and ones do not change."""
    name, texts = eq.primitive.name, [x.text for x in operands]
    for text, names in (("0", ("add",)), ("1", ("multiply",))):
        if name in names and text in texts:
            return operands[1 - texts.index(text)]
    return term(eq, operands)


def term(eq: Equation, operands: Sequence[Term]) -> Term:
    """One step applied to formulas."""
    name, params = eq.primitive.name, eq.params
    if name in _INFIX and len(operands) == 2:
        return _INFIX[name](*operands)
    if name in _SPECIAL:
        return _SPECIAL[name](eq, *operands)
    if len(operands) == 1 and not params and name in _PREFIX:
        return _applied(_PREFIX[name], operands[0])
    axis_of_all = name in _REDUCTIONS and not eq.output.shape
    words = [f"{k}={_word(v)}" for k, v in params.items() if v is not False and not (k == "axis" and axis_of_all)]
    return Term(f"{name}({', '.join([*(x.text for x in operands), *words])})")


def constant(x: Any) -> Term:
    """A number, a short array, or shape and dtype."""
    array = np.asarray(x)
    if array.size and not np.any(array):
        return Term("0")
    if array.size > 4:
        return Term(f"{array.dtype}[{','.join(map(str, array.shape))}]")
    text = number(array[()]) if not array.shape else f"[{', '.join(map(number, array.ravel().tolist()))}]"
    return Term(text, UNARY if text.startswith("-") else ATOM)


def number(x: Any) -> str:
    """Six significant digits."""
    if isinstance(x, (bool, np.bool_, int, np.integer)):
        return str(x)
    if isinstance(x, (complex, np.complexfloating)):
        return f"{x.real:.6g}{x.imag:+.6g}i"
    return f"{x:.6g}"


def _sum(a: Term, b: Term) -> Term:
    if b.negated is not None:
        return _difference(a, b.negated)
    return Term(f"{a.within(SUM)} + {b.within(SUM)}", SUM, f"{a.within(SUM)} + {b.within(SUM, False)}")


def _difference(a: Term, b: Term) -> Term:
    return Term(f"{a.within(SUM)} - {b.within(PRODUCT)}", SUM, f"{a.within(SUM)} - {b.within(PRODUCT, False)}")


def _product(a: Term, b: Term) -> Term:
    if b.negated is not None:
        return _negative(_product(a, b.negated))
    if b.below is not None:
        return _quotient(a, b.below)
    left = a.within(PRODUCT, last=False)
    return Term(f"{left} × {b.within(PRODUCT)}", PRODUCT, f"{left} × {b.within(PRODUCT, False)}")


def _quotient(a: Term, b: Term) -> Term:
    if b.negated is not None:
        return _negative(_quotient(a, b.negated))
    if a.negated is not None:
        return _negative(_quotient(a.negated, b))
    left = a.within(PRODUCT, last=False)
    closed = f"{left} / {b.within(UNARY, False)}"
    return Term(f"{left} / {b.within(UNARY)}", PRODUCT, closed, below=b if a.text == "1" else None)


def _negative(a: Term) -> Term:
    return a.negated or Term(f"-{a.within(PRODUCT)}", UNARY, f"-{a.within(PRODUCT, False)}", negated=a)


def _power(a: Term, b: Term) -> Term:
    return Term(f"{a.within(ATOM, False)}^{b.within(ATOM, False)}", POWER)


def _binary(symbol: str, level: int) -> Callable[[Term, Term], Term]:
    return lambda a, b: Term(f"{a.within(level, False)} {symbol} {b.within(level + 1)}", level)


def _applied(function: str, x: Term) -> Term:
    if x.level == ATOM and x.text[-1:].isalnum() and function.isalpha():
        return Term(f"{function} {x.text}", PRODUCT, f"{function}({x.text})")
    return Term(f"{function}({x.text})")


_INFIX: dict[str, Callable[[Term, Term], Term]] = {
    "add": _sum,
    "subtract": _difference,
    "multiply": _product,
    "divide": _quotient,
    "pow": _power,
    "matmul": _binary("@", PRODUCT),
    **{
        name: _binary(symbol, SUM - 1)
        for name, symbol in {
            "equal": "=",
            "not_equal": "≠",
            "less": "<",
            "less_equal": "≤",
            "greater": ">",
            "greater_equal": "≥",
        }.items()
    },
}

_PREFIX = {
    name: {"log": "ln", "conj": "conj"}.get(name, name)
    for name in (
        *("log", "exp", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh"),
        *("atanh", "sqrt", "sign", "erf", "erfc", "expm1", "log1p", "floor", "ceil", "round", "conj"),
    )
}

_REDUCTIONS = frozenset({"sum", "max", "min", "any", "all"})


def _at(eq: Equation, x: Term, *indices: Term) -> Term:
    return Term(f"{x.within(ATOM, False)}[{_key(eq.params.get('key'), indices)}]")


def _added_at(eq: Equation, x: Term, v: Term, *indices: Term) -> Term:
    put = Term(f"{v.within(ATOM, False)} at [{_key(eq.params['key'], indices)}]", PRODUCT)
    return put if x.text == "0" else _sum(x, put)


def _set_at(eq: Equation, x: Term, v: Term, *indices: Term) -> Term:
    return Term(f"{x.within(ATOM, False)} with [{_key(eq.params['key'], indices)}] = {v.text}", SUM - 1)


def _clear_at(eq: Equation, x: Term, *indices: Term) -> Term:
    return Term(f"{x.within(ATOM, False)} with [{_key(eq.params['key'], indices)}] = 0", SUM - 1)


def _transposed(eq: Equation, x: Term) -> Term:
    axes = tuple(eq.params["axes"])
    k = len(axes)
    if k > 1 and axes == (*range(k - 2), k - 1, k - 2):
        return Term(f"{x.within(ATOM, False)}ᵀ")
    return Term(f"permute_dims({x.text}, axes={axes})")


_SPECIAL: dict[str, Callable[..., Term]] = {
    "negative": lambda eq, x: _negative(x),
    "reciprocal": lambda eq, x: _quotient(Term("1"), x),
    "square": lambda eq, x: Term(f"{x.within(ATOM, False)}²", POWER),
    "abs": lambda eq, x: Term(f"|{x.text}|"),
    "getitem": _at,
    "add_at": _added_at,
    "set_at": _set_at,
    "clear_at": _clear_at,
    "permute_dims": _transposed,
    "pick": lambda eq, x: Term(f"{x.within(ATOM, False)}[{eq.params['index']}]"),
}


def _key(key: Any, indices: Sequence[Term]) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    return ", ".join(_key_part(part, indices) for part in parts)


def _key_part(part: Any, indices: Sequence[Term]) -> str:
    if isinstance(part, slice):
        text = ":".join("" if x is None else str(x) for x in (part.start, part.stop, part.step))
        return text if part.step is not None else f"{text.rstrip(':')}:" if part.stop is None else text[:-1]
    slot = getattr(part, "i", None)
    if isinstance(slot, int) and slot < len(indices):
        return indices[slot].text
    return "..." if part is ... else str(part)


def _word(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 1:
        return str(value[0])
    return str(value)
