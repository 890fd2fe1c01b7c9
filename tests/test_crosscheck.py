"""Cross-checking names who is wrong, where and by how much; planted errors stand for engines at fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adbridge as ad
from adbridge.backends.reference import ReferenceBackend
from adbridge.errors import CapabilityError
from adbridge.protocol import FlatFunction
from adbridge.report.agreements import WIDTH
from adbridge.trees import spec_of
from adbridge.validate.comparison import comparing
from adbridge.validate.comparison.sources import Script, literal
from adbridge.validate.comparison.subject import directions
from planted import NotANumber, SlightlyWrong

COLUMNS = ["backend", "operator", "verdict", "error_ulp", "relative_error", "entry", "got", "expected", "note"]
X = np.array([0.5, 1.0, 2.0])


def sines(x: Any) -> Any:
    xp = ad.array_namespace(x)
    return xp.sum(xp.sin(x))


def norm(x: Any) -> Any:
    return ad.array_namespace(x).linalg.norm(x)


def squared_norm(x: Any) -> Any:
    return ad.array_namespace(x).linalg.norm(x) ** 2


def layer(params: Any, count: Any, x: Any) -> Any:
    xp = ad.array_namespace(x)
    return {"y": xp.tanh(params["w"] @ x) * count, "z": params["b"] * x}


class AlsoSlightlyWrong(SlightlyWrong):
    """Wrong in the very same way."""

    name = "also-slightly-wrong"


class Fails(ReferenceBackend):
    """Forward mode breaks down."""

    name = "fails"

    def jvp(self, *args: Any) -> Any:
        raise ZeroDivisionError("planted")


class WithoutForward(ReferenceBackend):
    name = "without-forward"

    def jvp(self, *args: Any) -> Any:
        raise CapabilityError("planted: no forward mode")


def row(agreement: ad.Agreement, backend: str, operator: str) -> Any:
    (found,) = [r for r in agreement.rows if (r.backend, r.operator) == (backend, operator)]
    return found


def run_script(text: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-"], input=text, capture_output=True, text=True, check=False, timeout=120, env=environment
    )


# Those who agree.


def test_agreement() -> None:
    agreement = ad.crosscheck(sines, X, backends=["reference", NotANumber()], operators=["value", "grad"])
    frame = agreement.to_frame()
    assert list(frame.columns) == COLUMNS
    assert list(frame.backend) == ["reference", "reference", "not-a-number", "not-a-number"]
    assert list(frame.operator) == ["value", "grad"] * 2
    assert set(frame.verdict) == {"agree"} and (frame.error_ulp < 10).all()
    assert (agreement.verdict, agreement.culprits, agreement.snippet) == ("agree", [], "")
    assert agreement.point is not None and agreement.point.kind == "smooth" and agreement.method == "arb"
    agreement.raise_for_disagreement()
    assert str(agreement).startswith("reference, not-a-number agree: value, grad; worst ")


def test_the_interpreter_shows_the_text() -> None:
    found = ad.crosscheck(lambda x: x * x, 2.0, backends="reference")
    assert repr(found) == str(found)


def test_operators_by_default_are_those_that_the_output_has() -> None:
    def names(fun: Any, *args: Any) -> list[str]:
        return list(ad.crosscheck(fun, *args, backends="reference").to_frame().operator)

    assert names(sines, X) == ["value", "grad", "jvp", "hvp"]
    assert names(lambda x: x * x, X) == ["value", "vjp", "jvp"]
    assert names(lambda z: z * z, 1 + 2j) == ["value", "vjp", "jvp"]
    assert names(lambda z: abs(z) ** 2, 1 + 2j) == ["value", "grad", "jvp", "hvp"]


def test_every_installed_engine_by_default() -> None:
    agreement = ad.crosscheck(sines, X)
    from adbridge.registry import default_names

    assert list(dict.fromkeys(agreement.to_frame().backend)) == default_names()
    assert agreement.verdict == "agree", agreement
    assert (
        str(agreement).splitlines()[0].startswith(f"{', '.join(default_names())} agree: value, grad, jvp, hvp; worst")
    )


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.complex128])
def test_dtypes(dtype: Any) -> None:
    x = np.asarray([0.5, 2.0], dtype) * np.asarray(1 + 1j if np.dtype(dtype).kind == "c" else 1, dtype)
    assert ad.crosscheck(lambda x: x * x * 3, x, backends="reference").verdict == "agree"


def test_trees_and_constants() -> None:
    params = {"w": np.array([[1.0, 2.0], [3.0, 4.0]]), "b": 1.5}
    agreement = ad.crosscheck(layer, params, 3, np.array([1.0, -1.0]), backends=["reference", "zero"])
    assert agreement.culprits == ["zero"]
    assert {r.verdict for r in agreement.rows if r.backend == "reference"} == {"agree"}
    assert row(agreement, "zero", "vjp").entry.startswith(("params['w']", "params['b']", "x"))


# Kinks.


def test_each_legal_choice_at_a_kink_is_listed() -> None:
    class AlwaysNaN(ReferenceBackend):
        name = "always-nan"

        def vjp(self, fun: Any, primals: Any) -> Any:
            outs, pullback, aux = super().vjp(fun, primals)
            return outs, lambda seeds: tuple(np.full_like(x, np.nan) for x in pullback(seeds)), aux

    agreement = ad.crosscheck(norm, np.zeros(3), backends=["reference", AlwaysNaN()], operators=["value", "grad"])
    assert (agreement.verdict, agreement.culprits) == ("convention", [])
    lines = str(agreement).splitlines()
    assert lines[0] == "kink at x = [0, 0, 0]: every engine made a legal choice"
    assert any("reference" in line and "[0, 0, 0]" in line for line in lines[1:])
    assert any("always-nan" in line and "[nan, nan, nan]" in line for line in lines)
    agreement.raise_for_disagreement()


def test_more_than_a_subgradient_is_wrong() -> None:
    agreement = ad.crosscheck(lambda x: 2 * abs(x), 0.0, backends="reference", operators="grad")
    assert agreement.verdict == "convention"

    class TooSteep(ReferenceBackend):
        name = "too-steep"

        def vjp(self, fun: Any, primals: Any) -> Any:
            outs, _, aux = super().vjp(fun, primals)
            return outs, lambda seeds: (np.asarray(2.5),), aux

    agreement = ad.crosscheck(lambda x: 2 * abs(x), 0.0, backends=["reference", TooSteep()], operators="grad")
    assert agreement.culprits == ["too-steep"]
    assert "too-steep is wrong: grad at x is 2.5, should be in [-2, 2]" in str(agreement)


def test_a_function_in_numpy_asks_for_a_namespace() -> None:
    pytest.importorskip("jax")
    import numpy as xp

    agreement = ad.crosscheck(lambda x: xp.linalg.norm(x), np.zeros(3), backends=["reference", "jax"])
    assert row(agreement, "reference", "grad").verdict == "convention"
    assert {r.verdict for r in agreement.rows if r.backend == "jax"} == {"unsupported"}
    assert "write it with xp = adbridge.array_namespace(x)" in row(agreement, "jax", "grad").note
    assert str(agreement).startswith("kink at x = [0, 0, 0]: every engine made a legal choice (reference)")


# Those who are wrong.


def test_the_culprit_the_entry_and_both_values() -> None:
    agreement = ad.crosscheck(sines, X, backends=["reference", SlightlyWrong()], operators=["value", "grad"])
    assert (agreement.verdict, agreement.culprits) == ("wrong", ["slightly-wrong"])
    found = row(agreement, "slightly-wrong", "grad")
    assert (found.verdict, found.entry) == ("wrong", "x[2]")
    assert found.expected == pytest.approx(np.cos(2.0), rel=1e-15)
    assert found.got == pytest.approx(1.001 * np.cos(2.0), rel=1e-15)
    assert found.relative_error == pytest.approx(1e-3) and found.error_ulp > 1e11
    with pytest.raises(ad.Disagreement, match=r"slightly-wrong is wrong: grad at x\[2\] is -0\.4165629"):
        agreement.raise_for_disagreement()


def test_two_that_are_wrong_in_the_same_way_outvote_nobody() -> None:
    backends = [SlightlyWrong(), "reference", AlsoSlightlyWrong()]
    agreement = ad.crosscheck(sines, X, backends=backends, operators="jvp")
    assert agreement.culprits == ["slightly-wrong", "also-slightly-wrong"]
    assert row(agreement, "reference", "jvp").verdict == "agree"
    assert str(agreement).startswith("slightly-wrong and also-slightly-wrong are wrong: slightly-wrong's jvp at out is")


def test_nan_where_the_derivative_exists_is_wrong() -> None:
    agreement = ad.crosscheck(sines, X, backends=[NotANumber()], operators=["grad", "jvp"])
    assert agreement.culprits == ["not-a-number"]
    first = str(agreement).replace("\n   ", "").splitlines()[0]
    assert first.startswith("not-a-number is wrong: jvp at out is nan, should be ")
    assert first.endswith("(the derivative exists: smooth)")


def test_nan_does_not_equal_nan() -> None:
    class AlsoNaN(NotANumber):
        name = "also-nan"

    agreement = ad.crosscheck(sines, X, backends=[NotANumber(), AlsoNaN()], operators="jvp")
    assert agreement.culprits == ["not-a-number", "also-nan"]


def test_a_published_defect() -> None:
    """The gradient of |x|^2 at 0 is 0: https://github.com/jax-ml/jax/issues/4177."""
    pytest.importorskip("jax")
    agreement = ad.crosscheck(squared_norm, np.zeros(2), backends=["reference", "jax"], operators=["value", "grad"])
    assert agreement.culprits == ["jax"]
    assert str(agreement).startswith("jax is wrong: grad at x[0] is nan, should be 0 (the derivative exists: smooth)")


