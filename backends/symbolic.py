"""The symbolic backend: SymPy. Functions become expressions, which are differentiated and evaluated.

The function is run once by the reference engine, at the point that is asked for; what that run computed is written
as one closed expression for each element of the outputs (`expressions.py`), in real symbols. Control flow and choices
are those of that run. Each expression is differentiated by SymPy, and evaluated by NumPy code that SymPy prints, or on
tracers by the primitives of the reference engine: so derivatives nest to any order, and prepared calls evaluate code
that was derived once.

Expressions repeat what a program would compute once, and derivatives repeat it more often. That is what this backend
is here to show (`SymbolicBackend.expression`); what would take SymPy more than about half a minute is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy
from sympy.printing.lambdarepr import LambdaPrinter

from adbridge.backends.elements import Block, Jacobian, coordinates
from adbridge.backends.expressions import Keeper, Translator, as_array, constant, joined, node_count, symbols_like
from adbridge.backends.reference import namespace, prepare
from adbridge.backends.reference.primitives import PRIMITIVES
from adbridge.backends.reference.tracer import Tracer
from adbridge.backends.reference.transforms import record_on
from adbridge.errors import CapabilityError, SignatureMismatch
from adbridge.protocol import Array, Arrays, Backend, Capabilities, Compiled, FlatFunction, LinearMap, read_only
from adbridge.readings import plain
from adbridge.registry import inside
from adbridge.trees import flatten, unflatten

_WORK = 50
"""Nodes times the symbols that they are differentiated by, and nodes of all derivatives: so many times `max_size`."""


class SymbolicBackend(Backend):
    """Adapter of SymPy. `max_size`: the most nodes that the expressions of one array may have."""

    name = "symbolic"

    def __init__(self, device: str = "cpu", max_size: int = 20_000) -> None:
        super().__init__(device)
        self.max_size = max_size

    @property
    def capabilities(self) -> Capabilities:
        dtypes = ("float32", "float64", "complex64", "complex128")
        return Capabilities(dtypes=dtypes, compile=True)

    @property
    def engine_version(self) -> str:
        return str(sympy.__version__)

    @property
    def namespace(self) -> Any:
        return namespace

    def owns(self, array: object) -> bool:
        return isinstance(array, Tracer)

    def from_numpy(self, array: npt.NDArray[Any]) -> Array:
        return read_only(array)

    def to_numpy(self, array: Array) -> Any:
        return array if isinstance(array, Tracer) else np.array(array)

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        outs, jacobian, aux = self._jacobian(fun, primals)
        return outs, jacobian.push(tangents), aux

    def vjp(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        outs, jacobian, aux = self._jacobian(fun, primals)
        return outs, jacobian.pull, aux

    def linearize(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        outs, jacobian, aux = self._jacobian(fun, primals)
        return outs, jacobian.push, aux

    def compile(self, fun: Callable[..., Arrays], arrays: Arrays) -> Compiled:
        return prepare.prepare(fun, arrays)

    def _jacobian(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, Jacobian, Arrays]:
        found = _written(fun, primals, [symbols_like(x, f"x{i}") for i, x in enumerate(primals)], self.max_size)
        places = found.places
        parts = [[(row, places[s], d) for row, s, d in _derivatives(out, places, found)] for out in found.expressions]
        values = iter(_evaluated([d for part in parts for _, _, d in part], primals, found))
        blocks = [
            Block([r for r, _, _ in part], [c for _, c, _ in part], [next(values) for _ in part]) for part in parts
        ]
        return found.outs, Jacobian(blocks, primals, found.outs), found.aux

    def expression(self, fun: Callable[..., Any], *args: Any) -> Expression:
        """What `fun` is, and its derivatives, as formulas that hold near these arguments.

        Args:
            args: floats and floating arrays become symbols named after `fun`'s parameters; all else stays as it is.

        Raises:
            CapabilityError: no SymPy form, or too large a one. SignatureMismatch: no floating argument.

        >>> found = SymbolicBackend().expression(lambda x, y: x * x * np.sin(y), 2.0, 1.0)
        >>> print(found)
        x**2*sin(y)
        d/dx: 2*x*sin(y)
        d/dy: x**2*cos(y)
        >>> print(found.size, found.derivative_size)
        3 6
        """
        leaves, treedef = flatten(args)
        leaves = [plain(leaf) for leaf in leaves]
        slots = [i for i, leaf in enumerate(leaves) if _is_input(leaf)]
        if not slots:
            raise SignatureMismatch("expression needs a floating argument, such as 2.0; whole numbers are constants")

        def flat(*arrays: Any) -> tuple[Arrays, Arrays]:
            filled = list(leaves)
            for i, array in zip(slots, arrays, strict=True):
                filled[i] = array
            with inside(self):
                outs, _ = flatten(fun(*unflatten(treedef, filled)))
            return tuple(out if hasattr(out, "dtype") else np.asarray(out) for out in outs), ()

        names = _names(fun, len(args), [path for i, path in enumerate(treedef.paths()) if i in slots])
        primals = tuple(read_only(np.asarray(leaves[i])) for i in slots)
        symbols = [symbols_like(x, name) for x, name in zip(primals, names, strict=True)]
        found = _written(flat, primals, symbols, self.max_size)
        places = found.places
        rows = [e for out in found.expressions for e in out.flat]
        matrix = sympy.MutableSparseMatrix(len(rows), len(places), {})
        start = 0
        for out in found.expressions:
            for row, s, d in _derivatives(out, places, found):
                matrix[start + row, places[s]] = d
            start += out.size
        return Expression(tuple(places), tuple(rows), sympy.ImmutableSparseMatrix(matrix))


@dataclass(frozen=True)
class Expression:
    """A function as formulas: `value` of each of its m outputs, and the m x n matrix `jacobian` by its `symbols`."""

    symbols: tuple[Any, ...]
    value: tuple[Any, ...]
    jacobian: Any

    @property
    def size(self) -> int:
        """Operations, as `sympy.count_ops` counts them."""
        return int(sum(map(sympy.count_ops, self.value)))

    @property
    def derivative_size(self) -> int:
        return int(sum(map(sympy.count_ops, self._derivatives)))

    @property
    def shared_size(self) -> int:
        """Operations where common subexpressions are computed once."""
        return _shared(self.value)

    @property
    def shared_derivative_size(self) -> int:
        return _shared(self._derivatives)

    @cached_property
    def _derivatives(self) -> tuple[Any, ...]:
        """That are not zero."""
        return tuple(self.jacobian.todok().values())

    def latex(self) -> str:
        """The value and its derivatives, a line each."""
        lines = [
            f"y_{{{i}}} = {sympy.latex(e)}" if len(self.value) > 1 else f"y = {sympy.latex(e)}"
            for i, e in enumerate(self.value)
        ]
        for i, s, d in self._entries():
            y = f"y_{{{i}}}" if len(self.value) > 1 else "y"
            lines.append(rf"\frac{{\partial {y}}}{{\partial {sympy.latex(s)}}} = {sympy.latex(d)}")
        return "\n".join(lines)

    def __str__(self) -> str:
        several = len(self.value) > 1
        lines = [f"{f'y{i} = ' if several else ''}{e}" for i, e in enumerate(self.value)]
        return "\n".join([*lines, *(f"d{f'y{i}' if several else ''}/d{s}: {d}" for i, s, d in self._entries())])

    def _entries(self) -> Iterator[tuple[int, Any, Any]]:
        for (i, j), d in sorted(self.jacobian.todok().items()):
            yield i, self.symbols[j], d


def _shared(expressions: Iterable[Any]) -> int:
    replaced, reduced = sympy.cse(list(expressions))
    return int(sum(sympy.count_ops(e) for _, e in replaced) + sum(map(sympy.count_ops, reduced)))


def _is_input(leaf: Any) -> bool:
    return isinstance(leaf, float) or (isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind == "f")


def _names(fun: Callable[..., Any], count: int, paths: Sequence[tuple[Any, ...]]) -> list[str]:
    """A symbol's name for the leaf at each path: the parameter's, then the keys."""
    try:
        known = [
            p.name
            for p in inspect.signature(fun).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):  # a builtin that does not tell
        known = []
    names = [known[i] if i < len(known) else f"x{i}" for i in range(count)]
    return ["_".join([names[first], *map(str, rest)]) for first, *rest in paths]


# From a function to expressions, their derivatives, and numbers.


@dataclass(frozen=True)
class _Written:
    """A function's results, and the arrays of expressions that its outputs are of the symbols of its inputs."""

    outs: Arrays
    aux: Arrays
    symbols: list[list[Any]]
    expressions: list[Any]
    translator: Translator

    @cached_property
    def places(self) -> dict[Any, int]:
        """The number of each symbol among all."""
        return {s: i for i, s in enumerate(s for parts in self.symbols for part in parts for s in part.flat)}


