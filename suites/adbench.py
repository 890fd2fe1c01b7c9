"""The Gaussian mixture objective of ADBench, on its data files or on a synthetic instance of their shape.

F. Srajer, Z. Kukelova, A. Fitzgibbon, A benchmark of selected algorithmic differentiation tools on some
problems in computer vision and machine learning, Optimization Methods and Software 33 (2018).

With alphas [K], means mu [K, d], and a lower triangular Q_k built from row k of icf [K, d + d(d-1)/2] (the
log-diagonal q_k, then the strict lower triangle l_k, column by column), the log-posterior of points x_i is

    sum_i log sum_k exp(alpha_k + sum(q_k) - |Q_k (x_i - mu_k)|^2 / 2)
    - N log sum_k exp(alpha_k) - N d log(2 pi) / 2
    + sum_k [ m sum(q_k) - gamma^2 |Q_k|^2 / 2 + C ],

the last line being the logarithm of the Wishart density of Q_k^T Q_k; ADBench's own code flips its sign.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

import adbridge as ad
from adbridge.bench.problem import Answer, Instance, Problem, Suite, Vector, gradient_answer
from adbridge.errors import DataError
from adbridge.trees import PyTree

DIMENSION, POINTS = 10, 1000  # of the synthetic instances


def gmm_objective(parameters: PyTree, points: Any, place: Any, gamma: float, wishart_m: int) -> Any:
    """The log-posterior of the module's docstring, a scalar.

    Args:
        parameters: ``(alphas [K], means [K, d], icf [K, d(d+1)/2])``.
        points: [N, d].
        place: `triangle_places` of d.
        gamma, wishart_m: of the Wishart prior.
    """
    alphas, means, icf = parameters
    xp = ad.array_namespace(alphas)
    count, d = points.shape
    factors, log_det = _factors(xp, icf, place, d)
    centred = points[None, :, :] - means[:, None, :]  # [K, N, d]
    whitened = centred @ xp.permute_dims(factors, (0, 2, 1))
    terms = (alphas + log_det)[:, None] - 0.5 * xp.sum(whitened * whitened, axis=2)
    data = xp.sum(_log_sum_exp(xp, terms)) - count * _log_sum_exp(xp, alphas)
    prior = wishart_m * xp.sum(log_det) - 0.5 * gamma**2 * xp.sum(factors * factors)
    return data + prior + _constant(count, d, alphas.shape[0], gamma, wishart_m)


def _factors(xp: Any, icf: Any, place: Any, d: int) -> tuple[Any, Any]:
    """Q [K, d, d] and log det Q [K]."""
    log_diagonal = icf[:, :d]
    packed = xp.concat([xp.exp(log_diagonal), icf[:, d:], xp.zeros_like(icf[:, :1])], axis=1)
    factors = xp.reshape(xp.take(packed, place, axis=1), (icf.shape[0], d, d))
    return factors, xp.sum(log_diagonal, axis=1)


def triangle_places(d: int) -> Vector:
    """For each entry of a [d, d] matrix, by rows, its column in (diagonal, strict lower triangle, zero)."""
    place = np.full((d, d), d + d * (d - 1) // 2)
    np.fill_diagonal(place, np.arange(d))
    columns, rows = np.triu_indices(d, 1)  # the lower triangle, column by column
    place[rows, columns] = d + np.arange(len(rows))
    return place.reshape(-1)


def _log_sum_exp(xp: Any, terms: Any) -> Any:
    """Over the first axis."""
    top = xp.max(terms, axis=0)
    return top + xp.log(xp.sum(xp.exp(terms - top), axis=0))


def _constant(count: int, d: int, clusters: int, gamma: float, wishart_m: int) -> float:
    """What does not depend on the parameters: - N d log(2 pi) / 2 + K C.

    C = p d (log gamma - log(2) / 2) - log Gamma_d(p / 2), for p = d + m + 1 degrees of freedom.
    """
    freedom = d + wishart_m + 1
    log_gamma = d * (d - 1) / 4 * math.log(math.pi)  # multivariate
    log_gamma += sum(math.lgamma((freedom - j) / 2) for j in range(d))
    prior = freedom * d * (math.log(gamma) - math.log(2) / 2) - log_gamma
    return clusters * prior - count * d * math.log(2 * math.pi) / 2


# The right answer.


def gmm_answer(parameters: PyTree, points: Vector, gamma: float, wishart_m: int, prior_sign: float = 1.0) -> Answer:
    """By responsibilities r_ik = softmax_k of the terms, with y_ik = Q_k (x_i - mu_k) and R_k = sum_i r_ik:

    df/dalpha_k = R_k - N softmax(alpha)_k,   df/dmu_k = Q_k^T sum_i r_ik y_ik,
    df/dQ_k = - sum_i r_ik y_ik (x_i - mu_k)^T - gamma^2 Q_k on the lower triangle;
    q_k enters through the diagonal exp(q_k) of Q_k, and through log det Q_k with weight R_k + m.

    `prior_sign` is -1 for ADBench's own objective.
    """
    alphas, means, icf = (np.asarray(part, float) for part in parameters)
    points = np.asarray(points, float)
    count, d = points.shape
    lower, log_det = _lower_triangles(icf, d), np.sum(icf[:, :d], axis=1)
    centred = points - means[:, None, :]
    whitened = np.einsum("kab,knb->kna", lower, centred)
    terms = (alphas + log_det)[:, None] - np.sum(whitened**2, axis=2) / 2
    log_density, log_total = np.logaddexp.reduce(terms, axis=0), np.logaddexp.reduce(alphas)
    value = np.sum(log_density) - count * (log_total + d * np.log(2 * np.pi) / 2)
    value += prior_sign * _log_prior(lower, log_det, gamma, wishart_m)

    shares = np.exp(terms - log_density)
    weight, shared = np.sum(shares, axis=1), shares[:, :, None] * whitened
    d_lower = -np.swapaxes(shared, 1, 2) @ centred - prior_sign * gamma**2 * lower
    gradient = (
        weight - count * np.exp(alphas - log_total),
        np.einsum("kab,ka->kb", lower, np.sum(shared, axis=1)),
        _icf_gradient(d_lower, lower, weight + prior_sign * wishart_m),
    )
    return gradient_answer(value, gradient)


def _lower_triangles(icf: Vector, d: int) -> Vector:
    lower = np.zeros((len(icf), d, d))
    columns, rows = np.triu_indices(d, 1)
    lower[:, rows, columns] = icf[:, d:]
    lower[:, range(d), range(d)] = np.exp(icf[:, :d])
    return lower


def _icf_gradient(d_lower: Vector, lower: Vector, d_log_det: Vector) -> Vector:
    """From the gradient with respect to Q, and to log det Q."""
    d = lower.shape[1]
    columns, rows = np.triu_indices(d, 1)
    d_log_diagonal = d_lower[:, range(d), range(d)] * lower[:, range(d), range(d)] + d_log_det[:, None]
    return np.concatenate([d_log_diagonal, d_lower[:, rows, columns]], axis=1)


def _log_prior(lower: Vector, log_det: Vector, gamma: float, wishart_m: int) -> Any:
    """Wishart of scale gamma^-2 I.

    With p = d + m + 1 degrees of freedom its constant is gamma^(p d) / (2^(p d / 2) Gamma_d(p / 2)).
    """
    clusters, d = lower.shape[:2]
    half = (d + wishart_m + 1) / 2
    log_gamma = math.log(math.pi) * d * (d - 1) / 4 + math.fsum(math.lgamma(half - j / 2) for j in range(d))
    constant = 2 * half * d * math.log(gamma / math.sqrt(2)) - log_gamma
    return wishart_m * np.sum(log_det) - gamma**2 * np.sum(lower**2) / 2 + clusters * constant


# Synthetic instances.


def _make_gmm(n: int, m: int, rng: np.random.Generator) -> Instance:
    """d = `DIMENSION`; n = K (1 + d + d(d+1)/2)."""
    d, size = DIMENSION, DIMENSION * (DIMENSION + 1) // 2
    clusters = max(1, round(n / (1 + d + size)))
    parameters = (
        rng.standard_normal(clusters),
        rng.uniform(0.0, 1.0, (clusters, d)),
        # Near the identity, so that several clusters share each point.
        0.2 * rng.standard_normal((clusters, size)),
    )
    return gmm_instance(parameters, rng.standard_normal((POINTS, d)), gamma=1.0, wishart_m=0)


def gmm_instance(parameters: PyTree, points: Vector, gamma: float, wishart_m: int) -> Instance:
    """The instance of these numbers; shapes as in `gmm_objective`."""

    def gmm(parameters: PyTree, points: Any, place: Any) -> Any:
        return gmm_objective(parameters, points, place, gamma, wishart_m)

    def answer(parameters: PyTree, points: Vector, place: Vector) -> Answer:
        return gmm_answer(parameters, points, gamma, wishart_m)

    return Instance(gmm, (parameters, points, triangle_places(points.shape[1])), answer)


# ADBench's files: white-space separated numbers, `D K N`; alphas; means; icf; points; `gamma m`.


def find_gmm(path: Path) -> dict[str, Path]:
    """One file, or all ``gmm*.txt`` and ``gmm/test.txt`` below a folder.

    Labels are ``folder/stem``, such as ``1k/gmm_d10_K25``, whichever folder above was given.

    Raises:
        DataError: nothing there, or two files of one label.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}; pass one with ADBench's GMM data")
    if path.is_file():
        return {_label(path): path}
    files = sorted(file for file in path.rglob("*.txt") if file.is_file() and _is_gmm(file))
    if not files:
        raise DataError(f"{path} holds no GMM data: expected gmm*.txt, or gmm/test.txt, at any depth")
    labels = [_label(file) for file in files]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise DataError(f"{path} holds two files {twice}.txt; pass one of the folders that hold them")
    return dict(zip(labels, files, strict=True))


