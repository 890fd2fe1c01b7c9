"""Every backend meets the contract; the zero backend and planted errors do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import adbridge as ad
import contract
from adbridge.protocol import Arrays, FlatFunction, LinearMap
from conftest import backend_params

VALUE, STRUCTURE = sorted(contract.VALUE), sorted(contract.STRUCTURE)
ALL = {**contract.VALUE, **contract.STRUCTURE}


@pytest.mark.parametrize("clause", [*VALUE, *STRUCTURE])
def test_backend_meets(clause: str, backend: str) -> None:
    ALL[clause](ad.get_backend(backend))


@pytest.mark.gpu
@pytest.mark.parametrize("clause", [*VALUE, *STRUCTURE])
@pytest.mark.parametrize("engine", backend_params("jax", "torch"))
def test_backend_meets_on_a_gpu(clause: str, engine: str) -> None:
    ALL[clause](ad.get_backend(engine, device=gpu_of(engine)))


def gpu_of(engine: str) -> str:
    """The name of the engine's GPU; skips the test where there is none."""
    others = [device for device in ad.get_backend(engine).capabilities.devices if device != "cpu"]
    if not others:
        pytest.skip(f"{engine} sees no GPU")
    return others[0]


@pytest.mark.parametrize("clause", VALUE)
def test_zero_backend_fails(clause: str) -> None:
    with pytest.raises(AssertionError):
        contract.VALUE[clause](ad.get_backend("zero"))


@pytest.mark.parametrize("clause", STRUCTURE)
def test_zero_backend_has_the_structure(clause: str) -> None:
    contract.STRUCTURE[clause](ad.get_backend("zero"))


class _Delegate(ad.Backend):
    """Everything but the derivatives, from another backend."""

    name = "delegate"
    inner: ad.Backend

    def __init__(self, inner: str) -> None:
        self.inner = ad.get_backend(inner)
        # The inner engine's arrays are this backend's: operators nest as the inner backend's do.
        self.name = inner  # type: ignore[misc]
        super().__init__()

    @property
    def capabilities(self) -> ad.Capabilities:
        return self.inner.capabilities

    @property
    def engine_version(self) -> str:
        return self.inner.engine_version

    @property
    def namespace(self) -> Any:
        return self.inner.namespace

    def owns(self, array: object) -> bool:
        return self.inner.owns(array)

    def from_numpy(self, array: Any) -> Any:
        return self.inner.from_numpy(array)

    def to_numpy(self, array: Any) -> Any:
        return self.inner.to_numpy(array)

    def scope(self, dtypes: Any) -> Any:
        return self.inner.scope(dtypes)

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        return self.inner.jvp(fun, primals, tangents)

    def vjp(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        return self.inner.vjp(fun, primals)


class OnlyForward(_Delegate):
    """Has a jvp; its vjp is the protocol's."""

    vjp = ad.Backend.vjp


class OnlyReverse(_Delegate):
    """Has a vjp; its jvp is the protocol's."""

    jvp = ad.Backend.jvp


@pytest.mark.parametrize("inner", backend_params("reference", "torch"))
@pytest.mark.parametrize("kind", [OnlyForward, OnlyReverse])
@pytest.mark.parametrize("clause", [*VALUE, *STRUCTURE])
def test_derived_modes_meet(clause: str, kind: type[_Delegate], inner: str) -> None:
    ALL[clause](kind(inner))


class ComplexStep(ad.Backend):
    """Forward mode by the complex step, f'(x) t = Im f(x + i h t) / h: no rule and no engine at all."""

    name = "complex-step"

    @property
    def capabilities(self) -> ad.Capabilities:
        return ad.Capabilities(modes=("forward",), dtypes=("float64",), max_order=1)

    @property
    def engine_version(self) -> str:
        return np.__version__

    @property
    def namespace(self) -> Any:
        return np

    def owns(self, array: object) -> bool:
        return False

    def from_numpy(self, array: Any) -> Any:
        return array

    def to_numpy(self, array: Any) -> Any:
        return np.array(array)

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        outs, aux = fun(*primals)
        stepped, _ = fun(*(x + 1e-200j * t for x, t in zip(primals, tangents, strict=True)))
        return outs, tuple(np.asarray(out.imag * 1e200) for out in stepped), aux


FIRST_ORDER = [
    "grad_closed_form",
    "value_and_grad_closed_form",
    "jvp_closed_form",
    "vjp_closed_form",
    "jacobian_wide_in_all_modes",
    "jacobian_tall_in_all_modes",
    "jacobian_of_matrices",
    "jacobian_of_scalar_input",
    "jacobian_of_trees",
    "trees_out",
    "vjp_fn_is_linear_and_repeatable",
]


@pytest.mark.parametrize("clause", FIRST_ORDER)
def test_a_backend_without_an_engine_meets(clause: str) -> None:
    contract.VALUE[clause](ComplexStep())


class SlightlyWrong(_Delegate):
    """0.1% off in the last entry of every result of one mode."""

    def __init__(self, mode: str) -> None:
        super().__init__("reference")
        self.mode = mode

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        outs, pushed, aux = self.inner.jvp(fun, primals, tangents)
        return outs, self._spoil(pushed) if self.mode == "forward" else pushed, aux

    def vjp(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        outs, pullback, aux = self.inner.vjp(fun, primals)
        return outs, lambda cts: self._spoil(pullback(cts)) if self.mode == "reverse" else pullback(cts), aux

    def _spoil(self, parts: Arrays) -> Arrays:
        return tuple(p * self._factor(p.shape, p.dtype) for p in parts)

    def _factor(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        factor = np.ones(shape, dtype)
        factor.reshape(-1)[-1:] = 1.001
        return factor


@pytest.mark.parametrize(
    ("mode", "clause"),
    [
        ("reverse", "grad_closed_form"),
        ("reverse", "value_and_grad_closed_form"),
        ("reverse", "vjp_closed_form"),
        ("reverse", "jacobian_wide_in_all_modes"),
        ("reverse", "jacobian_of_scalar_input"),
        ("reverse", "dtype_float32"),
        ("reverse", "complex_gradient"),
        ("reverse", "grad_of_grad"),
        ("reverse", "prepared_is_the_same"),
        ("forward", "jvp_closed_form"),
        ("forward", "jacobian_wide_in_all_modes"),
        ("forward", "jacobian_of_scalar_input"),
        ("forward", "jvp_of_jvp"),
        ("forward", "jvp_of_grad"),
        ("forward", "strange_layouts"),
        ("forward", "perturbations_are_not_confused"),
    ],
)
def test_an_entry_off_by_a_thousandth_is_caught(mode: str, clause: str) -> None:
    with pytest.raises(AssertionError):
        contract.VALUE[clause](SlightlyWrong(mode))
