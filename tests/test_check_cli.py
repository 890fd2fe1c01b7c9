"""`adbridge check`: what it says, its exit codes, and the files that it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import adbridge as ad
import planted
from adbridge.bench.problem import Suite, get_suite
from adbridge.cli import main
from adbridge.report.checks import Checked, write_json
from adbridge.report.junit import write_junit

HERE = "test_check_cli"


def smooth(x: Any, weights: Any) -> Any:
    xp = ad.array_namespace(x)
    return xp.sum(xp.sin(x) * weights)


def norm(x: Any) -> Any:
    return ad.array_namespace(x).linalg.vector_norm(x)


def raises(x: Any) -> Any:
    raise ValueError("planted \x1b[31m")


def of_three(x: Any, power: Any, scale: float = 1.0) -> Any:
    return scale * x**power


right = ad.custom_rule(lambda x: x * x * x)
right.defjvp(lambda primals, tangents: (primals[0] ** 3, 3.0 * primals[0] ** 2 * tangents[0]))
wrong = ad.custom_rule(lambda x: x * x * x)
wrong.defjvp(lambda primals, tangents: (primals[0] ** 3, 2.0 * primals[0] ** 2 * tangents[0]))
NUMBER = 3.0


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command, in this process."""

    def call(*args: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["adbridge", "check", *map(str, args)])
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as left:
            main()
        assert isinstance(left.value.code, int)
        return Done(left.value.code, *capsys.readouterr())

    return call


# What Jenkins' junit-10.xsd allows of what is written here: per element its attributes, those in capitals required.
SCHEMA = {
    "testsuites": ("name time tests failures errors", "testsuite"),
    "testsuite": ("NAME TESTS FAILURES ERRORS time skipped timestamp", "properties testcase"),
    "properties": ("", "property"),
    "property": ("NAME VALUE", ""),
    "testcase": ("NAME time classname", "skipped error failure system-out"),
    "skipped": ("type message", ""),
    "error": ("type message", ""),
    "failure": ("type message", ""),
    "system-out": ("", ""),
}


def cases(path: Path) -> list[ET.Element]:
    """The test cases of a file that keeps to the schema and counts right."""
    root = ET.parse(path).getroot()
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = (words.split() for words in SCHEMA[element.tag])
        assert {*element.attrib} <= {word.lower() for word in attributes}
        assert {word.lower() for word in attributes if word.isupper()} <= {*element.attrib}
        assert {child.tag for child in element} <= {*children}
    (suite,) = root
    found = suite.findall("testcase")
    counts = Counter(child.tag for case in found for child in case)
    for name, count in {"tests": len(found), **{f"{t}s": counts[t] for t in ("failure", "error")}}.items():
        assert root.get(name) == suite.get(name) == str(count)
    assert suite.get("skipped") == str(counts["skipped"])
    assert float(suite.get("time", "nan")) >= 0
    return found