def test_forward_against_reverse_mode_is_remarked() -> None:
    agreement = ad.crosscheck(norm, np.zeros(2), backends=[NotANumber()], operators=["grad", "jvp"])
    assert agreement.culprits == []
    assert (
        "its forward and reverse mode differ: <w, Jv> is nan, <J'w, v> is 0"
        in row(agreement, "not-a-number", "jvp").note
    )


def test_differences_are_judged_by_what_they_promise() -> None:
    rough = ad.get_backend("finite-difference", scheme="forward")
    agreement = ad.crosscheck(sines, X, backends=[rough, "zero"], operators=["value", "grad", "jvp"])
    assert agreement.culprits == ["zero"]
    found = row(agreement, "finite-difference", "grad")
    assert (found.verdict, found.note) == ("agree", "as near as it promises, in the maximum norm")
    assert found.error_ulp > 1e4


def test_the_snippet_asks_for_the_backend_as_it_was_made() -> None:
    steep = ad.get_backend("finite-difference", scheme="central", step=0.5)
    agreement = ad.crosscheck(lambda x: x**3, 1.0, backends=steep, operators="grad")
    assert "ad.get_backend(\"finite-difference\", scheme='central', step=0.5)" in agreement.snippet
    assert shown(agreement.snippet) == (pytest.approx(3.25), pytest.approx(3.0))  # ((3/2)^3 - (1/2)^3) / 1


