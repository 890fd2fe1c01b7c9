"""One namespace for functions that are to be judged as each engine itself implements them.

`portable(*arrays)` gives the array API namespace of the arrays' engine, and beside it `special`, and the NumPy-style
names of `PLACES`: each stands for the engine's own function, so that its own rule is what is judged. What an engine
lacks raises CapabilityError. On the reference engine, and where there are only NumPy arrays, a function that has no
primitive is defined by others in NumPy, by formulas that hold for Arb balls as well as for floats.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, NamedTuple

import numpy as np

from adbridge.backends.reference import namespace as reference
from adbridge.errors import CapabilityError
from adbridge.registry import choose, get_backend, owners_of

Where = str | Callable[..., Any] | None
"""``"module:attribute"``; or a function of the engine's namespace and the arguments; or None: the engine lacks it."""


class Place(NamedTuple):
    """Where one function is on each engine."""

    jax: Where
    torch: Where
    autograd: Where
    reference: Where


# Definitions where the reference engine has no primitive. Ties give a slope between those of the two sides.


def _relu(xp: Any, x: Any) -> Any:
    return np.where(x > 0, x, 0.0)


def _relu6(xp: Any, x: Any) -> Any:
    return np.where(x > 6, 6.0, np.where(x > 0, x, 0.0))


def _elu(xp: Any, x: Any, alpha: float = 1.0) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(np.where(x > 0, 0.0, x)))


def _celu(xp: Any, x: Any, alpha: float = 1.0) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(np.where(x > 0, 0.0, x) / alpha))


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def _selu(xp: Any, x: Any) -> Any:
    return _SELU_SCALE * _elu(xp, x, _SELU_ALPHA)


def _gelu(xp: Any, x: Any) -> Any:
    return x * reference.ndtr(x)


def _silu(xp: Any, x: Any) -> Any:
    return x * reference.expit(x)


def _softplus(xp: Any, x: Any) -> Any:
    return np.logaddexp(x, 0.0)


def _leaky_relu(xp: Any, x: Any, slope: float) -> Any:
    return np.where(x > 0, x, slope * x)


def _hard_tanh(xp: Any, x: Any) -> Any:
    return np.where(x > 1, 1.0, np.where(x < -1, -1.0, x))


def _running_maximum(xp: Any, x: Any) -> Any:
    found = [x[0]]
    for i in range(1, len(x)):
        found.append(np.maximum(found[-1], x[i]))
    return np.stack(found)


def _written(x: Any, values: Any) -> Any:
    """A copy of x that `values` can be written to."""
    return reference.constant(values, np.array(x)) if isinstance(x, np.ndarray) else reference.astype(x, x.dtype)


def _set(xp: Any, x: Any, index: Any, values: Any) -> Any:
    y = _written(x, values)
    y[index] = values
    return y


def _add(xp: Any, x: Any, index: Any, values: Any) -> Any:
    """Repeated indices add up."""
    y = _written(x, values)
    for k, i in enumerate(index):
        y[int(i)] = y[int(i)] + values[k]
    return y


# The table.


def _special(name: str, *, autograd: bool = False) -> Place:
    """A function that SciPy names, and every engine under the same name."""
    of_autograd = f"autograd.scipy.special:{name}" if autograd else None
    return Place(f"jax.scipy.special:{name}", f"torch.special:{name}", of_autograd, f"{_REFERENCE}:{name}")


def _activation(name: str, definition: Where, autograd: Where = None) -> Place:
    return Place(f"jax.nn:{name}", f"torch.nn.functional:{name}", autograd, definition)


def _numpy(name: str, torch: Where) -> Place:
    """A function of NumPy's; torch has it otherwise, or not at all."""
    module, _, attribute = f"numpy.{name}".rpartition(".")
    return Place(f"jax.{module}:{attribute}", torch, f"autograd.{module}:{attribute}", f"{module}:{attribute}")


_REFERENCE = "adbridge.backends.reference.namespace"

