"""Solvable models against explicit numpy sums and against the Taylor expansions of the same network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd


def _moved(params, size=0.8):
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(
        structure,
        [leaf + size * jax.random.normal(jax.random.key(40 + i), leaf.shape) for i, leaf in enumerate(leaves)],
    )


def _network(width=50):
    model = jd.models.two_layer_relu(4, width)
    return model, model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (7, 4))


def test_the_two_layer_network_is_its_sum_over_neurons(x64):
    model, params, x = _network()
    u, v = np.asarray(params["u"]), np.asarray(params["v"])[:, 0]
    expected = [sum(v[i] * max(u[:, i] @ row / 2, 0) for i in range(50)) / np.sqrt(50) for row in np.asarray(x)]
    np.testing.assert_allclose(model.apply(params, x)[:, 0], expected, rtol=1e-13)
    assert set(v.tolist()) == {-1.0, 1.0}
    assert abs(u.mean()) < 4 / np.sqrt(200)
    assert abs(u.std() - 1) < 4 / np.sqrt(400)


@pytest.mark.parametrize("weights", [jd.models.signs, jd.models.gaussian])
def test_frozen_gates_are_the_quadratic_model(weights, x64):
    model = jd.models.two_layer_relu(4, 50, weights=weights)
    params0, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (7, 4))
    params = _moved(params0)
    expected = jd.quadratic(model.apply, params0)(params, x)
    for frozen in (jd.models.frozen_gates, jd.models.frozen_gates_on(x), jd.models.frozen_gates_on(x[:2])):
        found = frozen(model.apply, params0)(params, x)
        assert float(jnp.abs(found - expected).max() / jnp.abs(expected).max()) < 1e-15
        np.testing.assert_array_equal(frozen(model.apply, params0)(params0, x), model.apply(params0, x))
    u0, u, v = (np.asarray(a) for a in (params0["u"], params["u"], params["v"]))
    explicit = (((x @ u0) > 0) * (x @ u)) @ v / np.sqrt(50 * 4)
    np.testing.assert_allclose(found, explicit, rtol=1e-12)
    assert float(jnp.abs(expected - model.apply(params, x)).max()) > 1e-2  # the point is not too near the anchor


def test_training_with_frozen_gates_is_training_the_quadratic_model(x64):
    model, params0, x = _network()
    task = jd.tasks.from_arrays(x, x[:, :1] * x[:, 1:2])
    critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)

    def losses(expand):
        return jax.jit(lambda lr: jd.train(
            jd.Training(model, task, optax.sgd(lr), steps=60, key=jax.random.key(0), params0=params0, expand=expand,
                        record=jd.record(jd.every(1), loss=jd.probes.Loss()))
        ).values["loss"])(1.3 * critical)  # fmt: skip

    expected = losses(jd.quadratic)
    assert (expected[1:] / np.minimum.accumulate(expected[:-1])).max() > 2  # it does catapult
    for expand in (jd.models.frozen_gates, jd.models.frozen_gates_on(task.x)):
        np.testing.assert_allclose(losses(expand), expected, rtol=1e-10)


def _while(jaxpr):
    """The first while loop of a jaxpr, however deep."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "while":
            return eqn
        for value in eqn.params.values():
            found = _while(value.jaxpr) if hasattr(value, "jaxpr") else None
            if found is not None:
                return found
    return None


def test_gates_of_fixed_inputs_are_found_before_the_steps():
    """The loop over full-batch steps has the products of the network and no more; minibatches take one more, for their gates."""
    model, params0, x = _network()
    task = jd.tasks.from_arrays(x, x[:, :1])

    def products(expand, sampler=jd.full_batch):
        training = jd.Training(
            model, task, optax.sgd(0.1), steps=5, key=jax.random.key(0), params0=params0, expand=expand, sampler=sampler
        )
        whole = jax.make_jaxpr(lambda state: jd.dynamics.advance(training, state, [5])[0])(jd.dynamics.init(training))
        return str(_while(whole.jaxpr).params["body_jaxpr"]).count("dot_general[")

    network = products(jd.exact)
    assert products(jd.models.frozen_gates) == products(jd.models.frozen_gates_on(task.x)) == network
    assert products(jd.models.frozen_gates, jd.minibatch(4)) == network + 1


def test_other_networks_have_no_frozen_gates():
    model = jd.models.mlp((4, 8, 1), activation=jax.nn.relu)
    for expand in (jd.models.frozen_gates, jd.models.frozen_gates_on(jnp.ones((1, 4)))):
        with pytest.raises(TypeError, match=r"models\.quadratic"):
            expand(model.apply, model.init(jax.random.key(0)))


@pytest.mark.parametrize("make", [lambda w: jd.models.two_layer_relu(1, w), jd.models.uv], ids=["two_layer", "uv"])
def test_a_padded_width_is_the_narrow_network(make, x64):
    narrow, padded = make(5), make(jd.models.Width(maximum=9, active=jnp.asarray(5)))
    x = jax.random.normal(jax.random.key(1), (6, 1))
    few, many = narrow.init(jax.random.key(0)), padded.init(jax.random.key(0))
    np.testing.assert_array_equal(many["u"][:, :5], few["u"])
    np.testing.assert_array_equal(many["v"][:5], few["v"])
    np.testing.assert_allclose(padded.apply(many, x), narrow.apply(few, x), rtol=1e-14)
    kernels = [
        jax.jit(lambda params, f=model.apply: jd.geometry.ntk(f, params, x))(params)
        for model, params in ((padded, many), (narrow, few))
    ]
    np.testing.assert_allclose(*kernels, rtol=1e-13, atol=1e-15)


