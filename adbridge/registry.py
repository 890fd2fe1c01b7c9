"""Finding, choosing and lazily loading backends."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable
from contextvars import ContextVar, Token
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from adbridge.backends import BUILTIN, Entry
from adbridge.errors import BackendNotFound, BackendUnavailable, MixedBackends, SignatureMismatch
from adbridge.protocol import Backend

if TYPE_CHECKING:
    import pandas as pd

BackendLike = str | Backend


class _Ambient(NamedTuple):  # made once for every run of a user's function, and quicker to make than a dataclass
    """The backend in force: asked for by the user, or only that of the operator that is running.

    `running` are the names of the backends whose operators are running the calling function.
    """

    backend: Backend
    asked: bool
    running: frozenset[str] = frozenset()


_ambient: ContextVar[_Ambient | None] = ContextVar("adbridge_backend", default=None)


@cache
def table() -> dict[str, Entry]:
    """Every known backend: the built-in ones, then plug-ins (entry points ``adbridge.backends``)."""
    from importlib.metadata import entry_points  # slow to import, and needed only when a backend is

    plugins = {
        point.name: Entry(point.module, point.attr, summary=f"plug-in {point.value}")
        for point in entry_points(group="adbridge.backends")
    }
    return {**plugins, **BUILTIN}


def is_installed(name: str) -> bool:
    """Whether the backend's engine can be found (it is not imported)."""
    engine = table()[name].engine
    try:
        return engine is None or engine in sys.modules or importlib.util.find_spec(engine) is not None
    except (ImportError, ValueError):
        return False


def default_names() -> list[str]:
    """The backends that a run uses when none is named: the installed engines."""
    return [name for name, entry in table().items() if entry.default and is_installed(name)]


def get_backend(name: BackendLike, **options: Any) -> Backend:
    """The backend called `name`, made with `options` (``device="cuda"``, ...); one object per set of options.

    Raises:
        BackendNotFound: no backend has this name.
        BackendUnavailable: its engine is not installed, or fails to import.
        CapabilityError: it lacks the device asked for.

    >>> get_backend("reference")
    <backend 'reference' on cpu>
    """
    if type(name) is str and not options:  # at every call of an operator
        return _load(name, ())
    if isinstance(name, Backend):
        if options:
            raise SignatureMismatch(
                f"get_backend got {name!r}, which is made already, and options ({', '.join(options)}); "
                f"pass the name {name.name!r} to make another"
            )
        return name
    if not isinstance(name, str):
        raise BackendNotFound(f"a backend is asked for by name or is a Backend; got {name!r}")
    return _load(name, tuple(sorted(options.items())))


@cache
def _load(name: str, options: tuple[tuple[str, Any], ...]) -> Backend:
    found = backend_class(name)
    signature = inspect.signature(found)
    try:
        signature.bind(**dict(options))
    except TypeError as exc:
        raise SignatureMismatch(f"backend {name!r}: {exc}; its options: {', '.join(signature.parameters)}") from None
    return found(**dict(options))


def entry_of(name: str) -> Entry:
    """Where the backend lives, once it is sure that its engine is installed; imports neither.

    Raises:
        BackendNotFound, BackendUnavailable.
    """
    known = table()
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise BackendNotFound(f"no backend is called {name!r}; {hint}known: {', '.join(known)}")
    entry = known[name]
    if not is_installed(name):
        raise BackendUnavailable(
            f"backend {name!r} needs the package {entry.engine!r}, which is not installed; run: {install_command(name)}"
        )
    return entry


def backend_class(name: str) -> type[Backend]:
    """The adapter's class; importing it imports its engine, and does not start it. Raises as `get_backend`."""
    entry = entry_of(name)
    try:
        found = getattr(importlib.import_module(entry.module), entry.attribute)
    except ImportError as exc:
        raise BackendUnavailable(
            f"backend {name!r} is installed but failed to import: {exc}; try: {install_command(name)}"
        ) from exc
    assert isinstance(found, type) and issubclass(found, Backend)
    return found


def install_command(name: str) -> str:
    """The shell command that installs the backend's engine."""
    extra = table()[name].extra
    return f"pip install 'adbridge[{extra}]'" if extra else f"reinstall the package that provides {name!r}"


class use_backend:
    """``with use_backend(name):`` within it, calls without ``backend=`` use this backend, in this thread or task.

    Raises:
        As `get_backend`, at once.

    >>> with use_backend("reference") as b:
    ...     b.name
    'reference'
    """

    def __init__(self, backend: BackendLike) -> None:
        self._backend = get_backend(backend)
        self._tokens: list[Token[_Ambient | None]] = []

    def __enter__(self) -> Backend:
        self._tokens.append(_ambient.set(_Ambient(self._backend, True, _running())))
        return self._backend

    def __exit__(self, *exc: object) -> None:
        _ambient.reset(self._tokens.pop())

    def __repr__(self) -> str:
        return f"<use_backend({self._backend.name!r}): has an effect only as `with use_backend(...):`>"


class inside:
    """``with inside(backend):`` marks that an operator of `backend` is running the user's function."""

    __slots__ = ("_backend", "_token")
    _token: Token[_Ambient | None]

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __enter__(self) -> None:
        ambient, name = _ambient.get(), self._backend.name
        running = frozenset((name,)) if ambient is None else ambient.running | {name}
        self._token = _ambient.set(_Ambient(self._backend, False, running))

    def __exit__(self, *exc: object) -> None:
        _ambient.reset(self._token)


