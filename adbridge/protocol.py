"""Backend: what an adapter owes, and what is derived once for all of them.

An adapter works on flat tuples of its engine's arrays and nothing else: pytrees, argnums, NumPy
conversion and checks are done in `operators.py`. It owes its array namespace, conversions, `owns`,
and `jvp` or `vjp` (both where the engine has both). The rest below has a derived default that an
adapter overrides only where a measurement shows that it pays.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from adbridge.errors import CapabilityError

if TYPE_CHECKING:
    from adbridge.rule_calls import RuleCall

Array = Any  # an array (or tracer) of some engine
Arrays = tuple[Array, ...]
FlatFunction = Callable[..., tuple[Arrays, Arrays]]
"""Maps flat arrays to ``(outputs, aux)``, both flat; aux passes through undifferentiated."""
LinearMap = Callable[[Arrays], Arrays]


PROCESS_WIDE = threading.RLock()
"""Held while an engine uses state that it keeps once for all threads (autograd's trace stack, torch's
level of forward mode). One lock for all engines: two could be taken in two orders."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do, as data: read by suites, shown by `adbridge.backends()`.

    `modes` are the engine's native ones; the other mode is derived at one sweep per element.
    `max_order` None means any. `accuracy` is the share of the dtype's digits that derivatives keep: their relative
    error is at most about ``eps ** accuracy``. Below 1 for differences, whose derivatives are judged by that.
    """

    modes: tuple[str, ...] = ("forward", "reverse")
    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("float32", "float64")
    max_order: int | None = None
    accuracy: float = 1.0
    batching: bool = False
    compile: bool = False


@dataclass(frozen=True)
class Compiled:
    """A flat function ready to call, and its peak bytes where the compiler knows them.

    Its outputs are in the order of the function that was compiled; where `call` runs that function itself,
    they are its outputs of this run. `call` may be used by several threads at once.
    """

    call: Callable[..., Arrays]
    peak_bytes: int | None = None
    takes_numpy: bool = False
    """`call` takes NumPy arrays as they are, and never writes to them: they need no `Backend.from_numpy`."""
    fresh: bool = False
    """NumPy arrays and scalars among the results are new and nobody else's: they need no `Backend.to_numpy`."""
    matched: Callable[..., Arrays] | None = None
    """As `call`, and quicker, for NumPy arrays that are known to have the shapes and dtypes compiled for."""


class Remembered(dict[Hashable, Any]):
    """A bounded memory that threads may share. It stays where it is: a copy, or a pickle, is empty."""

    def put(self, key: Hashable, value: Any) -> None:
        if len(self) >= 1024:  # more kinds of calls than programs have, unless they never come again
            self.clear()
        self[key] = value

    def __reduce__(self) -> tuple[type[Remembered], tuple[()]]:
        return Remembered, ()


