"""PyTorch. Plain `torch.autograd` where it can be used, `torch.func` inside functorch transforms.

`torch.func.grad` needs 2.8 times the memory of `torch.autograd.grad` on an elementwise chain, so the
reverse mode builds an ordinary graph. PyTorch's complex gradients are the conjugates of JAX's
convention, which is ours: cotangents are conjugated on their way in and out.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import cache, cached_property
from itertools import count
from typing import Any

import array_api_compat.torch
import numpy as np
import numpy.typing as npt
import torch
import torch.utils.checkpoint
from torch._C import _functorch

from adbridge.backends.stretches import in_stretches
from adbridge.protocol import PROCESS_WIDE, Array, Arrays, Backend, Capabilities, Compiled, FlatFunction, LinearMap
from adbridge.registry import within
from adbridge.rule_calls import RuleCall


class TorchBackend(Backend):
    """Adapter of PyTorch; ``device`` is ``"cpu"`` or ``"cuda"`` (``"gpu"`` means the same).

    A result is part of the caller's own graph if one of the inputs requires grad.
    """

    name = "torch"
    late_imports = (
        "torch.fx.experimental.symbolic_shapes",  # by autograd.grad with grad_outputs
        "torch._decomp.decompositions_for_jvp",  # by func.jvp
        "torch._inductor.standalone_compile",  # by the profiler
    )

    def __init__(self, device: str = "cpu") -> None:
        super().__init__("cuda" if device == "gpu" else device)

    @cached_property
    def capabilities(self) -> Capabilities:  # cached: asking CUDA is slow
        return Capabilities(
            devices=("cpu", "cuda") if torch.cuda.is_available() else ("cpu",),
            dtypes=("bfloat16", "float16", "float32", "float64", "complex64", "complex128"),
            batching=True,
        )

    @property
    def engine_version(self) -> str:
        return str(torch.__version__)

    @property
    def namespace(self) -> Any:
        return ArrayNamespace

    def owns(self, array: object) -> bool:
        return isinstance(array, torch.Tensor)

    def from_numpy(self, array: npt.NDArray[Any]) -> Array:
        # A copy: torch functions may write in place, and torch takes neither negative strides nor swapped bytes.
        native = array.astype(array.dtype.newbyteorder("="), order="C", copy=True)
        if native.dtype.name == "bfloat16":
            return torch.from_numpy(native.view(np.int16)).view(torch.bfloat16).to(self.device)
        return torch.from_numpy(native).to(self.device)

    def to_numpy(self, array: Array) -> Any:
        if _functorch.is_functorch_wrapped_tensor(array):
            return array
        host = _materialised(array).detach().cpu().resolve_conj().resolve_neg()
        if host.dtype is torch.bfloat16:  # NumPy has it where bfloat16 arrays came in as NumPy's
            return np.array(host.contiguous().view(torch.int16).numpy()).view("bfloat16")
        # Always a copy: an expanded result is not writable, a constant of the function is its caller's.
        return np.array(host.numpy())

    def one_hot(self, places: npt.NDArray[np.int64], like: Array) -> Array:
        rows = torch.as_tensor(places, device=like.device)[:, None]
        hits = rows == torch.arange(like.numel(), device=like.device)
        return hits.to(like.dtype).reshape(len(places), *like.shape)

    def device_of(self, array: Array) -> str:
        return str(array.device.type)

    def synchronize(self, arrays: Sequence[Array]) -> None:
        if any(array.is_cuda for array in arrays):
            torch.cuda.synchronize()

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        if not primals:  # torch.func.jvp takes no fewer than one
            outs, aux = fun()
            return outs, tuple(torch.zeros_like(out) for out in outs), aux
        _load_forward_rules()
        with PROCESS_WIDE:
            outs, pushed, aux = torch.func.jvp(fun, primals, tangents, has_aux=True)  # type: ignore[misc]  # three with aux
        # A 0-d float32 tensor plus a Python number has a float64 tangent in torch.
        return outs, tuple(_materialised(t).to(out.dtype) for t, out in zip(pushed, outs, strict=True)), aux

    def vjp(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        if _in_functorch():
            return _functorch_vjp(fun, primals)
        graph = _Graph(self, fun, primals)
        return graph.outs, lambda cotangents: graph.pull(cotangents, keep=True), graph.aux

    def value_and_grad(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        if _in_functorch():
            return super().value_and_grad(fun, primals)
        graph = _Graph(self, fun, primals)  # pulled back once: its buffers are freed on the way
        return graph.outs, graph.pull((torch.ones_like(graph.outs[0]),), keep=False), graph.aux

    def jvp_batch(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
        def push(*seed: Array) -> tuple[Arrays, Arrays]:
            return self.jvp(fun, primals, seed)[:2]

        return torch.func.vmap(push, out_dims=(None, 0), randomness="same")(*tangents)  # type: ignore[arg-type]  # None is legal

    def vjp_batch(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap]:
        if any(p.is_complex() for p in primals):  # vmap has no rule for conj
            return super().vjp_batch(fun, primals)
        if not _in_functorch():
            # The function itself runs as it is: it may draw random numbers, and use rules that vmap lacks.
            graph = _Graph(self, fun, primals)
            return graph.outs, lambda cotangents: graph.pull(cotangents, keep=True, batch=len(cotangents[0]))
        outs, pullback, _ = _functorch_vjp(fun, primals)
        batched = torch.func.vmap(lambda *cotangents: pullback(cotangents))
        return outs, lambda cotangents: batched(*cotangents)

    def checkpoint(self, fun: Callable[..., Arrays], arrays: Arrays) -> Arrays:
        if _in_functorch():  # whose transforms do not take saved-tensor hooks
            return fun(*arrays)
        context = copy_context()  # the backend in force, which the way back need not be within

        def run(*arrays: Array) -> Arrays:
            return context.copy().run(fun, *arrays)

        outs: Arrays = torch.utils.checkpoint.checkpoint(run, *arrays, use_reentrant=False)
        return outs

    def checkpoint_loop(self, step: Callable[..., Arrays], state: Arrays, steps: int, snapshots: int) -> Arrays:
        return in_stretches(self.checkpoint, step, state, steps, snapshots)

    def custom_rule(self, call: RuleCall, arrays: Arrays) -> Arrays:
        from adbridge.backends.torch_rules import ruled

        return ruled(call, arrays)

    def stop_gradient(self, array: Array) -> Array:
        return array.detach()

    def peak_alloc(self, compiled: Compiled, arrays: Arrays) -> tuple[int, str]:
        if any(array.is_cuda for array in arrays):
            return _peak_cuda(compiled, arrays)
        return _peak_cpu(compiled, arrays)


class _ArrayNamespace:
    """array_api_compat's namespace, but for functions that have no derivative in torch and could have one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(array_api_compat.torch, name)

    def floor_divide(self, x1: Any, x2: Any, /) -> Any:
        return array_api_compat.torch.divide(x1, x2, rounding_mode="floor")


