"""Long loops for engines that have checkpoints and no schedule for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from adbridge.protocol import Array, Arrays

Checkpoint = Callable[[Callable[..., Arrays], Arrays], Arrays]


def in_stretches(
    checkpoint: Checkpoint, step: Callable[..., Arrays], state: Arrays, steps: int, snapshots: int
) -> Arrays:
    """``state = step(i, *state)`` for each i, by checkpoints of checkpoints: `snapshots` stretches, each of them
    `snapshots` shorter ones, down to single steps.

    With s snapshots (two at least) the way back holds about s log_s `steps` states, and runs each step log_s `steps`
    times again: more of both than the binomial schedule, which needs an engine that starts from a state it kept.
    """

    def stretch(first: int, last: int, *state: Array) -> Arrays:
        length = -(-(last - first) // max(2, snapshots))
        for i in range(first, last, length):
            run = partial(step, i) if length == 1 else partial(stretch, i, min(i + length, last))
            state = checkpoint(run, state)
        return state

    return stretch(0, steps, *state) if steps else state