# Failures.


def test_an_exception_is_an_error_and_raises() -> None:
    agreement = ad.crosscheck(sines, X, backends=["reference", Fails()], operators=["value", "grad", "jvp"])
    assert (agreement.verdict, agreement.culprits) == ("error", [])
    assert str(agreement).startswith("fails fails: fails's jvp raises ZeroDivisionError: planted")
    with pytest.raises(ad.Disagreement, match="ZeroDivisionError: planted"):
        agreement.raise_for_disagreement()


def test_what_is_not_supported_is_not_at_fault() -> None:
    agreement = ad.crosscheck(sines, X, backends=["reference", WithoutForward()], operators=["grad", "jvp"])
    assert agreement.verdict == "unsupported"
    agreement.raise_for_disagreement()
    assert "without-forward: jvp unsupported, planted: no forward mode" in str(agreement)


def test_a_missing_function_of_one_namespace_is_not_supported() -> None:
    pytest.importorskip("torch")
    agreement = ad.crosscheck(
        lambda x: ad.array_namespace(x).cbrt(x), 2.0, backends=["reference", "torch"], operators=["value", "grad"]
    )
    assert {r.verdict for r in agreement.rows if r.backend == "torch"} == {"unsupported"}
    assert "has no attribute 'cbrt'" in row(agreement, "torch", "grad").note


