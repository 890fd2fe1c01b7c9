"""Primitive operations, and how a rule table makes them.

A primitive is one row: a name, its NumPy implementation, and what a derivative needs of it.

- `elementwise`: one partial derivative per argument, ``partial(y, *args)``, the factor of that argument's
  tangent in the tangent of the result y: an array, or a Python number. ``elementwise("tanh", np.tanh,
  lambda y, x: 1 - y * y)`` is a whole row.
- `defjvp`, for what is not elementwise: one function per argument, ``rule(t, y, *args, **params)``: what
  that argument's tangent t contributes to the tangent of y. Contributions are broadcast to y's shape, cast
  to y's dtype, and summed.
- A primitive that rules apply to tangents is linear: `deftranspose` gives it one function per argument,
  ``rule(ct, *args, **params)``, the cotangent of that argument, where the argument itself is known by shape
  and dtype alone; and the shape of its result. Axes that the primitive broadcast are summed back.
- `deflinear` is both, for a primitive that is linear in each argument taken alone.
- `defzero`: integer, boolean and piecewise constant results.
- `bundle`: several results at once, taken apart by `pick`.

Rules are written with primitives, so that they can be recorded and differentiated in their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adbridge.errors import NotDifferentiable

if TYPE_CHECKING:
    from adbridge.backends.reference.tracer import Trace

Rule = Callable[..., Any] | None


class Spec:
    """Shape and dtype of a value that is not computed."""

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape = shape
        self.dtype = dtype


class Var(Spec):
    """The result of one step of a program: its place in the list, shape and dtype (None of a bundle)."""

    __slots__ = ("index",)

    def __init__(self, index: int, shape: tuple[int, ...], dtype: Any) -> None:
        self.index = index
        self.shape = shape
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"v{self.index}"


class Traced:
    """Base of `tracer.Tracer`: here, so that primitives know tracers without importing them."""

    __slots__ = ("trace", "value")
    trace: Trace
    value: Any

    is_view = False

    def refresh(self) -> None:
        """Catch up with writes to the array that this one is a view of."""


class Batch:
    """Arrays stacked along a first axis that `shape` does not show; of a bundle, each of its arrays."""

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape[1:]  # type: ignore[no-any-return]

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    def __repr__(self) -> str:
        return f"Batch({self.array!r})"


def peek(x: Any) -> Any:
    """The NumPy value below all levels, to look at."""
    while isinstance(x, (Traced, Batch)):
        x = x.value if isinstance(x, Traced) else x.array
    return x


def _missing_rule(name: str) -> Callable[..., Any]:
    def jvp(*args: Any) -> Any:
        raise NotDifferentiable(
            f"the reference engine has no derivative rule for {name!r}; write the function with other "
            "operations, or choose another backend"
        )

    return jvp


class Primitive:
    """One operation. Calling it evaluates it, or hands it to the trace of its tracers."""

    __slots__ = ("impl", "jvp", "linear", "name", "partials", "rebase", "spec", "transpose", "variadic")

    def __init__(self, name: str, impl: Callable[..., Any]) -> None:
        self.name = name
        self.impl = impl
        self.jvp: Callable[[Sequence[Any], Any, Sequence[Any], dict[str, Any]], Any] = _missing_rule(name)
        self.partials: tuple[Rule, ...] | None = None
        """Of an elementwise primitive: ``partial(y, *args)`` for each argument."""
        self.linear: tuple[bool, ...] | None = None
        """Whether it is linear in each argument taken alone; None of one with other rules."""
        self.spec: Callable[..., Spec] | None = None
        self.transpose: Callable[[Any, Sequence[Any], dict[str, Any]], Sequence[Any]] | None = None
        self.variadic = False
        """Whether more arguments may follow those that have rules: index arrays."""
        self.rebase: Callable[..., Any] | None = None
        """Of one whose result is a view in NumPy: ``rebase(base, view, **params)`` is the base with the view's
        elements put back."""

    def __repr__(self) -> str:
        return self.name

    def __call__(self, *args: Any, **params: Any) -> Any:
        top: Trace | None = None
        for arg in args:
            if isinstance(arg, Traced):
                if arg.is_view:
                    arg.refresh()
                if top is None or arg.trace.level > top.level:
                    top = arg.trace
        if top is None:
            return self.impl(*args, **params) if params else self.impl(*args)
        return top.process(self, args, params)


NUMBERS = frozenset({int, float, complex})
"""Python's own, which take the dtype of the arrays that they meet."""

