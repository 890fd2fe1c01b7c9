"""Running suites: every case on every backend, checked, timed, weighed, recorded.

For each problem and size, each backend in turn times and checks all operators in one fresh process, and
weighs each operator in a fresh process of its own. Then the results are judged, and the group's records
are appended: a killed run loses at most the group that it was in, and `resume` finishes it.
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
from typing import TYPE_CHECKING

from adbridge import __version__
from adbridge.bench.cases import Group, Settings, run_group
from adbridge.bench.plan import PLAN, Plan
from adbridge.bench.pool import THREADS, Pool
from adbridge.bench.problem import Suite
from adbridge.bench.scaling import GROWTH_COLUMNS, growths
from adbridge.bench.store import RECORDS, Record, append, frame, keep_whole_groups
from adbridge.errors import RunError, UsageError
from adbridge.registry import BackendLike
from adbridge.validate.verdict import worst

if TYPE_CHECKING:
    import pandas as pd

Sizes = int | Sequence[int] | None
Progress = Callable[[int, int, str, Path], None]
"""Called with (groups done, groups in all, what is running now, the run's folder)."""


@dataclass(frozen=True, repr=False)
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
        unweighed = any(r.get("memory_outcome", "ok") != "ok" for r in self.records)
        return 3 if unweighed or "error" in verdicts or "agree" not in verdicts else 0

    def __repr__(self) -> str:
        return f"<Run {self.path.name}: {len(self.records)} cases, verdict {self.verdict!r}, in {self.path}>"


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
    timeout: float = 120.0,
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
        SuiteNotFound, BackendNotFound, BackendUnavailable (no backend left), DataError, UsageError, RunError.
    """
    suites = [suite] if isinstance(suite, (str, Suite)) else list(suite)
    if timeout <= 0 or seconds < 0:
        raise UsageError(f"timeout must be positive and seconds not negative, got {timeout:g} and {seconds:g}")
    plan = Plan(suites, backends, _sizes("n", n), _sizes("m", m), data, device, dtype, seconds, timeout, memory)
    settings, groups = plan.settings(), plan.groups()
    folder = _new_folder(Path(out))
    plan.save(folder / PLAN, groups)
    return _carry_out(groups, replace(settings, common=_environment(folder.name)), folder, timeout, [], progress)


def resume(path: str | os.PathLike[str], *, progress: Progress | None = None) -> Run:
    """Finish a run that was killed or interrupted: what its folder at `path` lacks is run and appended.

    Raises:
        RunError: there is no such run, it was given Python objects, which only its own program has, or its
            suites or data have changed.
    """
    folder = Path(path)
    plan, groups = Plan.load(folder / PLAN)
    settings = plan.settings()
    records = keep_whole_groups(folder / RECORDS)
    return _carry_out(
        groups, replace(settings, common=_environment(folder.name)), folder, plan.timeout, records, progress
    )


def _carry_out(
    groups: list[Group],
    settings: Settings,
    folder: Path,
    timeout: float,
    records: list[Record],
    progress: Progress | None,
) -> Run:
    """Run the groups that have no records yet."""
    done = {record["group"] for record in records}
    with Pool(folder, timeout) as pool:
        for number, group in enumerate(groups):
            if progress:
                progress(number, len(groups), group.key, folder)
            if group.key in done:
                continue
            found = run_group(group, settings, pool)
            found = [{**record, "group_cases": len(found)} for record in found]
            append(folder / RECORDS, found)
            records += found
    if progress:
        progress(len(groups), len(groups), "done", folder)
    return Run(folder, records)


def _sizes(name: str, value: Sizes) -> tuple[int, ...] | None:
    sizes = None if value is None else (value,) if isinstance(value, int) else tuple(value)
    if sizes is not None and (not sizes or min(sizes) < 1):
        raise UsageError(f"{name} must be one or more positive sizes, got {value!r}")
    return sizes


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
