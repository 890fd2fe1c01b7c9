"""Finding and choosing backends."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import numpy as np
import pytest

import adbridge as ad
from adbridge import registry
from adbridge.backends import BUILTIN, Entry
from adbridge.backends.zero import ZeroBackend
from adbridge.protocol import Capabilities
from adbridge.registry import choose, default_names, is_installed, table
from conftest import NAMES


def test_the_table_is_the_builtin_one_and_plugins() -> None:
    assert set(BUILTIN) <= set(table())
    assert "zero" not in default_names() and set(default_names()) == {n for n in NAMES if is_installed(n)}


def test_one_object_per_name_and_options() -> None:
    assert ad.get_backend("reference") is ad.get_backend("reference")
    backend = ad.get_backend("reference")
    assert ad.get_backend(backend) is backend
    assert repr(backend) == "<backend 'reference' on cpu>"


def test_every_backend_describes_itself(backend: str) -> None:
    b = ad.get_backend(backend)
    assert b.name == backend and b.device == "cpu" and b.engine_version[0].isdigit()
    assert isinstance(b.capabilities, Capabilities)
    assert {"float32", "float64"} <= set(b.capabilities.dtypes) and "cpu" in b.capabilities.devices


def test_backends_frame() -> None:
    frame = ad.backends()
    assert list(frame.columns) == ["name", "engine_version", "devices", "capabilities", "available", "why_not"]
    assert list(frame["name"]) == list(table())
    row = frame.set_index("name").loc["reference"]
    assert row["available"] and row["why_not"] == "" and row["engine_version"] == ad.__version__
    assert "forward" in row["capabilities"] and "float64" in row["capabilities"]


# Precedence: backend= > use_backend > type of the inputs > enclosing operator > ADBRIDGE_BACKEND > reference.


def chosen(explicit: str | None = None, *leaves: Any) -> str:
    return choose(explicit, leaves)[0].name


def test_default_is_the_reference() -> None:
    assert chosen() == "reference" and chosen(None, X, 1.0) == "reference"


X = np.ones(2)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADBRIDGE_BACKEND", "zero")
    assert chosen() == "zero" and chosen("reference") == "reference"
    assert ad.grad(lambda x: x * x)(3.0) == 0
    with ad.use_backend("reference"):
        assert chosen() == "reference"
    monkeypatch.setenv("ADBRIDGE_BACKEND", "")
    assert chosen() == "reference"


def test_explicit_comes_before_use_backend() -> None:
    with ad.use_backend("zero"):
        assert chosen() == "zero" and chosen("reference") == "reference"


def test_use_backend_nests_and_ends() -> None:
    with ad.use_backend("zero") as outer:
        assert outer is ad.get_backend("zero")
        with ad.use_backend("reference"):
            assert chosen() == "reference"
        assert chosen() == "zero"
        with pytest.raises(ZeroDivisionError), ad.use_backend("reference"):
            raise ZeroDivisionError
        assert chosen() == "zero"
    assert chosen() == "reference"


def test_use_backend_holds_for_this_thread_only() -> None:
    seen: list[str] = []
    with ad.use_backend("zero"):
        thread = threading.Thread(target=lambda: seen.append(chosen()))
        thread.start()
        thread.join()
        copied = contextvars.copy_context()
    assert seen == ["reference"] and copied.run(chosen) == "zero"


def test_the_inputs_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("ADBRIDGE_BACKEND", "zero")
    x = torch.tensor([3.0])
    assert chosen(None, x) == "torch" and choose(None, [x])[1] and not choose(None, [X])[1]
    assert ad.grad(lambda x: (x * x).sum())(x).tolist() == [6.0]
    # An array that is not differentiated chooses, too.
    got = ad.grad(lambda x, w: (x * w).sum())(np.ones(1, np.float32), x)
    assert isinstance(got, torch.Tensor) and got.tolist() == [3.0]


def test_jax_arrays_choose_jax() -> None:
    jnp = pytest.importorskip("jax.numpy")
    assert chosen(None, jnp.ones(2)) == "jax"
    assert float(ad.grad(lambda x: x * x)(jnp.asarray(3.0))) == 6.0


def test_use_backend_comes_before_the_inputs() -> None:
    torch = pytest.importorskip("torch")
    with ad.use_backend("reference"), pytest.raises(ad.MixedBackends, match="'reference' was given arrays of 'torch'"):
        ad.grad(lambda x: x.sum())(torch.ones(2))


def test_inner_operators_take_the_enclosing_backend(backend: str) -> None:
    seen: list[str] = []

    def fun(x: Any) -> Any:
        seen.append(chosen())
        return ad.grad(lambda y: y * y * x)(2.0)  # 4 x: the inner call is given a float alone

    assert ad.grad(fun, backend=backend)(1.5) == 4.0
    assert set(seen) == {backend} and chosen() == "reference"


def test_use_backend_inside_another_engines_operator() -> None:
    seen: list[str] = []

    def fun(x: Any) -> Any:
        with ad.use_backend("zero"):
            seen.append(chosen())
        seen.append(chosen())
        return x * float(ad.grad(lambda y: y * y, backend="zero")(3.0))

    assert ad.grad(fun, backend="reference")(2.0) == 0
    assert seen == ["zero", "reference"]


def test_array_namespace() -> None:
    assert ad.array_namespace() is np and ad.array_namespace(1.0, X, None) is np
    torch = pytest.importorskip("torch")
    assert ad.array_namespace(torch.ones(2), X).__name__ == "array_api_compat.torch"
    with ad.use_backend("reference"):  # says which backend differentiates, not whose array it is
        assert ad.array_namespace(torch.ones(2)).__name__ == "array_api_compat.torch"
    jnp = pytest.importorskip("jax.numpy")
    assert ad.array_namespace(jnp.ones(2)) is jnp
    with pytest.raises(ad.MixedBackends, match="arrays of jax and torch in one call"):
        ad.array_namespace(torch.ones(2), jnp.ones(2))


def test_a_backend_owes_a_mode() -> None:
    with pytest.raises(TypeError, match="Modeless must implement jvp or vjp"):
        type("Modeless", (ad.Backend,), {})


class OnDevice:
    """An array of a made-up engine."""

    dtype = np.dtype("float64")
    shape = (2,)

    def __init__(self, device: str) -> None:
        self.device = device


class TwoDevices(ZeroBackend):
    name = "two-devices"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(devices=("cpu", "fast"))

    def owns(self, array: object) -> bool:
        return isinstance(array, OnDevice)

    def device_of(self, array: Any) -> str:
        return str(array.device)


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {**registry.table(), "two-devices": Entry(__name__, "TwoDevices")}
    monkeypatch.setattr(registry, "table", lambda: entries)


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("asked", [None, "two-devices"])
@pytest.mark.parametrize("device", ["cpu", "fast"])
def test_numpy_arrays_are_placed_beside_the_engines_own(asked: str | None, device: str) -> None:
    chosen, own = choose(asked, [np.ones(2), OnDevice(device)])
    assert (chosen.name, chosen.device, own) == ("two-devices", device, True)


@pytest.mark.usefixtures("two_devices")
def test_a_device_that_was_asked_for_stays() -> None:
    for device, other in (("cpu", "fast"), ("fast", "cpu")):
        backend = ad.get_backend("two-devices", device=device)
        assert choose(backend, [OnDevice(other)])[0] is backend
    with ad.use_backend(ad.get_backend("two-devices", device="fast")) as fast:
        assert choose(None, [OnDevice("cpu")])[0] is fast


@pytest.mark.usefixtures("two_devices")
def test_an_unknown_device_does_not_change_the_backend() -> None:
    assert choose(None, [OnDevice("elsewhere")])[0].device == "cpu"


def test_use_backend_outside_with_says_so() -> None:
    assert repr(ad.use_backend("zero")) == "<use_backend('zero'): has an effect only as `with use_backend(...):`>"
    with pytest.raises(ad.BackendNotFound, match="did you mean 'torch'"):
        ad.use_backend("torhc")


def test_the_public_names_are_what_dir_shows() -> None:
    assert dir(ad) == sorted(ad.__all__)
    for name in ad.__all__:
        assert getattr(ad, name) is not None
