"""The smallest script that shows a fault: the case shrunk as far as the fault stays, then written down."""

from __future__ import annotations

import importlib
import inspect
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FunctionType
from typing import Any

import numpy as np

from adbridge.errors import AdbridgeError
from adbridge.protocol import Backend
from adbridge.registry import get_backend, table
from adbridge.trees import PyTree, flatten, leaf_names, unflatten
from adbridge.validate.comparison.agreement import Row
from adbridge.validate.comparison.comparing import Court, court_of
from adbridge.validate.comparison.sources import Script, bracketed, literal, surroundings
from adbridge.validate.comparison.subject import Failure, Subject, attempt, cotangents
from adbridge.validate.oracle.arguments import read_arguments

SECONDS = 3.0
"""For looking for smaller arguments."""


def smallest(court: Court, backend: Backend, row: Row) -> str:
    """A script that shows the row's fault, at arguments as small as were found."""
    subject = court.subject.in_numpy()
    return _script(*_shrunk(replace(court, subject=subject), backend, row), backend)


# Shrinking.


def _shrunk(court: Court, backend: Backend, row: Row) -> tuple[Court, Row]:
    """The case with its arrays cut along each of their lengths to the shortest piece around the worst entry at which
    the same verdict is found; every array that has the length is cut alike."""
    end = time.monotonic() + SECONDS
    for length in sorted({n for leaf in court.subject.leaves for n in _shape(leaf) if n > 1}, reverse=True):
        for cut in _cuts(length, _place(court.subject, row, length)):
            start = time.monotonic()
            leaves = tuple(_cut(leaf, length, cut) for leaf in court.subject.leaves)
            found = _again(court.subject.at(leaves), backend, row)
            if found is not None:
                court, row = found
                break
            if time.monotonic() + 2 * (time.monotonic() - start) > end:
                return court, row
    return court, row


def _shape(leaf: Any) -> tuple[int, ...]:
    return leaf.shape if isinstance(leaf, np.ndarray) else ()


