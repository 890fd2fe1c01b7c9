"""A program as NumPy source that runs on its own.

The source gives the results of `program.evaluate`'s interpreter to the last bit, for it makes the same calls: each
primitive's implementation, with its arguments put in. A lambda's body is written out (``np.sum(v4, axis=0)``); a
longer function is copied as a helper above. Real +, -, * and / are written as operators; of complex numbers they
are NumPy's functions, whose vectorised loops may round otherwise than its scalars do.

Constants of up to 8 elements are written where they are used, larger ones above the function, from 1000 elements on
in base64: whatever the program holds is in the source.
"""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adbridge.backends.reference.formulas import numbered
from adbridge.backends.reference.literals import (
    array_literal,
    dtype_literal,
    key_literal,
    literal,
    number_literal,
    subscript,
)
from adbridge.backends.reference.primitives import Primitive, Var
from adbridge.backends.reference.program import Equation, Guard, Program
from adbridge.errors import CapabilityError

_SHORT = 8
_OPERATORS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
_COMPARISONS = {"less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">="}

# By hand: implementations that take keys apart, which are whole in a source.
_AT = {
    "set_at": '''def set_at(x, key, v):
    """x with x[key] = v."""
    out = np.array(x)
    out[key] = v
    return out''',
    "add_at": '''def add_at(x, key, v):
    """x with x[key] += v."""
    out = np.array(x)
    out[key] += v
    return out''',
    "last_writes": '''def last_writes(key, shape):
    """1.0 where a write by this key is the last to its element, else 0.0."""
    writer = np.zeros(shape, np.int64)
    order = np.arange(writer[key].size).reshape(writer[key].shape)
    writer[key] = order
    return (writer[key] == order).astype(np.float64)''',
    "add_each_at": '''def add_each_at(x, key, v):
    """x with v added at index arrays: twice to an element that is named twice."""
    out = np.array(x)
    np.add.at(out, key, v)
    return out''',
}


def to_python(program: Program, name: str = "f") -> str:
    """Source of a function `name` of the program's inputs; it returns the output, or the tuple of outputs."""
    if not name.isidentifier():
        raise CapabilityError(f"{name!r} is no name for a Python function; pass one such as 'f'")
    return _Source(program, name).text()


@dataclass
class _Source:
    program: Program
    name: str
    names: dict[int, str] = field(default_factory=dict)
    helpers: dict[str, str] = field(default_factory=dict)
    copied: dict[Any, str] = field(default_factory=dict)
    """The helpers' names, by the functions that they are copies of."""
    constants: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=lambda: {"import numpy as np"})

    def text(self) -> str:
        """The module."""
        program = self.program
        inputs = numbered("x", len(program.inputs))
        self.names = {var.index: x for var, x in zip(program.inputs, inputs, strict=True)}
        self.names |= {eq.output.index: f"v{i + 1}" for i, eq in enumerate(program.equations)}
        body = [self.line(part) for part in _in_order(program)]
        outputs = ", ".join(self.operand(x) for x in program.outputs)
        casts = [
            f"{x} = np.asarray({x}, {dtype_literal(v.dtype)})" for x, v in zip(inputs, program.inputs, strict=True)
        ]
        lines = [_docstring(program, inputs), *casts, *body, f"return {outputs or '()'}"]
        function = "\n".join([f"def {self.name}({', '.join(inputs)}):", *(f"    {line}" for line in lines)])
        head = "\n".join(sorted(self.imports))
        constants = ["\n".join(self.constants)] if self.constants else []
        return "\n\n\n".join([head, *constants, *self.helpers.values(), function]) + "\n"

    def line(self, part: Equation | Guard) -> str:
        if isinstance(part, Guard):
            return self.guard(part)
        return f"{self.names[part.output.index]} = {self.call(part)}"

    def guard(self, guard: Guard) -> str:
        name, value = self.names[guard.var.index], np.asarray(guard.value)
        if value.dtype.kind == "b" and not value.shape:
            test = name if value else f"not {name}"
        else:
            equal_nan = ", equal_nan=True" if value.dtype.kind in "fc" else ""
            test = f"np.array_equal({name}, {self.operand(guard.value)}{equal_nan})"
        return f'assert {test}, "recorded on another branch: trace the function again"'

    # One step.

    def call(self, eq: Equation) -> str:
        """The expression of one step."""
        name, impl = eq.primitive.name, eq.primitive.impl
        operands = [self.operand(x) for x in eq.inputs]
        if name in _KEYED:
            return self.keyed(eq, operands)
        if (text := _infix(eq, operands)) is not None:
            return text
        if (known := self.library(impl) or self.of_scipy(eq)) is not None:
            return self.called(known, operands, eq.params)
        if isinstance(impl, types.FunctionType) and impl.__name__ == "<lambda>" and not impl.__closure__:
            return self.inlined(impl, operands, eq.params)
        return self.called(self.helper(impl, name), operands, eq.params)

    def keyed(self, eq: Equation, operands: list[str]) -> str:
        count, name = _KEYED[eq.primitive.name], eq.primitive.name
        arrays, indices, key = operands[:count], operands[count:], eq.params["key"]
        if name == "getitem":
            return f"{_atom(arrays[0])}[{subscript(key, indices)}]"
        helper = {"clear_at": "set_at", "add_at": "add_each_at" if indices else "add_at"}.get(name, name)
        self.helpers[helper] = _AT[helper]
        if name == "last_writes":
            return f"last_writes({key_literal(key, indices)}, {literal(eq.params['shape'])})"
        value = "0" if name == "clear_at" else arrays[1]
        return f"{helper}({arrays[0]}, {key_literal(key, indices)}, {value})"

    def called(self, function: str, operands: Sequence[str], params: dict[str, Any]) -> str:
        words = [*operands, *(f"{k}={self.operand(v)}" for k, v in params.items())]
        return _tidy(f"{function}({', '.join(words)})")

    def library(self, impl: Any) -> str | None:
        """``np.sin`` for a function of NumPy's or of scipy.special."""
        name = getattr(impl, "__name__", "")
        for prefix, module in (("np", np), ("np.linalg", np.linalg), ("np.fft", np.fft)):
            if getattr(module, name, None) is impl:
                return f"{prefix}.{name}"
        if getattr(sys.modules.get("scipy.special"), name, None) is impl:
            self.imports.add("from scipy import special")
            return f"special.{name}"
        return None

    def of_scipy(self, eq: Equation) -> str | None:
        """``special.erf`` for a row that looks its function up there when it is first used."""
        found = inspect.getclosurevars(eq.primitive.impl).nonlocals if inspect.isfunction(eq.primitive.impl) else {}
        if "_scipy" not in getattr(eq.primitive.impl, "__globals__", ()) or "name" not in found:
            return None
        if any(getattr(x, "dtype", None) != eq.output.dtype for x in eq.inputs):
            return None  # they are cast first
        self.imports.add("from scipy import special")
        return f"special.{found['name']}"

    def inlined(self, impl: types.FunctionType, operands: Sequence[str], params: dict[str, Any]) -> str:
        """A lambda's body with the operands in the place of its parameters."""
        node = _definition(impl)
        assert isinstance(node, ast.Lambda)
        values = _bound(impl, operands, {k: self.operand(v) for k, v in params.items()}) | self.needed(impl)
        body = _Substitute(values).visit(ast.parse(ast.unparse(node.body), mode="eval").body)
        return _tidy(ast.unparse(body)).replace("np.add.reduce(", "np.sum(")  # the same, as people write it

    def helper(self, impl: Any, name: str) -> str:
        """A function copied above, with what it uses; its name there."""
        impl = inspect.unwrap(impl)  # without its cache
        if not isinstance(impl, types.FunctionType):
            raise CapabilityError(f"to_python cannot write {name!r}: its implementation is not a Python function")
        if impl in self.copied:
            return self.copied[impl]
        name = _free_name(name if impl.__name__ == "<lambda>" or impl.__closure__ else impl.__name__.lstrip("_"))
        while name in self.helpers or name == self.name:
            name += "_"
        self.copied[impl] = name
        self.helpers[name] = ""  # it may call itself
        new = self.needed(impl)
        del self.helpers[name]  # what it uses stands above it
        self.helpers[name] = ast.unparse(_Substitute(new).visit(_as_function(impl, name, self.operand)))
        return name

    def needed(self, impl: types.FunctionType) -> dict[str, Any]:
        """The names of its module that a function uses, as they are called in the source."""
        found = {name: self.need(name, impl.__globals__[name]) for name in _globals_of(impl)}
        return {name: text for name, text in found.items() if text != name}

    def need(self, name: str, value: Any) -> str:
        """The expression for a global value of a module; what it takes is put above."""
        if isinstance(value, types.ModuleType):
            if value is not np:
                self.imports.add(f"import {value.__name__} as {name}" if value.__name__ != name else f"import {name}")
            return name
        if isinstance(value, Primitive):
            return self.library(value.impl) or self.helper(value.impl, value.name)
        if callable(value) and not isinstance(value, type):
            return self.library(value) or self.helper(value, name)
        return "object" if value is Any else self.operand(value)

    # Operands.

    def operand(self, x: Any) -> str:
        """A variable's name, or a constant as a literal that gives the very same value."""
        if type(x) is Var:
            return self.names[x.index]
        if isinstance(x, (np.ndarray, np.generic)):
            return self.array(np.asarray(x), isinstance(x, np.generic))
        return literal(x)

    def array(self, x: Any, scalar: bool = False) -> str:
        if scalar or not x.shape:
            text = f"{dtype_literal(x.dtype)}({number_literal(x.item())})"
            return (
                text
                if scalar or x.dtype.kind == "c"
                else f"np.array({number_literal(x.item())}, {dtype_literal(x.dtype)})"
            )
        text = array_literal(x)
        if x.size <= _SHORT:
            return text
        line = next((k for k, known in enumerate(self.constants) if known.partition(" = ")[2] == text), None)
        if line is None:
            line = len(self.constants)
            self.constants.append(f"C{line + 1} = {text}")
        if "base64" in text:
            self.imports.add("import base64")
        return f"C{line + 1}"


