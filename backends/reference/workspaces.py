"""Compiled source at work: what its names mean, and its buffers, of which every running call has its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy._core.multiarray import c_einsum


class GuardFailed(Exception):
    """The run took another branch than the recorded one."""


def same(x: Any, y: Any) -> bool:
    return np.array_equal(x, y, equal_nan=np.asarray(x).dtype.kind in "fc")


def regular(x: Any) -> bool:
    return bool(np.isfinite(x).all() and np.all(x))


def finite(x: Any) -> bool:
    return bool(np.isfinite(x).all())


class Workspaces:
    """The compiled function: takes a workspace, or makes one, and gives it back.

    A workspace is the function ``run``, with the buffers that the lines of `setup` make for it. `sizes` are those of
    the buffers' memory, in bytes.
    """

    def __init__(
        self,
        inputs: str,
        setup: Sequence[str],
        body: Sequence[str],
        constants: Mapping[str, Any],
        sizes: Sequence[int],
    ) -> None:
        lines = ["def make(buffer, scratch):", *(f"    {line}" for line in setup)]
        lines += [f"    def run({inputs}):", *(f"        {line}" for line in body), "    return run"]
        lines += [line.replace("INPUTS", inputs) for line in _ENTRY]
        self.source = "\n".join(lines)
        self.sizes = list(sizes)
        self.pool: list[Callable[..., Any]] = []
        namespace = {**_NAMES, **constants, "workspace": self.workspace}
        namespace |= {"pop": self.pool.pop, "push": self.pool.append}
        exec(compile(self.source, "<compiled by adbridge>", "exec"), namespace)
        self.make = namespace["make"]
        self.entry: Callable[..., tuple[Any, ...]] = namespace["entry"]
        self.entry.pool = self.pool  # for `prepare.Variants`, as is:
        self.entry.guarded = any("GuardFailed" in line for line in body)

    def workspace(self) -> Callable[..., Any]:
        memory = [np.empty(size, np.uint8) for size in self.sizes]

        def buffer(slot: int, shape: tuple[int, ...], dtype: Any) -> Any:
            return memory[slot].view(dtype).reshape(shape)

        return self.make(buffer, np.empty)  # type: ignore[no-any-return]

    def __call__(self, *arrays: Any) -> tuple[Any, ...]:
        return self.entry(*arrays)


# With the program's own number of arguments: no tuple of them is made.
_ENTRY = """def entry(INPUTS):
    try:
        run = pop()
    except IndexError:
        run = workspace()
    try:
        return run(INPUTS)
    finally:
        push(run)""".splitlines()

_NAMES = {
    "add_reduce": np.add.reduce,
    "add_to": np.add.at,
    "array": np.array,
    "broadcast_to": np.broadcast_to,
    "concatenate": np.concatenate,
    "copyto": np.copyto,
    "dot": np.dot,
    "einsum": c_einsum,
    "empty": np.empty,
    "finite": finite,
    "matmul": np.matmul,
    "maximum_reduce": np.maximum.reduce,
    "minimum_reduce": np.minimum.reduce,
    "np_add": np.add,
    "inf": float("inf"),
    "regular": regular,
    "same": same,
    "GuardFailed": GuardFailed,
}
