"""What every bad argument raises, and that the message says what was asked, found and to be done."""

# ruff: noqa: E501  (a message is searched for in one piece)

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import adbridge as ad
from adbridge import errors, registry

X = np.ones(3)
R = "reference"


def square(x: Any) -> Any:
    return x * x


def total(x: Any) -> Any:
    return ad.array_namespace(x).sum(x * x)


@dataclass(frozen=True)
class Case:
    call: Callable[[], Any]
    error: type[ad.AdbridgeError]
    message: str


CASES = {
    # Which backend.
    "typo": Case(
        lambda: ad.get_backend("jaxx"),
        ad.BackendNotFound,
        r"no backend is called 'jaxx'; did you mean 'jax'\? known: reference, jax",
    ),
    "unknown": Case(
        lambda: ad.grad(total, backend="qqq")(X), ad.BackendNotFound, r"no backend is called 'qqq'; known: reference"
    ),
    "use unknown": Case(lambda: ad.use_backend("torhc").__enter__(), ad.BackendNotFound, "did you mean 'torch'"),
    "not a name": Case(
        lambda: ad.grad(total, backend=3)(X), ad.BackendNotFound, "asked for by name or is a Backend; got 3"
    ),  # type: ignore[arg-type]
    "empty list": Case(lambda: ad.grad(total, backend=[])(X), ad.BackendNotFound, r"got \[\]"),  # type: ignore[arg-type]
    "empty name": Case(lambda: ad.grad(total, backend="")(X), ad.BackendNotFound, "no backend is called ''"),
    "device": Case(
        lambda: ad.get_backend(R, device="cuda"),
        ad.CapabilityError,
        r"backend 'reference' has no device 'cuda' \(it has: cpu\); pass device='cpu' or another backend",
    ),
    "option": Case(
        lambda: ad.get_backend(R, speed=3),
        ad.SignatureMismatch,
        "backend 'reference': got an unexpected keyword argument 'speed'; its options: device",
    ),
    "option of a made one": Case(
        lambda: ad.get_backend(ad.get_backend(R), device="cpu"),
        ad.SignatureMismatch,
        "is made already, and options \\(device\\); pass the name 'reference'",
    ),
    # Primals.
    "integer array": Case(
        lambda: ad.grad(total, backend=R)(np.arange(3)),
        ad.NotDifferentiable,
        r"grad of total: argument 0 has dtype int64; derivatives need floating inputs: pass x.astype\(float\), or leave it out of argnums",
    ),
    "bool array": Case(lambda: ad.grad(total, backend=R)(X > 0), ad.NotDifferentiable, "has dtype bool; .* x.astype"),
    "Python int": Case(
        lambda: ad.grad(square, backend=R)(3),
        ad.NotDifferentiable,
        r"argument 0 has dtype int; derivatives need floating inputs: pass float\(x\)",
    ),
    "Python bool": Case(lambda: ad.grad(square, backend=R)(True), ad.NotDifferentiable, "has dtype bool"),
    "string": Case(
        lambda: ad.grad(square, backend=R)("abc"), ad.NotDifferentiable, "argument 0 has dtype str; .*pass an array"
    ),
    "object": Case(lambda: ad.grad(square, backend=R)(object()), ad.NotDifferentiable, "argument 0 has dtype object"),
    "object array": Case(lambda: ad.grad(total, backend=R)(X.astype(object)), ad.NotDifferentiable, "has dtype object"),
    "within a tree": Case(
        lambda: ad.grad(lambda p: p["a"][1], backend=R)({"a": (1.0, 2)}),
        ad.NotDifferentiable,
        r"argument 0\['a'\]\[1\] has dtype int",
    ),
    "of another argument": Case(
        lambda: ad.grad(lambda x, y: x, argnums=(0, 1), backend=R)(1.0, 2),
        ad.NotDifferentiable,
        "argument 1 has dtype int",
    ),
    "longdouble": Case(
        lambda: ad.grad(total, backend=R)(X.astype(np.longdouble)),
        ad.CapabilityError,
        r"has dtype float128, which backend 'reference' does not differentiate \(it has: float32, float64.*convert it or choose another",
    ),
    "clongdouble": Case(
        lambda: ad.grad(total, backend=R)(X.astype(np.clongdouble)),
        ad.CapabilityError,
        "has dtype complex256, which backend",
    ),
    "float16": Case(lambda: ad.grad(total, backend=R)(X.astype(np.float16)), ad.CapabilityError, "has dtype float16"),
    "masked": Case(
        lambda: ad.grad(total, backend=R)(np.ma.array(X, mask=X > 0)),
        ad.SignatureMismatch,
        r"masked array, whose mask no engine keeps; pass x.filled",
    ),
    "jvp of int": Case(
        lambda: ad.jvp(square, (3,), (1.0,), backend=R), ad.NotDifferentiable, "jvp of square: argument 0 has dtype int"
    ),
    "vjp of int": Case(
        lambda: ad.vjp(square, 3, backend=R), ad.NotDifferentiable, "vjp of square: argument 0 has dtype int"
    ),
    # argnums.
    "argnums too large": Case(
        lambda: ad.grad(square, argnums=1, backend=R)(1.0),
        ad.SignatureMismatch,
        r"argnums=1 needs positional arguments that were not given \(got 1\); pass differentiated arguments by position",
    ),
    "argnums too small": Case(
        lambda: ad.grad(square, argnums=-2, backend=R)(1.0), ad.SignatureMismatch, "argnums=-2 needs positional"
    ),
    "argnums by keyword": Case(lambda: ad.grad(square, backend=R)(x=1.0), ad.SignatureMismatch, "got 0"),
    "argnums twice": Case(
        lambda: ad.grad(lambda x, y: x, argnums=(0, -2), backend=R)(1.0, 1.0),
        ad.SignatureMismatch,
        r"argnums=\(0, -2\) names one argument twice; give each once",
    ),
    "argnums float": Case(
        lambda: ad.grad(square, argnums=1.0),
        ad.SignatureMismatch,
        "needs argnums as an int or a tuple of ints; got 1.0",
    ),  # type: ignore[arg-type]
    "argnums str": Case(
        lambda: ad.grad(square, argnums="x"),
        ad.SignatureMismatch,
        "needs argnums as an int or a tuple of ints; got 'x'",
    ),  # type: ignore[arg-type]
    # Outputs.
    "vector output": Case(
        lambda: ad.grad(square, backend=R)(X),
        ad.NotDifferentiable,
        r"grad needs a function with one scalar output; square returned float64\[3\]; use jacobian or vjp \(or has_aux",
    ),
    "shape (1,)": Case(lambda: ad.grad(square, backend=R)(X[:1]), ad.NotDifferentiable, r"returned float64\[1\]"),
    "two outputs": Case(
        lambda: ad.grad(lambda x: (x, x), backend=R)(1.0),
        ad.NotDifferentiable,
        r"returned \('float64\[\]', 'float64\[\]'\)",
    ),
    "scalar in a list": Case(
        lambda: ad.grad(lambda x: [x], backend=R)(1.0), ad.NotDifferentiable, r"returned \['float64\[\]'\]"
    ),
    "no output": Case(
        lambda: ad.grad(lambda x: None, backend=R)(1.0),
        ad.NotDifferentiable,
        "one scalar output; <lambda> returned None",
    ),
    "complex output": Case(
        lambda: ad.grad(square, backend=R)(1j),
        ad.NotDifferentiable,
        r"grad needs a real output; square returned complex128\[\]; differentiate its real and imaginary parts, or use jvp or vjp",
    ),
    "integer output": Case(
        lambda: ad.grad(lambda x: 3, backend=R)(1.0),
        ad.NotDifferentiable,
        "grad of <lambda>: output is of type int; derivatives need arrays of floating dtype",
    ),
    "boolean output": Case(
        lambda: ad.jvp(lambda x: (x, x > 0), (X,), (X,), backend=R),
        ad.NotDifferentiable,
        r"jvp of <lambda>: output\[1\] is bool\[3\]; .*return it as aux, with has_aux=True",
    ),
    "string output": Case(
        lambda: ad.vjp(lambda x: {"k": "text"}, X, backend=R), ad.NotDifferentiable, r"output\['k'\] is of type str"
    ),
    "object output": Case(
        lambda: ad.vjp(lambda x: np.array([None]), X, backend=R), ad.NotDifferentiable, r"output is object\[1\]"
    ),
    "aux missing": Case(
        lambda: ad.grad(total, has_aux=True, backend=R)(X),
        ad.SignatureMismatch,
        r"grad with has_aux=True needs a function that returns \(output, aux\); total returned Tracer",
    ),
    "aux of three": Case(
        lambda: ad.jvp(lambda x: (x, x, x), (X,), (X,), has_aux=True, backend=R), ad.SignatureMismatch, "returned tuple"
    ),
    # Tangents.
    "not a tuple": Case(
        lambda: ad.jvp(square, X, X, backend=R),
        ad.SignatureMismatch,
        "jvp needs primals as a tuple, one per argument; got ndarray",
    ),  # type: ignore[arg-type]
    "hvp of no tuple": Case(
        lambda: ad.hvp(total, X, (X,), backend=R), ad.SignatureMismatch, "hvp needs primals as a tuple"
    ),
    "tangent not a tuple": Case(
        lambda: ad.jvp(square, (X,), X, backend=R), ad.SignatureMismatch, "jvp needs tangents as a tuple"
    ),  # type: ignore[arg-type]
    "tangent count": Case(
        lambda: ad.jvp(square, (X,), (X, X), backend=R),
        ad.SignatureMismatch,
        r"tangents must have the tree structure of primals: expected \(\*,\), got \(\*, \*\)",
    ),
    "tangent shape": Case(
        lambda: ad.jvp(square, (X,), (X[:2],), backend=R),
        ad.SignatureMismatch,
        r"tangents\[0\] has the wrong shape: expected float64\[3\] like primals, got float64\[2\]; convert it to the shape",
    ),
    "tangent scalar": Case(
        lambda: ad.jvp(square, (X,), (1.0,), backend=R),
        ad.SignatureMismatch,
        r"wrong shape: expected float64\[3\] like primals, got float64\[\]",
    ),
    "tangent dtype": Case(
        lambda: ad.jvp(square, (X,), (X.astype(np.float32),), backend=R),
        ad.SignatureMismatch,
        r"wrong dtype: expected float64\[3\] like primals, got float32\[3\]; convert it to the dtype",
    ),
    "tangent int": Case(
        lambda: ad.jvp(square, (X,), (np.ones(3, int),), backend=R), ad.SignatureMismatch, "wrong dtype: .* got int64"
    ),
    "tangent complex": Case(
        lambda: ad.jvp(square, (1.0,), (1j,), backend=R),
        ad.SignatureMismatch,
        r"tangents\[0\] must be an array like that of primals, got complex",
    ),
    "tangent tree": Case(
        lambda: ad.jvp(lambda p: p["a"], ({"a": X},), ({"b": X},), backend=R),
        ad.SignatureMismatch,
        r"expected \(\{'a': \*\},\), got \(\{'b': \*\},\)",
    ),
    "tangent None": Case(lambda: ad.jvp(square, (X,), (None,), backend=R), ad.SignatureMismatch, r"got \(None,\)"),
    "tangent string": Case(
        lambda: ad.jvp(square, (X,), ("t",), backend=R),
        ad.SignatureMismatch,
        r"tangents\[0\] must be an array like that of primals, got str",
    ),
    # Cotangents.
    "cotangent shape": Case(
        lambda: ad.vjp(square, X, backend=R)[1](X[:2]),
        ad.SignatureMismatch,
        r"cotangents has the wrong shape: expected float64\[3\] like the output",
    ),
    "cotangent dtype": Case(
        lambda: ad.vjp(square, X, backend=R)[1](X.astype(np.float32)),
        ad.SignatureMismatch,
        "wrong dtype: .* like the output",
    ),
    "cotangent tree": Case(
        lambda: ad.vjp(square, X, backend=R)[1]((X,)),
        ad.SignatureMismatch,
        r"cotangents must have the tree structure of the output: expected \*, got \(\*,\)",
    ),
    "cotangent dict": Case(
        lambda: ad.vjp(lambda x: {"a": x}, X, backend=R)[1]({"b": X}),
        ad.SignatureMismatch,
        r"expected \{'a': \*\}, got \{'b': \*\}",
    ),
    "cotangent masked": Case(
        lambda: ad.vjp(square, X, backend=R)[1](np.ma.array(X)), ad.SignatureMismatch, "masked array"
    ),
    # Options.
    "mode": Case(
        lambda: ad.jacobian(square, mode="sideways"),
        ad.CapabilityError,
        "jacobian has no mode 'sideways'; choose one of 'auto', 'forward', 'reverse'",
    ),
    "sparsity": Case(
        lambda: ad.jacobian(square, sparsity="auto"),
        ad.CapabilityError,
        r"jacobian\(sparsity=...\) is not supported yet; leave it out",
    ),  # type: ignore[arg-type]
    "forward complex": Case(
        lambda: ad.jacobian(square, mode="forward", backend=R)(1j * X),
        ad.NotDifferentiable,
        "jacobian of square by forward mode needs real inputs, got complex ones; use mode='reverse' if the outputs are real",
    ),
    "reverse complex": Case(
        lambda: ad.jacobian(lambda x: 1j * x, mode="reverse", backend=R)(X),
        ad.NotDifferentiable,
        "by reverse mode needs real outputs, got complex ones; use mode='forward' if the inputs are real",
    ),
    "holomorphic": Case(lambda: ad.jacobian(square, backend=R)(1j * X), ad.NotDifferentiable, "or else jvp or vjp"),
    "prepare": Case(
        lambda: ad.prepare(square, X),
        ad.SignatureMismatch,
        "prepare needs what grad, value_and_grad or jacobian return; got <function square",
    ),  # type: ignore[arg-type]
    "prepare aux": Case(
        lambda: ad.prepare(ad.grad(square, has_aux=True), X),
        ad.CapabilityError,
        "prepare of an operator with has_aux=True is not supported yet",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name: str) -> None:
    case = CASES[name]
    with pytest.raises(case.error, match=case.message) as caught:
        case.call()
    assert type(caught.value) is case.error


ENGINE_FREE = ["vector output", "complex output", "integer output", "boolean output", "aux of three", "tangent shape",
               "tangent dtype", "tangent tree", "cotangent shape", "cotangent tree", "integer array", "Python int",
               "string", "longdouble", "masked", "argnums too large", "forward complex", "reverse complex"]  # fmt: skip


@pytest.mark.parametrize("name", ENGINE_FREE)
def test_message_is_the_same_on_every_backend(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_errors.R", backend)
    case = CASES[name]
    with pytest.raises(
        case.error, match=case.message.replace("'reference'", f"'{backend}'").replace("float32, float64", ".*")
    ):
        case.call()


def test_prepared_says_what_it_was_prepared_for() -> None:
    prepared = ad.prepare(ad.grad(lambda x, n: (x**n).sum(), backend=R), X, 2)
    wrong: list[tuple[tuple[Any, ...], str]] = [
        (
            (X[:2], 2),
            r"argument 0 has the wrong shape: expected float64\[3\] like the example it was prepared with, got float64\[2\]",
        ),
        ((X.astype(np.float32), 2), "argument 0 has the wrong dtype"),
        (
            (X, 3),
            r"prepared for arguments \(float64\[3\], 2\), called with \(float64\[3\], 3\); prepare it again for these",
        ),
        ((X, 2.0), r"called with \(float64\[3\], 2.0\)"),
        (([X], 2), r"prepared for arguments .*called with \(\[float64\[3\]\], 2\)"),
    ]
    for args, message in wrong:
        with pytest.raises(ad.SignatureMismatch, match=message):
            prepared(*args)


def test_arrays_of_two_engines() -> None:
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    t, j = torch.ones(3), jnp.ones(3)
    mixed = r"arrays of jax and torch in one call; convert them to one engine \(or to NumPy\) first"
    with pytest.raises(ad.MixedBackends, match=mixed):
        ad.grad(lambda x, y: x)(t, j)
    with pytest.raises(ad.MixedBackends, match=mixed):
        ad.jvp(square, (t,), (j,))
    other = (
        "backend 'jax' was given arrays of 'torch'; pass backend='torch', or NumPy arrays, which every backend takes"
    )
    with pytest.raises(ad.MixedBackends, match=other):
        ad.grad(total, backend="jax")(t)
    with pytest.raises(ad.MixedBackends, match=other):
        ad.vjp(square, X.astype(np.float32), backend="jax")[1](t)
    with pytest.raises(ad.MixedBackends, match="'reference' was given arrays of 'jax'"):
        ad.prepare(ad.grad(total, backend="reference"), X)(j)


def test_tracers_of_another_backend() -> None:
    pytest.importorskip("jax")
    with pytest.raises(ad.MixedBackends, match="'jax' was given arrays of 'reference'"):
        ad.grad(lambda x: ad.grad(lambda y: y * y, backend="jax")(x), backend="reference")(1.0)


def test_engine_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else found(name, *a))
    registry._load.cache_clear()
    message = r"backend 'torch' needs the package 'torch', which is not installed; run: pip install 'adbridge\[torch\]'"
    with pytest.raises(ad.BackendUnavailable, match=message):
        ad.grad(total, backend="torch")(X)
    row = ad.backends().set_index("name").loc["torch"]
    assert not row["available"] and "not installed" in row["why_not"]
    assert "torch" not in registry.default_names()
    registry._load.cache_clear()


def test_engine_that_fails_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, package: str | None = None) -> Any:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    pytest.importorskip("autograd")
    registry._load.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(registry.importlib, "import_module", broken)
        with pytest.raises(
            ad.BackendUnavailable, match=r"installed but failed to import: libcudart.*try: pip install"
        ) as caught:
            ad.get_backend("autograd")
    assert isinstance(caught.value.__cause__, ImportError)
    registry._load.cache_clear()