def test_a_function_of_one_engine_is_checked_on_it_alone() -> None:
    jnp = pytest.importorskip("jax.numpy")
    agreement = ad.crosscheck(lambda x: jnp.sum(jnp.sin(x)), X, backends=["reference", "jax"])
    assert {r.verdict for r in agreement.rows if r.backend == "jax"} == {"agree"}
    assert {r.verdict for r in agreement.rows if r.backend == "reference"} == {"unsupported"}
    assert agreement.method in ("arb", "differences")


def test_an_engines_own_arrays() -> None:
    torch = pytest.importorskip("torch")
    agreement = ad.crosscheck(sines, torch.tensor([0.5, 1.0], dtype=torch.float64))
    assert set(agreement.to_frame().backend) == {"torch"} and agreement.verdict == "agree"
    assert agreement.left_out["reference"] == "the arguments are torch's arrays"
    assert "left out: reference" in str(agreement)


def test_zero_comparisons_are_no_pass() -> None:
    agreement = ad.crosscheck(sines, X, backends=[])
    assert agreement.verdict == "unresolved" and agreement.to_frame().empty
    assert str(agreement).startswith("unresolved: nothing was compared, no backend was asked")
    assert list(agreement.to_frame().columns) == COLUMNS
    agreement = ad.crosscheck(lambda x: x * x, X, backends="reference", operators="grad")
    assert agreement.verdict == "unresolved"
    agreement = ad.crosscheck(lambda x: x * x, np.zeros((0, 2)), backends="reference")
    assert agreement.verdict == "unresolved"
    assert ad.crosscheck(sines, np.zeros((0, 2)), backends="reference").verdict == "agree"  # its value is 0


def test_a_missing_engine_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from adbridge import registry

    monkeypatch.setattr(registry, "is_installed", lambda name: name == "reference")
    agreement = ad.crosscheck(sines, X, operators="value")
    assert set(agreement.to_frame().backend) == {"reference"}
    assert agreement.left_out["jax"] == "not installed: pip install 'adbridge[jax]'"

    def without(name: Any) -> Any:
        if name == "autograd":
            raise ad.BackendUnavailable("planted: install it")
        return registry.get_backend(name)

    monkeypatch.setattr("adbridge.validate.crosscheck.get_backend", without)
    agreement = ad.crosscheck(sines, X, backends=["reference", "autograd"], operators="value")
    assert agreement.left_out == {"autograd": "planted: install it"} and agreement.verdict == "agree"


# What cannot be checked.


def test_bad_input() -> None:
    def refused(fun: Any, *args: Any) -> str:
        with pytest.raises(ad.RuleError) as caught:
            ad.crosscheck(fun, *args, backends=["reference", "zero"])
        return str(caught.value)

    calls = []

    def counting(x: Any) -> Any:
        calls.append(x)
        return x * len(calls)

    assert "counting gave two results for the same arguments" in refused(counting, X)
    assert "returned None, which holds no array" in refused(lambda x: None, X)
    assert "output is of type str" in refused(lambda x: "a", X)
    assert refused(lambda x: {}["w"], X) == "<lambda> gives no value on any backend: raises KeyError: 'w'"
    assert "needs a floating argument" in refused(sines, np.arange(3)) and "int64[3]" in refused(sines, np.arange(3))
    assert "got no argument" in refused(lambda: 1.0)


def test_wrong_usage() -> None:
    with pytest.raises(ad.UsageError, match=r"no operator 'gradient'; choose from value, grad, vjp, jvp, hvp"):
        ad.crosscheck(sines, X, operators=["gradient"])
    with pytest.raises(ad.BackendNotFound, match="did you mean 'jax'"):
        ad.crosscheck(sines, X, backends="jaxx")


