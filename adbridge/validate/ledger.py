"""Known defects of the engines: where, since which version, what happens, and the thread that reports it.

The strict table against which `atlas` reads its findings: a wrong answer without a row is a new defect; a row whose
engine answers rightly is mended, and is to be taken out. Threads are "owner/repository#number", empty where none is
known. Versions are PEP 440 specifiers; their lower ends are the versions that have been measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """One wrong answer of one engine.

    Args:
        case: name of the problem in suite `conventions`.
        engine: name of the backend.
        versions: the versions of the engine that have it, as a PEP 440 specifier.
        thread: where it is reported, or empty.
        what: the wrong answer, in words.
        operators: the derivatives that are wrong; "hessian" in all modes, "hessian rf" in one.
    """

    case: str
    engine: str
    versions: str
    thread: str
    what: str
    operators: tuple[str, ...]

    def concerns(self, case: str, engine: str, operator: str) -> bool:
        """Whether this answer is one that the defect is about."""
        named = operator in self.operators or operator.partition(" ")[0] in self.operators
        return named and (self.case, self.engine) == (case, engine)

    def covers(self, version: str) -> bool:
        """Whether the defect is known of this version (a local part as in 2.13.0+cpu does not count)."""
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(self.versions).contains(version.partition("+")[0], prereleases=True)


# The measured versions: the defects are known from them on.
_SINCE = {"reference": ">=0.1", "jax": ">=0.10.2", "torch": ">=2.13", "autograd": ">=1.9.1"}

_BRANCH = "NaN: 0 times the slope of the branch that is not selected"
_ROOT = "NaN: 0 times the infinite slope of the root"
_TAIL = "0: the rule forms 1 - y^2 or y + 1 of a y that has rounded to its limit"

# Point; engines; derivatives; what is answered; thread.
_TABLE: tuple[tuple[str, str, str, str, str], ...] = (
    ("norm-inf-ties", "autograd", "grad", "[1, 1, 0]: every tied entry has the whole slope", ""),
    ("clip-equal-bounds", "reference jax torch", "grad, jvp", "not 0, though the bounds leave one value", ""),
    ("relu-minus-relu", "reference jax", "grad, jvp", "0 for 1: each relu'(0) = 0", ""),
    ("relu-minus-relu", "torch", "grad, jvp", "0 for 1: each relu'(0) = 0", "pytorch/pytorch#76898"),
    ("identity-minus-relu", "reference jax", "grad, jvp", "1 for 0: each relu'(0) = 0", ""),
    ("identity-minus-relu", "torch", "grad, jvp", "1 for 0: each relu'(0) = 0", "pytorch/pytorch#76898"),
    ("relu-minus-half-abs", "reference jax torch", "grad, jvp", "the choices at the two kinks do not add up", ""),
    ("abs-squared-0", "reference torch autograd", "hessian", "0 for 2: the square of the choice at the kink", ""),
    ("where-exp-overflow", "reference jax autograd", "grad", _BRANCH, ""),
    ("where-exp-overflow", "torch", "grad", _BRANCH, "pytorch/pytorch#156212"),
    ("where-root-of-negative", "reference jax torch autograd", "grad", _BRANCH, ""),
    ("where-root-of-0", "reference jax torch autograd", "grad", _BRANCH, ""),
    ("where-log-of-0", "reference jax torch autograd", "grad", _BRANCH, ""),
    ("where-reciprocal-of-0", "reference jax torch autograd", "grad", _BRANCH, ""),
    ("where-acos-of-1", "reference jax torch autograd", "grad", _BRANCH, ""),
    ("where-first-branch-safe", "reference jax torch autograd", "grad", _BRANCH, ""),
    ("where-nan-data", "reference jax torch autograd", "grad", "NaN: 0 times the NaN that is not selected", ""),
    ("where-atan2-of-0", "jax", "grad", _BRANCH, "jax-ml/jax#1052"),
    ("where-atan2-of-0", "autograd", "grad", _BRANCH, ""),
    ("where-softplus-overflow", "reference jax torch autograd", "grad", _BRANCH, ""),
    ("pairwise-distances", "reference torch autograd", "grad", _BRANCH, ""),
    ("pairwise-distances", "jax", "grad", _BRANCH, "jax-ml/jax#654"),
    ("norms-of-rows-masked", "reference jax torch autograd", "grad", _BRANCH, ""),
    ("log-sum-exp-masked", "reference torch autograd", "grad", _BRANCH, ""),
    ("log-sum-exp-masked", "jax", "grad", _BRANCH, "jax-ml/jax#23842"),
    ("nansum-of-squares", "reference torch", "grad", "NaN: 0 times the slope 2 NaN of what was replaced", ""),
    ("nansum-of-squares", "jax", "grad", "NaN: 0 times the slope 2 NaN of what was replaced", "jax-ml/jax#8126"),
    ("nansum-of-data", "reference jax torch", "grad", "NaN: 0 times the NaN that was replaced", ""),
    (
        "norm-squared-0",
        "jax",
        "grad, jvp, hessian",
        "NaN, or 0 for 2 I: the norm's slope at 0 is NaN or a constant",
        "jax-ml/jax#4177",
    ),
    (
        "norm-squared-0",
        "autograd",
        "grad, jvp, hessian",
        "NaN, or 0 for 2 I: the norm's slope at 0 is NaN or a constant",
        "HIPS/autograd#183",
    ),
    (
        "norm-squared-0",
        "reference torch",
        "hessian",
        "NaN, or 0 for 2 I: the norm's slope at 0 is NaN or a constant",
        "",
    ),
    ("root-squared-0", "reference jax torch autograd", "grad, jvp, hessian", _ROOT, ""),
    ("root-of-fourth-power-0", "reference jax torch autograd", "grad, jvp", _ROOT, ""),
    ("std-squared-of-constants", "jax autograd", "grad, jvp", _ROOT, ""),
    ("std-of-one", "jax", "grad, jvp", _ROOT, ""),
    ("normalised-safely-0", "jax autograd", "grad, jvp", "NaN: 0 times the norm's NaN slope", ""),
    ("sinc-by-double-where", "reference torch autograd", "hessian", "0 for -1/3: the guard is a constant", ""),
    ("sinc-by-double-where", "jax", "hessian", "0 for -1/3: the guard is a constant", "jax-ml/jax#5054"),
    (
        "sinh-quotient-by-double-where",
        "reference jax torch autograd",
        "hessian",
        "0 for 1/3: the guard is a constant",
        "",
    ),
    (
        "expm1-quotient-by-double-where",
        "reference jax torch autograd",
        "grad, jvp",
        "0 for 1/2: the guard is a constant",
        "",
    ),
    ("xlogy-x-x-0", "jax", "grad, jvp", "NaN for -inf: infinity minus infinity", "jax-ml/jax#15598"),
    ("xlogy-x-x-0", "torch", "grad, jvp", "NaN for -inf: infinity minus infinity", ""),
    ("sigmoid-40", "jax", "grad, jvp, hessian", _TAIL, "jax-ml/jax@893b483e3f"),
    ("sigmoid-40", "torch", "grad, jvp, hessian", _TAIL, ""),
    ("sigmoid-40", "autograd", "grad, hessian rr", _TAIL, ""),
    ("tanh-20", "reference torch", "grad, jvp, hessian", _TAIL, ""),
    ("tanh-20", "jax", "grad, jvp, hessian", _TAIL, "jax-ml/jax@893b483e3f"),
    ("softplus-40", "reference jax torch", "hessian", _TAIL, ""),
    ("softplus-21", "torch", "grad, jvp, hessian", "linear from 20 on, or digits lost in s (1 - s)", ""),
    ("softplus-21", "reference jax", "hessian", "linear from 20 on, or digits lost in s (1 - s)", ""),
    ("expm1-minus-40", "jax torch autograd", "grad, jvp", _TAIL, ""),
    ("elu-minus-40", "jax", "grad, jvp", _TAIL, ""),
    ("celu-minus-40", "jax", "grad, jvp", _TAIL, ""),
    ("gelu-minus-10", "torch", "grad, jvp", "1% off: 1 + erf(x) has rounded to 0", ""),
    ("log-ndtr-minus-40", "jax torch", "hessian", "8 or 9 digits: r (r + x) cancels", ""),
    ("softmax-saturated", "reference jax torch", "grad, jvp", _TAIL, ""),
    ("log-softmax-saturated", "reference jax torch", "grad, jvp", _TAIL, ""),
    ("tanh-1000", "autograd", "hessian", "NaN: infinity times 0", ""),
    ("exp2-1024", "reference autograd", "hessian", "infinite: 2^x overflows before it is scaled", ""),
    ("exp2-1024", "torch", "hessian", "infinite: 2^x overflows before it is scaled", "pytorch/pytorch#192408"),
    ("hypot-huge", "jax", "grad, jvp", "the squares overflow", ""),
    ("hypot-tiny", "jax", "grad, jvp", "the squares underflow", ""),
    ("norm-huge", "reference jax torch autograd", "grad, jvp", "0: the squares overflow", ""),
    ("norm-tiny", "reference jax torch autograd", "grad, jvp", "the squares underflow", ""),
    ("atan2-tiny", "jax torch autograd", "grad, jvp", "infinite: the squares underflow", ""),
    ("sinc-tiny", "jax torch autograd", "hessian", "no digit: cancellation in the quotient rule", ""),
    ("power-array-2-at-0", "torch", "hessian rf", "NaN: the slope by the exponent", ""),
    ("zero-base-by-exponent", "torch", "hessian rf, hessian rr", "NaN: log 0 times 0", "pytorch/pytorch#95180"),
    ("zero-power-by-base", "jax", "grad, jvp", "NaN: 0 times infinity", "jax-ml/jax#12041"),
    (
        "power-at-zero-exponent",
        "torch autograd",
        "hessian",
        "the mixed derivative, 1/4, is not symmetric: 0 or 4 above the diagonal",
        "",
    ),
    ("negative-base", "torch", "hessian rf", "NaN: the slope by the exponent", ""),
    ("prod-one-zero", "autograd", "grad, jvp, hessian", "NaN: the product is divided by its zero", ""),
    ("prod-two-zeros", "autograd", "grad, jvp, hessian", "NaN: the product is divided by its zeros", ""),
    ("set-twice", "torch", "grad", "[14, 14]: the overwritten value has a slope", "pytorch/pytorch#146299"),
    (
        "complex-sign",
        "jax autograd",
        "grad, jvp",
        "0: the sign of a complex number is taken for piecewise constant",
        "",
    ),
    ("det-rank-2-of-3", "autograd", "grad", "no answer: the matrix is inverted", ""),
    ("det-rank-1-of-3", "autograd", "grad", "no answer: the matrix is inverted", ""),
    ("det-of-zeros-2", "autograd", "grad, hessian rr", "no answer: the matrix is inverted", ""),
    ("det-of-zeros-2", "torch", "hessian", "wrong: the singular, or forward, formula is differentiated", ""),
    ("det-of-zeros-3", "autograd", "grad", "no answer: the matrix is inverted", ""),
    (
        "det-second-order",
        "torch",
        "hessian rf, hessian ff",
        "wrong: the singular, or forward, formula is differentiated",
        "pytorch/pytorch#192540",
    ),
    (
        "det-second-order-at-identity",
        "torch",
        "hessian fr, hessian rf, hessian ff",
        "wrong: the singular, or forward, formula is differentiated",
        "pytorch/pytorch#192521",
    ),
    (
        "det-second-order-singular",
        "torch",
        "hessian rf, hessian ff",
        "wrong: the singular, or forward, formula is differentiated",
        "",
    ),
    ("det-second-order-singular", "autograd", "hessian rr", "no answer: the matrix is inverted", ""),
    (
        "eigh-rebuilt-repeated",
        "reference jax torch autograd",
        "grad",
        "NaN, or a part missing: division by the gap of two equal eigenvalues",
        "",
    ),
    (
        "svd-rebuilt-repeated",
        "jax",
        "grad, jvp",
        "NaN: division by the gap of two equal singular values",
        "jax-ml/jax#2311",
    ),
    (
        "svd-rebuilt-repeated",
        "torch",
        "grad, jvp",
        "NaN: division by the gap of two equal singular values",
        "pytorch/pytorch#49886",
    ),
    ("svd-rebuilt-repeated", "autograd", "grad", "NaN: division by the gap of two equal singular values", ""),
    (
        "solve-second-order",
        "torch",
        "hessian rf, hessian ff",
        "half of it, with forward mode inside",
        "pytorch/pytorch#192540",
    ),
    ("sinc-0", "autograd", "grad, jvp, hessian, third, fourth", "NaN: the quotient rule at 0", ""),
    ("sinc-0", "torch", "hessian, third, fourth", "NaN: the quotient rule at 0", ""),
    ("i0-second-order", "jax", "grad, jvp, hessian", "1 for 0: the slope of |x| at 0, in e^|x|", ""),
    ("i1-second-order", "jax", "hessian", "1 for 0: the slope of |x| at 0, in e^|x|", ""),
    ("gammaln-second-order", "torch", "hessian", "9 digits: trigamma by a short series", ""),
    ("digamma-orders", "torch", "grad, jvp", "9 digits: trigamma by a short series", ""),
    (
        "cumprod-second-order",
        "torch",
        "hessian rf, hessian ff",
        "half of the mixed derivatives, with forward mode inside",
        "",
    ),
)


def _entries() -> Iterator[Defect]:
    for case, engines, operators, what, thread in _TABLE:
        for engine in engines.split():
            yield Defect(case, engine, _SINCE[engine], thread, what, tuple(operators.split(", ")))


LEDGER: tuple[Defect, ...] = tuple(_entries())
