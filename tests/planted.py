"""Backends and suites with planted faults, importable by the worker processes."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from pathlib import Path
from typing import Any

import numpy as np

import adbridge as ad
from adbridge.backends.reference import ReferenceBackend
from adbridge.backends.zero import ZeroBackend
from adbridge.bench.problem import Instance, Problem, Suite, diagonal_answer, gradient_answer
from adbridge.protocol import Arrays, Compiled, FlatFunction, LinearMap


class Uncompiled(ReferenceBackend):
    """The reference engine, running functions as they are."""

    name = "uncompiled"

    def compile(self, fun: Any, arrays: Any) -> Any:
        return Compiled(fun)


class SlightlyWrong(ReferenceBackend):
    """One entry of every reverse-mode result is 0.1% off, and every tangent 0.5%."""

    name = "slightly-wrong"

    def vjp(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        outs, pullback, aux = super().vjp(fun, primals)

        def wrong(cotangents: Arrays) -> Arrays:
            first, *rest = pullback(cotangents)
            first = np.array(first)
            first.reshape(-1)[-1] *= 1.001
            return (first, *rest)

        return outs, wrong, aux

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        outs, out_tangents, aux = super().jvp(fun, primals, tangents)
        return outs, tuple(np.asarray(t * np.asarray(1.005, t.dtype)) for t in out_tangents), aux


class NotANumber(ReferenceBackend):
    """Forward mode gives NaN."""

    name = "not-a-number"

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        outs, out_tangents, aux = super().jvp(fun, primals, tangents)
        return outs, tuple(t * np.nan for t in out_tangents), aux


class Spawned(ReferenceBackend):
    """An engine that cannot be forked."""

    name = "spawned"
    fork_safe = False


class Unimportable(ReferenceBackend):
    """An adapter whose engine is broken: it cannot even be unpickled in the worker."""

    name = "unimportable"

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> Any:
    raise ImportError("planted: libengine.so is missing")


class DiesTalking(ReferenceBackend):
    """Killed, as by the kernel for memory, while it tells its gradient."""

    name = "dies-talking"

    def to_numpy(self, array: Any) -> Any:
        return _Deadly() if np.shape(array) == (3,) else super().to_numpy(array)

    def from_numpy(self, array: Any) -> Any:
        return array if isinstance(array, _Deadly) else super().from_numpy(array)


class _Deadly:
    """Kills its process half-way through being pickled into a pipe that already holds a part of the message."""

    def __reduce__(self) -> Any:
        for fd in range(3, 64):
            with contextlib.suppress(OSError):
                if stat.S_ISFIFO(os.fstat(fd).st_mode):
                    os.write(fd, b"\x00\x00\x10\x00half a message")
        os.kill(os.getpid(), signal.SIGKILL)


class CannotBeWeighed(ReferenceBackend):
    name = "cannot-be-weighed"

    def peak_alloc(self, compiled: Any, arrays: Any) -> Any:
        os.abort()


class Lazy(ZeroBackend):
    """An asynchronous engine: its work is done only when someone waits for it."""

    name = "lazy"
    WORK = 0.02  # seconds

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0

    def synchronize(self, arrays: Any) -> None:
        time.sleep(self.WORK)
        self.waited += 1


def _smooth(x: Any) -> Any:
    xp = ad.array_namespace(x)
    return xp.sum(xp.sin(x))


def _make(fun: Any) -> Any:
    def make(n: int, m: int, rng: np.random.Generator) -> Instance:
        return Instance(fun, (rng.standard_normal(n),), lambda x: gradient_answer(np.sum(np.sin(x)), np.cos(x)))

    return make


def _hang(x: Any) -> Any:
    time.sleep(1000)


def _die(x: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSEGV)


def _killed(x: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise(x: Any) -> Any:
    raise ZeroDivisionError("planted")


def _exhaust(x: Any) -> Any:
    raise MemoryError("planted")


def _leave(x: Any) -> Any:
    os._exit(7)


def _broken(n: int, m: int, rng: np.random.Generator) -> Instance:
    raise ValueError("planted in make")


def _unmakeable(n: int, m: int, rng: np.random.Generator) -> Instance:
    os.abort()


def _large_value(x: Any) -> Any:
    xp = ad.array_namespace(x)
    return 1e6 + xp.sum(xp.sin(x))


def _make_large_value(n: int, m: int, rng: np.random.Generator) -> Instance:
    x = rng.standard_normal(n)
    return Instance(_large_value, (x,), lambda x: gradient_answer(1e6 + np.sum(np.sin(x)), np.cos(x)))


def _fails_in_grad(x: Any) -> Any:
    """Right as a value; under a derivative it kills its process."""
    if not isinstance(x, np.ndarray):
        os.kill(os.getpid(), signal.SIGABRT)
    return np.sum(np.sin(x))


GOOD = Problem("good", _make(_smooth), sizes=((3, 1),), free="n")
SUITE = Suite(
    "planted",
    (
        Problem("hangs", _make(_hang), operators=("value",)),
        Problem("dies", _make(_die), operators=("value",)),
        Problem("killed", _make(_killed), operators=("value",)),
        Problem("leaves", _make(_leave), operators=("value",)),
        Problem("raises", _make(_raise), operators=("value",)),
        Problem("exhausts", _make(_exhaust), operators=("value",)),
        Problem("broken", _broken, operators=("value",)),
        Problem("unmakeable", _unmakeable, operators=("value",)),
        GOOD,
    ),
)
PARTLY = Suite("partly", (Problem("partly", _make(_fails_in_grad), sizes=((3, 1),)), GOOD))
TWO = Suite("two", (GOOD, Problem("same", _make(_smooth), sizes=((3, 1),), free="n")))
LARGE_VALUE = Suite("large-value", (Problem("large-value", _make_large_value, sizes=((3, 1),)),))
GOOD_SUITE = Suite("good", (GOOD,))


def _square(x: Any) -> Any:
    return x * x


def _wrong_answer(n: int, m: int, rng: np.random.Generator) -> Instance:
    return Instance(_square, (rng.standard_normal(n),), lambda x: diagonal_answer(x * x, 3 * x))


WRONG_ANSWER = Suite("wrong-answer", (Problem("wrong-answer", _wrong_answer, sizes=((3, 3),)),))
LOCAL = Suite("local", (Problem("local", lambda n, m, rng: _wrong_answer(n, m, rng)),))
HERE = Path(__file__).parent
