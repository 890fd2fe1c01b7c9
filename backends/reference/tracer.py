"""Tracers: arrays that hold a concrete value and tell their trace what is done with them.

A trace has a level; an operation belongs to the highest level among its arguments, and reaches the
lower ones as it computes with their values. Levels only ever grow, so that an inner derivative can
never be confused with an outer one (perturbation confusion).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import PRIMITIVES, Primitive, Traced, Var, peek
from adbridge.backends.reference.program import Guard, Program
from adbridge.errors import NotDifferentiable

_levels = itertools.count()


class Trace:
    """What happens to an operation on this trace's tracers."""

    def __init__(self) -> None:
        self.level = next(_levels)
        self.open = True

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        raise NotImplementedError

    def constant(self, value: Any) -> Tracer:
        """A tracer of this trace for an array that no input reaches."""
        return Tracer(self, value, None)

    def observe(self, x: Tracer) -> None:
        """Something outside the trace depends on the concrete value of `x`: a branch, an index, a length."""

    def observe_layout(self) -> None:
        """Something outside the trace depends on how arrays lie in memory: whether one is a view of another."""

    def make(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any], y: Any, extra: Any) -> Tracer:
        """The tracer of a result; one of a view remembers what it is a view of."""
        if primitive.rebase is None or not isinstance(args[0], Tracer):
            return Tracer(self, y, extra)
        return View(self, y, extra, args[0], primitive, params)

    def add_into(self, x: Any, value: Any, *indices: Any, key: Any) -> tuple[Any, bool]:
        """``x[key] += value`` of an x that nobody else has; and whether the result is one that nobody else has."""
        return PRIMITIVES["add_at"](x, value, *indices, key=key), False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotDifferentiable("x.trace() of a tracer: `trace` is what it belongs to; write numpy.trace(x)")

    def close(self) -> None:
        """From now on a use of this trace's tracers is an error: they have leaked."""
        self.open = False

    def refuse_if_closed(self, primitive: Primitive) -> None:
        if not self.open:
            raise NotDifferentiable(
                f"{primitive.name} was applied to a tracer after its function had ended: the tracer leaked, "
                "through a global or a stored attribute; return the array from the function (has_aux=True) instead"
            )

    def value_of(self, x: Any) -> Any:
        """The value below this trace, or x itself if it is not this trace's."""
        return x.value if isinstance(x, Tracer) and x.trace is self else x


class Recorder(Trace):
    """Evaluates and writes the Wengert list. Tracers carry their Var (or, not reached by inputs, their value).

    A function with a custom rule is one step of the list; with `inline`, for lists that nobody differentiates, its
    own operations are.
    """

    def __init__(self, inline: bool = False) -> None:
        super().__init__()
        self.inline = inline
        self.program = Program()
        self.layout_matters = False

    def new_input(self, value: Any) -> Tracer:
        return Tracer(self, value, self.program.add_input(value.shape, value.dtype))

    def constant(self, value: Any) -> Tracer:
        return Tracer(self, value, value)

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Tracer:
        self.refuse_if_closed(primitive)
        value = primitive(*[self.value_of(a) for a in args], **params)
        inputs = tuple(self.var_of(a) for a in args)
        return self.make(primitive, args, params, value, self.program.add(primitive, inputs, params, value))

    def observe(self, x: Tracer) -> None:
        if type(x.extra) is Var:
            # A copy: the caller may write to what is an argument of his.
            self.program.guards.append(Guard(x.extra, np.array(peek(x.value)), len(self.program.equations)))

    def observe_layout(self) -> None:
        self.layout_matters = True

    def var_of(self, x: Any) -> Any:
        return x.extra if isinstance(x, Tracer) and x.trace is self else x


class LinearRecorder(Recorder):
    """Writes the linear part: nothing is evaluated, values are only shapes and dtypes."""

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Tracer:
        if not self.open:
            self.refuse_if_closed(primitive)
        assert primitive.spec is not None, f"a JVP rule applies {primitive.name!r} to a tangent: it is not linear"
        like = primitive.spec(*[self.value_of(a) for a in args], **params)
        inputs = tuple([self.var_of(a) for a in args])
        return Tracer(self, like, self.program.append(primitive, inputs, params, like.shape, like.dtype))