def test_kernels_are_the_limits_of_wide_networks():
    """Mean over 20 seeds at width 500, whose standard error is about 1 % of the diagonal; within 5 %."""
    for model, dim in ((jd.models.two_layer_relu(3, 500), 3), (jd.models.uv(500), 1)):
        x = jax.random.normal(jax.random.key(1), (4, dim))
        empirical = jax.jit(
            jax.vmap(lambda seed, model=model, x=x: jd.geometry.ntk(model.apply, model.init(jax.random.key(seed)), x))
        )(jnp.arange(20))
        ntk = model.kernel(x).ntk
        np.testing.assert_allclose(empirical.mean(axis=0), ntk, atol=0.05 * float(jnp.max(jnp.abs(ntk))))


def test_uv_has_the_kernel_of_paper_6(x64):
    model = jd.models.uv(7)
    params, x = model.init(jax.random.key(0)), jnp.array([[1.0]])
    u, v = np.asarray(params["u"])[0], np.asarray(params["v"])[:, 0]
    np.testing.assert_allclose(model.apply(params, x)[0, 0], v @ u / np.sqrt(7), rtol=1e-14)
    np.testing.assert_allclose(jd.geometry.ntk(model.apply, params, x)[0, 0], (u @ u + v @ v) / 7, rtol=1e-14)
    assert model.kernel(x).ntk[0, 0] == 2


def test_the_general_quadratic_model_has_its_gradient_and_hessian(x64):
    matrices = jax.random.normal(jax.random.key(3), (4, 5, 5))
    matrices = matrices + matrices.transpose(0, 2, 1)
    model = jd.models.general_quadratic(
        5,
        gamma=0.2,
        feature=lambda x: jnp.tanh(x),
        curvature=lambda x, w: jnp.einsum("nd,dpq,q->np", x[:, :4], matrices, w),
    )
    params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (3, 5))
    sigma = np.einsum("nd,dpq->npq", x[:, :4], matrices)
    w = np.asarray(params["w"])
    value = np.tanh(x) @ w + 0.1 * np.einsum("p,npq,q->n", w, sigma, w)
    np.testing.assert_allclose(model.apply(params, x)[:, 0], value, rtol=1e-12)
    jacobian = jax.jit(jax.jacobian(lambda w: model.apply({"w": w}, x)[:, 0]))(w)
    np.testing.assert_allclose(jacobian, np.tanh(x) + 0.2 * sigma @ w, rtol=1e-12)
    hessian = jax.jit(jax.hessian(lambda w: model.apply({"w": w}, x)[:, 0]))(w)
    np.testing.assert_allclose(hessian, 0.2 * sigma, atol=1e-12)
    moved = _moved(params, 2.0)
    found = jax.jit(jd.quadratic(model.apply, params))(moved, x)
    np.testing.assert_allclose(found, model.apply(moved, x), rtol=1e-12)


def test_the_pure_quadratic_model_has_a_square_of_the_identity_as_hessian(x64):
    model = jd.models.pure_quadratic(6, gamma=0.3)
    x, w = jnp.array([[3.0, 4.0]]), model.init(jax.random.key(0))["w"]
    hessian = jax.jit(jax.hessian(lambda w: model.apply({"w": w}, x)[0, 0]))(w)
    np.testing.assert_allclose(hessian @ hessian, (0.3 * 5) ** 2 * np.eye(6), atol=1e-13)
    assert abs(np.trace(hessian)) < 1e-13
    assert not np.any(jax.jit(jax.grad(lambda w: model.apply({"w": w}, x)[0, 0]))(jnp.zeros(6)))


def test_quadratic_models_have_no_infinite_width_kernel():
    with pytest.raises(ValueError, match="no infinite-width kernel"):
        jd.models.pure_quadratic(4, gamma=0.1).kernel(jnp.ones((1, 2)))


def test_bad_sizes_and_shapes_are_refused():
    with pytest.raises(ValueError, match="`width` is a positive integer"):
        jd.models.uv(0)
    with pytest.raises(ValueError, match="`dim` is a positive integer"):
        jd.models.two_layer_relu(0, 4)
    with pytest.raises(ValueError, match="`num_params`"):
        jd.models.pure_quadratic(-1, gamma=1.0)
    model = jd.models.two_layer_relu(3, 4)
    with pytest.raises(ValueError, match="dimension 3"):
        model.apply(model.init(jax.random.key(0)), jnp.ones((2, 4)))
    wrong = jd.models.general_quadratic(3, gamma=1.0, feature=lambda x: x, curvature=lambda x, w: x)
    with pytest.raises(ValueError, match=r"feature\(x\)"):
        wrong.apply(wrong.init(jax.random.key(0)), jnp.ones((2, 4)))
