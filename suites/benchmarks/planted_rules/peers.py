"""What checkers say of a rule: `ad.check_rule`, and the gradient checkers of PyTorch, JAX and autograd, with defaults.

Peers get the rule through `ad.custom_rule`, active on their engine, as a function of its floating arrays in float64
(as PyTorch's documentation asks; JAX's and autograd's get the example's own dtypes), in the modes that the rule has.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import optree

import adbridge as ad
from adbridge.errors import CapabilityError, RuleError

from .rule import Rule

FOUND, PASSED, CANNOT, CRASHED = "found", "passed", "cannot run", "crashed"


@dataclass(frozen=True)
class Answer:
    """What a checker said of a rule: `outcome` is one of these words; why; and the time that it took."""

    outcome: str
    why: str
    seconds: float


@dataclass(frozen=True)
class Checker:
    """``check(rule)`` raises one of `finding` if it finds the rule wrong. `engine` is the package that it needs."""

    name: str
    engine: str
    check: Callable[[Rule], None]
    finding: type[Exception] = Exception

    def __call__(self, rule: Rule) -> Answer:
        started = perf_counter()
        try:
            with _quiet():
                self.check(copied(rule))
        except (CapabilityError, NotImplementedError) as exc:
            outcome, why = CANNOT, str(exc)
        except Exception as exc:
            outcome = FOUND if isinstance(exc, self.finding) else CRASHED
            why = f"{type(exc).__name__}: {exc}"
        else:
            outcome, why = PASSED, ""
        return Answer(outcome, why, perf_counter() - started)


@contextmanager
def _quiet() -> Iterator[None]:
    """Planted rules divide by zero and overflow: their warnings are of no interest here."""
    state = np.random.get_state()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(state)


def copied(rule: Rule) -> Rule:
    """With arrays of its own: some rules write to them."""

    def copy(x: Any) -> Any:
        return x.copy() if isinstance(x, np.ndarray) else x

    args: Any = optree.tree_map(copy, rule.args)  # type: ignore[arg-type]  # a tuple of arrays is a pytree
    return replace(rule, args=args)


def checked_by_adbridge(rule: Rule, backends: tuple[str, ...] | None = None) -> Any:
    """The report of `ad.check_rule`."""
    return ad.check_rule(rule.custom(), *rule.args, backends=backends, domain=rule.domain)


def _adbridge(backends: tuple[str, ...] | None) -> Callable[[Rule], None]:
    return lambda rule: checked_by_adbridge(rule, backends).raise_for_wrong()


# Peers.


def _flat(rule: Rule, convert: Callable[[Any], Any], wrap: Callable[[list[Any]], Any]) -> tuple[Any, list[Any]]:
    """The rule as a function of its floating arrays in order, with `wrap` around several outputs; and these."""
    custom = rule.custom()
    args: Any = rule.args
    leaves: list[Any]
    leaves, treedef = optree.tree_flatten(args)
    slots = [i for i, leaf in enumerate(leaves) if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fc"]
    fixed = [convert(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]

    def fun(*arrays: Any) -> Any:
        filled = list(fixed)
        for slot, x in zip(slots, arrays, strict=True):
            filled[slot] = x
        outs = optree.tree_leaves(custom(*optree.tree_unflatten(treedef, filled)))
        return outs[0] if len(outs) == 1 else wrap(outs)

    return fun, [fixed[slot] for slot in slots]


def _torch(fast: bool = False, thorough: bool = False) -> Callable[[Rule], None]:
    """``torch.autograd.gradcheck``; if `thorough`, in forward mode too, with dtypes, and ``gradgradcheck``."""

    def check(rule: Rule) -> None:
        import torch
        from torch.autograd import gradcheck, gradgradcheck

        def convert(x: Any) -> Any:
            tensor = torch.from_numpy(x)
            return (
                tensor.double().requires_grad_() if x.dtype.kind == "f" else tensor.requires_grad_(x.dtype.kind == "c")
            )

        fun, tensors = _flat(rule, convert, tuple)
        flags = {"check_forward_ad": rule.jvp is not None, "check_grad_dtypes": True} if thorough else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            gradcheck(fun, tensors, fast_mode=fast, **flags)
            if thorough:
                gradgradcheck(fun, tensors)

    return check


def _jax(order: int) -> Callable[[Rule], None]:
    """``jax.test_util.check_grads``, in reverse, and forward unless only a VJP is given."""

    def check(rule: Rule) -> None:
        import jax
        from jax.test_util import check_grads

        with jax.enable_x64(True):
            fun, arrays = _flat(rule, jax.numpy.asarray, tuple)
            modes = ("rev",) if rule.jvp is None else ("fwd", "rev")
            check_grads(fun, tuple(arrays), order, modes=modes)  # type: ignore[no-untyped-call]  # without annotations

    return check


def _autograd(order: int) -> Callable[[Rule], None]:
    """``autograd.test_util.check_grads``, whose default is order 2, in the modes that are given."""

    def check(rule: Rule) -> None:
        from autograd import builtins
        from autograd.test_util import check_grads

        np.random.seed(0)
        fun, arrays = _flat(rule, lambda x: x, builtins.tuple)
        modes = [word for word, mode in (("fwd", "forward"), ("rev", "reverse")) if mode in rule.modes]
        check_grads(fun, modes=modes, order=order)(*arrays)

    return check


PEERS = (
    Checker("torch gradcheck", "torch", _torch()),
    Checker("torch fast", "torch", _torch(fast=True)),
    Checker("torch thorough", "torch", _torch(thorough=True)),
    Checker("jax order 1", "jax", _jax(1)),
    Checker("jax order 2", "jax", _jax(2)),
    Checker("autograd order 1", "autograd", _autograd(1)),
    Checker("autograd order 2", "autograd", _autograd(2)),
)


def adbridge_checker(backends: tuple[str, ...] | None = None) -> Checker:
    """`ad.check_rule` over these backends; by default those that it takes."""
    return Checker("adbridge", "adbridge", _adbridge(backends), RuleError)
