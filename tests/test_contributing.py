"""The README's new primitive, added as it says: everything the engine does works for it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adbridge as ad
import exact
import test_coverage
import test_rules
from adbridge.backends.reference import namespace
from adbridge.backends.reference.coverage import coverage
from adbridge.backends.reference.numbers import arrays, balls
from adbridge.backends.reference.primitives import PRIMITIVES
from rule_rows import Row
from test_rules import cases

README = (Path(__file__).parents[1] / "README.md").read_text()
(SECTION,) = re.findall(r"## Add to it\n(.*)", README, re.DOTALL)
# What each block of code is for, and the code: "path/to/file.py" or "path/to/file.py, in TABLE".
BLOCKS = re.findall(r"```python\n# ([\w/]+\.py)(?:, in (\w+))?\n(.*?)```", SECTION, re.DOTALL)
NAME = "gudermannian"
X, T = np.array([0.3, -0.7, 1.9]), np.array([1.0, 2.0, -1.0])
SLOPE, CURVATURE = 1 / np.cosh(X), -np.sinh(X) / np.cosh(X) ** 2


def _module(path: str) -> Any:
    parts = path.removesuffix(".py").split("/")
    return import_module(parts[-1] if parts[0] == "tests" else ".".join(["adbridge", *parts]))


def _add_to(path: str, code: str, folder: Path) -> None:
    """Run it as a part of that file, in a file of its own: `to_python` reads the source of implementations."""
    file = folder / "readme_rows.py"
    file.write_text(f"from {_module(path).__name__} import *\n{code}")
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    sys.modules[file.stem] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    """The test row; while it is in use, the primitive is in the tables."""
    (rules, _, code), (numbers, in_arb, item), (rows, tested, element) = BLOCKS
    table = getattr(_module(numbers), in_arb)
    try:
        _add_to(rules, code, tmp_path_factory.mktemp("rules"))
        table.update(eval(f"{{{item}}}", vars(_module(numbers))))
        arrays.implementation_of.cache_clear()
        assert isinstance(getattr(_module(rows), tested), list)
        (made,) = eval(f"[{element}]", dict(vars(_module(rows))))
        yield made
    finally:
        sys.modules.pop("readme_rows", None)
        PRIMITIVES.pop(NAME, None)
        table.pop(NAME, None)
        vars(namespace).pop(NAME, None)
        arrays.implementation_of.cache_clear()


def fun(x: Any) -> Any:
    return ad.array_namespace(x).gudermannian(x)


def total(x: Any) -> Any:
    return np.sum(fun(x))


def near(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-14, atol=1e-16)


def test_there_is_one_row_for_each_table() -> None:
    assert [path for path, _, _ in BLOCKS] == [
        "backends/reference/rules/elementwise.py",
        "backends/reference/numbers/balls.py",
        "tests/rule_rows.py",
    ]
    assert all(len(code.strip().splitlines()) == 1 for _, _, code in BLOCKS)


def test_it_is_new() -> None:
    assert NAME not in PRIMITIVES


def test_first_derivatives(row: Row) -> None:
    near(ad.grad(total)(X), SLOPE)
    near(ad.jvp(fun, (X,), (T,))[1], SLOPE * T)
    near(ad.vjp(fun, X)[1](T)[0], SLOPE * T)
    near(ad.linearize(fun, X)[1](T), SLOPE * T)
    np.testing.assert_allclose(ad.grad(total)(X.astype(np.float32)), SLOPE.astype(np.float32), rtol=1e-6)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_jacobians(row: Row, mode: str) -> None:
    near(ad.jacobian(fun, mode=mode)(X), np.diag(SLOPE))


@pytest.mark.parametrize("inner", ["forward", "reverse"])
@pytest.mark.parametrize("outer", ["forward", "reverse"])
def test_second_derivatives(row: Row, inner: str, outer: str) -> None:
    near(ad.hessian(total, mode=f"{outer}-over-{inner}")(X), np.diag(CURVATURE))


def test_taylor(row: Row) -> None:
    near(ad.taylor(fun, X, T, 2), [np.arctan(np.sinh(X)), SLOPE * T, CURVATURE * T * T / 2])


@pytest.mark.parametrize("compiler", ["numpy", "llvm"])
def test_prepared(row: Row, compiler: str) -> None:
    if compiler == "llvm":
        pytest.importorskip("llvmlite")
    gradient = ad.prepare(ad.grad(total, backend=ad.get_backend("reference", compiler=compiler)), X)
    near(gradient(X), SLOPE)
    near(gradient(2 * X), 1 / np.cosh(2 * X))


def test_trace(row: Row) -> None:
    program = ad.trace(fun, 0.3)
    assert f"v1   = {NAME}(v0)" in str(program)
    assert "dv1 = dv0 / (cosh v0)" in str(program.jvp((1.0,)))
    assert program.to_svg().startswith("<svg")
    gradient = program.vjp().program
    scope: dict[str, Any] = {}
    exec(gradient.to_python("derivative"), scope)
    for x in (0.3, -1.7):
        assert scope["derivative"](x) == gradient(x) == ad.grad(fun)(x)
    exec(program.to_python("primal"), scope)
    assert scope["primal"](0.3) == program(0.3)


def test_arb(row: Row) -> None:
    """gd'(x) = sech x, to fifty digits."""
    gradient = ad.trace(fun, 0.3).vjp().program
    (slope,) = gradient.evaluate(np.array(0.3), number="arb")
    with balls.working_precision(400):
        assert exact.digits(slope, exact.wrapped(1 / balls.ball(0.3).cosh())) >= 50


def test_the_coverage_table_has_no_hole(row: Row) -> None:
    (line,) = (line for line in coverage() if line.primitive == NAME)
    assert not line.holes()


def test_without_its_row_for_balls(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(balls.ELEMENTWISE, NAME)
    arrays.implementation_of.cache_clear()
    with pytest.raises(ad.CapabilityError, match=f"'{NAME}' does not run over Arb balls; add it to numbers/"):
        ad.trace(fun, 0.3).evaluate(np.array(0.3), number="arb")
    arrays.implementation_of.cache_clear()


def test_the_tests_of_rows_pass(row: Row) -> None:
    for case in cases(row):
        test_rules.test_tangents_in_double_precision(case)
        test_rules.test_tangents_in_single_precision(case)
        test_rules.test_derivative_programs_in_arb(case)
        test_rules.test_second_derivative_programs_in_arb(case)
        test_rules.test_transposes_in_arb(case)
        test_coverage.test_taylor_coefficients(case)
    test_coverage.test_batches_of_tangents_are_looped_ones(row)
    test_coverage.test_batches_of_cotangents_are_looped_ones(row)
    test_coverage.test_batches_of_points_are_looped_ones(row)


def test_a_wrong_slope_is_found(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    jvp = PRIMITIVES[NAME].jvp
    monkeypatch.setattr(PRIMITIVES[NAME], "jvp", lambda *args: jvp(*args) * (1 + 1e-12))
    with pytest.raises(AssertionError):
        test_rules.test_tangents_in_double_precision(cases(row)[0])
