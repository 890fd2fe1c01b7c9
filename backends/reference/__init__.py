"""The reference engine: small, readable, on NumPy. Start with `primitives.py`, then `tracer.py` and `transforms.py`.

Recording and differentiating:

- `primitives.py`  what a primitive and its rules are     - `rules/`       the primitives, a row each
- `program.py`     the Wengert list                       - `tracer.py`    running a function on tracers
- `transforms.py`  jvp, linearize, transpose              - `batching.py`  many tangents in one sweep
- `one_hot.py`     those that are an identity matrix      - `taylor.py`    series of any order in one run
- `checkpoint.py`  recomputing instead of storing       - `custom.py`     rules of the user's own

What functions of arrays are written with:

- `namespace/`     the array API                          - `methods.py`   operators, indexing, ndarray's methods
- `dialect/`       NumPy's functions, ufuncs and SciPy's

Prepared calls:

- `prepare.py`     a function compiled for its shapes     - `simplify.py`  its program made smaller
- `algebra.py`     the rules for that, one a primitive    - `compile.py`   as straight-line NumPy
- `planning.py`    what runs when, in which memory        - `blocks.py`    large arrays block by block
- `workspaces.py`  the buffers of a running call          - `fast/`        as native code instead

To see and to check:

- `recorded.py`    a program and the run it is of         - `show.py`      as the textbooks' tables
- `formulas.py`    its steps as maths                     - `graph.py`     drawn
- `source.py`      as NumPy source                        - `literals.py`  values in a source
- `tidy.py`        derivatives made readable              - `cost.py`      operations and bytes, counted
- `numbers/`       in float32, longdouble and Arb balls   - `coverage.py`  which rules each primitive has
- `kinks.py`       gradients at kinks, ties and poles

Reverse mode keeps the NumPy arrays that meet a tracer as they are, for copies would cost a matrix product
ten times its time: a function must not write to an array after it has used it. Indices are copied.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from adbridge.backends.reference import (
    batching,
    checkpoint,
    custom,
    methods,
    namespace,
    one_hot,
    prepare,
    taylor,
    transforms,
)
from adbridge.backends.reference.compile import compile_program
from adbridge.backends.reference.tracer import Tracer
from adbridge.errors import BackendUnavailable, CapabilityError
from adbridge.protocol import Array, Arrays, Backend, Capabilities, Compiled, FlatFunction, LinearMap, read_only
from adbridge.rule_calls import RuleCall

methods.install()


@cache
def _one(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return read_only(np.ones((), dtype))


class ReferenceBackend(Backend):
    """The in-house engine: forward mode pushes tangents, reverse mode is linearize, then transpose.

    `compiler` is what `prepare` compiles with: "numpy", or "llvm" for native code (the extra `fast`).
    """

    name = "reference"

    def __init__(self, device: str = "cpu", compiler: str = "numpy") -> None:
        super().__init__(device)
        self.compiler = _compiler(compiler)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(dtypes=("float32", "float64", "complex64", "complex128"), batching=True, compile=True)

    @property
    def engine_version(self) -> str:
        from adbridge import __version__

        return __version__

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
        outs, pushed, aux = transforms.jvp(fun, primals, tangents)
        filled = (transforms.zero_like(out) if t is None else t for t, out in zip(pushed, outs, strict=True))
        return outs, tuple(filled), aux

    def vjp(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        outs, linear, aux = transforms.linearize(fun, primals)
        return outs, lambda cotangents: transforms.pull(linear, cotangents), aux

    def value_and_grad(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        outs, pullback, aux = self.vjp(fun, primals)
        return outs, pullback((_one(outs[0].dtype),)), aux

    def linearize(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        outs, linear, aux = transforms.linearize(fun, primals)
        return outs, lambda tangents: transforms.push(linear, tangents, outs), aux

    def taylor(self, fun: FlatFunction, primals: Arrays, tangents: Arrays, order: int) -> list[Arrays]:
        return taylor.taylor(fun, primals, tangents, order)[0]

    def checkpoint(self, fun: Callable[..., Arrays], arrays: Arrays) -> Arrays:
        return checkpoint.checkpoint(fun, arrays)

    def checkpoint_loop(self, step: Callable[..., Arrays], state: Arrays, steps: int, snapshots: int) -> Arrays:
        return checkpoint.checkpoint_loop(step, state, steps, snapshots)

    def custom_rule(self, call: RuleCall, arrays: Arrays) -> Arrays:
        return custom.Ruled(call).outputs(arrays)

    def stop_gradient(self, array: Array) -> Array:
        return checkpoint.stop_gradient(array)

    def one_hot(self, places: npt.NDArray[np.int64], like: Array) -> Array:
        return one_hot.one_hot(places, like.shape, like.dtype)

    def jvp_batch(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
        outs, push, _ = self.linearize_batch(fun, primals)
        return outs, push(tangents)

    def vjp_batch(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap]:
        outs, _, pull = self.linearize_batch(fun, primals)
        return outs, pull

    def linearize_batch(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, LinearMap]:
        outs, linear, _ = transforms.linearize(fun, primals)
        return (
            outs,
            lambda tangents: batching.push(linear, tangents, outs),
            lambda cotangents: batching.pull(linear, cotangents),
        )

    def compile(self, fun: Callable[..., Arrays], arrays: Arrays) -> Compiled:
        return prepare.prepare(fun, arrays, self.compiler)

    def peak_alloc(self, compiled: Compiled, arrays: Arrays) -> tuple[int, str]:
        if isinstance(compiled.call, prepare.Variants):
            compiled.call.forget()  # so that the buffers of a compiled program count
        return super().peak_alloc(compiled, arrays)


_COMPILERS = ("numpy", "llvm")


def _compiler(name: str) -> prepare.Compiler:
    """Raises CapabilityError: there is none of this name. BackendUnavailable: what it needs is not installed."""
    if name not in _COMPILERS:
        raise CapabilityError(f"backend 'reference' has no compiler {name!r}; it has: {', '.join(_COMPILERS)}")
    if name == "numpy":
        return compile_program
    try:
        from adbridge.backends.reference import fast
    except ImportError as exc:
        raise BackendUnavailable(
            f"backend 'reference' with compiler={name!r} needs llvmlite 0.45 or later, which cannot be "
            f"imported ({exc}); run: pip install adbridge[fast], or leave the compiler out"
        ) from exc
    return fast.compile_program
