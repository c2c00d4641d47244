"""The search for the largest rate against models whose maximal rate is known: linear (2) and one-example quadratic (4)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd
from jaxdyn.ensemble.compiling import hoist
from jaxdyn.theory import catapult


def _linear_run(loss=jd.losses.mse):
    x = jax.random.normal(jax.random.key(0), (6, 3))
    task = jd.tasks.from_arrays(x, x[:, :1])
    model = jd.models.mlp((3, 1), activation=jnp.tanh)

    def run(lr, seed):
        return jd.Training(model, task, optax.sgd(lr), steps=400, key=jax.random.key(seed), loss=loss)

    return run


@pytest.mark.parametrize("loss", [jd.losses.mse, jd.losses.half_sum], ids=repr)
def test_a_linear_model_trains_up_to_two(loss):
    """Within the tolerance of 1 % of the bracket, and the 1 % by which 400 steps see a slow divergence."""
    found = jd.ensemble.maximal_learning_rate(_linear_run(loss), vmap={"seed": np.arange(3)}, tolerance=0.01)
    assert found.relative_low.dims == ("seed",)
    np.testing.assert_array_less(found.relative_low, 2.02)
    np.testing.assert_array_less(1.98, found.relative_high)
    np.testing.assert_array_less(found.relative_high / found.relative_low, 1.0101)
    np.testing.assert_allclose(found.low * found.curvature, found.relative_low, rtol=1e-6)
    np.testing.assert_allclose(found.high * found.curvature, found.relative_high, rtol=1e-6)
    assert set(found.failure.values) <= {"diverged", "loss"}


@jax.jit
def _ends(rates, start, coupling):
    start = catapult.Example(*(jnp.full(2, part) for part in start))
    return catapult.outcome(rates, start, coupling=coupling, y=0.5, c=1.0, steps=400).final


def test_the_edge_of_one_example_is_that_of_its_exact_map(x64):
    """The bracket holds a rate at which the map, iterated alone, stops converging; the width is vmapped, and 4 is the limit."""
    task = jd.tasks.from_arrays(jnp.ones((1, 3)), jnp.full((1, 1), 0.5))

    def run(lr, width, seed):
        return jd.Training(
            jd.models.two_layer_relu(3, width), task, optax.sgd(lr), steps=400, key=jax.random.key(seed),
            loss=jd.losses.half_sum, expand=jd.models.frozen_gates,
        )  # fmt: skip

    found = jd.ensemble.maximal_learning_rate(
        run, vmap={"width": jd.widths([64, 1024]), "seed": np.arange(2)}, tolerance=1e-3
    )
    assert found.relative_low.dims == ("width", "seed")
    assert (abs(found.relative_low.sel(width=1024) - 4) < 0.2).all()
    for width in (64, 1024):
        coupling = 3 / (width * 3)
        for seed in range(2):
            one = found.sel(width=width, seed=seed)
            params = jd.models.two_layer_relu(3, width).init(jax.random.key(seed))
            h, v = np.maximum(params["u"].sum(axis=0), 0) / np.sqrt(3), np.asarray(params["v"])[:, 0]
            assert one.curvature.item() == pytest.approx((h @ h + ((h > 0) * v**2).sum()) / width, rel=1e-12)
            start = catapult.Example(h @ v / np.sqrt(width), one.curvature.item())
            ends = _ends(np.array([one.low.item(), one.high.item()]), start, coupling)
            held = np.isfinite(ends) & (ends < (start.output - 0.5) ** 2 / 2)
            assert held.tolist() == [True, False]


def test_the_search_is_traced_once_a_loop_value():
    counted = []
    inner = _linear_run()

    def run(lr, seed, steps):
        counted.append(steps)
        return jd.Training(**{**vars(inner(lr, seed)), "steps": steps})

    found = jd.ensemble.maximal_learning_rate(
        run, loop={"steps": [50, 100]}, vmap={"seed": np.arange(2)}, grid=(1.0, 3.0), tolerance=0.2
    )
    assert found.relative_low.sizes == {"steps": 2, "seed": 2}
    assert sorted(counted) == [50, 50, 100, 100]  # the anchor and the body of the search, whatever the rates
    assert int(found.runs.max()) > 4


def test_members_that_run_in_turns_find_the_same_edge():
    together, apart = (
        jd.ensemble.maximal_learning_rate(
            _linear_run(), vmap={"seed": np.arange(3)}, grid=(1.0, 3.0), tolerance=0.1, batch_size=size
        )
        for size in (None, 1)
    )
    np.testing.assert_array_equal(together.relative_low, apart.relative_low)
    np.testing.assert_array_equal(together.failure, apart.failure)


def test_a_network_whose_neurons_turn_off_has_not_trained():
    """All v, u > 0 and f_0 = 1.6 above y = 0.5: a large step turns every gate off, and the loss ends below its start, at y²/2."""
    task = jd.tasks.from_arrays(jnp.ones((1, 1)), jnp.full((1, 1), 0.5))
    model = jd.models.two_layer_relu(1, 20)
    params0 = {"u": jnp.full((1, 20), 0.5), "v": jnp.full((20, 1), 0.7)}

    def run(lr, seed):
        return jd.Training(
            model, task, optax.sgd(lr), steps=200, key=jax.random.key(seed), params0=params0, loss=jd.losses.half_sum
        )

    found = jd.ensemble.maximal_learning_rate(run, vmap={"seed": np.arange(1)}, grid=(0.5, 8.0), tolerance=0.05)
    assert found.failure.item() == "dead"
    assert 0 < found.relative_low.item() < found.relative_high.item() < 8
    final = jd.train(run(found.high.item(), 0)).final.params
    first, last = (jd.losses.half_sum(model.apply(params, task.x), task.y) for params in (params0, final))
    assert last < first  # the loss alone says it trained
    assert jd.geometry.ntk(model.apply, final, task.x)[0, 0] == 0


def test_a_grid_that_holds_throughout_has_no_upper_end():
    found = jd.ensemble.maximal_learning_rate(_linear_run(), vmap={"seed": np.arange(2)}, grid=(0.5, 1.0))
    assert (found.relative_low == 1).all()
    assert np.isinf(found.relative_high).all()
    assert set(found.failure.values) == {"none"}
    assert (found.runs == 2).all()


def test_a_grid_that_starts_too_high_is_searched_downwards():
    found = jd.ensemble.maximal_learning_rate(_linear_run(), vmap={"seed": np.arange(2)}, grid=(16.0,), tolerance=0.01)
    np.testing.assert_allclose(found.relative_high, 2, rtol=0.03)


def test_no_data_is_compiled_in(monkeypatch):
    x = jax.random.normal(jax.random.key(0), (400, 30))
    task = jd.tasks.from_arrays(x, x[:, :1])
    seen = []
    monkeypatch.setattr(hoist, "call", lambda closed, call=hoist.call: seen.append(closed) or call(closed))

    def run(lr, seed):
        return jd.Training(
            jd.models.mlp((30, 1), activation=jnp.tanh), task, optax.sgd(lr), steps=5, key=jax.random.key(seed)
        )

    jd.ensemble.maximal_learning_rate(run, vmap={"seed": np.arange(1)}, grid=(1.0,))
    (closed,) = seen
    assert any(const.shape == (400, 30) for const in closed.consts)
    assert max((np.size(const) for const in hoist._inner_consts(closed.jaxpr)), default=0) <= 128


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"grid": (2.0, 1.0)}, ValueError, "in order"),
        ({"tolerance": 0.0}, ValueError, "tolerance"),
        ({"final_below": 0.0}, ValueError, "final_below"),
        ({"vmap": {}}, ValueError, "at least the seed"),
        ({"vmap": {"lr": np.arange(2.0)}}, TypeError, "cannot be an axis"),
        ({"vmap": {"depth": np.arange(2)}}, TypeError, "does not take the axis `depth`"),
    ],
)
def test_bad_arguments_are_refused(change, error, match):
    with pytest.raises(error, match=match):
        jd.ensemble.maximal_learning_rate(_linear_run(), **{"vmap": {"seed": np.arange(2)}, **change})


def test_a_run_without_the_rate_is_refused():
    with pytest.raises(TypeError, match="as `lr`"):
        jd.ensemble.maximal_learning_rate(lambda seed: None, vmap={"seed": np.arange(2)})
