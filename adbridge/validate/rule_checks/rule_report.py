"""What a check of a derivative rule found: a row for each comparison, the verdict, and code that shows the failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adbridge.errors import RuleError
from adbridge.validate.verdict import worst

if TYPE_CHECKING:
    import pandas as pd

FAILURES = ("wrong", "error")
_COLUMNS = (
    *("backend", "mode", "check", "point", "dtype", "verdict", "entry", "got", "expected", "note"),
    "comparisons",
)
_OPERATORS = {"forward": "jvp", "reverse": "vjp"}
_FORGIVEN = ("unresolved", "unsupported", "undefined")


@dataclass(frozen=True)
class Row:
    """One comparison, or several of one kind. `mode` is a sweep ("forward", "reverse"), two ("forward-over-reverse"),
    or empty for the value; `beside` marks a point other than the example."""

    backend: str
    mode: str
    check: str
    point: str
    dtype: str
    verdict: str
    entry: str = ""
    got: Any = None
    expected: Any = None
    note: str = ""
    comparisons: int = 0
    beside: bool = False
    snippet: str = field(default="", repr=False)

    @property
    def failed(self) -> bool:
        return self.verdict in FAILURES

    def describe(self) -> str:
        """``vjp at x[3], got 0.5403, expected 0.8415 (point: the example, float64)``."""
        what = _OPERATORS.get(self.mode, self.mode or "the value")
        parts = [f"{what} at {self.entry}" if self.entry else what]
        if self.got is not None or self.expected is not None:
            got, expected = told_apart(self.got, self.expected)
            parts += [f"got {got}", f"expected {expected}"]
        where = f" (point: {self.point}, {self.dtype})" if self.point else ""
        return f"{', '.join(parts)}{where}{f': {self.note}' if self.note else ''}"


@dataclass(frozen=True)
class RuleReport:
    """The rows of a check, in their order; ``print`` says what is wrong, what passed, and how to see it.

    `point` is what kind of point the example is, `name` the rule's.
    """

    name: str
    point: str
    rows: tuple[Row, ...]

    @property
    def verdict(self) -> str:
        """The worst of all rows; ``unresolved`` if nothing could be compared.

        What could not be judged at points beside the example, and modes that an engine or the rule lacks, do not
        lower it while something was compared.
        """
        if not self.comparisons and not self.failed:
            return "unresolved"
        return worst([row.verdict for row in self.rows if not _is_forgiven(row)])

    @property
    def failed(self) -> Row | None:
        """The first row that is wrong, or else an error."""
        return next((row for verdict in FAILURES for row in self.rows if row.verdict == verdict), None)

    @property
    def comparisons(self) -> int:
        """Numbers that were compared."""
        return sum(row.comparisons for row in self.rows)

    @property
    def snippet(self) -> str:
        """A script that shows the failure; empty if there is none."""
        return "" if self.failed is None else self.failed.snippet

    def to_frame(self) -> pd.DataFrame:
        """A row for each comparison: ``backend, mode, check, point, dtype, verdict, entry, got, expected, note,
        comparisons``."""
        import pandas as pd

        records = [{column: getattr(row, column) for column in _COLUMNS} for row in self.rows]
        return pd.DataFrame(records, columns=list(_COLUMNS)).astype({"got": object, "expected": object})

    def raise_for_wrong(self) -> None:
        """Raise RuleError with the readable text if the rule is wrong, or failed where the plain function does not."""
        if self.failed is not None:
            raise RuleError(str(self))

    def __str__(self) -> str:
        lines = [self._headline(), *self._passed()]
        if self.snippet:
            lines += ["", "To see it:", "", *(f"    {line}" for line in self.snippet.splitlines())]
        return "\n".join(lines)

    __repr__ = __str__

    def _headline(self) -> str:
        row, name = self.failed, repr(self.name)
        if row is not None and row.verdict == "error":
            return f"rule {name} fails on {row.backend}: {row.check}, {row.describe()}"
        if row is not None:
            return f"rule {name} is wrong on {row.backend}: {row.describe()}"
        if self.verdict == "unresolved":
            why = next((f": {r.note}" for r in self.rows if r.verdict in _FORGIVEN and r.note), "")
            return f"rule {name}: unresolved, {self.comparisons} comparisons{why}"
        backends = dict.fromkeys(row.backend for row in self.rows if row.comparisons)
        return f"rule {name}: {self.verdict}, {self.comparisons} comparisons on {', '.join(backends)}"

    def _passed(self) -> list[str]:
        lines = [f"  the example is {_article(self.point)} point"] if self.point else []
        by_check: dict[str, list[Row]] = {}
        for row in self.rows:
            by_check.setdefault(row.check, []).append(row)
        lines += [f"  {check}: {_tally(rows)}" for check, rows in by_check.items()]
        return lines


def _is_forgiven(row: Row) -> bool:
    return row.verdict == "unsupported" or (row.beside and row.verdict in _FORGIVEN)


def _tally(rows: Sequence[Row]) -> str:
    counts = Counter(row.verdict for row in rows)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    compared = sum(row.comparisons for row in rows)
    notes = dict.fromkeys(row.note for row in rows if row.verdict in _FORGIVEN and row.note)
    first = f" ({next(iter(notes))[:120]})" if notes else ""
    return f"{verdicts}; {compared} comparisons{first}"


def _article(word: str) -> str:
    return f"{'an' if word[:1] in 'aeiou' else 'a'} {word}"


def told_apart(got: Any, expected: Any) -> tuple[str, str]:
    """Two numbers to the digits that it takes to tell one from the other; text as it is."""
    texts = ("", "")
    for digits in (4, 7, 11, 17):
        texts = (_number(got, digits), _number(expected, digits))
        if texts[0] != texts[1]:
            break
    return texts


def _number(value: Any, digits: int) -> str:
    if value is None or isinstance(value, str):
        return str(value)
    return f"{value if isinstance(value, complex) else float(value):.{digits}g}"
