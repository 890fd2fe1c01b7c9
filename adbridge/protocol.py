"""Backend: what an adapter owes, and what is derived once for all of them.

An adapter works on flat tuples of its engine's arrays and nothing else: pytrees, argnums, NumPy
conversion and checks are done in `operators.py`. It owes its array namespace, conversions, `owns`,
and `jvp` or `vjp` (both where the engine has both). The rest below has a derived default that an
adapter overrides only where a measurement shows that it pays.
"""

from __future__ import annotations

import tracemalloc
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from adbridge.errors import CapabilityError

Array = Any  # an array (or tracer) of some engine
Arrays = tuple[Array, ...]
FlatFunction = Callable[..., tuple[Arrays, Arrays]]
"""Maps flat arrays to ``(outputs, aux)``, both flat; aux passes through undifferentiated."""
LinearMap = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do, as data: read by suites, shown by `adbridge.backends()`.

    `modes` are the engine's native ones; the other mode is derived at one sweep per element.
    `max_order` None means any.
    """

    modes: tuple[str, ...] = ("forward", "reverse")
    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("float32", "float64")
    max_order: int | None = None
    batching: bool = False
    compile: bool = False


@dataclass(frozen=True)
class Compiled:
    """A flat function ready to call, and its peak bytes where the compiler knows them."""

    call: Callable[..., Arrays]
    peak_bytes: int | None = None


class Backend(ABC):
    """Adapter of one engine. Concrete classes define `name` and implement `vjp`, `jvp` or both.

    Every array argument below belongs to the engine; `fun` is a `FlatFunction` with floating outputs.
    """

    name: ClassVar[str]
    fork_safe: ClassVar[bool] = True
    """Whether a process may fork after importing the engine, before using it."""
    device: str

    def __init__(self, device: str = "cpu") -> None:
        """Raises CapabilityError if the backend has no such device."""
        self.device = device
        # "cpu" is always there, and asking for the devices may start the engine.
        if device != "cpu" and device not in (devices := self.capabilities.devices):
            raise CapabilityError(
                f"backend {self.name!r} has no device {device!r} (it has: {', '.join(devices)}); "
                f"pass device={devices[0]!r} or another backend"
            )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.jvp is Backend.jvp and cls.vjp is Backend.vjp:
            raise TypeError(f"{cls.__name__} must implement jvp or vjp: each is derived from the other")

    def __repr__(self) -> str:
        return f"<backend {self.name!r} on {self.device}>"

    # What every adapter owes.

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What the engine can do on this machine."""

    @property
    @abstractmethod
    def engine_version(self) -> str:
        """Version of the engine, as it reports it."""

    @property
    @abstractmethod
    def namespace(self) -> Any:
        """The array API namespace of the engine's arrays."""

    @abstractmethod
    def owns(self, array: object) -> bool:
        """Whether `array` is this engine's own (NumPy arrays are nobody's)."""

    @abstractmethod
    def from_numpy(self, array: npt.NDArray[Any]) -> Array:
        """An engine array on this backend's device, sharing no memory that the engine may write."""

    @abstractmethod
    def to_numpy(self, array: Array) -> Any:
        """A writable NumPy array that shares no memory with any input; a tracer is left as it is."""

    # One of these two, both where the engine has both.

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        """``(outputs, tangents of the outputs, aux)``. Derived: one reverse sweep per output element."""
        outs, pull, aux = self.vjp(fun, primals)
        xp = self.namespace
        rows = [
            [
                sum((xp.sum(g * t) for g, t in zip(pull(seed), tangents, strict=True)), start=0.0)
                for seed in _one_hot(self, outs, which)
            ]
            for which in range(len(outs))
        ]
        return outs, tuple(_pack(xp, row, out) for row, out in zip(rows, outs, strict=True)), aux

    def vjp(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        """``(outputs, pullback, aux)``; the pullback maps cotangents of the outputs to those of the
        primals, any number of times. Derived: one forward sweep per input element."""
        xp = self.namespace
        outs, aux = fun(*primals)
        columns = [
            [self.jvp(fun, primals, seed)[1] for seed in _one_hot(self, primals, which)]
            for which in range(len(primals))
        ]

        def pullback(cotangents: Arrays) -> Arrays:
            return tuple(
                _pack(xp, [sum(xp.sum(c * t) for c, t in zip(cotangents, column, strict=True)) for column in cols], x)
                for cols, x in zip(columns, primals, strict=True)
            )

        return outs, pullback, aux

    # Derived; override where it pays.

    def synchronize(self, arrays: Sequence[Array]) -> None:
        """Return when the arrays' values are there (asynchronous engines override this)."""

    def scope(self, dtypes: Sequence[str]) -> AbstractContextManager[Any]:
        """Context in which arrays of these dtypes are made and used."""
        return nullcontext()

    def value_and_grad(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        """``(outputs, cotangents of the primals, aux)`` for one scalar output, pulled back once."""
        outs, pullback, aux = self.vjp(fun, primals)
        return outs, pullback((self.namespace.ones_like(outs[0]),)), aux

    def jvp_batch(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
        """``(outputs, output tangents)`` for tangents stacked along a new first axis."""
        outs: Arrays = ()
        columns = []
        for i in range(tangents[0].shape[0]):
            outs, column, _ = self.jvp(fun, primals, tuple(t[i, ...] for t in tangents))
            columns.append(column)
        return outs, tuple(self.namespace.stack(parts) for parts in zip(*columns, strict=True))

    def vjp_batch(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap]:
        """As `vjp`, but the pullback takes cotangents stacked along a new first axis."""
        outs, pullback, _ = self.vjp(fun, primals)

        def batched(cotangents: Arrays) -> Arrays:
            rows = [pullback(tuple(c[i, ...] for c in cotangents)) for i in range(cotangents[0].shape[0])]
            return tuple(self.namespace.stack(parts) for parts in zip(*rows, strict=True))

        return outs, batched

    def compile(self, fun: Callable[..., Arrays], arrays: Arrays) -> Compiled:
        """`fun` made ready for arguments shaped like `arrays`; as it is where there is no compiler."""
        return Compiled(fun)

    def peak_alloc(self, compiled: Compiled, arrays: Arrays) -> tuple[int, str]:
        """``(bytes, source)``: peak of what one call allocates. Here by tracemalloc, which sees NumPy's."""
        tracemalloc.start()
        try:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            out = compiled.call(*arrays)
            peak = tracemalloc.get_traced_memory()[1]
            del out
        finally:
            tracemalloc.stop()
        return peak - before, "tracemalloc"


def _one_hot(backend: Backend, arrays: Arrays, which: int) -> list[Arrays]:
    """Seeds that are one at a single element of ``arrays[which]``, for each of its elements in turn."""
    seeds = []
    for flat in range(int(np.prod(arrays[which].shape))):
        parts = [np.zeros(tuple(a.shape), dtype=str(a.dtype).removeprefix("torch.")) for a in arrays]
        parts[which].reshape(-1)[flat] = 1
        seeds.append(tuple(backend.from_numpy(part) for part in parts))
    return seeds


def _pack(xp: Any, scalars: list[Array], like: Array) -> Array:
    if not scalars:
        return xp.zeros_like(like)
    return xp.reshape(xp.stack([xp.asarray(s, dtype=like.dtype) for s in scalars]), tuple(like.shape))
