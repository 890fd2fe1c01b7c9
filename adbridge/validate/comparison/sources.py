"""Python text that makes a function and its arguments anew: what a reader pastes to see for himself."""

from __future__ import annotations

import ast
import dis
import importlib
import inspect
import sysconfig
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

_FUTURE = "from __future__ import annotations"
_LARGEST = 1000
"""Arrays of more entries are not written out."""


class Script:
    """Definitions in the order in which they are needed, and the imports before them.

    `names` maps each name that is defined to its object; `missing` are those that could not be written down.
    """

    def __init__(self) -> None:
        self.imports: list[str] = []
        self.body: list[str] = []
        self.names: dict[str, Any] = {}
        self.missing: list[str] = []

    def define(self, name: str, value: Any) -> None:
        """Make `name` mean `value`."""
        if name in self.names:
            return
        self.names[name] = value
        if isinstance(value, ModuleType):
            self.imports.append(_import(value.__name__, name))
        elif (text := literal(value)) is not None:
            self.body.append(f"{name} = {text}")
        elif not any(way(name, value) for way in self._ways(value)):
            self.missing.append(name)
            self.body.append(f"{name} = ...  # not shown: {_brief(value)}")

    def _ways(self, value: Any) -> tuple[Callable[[str, Any], bool], ...]:
        """A class is imported if it can be: an adapter's source is long."""
        if isinstance(value, type):
            return self._from_import, self._own
        return self._own, self._from_import, self._rule

    def _own(self, name: str, value: Any) -> bool:
        """The source of a function or class, unless a library has it: that can be imported."""
        if not isinstance(value, (FunctionType, type)) or _is_library(value):
            return False
        node_text = _source(value)
        if node_text is None:
            return False
        text, own_name = node_text
        self._needs(text, value)
        if _is_annotated(text):
            self.imports.append(_FUTURE)
        self.body.append(f"{name} = {text}" if own_name is None else text)
        if own_name not in (None, name):
            self.body.append(f"{name} = {own_name}")
        return True

    def _needs(self, text: str, value: Any) -> None:
        """Define the names that the text reads from its surroundings."""
        for name, needed in surroundings(value, text).items():
            if needed is not value:
                self.define(name, needed)

    def _from_import(self, name: str, value: Any) -> bool:
        module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        qualname = qualname or getattr(value, "__name__", None)
        if not module or not qualname or module == "__main__" or "." in qualname:
            return False
        try:
            found = getattr(importlib.import_module(module), qualname, None)
        except ImportError:
            return False
        if found is not value:
            return False
        self.imports.append(f"from {module} import {qualname}" + (f" as {name}" if name != qualname else ""))
        return True

    def _rule(self, name: str, value: Any) -> bool:
        """A function with rules of its own: adbridge's, or JAX's `custom_jvp` and `custom_vjp`."""
        for read in _RULES:
            parts = read(value)
            if parts is not None:
                maker, primal, definitions = parts
                self.define(maker.split(".")[0], importlib.import_module(_LIBRARY[maker.split(".")[0]]))
                self.define(f"{name}_primal", primal)
                self.body.append(f"{name} = {maker}({name}_primal)")
                for method, rules in definitions.items():
                    words = [f"{name}_{word}" for word in rules]
                    for word, rule in zip(words, rules.values(), strict=True):
                        self.define(word, rule)
                    self.body.append(f"{name}.{method}({', '.join(words)})")
                return True
        return False

    def text(self) -> str:
        """Imports, then definitions; functions set apart by empty lines."""
        imports = sorted(dict.fromkeys(self.imports), key=lambda line: (line != _FUTURE, line.startswith("from"), line))
        blocks = [f"\n{part}\n" if part.startswith(("def ", "class ")) else part for part in self.body]
        body = "\n".join(blocks).replace("\n\n\n", "\n\n").strip("\n")
        return "\n".join(imports) + ("\n\n" + body if body else "")