def read(path: Path) -> Any:
    """A JSON file without the words NaN and Infinity, which are no JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(path.read_text(), parse_constant=refuse)


# Suites.


def test_a_suite_that_agrees(check: Any, tmp_path: Path) -> None:
    pytest.importorskip("autograd")
    junit, out = tmp_path / "check.xml", tmp_path / "check.json"
    done = check("planted:TWO", "--backends", "reference,autograd", "--junit", junit, "--json", out)
    assert done.code == 0, done
    assert "reference and autograd agree on all 12 results" in done.out
    assert "records:" not in done.out
    found = cases(junit)
    assert len(found) == 12 and not any(len(case) for case in found)
    assert found[0].get("classname") == "two.good"
    assert {case.get("name") for case in found} >= {"reference grad reverse, n=3, m=1, float64"}
    assert all(float(case.get("time", "nan")) >= 0 for case in found)
    written = read(out)
    assert (written["verdict"], written["exit_code"], written["kind"]) == ("agree", 0, "suite")
    assert written["versions"]["adbridge"] == ad.__version__ and written["versions"]["numpy"] == np.__version__
    assert written["versions"]["backends"].keys() == {"reference", "autograd"}
    assert len(written["records"]) == 12
    assert not {"seconds_min", "peak_alloc_bytes", "samples"} & written["records"][0].keys()


def test_a_suite_that_disagrees_exits_1_and_writes_its_files(check: Any, tmp_path: Path) -> None:
    junit, out = tmp_path / "check.xml", tmp_path / "check.json"
    done = check("planted:GOOD_SUITE", "--backends", "zero,reference", "--junit", junit, "--json", out)
    assert done.code == 1
    assert "zero is wrong in 2 of its 3 results" in done.out
    failed = {str(case.get("name")): case.find("failure") for case in cases(junit) if len(case)}
    assert [name.split(",")[0] for name in failed] == ["zero grad reverse", "zero jvp forward"]
    first = next(iter(failed.values()))
    assert first is not None and "gradient[" in first.get("message", "") and "should be" in str(first.text)
    assert read(out)["verdict"] == "wrong"


def test_a_suite_that_fails_exits_3_and_keeps_the_log(check: Any, tmp_path: Path) -> None:
    done = check("planted:PARTLY", "--backends", "reference", "--junit", tmp_path / "check.xml")
    assert done.code == 3
    errors = [case.find("error") for case in cases(tmp_path / "check.xml") if len(case)]
    messages = [error.get("message", "") for error in errors if error is not None]
    assert messages and all("SIGABRT" in message for message in messages)
    assert Path(messages[0].rpartition("see ")[2]).exists()


def test_a_suite_in_float32(check: Any, tmp_path: Path) -> None:
    done = check("planted:GOOD_SUITE", "--backends", "reference", "--dtype", "float32", "--json", tmp_path / "x.json")
    assert done.code == 0
    assert {record["dtype"] for record in read(tmp_path / "x.json")["records"]} == {"float32"}


# Functions.


def test_a_function_that_backends_agree_on(check: Any, tmp_path: Path) -> None:
    pytest.importorskip("autograd")
    junit, out = tmp_path / "check.xml", tmp_path / "check.json"
    named = ("--backends", "reference,autograd", "--junit", junit, "--json", out)
    done = check(f"{HERE}:smooth", *named, "--args", "[1.0,2.0]", "-0.5")
    assert done.code == 0, done
    names = [case.get("name") for case in cases(junit)]
    operators = ("value", "grad", "jvp", "hvp")
    assert sorted(map(str, names)) == sorted(f"{b} {op}" for b in ("reference", "autograd") for op in operators)
    assert {case.get("classname") for case in cases(junit)} == {f"{HERE}.smooth"}
    written = read(out)
    assert written["kind"] == "function"
    assert {record["verdict"] for record in written["records"]} == {"agree"}
    assert written["versions"]["backends"]["autograd"] == ad.get_backend("autograd").engine_version


def test_a_function_that_a_backend_gets_wrong(check: Any, tmp_path: Path) -> None:
    junit, out = tmp_path / "check.xml", tmp_path / "check.json"
    named = ("--backends", "reference,zero", "--junit", junit, "--json", out)
    done = check(f"{HERE}:smooth", *named, "--args", "[0.0,0.0],2.0")
    assert done.code == 1
    assert "zero" in done.out and "should be" in done.out
    failed = [case for case in cases(junit) if case.find("failure") is not None]
    assert {str(case.get("name")).split()[0] for case in failed} == {"zero"}
    (grad,) = (case.find("failure") for case in failed if case.get("name") == "zero grad")
    assert grad is not None
    assert "is 0, should be 2" in grad.get("message", "")  # d/dx 2 sin x = 2 cos x, which is 2 at 0
    assert "import" in str(grad.text)  # the script that shows it
    (record,) = (r for r in read(out)["records"] if (r["backend"], r["operator"]) == ("zero", "grad"))
    assert (record["verdict"], record["got"], record["expected"]) == ("wrong", 0.0, 2.0)


def test_a_kink_is_no_failure_and_is_told(check: Any, tmp_path: Path) -> None:
    pytest.importorskip("autograd")
    done = check(f"{HERE}:norm", "--backends", "reference,autograd", "--junit", tmp_path / "x.xml", "--args", "[0,0]")
    assert done.code == 0, done
    assert "kink" in done.out
    said = [str(case.findtext("system-out")) for case in cases(tmp_path / "x.xml")]
    assert any(text.startswith("convention") for text in said)


def test_a_function_in_float32(check: Any, tmp_path: Path) -> None:
    named = ("--backends", "reference", "--dtype", "float32", "--json", tmp_path / "x.json")
    done = check(f"{HERE}:smooth", *named, "--args", "0.1", "1")
    assert done.code == 0, done
    errors = [record["relative_error"] for record in read(tmp_path / "x.json")["records"]]
    assert 1e-10 < max(errors) < 1e-6


def test_a_function_that_raises_exits_3_and_writes_its_files(check: Any, tmp_path: Path) -> None:
    junit, out = tmp_path / "check.xml", tmp_path / "check.json"
    done = check(f"{HERE}:raises", "--backends", "reference", "--junit", junit, "--json", out, "--args", "1")
    assert done.code == 3
    assert done.err.startswith("error: ") and "ValueError: planted" in done.err
    (case,) = cases(junit)
    error = case.find("error")
    assert error is not None and "planted \\x1b[31m" in error.get("message", "")
    assert "Traceback" not in done.err
    assert read(out)["verdict"] == "error" and read(out)["exit_code"] == 3


# Rules.


def test_a_right_rule(check: Any, tmp_path: Path) -> None:
    done = check(f"{HERE}:right", "--backends", "reference", "--junit", tmp_path / "x.xml", "--args", "1.5")
    assert done.code == 0, done
    found = cases(tmp_path / "x.xml")
    assert len(found) > 4 and len({case.get("name") for case in found}) == len(found)


def test_a_wrong_rule_is_told_from_a_right_one(check: Any, tmp_path: Path) -> None:
    junit, out = tmp_path / "check.xml", tmp_path / "check.json"
    done = check(f"{HERE}:wrong", "--backends", "reference", "--junit", junit, "--json", out, "--args", "2")
    assert done.code == 1
    (first, *_) = (case for case in cases(junit) if case.find("failure") is not None)
    assert first.get("classname") == f"{HERE}.wrong" and "reference forward derivatives" in first.get("name", "")
    assert "import adbridge as ad" in str(first.findtext("failure"))
    written = read(out)
    assert written["kind"] == "rule" and written["verdict"] == "wrong"
    (record, *_) = (record for record in written["records"] if record["verdict"] == "wrong")
    assert 3 * record["got"] == 2 * record["expected"] != 0  # 2 x^2 in place of 3 x^2
    assert f"got {record['got']:g}, expected {record['expected']:g}" in done.out


def trace_of(a: Any, x: Any) -> Any:
    return ad.array_namespace(a).sum(a @ x)


@pytest.mark.parametrize("args", [["[[1,2],[3,4]]", "[5,6]"], ["[[1,2],[3,4]],[5,6]"]], ids=["words", "commas"])
def test_matrices_on_the_command_line(check: Any, args: list[str]) -> None:
    done = check(f"{HERE}:trace_of", "--backends", "reference", "--args", *args)
    assert done.code == 0 and "referee: smooth at a = [[1, 2], [3, 4]], x = [5, 6]" in done.out, done


# Special points.

SPECIAL = Suite("special", tuple(get_suite("conventions").problem(name) for name in ("abs-0", "abs-vector-0")))


def test_special_points_give_an_atlas(check: Any, tmp_path: Path) -> None:
    junit, out = tmp_path / "check.xml", tmp_path / "check.json"
    done = check(f"{HERE}:SPECIAL", "--backends", "reference", "--junit", junit, "--json", out)
    assert done.code == 0, done
    assert "abs-0" in done.out and "from -1. to 1." in done.out  # the subdifferential of abs at 0
    found = {(case.get("classname"), str(case.get("name"))): case for case in cases(junit)}
    said = found[f"{HERE}.SPECIAL.abs-0", "reference grad"].findtext("system-out")
    assert str(said).startswith("convention: ")
    assert read(out)["kind"] == "atlas"


def test_a_wrong_answer_at_a_special_point_exits_1(check: Any, tmp_path: Path) -> None:
    done = check(f"{HERE}:SPECIAL", "--backends", "zero", "--junit", tmp_path / "check.xml")
    assert done.code == 1  # d/dx |x| is -1 at -2, an entry of abs-vector-0
    failed = [case for case in cases(tmp_path / "check.xml") if case.find("failure") is not None]
    assert {case.get("classname") for case in failed} == {f"{HERE}.SPECIAL.abs-vector-0"}


def test_special_points_are_judged_in_float64(check: Any) -> None:
    done = check(f"{HERE}:SPECIAL", "--dtype", "float32")
    assert (done.code, done.err) == (2, f"error: {HERE}:SPECIAL is judged in float64; leave --dtype out\n")


# Wrong usage.


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["nosuch"], "error: no suite is called 'nosuch'; known: textbook, elementary"),
        (["nosuch:f"], "no function at 'nosuch:f': No module named 'nosuch'; give it as MODULE:FUNCTION"),
        ([f"{HERE}:nosuch"], "has no attribute 'nosuch'"),
        ([f"{HERE}:"], f"no function at '{HERE}:'"),
        ([":f"], "it names no module"),
        ([f"{HERE}:NUMBER"], "is of type float, not a function"),
        ([f"{HERE}:norm"], "missing a required argument: 'x'; give its arguments after --args"),
        ([f"{HERE}:norm", "--args", "1", "2"], "too many positional arguments"),
        ([f"{HERE}:norm", "--args", "one"], "'one' is neither a number such as 2.0 nor a list"),
        (["textbook", "--args", "1"], "textbook is a suite, whose problems bring their arguments"),
        (["planted:TWO", "--args", "1"], "planted:TWO is a suite"),
        ([f"{HERE}:norm", "--backends", "tensorflo", "--args", "1"], "no backend is called 'tensorflo'; known: "),
        ([f"{HERE}:norm", "--backends", "reference", "--device", "cuda", "--args", "1"], "has no device 'cuda'"),
        (["textbook", "--dtype", "int8"], "'int8' is not one of 'float64', 'float32'"),
        (["textbook", "--junit", "nowhere/x.xml"], "cannot write nowhere/x.xml: No such file or directory"),
        (["textbook", "--json", "."], "cannot write .: Is a directory"),
        (["textbook", "--json", "x", "--junit", "x"], "give --junit and --json two files"),
    ],
)
def test_wrong_usage_exits_2_before_the_work(
    check: Any, args: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--junit" not in args:
        args = [*args[:1], "--junit", "left.xml", *args[1:]]
    done = check(*args)
    assert done.code == 2, done
    assert text in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_fails_says_where(check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken_on_import.py").write_text("x = 1\ny = x / 0\n")
    done = check("broken_on_import:f", "--junit", "x.xml")
    assert done.code == 3
    assert "importing 'broken_on_import' raised ZeroDivisionError: division by zero" in done.err
    assert "broken_on_import.py, line 2" in done.err
    (case,) = cases(Path("x.xml"))
    assert case.find("error") is not None


def test_the_entry_point_finds_modules_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def square(x):\n    return x * x\n")
    command = [sys.executable, "-m", "adbridge.cli", "check", "mine:square", "--args", "3"]
    env = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(planted.HERE)}
    done = subprocess.run(
        [*command, "--backends", "reference", "--junit", "out.xml"],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(cases(tmp_path / "out.xml")) == 4


# The files.

AWKWARD = "\x00\x07\x1b[31m \ud800 \ufffe <&>\"' ]]> π \U0001f600"


def test_files_hold_any_text_and_any_number(tmp_path: Path) -> None:
    records = [
        {"backend": "a", "verdict": "wrong", "note": AWKWARD, "entry": "x", "got": float("nan"), "snippet": AWKWARD},
        {"backend": AWKWARD, "verdict": "error", "note": "", "got": np.float32(np.inf), "expected": 1 + 2j},
        {"backend": "c", "verdict": "unsupported", "note": "no", "size": np.int64(3), "values": (np.ones(2), None)},
        {"backend": "d", "verdict": "wrong", "note": "", "known": True},
        {"backend": "e", "verdict": "convention", "note": "kink"},
        {"backend": "f", "verdict": "unresolved", "note": "", "relative_error": float("nan")},
    ]
    checked = Checked(AWKWARD, "function", "wrong", records, "", {"a": AWKWARD})
    write_junit(checked, tmp_path / "x.xml")
    found = cases(tmp_path / "x.xml")
    assert [[child.tag for child in case] for case in found] == [
        ["failure"], ["error"], ["skipped"], ["skipped"], ["system-out"], ["failure"],
    ]  # fmt: skip
    text = str(found[0][0].text)
    assert text.startswith("wrong: ") and "\\x00\\x07\\x1b[31m \\ud800 \\ufffe <&>\"' ]]> π \U0001f600" in text
    write_json(checked, tmp_path / "x.json")
    written = read(tmp_path / "x.json")
    assert written["target"] == AWKWARD
    assert [record.get("got") for record in written["records"][:2]] == ["nan", "inf"]
    assert written["records"][1]["expected"] == "(1+2j)"
    assert written["records"][2]["values"] == [[1.0, 1.0], None]


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["agree", "convention", "infinite", "undefined"], 0),
        (["agree", "unsupported"], 0),
        (["agree", "wrong", "error"], 1),
        (["agree", "unresolved"], 1),
        (["agree", "error"], 3),
        (["unsupported"], 3),
        ([], 3),
    ],
)
def test_exit_codes(verdicts: list[str], code: int) -> None:
    records = [{"backend": "a", "verdict": verdict, "note": ""} for verdict in verdicts]
    assert Checked("f", "function", "", records, "").exit_code == code
