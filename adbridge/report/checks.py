"""What `adbridge check` found, as text and as JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.text import Text

from adbridge import __version__
from adbridge.bench.store import Record
from adbridge.errors import AdbridgeError
from adbridge.registry import get_backend, table
from adbridge.report.tables import by_problem, conclusion, failures, number, verdicts_table

# What a verdict is to a test report; the other verdicts are passes.
_OUTCOMES = {"wrong": "failure", "unresolved": "failure", "error": "error", "unsupported": "skipped"}


@dataclass(frozen=True)
class Checked:
    """The outcome of a check of one target.

    Args:
        kind: "suite", "function", "rule" or "atlas"; "failed" if the check came to nothing.
        records: one per result that was judged, at least with ``backend``, ``verdict`` and ``note``; a ``snippet``
            is a script that shows its fault.
        text: all of it, for people.
        versions: of each backend's engine. seconds: what all of it took.
    """

    target: str
    kind: str
    verdict: str
    records: Sequence[Record]
    text: Any
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 if all is right, 1 on a disagreement or doubt, 3 if something failed or nothing was compared."""
        found = {outcome(record) for record in self.records}
        return 1 if "failure" in found else 3 if "error" in found or found <= {"skipped"} else 0


def outcome(record: Record) -> str:
    """What a record is to a test report: "passed", "failure", "error" or "skipped".

    A true ``known`` (upstream) excuses what is wrong. A true ``contradiction`` (of the referee and the known answer) is
    a failure whatever the verdict. A true ``optional`` makes doubt no failure, and no pass.
    """
    if record.get("known") or (record.get("optional") and record["verdict"] == "unresolved"):
        return "skipped"
    return "failure" if record.get("contradiction") else _OUTCOMES.get(record["verdict"], "passed")


def described(record: Record) -> str:
    """One line: ``wrong: x[1] is 3.5, should be 2 (3.3e+15 ulp, relative error 7.5e-01); kink: ...``."""
    words = []
    if (got := record.get("got")) is not None and not _is_missing(record.get("expected")):
        legal = "may" if record["verdict"] == "convention" else "should"
        words.append(f"{record.get('entry') or 'it'} is {number(got)}, {legal} be {number(record['expected'])}")
    ulp, relative = record.get("error_ulp"), record.get("relative_error")
    far = [f"{ulp:.2g} ulp"] if _is_number(ulp) else []
    far += [f"relative error {relative:.1e}"] if _is_number(relative) else []
    said = " ".join([*words, f"({', '.join(far)})" if far else ""]).strip()
    return f"{record['verdict']}: {'; '.join(filter(None, [said, record.get('note') or '']))}".removesuffix(": ")


def _is_number(x: object) -> bool:
    return isinstance(x, float) and math.isfinite(x)


def _is_missing(x: object) -> bool:
    return x is None or (isinstance(x, float) and math.isnan(x))


_MEASURED = (
    "seconds_",
    "primal_",
    "transfer_",
    "first_call_",
    "prepare_",
    "peak_",
    "alloc_",
    "samples",
    "memory_",
    "group",
)


def suite_records(records: Iterable[Record]) -> list[Record]:
    """A run's records without what it measures; ``seconds`` is what preparing and the first call took."""
    found = []
    for record in records:
        brief = {key: value for key, value in record.items() if not key.startswith(_MEASURED)}
        if "first_call_seconds" in record:
            brief["seconds"] = record["prepare_seconds"] + record["first_call_seconds"]
        found.append(brief)
    return found


def suite_text(records: Sequence[Record], exit_code: int) -> Group:
    """Verdicts by problem and backend, what is wrong, and the conclusion."""
    suites = [list(problems) for _, problems in groupby(by_problem(records), key=lambda p: p[0]["suite"])]
    tables = [part for problems in suites for part in (verdicts_table(problems), Text())]
    return Group(*tables, failures(records, "which --json writes"), conclusion(records, exit_code))


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """The engine's version of each backend that there is here."""
    found = {}
    for name in dict.fromkeys(names):
        if name in table():
            try:
                found[name] = get_backend(name).engine_version
            except AdbridgeError:  # it has a record that says why
                continue
    return found


def platform_versions() -> dict[str, str]:
    """adbridge, NumPy and Python."""
    return {"adbridge": __version__, "numpy": np.__version__, "python": platform.python_version()}


def write_json(checked: Checked, path: Path) -> None:
    """Verdict, versions and all records. Non-finite and complex numbers are strings, as JSON has none."""
    document = {
        "target": checked.target,
        "kind": checked.kind,
        "verdict": checked.verdict,
        "exit_code": checked.exit_code,
        "seconds": checked.seconds,
        "versions": {**platform_versions(), "backends": checked.versions},
        "records": checked.records,
    }
    path.write_text(json.dumps(_plain(document), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
