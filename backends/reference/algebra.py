"""The algebra of `simplify.py`: what becomes of each primitive's equations, a rule each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from adbridge.backends.reference.primitives import CONSTANTS, PRIMITIVES, Spec, Var
from adbridge.backends.reference.program import Equation

if TYPE_CHECKING:
    from adbridge.backends.reference.simplify import Simplifier


class Scaled(NamedTuple):
    """``factor * operand``: a variable or constant, and the number that it is still to be multiplied with."""

    factor: float
    operand: Any


REGULAR = object()
FINITE = object()
"""As guards' values: finite and not zero; finite."""

ZERO = np.zeros(())
"""Stands for a constant array of zeros of the output's shape, in add_at."""


def splat(x: Any, like: Any) -> float | None:
    """The one number that a constant consists of, if it may stand for it in a step with `like`'s dtype."""
    if like.dtype is None or like.dtype.kind not in "fc":
        return None  # whole numbers are to stay whole
    if type(x) is float and id(x) not in CONSTANTS:
        return x
    if type(x) is int:
        return float(x)
    if not isinstance(x, (np.ndarray, np.generic)) or x.dtype != like.dtype or x.dtype.kind != "f" or x.size == 0:
        return None
    first = x.flat[0]
    same = np.all(x == first) and (first != 0 or np.all(np.signbit(x) == np.signbit(first)))
    return float(first) if same else None


def movable(number: float | None, dtype: Any) -> bool:
    """Whether a number may be moved: not so large or small that what it is moved past could leave the dtype's range."""
    bound = 1e4 if dtype.char in "fF" else 1e20
    return number is not None and 1 / bound < abs(number) < bound


# Rules: what becomes of an equation; None for the equation as it is. `eq.output` tells shape and dtype.

Rule = Callable[["Simplifier", Equation, list[Scaled]], Scaled | None]


