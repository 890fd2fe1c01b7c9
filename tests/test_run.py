"""Runs: agreement, planted errors by name, processes that fail, records and their growth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import adbridge as ad
import planted
from adbridge.bench import measure, memory, scaling, store
from adbridge.registry import is_installed
from adbridge.trees import Spec

ENGINES = [name for name in ("reference", "jax", "torch", "autograd") if is_installed(name)]


def run(tmp_path: Path, suite: Any, **options: Any) -> ad.Run:
    defaults = {"backends": ["reference"], "seconds": 0.001, "memory": False, "out": tmp_path}
    return ad.run(suite, **(defaults | options))


def by(records: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [r for r in records if all(r[key] == value for key, value in wanted.items())]


def test_engines_agree_and_everything_is_recorded(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:GOOD_SUITE", backends=ENGINES, memory=True)
    assert (done.verdict, done.culprits, done.exit_code) == ("agree", [], 0)
    assert len(done.records) == 3 * len(ENGINES)
    frame = done.to_frame()
    assert list(frame.columns[: len(store.COLUMNS)]) == list(store.COLUMNS)
    assert (frame.outcome == "ok").all()
    assert (frame.n == 3).all()
    assert (frame.m == 1).all()
    assert (frame.relative_error < 1e-10).all()
    for column in ("seconds_min", "primal_seconds", "first_call_seconds", "transfer_seconds", "peak_alloc_bytes"):
        assert (frame[column] > 0).all(), column
    assert (frame.seconds_min <= frame.seconds_median).all()
    assert (frame.threads == 1).all()
    assert (frame.primal_calls >= 1).all()
    assert frame.samples.map(len).min() >= measure.MIN_SAMPLES
    assert set(zip(frame.operator, frame["mode"], strict=True)) == {
        ("value", ""),
        ("grad", "reverse"),
        ("jvp", "forward"),
    }
    assert dict(zip(frame.backend, frame.alloc_source, strict=True)) == {
        name: {"jax": "xla arg+out+temp-alias", "torch": "torch profiler"}.get(name, "tracemalloc") for name in ENGINES
    }
    pd.testing.assert_frame_equal(ad.load_runs(tmp_path), frame)


def test_zero_is_named_wrong(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:GOOD_SUITE", backends=["reference", "zero"])
    assert (done.verdict, done.culprits, done.exit_code) == ("wrong", ["zero"], 1)
    (record,) = by(done.records, backend="zero", operator="grad")
    assert record["outcome"] == "wrong"
    assert record["relative_error"] == 1.0
    assert by(done.records, backend="zero", operator="value")[0]["verdict"] == "agree"


@pytest.mark.parametrize(("backend", "operator"), [(planted.SlightlyWrong, "grad"), (planted.NotANumber, "jvp")])
def test_a_planted_wrong_derivative_is_named(tmp_path: Path, backend: type, operator: str) -> None:
    done = run(tmp_path, "planted:GOOD_SUITE", backends=["reference", backend()])
    assert (done.culprits, done.exit_code) == ([backend.name], 1)
    wrong = by(done.records, verdict="wrong", operator=operator)
    assert [r["backend"] for r in wrong] == [backend.name]
    entry = {"grad": "gradient[2]", "jvp": "tangent"}[operator]
    assert wrong[0]["entry"] == entry
    if operator == "grad":
        x = planted.GOOD.instance(3, 1).args[0]
        assert wrong[0]["expected"] == pytest.approx(np.cos(x[2]), rel=1e-14)
        assert wrong[0]["got"] == pytest.approx(1.001 * np.cos(x[2]), rel=1e-14)


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "reference"])
def test_a_wrong_derivative_in_any_engine_is_named(tmp_path: Path, engine: str) -> None:
    code = PLANT.format(engine=engine)
    module = f"plant_{engine}"
    (tmp_path / f"{module}.py").write_text(code)
    sys.path.insert(0, str(tmp_path))
    try:
        broken = __import__(module).Broken()
        done = run(tmp_path, "planted:GOOD_SUITE", backends=[*(e for e in ENGINES if e != engine), broken])
    finally:
        sys.path.remove(str(tmp_path))
    assert (done.culprits, done.exit_code) == ([engine], 1)
    assert {r["backend"] for r in done.records if r["verdict"] == "agree"} >= set(ENGINES) - {engine}


PLANT = """
from adbridge.registry import backend_class

