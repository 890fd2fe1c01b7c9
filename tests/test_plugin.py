"""The pytest plugin: its fixture, its option and its marker, in pytest runs of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import adbridge as ad
from adbridge.registry import default_names, is_installed
from adbridge.testing import assert_backends_agree
from adbridge.validate import crosscheck
from test_imports import HEAVY, imported_after

pytest_plugins = ["pytester"]

GRADIENT = """
    import adbridge as ad

    def test_gradient(ad_backend):
        assert isinstance(ad_backend, ad.Backend)
        assert ad.grad(lambda x: x * x, backend=ad_backend)(3.0) == 6.0
"""
needs_jax = pytest.mark.skipif(not is_installed("jax"), reason="jax is not installed")
# What a test with `pytester` imports is forgotten after it, and an engine cannot be imported twice. So runs in this
# process get these two backends, and the others a process of their own.
VERSION = ad.get_backend("reference").engine_version
ZERO = ad.get_backend("zero")


def outcome(pytester: pytest.Pytester, source: str, *args: str, **expected: int) -> str:
    """Run `source` as a test file with warnings as errors and strict markers; what pytest prints."""
    pytester.makepyfile(source)
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers --strict-config -p no:cacheprovider")
    done = pytester.runpytest_subprocess(*args)
    done.assert_outcomes(**expected)
    return f"{done.stdout}\n{done.stderr}"


def test_goes_through_every_installed_backend(pytester: pytest.Pytester) -> None:
    text = outcome(pytester, GRADIENT, "-v", passed=len(default_names()))
    assert all(f"test_gradient[{name}] PASSED" in text for name in default_names())


def test_goes_through_those_that_are_named(pytester: pytest.Pytester) -> None:
    text = outcome(pytester, GRADIENT, "-v", "--adbridge-backends= zero,reference,reference", passed=1, failed=1)
    assert text.index("test_gradient[zero] FAILED") < text.index("test_gradient[reference] PASSED")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("jax,tensr", "ERROR: --adbridge-backends=jax,tensr: no backend is called 'tensr'; known: reference, jax, "),
        (",", "ERROR: --adbridge-backends names no backend"),
    ],
)
def test_unknown_backends_are_wrong_usage(pytester: pytest.Pytester, asked: str, text: str) -> None:
    pytester.makepyfile(GRADIENT)
    done = pytester.runpytest_subprocess(f"--adbridge-backends={asked}")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert text in str(done.stderr)


def test_a_missing_engine_is_left_out_unless_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import adbridge.registry as r\nr.is_installed = lambda name: name == 'reference'\n")
    outcome(pytester, GRADIENT, passed=1)
    done = pytester.runpytest_subprocess("--adbridge-backends=torch")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "'torch', which is not installed; run: pip install 'adbridge[torch]'" in str(done.stderr)


def test_the_fixture_can_be_narrowed_and_overridden(pytester: pytest.Pytester) -> None:
    source = """
        import adbridge as ad, pytest

        @pytest.mark.parametrize("ad_backend", ["reference"], indirect=True)
        def test_narrowed(ad_backend):
            assert ad_backend is ad.get_backend("reference")

        class TestOverridden:
            @pytest.fixture
            def ad_backend(self):
                return "mine"

            def test_overridden(self, ad_backend):
                assert ad_backend == "mine"
    """
    outcome(pytester, source, passed=2)


# Known defects.

MARKED = """
    import pytest

    @pytest.mark.ad_known_defect("reference", {versions!r}, thread="owner/repo#12", reason="the planted one")
    def test_marked(ad_backend):
        assert ad_backend.name != {fails!r}
