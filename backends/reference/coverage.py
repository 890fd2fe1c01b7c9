"""What each primitive can do, read off the rule tables: primitive x {JVP, transpose, batching, Taylor, Arb}.

``python -m adbridge.backends.reference.coverage`` prints the table in Markdown. A cell names the kind of rule,
or says why none is needed; a cell without either is a hole, which starts with `HOLE` and fails the tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

from adbridge.backends.reference.batching import batching_kind
from adbridge.backends.reference.numbers import has_arb
from adbridge.backends.reference.primitives import PRIMITIVES, Primitive
from adbridge.backends.reference.taylor import taylor_kind

HOLE = "no rule"


@dataclass(frozen=True)
class Coverage:
    """A row of the table."""

    primitive: str
    jvp: str
    transpose: str
    batching: str
    taylor: str
    arb: str

    def holes(self) -> list[str]:
        """The columns without a rule or a reason."""
        return [f.name for f in fields(self) if getattr(self, f.name).startswith(HOLE)]


def coverage(primitives: Iterable[Primitive] | None = None) -> list[Coverage]:
    """A row for each primitive, in the order of the rule tables."""
    return [
        Coverage(p.name, jvp_kind(p), transpose_kind(p), batching_kind(p), _taylor(p), _arb(p))
        for p in (PRIMITIVES.values() if primitives is None else primitives)
    ]


def _made_by(primitive: Primitive) -> str:
    """The function of `primitives` that gave it its JVP rule."""
    return primitive.jvp.__qualname__.partition(".")[0]


def has_zero_derivative(primitive: Primitive) -> bool:
    return _made_by(primitive) == "defzero"


def jvp_kind(primitive: Primitive) -> str:
    if _made_by(primitive) == "_missing_rule":
        return HOLE
    if has_zero_derivative(primitive):
        return "zero: piecewise constant"
    if primitive.partials is not None:
        return "partial derivatives"
    return "linear" if primitive.linear is not None else "rule"


def transpose_kind(primitive: Primitive) -> str:
    """A rule is owed by what JVP rules apply to tangents, which `transpose` and `spec` make linear."""
    if primitive.transpose is not None:
        return "rule" if primitive.spec is not None else HOLE
    if has_zero_derivative(primitive):
        return "not needed: no tangent"
    return HOLE if primitive.linear is not None else "not needed: no rule applies it to a tangent"


def _taylor(primitive: Primitive) -> str:
    return {"none": HOLE, "constant": "zero: piecewise constant"}.get(kind := taylor_kind(primitive), kind)


def _arb(primitive: Primitive) -> str:
    return "yes" if has_arb(primitive.name) else HOLE


def markdown(rows: Iterable[Coverage]) -> str:
    """The table, aligned."""
    lines = [[f.name for f in fields(Coverage)], *(list(astuple(row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


if __name__ == "__main__":
    print(markdown(coverage()))