PRIMITIVES: dict[str, Primitive] = {}

CONSTANTS: dict[int, str] = {}
"""Numbers of the rules that float64 only approximates, by identity: other number types know them by name."""


def constant(name: str, value: float) -> float:
    """A number that rules may use, exact in other number types under its name."""
    CONSTANTS[id(value)] = name
    _KEPT.append(value)
    return value


_KEPT: list[float] = []  # so that no other number gets one's identity


def primitive(name: str, impl: Callable[..., Any]) -> Primitive:
    """A new row, without rules yet: differentiating it raises NotDifferentiable."""
    assert name not in PRIMITIVES, f"primitive {name!r} is defined twice"
    PRIMITIVES[name] = Primitive(name, impl)
    return PRIMITIVES[name]


def elementwise(name: str, impl: Callable[..., Any], *partials: Rule) -> Primitive:
    """A row of an elementwise primitive; None for a partial derivative that is zero."""
    return defpartials(primitive(name, impl), *partials)


def defpartials(prim: Primitive, *partials: Rule) -> Primitive:
    """The partial derivatives of an elementwise primitive, ``partial(y, *args, **params)``, one per argument."""

    def rule_for(partial: Callable[..., Any]) -> Rule:
        return lambda t, y, *args, **params: scale(t, partial(y, *args, **params), y)

    prim.partials = partials
    return defjvp(prim, *(None if partial is None else rule_for(partial) for partial in partials))


def defjvp(prim: Primitive, *rules: Rule) -> Primitive:
    """One rule per argument; None where the result does not depend on it differentiably."""

    def jvp(tangents: Sequence[Any], y: Any, args: Sequence[Any], params: dict[str, Any]) -> Any:
        check_count(prim, args, len(rules))
        total = None
        for t, rule in zip(tangents, rules, strict=False):
            if t is not None and rule is not None:
                part = fit(rule(t, y, *args, **params), y)
                total = part if total is None else PRIMITIVES["add"](total, part)
        return total

    prim.jvp = jvp
    return prim


def deftranspose(prim: Primitive, spec: Callable[..., Spec], *rules: Rule) -> Primitive:
    """One rule per argument; None where the primitive is not linear in it. `spec` gives the result's shape."""

    def transpose(ct: Any, args: Sequence[Any], params: dict[str, Any]) -> list[Any]:
        return [
            rule(ct, *args, **params) if rule is not None and type(arg) is Var else None
            for arg, rule in zip(args, rules, strict=False)
        ]

    prim.spec = spec
    prim.transpose = transpose
    return prim


def deflinear(prim: Primitive, spec: Callable[..., Spec], *transposes: Rule) -> Primitive:
    """`deftranspose`, and as JVP the primitive itself, argument by argument."""

    def rule_for(i: int) -> Rule:
        if transposes[i] is None:
            return None
        return lambda t, y, *args, **params: prim(*args[:i], t, *args[i + 1 :], **params)

    deftranspose(prim, spec, *transposes)
    prim.linear = tuple(rule is not None for rule in transposes)
    return defjvp(prim, *map(rule_for, range(len(transposes))))


def defzero(prim: Primitive) -> Primitive:
    """The result is integer, boolean or piecewise constant: its tangent is zero."""
    prim.jvp = lambda tangents, y, args, params: None
    return prim