# Without a referee.


def test_a_majority_is_a_remark_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: Any, **options: Any) -> Any:
        raise CapabilityError("planted")

    monkeypatch.setattr("adbridge.validate.referee.referee", none)
    agreement = ad.crosscheck(sines, X, backends=["reference", ReferenceBackend(), SlightlyWrong()])
    assert (agreement.verdict, agreement.culprits) == ("unresolved", [])
    odd = row(agreement, "slightly-wrong", "grad").note
    others = "reference 1 (cpu), reference 2 (cpu)"
    assert odd == f"no referee: CapabilityError: planted; the odd one out: {others} agree on another result"
    assert row(agreement, "reference 1 (cpu)", "grad").note.endswith("; agrees with reference 2 (cpu)")
    assert str(agreement).startswith("unresolved: nobody can say who is right about value, grad, jvp")
    agreement.raise_for_disagreement()


def test_two_that_differ_have_no_majority(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: Any, **options: Any) -> Any:
        raise CapabilityError("planted")

    monkeypatch.setattr("adbridge.validate.referee.referee", none)
    agreement = ad.crosscheck(sines, X, backends=["reference", SlightlyWrong()], operators="grad")
    assert all("no majority: no other backend has this result" in r.note for r in agreement.rows)


def test_long_programs_are_judged_by_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "LONGEST", 20)
    agreement = ad.crosscheck(sines, np.linspace(0.1, 1, 40), backends=["reference", "zero"], operators=["grad", "jvp"])
    assert agreement.method == "differences" and agreement.culprits == ["zero"]
    assert "because it would run for minutes in Arb" in str(agreement)
    assert row(agreement, "reference", "grad").verdict == "agree"


# The text.


def test_the_text_fits() -> None:
    agreement = ad.crosscheck(sines, X, backends=["reference", SlightlyWrong(), NotANumber(), WithoutForward(), "zero"])
    assert max(map(len, str(agreement).splitlines())) <= WIDTH
    assert "\x1b" not in str(agreement)


def test_the_readmes_text_is_what_is_printed() -> None:
    for engine in ("jax", "torch", "autograd"):
        pytest.importorskip(engine)
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (block,) = re.findall(r"<!-- crosscheck -->\n```text\n(.*?)```", readme, re.DOTALL)

    def f(x: Any) -> Any:  # |x|^2, which has a derivative everywhere
        return ad.array_namespace(x).linalg.norm(x) ** 2

    printed = str(ad.crosscheck(f, np.zeros(3), operators=["value", "grad"]))
    assert printed.replace("f(x: Any) -> Any:", "f(x):").replace("    from __future__ import annotations\n", "") == (
        block.rstrip()
    )


# The snippet.


def test_the_snippet_shows_the_wrong_value() -> None:
    agreement = ad.crosscheck(sines, np.linspace(0.5, 3, 40), backends=["reference", SlightlyWrong()], operators="grad")
    done = run_script(agreement.snippet)
    assert done.returncode == 0, done.stderr
    name, got, _, _, expected = done.stdout.split()
    assert name == "x[0]:"  # the worst of 40 entries, alone
    assert float(expected) == pytest.approx(np.cos(3.0)) and float(got) == pytest.approx(1.001 * np.cos(3.0))
    assert "x = np.array([3.0])" in agreement.snippet
    assert "    to reproduce" not in str(agreement) and "backend=SlightlyWrong())(x)" in str(agreement)


class OffByOne(ReferenceBackend):
    """Everything is one too much."""

    name = "off-by-one"

    def vjp(self, fun: Any, primals: Any) -> Any:
        outs, pullback, aux = super().vjp(fun, primals)
        return tuple(o + 1 for o in outs), lambda seeds: tuple(g + 1 for g in pullback(seeds)), aux

    def jvp(self, fun: Any, primals: Any, tangents: Any) -> Any:
        outs, pushed, aux = super().jvp(fun, primals, tangents)
        return outs, tuple(p + 1 for p in pushed), aux