class Backend(ABC):
    """Adapter of one engine. Concrete classes define `name` and implement `vjp`, `jvp` or both.

    Every array argument below belongs to the engine; `fun` is a `FlatFunction` with floating outputs.
    """

    name: ClassVar[str]
    fork_safe: ClassVar[bool] = True
    """Whether a process may fork after importing the engine, before using it."""
    late_imports: ClassVar[tuple[str, ...]] = ()
    """Modules that the engine imports on first use: imported before a fork, they cost its children nothing."""
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

    @cached_property
    def remembered(self) -> Remembered:
        """How calls on this backend are read, by what they look like (`readings.py`)."""
        return Remembered()

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
        return outs, _transposed(self.namespace, _images(self, pull, outs), tangents, outs), aux

    def vjp(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        """``(outputs, pullback, aux)``; the pullback maps cotangents of the outputs to those of the
        primals, any number of times. Derived: one forward sweep per input element."""
        columns = _images(self, lambda seed: self.jvp(fun, primals, seed)[1], primals)
        outs, aux = fun(*primals)  # last: `fun` remembers the tree of the aux of its last run
        return outs, lambda cotangents: _transposed(self.namespace, columns, cotangents, primals), aux

    # Derived; override where it pays.

    def synchronize(self, arrays: Sequence[Array]) -> None:  # noqa: B027  (most engines have nothing to wait for)
        """Return when the arrays' values are there (asynchronous engines override this)."""

    def scope(self, dtypes: Sequence[str]) -> AbstractContextManager[Any]:
        """Context in which arrays of these dtypes are made and used."""
        return nullcontext()

    def device_of(self, array: Array) -> str:
        """Name of the device that an array of this engine is on."""
        return "cpu"

    def one_hot(self, places: npt.NDArray[np.int64], like: Array) -> Array:
        """For each k in `places` an array like `like` that is one at flat index k, else zero (all zero where k is
        out of range): stacked along a new first axis, on `like`'s device. Or what the adapter's batched sweeps take
        in its place."""
        size = math.prod(like.shape)
        seeds = np.zeros((len(places), size), dtype=numpy_dtype(like))
        (rows,) = np.nonzero((places >= 0) & (places < size))
        seeds[rows, places[rows]] = 1
        return as_dtype(self.namespace, self.from_numpy(seeds.reshape(len(places), *like.shape)), like)

    def value_and_grad(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        """``(outputs, cotangents of the primals, aux)`` for one scalar output, pulled back once."""
        outs, pullback, aux = self.vjp(fun, primals)
        return outs, pullback((self.namespace.ones_like(outs[0]),)), aux

    def linearize(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        """``(outputs, pushforward, aux)``; the pushforward maps tangents of the primals to those of the
        outputs, any number of times. Derived: a `jvp` each time."""
        outs, aux = fun(*primals)
        return outs, lambda tangents: self.jvp(fun, primals, tangents)[1], aux

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

    def linearize_batch(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, LinearMap]:
        """``(outputs, pushforward, pullback)`` of seeds stacked along a new first axis, for a caller that chooses
        when it knows the outputs. Derived: the pushforward runs `fun` again."""
        outs, pullback = self.vjp_batch(fun, primals)
        return outs, lambda tangents: self.jvp_batch(fun, primals, tangents)[1], pullback

    def taylor(self, fun: FlatFunction, primals: Arrays, tangents: Arrays, order: int) -> list[Arrays]:
        """The `order` + 1 Taylor coefficients of t -> fun(primals + t tangents), for each the tuple of the outputs'.

        Derived: forward mode nested `order` times, at a cost of about 2 ** order runs of `fun`.
        Raises CapabilityError: the engine does not nest so deep.
        """
        deepest = self.capabilities.max_order
        if deepest is not None and order > deepest:
            raise CapabilityError(
                f"backend {self.name!r} nests derivatives to order {deepest}, and a Taylor series of order {order} "
                "was asked for; choose a lower order or backend='reference'"
            )
        return [
            tuple(d / math.factorial(k) if k > 1 else d for d in derivatives)
            for k, derivatives in enumerate(_derivatives(self, fun, primals, tangents, order))
        ]

    def checkpoint(self, fun: Callable[..., Arrays], arrays: Arrays) -> Arrays:
        """``fun(*arrays)``, so that reverse mode runs `fun` again instead of storing what it computes. Derived: a plain
        call, which stores."""
        return fun(*arrays)

    def checkpoint_loop(self, step: Callable[..., Arrays], state: Arrays, steps: int, snapshots: int) -> Arrays:
        """``state = step(i, *state)`` for each i; reverse mode keeps some `snapshots` states. Derived: a plain loop."""
        for i in range(steps):
            state = step(i, *state)
        return state

    def stop_gradient(self, array: Array) -> Array:
        """The array as a constant. Raises CapabilityError: this adapter does not offer it."""
        raise CapabilityError(f"backend {self.name!r} has no stop_gradient; pass the array as an argument of its own")

    def custom_rule(self, call: RuleCall, arrays: Arrays) -> Arrays:
        """The outputs of a function with a derivative rule of its own, ``call.primal(*arrays)``, which the engine
        differentiates by that rule. Derived: a plain call, right where derivatives come from values alone."""
        return call.primal(*arrays)

    def interpreted(self, fun: Callable[..., Arrays], arrays: Arrays) -> Callable[..., Arrays] | None:
        """`fun`, which is written in the engine's own functions, as one of the reference engine's arrays.

        `arrays` are NumPy's, of the shapes and dtypes to come. None: the adapter cannot read the engine's code.
        """
        return None

    def compile(self, fun: Callable[..., Arrays], arrays: Arrays) -> Compiled:
        """`fun` made ready for arguments shaped like `arrays`; as it is where there is no compiler."""
        return Compiled(fun)

    def peak_alloc(self, compiled: Compiled, arrays: Arrays) -> tuple[int, str]:
        """``(bytes, source)``: peak of what one call allocates. Here by tracemalloc, which sees NumPy's."""
        import tracemalloc

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


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view that a function run on NumPy cannot write to: its caller's arrays stay as they are."""
    view = array.view()
    view.flags.writeable = False
    return view


def numpy_dtype(array: Array) -> str:
    """Name of an engine array's dtype, or of one that `as_dtype` leads from: NumPy has no bfloat16."""
    name = str(array.dtype).removeprefix("torch.")
    return "float32" if name == "bfloat16" else name


def as_dtype(xp: Any, array: Array, like: Array) -> Array:
    """`array` in `like`'s dtype."""
    return array if array.dtype == like.dtype else xp.astype(array, like.dtype)


def _derivatives(backend: Backend, fun: FlatFunction, primals: Arrays, tangents: Arrays, order: int) -> list[Arrays]:
    """The first `order` derivatives of t -> fun(primals + t tangents) at 0, and its value."""

    def up_to(k: int) -> FlatFunction:
        if k == 0:
            return lambda *xs: (fun(*xs)[0], ())

        def derivatives(*xs: Array) -> tuple[Arrays, Arrays]:
            lower, pushed, _ = backend.jvp(up_to(k - 1), xs, tangents)
            return (*lower, *pushed[len(pushed) - len(pushed) // k :]), ()

        return derivatives

    flat = up_to(order)(*primals)[0]
    count = len(flat) // (order + 1)
    return [flat[i * count : (i + 1) * count] for i in range(order + 1)]


# The derived modes. A linear map A is known by its images of the one-hot arrays; its transpose under the
# pairing Re(sum(a * b)) is A'(y)[e] = Re(sum(y * A(e))) - i Re(sum(y * A(i e))), the last for complex
# elements alone: they have two directions. The transpose of a pullback is the pushforward, and vice versa.

Images = list[list[list[Arrays]]]
"""[which array][which element][1 or i]"""


def _images(backend: Backend, apply: LinearMap, arrays: Arrays) -> Images:
    return [
        [[apply(seed) for seed in seeds] for seeds in _one_hot(backend, arrays, which)] for which in range(len(arrays))
    ]


def _one_hot(backend: Backend, arrays: Arrays, which: int) -> list[list[Arrays]]:
    """Seeds that are one (or i) at a single element of ``arrays[which]``, for each of its elements in turn."""
    units = (1, 1j) if "complex" in str(arrays[which].dtype) else (1,)
    return [
        [_seed(backend, arrays, which, place, unit) for unit in units]
        for place in range(math.prod(arrays[which].shape))
    ]


def _seed(backend: Backend, arrays: Arrays, which: int, place: int, unit: complex) -> Arrays:
    parts = [np.zeros(tuple(a.shape), dtype=numpy_dtype(a)) for a in arrays]
    parts[which].reshape(-1)[place] = unit
    return tuple(as_dtype(backend.namespace, backend.from_numpy(p), a) for p, a in zip(parts, arrays, strict=True))


def _transposed(xp: Any, images: Images, given: Arrays, like: Arrays) -> Arrays:
    return tuple(
        _pack(xp, [_element(xp, image, given) for image in column], x) for column, x in zip(images, like, strict=True)
    )


def _element(xp: Any, image: list[Arrays], given: Arrays) -> Array:
    parts = [sum((_real(xp, xp.sum(a * b)) for a, b in zip(given, part, strict=True)), start=0.0) for part in image]
    return parts[0] if len(parts) == 1 else parts[0] - 1j * parts[1]


def _real(xp: Any, x: Array) -> Array:
    return xp.real(x) if "complex" in str(x.dtype) else x


def _pack(xp: Any, scalars: list[Array], like: Array) -> Array:
    """Scalars as one array of `like`'s shape and dtype."""
    if not scalars:
        return xp.zeros_like(like)
    arrays = [s if hasattr(s, "dtype") else xp.asarray(s, dtype=like.dtype) for s in scalars]
    return xp.reshape(as_dtype(xp, xp.stack(arrays), like), tuple(like.shape))