def bundle(name: str, impl: Callable[..., Any], rule: Callable[..., Sequence[Any]]) -> Primitive:
    """A row with several results: `impl` returns a tuple, ``rule(t, y, x, **params)`` the tuple of its tangents
    (None for zero). It takes one array; `pick` takes a result out of y.
    """
    prim = primitive(name, impl)
    prim.jvp = lambda tangents, y, args, params: None if tangents[0] is None else rule(tangents[0], y, *args, **params)
    return prim


pick = primitive("pick", lambda results, index: results[index])


def _pick_jvp(tangents: Sequence[Any], y: Any, args: Sequence[Any], params: dict[str, Any]) -> Any:
    t = None if tangents[0] is None else tangents[0][params["index"]]
    return None if t is None else fit(t, y)


pick.jvp = _pick_jvp


def check_count(prim: Primitive, args: Sequence[Any], count: int) -> None:
    """Raises NotDifferentiable: the primitive has rules for another number of arguments."""
    if len(args) != count and not prim.variadic:
        raise NotDifferentiable(
            f"the reference engine's {prim.name} takes {count} array argument{'s' * (count != 1)}, "
            f"got {len(args)}; write it so, or choose another backend"
        )


def scale(t: Any, factor: Any, y: Any) -> Any:
    """A tangent times a partial derivative of y; nothing is computed for 1."""
    if type(factor) in NUMBERS:
        return t if factor == 1 else -t if factor == -1 else t * factor
    return t * in_precision_of(y, factor)


def in_precision_of(y: Any, factor: Any) -> Any:
    """A real factor in the floating dtype of y (masks come in float64)."""
    dtype = y.dtype
    if factor.dtype == dtype or dtype.kind != "f" or factor.dtype.kind != "f":
        return factor
    return PRIMITIVES["astype"](factor, dtype=dtype)


def fit(tangent: Any, y: Any) -> Any:
    """A tangent broadcast and cast to y's shape and dtype."""
    if tangent.shape != y.shape:
        tangent = PRIMITIVES["broadcast_to"](tangent, shape=y.shape)
    return _cast(tangent, y.dtype)


def unfit(cotangent: Any, like: Any) -> Any:
    """The transpose of `fit`: a cotangent summed and cast to `like`'s shape and dtype."""
    if cotangent.shape != like.shape:
        extra = len(cotangent.shape) - len(like.shape)
        stretched = [i + extra for i, size in enumerate(like.shape) if size != cotangent.shape[i + extra]]
        cotangent = PRIMITIVES["sum"](cotangent, axis=(*range(extra), *stretched), keepdims=True)
        cotangent = PRIMITIVES["reshape"](cotangent, shape=like.shape)
    return cotangent if cotangent.dtype == like.dtype else _cast(cotangent, like.dtype)


def _cast(x: Any, dtype: Any) -> Any:
    if x.dtype == dtype:
        return x
    if x.dtype.kind == "c" and dtype.kind != "c":
        x = PRIMITIVES["real"](x)
    return x if x.dtype == dtype else PRIMITIVES["astype"](x, dtype=dtype)


def elementwise_spec(*args: Any, **params: Any) -> Spec:
    """Spec of an elementwise result, by NumPy's broadcasting and promotion."""
    if len(args) == 2 and type(args[1]) not in NUMBERS and type(args[0]) not in NUMBERS:
        a, b = args
        if a.shape == b.shape and a.dtype == b.dtype:
            return Spec(a.shape, a.dtype)
    shapes = {arg.shape for arg in args if hasattr(arg, "shape")}
    # Of Python's numbers, which are weak, only the complex ones change a floating dtype.
    dtypes = {
        1j if type(arg) is complex else arg.dtype for arg in args if type(arg) is complex or hasattr(arg, "dtype")
    }
    shape = shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)
    return Spec(shape, dtypes.pop() if len(dtypes) == 1 else np.result_type(*dtypes))