def within(backend: Backend) -> bool:
    """Whether an operator of `backend`'s engine is running the calling function."""
    return backend.name in _running()


def _running() -> frozenset[str]:
    ambient = _ambient.get()
    return frozenset() if ambient is None else ambient.running


def choose(explicit: BackendLike | None, leaves: Iterable[object]) -> tuple[Backend, bool]:
    """``(backend, whether any leaf is an engine's own array)``.

    Order: `explicit`, `use_backend`, type of the inputs, the enclosing operator, ``ADBRIDGE_BACKEND``,
    ``"reference"``.

    Raises:
        MixedBackends: the leaves belong to two engines, or to another than the backend asked for.
    """
    owners = owners_of(leaves)
    if len(owners) > 1:
        raise MixedBackends(
            f"arrays of {' and '.join(sorted(owners))} in one call; convert them to one engine (or to NumPy) first"
        )
    owner = next(iter(owners), None)
    if owner is None:
        return choose_without_inputs(explicit), False
    ambient = _ambient.get()
    if explicit is None and ambient is not None and (ambient.asked or _shares(ambient.backend, owner, leaves)):
        chosen = ambient.backend
    else:
        chosen = get_backend(owner if explicit is None else explicit)
    first = next((leaf for leaf in leaves if chosen.owns(leaf)), None)
    if first is None:
        raise MixedBackends(
            f"backend {chosen.name!r} was given arrays of {owner!r}; pass backend={owner!r}, "
            "or NumPy arrays, which every backend takes"
        )
    asked = isinstance(explicit, Backend) or chosen.device != "cpu"
    return chosen if asked else _beside(chosen, first), True


def _shares(backend: Backend, owner: str, leaves: Iterable[object]) -> bool:
    """Whether the enclosing operator's backend has its arrays from the engine of another one, `owner`."""
    return backend.name != owner and any(backend.owns(leaf) for leaf in leaves)


def choose_without_inputs(explicit: BackendLike | None) -> Backend:
    """The backend of a call whose arrays are all NumPy's, by the same order."""
    if explicit is not None:
        return get_backend(explicit)
    ambient = _ambient.get()
    if ambient is not None:
        return ambient.backend
    return get_backend(os.environ.get("ADBRIDGE_BACKEND") or "reference")


def _beside(backend: Backend, array: object) -> Backend:
    """The same backend on the array's device, so that NumPy arrays in the same call are placed beside it."""
    device = backend.device_of(array)
    known = device == backend.device or device not in backend.capabilities.devices
    return backend if known else get_backend(backend.name, device=device)


def owners_of(leaves: Iterable[object]) -> set[str]:
    """Names of the backends that own the arrays among `leaves`."""
    owners = {_owner(leaf) for leaf in leaves if not isinstance(leaf, _NEUTRAL)}
    return {owner for owner in owners if owner is not None}


_NEUTRAL = (np.ndarray, np.generic, float, int, complex, str, bytes, type(None))
_owner_of_type: dict[type, str | None] = {}


def _owner(leaf: object) -> str | None:
    kind = type(leaf)
    if kind not in _owner_of_type:
        # An array cannot exist before its engine is imported, so only imported engines are asked.
        candidates = [n for n, e in table().items() if (e.engine or e.module) in sys.modules]
        found = next((n for n in candidates if backend_class(n) and get_backend(n).owns(leaf)), None)
        if found is None and hasattr(leaf, "shape"):
            return None  # an engine imported later may own it: do not remember
        _owner_of_type[kind] = found
    return _owner_of_type[kind]


def array_namespace(*arrays: Any) -> Any:
    """The array API namespace of the arrays or tracers among `arrays` (NumPy's where there is none else).

    Raises:
        MixedBackends: they belong to two engines.

    >>> array_namespace(3.0).__name__
    'numpy'
    """
    if len(arrays) == 1 and (owner := _owner_of_type.get(type(arrays[0]))) is not None:
        return get_backend(owner).namespace
    owners = owners_of(arrays)
    if not owners:
        return np
    return choose(next(iter(owners)) if len(owners) == 1 else None, arrays)[0].namespace


def backends() -> pd.DataFrame:
    """Every known backend, a row each. Imports the installed engines to ask them.

    Columns: ``name, engine_version, devices, capabilities, available, why_not``; `devices` and
    `capabilities` are text, `why_not` is empty where available.
    """
    import pandas as pd

    return pd.DataFrame([_describe(name) for name in table()])


def _describe(name: str) -> dict[str, object]:
    row: dict[str, object] = {"name": name, "engine_version": "", "devices": "", "capabilities": ""}
    try:
        backend = get_backend(name)
    except BackendUnavailable as exc:
        return {**row, "available": False, "why_not": str(exc)}
    can = backend.capabilities
    words = [*can.modes, *(word for word in ("batching", "compile") if getattr(can, word)), *can.dtypes]
    row |= {"engine_version": backend.engine_version, "devices": ", ".join(can.devices)}
    return {**row, "capabilities": ", ".join(words), "available": True, "why_not": ""}