_KEYED = {"getitem": 1, "set_at": 2, "add_at": 2, "clear_at": 1, "last_writes": 0}


def _in_order(program: Program) -> Iterator[Equation | Guard]:
    """The steps, each guard as soon as its variable is known."""
    waiting: dict[int, list[Guard]] = {}
    for guard in program.guards:
        waiting.setdefault(guard.var.index, []).append(guard)
    for var in program.inputs:
        yield from _distinct(waiting.get(var.index, []))
    for eq in program.equations:
        yield eq
        yield from _distinct(waiting.get(eq.output.index, []))


def _distinct(guards: Sequence[Guard]) -> Sequence[Guard]:
    return guards[:1]  # they tell of one value


def _docstring(program: Program, inputs: Sequence[str]) -> str:
    words = [f"{x}: {_spec(var)}" for x, var in zip(inputs, program.inputs, strict=True)]
    results = [_spec(x) for x in program.outputs]
    return f'"""{", ".join(words)} -> {", ".join(results)}"""'


def _spec(x: Any) -> str:
    x = x if type(x) is Var else np.asarray(x)
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def _infix(eq: Equation, operands: Sequence[str]) -> str | None:
    """Python's operators, where they do what the primitive does, to the last bit."""
    name, kind = eq.primitive.name, getattr(eq.output.dtype, "kind", "")
    if name in _OPERATORS and kind == "f" and len(operands) == 2:
        symbol = _OPERATORS[name]
    elif name in _COMPARISONS and all(getattr(getattr(x, "dtype", None), "kind", "f") == "f" for x in eq.inputs):
        symbol = _COMPARISONS[name]
    elif name == "matmul" and len(operands) == 2:
        symbol = "@"
    else:
        return f"-{_atom(operands[0])}" if name == "negative" and kind == "f" else None
    return f"{_atom(operands[0])} {symbol} {operands[1]}"