ArrayNamespace = _ArrayNamespace()


def _in_functorch() -> bool:
    """Whether torch.autograd cannot be used: in a torch.func transform, and in inference mode."""
    return _functorch.peek_interpreter_stack() is not None or torch.is_inference_mode_enabled()


@cache
def _load_forward_rules() -> None:
    """What torch imports at the first use of forward mode; it warns of its own use of torch.jit.script."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


class _Graph:
    """One run of a function on tensors that require grad; the graph lives as long as this does."""

    def __init__(self, backend: TorchBackend, fun: FlatFunction, primals: Arrays) -> None:
        # Within another operator, or on tensors of the caller's graph, derivatives are differentiable again.
        self.nested = within(backend) or (torch.is_grad_enabled() and any(p.requires_grad for p in primals))
        with torch.enable_grad():
            self.primals = tuple(_leaf(p) if not (self.nested and p.requires_grad) else p.view_as(p) for p in primals)
            outs, aux = fun(*self.primals)
        self._outs = outs
        self.outs = tuple(out if self.nested else out.detach() for out in outs)
        self.aux = tuple(a if self.nested else a.detach() for a in aux)

    def pull(self, cotangents: Arrays, keep: bool, batch: int | None = None) -> Arrays:
        """Cotangents of the primals; of `batch` cotangents stacked along a new first axis, likewise."""
        live = [(out, ct) for out, ct in zip(self._outs, cotangents, strict=True) if out.requires_grad]
        if not live or not self.primals:
            return tuple(_zeros(p, batch) for p in self.primals)
        create = self.nested or any(ct.requires_grad for _, ct in live)
        with torch.enable_grad() if create else torch.no_grad():
            grads = torch.autograd.grad(
                [out for out, _ in live],
                self.primals,
                [_conj(ct) for _, ct in live],
                retain_graph=keep or create,
                create_graph=create,
                allow_unused=True,
                is_grads_batched=batch is not None,
            )
        return tuple(
            _zeros(p, batch) if g is None else _materialised(_conj(g)) for g, p in zip(grads, self.primals, strict=True)
        )


def _zeros(like: Array, batch: int | None) -> Array:
    return like.new_zeros(like.shape if batch is None else (batch, *like.shape))


def _leaf(tensor: Array) -> Array:
    # A tensor made in inference mode cannot require grad outside of it; its clone can.
    leaf = (tensor.clone() if tensor.is_inference() else tensor.detach()).requires_grad_()
    leaf.adbridge_serial = leaves_made()
    return leaf


_serials = count()


def leaves_made() -> int:
    """A number that grows with every variable that an operator makes."""
    return next(_serials)


def is_made_since(leaf: Array, since: int) -> bool:
    """Whether an operator has made this variable after `leaves_made` returned this number."""
    return getattr(leaf, "adbridge_serial", -1) > since


def _materialised(tensor: Array) -> Array:
    """Torch's zero derivatives may be tensors without memory, which NumPy and in-place operations refuse."""
    return tensor.clone() if tensor._is_zerotensor() else tensor


def _conj(tensor: Array) -> Array:
    return tensor.conj() if tensor.is_complex() else tensor


def _functorch_vjp(fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
    outs, pull, aux = torch.func.vjp(fun, *primals, has_aux=True)  # type: ignore[misc]  # three with aux

    def pullback(cotangents: Arrays) -> Arrays:
        return tuple(_conj(g) for g in pull(tuple(_conj(ct) for ct in cotangents)))

    return outs, pullback, aux


def _peak_cpu(compiled: Compiled, arrays: Arrays) -> tuple[int, str]:
    """Peak of the running sum of the profiler's allocation events."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        out = compiled.call(*arrays)
        del out
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    running = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        running += event.nbytes()
        peak = max(peak, running)
    return peak, "torch profiler"


def _peak_cuda(compiled: Compiled, arrays: Arrays) -> tuple[int, str]:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = compiled.call(*arrays)
    torch.cuda.synchronize()
    del out
    return torch.cuda.max_memory_allocated() - before, "torch.cuda.max_memory_allocated"