_LIBRARY = {"ad": "adbridge", "jax": "jax"}


def _adbridge_rule(value: Any) -> Any:
    if type(value).__module__ != "adbridge.rules":
        return None
    rules = {"defjvp": {"jvp": value.jvp_rule}, "defvjp": {"fwd": value.fwd, "bwd": value.bwd}}
    return "ad.custom_rule", value.primal, {m: r for m, r in rules.items() if None not in r.values()}


def _jax_rule(value: Any) -> Any:
    kind = type(value).__name__
    if kind not in ("custom_jvp", "custom_vjp") or not type(value).__module__.startswith("jax"):
        return None
    if getattr(value, "nondiff_argnums", ()):
        return None
    rules = {"jvp": getattr(value, "jvp", None)} if kind == "custom_jvp" else {"fwd": value.fwd, "bwd": value.bwd}
    return f"jax.{kind}", value.fun, {"defjvp" if kind == "custom_jvp" else "defvjp": rules}


_RULES: tuple[Callable[[Any], Any], ...] = (_adbridge_rule, _jax_rule)


def _import(module: str, name: str) -> str:
    return f"import {module}" if module == name else f"import {module} as {name}"


def _brief(value: Any) -> str:
    text = repr(value).splitlines()[0]
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_library(value: Any) -> bool:
    """Installed, or of Python's own library, or adbridge's."""
    module = str(getattr(value, "__module__", "") or "")
    if module.split(".")[0] == "adbridge":
        return True
    try:
        file = Path(inspect.getfile(value)).resolve()
    except (TypeError, OSError):
        return True
    paths = {Path(p).resolve() for key, p in sysconfig.get_paths().items() if key in ("stdlib", "purelib", "platlib")}
    return any(file.is_relative_to(path) for path in paths)


def _closure(function: FunctionType) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def surroundings(value: Any, text: str) -> dict[str, Any]:
    """What a function or class, whose source is `text`, reads by name from its module and the scopes around it."""
    if isinstance(value, FunctionType):
        scope = {**value.__globals__, **_closure(value)}
        defaults = [d for node in ast.walk(ast.parse(text)) if isinstance(node, ast.arguments) for d in _defaults(node)]
        names = [*_names_read(value.__code__), *(name for d in defaults for name in _names_in(d))]
    else:
        scope = dict(getattr(inspect.getmodule(value), "__dict__", {}))
        names = list(_names_in(ast.parse(text)))
    return {name: scope[name] for name in names if name in scope}


def _names_in(node: ast.AST) -> Iterator[str]:
    """All names in a syntax tree, but for those in annotations, which the script does not evaluate."""
    if isinstance(node, ast.Name):
        yield node.id
    for name, field in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for child in field if isinstance(field, list) else [field]:
                if isinstance(child, ast.AST):
                    yield from _names_in(child)


def _defaults(arguments: ast.arguments) -> list[ast.expr]:
    return [*arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)]


def _names_read(code: CodeType) -> list[str]:
    """The global names that it, or a function inside of it, reads; and those of its closure."""
    names = [*code.co_freevars]
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.append(instruction.argval)
        elif isinstance(instruction.argval, CodeType):
            names += [name for name in _names_read(instruction.argval) if name not in instruction.argval.co_freevars]
    return names


def _is_annotated(text: str) -> bool:
    nodes = list(ast.walk(ast.parse(text)))
    return any(getattr(node, name, None) is not None for node in nodes for name in ("annotation", "returns"))


# Sources.


def _source(value: Any) -> tuple[str, str | None] | None:
    """``(text, the name that it defines)``: of a lambda the expression alone, and None; None if it is not known."""
    try:
        lines, _ = inspect.findsource(value)
        tree = ast.parse("".join(lines))
    except (OSError, TypeError, SyntaxError):
        return None
    if isinstance(value, type):
        return textwrap.dedent(inspect.getsource(value)).rstrip(), value.__name__
    return _lambda(value, lines, tree) if value.__name__ == "<lambda>" else _def(value, lines, tree)