class Tracer(Traced):
    """An array under a trace. `extra` is what the trace attaches: a Var, or a tangent.

    Speaks the array API (`array_namespace`), Python's operators, and NumPy's protocols.
    """

    __slots__ = ("extra",)
    __hash__ = None  # type: ignore[assignment]  # == compares elementwise, as arrays do

    def __init__(self, trace: Trace, value: Any, extra: Any) -> None:
        self.trace = trace
        self.value = value
        self.extra = extra

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def device(self) -> str:
        return "cpu"

    def __repr__(self) -> str:
        return f"Tracer({peek(self)!r})"

    def __format__(self, spec: str) -> str:
        return format(peek(self), spec) if spec else repr(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d array")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (PRIMITIVES["getitem"](self, key=i) for i in range(self.shape[0]))

    def __bool__(self) -> bool:
        # Of a number, the branch depends on whether it is zero, not on its value.
        decides = self if self.dtype.kind == "b" else PRIMITIVES["not_equal"](self, 0)
        return bool(concrete(decides))

    def __int__(self) -> int:
        return int(self._whole("int"))

    def __index__(self) -> int:
        return int(self._whole("an index"))

    def __float__(self) -> float:
        raise self._refusal("float(x)")

    def __complex__(self) -> complex:
        raise self._refusal("complex(x)")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise self._refusal("np.asarray(x)")

    def update(self, new: Tracer) -> None:
        """Become `new`: this array was written to, and so was every array that it is a view of."""
        self.trace, self.value, self.extra = new.trace, new.value, new.extra

    def _whole(self, what: str) -> Any:
        if np.issubdtype(self.dtype, np.inexact):
            raise self._refusal(what)
        return concrete(self)

    def _refusal(self, what: str) -> NotDifferentiable:
        return NotDifferentiable(
            f"{what} of a tracer of {self.dtype}{list(self.shape)} would lose its derivative; keep it an array, and "
            "use the functions of adbridge.array_namespace(x); to fill an array item by item, make it by "
            "zeros_like(x), or np.zeros(n, like=x); to make one of numbers, np.stack([x, y])"
        )


class View(Tracer):
    """A tracer of what is a view in NumPy: a write to it, or to its base, reaches the other.

    Nothing is shared here: `base.value` is replaced by a write, and a view that has not `seen` it is made anew.
    """

    __slots__ = ("base", "params", "primitive", "seen", "shared")
    is_view = True

    def __init__(
        self, trace: Trace, value: Any, extra: Any, base: Tracer, primitive: Primitive, params: dict[str, Any]
    ) -> None:
        self.trace = trace
        self.value = value
        self.extra = extra
        self.base = base
        self.primitive = primitive
        self.params = params
        self.seen = base.value
        self.shared: bool | None = None

    def refresh(self) -> None:
        self.base.refresh()
        if self.seen is not self.base.value:
            if self.shares():
                super().update(self.primitive(self.base, **self.params))
            self.seen = self.base.value

    def shares(self) -> bool:
        """Whether NumPy's result is a view here (a reshaped array may be a copy, a scalar is one)."""
        if self.shared is None:  # asked before the first write parts them
            view = peek(self.value)
            self.shared = isinstance(view, np.ndarray) and np.may_share_memory(view, peek(self.seen))
            if self.primitive.name == "reshape":
                x: Any = self
                while isinstance(x, Tracer):
                    x.trace.observe_layout()
                    x = x.value
        return self.shared

    def is_part(self, x: Tracer, key: Any) -> bool:
        """Whether this is x[key], as x is now, and in x's memory."""
        return (
            self.base is x
            and self.seen is x.value
            and self.primitive.name == "getitem"
            and self.params["key"] == key
            and self.shares()
        )

    def update(self, new: Tracer) -> None:
        shared = self.shares()
        super().update(new)
        if shared:
            assert self.primitive.rebase is not None
            self.base.update(self.primitive.rebase(self.base, new, **self.params))
        self.seen = self.base.value


def write(x: Tracer, value: Any, *indices: Any, key: Any) -> None:
    """``x[key] = value``, recorded as the making of a new array."""
    x.refresh()
    x.update(PRIMITIVES["set_at"](x, value, *indices, key=key))


def write_all(x: Tracer, function: Callable[[Any, Any], Any], value: Any) -> Tracer:
    """``x += value`` and its kind: into x and what shares its memory; a 0-d x is a scalar, which is replaced."""
    new = function(x, value)
    if x.shape == ():
        return new  # type: ignore[no-any-return]
    if new.shape != x.shape or not np.can_cast(new.dtype, x.dtype, "same_kind"):
        raise NotDifferentiable(f"cannot write {_show(new)} into {_show(x)} in place; write x = x + y")
    x.update(new if new.dtype == x.dtype else PRIMITIVES["astype"](new, dtype=x.dtype))
    return x


def _show(x: Any) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def concrete(x: Any) -> Any:
    """The NumPy value below all levels; every trace is told that it is used."""
    while isinstance(x, Tracer):
        x.refresh()
        x.trace.observe(x)
        x = x.value
    return x
