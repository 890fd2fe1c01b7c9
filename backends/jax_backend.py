"""JAX. float64 goes through the scoped x64 switch, so that JAX's global config stays as its user set it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from adbridge.backends.stretches import in_stretches
from adbridge.protocol import Array, Arrays, Backend, Capabilities, Compiled, FlatFunction, LinearMap
from adbridge.rule_calls import RuleCall

_WIDE = frozenset({"float64", "complex128", "int64", "uint64"})


class JaxBackend(Backend):
    """Adapter of JAX; ``device`` is a JAX platform name, ``"cpu"`` or ``"gpu"`` (``"cuda"`` means the same)."""

    name = "jax"

    def __init__(self, device: str = "cpu") -> None:
        super().__init__("gpu" if device == "cuda" else device)

    @cached_property
    def _device(self) -> Any:
        return jax.devices(self.device)[0]

    @cached_property
    def capabilities(self) -> Capabilities:  # cached: asking starts the engine
        return Capabilities(
            devices=tuple(dict.fromkeys(["cpu", *(device.platform for device in jax.devices())])),
            dtypes=("bfloat16", "float16", "float32", "float64", "complex64", "complex128"),
            batching=True,
            compile=True,
        )

    @property
    def engine_version(self) -> str:
        return jax.__version__

    @property
    def namespace(self) -> Any:
        return jnp

    def owns(self, array: object) -> bool:
        return isinstance(array, jax.Array)

    def scope(self, dtypes: Sequence[str]) -> AbstractContextManager[Any]:
        return jax.enable_x64(True) if _WIDE.intersection(dtypes) else nullcontext()

    def from_numpy(self, array: npt.NDArray[Any]) -> Array:
        # Copied first: on the CPU, JAX takes over the memory of an aligned array, may_alias=False or not.
        copied = np.array(array)
        if self.device == jax.default_backend():
            return jnp.asarray(copied)  # uncommitted: it follows the arrays that it meets, also under jit
        return jax.device_put(copied, self._device)

    def one_hot(self, places: npt.NDArray[np.int64], like: Array) -> Array:
        # Made on the device: under jit, a whole identity would become a constant of the executable.
        rows = jnp.asarray(places)[:, None] == jnp.arange(like.size)
        return rows.astype(like.dtype).reshape(len(places), *like.shape)

    def device_of(self, array: Array) -> str:
        if isinstance(array, jax.core.Tracer):
            return jax.default_backend()
        return str(next(iter(array.devices())).platform)

    def to_numpy(self, array: Array) -> Any:
        return array if isinstance(array, jax.core.Tracer) else np.array(array)

    def synchronize(self, arrays: Sequence[Array]) -> None:
        jax.block_until_ready(arrays)  # type: ignore[no-untyped-call]  # JAX's own annotation lacks

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        return jax.jvp(fun, primals, tangents, has_aux=True)

    def vjp(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        return jax.vjp(fun, *primals, has_aux=True)

    def linearize(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        outs, pushforward, aux = jax.linearize(fun, *primals, has_aux=True)
        return outs, lambda tangents: pushforward(*tangents), aux

    def jvp_batch(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
        def push(*seed: Array) -> tuple[Arrays, Arrays]:
            return jax.jvp(fun, primals, seed, has_aux=True)[:2]

        return jax.vmap(push, out_axes=(None, 0))(*tangents)

    def vjp_batch(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap]:
        outs, pullback, _ = jax.vjp(fun, *primals, has_aux=True)
        return outs, jax.vmap(pullback)

    def checkpoint(self, fun: Callable[..., Arrays], arrays: Arrays) -> Arrays:
        try:
            outs: Arrays = jax.checkpoint(fun)(*arrays)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
            return fun(*arrays)  # it looks at values, which jax.checkpoint hides and jax.grad shows
        return outs

    def checkpoint_loop(self, step: Callable[..., Arrays], state: Arrays, steps: int, snapshots: int) -> Arrays:
        if any(jax.dtypes.canonicalize_dtype(x.dtype) != x.dtype for x in state):
            return super().checkpoint_loop(step, state, steps, snapshots)  # NumPy's, which JAX would narrow
        return in_stretches(self.checkpoint, step, state, steps, snapshots)

    def stop_gradient(self, array: Array) -> Array:
        return jax.lax.stop_gradient(array)

    def custom_rule(self, call: RuleCall, arrays: Arrays) -> Arrays:
        if not _any_tracer(arrays) and not _any_tracer(outs := call.primal(*arrays)):
            return outs
        from adbridge.backends.jax_rules import ruled  # it imports JAX's interpreters

        return ruled(call, arrays)

    def interpreted(self, fun: Callable[..., Arrays], arrays: Arrays) -> Callable[..., Arrays]:
        from adbridge.backends import jax_programs

        return jax_programs.interpreted(fun, arrays)

    def compile(self, fun: Callable[..., Arrays], arrays: Arrays) -> Compiled:
        compiled = jax.jit(fun).lower(*arrays).compile()
        memory = compiled.memory_analysis()
        if memory is None:
            return Compiled(compiled)
        # Not `peak_memory_in_bytes`: that is wrong under scan.
        peak = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            + memory.temp_size_in_bytes
            - memory.alias_size_in_bytes
        )
        return Compiled(compiled, peak)

    def peak_alloc(self, compiled: Compiled, arrays: Arrays) -> tuple[int, str]:
        assert compiled.peak_bytes is not None, "JAX functions are measured compiled"
        return compiled.peak_bytes, "xla arg+out+temp-alias"


def _any_tracer(arrays: Arrays) -> bool:
    return any(isinstance(array, jax.core.Tracer) for array in arrays)
