"""The array API namespace of tracers: primitives under their standard names, and functions made of them.

- `creation`, `dtypes`   arrays and their types           - `shapes`      shapes, joining
- `reductions`           sums, statistics, scans          - `sorting`     taking, searching, sorting, sets
- `products`             matrix products                  - `elementwise` elementwise functions made of others
- `special`              special functions, by SciPy      - `linalg`, `fft`, `contractions`

Constants and what creates arrays of numbers alone are NumPy's own. A NumPy function without an entry here
raises NotDifferentiable when it meets a tracer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.backends.reference import rules  # noqa: F401  # fills PRIMITIVES
from adbridge.backends.reference.namespace import fft, linalg
from adbridge.backends.reference.namespace.contractions import einsum
from adbridge.backends.reference.namespace.creation import (
    arange,
    asarray,
    constant,
    empty_like,
    full,
    full_like,
    linspace,
    meshgrid,
    ones_like,
    tril,
    triu,
    zeros_like,
)
from adbridge.backends.reference.namespace.dtypes import (
    __array_namespace_info__,
    astype,
    can_cast,
    finfo,
    iinfo,
    isdtype,
    result_type,
)
from adbridge.backends.reference.namespace.elementwise import clip, positive
from adbridge.backends.reference.namespace.products import tensordot, vecdot
from adbridge.backends.reference.namespace.reductions import (
    all,
    any,
    argmax,
    argmin,
    count_nonzero,
    cumulative_prod,
    cumulative_sum,
    diff,
    max,
    mean,
    min,
    prod,
    std,
    sum,
    var,
)
from adbridge.backends.reference.namespace.shapes import (
    broadcast_arrays,
    broadcast_to,
    concat,
    expand_dims,
    flip,
    getitem,
    index_of,
    matrix_transpose,
    moveaxis,
    permute_dims,
    repeat,
    reshape,
    roll,
    squeeze,
    stack,
    tile,
    unstack,
)
from adbridge.backends.reference.namespace.sorting import (
    argsort,
    nonzero,
    searchsorted,
    sort,
    take,
    take_along_axis,
    unique_all,
    unique_counts,
    unique_inverse,
    unique_values,
)
from adbridge.backends.reference.namespace.special import (
    beta,
    digamma,
    i0,
    i0e,
    i1,
    i1e,
    iv,
    ive,
    j0,
    j1,
    jv,
    log_softmax,
    loggamma,
    logsumexp,
    polygamma,
    softmax,
)
from adbridge.backends.reference.primitives import PRIMITIVES

__array_api_version__ = "2024.12"

__all__ = [
    "__array_namespace_info__",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "asarray",
    "astype",
    "beta",
    "broadcast_arrays",
    "broadcast_to",
    "can_cast",
    "clip",
    "concat",
    "constant",
    "count_nonzero",
    "cumulative_prod",
    "cumulative_sum",
    "diff",
    "digamma",
    "einsum",
    "empty_like",
    "expand_dims",
    "fft",
    "finfo",
    "flip",
    "full",
    "full_like",
    "getitem",
    "i0",
    "i0e",
    "i1",
    "i1e",
    "iinfo",
    "index_of",
    "isdtype",
    "iv",
    "ive",
    "j0",
    "j1",
    "jv",
    "linalg",
    "linspace",
    "log_softmax",
    "loggamma",
    "logsumexp",
    "matrix_transpose",
    "max",
    "mean",
    "meshgrid",
    "min",
    "moveaxis",
    "nonzero",
    "ones_like",
    "permute_dims",
    "polygamma",
    "positive",
    "prod",
    "repeat",
    "reshape",
    "result_type",
    "roll",
    "searchsorted",
    "softmax",
    "sort",
    "squeeze",
    "stack",
    "std",
    "sum",
    "take",
    "take_along_axis",
    "tensordot",
    "tile",
    "tril",
    "triu",
    "unique_all",
    "unique_counts",
    "unique_inverse",
    "unique_values",
    "unstack",
    "var",
    "vecdot",
    "zeros_like",
]


def __getattr__(name: str) -> Any:
    """The primitives, elementwise ones above all, are here by their own names; the rest is NumPy's."""
    if name in PRIMITIVES:
        globals()[name] = PRIMITIVES[name]  # from now on without this detour
        return PRIMITIVES[name]
    if not hasattr(np, name):
        raise AttributeError(f"the reference engine's namespace has no {name!r}, nor has NumPy")
    return getattr(np, name)


def of_tracers(name: str) -> Any:
    """What does `name` on tracers: a function of this module or a primitive; None if there is neither."""
    return globals()[name] if name in _OURS else PRIMITIVES.get(name)


_OURS = frozenset(__all__) - {"fft", "linalg"}