class Broken(backend_class({engine!r})):
    def jvp(self, fun, primals, tangents):
        outs, out_tangents, aux = super().jvp(fun, primals, tangents)
        return outs, tuple(t * (1 + 1e-6) for t in out_tangents), aux

    def vjp(self, fun, primals):
        outs, pullback, aux = super().vjp(fun, primals)
        return outs, lambda cotangents: tuple(-g for g in pullback(cotangents)), aux
"""


def test_a_wrong_answer_is_not_blamed_on_one_engine(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:WRONG_ANSWER", backends=["reference", "zero"])
    assert set(done.culprits) == {"reference", "zero"}


def test_processes_that_fail_become_records(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:SUITE", timeout=2.0)
    outcomes = {r["problem"]: (r["outcome"], r["verdict"]) for r in by(done.records, operator="value")}
    assert outcomes == {
        "hangs": ("timeout", "error"),
        "dies": ("crashed", "error"),
        "killed": ("out-of-memory", "error"),
        "leaves": ("crashed", "error"),
        "raises": ("error", "error"),
        "exhausts": ("out-of-memory", "error"),
        "broken": ("error", "error"),
        "unmakeable": ("crashed", "error"),
        "good": ("ok", "agree"),
    }
    notes = {r["problem"]: r.get("note") or "" for r in by(done.records, operator="value")}
    assert "no result within 2 s; raise --timeout" in notes["hangs"]
    assert "died of SIGSEGV; see" in notes["dies"]
    assert "SIGKILL" in notes["killed"]
    assert notes["raises"] == "ZeroDivisionError: planted"
    assert notes["broken"] == "the problem could not be made: ValueError: planted in make"
    assert notes["unmakeable"].startswith("the problem could not be made: the process died of SIGABRT; see")
    assert done.exit_code == 3
    assert "ZeroDivisionError: planted" in (done.path / "worker-reference.log").read_text()


def test_a_message_cut_short_does_not_hang_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:GOOD_SUITE", backends=[planted.DiesTalking()], timeout=20.0)
    outcomes = {r["operator"]: r["outcome"] for r in done.records}
    assert outcomes["grad"] == "out-of-memory"  # killed with half its result sent
    assert outcomes["value"] == outcomes["jvp"] == "ok"


def test_failing_to_weigh_keeps_the_times_and_fails_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:GOOD_SUITE", backends=[planted.CannotBeWeighed()], memory=True)
    assert {(r["outcome"], r["verdict"], r["memory_outcome"]) for r in done.records} == {("ok", "agree", "crashed")}
    assert done.exit_code == 3


def test_a_suspect_answer_is_said(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:WRONG_ANSWER", backends=["reference", planted.Spawned()])
    assert {r["note"] for r in by(done.records, operator="vjp")} == {
        "all backends agree with each other: the known answer is suspect"
    }


def test_a_wrong_tangent_is_found_beside_a_large_value(tmp_path: Path) -> None:
    for dtype in ("float32", "float64"):
        done = run(tmp_path, "planted:LARGE_VALUE", backends=[planted.SlightlyWrong()], dtype=dtype)
        assert by(done.records, operator="jvp")[0]["verdict"] == "wrong"
        assert by(done.records, operator="jvp")[0]["entry"] == "tangent"


def test_resume_refuses_data_that_have_changed(tmp_path: Path) -> None:
    data = tmp_path / "gmm"
    data.mkdir()
    numbers = "0.1 0.2 " + "0.5 " * 4 + "0.3 " * 6 + "1.0 2.0 0.5 0.25 " + "1.0 0"
    (data / "gmm_b.txt").write_text("2 2 2\n" + numbers)
    (data / "gmm_c.txt").write_text("2 2 2\n" + numbers)
    done = run(tmp_path / "runs", "adbench", data=data)
    assert [r["problem"] for r in done.records] == ["gmm[gmm/gmm_b]"] * 3 + ["gmm[gmm/gmm_c]"] * 3
    assert ad.resume(done.path).exit_code == 0
    (data / "gmm_a.txt").write_text("2 2 2\n" + numbers)
    with pytest.raises(ad.RunError, match=r"the suites or data of the run at .* have changed since; start a new run"):
        ad.resume(done.path)


def test_one_operator_that_dies_does_not_stop_the_next(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:PARTLY", backends=[planted.Uncompiled()])  # a compiler runs it on tracers, too
    outcomes = [(r["problem"], r["operator"], r["outcome"]) for r in done.records]
    assert outcomes[:3] == [("partly", "value", "ok"), ("partly", "grad", "crashed"), ("partly", "jvp", "crashed")]
    assert {outcome for problem, _, outcome in outcomes if problem == "good"} == {"ok"}


def test_an_engine_that_cannot_fork_gets_fresh_processes(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:PARTLY", backends=[planted.Spawned()])
    assert by(done.records, problem="partly", operator="grad")[0]["outcome"] == "crashed"
    assert {r["outcome"] for r in by(done.records, problem="good")} == {"ok"}


def test_missing_engine_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adbridge import registry

    monkeypatch.setattr(registry, "is_installed", lambda name: name != "torch")
    done = run(tmp_path, "planted:GOOD_SUITE", backends=["reference", "torch"])
    assert {r["verdict"] for r in by(done.records, backend="reference")} == {"agree"}
    (note,) = {r["note"] for r in by(done.records, backend="torch")}
    assert "needs the package 'torch', which is not installed; run: pip install 'adbridge[torch]'" in note
    assert done.exit_code == 3
    with pytest.raises(ad.BackendUnavailable, match=r"no backend to run: .*pip install 'adbridge\[torch\]'"):
        run(tmp_path, "planted:GOOD_SUITE", backends=["torch"])


def test_an_engine_that_fails_to_import_does_not_stop_the_others(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:GOOD_SUITE", backends=[planted.Unimportable(), "reference"])
    assert {r["verdict"] for r in by(done.records, backend="reference")} == {"agree"}
    broken = by(done.records, backend="unimportable")
    assert {(r["outcome"], r["note"]) for r in broken} == {("error", "ImportError: planted: libengine.so is missing")}
    assert done.exit_code == 3


def test_unavailable_device_is_unsupported_and_not_a_pass(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:GOOD_SUITE", device="cuda")
    assert {(r["outcome"], r["verdict"]) for r in done.records} == {("unsupported", "unsupported")}
    assert "backend 'reference' has no device 'cuda' (it has: cpu)" in done.records[0]["note"]
    assert done.exit_code == 3


@pytest.mark.gpu
@pytest.mark.parametrize("engine", [name for name in ("jax", "torch") if name in ENGINES])
def test_runs_on_a_gpu(tmp_path: Path, engine: str) -> None:
    """Right, and timed to the end: no call is faster than the memory that it must move at 10 TB/s."""
    if len(ad.get_backend(engine).capabilities.devices) == 1:
        pytest.skip(f"{engine} sees no GPU")
    n = 10**8
    done = run(tmp_path, "planted:GOOD_SUITE", backends=[engine], device="gpu", n=n, memory=True, timeout=300)
    assert done.exit_code == 0
    for record in done.records:
        assert record["seconds_min"] > 8 * n / 10e12
        assert record["peak_alloc_bytes"] >= 8


def test_float32_runs(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:GOOD_SUITE", backends=ENGINES, dtype="float32")
    assert done.exit_code == 0
    assert 1e-12 < max(r["relative_error"] for r in done.records) < 1e-5


def test_sizes_and_growth(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:GOOD_SUITE", n=[10**4, 10**5, 10**6], memory=True, seconds=0.02)
    assert sorted({r["n"] for r in done.records}) == [10**4, 10**5, 10**6]
    growth = done.scaling()
    assert list(growth.columns) == list(scaling.GROWTH_COLUMNS)
    bytes_of = growth[(growth.quantity == "bytes") & (growth.operator == "grad")].iloc[0]
    assert bytes_of.exponent == pytest.approx(1.0, abs=0.02)
    assert (bytes_of.variable, bytes_of.from_size, bytes_of.to_size) == ("n", 10**4, 10**6)


def test_a_suite_that_cannot_be_sent(tmp_path: Path) -> None:
    with pytest.raises(ad.RunError, match=r"cannot be sent to another process: .*put the suite's .* in a module"):
        run(tmp_path, planted.LOCAL)


class Renamed(planted.SlightlyWrong):
    name = "reference"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"suite": "nosuch"}, ad.SuiteNotFound, "no suite is called 'nosuch'; known: textbook"),
        ({"suite": "quik"}, ad.SuiteNotFound, "did you mean 'quick'"),
        ({"suite": "planted:GOOD"}, ad.SuiteNotFound, "'planted:GOOD' is a Problem, not an adbridge Suite"),
        ({"suite": "no.module:SUITE"}, ad.SuiteNotFound, "could not be loaded from no.module"),
        ({"backends": ["tourch"]}, ad.BackendNotFound, "no backend is called 'tourch'; did you mean 'torch'"),
        ({"backends": []}, ad.BackendUnavailable, "no backend to run: none was named"),
        ({"m": 5}, ad.UsageError, "no problem of good is free in m; leave --m out"),
        ({"backends": ["reference", Renamed()]}, ad.UsageError, "two of the backends are called 'reference'"),
        ({"dtype": "int8"}, ad.UsageError, "dtype 'int8' is not one that runs can judge; choose float64 or float32"),
        ({"timeout": 0.0}, ad.UsageError, "timeout must be positive and seconds not negative, got 0 and 0.001"),
        ({"n": 0}, ad.UsageError, "n must be one or more positive sizes, got 0"),
        ({"m": []}, ad.UsageError, r"m must be one or more positive sizes, got \[\]"),
        ({"data": "x.txt"}, ad.DataError, "no problem of the chosen suites reads data from x.txt"),
    ],
)
def test_bad_input(tmp_path: Path, options: dict[str, Any], error: type[Exception], text: str) -> None:
    suite = options.pop("suite", "planted:GOOD_SUITE")
    with pytest.raises(error, match=text):
        run(tmp_path, suite, **options)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ad.RunError, match=r"cannot make a folder for the run in .*; choose another with --out"):
        run(tmp_path, "planted:GOOD_SUITE", out=tmp_path / "file")


def test_the_timer_waits_for_the_engine() -> None:
    """An asynchronous engine's time is the time until its result is there."""
    backend = planted.Lazy()
    instance = planted.GOOD.instance(3, 1)
    seeds = measure.seeds_for(Spec((3,), "float64"), Spec((), "float64"))
    timing, _ = measure.time_case(measure.Case("grad", instance, seeds, backend), 0.0)
    assert min(timing.samples) >= backend.WORK
    assert timing.first_call_seconds >= backend.WORK
    assert backend.waited >= len(timing.samples)