def _atom(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


# Implementations.


def _definition(impl: types.FunctionType) -> ast.Lambda | ast.FunctionDef:
    """The syntax tree of a function, found in its module by place and parameters."""
    code, module = impl.__code__, inspect.getmodule(impl)
    if module is None or not hasattr(module, "__file__"):
        raise _sourceless(impl)
    wanted = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    line, column = next((p[0], p[2]) for p in code.co_positions() if p[2] and p[0])
    found = [
        node
        for node in ast.walk(_parsed(module))
        if isinstance(node, (ast.Lambda, ast.FunctionDef))
        and code.co_firstlineno in (node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ())))
        and tuple(a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)) == wanted
    ]
    if not found:
        raise _sourceless(impl)
    inside = [n for n in found if (n.lineno, n.col_offset) <= (line, column) <= (n.end_lineno, n.end_col_offset)]
    return (inside or found)[-1]


def _sourceless(impl: types.FunctionType) -> CapabilityError:
    return CapabilityError(
        f"to_python cannot find the source of {impl.__name__!r}, an implementation that is not in a module's file; "
        "define it in a module"
    )


_modules: dict[str, ast.Module] = {}


def _parsed(module: types.ModuleType) -> ast.Module:
    if module.__name__ not in _modules:
        _modules[module.__name__] = ast.parse(inspect.getsource(module))
    return _modules[module.__name__]


