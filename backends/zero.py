"""The zero backend: runs the function on NumPy and returns zero for every derivative.

It measures what adbridge itself costs, and must fail every check of a derivative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from adbridge.protocol import Array, Arrays, Backend, Capabilities, FlatFunction, LinearMap, read_only


class ZeroBackend(Backend):
    """All derivatives zero."""

    name = "zero"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(dtypes=("float32", "float64", "complex64", "complex128"))

    @property
    def engine_version(self) -> str:
        return np.__version__

    @property
    def namespace(self) -> Any:
        return np

    def owns(self, array: object) -> bool:
        return False

    def from_numpy(self, array: npt.NDArray[Any]) -> Array:
        return read_only(array)

    def to_numpy(self, array: Array) -> Any:
        return np.array(array)

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        outs, aux = fun(*primals)
        return outs, tuple(np.zeros_like(out) for out in outs), aux

    def vjp(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        outs, aux = fun(*primals)
        return outs, lambda cotangents: tuple(np.zeros_like(x) for x in primals), aux
