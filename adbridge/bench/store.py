"""Records: one JSON line per case, appended and fsynced; read back as a DataFrame."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adbridge.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]

# The columns of every frame of records, in order; bytes and seconds are per call. The cases of one instance
# are a group.
COLUMNS = (
    "run", "suite", "problem", "n", "m", "operator", "mode", "backend", "device", "dtype", "outcome", "verdict",
    "primal_seconds", "seconds_min", "seconds_median", "seconds_mad", "samples", "first_call_seconds",
    "prepare_seconds", "transfer_seconds", "primal_calls", "peak_alloc_bytes", "alloc_source",
    "peak_rss_delta_bytes", "engine_version", "commit", "cpu", "threads", "started",
    "relative_error", "disagreement", "entry", "got", "expected", "note", "memory_outcome", "memory_note",
    "group", "group_cases",
)  # fmt: skip

RECORDS = "records.jsonl"


def append(path: Path, records: Iterable[Record]) -> None:
    """Append records and return when they are on the disk. Non-finite numbers are written as strings."""
    lines = "".join(json.dumps(_plain(record), allow_nan=False) + "\n" for record in records)
    with path.open("a", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Record]:
    """The records of one file. A last line cut short by a kill is left out; damage elsewhere is an error.

    Raises:
        RunError: the file cannot be read, or a line other than the last is not a record.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise RunError(f"cannot read records from {path}: {exc}") from exc
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_restored(json.loads(line)))
        except (ValueError, AttributeError) as exc:
            if number == len(lines):
                break
            raise RunError(f"{path}, line {number}: not a record ({exc}); remove the line to read the rest") from exc
    return records


def keep_whole_groups(path: Path) -> list[Record]:
    """The records of the groups that are whole; a group cut short by a kill is removed from the file."""
    records = read(path) if path.exists() else []
    counts = Counter(record.get("group") for record in records)
    whole = [record for record in records if counts[record.get("group")] == record.get("group_cases")]
    replacement = path.with_suffix(".tmp")
    replacement.unlink(missing_ok=True)
    append(replacement, whole)
    replacement.replace(path)
    return whole


def load_runs(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Every record under `path` (a records file, a run's folder, or a folder of runs), a row each.

    The columns are those of `Run.to_frame`.

    Raises:
        RunError: there is no record file, or one is damaged.
    """
    root = Path(path)
    files = [root] if root.is_file() else sorted(root.glob(RECORDS)) or sorted(root.glob(f"*/{RECORDS}"))
    if not files:
        raise RunError(
            f"no {RECORDS} at {root}; give a run's folder, a folder of runs or a records file, as `adbridge run` makes"
        )
    return frame([record for file in files for record in read(file)])


def frame(records: list[Record]) -> pd.DataFrame:
    """A DataFrame with at least `COLUMNS`."""
    import pandas as pd

    extra = [key for record in records for key in record if key not in COLUMNS]
    return pd.DataFrame(records, columns=[*COLUMNS, *dict.fromkeys(extra)])


def _plain(record: Record) -> Record:
    return {key: _plain_value(value) for key, value in record.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, complex):
        return str(value)
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"nonfinite": str(value)}
    return value


def _restored(record: Record) -> Record:
    return {k: float(v["nonfinite"]) if isinstance(v, dict) and "nonfinite" in v else v for k, v in record.items()}