"""


def marked(pytester: pytest.Pytester, versions: str, fails: str, **expected: int) -> str:
    source = MARKED.format(versions=versions, fails=fails)
    return outcome(pytester, source, "--adbridge-backends=reference,zero", "-rxf", **expected)


def test_a_known_defect_is_expected_of_its_engine_alone(pytester: pytest.Pytester) -> None:
    text = marked(pytester, f"=={VERSION}", "reference", passed=1, xfailed=1)
    assert f"owner/repo#12, known in reference =={VERSION}: the planted one" in text
    marked(pytester, ">=0", "reference", passed=1, xfailed=1)


def test_a_defect_of_other_versions_is_not_expected(pytester: pytest.Pytester) -> None:
    marked(pytester, f"!={VERSION}", "reference", passed=1, failed=1)
    marked(pytester, f"!={VERSION}", "", passed=2)


def test_a_mended_defect_fails_and_says_so(pytester: pytest.Pytester) -> None:
    text = marked(pytester, f"=={VERSION}", "", passed=1, failed=1)
    assert f"mended: this passes with reference {VERSION}, where owner/repo#12, known in reference" in text
    assert "remove the marker" in text
    assert "XPASS" not in text


def test_a_known_defect_does_not_excuse_another_engine(pytester: pytest.Pytester) -> None:
    text = marked(pytester, ">=0", "zero", failed=2)
    assert "mended: this passes with reference" in text
    assert "assert 'zero' != 'zero'" in text


def test_several_defects_on_a_class(pytester: pytest.Pytester) -> None:
    source = """
        import pytest

        @pytest.mark.ad_known_defect("zero", ">=0", "owner/repo#1")
        @pytest.mark.ad_known_defect("reference", ">=0", "owner/repo#2")
        class TestBoth:
            def test_fails(self, ad_backend):
                raise ValueError("planted")

            def test_of_no_engine(self):
                pass
    """
    outcome(pytester, source, "--adbridge-backends=reference,zero", passed=1, xfailed=2)


@pytest.mark.parametrize(
    ("arguments", "uses", "text"),
    [
        (
            "'torch', '>=2'",
            "ad_backend",
            "ad_known_defect on test_marked: missing 1 required positional argument: 'thread'",
        ),
        ("'torch', 'new', thread='a/b#1'", "ad_backend", "versions 'new' are no PEP 440 specifier such as"),
        ("'torch', '>=2', thread='a/b'", "ad_backend", "thread 'a/b' does not read owner/repo#123"),
        ("'troch', '>=2', thread='a/b#1'", "ad_backend", "no backend is called 'troch'; did you mean 'torch'?"),
        ("'torch', '>=2', thread='a/b#1'", "", "test_marked, which does not use the fixture ad_backend"),
    ],
)
def test_a_marker_without_effect_is_refused(pytester: pytest.Pytester, arguments: str, uses: str, text: str) -> None:
    source = f"import pytest\n@pytest.mark.ad_known_defect({arguments})\ndef test_marked({uses}): pass\n"
    assert text in outcome(pytester, source, errors=1)


# In everybody's runs.


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    assert not imported_after("import adbridge.pytest_plugin") & HEAVY


@pytest.mark.parametrize("args", [["-p", "no:adbridge"], ["--adbridge-backends=torch"]])
def test_other_peoples_runs_are_left_alone(pytester: pytest.Pytester, args: list[str]) -> None:
    pytester.makepyfile("import sys\ndef test_theirs(): assert not {'torch', 'jax', 'pandas'} & {*sys.modules}")
    done = pytester.runpytest_subprocess("-W", "error", "--strict-markers", *args)
    done.assert_outcomes(passed=1)


def test_works_over_several_processes(pytester: pytest.Pytester) -> None:
    source = GRADIENT + MARKED.format(versions=">=0", fails="reference")
    pytester.makepyfile(source)
    done = pytester.runpytest_subprocess("-W", "error", "-n", "2", "--adbridge-backends=reference,zero")
    done.assert_outcomes(passed=2, failed=1, xfailed=1)


# The assertions.

RIGHT = """
    import adbridge as ad
    import numpy as np
    from adbridge.testing import assert_backends_agree

    def smooth(x):
        xp = ad.array_namespace(x)
        return xp.sum(xp.sin(x) * xp.exp(x))

    def test_agree():
        assert assert_backends_agree(smooth, np.array([1.0, 2.0]), backends=["reference"]).verdict == "agree"

    def test_at_a_kink():
        norm = lambda x: ad.array_namespace(x).linalg.vector_norm(x)
        assert assert_backends_agree(norm, np.zeros(2), backends="reference").verdict == "convention"