def test_peak_rss_sees_what_a_call_touches() -> None:
    """In a fresh process: the allocator's leftovers would hide it here."""
    code = (
        "import numpy as np; from adbridge.bench.memory import peak_rss_delta;"
        "print(peak_rss_delta(lambda: np.ones(4_000_000)), peak_rss_delta(lambda: None))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    large, none = map(int, done.stdout.split())
    assert 31e6 <= large < 36e6  # 32 MB, less pages that the interpreter gave back meanwhile
    assert none < 1e6


def test_peak_rss_says_where_it_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, data: str) -> int:
        raise PermissionError("planted")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(ad.CapabilityError, match="needs Linux's /proc/self/clear_refs, which failed: planted"):
        memory.peak_rss_delta(lambda: None)


@pytest.mark.parametrize("name", ENGINES)
def test_peak_alloc_is_what_the_engine_allocates(name: str) -> None:
    """sin(x) on n doubles makes one array of 8n bytes; XLA counts its argument, too."""
    n = 100_000
    backend = ad.get_backend(name)
    case = measure.Case("value", _sine_instance(n), measure.Seeds(None, None), backend)
    prepared, arrays = case.prepare()
    with prepared.scope():
        peak, _ = backend.peak_alloc(prepared.compiled, arrays)
    expected = 8 * n * (2 if name == "jax" else 1)
    assert expected <= peak <= expected + 20_000