def _cuts(length: int, place: int) -> Iterator[slice]:
    """Pieces around `place`, of 1, 2, 4, ... entries."""
    size = 1
    while size < length:
        start = min(max(place - size // 2, 0), length - size)
        yield slice(start, start + size)
        size *= 2


def _cut(leaf: Any, length: int, cut: slice) -> Any:
    return leaf[tuple(cut if n == length else slice(None) for n in leaf.shape)] if length in _shape(leaf) else leaf


def _place(subject: Subject, row: Row, length: int) -> int:
    """Where along an axis of this length the worst entry is."""
    which, index = _entry(_names(subject, row), row.entry)
    shape = _shape(subject.leaves[subject.active[which]]) if row.operator in _OF_ARGUMENTS and which >= 0 else ()
    return next((i for i, n in zip(index, shape, strict=False) if n == length), 0)


def _again(subject: Subject, backend: Backend, row: Row) -> tuple[Court, Row] | None:
    """The same fault at another point; None if it is not there."""
    value = attempt("value", subject, backend, None)
    result = value if row.operator == "value" else attempt(row.operator, subject, backend, value)
    if isinstance(result, Failure) or isinstance(value, Failure):
        same = isinstance(result, Failure) and result.note.split(":")[0] == row.note.split(":")[0]
        return (Court(subject, None, "", value), replace(row, note=result.note)) if same else None
    try:
        court = court_of(subject, value, backend)
        found = court.row(row.backend, row.operator, result)
    except AdbridgeError:
        return None
    return (court, found) if found.verdict == row.verdict else None


# Entries.

_OF_ARGUMENTS = ("grad", "vjp", "hvp")


def _names(subject: Subject, row: Row) -> list[str]:
    """What the leaves of a result are called in `Row.entry`."""
    if row.operator in _OF_ARGUMENTS:
        return read_arguments(subject.fun, subject.args).names
    return leaf_names("out", flatten(row.result)[1])


def _entry(names: list[str], entry: str) -> tuple[int, tuple[int, ...]]:
    """``(leaf, index)`` of an entry's name; ``(-1, ())`` if it is no leaf's."""
    for which in sorted(range(len(names)), key=lambda i: -len(names[i])):
        rest = entry.removeprefix(names[which])
        if entry.startswith(names[which]) and re.fullmatch(r"(\[[\d, ]+\])?", rest):
            return which, tuple(map(int, re.findall(r"\d+", rest)))
    return -1, ()


# Writing.


def _script(court: Court, row: Row, backend: Backend) -> str:
    script, subject = Script(), court.subject
    script.define("np", np)
    script.define("ad", importlib.import_module("adbridge"))
    name = _function_name(subject.fun)
    script.define(name, subject.fun)
    on = _backend(script, backend)
    variables = _define_arguments(script, subject)
    call = _call(script, court, row, name, variables, on)
    return f"{script.text()}\n{_shown(subject, row, call)}\n"


def _function_name(fun: Callable[..., Any]) -> str:
    """Its own; of a lambda one that it does not read itself."""
    name = getattr(fun, "__name__", "f")
    if name.isidentifier() and name not in ("np", "ad", "got"):
        return name
    read = surroundings(fun, "") if isinstance(fun, FunctionType) else {}
    return next(word for word in ("f", "fun", "function", "checked") if word not in read)


def _define_arguments(script: Script, subject: Subject) -> list[str]:
    """A variable per active leaf, called as the function calls it."""
    variables = []
    for slot, name in zip(subject.active, read_arguments(subject.fun, subject.args).names, strict=True):
        variable = re.sub(r"\W+", "_", name).strip("_") or "x"
        while variable in script.names:
            variable += "_"
        script.define(variable, subject.leaves[slot])
        variables.append(variable)
    return variables


def _backend(script: Script, backend: Backend) -> str:
    """How to ask for the backend: by name and options, or by its class."""
    parameters = inspect.signature(type(backend)).parameters
    given = {name: getattr(backend, name, None) for name in parameters}
    changed = {k: v for k, v in given.items() if isinstance(v, (str, int, float)) and v != parameters[k].default}
    options = "".join(f", {name}={literal(value)}" for name, value in changed.items())
    if backend.name in table() and type(get_backend(backend.name)) is type(backend):
        return f'ad.get_backend("{backend.name}"{options})' if options else f'"{backend.name}"'
    script.define(type(backend).__name__, type(backend))
    return f"{type(backend).__name__}({options.removeprefix(', ')})"


def _call(script: Script, court: Court, row: Row, name: str, variables: list[str], backend: str) -> str:
    """The operator's call, and before it the definitions that it needs."""
    if not _plain(court.subject):
        name = _of_leaves(script, court.subject, name, variables)
    several, points, on = len(variables) > 1, ", ".join(variables), f"backend={backend}"
    only = "" if several else "[0]"
    if row.operator in ("jvp", "hvp"):
        dots = [f"{variable}_dot" for variable in variables]
        for dot, tangent in zip(dots, court.subject.flat_tangents(), strict=True):
            script.body.append(f"{dot} = {literal(tangent)}")
        at = f"{bracketed(variables, True)}, {bracketed(dots, True)}"
        return f"ad.{row.operator}({name}, {at}, {on}){'[1]' if row.operator == 'jvp' else only}"
    argnums = f", {tuple(range(len(variables)))}" if several else ""
    if row.operator == "grad":
        return f"ad.grad({name}{argnums}, {on})({points})"
    if row.operator == "value":
        return f'ad.operators.Operator("value", {name}{argnums}, {on})({points})'
    script.body.append(f"cotangent = {literal(cotangents(court.output))}")
    return f"ad.vjp({name}, {points}, {on})[1](cotangent){only}"


def _of_leaves(script: Script, subject: Subject, name: str, variables: list[str]) -> str:
    """Define the function of the active leaves alone; its name."""
    active = dict(zip(subject.active, variables, strict=True))
    leaves = [_Code(active.get(i) or literal(leaf) or "...") for i, leaf in enumerate(subject.leaves)]
    args = ", ".join(_expression(arg) for arg in unflatten(subject.treedef, leaves))
    script.body.append(f"{name}_at = lambda {', '.join(variables)}: {name}({args})")
    return f"{name}_at"


def _plain(subject: Subject) -> bool:
    """Every argument is one active leaf."""
    return subject.treedef.num_nodes == len(subject.args) + 1 and len(subject.active) == len(subject.args)


class _Code(str):
    """Text of an expression."""


def _expression(tree: PyTree) -> str:
    if isinstance(tree, _Code):
        return str(tree)
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key!r}: {_expression(part)}" for key, part in tree.items()) + "}"
    if isinstance(tree, (tuple, list)):
        return bracketed([_expression(part) for part in tree], isinstance(tree, tuple))
    return repr(tree)


def _shown(subject: Subject, row: Row, call: str) -> str:
    """The lines that call the operator and print what is wrong."""
    if row.verdict == "error":
        return f"{call}  # {row.note}"
    which, index = _entry(_names(subject, row), row.entry)
    if which < 0 or row.got is None or row.note.startswith("no subgradient"):
        return f"got = {call}\nprint(got)  # {row.note or f'should be {row.expected}'}"
    place = _places(subject, row)[which] + (f"[{', '.join(map(str, index))}]" if index else "")
    expected = row.expected.item() if isinstance(row.expected, np.generic) else row.expected
    return f'got = {call}\nprint("{row.entry}:", {place}, "should be:", {literal(expected)})'


def _places(subject: Subject, row: Row) -> list[str]:
    """Where each leaf of the result is in what the script calls `got`."""
    if row.operator not in _OF_ARGUMENTS:
        return leaf_names("got", flatten(row.result)[1])
    return ["got"] if len(subject.active) == 1 else [f"got[{k}]" for k in range(len(subject.active))]
