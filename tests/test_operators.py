"""The operators within the engines' own transforms, in threads, and on odd arguments."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import adbridge as ad
from adbridge import jacobians
from adbridge.operators import Operator
from adbridge.registry import is_installed
from conftest import NAMES
from contract import X, Y, pair, pair_jacobian, wave, wave_curvature, wave_slope

INSTALLED = [name for name in NAMES if is_installed(name)]


# JAX.


@pytest.fixture
def jax() -> Any:
    return pytest.importorskip("jax")


def test_jax_config_is_left_alone(jax: Any) -> None:
    before = jax.config.jax_enable_x64
    for _ in range(2):
        assert ad.grad(wave, backend="jax")(X).dtype == np.float64
        assert jax.config.jax_enable_x64 is before is False
        assert jax.numpy.asarray(X).dtype == np.float32
    with pytest.raises(ZeroDivisionError):
        ad.grad(lambda x: 1 / 0, backend="jax")(X)
    assert jax.config.jax_enable_x64 is False


def test_jax_float64_arrays_stay_so_outside_the_scope(jax: Any) -> None:
    with jax.enable_x64(True):
        x = jax.numpy.asarray(X)
    slope = ad.grad(wave)(x)
    assert isinstance(slope, jax.Array) and slope.dtype == np.float64
    np.testing.assert_allclose(np.asarray(slope), wave_slope(X), rtol=1e-12)
    out, vjp_fn = ad.vjp(pair, x)
    with jax.enable_x64(True):
        cotangent = jax.numpy.ones(2)
    assert out.dtype == vjp_fn(cotangent)[0].dtype == np.float64


def test_jax_single_precision_meets_no_double(jax: Any) -> None:
    x = jax.numpy.asarray(X)
    seen: list[Any] = []
    ad.grad(lambda x: (seen.append(jax.numpy.ones(3).dtype), wave(x))[1])(x)
    assert seen == [np.float32]


def test_operators_inside_jit_and_vmap(jax: Any) -> None:
    x = np.stack([X, Y]).astype(np.float32)
    with jax.enable_x64(False):
        for fun in (jax.jit(jax.vmap(ad.grad(wave))), jax.vmap(jax.jit(ad.grad(wave, backend="jax")))):
            np.testing.assert_allclose(np.asarray(fun(x)), wave_slope(x), rtol=1e-5)
        hessian = jax.jit(jax.vmap(ad.jacobian(ad.grad(wave))))(x)
        np.testing.assert_allclose(np.asarray(hessian), [np.diag(wave_curvature(r)) for r in x], rtol=1e-4, atol=1e-5)
        theirs = jax.grad(lambda x: ad.jvp(wave, (x,), (jax.numpy.ones(3),))[1])(x[0])
        np.testing.assert_allclose(np.asarray(theirs), wave_curvature(x[0]), rtol=1e-4)


def test_numpy_in_under_jit_stays_traced(jax: Any) -> None:
    y = Y.astype(np.float32)

    @jax.jit
    def fun(w: Any) -> Any:
        return ad.grad(lambda x: (w * x * x).sum(), backend="jax")(y)

    np.testing.assert_allclose(np.asarray(fun(np.float32(3.0))), 6 * y, rtol=1e-6)


def test_jax_custom_rules_and_control_flow_pass_through(jax: Any) -> None:
    jnp = jax.numpy

    def fun(x: Any) -> Any:
        return jax.lax.fori_loop(0, 3, lambda i, x: x * x, jax.nn.softplus(x)).sum()

    x, s = X, np.logaddexp(0, X)
    np.testing.assert_allclose(ad.grad(fun, backend="jax")(x), 8 * s**7 / (1 + np.exp(-x)), rtol=1e-10)
    assert jnp is jax.numpy


# PyTorch.


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def test_results_join_the_callers_graph(torch: Any) -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    out, slope = ad.value_and_grad(lambda x: (x**3).sum())(x)
    (out + (slope**2).sum()).backward()  # x^3 + 9 x^4
    assert x.grad.tolist() == [3.0 + 36.0, 12.0 + 288.0]
    (again,) = torch.autograd.grad(ad.grad(lambda x: (x**4).sum())(x).sum(), x)
    assert again.tolist() == [12.0, 48.0]
    out, vjp_fn = ad.vjp(lambda x: x**2, x)
    (mixed,) = torch.autograd.grad((vjp_fn(torch.ones(2))[0] * out).sum(), x)  # 2 x^3
    assert mixed.tolist() == [6.0, 24.0]
    tangent = ad.jvp(lambda x: x**3, (x,), (torch.ones(2),))[1]
    assert torch.autograd.grad(tangent.sum(), x)[0].tolist() == [6.0, 12.0]


def test_results_join_no_graph_that_is_not_there(torch: Any) -> None:
    x = torch.tensor([1.0, 2.0])
    out, slope = ad.value_and_grad(lambda x: (x**3).sum())(x)
    assert not out.requires_grad and not slope.requires_grad and not x.requires_grad and x.grad is None
    with torch.no_grad():
        frozen = torch.tensor([1.0, 2.0], requires_grad=True)
        assert not ad.grad(lambda x: (x**3).sum())(frozen).requires_grad
    with torch.inference_mode():
        made = torch.tensor([1.0, 2.0])
        for tensor in (made, x):
            assert ad.grad(lambda x: (x**3).sum())(tensor).tolist() == [3.0, 12.0]
            assert ad.vjp(lambda x: x**3, tensor)[1](torch.ones(2))[0].tolist() == [3.0, 12.0]
    assert ad.grad(lambda x: (x**3).sum())(made).tolist() == [3.0, 12.0]


def test_operators_inside_torch_func(torch: Any) -> None:
    x = torch.tensor(np.stack([X, Y]))
    np.testing.assert_allclose(torch.func.vmap(ad.grad(wave))(x), wave_slope(x.numpy()), rtol=1e-12)
    slope = torch.func.grad(lambda x: ad.grad(wave)(x).sum())(x[0])
    np.testing.assert_allclose(slope, wave_curvature(X), rtol=1e-12)
    hessian = torch.func.jacfwd(ad.grad(wave))(x[0])
    np.testing.assert_allclose(hessian, np.diag(wave_curvature(X)), rtol=1e-12)
    inside = ad.grad(lambda x: torch.func.grad(lambda x: wave(x))(x).sum())(x[0])
    np.testing.assert_allclose(inside, wave_curvature(X), rtol=1e-12)
    forward = ad.jvp(lambda x: torch.func.grad(lambda x: wave(x))(x), (x[0],), (x[1],))[1]
    np.testing.assert_allclose(forward, wave_curvature(X) * Y, rtol=1e-12)


def test_tensor_parameters_stay_untouched(torch: Any) -> None:
    model = torch.nn.Linear(3, 1, dtype=torch.float64)
    weights = model.weight.detach().clone()
    slope = ad.grad(lambda x: model(x).sum(), backend="torch")(X)
    np.testing.assert_allclose(slope, weights[0], rtol=1e-12)
    assert model.weight.grad is None and model.weight.requires_grad


def test_jacobian_of_functions_that_vmap_lacks(torch: Any) -> None:
    class Square(torch.autograd.Function):  # type: ignore[misc,name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * ctx.saved_tensors[0] * g

    x = torch.tensor(X)
    np.testing.assert_allclose(ad.jacobian(Square.apply, mode="reverse")(x), np.diag(2 * X))
    scaled = ad.jacobian(lambda x: x * float(x.detach().numpy().sum()), mode="reverse")(x)
    np.testing.assert_allclose(scaled, np.eye(3) * X.sum())
    # One draw for the whole Jacobian: it is that of one function.
    for mode in ("forward", "reverse"):
        drawn = ad.jacobian(lambda x: x.sum() * torch.rand(1).expand(2), mode=mode)(x)
        assert len(set(drawn.flatten().tolist())) == 1


def test_functional_parameters(torch: Any) -> None:
    model = torch.nn.Linear(3, 2, dtype=torch.float64)
    params = dict(model.named_parameters())
    x = torch.tensor(X)

    def loss(params: Any) -> Any:
        return torch.func.functional_call(model, params, (x,)).sum()

    slopes = ad.grad(loss)(params)
    assert set(slopes) == {"weight", "bias"}
    np.testing.assert_allclose(slopes["weight"].detach(), [X, X])
    np.testing.assert_allclose(slopes["bias"].detach(), [1, 1])


def test_an_unknown_option_of_the_same_engine_still_nests(torch: Any) -> None:
    """Two adapters of one engine are one engine to nested operators."""
    other = ad.get_backend("torch", device="cpu")
    y = np.array([1.0, 2.0])

    def outer(w: Any) -> Any:
        return ad.grad(lambda x: (w * x * x).sum(), backend=other)(y).sum()

    assert ad.grad(outer, backend="torch")(np.array(1.5)) == 6.0


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(name: str, dtype: str) -> None:
    engine = pytest.importorskip(name)
    if name == "torch":
        x = engine.tensor([1.0, 2.0], dtype=getattr(engine, dtype))
    else:
        x = engine.numpy.asarray([1.0, 2.0], dtype=dtype)
    for mode in ("forward", "reverse"):
        got = ad.jacobian(lambda x: x * x, mode=mode)(x)
        assert got.dtype == x.dtype
        assert [[float(e) for e in row] for row in got] == [[2, 0], [0, 4]]


def test_numpy_bfloat16_round_trip() -> None:
    pytest.importorskip("torch")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.array([1.0, 2.0], ml_dtypes.bfloat16)
    got = ad.grad(lambda x: (x * x).sum(), backend="torch")(x)
    assert got.dtype == ml_dtypes.bfloat16 and got.astype(float).tolist() == [2, 4]


# autograd.


@pytest.mark.parametrize(("dtype", "slope"), [("int64", 6.0), ("bool", 1.0), ("float64", 13.0)])
def test_autograd_asarray_casts(dtype: str, slope: float) -> None:
    pytest.importorskip("autograd")
    fun = lambda x: x * ad.array_namespace(x).asarray(x, dtype=dtype)  # noqa: E731
    assert ad.grad(fun, backend="autograd")(6.5) == slope
    assert ad.jvp(fun, (6.5,), (1.0,), backend="autograd")[1] == slope


def test_own_autograd_around_and_within() -> None:
    autograd = pytest.importorskip("autograd")
    inner = autograd.grad(lambda x: ad.grad(lambda y: y**3)(x) * 1.0)
    assert inner(2.0) == 12.0
    assert ad.grad(lambda x: autograd.grad(lambda y: y**3)(x), backend="autograd")(2.0) == 12.0


# Threads.


def run_threads(work: list[Callable[[], None]]) -> None:
    failures: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def second_derivatives(name: str, times: int) -> Callable[[], None]:
    def job() -> None:
        rng = np.random.default_rng()
        for _ in range(times):
            a = float(rng.uniform(1, 2))
            twice = ad.grad(ad.grad(lambda x, a=a: a * x**3, backend=name), backend=name)(2.0)
            np.testing.assert_allclose(twice, 12 * a, rtol=1e-12)
            pushed = ad.jvp(lambda x: ad.grad(wave, backend=name)(x), (X,), (Y,), backend=name)[1]
            np.testing.assert_allclose(pushed, wave_curvature(X) * Y, rtol=1e-12)
            with ad.use_backend(name):
                np.testing.assert_allclose(ad.jacobian(pair)(X), pair_jacobian(X), rtol=1e-12)

    return job


def test_threads_with_different_backends() -> None:
    run_threads([second_derivatives(name, 8) for name in INSTALLED])


@pytest.mark.parametrize("name", [n for n in INSTALLED if n in ("reference", "autograd")])
def test_threads_with_one_backend(name: str) -> None:
    run_threads([second_derivatives(name, 30) for _ in range(4)])


def test_threads_with_one_backend_that_is_slow() -> None:
    for name in INSTALLED:
        if name in ("jax", "torch"):
            run_threads([second_derivatives(name, 3) for _ in range(3)])


def test_a_thread_that_fails_does_not_disturb_the_others(backend: str) -> None:
    def failing() -> None:
        for _ in range(20):
            with pytest.raises(ZeroDivisionError):
                ad.grad(lambda x: ad.grad(lambda y: 1 / 0, backend=backend)(x), backend=backend)(1.0)

    run_threads([failing, second_derivatives(backend, 3), failing])


# Odd arguments.


def test_jacobian_in_chunks(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobians, "_CHUNK_ELEMENTS", 1)
    for mode in ("forward", "reverse"):
        got = ad.jacobian(lambda p: (pair(p["x"]), p["y"] * 2), mode=mode, backend=backend)({"x": X, "y": Y})
        np.testing.assert_allclose(got[0]["x"], pair_jacobian(X), rtol=1e-12)
        np.testing.assert_allclose(got[1]["y"], 2 * np.eye(3))
        np.testing.assert_allclose(got[0]["y"], np.zeros((2, 3)))


@pytest.mark.parametrize(("mode", "sweep"), [("forward", "jvp_batch"), ("reverse", "vjp_batch")])
@pytest.mark.parametrize("n", [1, 3])
def test_jacobian_sweeps_as_it_was_told(mode: str, sweep: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ad.get_backend("reference")
    other = "vjp_batch" if sweep == "jvp_batch" else "jvp_batch"
    monkeypatch.setattr(type(backend), other, lambda *args: pytest.fail(f"{mode} mode called {other}"))
    got = ad.jacobian(lambda x: x * x, mode=mode, backend=backend)(X[:n])
    np.testing.assert_allclose(got, np.diag(2 * X[:n]))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_matrix_is_an_array(backend: str) -> None:
    got = ad.grad(wave, backend=backend)(np.matrix([[0.1, 0.2]]))
    assert type(got) is np.ndarray
    np.testing.assert_allclose(got, wave_slope(np.array([[0.1, 0.2]])))


def test_namedtuples_and_lists_as_outputs(backend: str) -> None:
    from contract import Point

    got = ad.jacobian(lambda x: Point([x * x], {"k": 2 * x}), backend=backend)(X)
    assert isinstance(got, Point)
    np.testing.assert_allclose(got.first[0], np.diag(2 * X))
    np.testing.assert_allclose(got.second["k"], 2 * np.eye(3))


def test_output_changed_by_the_caller_leaves_vjp_fn(backend: str) -> None:
    out, vjp_fn = ad.vjp(lambda x: {"a": x * x, "b": x}, X, backend=backend)
    out["a"][:] = 0
    del out["b"]
    np.testing.assert_allclose(vjp_fn({"a": np.ones(3), "b": np.ones(3)})[0], 2 * X + 1)


def test_large_and_special_values(backend: str) -> None:
    x = np.array([1e300, -1e-300, 0.0, np.inf])
    np.testing.assert_array_equal(
        ad.grad(lambda x: ad.array_namespace(x).sum(2 * x), backend=backend)(x), np.full(4, 2.0)
    )
    nan = ad.grad(lambda x: ad.array_namespace(x).sum(x * x), backend=backend)(np.array([np.nan, 1.0]))
    np.testing.assert_array_equal(nan, [np.nan, 2.0])


def test_many_arguments_and_deep_trees(backend: str) -> None:
    tree: Any = 1.0
    for _ in range(50):
        tree = {"deeper": tree}

    def fun(tree: Any) -> Any:
        while isinstance(tree, dict):
            tree = tree["deeper"]
        return tree * tree

    got = ad.grad(fun, backend=backend)(tree)
    while isinstance(got, dict):
        got = got["deeper"]
    assert got == 2.0
    many = ad.grad(lambda *xs: sum(i * x for i, x in enumerate(xs)), argnums=tuple(range(40)), backend=backend)
    assert [float(g) for g in many(*[1.0] * 40)] == list(range(40))


def test_operator_is_a_value() -> None:
    g = ad.grad(wave, backend="reference")
    assert g == ad.grad(wave, backend="reference") and hash(g) == hash(ad.grad(wave, [0][0], backend="reference"))
    assert repr(g) == "<grad of wave on reference>"
    assert repr(ad.jacobian(wave)) == "<jacobian of wave>"
    assert ad.grad(wave, argnums=[1, 0]).argnums == (1, 0)  # type: ignore[arg-type]
    assert ad.grad(wave, argnums=np.int64(1)).argnums == 1  # type: ignore[arg-type]


def test_operators_at_a_point_are_the_functions(backend: str) -> None:
    out, tangent = Operator("jvp", pair, (0,), backend=backend)((X,), (Y,))
    np.testing.assert_allclose(tangent, pair_jacobian(X) @ Y, rtol=1e-12)
    (pulled,) = Operator("vjp", pair, (0,), backend=backend)((X,), np.ones(2))
    np.testing.assert_allclose(pulled, np.ones(2) @ pair_jacobian(X), rtol=1e-12)
    assert out.shape == (2,)


# Prepared.


def test_prepared_remembers_its_backend(backend: str) -> None:
    with ad.use_backend(backend):
        prepared = ad.prepare(ad.grad(wave), X)
    np.testing.assert_allclose(prepared(Y), wave_slope(Y), rtol=1e-12)
    assert prepared.operator.backend is ad.get_backend(backend) and prepared.seconds >= 0


def test_prepared_jvp_and_vjp(backend: str) -> None:
    forward = ad.prepare(Operator("jvp", pair, (0,), backend=backend), (X,), (Y,))
    np.testing.assert_allclose(forward((Y,), (X,))[1], pair_jacobian(Y) @ X, rtol=1e-12)
    reverse = ad.prepare(Operator("vjp", pair, (0,), backend=backend), (X,), np.ones(2))
    np.testing.assert_allclose(reverse((Y,), np.array([1.0, 2.0]))[0], [1.0, 2.0] @ pair_jacobian(Y), rtol=1e-12)
    with pytest.raises(ad.SignatureMismatch, match=r"wrong shape|wrong dtype"):
        forward((Y,), (X[:2],))


def test_prepared_call_that_looks_the_same_is_not_read_again(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fun = lambda x, t, n, *, w: ad.array_namespace(x).sum(x**n * w) * t  # noqa: E731
    prepared = ad.prepare(ad.grad(fun, argnums=(0, 1), backend=backend), X, 2.0, 2, w=Y)
    at_point = ad.prepare(Operator("jvp", lambda x: x * x, (0,), backend=backend), (1.0,), (1.0,))
    monkeypatch.setattr(Operator, "read", None)
    with ad.use_backend("zero"):  # the backend stays the one of the preparation
        by_x, by_t = prepared(Y, 3.0, 2, w=X)
        np.testing.assert_allclose(by_x, 6 * X * Y, rtol=1e-12)
        np.testing.assert_allclose(by_t, np.sum(Y**2 * X), rtol=1e-12)
        np.testing.assert_allclose(at_point((3.0,), (0.5,)), [9.0, 3.0])
    assert type(by_x) is np.ndarray and by_x.flags.writeable
    unlike: list[tuple[Any, Any, Any, Any]] = [
        (X[:2], 2.0, 2, Y),
        (X, 2, 2, Y),
        (X, 2.0, 3, Y),
        (X, 2.0, 2.0, Y),
        (X.astype(">f8"), 2.0, 2, Y),
        (X, 2.0, 2, 1.0),
        (X, np.ones(1), 2, Y),
    ]
    for x, t, n, w in unlike:
        with pytest.raises(TypeError, match="not callable"):
            prepared(x, t, n, w=w)


def test_prepared_call_takes_what_its_operator_takes(backend: str) -> None:
    """NumPy scalars, other byte orders and engine arrays, after a preparation on plain arrays."""
    prepared = ad.prepare(ad.grad(lambda x: x * x * x, backend=backend), np.array(1.0))
    for x in (2.0, np.float64(2.0), np.array(2.0).astype(">f8")):
        got = prepared(x)
        assert type(got) is np.ndarray and got == 12
    b = ad.get_backend(backend)
    with b.scope(["float64"]):
        own = b.from_numpy(np.array(2.0))
    assert type(prepared(own)) is type(own)


def test_prepared_within_an_operator(backend: str) -> None:
    """The inner derivative of NumPy constants stays the engine's, and a traced argument is differentiated."""
    inner = ad.prepare(ad.grad(lambda x: x * x * x, backend=backend), 1.0)
    assert ad.grad(lambda w: w * inner(2.0), backend=backend)(5.0) == 12
    if backend != "jax":  # it is compiled, and takes no tracers
        assert ad.grad(lambda w: inner(w), backend=backend)(2.0) == 12


def test_prepared_runs_on_engine_arrays(backend: str) -> None:
    prepared = ad.prepare(ad.grad(wave, backend=backend), X)
    with prepared.scope():
        got = prepared.run(*prepared.arrays(Y))
        np.testing.assert_allclose(ad.get_backend(backend).to_numpy(got), wave_slope(Y), rtol=1e-12)


def test_prepared_of_an_empty_output(backend: str) -> None:
    prepared = ad.prepare(ad.grad(lambda x: ad.array_namespace(x).sum(x * x), backend=backend), np.zeros((0, 3)))
    assert prepared(np.zeros((0, 3))).shape == (0, 3)