def _is_gmm(file: Path) -> bool:
    return file.name.startswith("gmm") or (file.name == "test.txt" and file.resolve().parent.name == "gmm")


def _label(file: Path) -> str:
    return f"{file.resolve().parent.name}/{file.stem}"


def read_gmm(file: Path) -> Instance:
    """The instance in one file. Raises DataError, naming the file, what was expected and what was found."""
    tokens = file.read_text(encoding="utf-8", errors="replace").split()
    if not tokens:
        raise DataError(f"{file} is empty; expected a GMM instance that starts with 'D K N'")
    d, clusters, count = header = _header(file, tokens)
    shapes = [(clusters,), (clusters, d), (clusters, d * (d + 1) // 2), (count, d), (2,)]
    numbers = _numbers(file, tokens[3:])
    expected = sum(math.prod(shape) for shape in shapes)
    if len(numbers) != expected:
        asked = " ".join(map(str, header))
        raise DataError(f"{file}: 'D K N' = {asked} needs {expected} numbers after it; found {len(numbers)}")
    parts = np.split(numbers, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
    alphas, means, icf, points, (gamma, m) = (p.reshape(s) for p, s in zip(parts, shapes, strict=True))
    if gamma <= 0 or m < 0 or m != round(m):
        raise DataError(f"{file}: expected gamma > 0 and a whole m >= 0 at the end; found {gamma:g} {m:g}")
    return gmm_instance((alphas, means, icf), points, float(gamma), int(m))


def _header(file: Path, tokens: list[str]) -> list[int]:
    found = tokens[:3]
    if len(found) < 3 or not all(token.isdecimal() and int(token) > 0 for token in found):
        raise DataError(f"{file}: expected 'D K N', three positive integers, first; found {' '.join(found)!r}")
    return [int(token) for token in found]


def _numbers(file: Path, tokens: list[str]) -> Vector:
    try:
        numbers = np.array(tokens, dtype=float)
    except ValueError:
        numbers = np.array([np.nan])
    if np.all(np.isfinite(numbers)):
        return numbers
    line, token = _first_bad(file)
    raise DataError(f"{file}, line {line}: expected a finite number; found {token!r}")


def _first_bad(file: Path) -> tuple[int, str]:
    """Line and text of the first token that is not a finite number."""
    lines = enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
    return next((i, token) for i, line in lines for token in line.split() if not _is_finite(token))


def _is_finite(token: str) -> bool:
    try:
        return math.isfinite(float(token))
    except ValueError:
        return False


GMM = Problem(
    "gmm",
    _make_gmm,
    sizes=((330, 1), (1650, 1)),  # K = 5 and 25
    free="n",
    find=find_gmm,
    load=read_gmm,
    source="F. Srajer, Z. Kukelova, A. Fitzgibbon, A benchmark of selected algorithmic differentiation tools "
    "on some problems in computer vision and machine learning, Optimization Methods and Software 33 (2018)",
)

SUITE = Suite("adbench", (GMM,), "objectives of the ADBench benchmark, on its data files or synthetic ones")