class SinglePrecision(ReferenceBackend):
    """An engine that takes double precision, and rounds it."""

    name = "single-precision"

    def from_numpy(self, array: Any) -> Any:
        return np.asarray(array, np.float32).astype(array.dtype)


SCALE = 2.0
TABLE = np.array([1.0, -1.0])


def scaled(x: Any) -> Any:
    return helper(x) * SCALE + TABLE


def helper(x: Any) -> Any:
    return x * x


@pytest.mark.parametrize("operator", ["vjp", "jvp"])
def test_the_snippet_has_all_that_the_function_needs(operator: str) -> None:
    offset = 0.25

    def fun(x: Any, count: int, p: Any) -> Any:
        return {"out": scaled(x) * count + p["w"] + offset}

    args = np.array([1.0, 2.0]), 3, {"w": np.float64(-0.0)}
    agreement = ad.crosscheck(fun, *args, backends=OffByOne(), operators=operator)
    assert agreement.culprits == ["off-by-one"]
    assert "TABLE = np.array([1.0, -1.0])" in agreement.snippet and "offset = 0.25" in agreement.snippet
    got, expected = shown(agreement.snippet)
    assert got == pytest.approx(expected + 1)


def shown(script: str) -> tuple[float, float]:
    """The value that the script prints, and that which it says should be."""
    done = run_script(script)
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    words = done.stdout.split()
    return float(words[1]), float(words[-1])


def test_the_snippet_of_a_wrong_value() -> None:
    agreement = ad.crosscheck(lambda x: x * x, 1 / 3, backends=SinglePrecision(), operators="value")
    assert agreement.culprits == ["single-precision"]
    got, expected = shown(agreement.snippet)
    assert expected == pytest.approx(1 / 9, rel=1e-15) and 1e-8 < abs(got * 9 - 1) < 1e-6


def test_the_snippet_of_a_second_derivative() -> None:
    agreement = ad.crosscheck(lambda x, y: x**3 * y, 2.0, 3.0, backends="zero", operators="hvp")
    got, expected = shown(agreement.snippet)
    assert got == 0 and expected == pytest.approx(row(agreement, "zero", "hvp").expected)


def test_the_snippet_of_an_exception() -> None:
    agreement = ad.crosscheck(sines, X, backends=Fails(), operators="jvp")
    done = run_script(agreement.snippet)
    assert done.returncode == 1 and done.stderr.strip().endswith("ZeroDivisionError: planted")


def test_the_snippet_has_a_users_own_rule() -> None:
    jax = pytest.importorskip("jax")

    @jax.custom_vjp
    def cube(x: Any) -> Any:
        return x * x * x

    cube.defvjp(lambda x: (cube(x), x), lambda x, g: (2 * x * x * g,))
    agreement = ad.crosscheck(cube, 2.0, backends="jax")
    assert agreement.culprits == ["jax"]
    assert [r.verdict for r in agreement.rows] == ["agree", "wrong", "unsupported", "unsupported"]
    assert "jax is wrong: grad at x is 8, should be 12" in str(agreement)
    assert shown(agreement.snippet) == (8.0, pytest.approx(12.0))


def test_arrays_are_cut_only_as_far_as_the_fault_stays() -> None:
    weights = np.arange(1.0, 9.0)

    def fixed(x: Any) -> Any:
        return (x * x) @ weights  # of eight entries, and no fewer

    agreement = ad.crosscheck(fixed, np.linspace(1, 2, 8), backends=SlightlyWrong(), operators="grad")
    got, expected = shown(agreement.snippet)
    assert (got, expected) == (pytest.approx(32.032), pytest.approx(32.0))
    assert 'print("x[7]:", got[7]' in agreement.snippet

    class WrongFromFour(ReferenceBackend):
        name = "wrong-from-four"

        def vjp(self, fun: Any, primals: Any) -> Any:
            outs, pullback, aux = super().vjp(fun, primals)
            factor = 2.0 if primals[0].size >= 4 else 1.0
            return outs, lambda seeds: tuple(factor * np.asarray(g) for g in pullback(seeds)), aux

    agreement = ad.crosscheck(sines, np.linspace(1, 2, 64), backends=WrongFromFour(), operators="grad")
    (line,) = [line for line in agreement.snippet.splitlines() if line.startswith("x = ")]
    assert eval(line.removeprefix("x = ")).size == 4