def _as_function(impl: types.FunctionType, name: str, write: Callable[[Any], str]) -> ast.stmt:
    """A definition without annotations; what a closure holds becomes a default."""
    node = _definition(impl)
    if isinstance(node, ast.Lambda):
        arguments = ast.unparse(node.args)
        found = ast.parse(f"def {name}({arguments}):\n    return {ast.unparse(node.body)}").body[0]
    else:
        found = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(found, ast.FunctionDef)
    found.name, found.returns, found.decorator_list = name, None, []
    arguments_ = found.args
    for argument in (*arguments_.posonlyargs, *arguments_.args, *arguments_.kwonlyargs):
        argument.annotation = None
    for rest in (arguments_.vararg, arguments_.kwarg):
        if rest is not None:
            rest.annotation = None
    for free, cell in zip(impl.__code__.co_freevars, impl.__closure__ or (), strict=True):
        arguments_.kwonlyargs.append(ast.arg(free))
        arguments_.kw_defaults.append(ast.parse(write(cell.cell_contents), mode="eval").body)
    return ast.fix_missing_locations(found)


def _globals_of(impl: types.FunctionType) -> list[str]:
    """Names of its module that a function's body uses."""
    node = _definition(impl)
    body = [node.body] if isinstance(node, ast.Lambda) else node.body
    used = {n.id: None for part in body for n in ast.walk(part) if isinstance(n, ast.Name)}
    own = {*impl.__code__.co_varnames, *impl.__code__.co_freevars}
    return [name for name in used if name in impl.__globals__ and name not in own]


def _bound(impl: types.FunctionType, operands: Sequence[str], params: dict[str, str]) -> dict[str, Any]:
    bound = inspect.signature(impl).bind(*operands, **params)
    bound.apply_defaults()
    return {
        name: value if isinstance(value, (str, tuple)) else literal(value) for name, value in bound.arguments.items()
    }


class _Substitute(ast.NodeTransformer):
    """Parameters replaced by expressions; ``*operands`` by a tuple of them."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id not in self.values:
            return node
        value = self.values[node.id]
        text = f"({''.join(f'{word}, ' for word in value)})" if isinstance(value, tuple) else value
        return ast.parse(text, mode="eval").body


def _tidy(text: str) -> str:
    """``np.sum`` for ``np.add.reduce``, ``axis=0`` for ``axis=(0,)``, no ``keepdims=False``: NumPy does the same."""
    tree = ast.parse(text, mode="eval").body
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("np."):
            _named_reduction(node)
            node.keywords = [k for k in node.keywords if (k.arg, ast.unparse(k.value)) != ("keepdims", "False")]
            for keyword in node.keywords:
                if keyword.arg == "axis" and isinstance(keyword.value, ast.Tuple) and len(keyword.value.elts) == 1:
                    keyword.value = keyword.value.elts[0]
    return ast.unparse(tree)


def _named_reduction(node: ast.Call) -> None:
    """``np.sum(x, axis=axis, keepdims=keepdims)`` for ``np.add.reduce(x, axis, None, None, keepdims)``."""
    name = {"np.add.reduce": "sum", "np.maximum.reduce": "max", "np.minimum.reduce": "min"}.get(ast.unparse(node.func))
    if name is None or [ast.unparse(x) for x in node.args[2:4]] != ["None", "None"] or len(node.args) != 5:
        return
    x, axis, _, _, keepdims = node.args
    node.func, node.args = ast.parse(f"np.{name}", mode="eval").body, [x]
    node.keywords = [ast.keyword("axis", axis), ast.keyword("keepdims", keepdims)]


def _free_name(name: str) -> str:
    """Not one of the source's own."""
    import builtins
    import keyword

    taken = hasattr(builtins, name) or keyword.iskeyword(name) or (name[:1] in "xvyC" and name[1:].isdigit())
    return f"{name}_" if taken or name in ("np", "x", "base64", "special") else name
