"""The built-in backends: name -> module, class, extra. Adding one is one file, one line here, one extra.

Users and plug-ins import an adapter's module as ``from adbridge.backends.zero import ZeroBackend``: the
attribute ``adbridge.backends`` is the function that lists the backends, not this package.
"""

from __future__ import annotations

from dataclasses import dataclass

if __name__ != "adbridge.backends":
    raise ImportError(
        f"this package was imported as {__name__!r}; import it as 'adbridge.backends', "
        "so that there is one table of backends"
    )


@dataclass(frozen=True)
class Entry:
    """Where a backend lives. `engine` is the package to import first; `default`: part of a plain run."""

    module: str
    attribute: str
    engine: str | None = None
    extra: str | None = None
    default: bool = True
    summary: str = ""


BUILTIN: dict[str, Entry] = {
    "reference": Entry("adbridge.backends.reference", "ReferenceBackend", summary="the in-house engine, on NumPy"),
    "jax": Entry("adbridge.backends.jax_backend", "JaxBackend", "jax", "jax", summary="JAX (XLA)"),
    "torch": Entry("adbridge.backends.torch_backend", "TorchBackend", "torch", "torch", summary="PyTorch"),
    "autograd": Entry(
        "adbridge.backends.autograd_backend", "AutogradBackend", "autograd", "autograd", summary="HIPS autograd"
    ),
    "finite-difference": Entry(
        "adbridge.backends.finite_difference",
        "FiniteDifferenceBackend",
        default=False,
        summary="differences of values: forward, central, complex step, Richardson",
    ),
    "symbolic": Entry(
        "adbridge.backends.symbolic",
        "SymbolicBackend",
        "sympy",
        "symbolic",
        default=False,
        summary="SymPy: expressions, differentiated",
    ),
    "zero": Entry(
        "adbridge.backends.zero",
        "ZeroBackend",
        default=False,
        summary="every derivative zero: measures overhead, fails every check",
    ),
}
