"""What `crosscheck` found: a verdict for each backend and operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from adbridge.errors import Disagreement
from adbridge.trees import PyTree, flatten
from adbridge.validate.verdict import VERDICTS, worst

if TYPE_CHECKING:
    import pandas as pd

    from adbridge.validate.judging import Finding
    from adbridge.validate.referee import Point

_NOT_COMPARED = ("unsupported", "error")


@dataclass(frozen=True)
class Row:
    """The verdict on one operator of one backend; the fields are the frame's columns, and `result` what it rests on.

    `error_ulp` is in units in the last place of the result's dtype, times what the program itself amplifies rounding
    by; nan where nothing was compared. `entry` is the worst one, where the values are `got` and `expected`.
    """

    backend: str
    operator: str
    verdict: str
    error_ulp: float = float("nan")
    relative_error: float = float("nan")
    entry: str = ""
    got: float | complex | None = None
    expected: float | complex | str | None = None
    note: str = ""
    result: PyTree = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """The number of entries of the result."""
        return sum(np.size(leaf) for leaf in flatten(self.result)[0])

    @classmethod
    def of(cls, backend: str, operator: str, finding: Finding, result: PyTree) -> Row:
        return cls(
            backend,
            operator,
            finding.verdict,
            finding.error_ulp,
            finding.relative_error,
            finding.entry,
            finding.got,
            finding.expected,
            finding.note,
            result,
        )


@dataclass(frozen=True, repr=False)
class Agreement:
    """Who is right about a function's derivatives at a point. ``print(agreement)`` says it in words.

    `point` is what the referee made of the point (None where it could not look), `method` how it worked (``"arb"``,
    ``"differences"``, or ``""``), `why` the reason for the latter two. `left_out` maps backends that were not asked
    to the reason.
    """

    fun: Callable[..., Any]
    args: tuple[Any, ...]
    rows: tuple[Row, ...]
    point: Point | None
    method: str
    why: str
    left_out: dict[str, str]
    reproduce: Callable[[Row], str] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """A row per backend and operator: ``backend, operator, verdict, error_ulp, relative_error, entry, got,
        expected, note``."""
        import pandas as pd

        columns = [name for name in Row.__dataclass_fields__ if name != "result"]
        rows = [{name: getattr(row, name) for name in columns} for row in self.rows]
        return pd.DataFrame(rows, columns=columns)

    @property
    def verdict(self) -> str:
        """The worst of the rows'; ``unresolved`` if nothing was compared."""
        compared = any(row.verdict not in _NOT_COMPARED and row.size for row in self.rows)
        return worst([row.verdict for row in self.rows] + ([] if compared else ["unresolved"]))

    @property
    def culprits(self) -> list[str]:
        """The backends judged wrong."""
        return list(dict.fromkeys(row.backend for row in self.rows if row.verdict == "wrong"))

    @cached_property
    def culprit(self) -> Row | None:
        """The row that the conclusion and the snippet are about: the first that is wrong, or else raised an error."""
        faults = [row for row in self.rows if row.verdict in ("wrong", "error")]
        return max(faults, key=lambda row: VERDICTS.index(row.verdict), default=None)

    @cached_property
    def snippet(self) -> str:
        """The smallest script found that shows the first fault; empty where there is none.

        It is made when first asked for, which runs the function on smaller arguments.
        """
        return "" if self.culprit is None else self.reproduce(self.culprit)

    def raise_for_disagreement(self) -> None:
        """Raises Disagreement, with the readable text: a verdict is ``wrong`` or ``error``.

        Neither ``unsupported`` nor ``unresolved`` raises: no engine has been shown to be at fault. Who asks for a
        pass and not only for no fault compares `verdict`.
        """
        if self.culprit is not None:
            raise Disagreement(str(self))

    def __str__(self) -> str:
        from adbridge.report.agreements import agreement_text

        return agreement_text(self)

    def __repr__(self) -> str:
        """As ``print`` shows it: for notebooks and the interpreter."""
        return str(self)
