"""Nothing heavy is imported before it is used, nor an engine started before it is asked to compute."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENGINES = {"jax", "jaxlib", "torch", "autograd", "tensorflow", "sympy"}
HEAVY = ENGINES | {"pandas", "rich", "click", "matplotlib", "scipy"}


def imported_after(code: str) -> set[str]:
    """Top-level names of the modules in a fresh interpreter that ran `code`."""
    program = f"{code}\nimport sys\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_adbridge_imports_nothing_heavy() -> None:
    assert not imported_after("import adbridge") & HEAVY


def test_the_reference_needs_no_engine() -> None:
    code = """
import adbridge as ad, numpy as np
assert ad.grad(lambda x: x * x)(3.0) == 6
assert ad.jacobian(lambda x: x * x)(np.ones(2)).shape == (2, 2)
ad.prepare(ad.value_and_grad(lambda x: np.sum(np.sin(x) * x)), np.ones(3))(np.zeros(3))
ad.vjp(lambda p: p["a"] * 2, {"a": 1.0})[1](1.0)
ad.array_namespace(np.ones(2), object())
"""
    assert not imported_after(code) & HEAVY


@pytest.mark.slow  # engines take seconds to import
@pytest.mark.parametrize("name", ["jax", "torch", "autograd"])
def test_one_engine_imports_no_other(name: str) -> None:
    pytest.importorskip(name)
    code = f"import adbridge as ad\nassert ad.grad(lambda x: x * x, backend={name!r})(3.0) == 6"
    own = {"jax": {"jax", "jaxlib", "scipy"}, "torch": {"torch", "sympy"}, "autograd": {"autograd", "scipy"}}[name]
    found = imported_after(code)
    assert name in found and not found & ENGINES - own


def test_asking_for_jax_does_not_start_it() -> None:
    pytest.importorskip("jax")
    code = """
import adbridge as ad
backend = ad.get_backend("jax")
assert backend.owns(1.0) is False and backend.engine_version and backend.namespace
repr(backend), ad.grad(lambda x: x, backend="jax")
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""
    imported_after(code)


def test_asking_which_backends_there_are_imports_none() -> None:
    code = """
import adbridge as ad
from adbridge.registry import default_names, is_installed, table
assert "reference" in default_names() and is_installed("zero") and len(table()) >= 5
"""
    assert not imported_after(code) & HEAVY