def _sine_instance(n: int) -> Any:
    from adbridge.bench.problem import Instance, diagonal_answer

    def sine(x: Any) -> Any:
        return ad.array_namespace(x).sin(x)

    return Instance(sine, (np.ones(n),), lambda x: diagonal_answer(np.sin(x), np.cos(x)))


def test_a_run_prints_in_a_line(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:GOOD_SUITE")
    assert repr(done) == f"<Run {done.path.name}: 3 cases, verdict 'agree', in {done.path}>"


def test_slow_calls_are_not_repeated_for_ever() -> None:
    calls = []
    samples = measure.steady_state(lambda: calls.append(time.sleep(0.6)), 0.01)
    assert len(samples) == 2 and len(calls) == 3


def test_slope_of_a_power() -> None:
    sizes = np.array([10.0, 100.0, 1000.0])
    exponent, half = scaling.slope(sizes, 3 * sizes**1.5)
    assert exponent == pytest.approx(1.5)
    assert half == pytest.approx(0.0, abs=1e-12)
    # By hand: slopes 1 then 2 per decade have the mean 1.5, residuals (1, -2, 1)/6 decades, t = 6.314.
    exponent, half = scaling.slope(sizes, np.array([1.0, 10.0, 1000.0]))
    assert exponent == pytest.approx(1.5)
    assert half == pytest.approx(6.314 * np.sqrt((1 + 4 + 1) / 36 / 2))
    assert np.isnan(scaling.slope(sizes[:2], sizes[:2])[1])


def test_growth_is_fitted_along_the_longest_line() -> None:
    def record(n: int, m: int, seconds: float) -> dict[str, Any]:
        keys = dict.fromkeys(scaling.KEYS, "x")
        return keys | {"n": n, "m": m, "outcome": "ok", "seconds_min": seconds, "samples": [seconds]}

    records = [record(n, 5, 2.0 * n**2) for n in (1, 10, 100, 1000)] + [record(10, m, 1.0 * m) for m in (50, 500)]
    rows = {row["variable"]: row for row in scaling.growths(records)}
    assert rows["n"]["exponent"] == pytest.approx(2.0)
    assert (rows["n"]["from_size"], rows["n"]["to_size"]) == (10, 1000)  # the tail
    assert rows["m"]["to_size"] == 500


def test_records_survive_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / store.RECORDS
    store.append(path, [{"run": "a", "relative_error": float("nan")}, {"run": "a", "got": float("inf")}])
    with path.open("a") as file:
        file.write('{"run": "a", "proble')
    first, second = store.read(path)
    assert np.isnan(first["relative_error"])
    assert second["got"] == float("inf")
    for line in path.read_text().splitlines()[:2]:
        json.loads(line, parse_constant=pytest.fail)  # strict JSON: no NaN, no Infinity


def test_damaged_and_missing_records(tmp_path: Path) -> None:
    with pytest.raises(ad.RunError, match=r"no records.jsonl at .*; give a run's folder"):
        ad.load_runs(tmp_path)
    (tmp_path / store.RECORDS).write_text('{"run": "a"}\nnonsense\n{"run": "b"}\n')
    with pytest.raises(ad.RunError, match=r"line 2: not a record .*; remove the line to read the rest"):
        ad.load_runs(tmp_path)


def test_load_runs_takes_a_file_a_run_or_a_folder_of_runs(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        store.append(tmp_path / name / store.RECORDS, [{"run": name}])
    assert list(ad.load_runs(tmp_path).run) == ["one", "two"]
    assert list(ad.load_runs(tmp_path / "one").run) == ["one"]
    assert list(ad.load_runs(tmp_path / "two" / store.RECORDS).run) == ["two"]


def test_a_group_cut_short_is_run_again(tmp_path: Path) -> None:
    done = run(tmp_path, "planted:GOOD_SUITE", n=[3, 4, 5])
    path = done.path / store.RECORDS
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 9
    path.write_text("".join(lines[:5]) + lines[5][:40])  # killed in the second group
    again = ad.resume(done.path)
    assert [(r["n"], r["operator"]) for r in again.records] == [(r["n"], r["operator"]) for r in done.records]
    pd.testing.assert_frame_equal(ad.load_runs(path), again.to_frame())
    assert [r["samples"] for r in again.records[:3]] == [r["samples"] for r in done.records[:3]]
    complete = path.read_text()
    assert ad.resume(done.path).exit_code == 0
    assert path.read_text() == complete


def test_what_is_asked_for_twice_is_run_once(tmp_path: Path) -> None:
    done = run(tmp_path, ["planted:GOOD_SUITE", "planted:GOOD_SUITE"], n=[3, 3, 4])
    assert [r["n"] for r in by(done.records, operator="value")] == [3, 4]
    assert len(ad.resume(done.path).records) == len(done.records)


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ad.RunError, match=r"no run to resume at .*; give the folder that holds run.json"):
        ad.resume(tmp_path)
    done = run(tmp_path, "planted:GOOD_SUITE", backends=[planted.SlightlyWrong()])
    with pytest.raises(ad.RunError, match=r"was given suites or backends as Python objects"):
        ad.resume(done.path)


@pytest.mark.slow
def test_two_runs_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "adbridge.cli", "run", "planted:GOOD_SUITE", "--out", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(planted.HERE)}
    processes = [subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [p.wait(timeout=120) for p in processes] == [0, 0]
    frame = ad.load_runs(tmp_path)
    assert frame.run.nunique() == 2
    assert (frame.verdict == "agree").all()


@pytest.mark.slow
def test_a_killed_run_leaves_no_processes_and_can_be_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "after.py").write_text(
        "import planted\nfrom adbridge.bench.problem import Suite\n"
        "SUITE = Suite('after', (planted.GOOD, planted.SUITE.problem('hangs')))\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{planted.HERE}:{tmp_path}"}
    command = [sys.executable, "-m", "adbridge.cli", "run", "after:SUITE", "--backends", "reference,autograd"]
    process = subprocess.Popen([*command, "--out", str(tmp_path / "runs")], env=env, stdout=subprocess.DEVNULL)
    records = []
    deadline = time.monotonic() + 60
    while not records and time.monotonic() < deadline:
        time.sleep(0.1)
        records = list((tmp_path / "runs").glob("*/records.jsonl"))
    time.sleep(1)  # into the problem that hangs
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(store.read(records[0])) == 6
    plan = records[0].parent / "run.json"
    plan.write_text(plan.read_text().replace('"timeout": 120.0', '"timeout": 1.0'))
    monkeypatch.syspath_prepend(tmp_path)
    finished = ad.resume(records[0].parent)
    assert [r["problem"] for r in finished.records] == ["good"] * 6 + ["hangs"] * 2
    assert {r["outcome"] for r in finished.records[6:]} == {"timeout"}
    while _workers(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _workers(tmp_path) == []


def _workers(tmp_path: Path) -> list[str]:
    """Processes whose log is in this test's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(tmp_path) in str((process / "fd" / "1").readlink()):
                found.append(process.name)
        except OSError:
            continue
    return found