"""


def test_right_backends_pass(pytester: pytest.Pytester) -> None:
    outcome(pytester, RIGHT, passed=2)


def test_a_wrong_backend_is_told_with_the_right_value(pytester: pytest.Pytester) -> None:
    source = """
        import numpy as np
        from adbridge.testing import assert_backends_agree

        def square(x):
            return np.sum(x * x)

        def test_agree():
            assert_backends_agree(square, np.array([1.0, 2.0]), backends=["reference", "zero"])
    """
    text = outcome(pytester, source, failed=1)
    assert "E       adbridge.errors.Disagreement: zero is wrong: grad at x[" in text
    assert "is 0, should be 2" in text or "is 0, should be 4" in text  # the gradient is 2 x
    assert "import adbridge as ad" in text  # the script that shows it
    assert "validate/crosscheck.py" not in text and "adbridge/testing.py" not in text  # no frames of ours


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("raise ValueError('planted')", "ValueError: planted"),
        ("return None", "returned None"),
        ("seen.append(x); return x * len(seen)", "two results for the same arguments"),
    ],
)
def test_what_cannot_be_checked_fails_without_our_frames(pytester: pytest.Pytester, body: str, text: str) -> None:
    source = f"""
        from adbridge.testing import assert_backends_agree

        seen = []

        def f(x):
            {body}

        def test_agree():
            assert_backends_agree(f, 1.0, backends=["reference"])
    """
    found = outcome(pytester, source, failed=1)
    assert "adbridge.errors.Disagreement: " in found and text in found
    assert "validate/crosscheck.py" not in found


def test_what_comes_to_no_result_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unresolved:
        verdict = "unresolved"

    monkeypatch.setattr(crosscheck, "crosscheck", lambda *args, **options: Unresolved())
    with pytest.raises(ad.Disagreement, match="Unresolved"):
        assert_backends_agree(lambda x: x, 1.0)


JAX_RULE = """
    import jax
    import jax.numpy as jnp
    import numpy as np
    from adbridge.testing import assert_rule

    def plain(x):
        return jnp.sum(x**3)

    @jax.custom_vjp
    def cubes(x):
        return plain(x)

    cubes.defvjp(lambda x: (plain(x), x), lambda x, g: (g * FACTOR * x**2,))

    def test_rule():
        assert_rule(cubes, np.array([1.0, -2.0, 0.5]), primal=plain, backends="jax")
"""


@needs_jax
def test_a_wrong_rule_in_plain_jax_fails_with_the_right_value(pytester: pytest.Pytester) -> None:
    text = outcome(pytester, JAX_RULE.replace("FACTOR", "2"), failed=1)
    assert "E       adbridge.errors.Disagreement: " in text
    found = re.search(r"rule 'cubes' is wrong on jax: vjp at x\[\d\], got (\S+), expected (\S+) ", text)
    assert found is not None
    assert 3 * float(found[1]) == 2 * float(found[2]) != 0  # 2 x^2 in place of 3 x^2
    assert "validate/check_rule.py" not in text


@needs_jax
def test_a_right_rule_in_plain_jax_passes(pytester: pytest.Pytester) -> None:
    outcome(pytester, JAX_RULE.replace("FACTOR", "3"), passed=1)


def test_a_rule_written_once(pytester: pytest.Pytester) -> None:
    source = """
        import adbridge as ad
        from adbridge.testing import assert_rule

        @ad.custom_rule
        def cube(x):
            return x * x * x

        cube.defvjp(lambda x: (x * x * x, x), lambda x, g: (3 * x * x * g,))

        def test_right(ad_backend):
            assert_rule(cube, 2.0, backends=ad_backend)

        def test_too_many_cotangents():
            cube.defvjp(lambda x: (x * x * x, x), lambda x, g: (3 * x * x * g, g))
            assert_rule(cube, 2.0, backends=["reference"])
    """
    text = outcome(pytester, source, "--adbridge-backends=reference", passed=1, failed=1)
    assert "must return a tuple of 1 cotangent" in text


@needs_jax
def test_the_readmes_example(pytester: pytest.Pytester) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (source,) = re.findall(r"<!-- in your tests -->\n```python\n(.*?)```", readme, re.DOTALL)
    text = outcome(pytester, source, "--adbridge-backends=reference,jax", passed=3, failed=1)
    assert "Disagreement: rule 'cube' is wrong on jax: vjp at x, got 8, expected 12" in text