PLACES: dict[str, Place] = {
    "special.relu": _activation("relu", _relu, autograd=lambda xp, x: xp.maximum(x, 0.0)),  # its users' idiom
    "special.relu6": _activation("relu6", _relu6),
    "special.elu": _activation("elu", _elu),
    "special.celu": _activation("celu", _celu),
    "special.selu": _activation("selu", _selu),
    "special.silu": _activation("silu", _silu),
    "special.leaky_relu": _activation("leaky_relu", _leaky_relu),
    "special.softplus": _activation("softplus", _softplus),
    "special.gelu": Place(
        lambda xp, x: importlib.import_module("jax.nn").gelu(x, approximate=False),
        "torch.nn.functional:gelu",
        None,
        _gelu,
    ),
    "special.hard_tanh": Place("jax.nn:hard_tanh", "torch.nn.functional:hardtanh", None, _hard_tanh),
    "special.log_sigmoid": Place(
        "jax.nn:log_sigmoid", "torch.nn.functional:logsigmoid", None, f"{_REFERENCE}:log_expit"
    ),
    "special.sigmoid": Place("jax.nn:sigmoid", "torch:sigmoid", "autograd.scipy.special:expit", f"{_REFERENCE}:expit"),
    # Of vectors.
    "special.softmax": Place(
        "jax.nn:softmax", lambda xp, x: xp.softmax(x, dim=-1), None, lambda xp, x: reference.softmax(x, axis=-1)
    ),
    "special.log_softmax": Place(
        "jax.nn:log_softmax",
        lambda xp, x: xp.log_softmax(x, dim=-1),
        None,
        lambda xp, x: reference.log_softmax(x, axis=-1),
    ),
    "special.logsumexp": Place(
        "jax.scipy.special:logsumexp",
        lambda xp, x: xp.logsumexp(x, dim=-1),
        "autograd.scipy.special:logsumexp",
        f"{_REFERENCE}:logsumexp",
    ),
    **{f"special.{name}": _special(name) for name in ("entr", "i0e", "i1e", "log_ndtr", "ndtr", "xlog1py", "xlogy")},
    **{
        f"special.{name}": _special(name, autograd=True)
        for name in ("digamma", "erf", "erfc", "erfinv", "gammaln", "i0", "i1", "logit")
    },
    "cbrt": _numpy("cbrt", None),
    "cummax": Place(
        lambda xp, x: importlib.import_module("jax.lax").cummax(x),
        lambda xp, x: xp.cummax(x, dim=0)[0],
        None,
        _running_maximum,
    ),
    "cumprod": _numpy("cumprod", lambda xp, x: xp.cumprod(x, dim=0)),
    "std": _numpy("std", lambda xp, x, ddof=0: xp.std(x, correction=ddof)),
    "var": _numpy("var", lambda xp, x, ddof=0: xp.var(x, correction=ddof)),
    **{name: _numpy(name, f"torch:{name}") for name in ("angle", "fmax", "fmin", "kron", "median", "nansum")},
    **{f"linalg.{name}": _numpy(f"linalg.{name}", f"torch.linalg:{name}") for name in ("norm", "pinv", "eigvalsh")},
    "expand_dims": _numpy("expand_dims", lambda xp, x, axis: xp.expand_dims(x, axis=axis)),
    "at_set": Place(
        lambda xp, x, i, v: xp.asarray(x).at[i].set(v),
        lambda xp, x, i, v: x.index_put((i,), v),
        None,
        _set,
    ),
    "at_add": Place(
        lambda xp, x, i, v: xp.asarray(x).at[i].add(v),
        lambda xp, x, i, v: x.index_put((i,), v, accumulate=True),
        None,
        _add,
    ),
}


class Portable:
    """The functions of one engine, by the names of `PLACES`, else by those of its array API namespace."""

    def __init__(self, engine: str, namespace: Any, convert: Callable[[Any], Any] | None, prefix: str = "") -> None:
        self._engine, self._namespace, self._convert, self._prefix = engine, namespace, convert, prefix

    def __repr__(self) -> str:
        return f"<portable namespace of {self._engine!r}>"

    def __getattr__(self, name: str) -> Any:
        found = self._found(f"{self._prefix}{name}", name)
        if not isinstance(found, Portable) and self._convert is not None and callable(found):
            found = _taking_numpy(found, self._convert)
        setattr(self, name, found)  # from now on without this detour
        return found

    def _found(self, full: str, name: str) -> Any:
        if any(known.startswith(f"{full}.") for known in PLACES):
            return Portable(self._engine, getattr(self._namespace, name, None), self._convert, f"{full}.")
        if full in PLACES:
            return self._own(full)
        try:
            return getattr(self._namespace, name)
        except AttributeError:
            raise self._lacking(full) from None

    def _own(self, name: str) -> Any:
        where = getattr(PLACES[name], self._engine)
        if where is None:
            raise self._lacking(name)
        if callable(where):
            return _with(where, get_backend(self._engine).namespace)
        module, _, attribute = where.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def _lacking(self, name: str) -> CapabilityError:
        return CapabilityError(
            f"{self._engine} has no function {name!r}; choose another backend, or write it with functions that it has"
        )


def _with(function: Callable[..., Any], namespace: Any) -> Callable[..., Any]:
    return wraps(function)(lambda *args, **kwargs: function(namespace, *args, **kwargs))


def _taking_numpy(function: Callable[..., Any], convert: Callable[[Any], Any]) -> Callable[..., Any]:
    """The function, its NumPy arguments made the engine's arrays first."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*[convert(a) if isinstance(a, np.ndarray) else a for a in args], **kwargs)

    return call


def portable(*arrays: Any) -> Any:
    """The namespace for functions that each engine is to run by its own implementation.

    Of the arrays' or tracers' engine; of the reference engine where there are only NumPy arrays.

    Raises:
        MixedBackends: the arrays belong to two engines.
        CapabilityError: when a function is asked for that the engine lacks.

    >>> print(portable(np.zeros(2)).special.relu(np.array([-1.0, 2.0])))
    [0. 2.]
    """
    owners = owners_of(arrays)
    if not owners:
        return _portable("reference")
    chosen = choose(next(iter(owners)) if len(owners) == 1 else None, arrays)[0]
    return _portable(chosen.name)


@cache
def _portable(name: str) -> Portable:
    engine = get_backend(name)
    return Portable(name, engine.namespace, engine.from_numpy if name == "torch" else None)