def _linear(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    """A factor passes through a step that is linear in each operand taken alone."""
    factor = 1.0
    inputs = []
    assert eq.primitive.linear is not None
    for i, arg in enumerate(args):
        if i < len(eq.primitive.linear) and eq.primitive.linear[i]:
            factor *= arg.factor
            inputs.append(arg.operand)
        else:
            inputs.append(s.whole(arg))
    if not any(type(x) is Var for x in inputs) or eq.output.dtype is None or eq.output.dtype.kind not in "fc":
        return None
    return Scaled(factor, s.emit(eq.primitive, tuple(inputs), eq.params, eq.output))


def _multiply(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    (fa, a), (fb, b) = args
    if s.assume and (cancelled := _cancelled(s, eq, a, b)) is not None:
        return Scaled(fa * fb, cancelled)
    for (f, x), (g, number) in ((args[0], args[1]), (args[1], args[0])):
        value = splat(number, eq.output)
        if value is not None and type(x) is Var and x.shape == eq.output.shape and x.dtype == eq.output.dtype:
            return Scaled(f * g * value, x) if movable(value, x.dtype) else None
    if not (type(a) is Var and type(b) is Var):
        return None
    return Scaled(fa * fb, s.emit(eq.primitive, (a, b), {}, eq.output))


def _cancelled(s: Simplifier, eq: Equation, a: Any, b: Any) -> Any:
    """``(1 / b) b = 1`` if b is finite and not zero; ``0 x = 0`` if x is the share of ties at a finite extremum."""
    for x, y in ((a, b), (b, a)):
        if type(x) is not Var:
            continue
        if s.is_by(x, "divide") and type(y) is Var and _is_reciprocal_of(s.source[x.index], y):
            s.assumptions.append((s.thin(y), REGULAR))
            return np.broadcast_to(np.ones((), eq.output.dtype), eq.output.shape)
        if s.is_by(x, "share_of_ties") and type(y) is not Var and splat(y, eq.output) == 0:
            s.assumptions.append((s.thin(s.source[x.index].inputs[1]), FINITE))
            return np.broadcast_to(np.zeros((), eq.output.dtype), eq.output.shape)
    return None


def _is_reciprocal_of(eq: Equation, y: Var) -> bool:
    above, below = eq.inputs
    return type(above) is float and above == 1 and below is y


def _divide(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    (fa, a), (fb, b) = args
    over = splat(b, eq.output)
    if over is not None and type(a) is Var and a.shape == eq.output.shape and a.dtype == eq.output.dtype:
        if not movable(over, a.dtype):
            return None
        if fa == fb == 1 and np.frexp(over)[0] not in (0.5, -0.5):
            s.quotients[a.index, 1 / over] = over
        return Scaled(fa / (fb * over), a)
    above = splat(a, eq.output)
    if above is not None and movable(above, eq.output.dtype) and type(b) is Var and b.shape == eq.output.shape:
        return Scaled(fa * above / fb, s.emit(eq.primitive, (1.0, b), {}, eq.output))
    if type(a) is Var and type(b) is Var:
        return Scaled(fa / fb, s.emit(eq.primitive, (a, b), {}, eq.output))
    return None


def _negative(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    return Scaled(-args[0].factor, args[0].operand) if eq.output.dtype.kind in "fc" else None


def _add(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    return _sum_of(s, eq, *args)


def _subtract(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    b = args[1]
    if type(b.operand) is not Var:
        (fa, a), number = args[0], splat(b.operand, eq.output)
        return (
            None if fa != -1 or number is None else Scaled(-1.0, s.emit(PRIMITIVES["add"], (a, number), {}, eq.output))
        )
    if eq.output.dtype.kind not in "fc":
        return None
    return _sum_of(s, eq, args[0], Scaled(-b.factor, b.operand))


def _sum_of(s: Simplifier, eq: Equation, x: Scaled, y: Scaled) -> Scaled | None:
    """``f a + g b``, with at most one multiplication left within the sum."""
    if eq.output.dtype.kind not in "fc":
        return None
    (f, a), (g, b) = (x, y) if type(x.operand) is Var else (y, x)
    if type(a) is not Var:
        return None
    if type(b) is not Var:  # a constant
        number = splat(b, eq.output)
        if number == 0 and a.shape == eq.output.shape and a.dtype == eq.output.dtype:
            return Scaled(f, a)
        if f == -1 and number is not None:
            return Scaled(1.0, s.emit(PRIMITIVES["subtract"], (number * g, a), {}, eq.output))
        return Scaled(
            1.0, s.emit(PRIMITIVES["add"], (s.whole(x if a is x.operand else y), s.whole(Scaled(g, b))), {}, eq.output)
        )
    if a is b:
        return Scaled(f + g, a) if f * g > 0 and movable(f + g, a.dtype) else None  # inf - 2 inf is NaN
    if abs(f) != abs(g):
        larger, smaller = int(np.prod(a.shape)), int(np.prod(b.shape))
        if larger < smaller or (larger == smaller and abs(g) == 1):
            (f, a), (g, b) = (g, b), (f, a)
        b, g = s.whole(Scaled(abs(g / f), b)), f if (g < 0) == (f < 0) else -f
    name = "add" if f == g else "subtract"
    if f < 0 < g:  # -a + b
        return Scaled(g, s.emit(PRIMITIVES["subtract"], (b, a), {}, eq.output))
    return Scaled(f, s.emit(PRIMITIVES[name], (a, b), {}, eq.output))


def _even(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    return Scaled(1.0, s.emit(eq.primitive, (args[0].operand,), {}, eq.output)) if args[0].factor == -1 else None


def _odd(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    return Scaled(-1.0, s.emit(eq.primitive, (args[0].operand,), {}, eq.output)) if args[0].factor == -1 else None


def _square(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    f, x = args[0]
    return Scaled(f * f, s.emit(eq.primitive, (x,), {}, eq.output)) if eq.output.dtype.kind in "fc" else None


def _pow(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    """Small whole powers by products, the square root by its own."""
    power = args[1].operand
    if type(power) not in (int, float) or eq.output.dtype.kind not in "fc":
        return None
    x = s.whole(args[0])
    if type(x) is not Var or x.dtype != eq.output.dtype:
        return None
    if power == 1:
        return args[0]
    if power in (2, 3, 4):
        square = s.emit(PRIMITIVES["square"], (x,), {}, eq.output)
        if power == 2:
            return Scaled(1.0, square)
        return Scaled(1.0, s.emit(PRIMITIVES["multiply"], (square, x if power == 3 else square), {}, eq.output))
    if power == 0.5:
        return Scaled(1.0, s.emit(PRIMITIVES["sqrt"], (x,), {}, eq.output))
    if power == -1:
        return Scaled(1.0, s.emit(PRIMITIVES["divide"], (1.0, x), {}, eq.output))
    return None


def _matmul(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    (f, a), (g, b) = args
    if type(a) is type(b) is Var and eq.output.dtype.kind in "fc":
        return Scaled(f * g, _product(s, a, b, eq.output))
    return _linear(s, eq, args)


def _product(s: Simplifier, a: Var, b: Var, like: Var) -> Var:
    """``a @ b``; a transposed matrix times a vector is the vector times the matrix."""
    for x, y, flipped in ((a, b, False), (b, a, True)):
        if len(x.shape) == 2 and len(y.shape) == 1 and s.is_by(x, "permute_dims"):
            matrix = s.source[x.index].inputs[0]
            return s.emit(PRIMITIVES["matmul"], (matrix, y) if flipped else (y, matrix), {}, like)
    return s.emit(PRIMITIVES["matmul"], (a, b), {}, like)


def _astype(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    if type(args[0].operand) is Var and args[0].operand.dtype == eq.output.dtype:
        return args[0]
    return None


def _reshape(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    f, x = args[0]
    if type(x) is not Var:
        return Scaled(f, np.reshape(x, eq.output.shape))
    if x.shape == eq.output.shape:
        return args[0]
    if s.is_by(x, "reshape"):
        return _reshape(s, eq, [Scaled(f, s.source[x.index].inputs[0])])
    if (product := _column_product(s, x, eq.output)) is not None:
        return Scaled(f, product)
    return _linear(s, eq, args)


def _column_product(s: Simplifier, x: Var, like: Var) -> Var | None:
    """``reshape(A @ reshape(v, (n, 1)), (m,))`` is ``A @ v``; and likewise for a row."""
    if not s.is_by(x, "matmul") or len(like.shape) != 1 or len(x.shape) != 2:
        return None
    a, b = s.source[x.index].inputs
    if not (type(a) is Var and type(b) is Var and len(a.shape) == len(b.shape) == 2):
        return None
    if x.shape[1] == 1 and s.is_by(b, "reshape") and len((v := s.source[b.index].inputs[0]).shape) == 1:
        return _product(s, a, v, like)
    if x.shape[0] == 1 and s.is_by(a, "reshape") and len((v := s.source[a.index].inputs[0]).shape) == 1:
        return _product(s, v, b, like)
    return None


def _broadcast_to(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    x = args[0].operand
    if type(x) is Var and x.shape == eq.output.shape:
        return args[0]
    return _linear(s, eq, args)


def _permute_dims(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    f, x = args[0]
    axes = eq.params["axes"]
    if type(x) is not Var:
        return None
    if s.is_by(x, "permute_dims"):
        inner = s.source[x.index]
        x, axes = inner.inputs[0], tuple(inner.params["axes"][i] for i in axes)
    if axes == tuple(range(len(axes))):
        return Scaled(f, x)
    return Scaled(f, s.emit(eq.primitive, (x,), {"axes": axes}, eq.output))


def _sum(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    x = args[0].operand
    if type(x) is Var and x.dtype == eq.output.dtype and not eq.params["axis"]:
        return args[0]
    if eq.params["keepdims"] and type(x) is Var:
        return _kept(s, eq, args, _sum)
    if type(x) is Var and s.is_by(x, "multiply") and type(number := s.source[x.index].inputs[1]) is float:
        # Of a number times y: if the sum of y is a constant, so is this.
        found = _sum(s, eq, [Scaled(args[0].factor * number, s.source[x.index].inputs[0])])
        if found is not None and type(found.operand) is not Var:
            return found
    if type(x) is Var and s.is_by(x, "multiply") and (parts := _thin_factor(s, x, eq.params["axis"])):
        return _thin_times_sum(s, eq, args[0].factor, *parts)
    if type(x) is Var and s.is_by(x, "matmul") and (product := _product_of_sums(s, x, eq)) is not None:
        return Scaled(args[0].factor, product)
    return _linear(s, eq, args)


def _product_of_sums(s: Simplifier, x: Var, eq: Equation) -> Var | None:
    """The sum of the rows of ``A @ B`` is (the sum of the rows of A) ``@ B``; and of the columns likewise."""
    a, b = s.source[x.index].inputs
    k = len(x.shape)
    if not (type(a) is type(b) is Var and len(a.shape) == len(b.shape) == k >= 2) or x.dtype.kind not in "fc":
        return None
    if eq.params["axis"] == (k - 2,) and a.shape[-2] > 1:
        total = _summed(s, a, k - 2)
        row = s.emit(PRIMITIVES["matmul"], (total, b), {}, Spec((*x.shape[:-2], 1, x.shape[-1]), x.dtype))
    elif eq.params["axis"] == (k - 1,) and b.shape[-1] > 1:
        total = _summed(s, b, k - 1)
        row = s.emit(PRIMITIVES["matmul"], (a, total), {}, Spec((*x.shape[:-1], 1), x.dtype))
    else:
        return None
    return s.emit(PRIMITIVES["reshape"], (row,), {"shape": eq.output.shape}, eq.output)


def _summed(s: Simplifier, x: Var, axis: int) -> Var:
    """The sum over one axis, which is kept."""
    dropped = (*x.shape[:axis], *x.shape[axis + 1 :])
    total = s.emit(PRIMITIVES["sum"], (x,), {"axis": (axis,), "keepdims": False}, Spec(dropped, x.dtype))
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    return s.emit(PRIMITIVES["reshape"], (total,), {"shape": shape}, Spec(shape, x.dtype))


def _extremum(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    """The greatest of -x is minus the least of x."""
    if eq.params["keepdims"]:
        return _kept(s, eq, args, _extremum)
    f, x = args[0]
    if f == 1 or type(x) is not Var or eq.output.dtype.kind != "f":
        return None
    name = eq.primitive.name if f > 0 else {"max": "min", "min": "max"}[eq.primitive.name]
    return Scaled(f, s.emit(PRIMITIVES[name], (x,), eq.params, eq.output))


def _share_of_ties(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    (f, x), (g, y) = args
    if f != g or f == 1 or not (type(x) is type(y) is Var):
        return None
    return Scaled(1.0, s.emit(eq.primitive, (x, y), {}, eq.output))


def _kept(s: Simplifier, eq: Equation, args: list[Scaled], rule: Rule) -> Scaled | None:
    """A reduction that keeps its axes is one that drops them, reshaped."""
    axis, out = eq.params["axis"], eq.output
    shape = tuple(size for i, size in enumerate(out.shape) if i not in axis)
    dropped = Equation(eq.primitive, eq.inputs, {**eq.params, "keepdims": False}, Var(-1, shape, out.dtype))
    found = rule(s, dropped, args) or s.plain(dropped, args)
    return _reshape(s, Equation(PRIMITIVES["reshape"], (), {"shape": out.shape}, out), [found])


def _thin_factor(s: Simplifier, x: Var, axis: tuple[int, ...]) -> tuple[Var, Var] | None:
    """Of a product x, the factor that is constant along the axes, and the other."""
    for thin, full in (s.source[x.index].inputs, s.source[x.index].inputs[::-1]):
        # Of one dtype: else the sum would be in another precision than the product.
        if (
            type(thin) is type(full) is Var
            and full.shape == x.shape
            and thin.dtype == full.dtype
            and x.dtype.kind in "fc"
        ):
            shape = (1,) * (len(x.shape) - len(thin.shape)) + thin.shape
            if all(shape[i] == 1 for i in axis):
                return thin, full
    return None


def _thin_times_sum(s: Simplifier, eq: Equation, factor: float, thin: Var, full: Var) -> Scaled | None:
    """``sum(a x) = a sum(x)`` for a constant along the summed axes."""
    total = s.emit(eq.primitive, (full,), eq.params, eq.output)
    shape = (1,) * (len(full.shape) - len(thin.shape)) + thin.shape
    if not eq.params["keepdims"]:
        shape = tuple(size for i, size in enumerate(shape) if i not in eq.params["axis"])
    if thin.shape != shape:
        thin = s.emit(PRIMITIVES["reshape"], (thin,), {"shape": shape}, Spec(shape, thin.dtype))
    product = Equation(PRIMITIVES["multiply"], (), {}, eq.output)
    found = _multiply(s, product, [Scaled(1.0, thin), Scaled(1.0, total)])
    assert found is not None
    return Scaled(factor * found.factor, found.operand)


def _getitem(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    if len(args) == 1 and _only_new_axes(eq.params["key"]) and type(args[0].operand) is Var:
        return _reshape(s, Equation(PRIMITIVES["reshape"], eq.inputs, {"shape": eq.output.shape}, eq.output), args)
    return _linear(s, eq, args)


def _only_new_axes(key: Any) -> bool:
    """Whether this key takes everything: it consists of None, ... and full slices."""
    parts = key if isinstance(key, tuple) else (key,)
    return all(part is None or part is ... or (isinstance(part, slice) and part == slice(None)) for part in parts)


def _add_at(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    """A factor is applied to what is added, the smaller of the two."""
    x, v, *indices = args
    if eq.output.dtype.kind not in "fc":
        return None
    rest = tuple(map(s.whole, indices))
    if type(x.operand) is not Var:
        if splat(x.operand, eq.output) != 0 and np.any(x.operand):
            return None
        alike = type(v.operand) is Var and v.operand.dtype == eq.output.dtype
        alike = alike and np.prod(v.operand.shape) == np.prod(eq.output.shape)
        if not indices and _only_new_axes(eq.params["key"]) and alike:
            return _reshape(s, Equation(PRIMITIVES["reshape"], (), {"shape": eq.output.shape}, eq.output), [v])
        return Scaled(1.0, s.emit(eq.primitive, (ZERO, s.whole(v), *rest), eq.params, eq.output))
    if abs(x.factor) != 1:
        return None
    v = Scaled(v.factor / x.factor, v.operand)
    return Scaled(x.factor, s.emit(eq.primitive, (x.operand, s.whole(v), *rest), eq.params, eq.output))


def _concat(s: Simplifier, eq: Equation, args: list[Scaled]) -> Scaled | None:
    factors = {arg.factor for arg in args}
    if len(factors) > 1 or not all(type(arg.operand) is Var for arg in args) or eq.output.dtype.kind not in "fc":
        return None
    return Scaled(factors.pop(), s.emit(eq.primitive, tuple(arg.operand for arg in args), eq.params, eq.output))


RULES: dict[str, Rule] = {
    "abs": _even,
    "add": _add,
    "add_at": _add_at,
    "astype": _astype,
    "broadcast_to": _broadcast_to,
    "concat": _concat,
    "cos": _even,
    "cosh": _even,
    "divide": _divide,
    "getitem": _getitem,
    "matmul": _matmul,
    "max": _extremum,
    "min": _extremum,
    "multiply": _multiply,
    "negative": _negative,
    "permute_dims": _permute_dims,
    "pow": _pow,
    "reshape": _reshape,
    "share_of_ties": _share_of_ties,
    "sin": _odd,
    "sinh": _odd,
    "square": _square,
    "subtract": _subtract,
    "sum": _sum,
    "tanh": _odd,
}
RULES_BY_KIND: tuple[Rule, Rule] = (lambda s, eq, args: None, _linear)