# Sources.


def make(factor: float) -> Any:
    return lambda x: x * factor, lambda x: x + factor


@pytest.mark.parametrize("which", [0, 1])
def test_two_lambdas_in_a_line_are_told_apart(which: int) -> None:
    script = Script()
    script.define("f", make(3.0)[which])
    scope: dict[str, Any] = {}
    exec(script.text(), scope)
    assert scope["f"](2.0) == (6.0, 5.0)[which]


def test_a_local_class_is_written_with_what_it_needs() -> None:
    class Local(ReferenceBackend):
        """Its tangents are doubled."""

        name = "local"

        def jvp(self, fun: FlatFunction, primals: Any, tangents: Any) -> Any:
            outs, pushed, aux = super().jvp(fun, primals, tangents)
            return outs, tuple(helper(np.sqrt(2.0)) * p for p in pushed), aux

    agreement = ad.crosscheck(lambda x: x * x, 3.0, backends=Local(), operators="jvp")
    assert "FlatFunction = " not in agreement.snippet and "def helper" in agreement.snippet
    got, expected = shown(agreement.snippet)
    assert got == pytest.approx(2 * expected)


def test_names_of_a_function_are_not_those_around_it() -> None:
    script = Script()
    script.define("f", lambda helper, TABLE=SCALE: [helper for SCALE in (1, 2)])
    assert list(script.names) == ["f", "SCALE"]


def test_a_lambda_does_not_take_the_name_of_what_it_calls() -> None:
    f = helper
    agreement = ad.crosscheck(lambda x: f(x), 3.0, backends="zero", operators="grad")
    assert shown(agreement.snippet) == (0.0, 6.0)


def test_what_cannot_be_written_is_said() -> None:
    script = Script()
    script.define("f", (lambda thing: lambda x: thing)(object()))
    assert script.missing == ["thing"] and "thing = ...  # not shown: <object" in script.text()
    script = Script()
    script.define("f", eval("lambda x: x"))
    assert script.missing == ["f"]


@pytest.mark.parametrize(
    "value",
    [
        0.1,
        -0.0,
        float("nan"),
        float("-inf"),
        complex(-0.0, 1.5),
        True,
        7,
        "it's",
        None,
        (1.0,),
        {"a": [1, (2.0, 3)]},
        np.float32(0.1),
        np.array([0.1, -np.inf, np.nan]),
        np.array([[1 / 3]], np.float32),
        np.array(-0.0),
        np.zeros((2, 0)),
        np.zeros(3, int),
        np.full((2, 2), -0.0),
        np.array([1 + 2j, complex(0.0, np.nan)], np.complex64),
        np.array([True, False]),
        np.arange(3, dtype=np.uint8),
    ],
    ids=repr,
)
def test_literals_read_back_to_the_last_bit(value: Any) -> None:
    text = literal(value)
    assert text is not None
    back = eval(text, {"np": np})
    assert type(back) is type(value)
    if isinstance(value, (np.ndarray, np.generic, float, complex)):
        assert np.asarray(back).tobytes() == np.asarray(value).tobytes()
        assert spec_of(np.asarray(back)) == spec_of(np.asarray(value))
    else:
        assert back == value


def test_directions_have_both_signs_and_no_zero() -> None:
    specs = [spec_of(np.zeros((20, 5), np.float32)), spec_of(np.zeros(50, complex))]
    real, imaginary = directions(specs)
    assert real.dtype == np.float32 and np.abs(real).min() >= 0.5 and {-1.0, 1.0} == set(np.sign(real).flat)
    assert np.all(imaginary.real != 0) and np.all(imaginary.imag != 0)
    assert np.array_equal(real, directions(specs)[0])
    assert np.array_equal(real.astype(np.float16), real)
