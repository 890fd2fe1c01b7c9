"""The known answer of an instance, and verdicts on what backends return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import optree

from adbridge.bench.measure import Seeds, seeds_for
from adbridge.bench.problem import Instance, in_dtype
from adbridge.bench.store import Record
from adbridge.trees import PyTree, Spec, flatten, spec_of
from adbridge.validate.verdict import TOLERANCE, Judgement, Parts, difference, disagreement, judge


@dataclass(frozen=True)
class Known:
    """What is known of an instance without any engine: its size, and the right results.

    `output` holds the specs of the function's output; `expected` the parts of each operator's result.
    """

    n: int
    m: int
    output: PyTree
    expected: dict[str, Parts]
    seeds: Seeds

    @property
    def operators(self) -> tuple[str, ...]:
        return tuple(self.expected)

    def parts(self, operator: str, result: PyTree) -> Parts:
        """A result in the form of `expected`; a Jacobian J as J t and J^T c.

        The directions t and c are dense and random, so that an entry's error can only cancel by chance.
        """
        if operator == "jvp":
            return {"value": result[0], "tangent": result[1]}
        if not operator.startswith("jacobian"):
            return {_PART[operator]: result}
        tangent, cotangent = self.seeds.tangent, self.seeds.cotangent
        matrix = np.asarray(result).reshape(np.size(cotangent), np.size(tangent))
        return {
            "J t": (matrix @ np.ravel(tangent)).reshape(np.shape(cotangent)),
            "J^T c": (matrix.T @ np.ravel(cotangent)).reshape(np.shape(tangent)),
        }


_PART = {"value": "value", "grad": "gradient", "vjp": "J^T c"}


def know(instance: Instance, dtype: str, operators: tuple[str, ...] = ()) -> Known:
    """Evaluate the known answer at the instance's (rounded) arguments, in float64.

    `operators`: which results are wanted; by default value, grad (or vjp) and jvp.
    """
    answer = instance.answer(*(in_dtype(arg, "float64") for arg in instance.args))
    output = optree.tree_map(lambda leaf: Spec(np.shape(leaf), dtype), answer.value)
    seeds = seeds_for(optree.tree_map(spec_of, instance.args[0]), output)
    tangent, cotangent = in_dtype(seeds.tangent, "float64"), in_dtype(seeds.cotangent, "float64")
    leaves = flatten(output)[0]
    scalar = len(leaves) == 1 and leaves[0].shape == ()
    results: dict[str, Callable[[], Parts]] = {
        "value": lambda: {"value": answer.value},
        "grad": lambda: {"gradient": answer.vjp(1.0)},
        "vjp": lambda: {"J^T c": answer.vjp(cotangent)},
        "jvp": lambda: {"value": answer.value, "tangent": answer.jvp(tangent)},
        "jacobian-forward": lambda: {"J t": answer.jvp(tangent), "J^T c": answer.vjp(cotangent)},
    }
    results["jacobian-reverse"] = results["jacobian-forward"]
    # The value first: the other operators' times are compared with it.
    names = dict.fromkeys(("value", *(operators or (("grad", "jvp") if scalar else ("vjp", "jvp")))))
    return Known(_count(instance.args[0]), _count(answer.value), output, {op: results[op]() for op in names}, seeds)


def verdicts(
    known: Known, operator: str, results: dict[str, PyTree], dtype: str, accuracy: Mapping[str, float] | None = None
) -> dict[str, Record]:
    """The record's fields that say how right each backend's result is; `accuracy` as for `judge`."""
    found = {name: known.parts(operator, result) for name, result in results.items()}
    judgements = judge(found, known.expected[operator], dtype, accuracy)
    right = [name for name, j in judgements.items() if j.verdict == "agree"]
    fields = {name: _fields(j, disagreement(found, name, right, dtype)) for name, j in judgements.items()}
    if not right and _agree_among_themselves(found, dtype):
        for record in fields.values():
            record["note"] = "all backends agree with each other: the known answer is suspect"
    return fields


def _agree_among_themselves(found: dict[str, Parts], dtype: str) -> bool:
    first, *others = found.values()
    return len(others) > 0 and all(difference(other, first, dtype).error <= TOLERANCE[dtype] for other in others)


def _fields(judgement: Judgement, apart: float) -> Record:
    d = judgement.difference
    fields: Record = {"verdict": judgement.verdict, "relative_error": d.error, "disagreement": apart}
    if judgement.verdict != "agree":
        fields.update(entry=d.entry, got=d.got, expected=d.expected, note=d.note)
    if judgement.verdict == "wrong":
        fields["outcome"] = "wrong"
    return fields


def _count(tree: PyTree) -> int:
    return sum(int(np.size(leaf)) for leaf in flatten(tree)[0])
