"""Running suites: every case on every backend, checked, timed, weighed, recorded.

For each problem and size, each backend in turn times and checks all operators in one fresh process, and
weighs each operator in a fresh process of its own. Then the results are judged, and the group's records
are appended: a killed run loses at most the group that it was in.
"""

from __future__ import annotations

import os
import platform
import subprocess
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adbridge import __version__
from adbridge.bench.cases import Group, Settings, run_group
from adbridge.bench.pool import THREADS, Pool
from adbridge.bench.problem import Instance, Suite, get_suite
from adbridge.bench.scaling import GROWTH_COLUMNS, growths
from adbridge.bench.store import RECORDS, Record, append, frame
from adbridge.bench.worker import Place
from adbridge.errors import BackendUnavailable, DataError, RunError
from adbridge.protocol import Backend
from adbridge.registry import BackendLike, default_names, entry_of
from adbridge.trees import PyTree, flatten
from adbridge.validate.verdict import TOLERANCE, worst

if TYPE_CHECKING:
    import pandas as pd

Sizes = int | Sequence[int] | None
Progress = Callable[[int, int, str], None]
"""Called with (groups done, groups in all, what is running now)."""


@dataclass(frozen=True)
class Run:
    """The records of a run, and where they lie."""

    path: Path
    records: list[Record]

    def to_frame(self) -> pd.DataFrame:
        """A row per case: the columns of `store.COLUMNS`, times in seconds, memory in bytes."""
        return frame(self.records)

    def scaling(self) -> pd.DataFrame:
        """Fitted growth exponents of time and memory in n and m; see `scaling.Growth`."""
        import pandas as pd

        return pd.DataFrame(growths(self.records), columns=list(GROWTH_COLUMNS))

    @property
    def verdict(self) -> str:
        """The worst verdict of all cases; ``unresolved`` if nothing was compared."""
        return worst([r["verdict"] for r in self.records])

    @property
    def culprits(self) -> list[str]:
        """The backends that were judged wrong in some case."""
        return list(dict.fromkeys(r["backend"] for r in self.records if r["verdict"] == "wrong"))

    @property
    def exit_code(self) -> int:
        """0 if all agree, 1 on a disagreement, 3 if a case failed or nothing was compared."""
        verdicts = {r["verdict"] for r in self.records}
        if verdicts & {"wrong", "unresolved"}:
            return 1
        return 3 if "error" in verdicts or "agree" not in verdicts else 0


def run(
    suite: str | Suite | Iterable[str | Suite] = "quick",
    *,
    backends: Iterable[BackendLike] | None = None,
    n: Sizes = None,
    m: Sizes = None,
    data: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    dtype: str = "float64",
    out: str | os.PathLike[str] = "runs",
    seconds: float = 0.1,
    timeout: float = 60.0,
    memory: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Check and measure the problems of one or more suites on several backends.

    Args:
        suite: names (``"quick"``, ``"module:attribute"``) or Suites whose functions can be pickled.
        backends: names or Backends; by default every installed engine. One that is missing becomes records.
        n, m: sizes to run instead of the problems' own, where a problem is free in them.
        data: file or folder of real inputs, for the problems that read some; the others are left out.
        device, dtype: where and in which precision ("float64" or "float32").
        out: folder in which the run's own folder is made.
        seconds: steady-state timing per case. timeout: longest silence of a process, in seconds.
        memory: also measure peak memory (a further process per case).

    Raises:
        SuiteNotFound, BackendNotFound, BackendUnavailable (no backend left), DataError, RunError.
    """
    settings = _settings(backends, device, dtype, seconds, memory)
    suites = [suite] if isinstance(suite, (str, Suite)) else list(suite)
    groups = [g for s in suites for g in _groups(s, _sizes("n", n), _sizes("m", m), data, dtype)]
    if not groups:
        raise DataError(f"no problem of the chosen suites reads data from {data}; leave --data out, or run adbench")
    folder = _new_folder(Path(out))
    settings = replace(settings, common=_environment(folder.name))
    records: list[Record] = []
    with Pool(folder, timeout) as pool:
        for done, group in enumerate(groups):
            if progress:
                progress(done, len(groups), f"{group.suite} {group.name} n={group.place.n} m={group.place.m}")
            found = run_group(group, settings, pool)
            append(folder / RECORDS, found)
            records += found
    if progress:
        progress(len(groups), len(groups), "done")
    return Run(folder, records)


def _settings(
    backends: Iterable[BackendLike] | None, device: str, dtype: str, seconds: float, memory: bool
) -> Settings:
    if dtype not in TOLERANCE:
        raise RunError(f"dtype {dtype!r} is not one that runs can judge; choose float64 or float32")
    chosen = list(backends) if backends is not None else default_names()
    present: dict[str, BackendLike] = {}
    missing: dict[str, str] = {}
    for backend in chosen:
        name = backend.name if isinstance(backend, Backend) else backend
        try:
            if not isinstance(backend, Backend):
                entry_of(backend)
            present[name] = backend
        except BackendUnavailable as exc:
            missing[name] = str(exc)
    if not present:
        raise BackendUnavailable("no backend to run: " + ("; ".join(missing.values()) or "none was named"))
    return Settings(present, missing, device, dtype, seconds, memory, common={})


def _sizes(name: str, value: Sizes) -> tuple[int, ...] | None:
    sizes = None if value is None else (value,) if isinstance(value, int) else tuple(value)
    if sizes is not None and (not sizes or min(sizes) < 1):
        raise RunError(f"{name} must be one or more positive sizes, got {value!r}")
    return sizes


def _groups(
    suite: str | Suite, n: tuple[int, ...] | None, m: tuple[int, ...] | None, data: Any, dtype: str
) -> list[Group]:
    found = get_suite(suite) if isinstance(suite, str) else suite
    if data is not None:
        return [
            Group(found.name, problem, Place(suite, problem.name, *_size_of(instance), str(data), label, dtype))
            for problem in found.problems
            if problem.load is not None
            for label, instance in problem.load(Path(data)).items()
        ]
    return [
        Group(found.name, problem, Place(suite, problem.name, i, j, dtype=dtype))
        for problem in found.problems
        for i, j in problem.grid(n, m)
    ]


def _size_of(instance: Instance) -> tuple[int, int]:
    """Scalar inputs and scalar outputs."""
    value = instance.answer(*instance.args).value
    return _count(instance.args[0]), _count(value)


def _count(tree: PyTree) -> int:
    return sum(int(np.size(leaf)) for leaf in flatten(tree)[0])


def _new_folder(out: Path) -> Path:
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    try:
        (out / name).mkdir(parents=True)
    except OSError as exc:
        raise RunError(f"cannot make a folder for the run in {out}: {exc}; choose another with --out") from exc
    return out / name


def _environment(name: str) -> Record:
    return {"run": name, "commit": _commit(), "cpu": _cpu(), "threads": THREADS}


def _commit() -> str:
    """The commit of the checkout that adbridge runs from; its version if it is installed."""
    root = Path(__file__).resolve().parents[2]
    if (root / ".git").exists():
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return done.stdout.strip()
    return f"adbridge {__version__}"


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
