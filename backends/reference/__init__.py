"""The reference engine: small, readable, on NumPy.

- `primitives.py`  what a primitive and its rules are      - `rules/`      the primitives, a row each
- `program.py`     the Wengert list                        - `tracer.py`   running a function on tracers
- `transforms.py`  jvp, linearize, transpose               - `namespace.py`, `methods.py`  the array API

Reverse mode keeps the NumPy arrays that meet a tracer as they are, for copies would cost a matrix product
ten times its time: a function must not write to an array after it has used it. Indices are copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from adbridge.backends.reference import methods, namespace, transforms
from adbridge.backends.reference.tracer import Tracer
from adbridge.protocol import Array, Arrays, Backend, Capabilities, FlatFunction, LinearMap, read_only

methods.install()


class ReferenceBackend(Backend):
    """The in-house engine: forward mode pushes tangents, reverse mode is linearize, then transpose."""

    name = "reference"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(dtypes=("float32", "float64", "complex64", "complex128"))

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

    def linearize(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        outs, linear, aux = transforms.linearize(fun, primals)
        return outs, lambda tangents: transforms.push(linear, tangents, outs), aux

    def jvp_batch(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
        # Linearised once; then one run of the linear program per column.
        outs, linear, _ = transforms.linearize(fun, primals)
        columns = [transforms.push(linear, tuple(t[i] for t in tangents), outs) for i in range(tangents[0].shape[0])]
        return outs, tuple(namespace.stack(parts) for parts in zip(*columns, strict=True))
