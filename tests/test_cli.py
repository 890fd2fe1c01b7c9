"""The command line: what it prints, and its exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import adbridge as ad
import planted
from adbridge.backends import BUILTIN


def adbridge(*args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "adbridge.cli", *map(str, args)]
    defaults = {"PYTHONPATH": str(planted.HERE), "COLUMNS": "160"}
    return subprocess.run(command, env={**os.environ, **defaults, **env}, capture_output=True, text=True, check=False)


def short(tmp_path: Path, suite: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return adbridge("run", suite, "--out", tmp_path, "--seconds", "0.001", "--no-memory", *args, **env)


def test_agreement_is_said_and_exits_0(tmp_path: Path) -> None:
    done = short(tmp_path, "planted:GOOD_SUITE", "--backends", "reference,autograd", "--n", "10,1e2,1000")
    assert done.returncode == 0, done.stderr
    assert "reference and autograd agree on all 18 results" in done.stdout
    assert "good, good: time, ratio to the primal, peak memory" in done.stdout
    assert "n=10, m=1" in done.stdout and "n=1000, m=1" in done.stdout
    assert "growth: exponent p of cost ~ size^p" in done.stdout
    (records,) = tmp_path.glob("*/records.jsonl")
    assert f"records: {records}" in done.stdout
    assert len(ad.load_runs(records)) == 18


def test_zero_is_named_and_exits_1(tmp_path: Path) -> None:
    done = short(tmp_path, "planted:GOOD_SUITE", "--backends", "reference,zero")
    assert done.returncode == 1
    assert "4 of 6 results agree" in done.stdout
    assert "zero is wrong in 2 of its 3 results" in done.stdout
    assert "reference is wrong" not in done.stdout


def test_a_failed_process_exits_3_and_names_the_log(tmp_path: Path) -> None:
    done = short(tmp_path, "planted:PARTLY", "--backends", "reference")
    assert done.returncode == 3
    assert "reference failed in 3 of its 6 results" in done.stdout
    assert "crashed" in done.stdout and "SIGABRT" in done.stdout


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (
            ["nosuch"],
            "error: no suite is called 'nosuch'; known: textbook, elementary, linalg, scaling, adbench, quick",
        ),
        (["--backends", "tensorflo"], "error: no backend is called 'tensorflo'; known: reference, jax"),
        (["--n", "ten"], "'ten' is not a list of positive sizes such as 100,1e4"),
        (["--n", "0"], "'0' is not a list of positive sizes"),
        (["--m", "2.5"], "'2.5' is not a list of positive sizes"),
        (["--dtype", "int8"], "'int8' is not one of 'float64', 'float32'"),
        (["adbench", "--data", "nowhere.txt"], "nowhere.txt"),
        (["textbook", "--data", "nowhere.txt"], "no problem of the chosen suites reads data from nowhere.txt"),
        (["--nonsense"], "No such option"),
    ],
)
def test_wrong_usage_exits_2(tmp_path: Path, args: list[str], text: str) -> None:
    done = adbridge("run", *args, "--out", tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_backends_lists_them_all() -> None:
    done = adbridge("backends")
    assert done.returncode == 0
    for name in BUILTIN:
        assert name in done.stdout


def test_backends_says_how_to_install_what_is_missing(tmp_path: Path) -> None:
    # A finder that hides PyTorch, installed as this interpreter starts.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            raise ModuleNotFoundError('hidden', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    done = adbridge("backends", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "backend 'torch' needs the package 'torch', which is not installed" in done.stdout
    assert "pip install 'adbridge[torch]'" in done.stdout


@pytest.mark.parametrize("suite", ["planted:GOOD_SUITE", "planted:TWO"])
def test_narrow_terminals_lose_nothing(tmp_path: Path, suite: str) -> None:
    done = short(tmp_path, suite, "--backends", "reference,zero", "--n", "10,20", COLUMNS="80")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "…" not in done.stdout
    for word in ("operator", "backend", "time", "ratio", "memory", "verdict", "10 → 1", "20 → 1", "cost", "growth"):
        assert word in done.stdout, word
    unbroken = " ".join(done.stdout.split())
    assert "zero is wrong: " in unbroken and ", gradient[" in unbroken and "should be" in unbroken


def test_a_module_in_the_current_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "mysuite.py").write_text("import planted\nSUITE = planted.GOOD_SUITE\n")
    command = ["adbridge", "run", "mysuite:SUITE", "--backends", "reference", "--out", "runs", "--no-memory"]
    entry = f"import sys; sys.argv = {command!r}; from adbridge.cli import main; main()"
    env = {**os.environ, "PYTHONPATH": str(planted.HERE), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", entry], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_interrupted_run_says_how_to_finish_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "adbridge.cli", "run", "planted:SUITE", "--out", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(planted.HERE)}
    process = subprocess.Popen(
        [*command, "--backends", "reference"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob("*/worker-reference.log")):
        time.sleep(0.05)
    time.sleep(0.5)  # into the problem that hangs
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    (folder,) = tmp_path.iterdir()
    assert err.strip() == f"interrupted; finish it with: adbridge run --resume {folder}"
    assert process.returncode == 3


def test_resume_finishes_a_run(tmp_path: Path) -> None:
    short(tmp_path, "planted:GOOD_SUITE", "--backends", "reference")
    (folder,) = tmp_path.iterdir()
    (folder / "records.jsonl").unlink()
    done = adbridge("run", "--resume", folder)
    assert done.returncode == 0, done.stderr
    assert "reference agrees on all 3 results" in done.stdout
    assert adbridge("run", "--resume", tmp_path).returncode == 3


def test_help_and_version() -> None:
    assert ad.__version__ in adbridge("--version").stdout
    text = adbridge("run", "--help").stdout
    for option in ("--backends", "--n", "--m", "--data", "--out", "--device", "--dtype"):
        assert option in text


@pytest.mark.slow
def test_quick_shows_four_engines_agreeing(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    pytest.importorskip("torch")
    pytest.importorskip("autograd")
    done = adbridge("run", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reference, jax, torch and autograd agree on all" in done.stdout
    frame = ad.load_runs(tmp_path)
    assert set(frame.backend) == {"reference", "jax", "torch", "autograd"}
    assert (frame.verdict == "agree").all()
    assert frame.peak_alloc_bytes.notna().all()