def _def(function: FunctionType, lines: list[str], tree: ast.AST) -> tuple[str, str] | None:
    first = function.__code__.co_firstlineno
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            starts = [node.lineno, *(d.lineno for d in node.decorator_list)]
            if min(starts) == first:  # without the decorators: this is what they were given
                return textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno])).rstrip(), node.name
    return None


def _lambda(function: FunctionType, lines: list[str], tree: ast.AST) -> tuple[str, None] | None:
    first = function.__code__.co_firstlineno
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == first]
    inside = [node for node in found if _spans(node.body, function)]
    texts = {ast.get_source_segment("".join(lines), node) for node in inside}
    if len(texts) != 1 or (text := texts.pop()) is None:
        return None
    return f"({text})" if "\n" in text else text, None


def _spans(body: ast.expr, function: FunctionType) -> bool:
    """Whether the function's code is that of this body: it begins and ends there."""
    spots = [(line, column) for line, _, column, _ in function.__code__.co_positions() if line and column]
    ends = [(line, column) for _, line, _, column in function.__code__.co_positions() if line and column]
    if not spots:
        return True
    begin, end = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
    return begin == min(spots) and max(ends) == end


# Values.


def literal(value: Any, numpy: str = "np") -> str | None:
    """Python text of numbers, strings, NumPy arrays and containers of them, exact to the last bit; else None."""
    if value is None or isinstance(value, (bool, str, bytes)) or type(value) is int:
        return repr(value)
    if type(value) in (float, complex):
        return _number(value, numpy)
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return f"{numpy}.{value.dtype.name}({_number(value, numpy)})"
    if type(value) is np.ndarray and value.dtype.kind in "biufc":
        return _array(value, numpy)
    if type(value) in (tuple, list):
        parts = [literal(part, numpy) for part in value]
        return None if None in parts else bracketed(parts, type(value) is tuple)
    if type(value) is dict:
        pairs = [(literal(k, numpy), literal(v, numpy)) for k, v in value.items()]
        return None if any(None in p for p in pairs) else "{" + ", ".join(f"{k}: {v}" for k, v in pairs) + "}"
    return None


def bracketed(parts: Iterable[str | None], is_tuple: bool) -> str:
    """A tuple's or list's text from that of its parts."""
    inner = [str(part) for part in parts]
    if not is_tuple:
        return f"[{', '.join(inner)}]"
    return f"({inner[0]},)" if len(inner) == 1 else f"({', '.join(inner)})"


def _number(value: Any, numpy: str) -> str:
    if isinstance(value, (complex, np.complexfloating)):
        return f"complex({_number(value.real, numpy)}, {_number(value.imag, numpy)})"
    if isinstance(value, (bool, np.bool_, int, np.integer)) or np.isfinite(value):
        return str(value)  # the shortest text that reads back as the same number of this dtype
    return f"{numpy}.nan" if np.isnan(value) else f"{numpy}.inf" if value > 0 else f"-{numpy}.inf"


def _array(array: Any, numpy: str) -> str | None:
    kind = "" if array.dtype == float else ", int" if array.dtype == int else f", {numpy}.{array.dtype.name}"
    shape = str(array.shape[0]) if array.ndim == 1 else str(array.shape)
    if not array.any() and not np.signbit(array.real).any() and array.size != 1:
        return f"{numpy}.zeros({shape}{kind})"
    if array.size > 1 and array.tobytes() == array.flat[0].tobytes() * array.size:
        return f"{numpy}.full({shape}, {_number(array.flat[0], numpy)}{kind})"
    return None if array.size > _LARGEST else f"{numpy}.array({_nested(array, numpy)}{kind})"


def _nested(array: Any, numpy: str) -> str:
    if array.ndim == 0:
        return _number(array[()], numpy)
    return f"[{', '.join(_nested(part, numpy) for part in array)}]"