def _written(fun: FlatFunction, primals: Arrays, symbols: list[list[Any]], most: int) -> _Written:
    keeper = Keeper()
    results: list[Arrays] = [(), ()]

    def run(*xs: Any) -> Arrays:
        results[:] = fun(*xs)
        return (*results[0], *results[1])

    program = record_on(keeper, run, primals)
    outs, aux = (tuple(map(keeper.value_of, part)) for part in results)
    program.outputs = program.outputs[: len(outs)]
    translator = Translator(keeper, most)
    try:
        expressions = translator.run(program, list(map(joined, symbols)))
    except RecursionError as exc:
        raise _too_deep() from exc
    return _Written(outs, aux, symbols, [as_array(e) for e in map(constant, expressions)], translator)


def _too_deep() -> CapabilityError:
    return CapabilityError(
        "backend 'symbolic': the expressions are nested too deep for SymPy, as those of long loops are; choose another "
        "backend"
    )


def _derivatives(out: Any, places: dict[Any, int], found: _Written) -> Iterator[tuple[int, Any, Any]]:
    """``(row, symbol, derivative)`` of each derivative that is not zero.

    Raises CapabilityError: more work than SymPy does in about half a minute.
    """
    translator, size = found.translator, 0
    work = [sorted(e.free_symbols & places.keys(), key=places.__getitem__) for e in out.flat]
    cost = sum(node_count(e, translator.sizes) * len(by) for e, by in zip(out.flat, work, strict=True))
    _limit("derivatives would visit", cost, translator.most)
    for row, (e, by) in enumerate(zip(out.flat, work, strict=True)):
        for s in by:
            d = _differentiated(e, s)
            size += node_count(d, translator.sizes)
            _limit("derivatives have grown to", size, translator.most)
            if d != 0:
                yield row, s, d


