"""The asv entry points: found, well-formed, and running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adbridge.suites.benchmarks import gradients

ROOT = Path(__file__).parents[1]
CLASSES = [value for name, value in vars(gradients).items() if isinstance(value, type) and not name.startswith("_")]
BENCHMARKED = [c for c in CLASSES if c.__module__ == gradients.__name__]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["--python=same"]])
def test_asv_accepts_the_benchmarks(arguments: list[str]) -> None:
    pytest.importorskip("asv")
    command = [sys.executable, "-m", "asv", "check", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout


@pytest.mark.parametrize("family", BENCHMARKED, ids=lambda family: family.__name__)
def test_benchmarks_run(family: type) -> None:
    """Every method, on the reference engine, at its first size."""
    benchmark = family()
    parameters = "reference", benchmark.params[1][0]
    benchmark.setup(*parameters)
    for name in dir(family):
        if name.startswith("time_"):
            getattr(benchmark, name)(*parameters)
        if name.startswith("track_"):
            assert getattr(benchmark, name)(*parameters) > 0
            assert getattr(benchmark, name).unit == "bytes"