def test_the_tree() -> None:
    found = {n: c for n, c in vars(errors).items() if inspect.isclass(c)}
    assert all(issubclass(c, ad.AdbridgeError) for c in found.values())
    assert all(getattr(ad, name) is c for name, c in found.items())
    # Also what a caller who does not know adbridge would catch.
    assert issubclass(ad.BackendNotFound, LookupError) and issubclass(ad.BackendUnavailable, ImportError)
    assert issubclass(ad.SignatureMismatch, TypeError) and issubclass(ad.NotDifferentiable, TypeError)


def test_the_functions_own_errors_pass_unchanged(backend: str) -> None:
    class Mine(Exception):
        pass

    def fun(x: Any) -> Any:
        raise Mine("from the function")

    for call in (
        lambda: ad.grad(fun, backend=backend)(1.0),
        lambda: ad.jvp(fun, (1.0,), (1.0,), backend=backend),
        lambda: ad.vjp(fun, 1.0, backend=backend),
        lambda: ad.jacobian(fun, backend=backend)(1.0),
    ):
        with pytest.raises(Mine, match="from the function"):
            call()


def test_unknown_public_name() -> None:
    with pytest.raises(AttributeError, match="module 'adbridge' has no attribute 'gradient'"):
        ad.gradient  # noqa: B018


def test_prepared_names_keywords_and_seeds() -> None:
    prepared = ad.prepare(ad.grad(lambda x, *, p: (x * p["w"]).sum(), backend=R), X, p={"w": X})
    with pytest.raises(ad.SignatureMismatch, match=r"argument 'p'\['w'\] has the wrong shape: expected float64\[3\]"):
        prepared(X, p={"w": X[:1]})
    with pytest.raises(ad.SignatureMismatch, match=r"prepared for arguments .*called with"):
        prepared(X, p={"v": X})