def _differentiated(e: Any, s: Any) -> Any:
    try:
        d = e.diff(s)
    except RecursionError as exc:
        raise _too_deep() from exc
    return d.replace(sympy.DiracDelta, lambda *x: sympy.Integer(0)) if d.has(sympy.DiracDelta) else d


def _limit(what: str, count: int, most: int) -> None:
    if count > _WORK * most:
        raise CapabilityError(
            f"backend 'symbolic': the {what} {count} nodes, more than {_WORK} times max_size={most}; choose another "
            "backend, or get_backend('symbolic', max_size=...) and patience"
        )


_PRINTED: dict[str, Any] = {
    **{name: PRIMITIVES[name] for name in ("sqrt", "exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "sign")},
    **{name: PRIMITIVES[name] for name in ("asin", "acos", "atan", "atan2", "asinh", "acosh", "atanh", "erf", "erfc")},
    **{name: PRIMITIVES[name] for name in ("erfinv", "erfcinv", "gamma")},
    "Abs": PRIMITIVES["abs"],
    "re": PRIMITIVES["real"],
    "im": PRIMITIVES["imag"],
    "conjugate": PRIMITIVES["conj"],
    "loggamma": PRIMITIVES["gammaln"],
    "polygamma": lambda n, x: PRIMITIVES["polygamma"](x, n=int(n)),
    "besselj": lambda n, x: PRIMITIVES["bessel_j"](x, order=int(n)),
    "besseli": lambda n, x: PRIMITIVES["bessel_i"](x, order=int(n)),
    "sinc": lambda u: PRIMITIVES["sinc"](u / np.pi),
    "I": 1j,
    "pi": np.pi,
    "E": np.e,
}
"""What SymPy's functions are called, and are, in the code that it prints."""


class _Printer(LambdaPrinter):  # type: ignore[misc]  # SymPy has no annotations
    """All functions by their names: SymPy's own takes some apart, for Python's floats."""

    def _print_Function(self, e: Any) -> str:
        return f"{type(e).__name__}({', '.join(map(self._print, e.args))})"

    _print_sign = _print_sinc = _print_Function


_PRINTING = {"fully_qualified_modules": False, "inline": True, "allow_unknown_functions": True, "user_functions": {}}


def _evaluated(derivatives: list[Any], primals: Arrays, found: _Written) -> list[Any]:
    """The numbers, or tracers, that the derivatives are at the point."""
    if not derivatives:
        return []
    bound = [*zip(found.symbols, primals, strict=True), *((s, x) for x, s in found.translator.outer.values())]
    names = [s for symbols, _ in bound for part in symbols for s in part.flat]
    point = [part[i] for _, x in bound for part in coordinates(x) for i in range(part.size)]
    used = set().union(*(d.free_symbols for d in derivatives))
    chosen = [(s, x) for s, x in zip(names, point, strict=True) if s in used]
    try:
        code = sympy.lambdify(
            [s for s, _ in chosen], derivatives, modules=[_PRINTED], printer=_Printer(_PRINTING), cse=True
        )
    except RecursionError as exc:
        raise _too_deep() from exc
    with np.errstate(all="ignore"):  # formulas may divide by zero where their limits do not
        return list(code(*(x for _, x in chosen)))
