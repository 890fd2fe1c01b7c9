"""Tracers: arrays that hold a concrete value and tell their trace what is done with them.

A trace has a level; an operation belongs to the highest level among its arguments, and reaches the
lower ones as it computes with their values. Levels only ever grow, so that an inner derivative can
never be confused with an outer one (perturbation confusion).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import PRIMITIVES, Primitive, Traced
from adbridge.backends.reference.program import Program
from adbridge.errors import NotDifferentiable

_levels = itertools.count()


class Trace:
    """What happens to an operation on this trace's tracers."""

    def __init__(self) -> None:
        self.level = next(_levels)
        self.open = True

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        """From now on a use of this trace's tracers is an error: they have leaked."""
        self.open = False

    def check_open(self, primitive: Primitive) -> None:
        if not self.open:
            raise NotDifferentiable(
                f"{primitive.name} was applied to a tracer after its function had ended: the tracer leaked, "
                "through a global or a stored attribute; return the array from the function (has_aux=True) instead"
            )

    def value_of(self, x: Any) -> Any:
        """The value below this trace, or x itself if it is not this trace's."""
        return x.value if isinstance(x, Tracer) and x.trace is self else x


class Recorder(Trace):
    """Evaluates and writes the Wengert list. Tracers carry their Var."""

    def __init__(self) -> None:
        super().__init__()
        self.program = Program()

    def new_input(self, value: Any) -> Tracer:
        return Tracer(self, value, self.program.add_input(value.shape, value.dtype))

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Tracer:
        self.check_open(primitive)
        value = self.evaluate(primitive, [self.value_of(a) for a in args], params)
        inputs = tuple(self.var_of(a) for a in args)
        return Tracer(self, value, self.program.add(primitive, inputs, params, value))

    def evaluate(self, primitive: Primitive, values: list[Any], params: dict[str, Any]) -> Any:
        return primitive(*values, **params)

    def var_of(self, x: Any) -> Any:
        return x.extra if isinstance(x, Tracer) and x.trace is self else x


class LinearRecorder(Recorder):
    """Writes the linear part: nothing is evaluated, values are only shapes and dtypes."""

    def evaluate(self, primitive: Primitive, values: list[Any], params: dict[str, Any]) -> Any:
        assert primitive.spec is not None, f"a JVP rule applies {primitive.name!r} to a tangent: it is not linear"
        return primitive.spec(*values, **params)


class Pusher(Trace):
    """Forward mode: evaluates, and pushes a tangent (None for zero) by the primitive's JVP rule."""

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Tracer:
        self.check_open(primitive)
        values = []
        tangents = []
        for arg in args:
            if isinstance(arg, Tracer) and arg.trace is self:
                values.append(arg.value)
                tangents.append(arg.extra)
            else:
                values.append(arg)
                tangents.append(None)
        y = primitive(*values, **params)
        return Tracer(self, y, primitive.jvp(tangents, y, tuple(values), params))


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
        return len(self.value.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.value.shape))

    @property
    def device(self) -> str:
        return "cpu"

    def __repr__(self) -> str:
        return f"Tracer({concrete(self)!r})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d array")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (PRIMITIVES["getitem"](self, key=i) for i in range(self.shape[0]))

    def __bool__(self) -> bool:
        return bool(concrete(self))

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

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotDifferentiable(
            "x[...] = value on a tracer is not supported by the reference engine; build the array with "
            "where, concat or stack instead"
        )

    def _whole(self, what: str) -> Any:
        if np.issubdtype(self.dtype, np.inexact):
            raise self._refusal(what)
        return concrete(self)

    def _refusal(self, what: str) -> NotDifferentiable:
        return NotDifferentiable(
            f"{what} of a tracer of {self.dtype}{list(self.shape)} would lose its derivative; keep it an array, and "
            "use the functions of adbridge.array_namespace(x)"
        )


def concrete(x: Any) -> Any:
    """The NumPy value below all levels."""
    while isinstance(x, Tracer):
        x = x.value
    return x
