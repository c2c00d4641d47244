"""The runs of the spikes experiment: its probes are what the library or a plain loop computes, and every row of a preset is fed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments.planted_spikes import TOY

import jaxdyn as jd
from jaxdyn import experiments
from jaxdyn.experiments.spikes import probes, sweep

SPIKES = experiments.load("spikes")


@functools.cache
def _run(*names):
    function, _, vmap = sweep.ensemble(TOY)
    return jd.sweep(function, loop={"descent": list(names)}, vmap=vmap).load()


def _made(seed=6, dim=4, n=12, n_test=12):
    key = jax.random.key(seed)
    task = jd.tasks.polynomial(jax.random.fold_in(key, 1), degree=2, dim=dim, n=n, n_test=n_test)
    model = jd.models.mlp((dim, 12, 1), activation=jax.nn.relu)
    return key, task, model, model.init(key)


def test_the_kernel_probe_is_that_of_the_library():
    here = _run("b=4").sel(descent="b=4", seed=6)
    _, task, model, params = _made()
    kernel = jd.geometry.ntk_blocks(model.apply, params, task.x)
    residual = model.apply(params, task.x) - task.y
    for position, num in enumerate(probes.SUBSPACES):
        expected = jd.geometry.subspace_loss(kernel, residual, num).top
        np.testing.assert_allclose(here.kernel_top.isel(step=0, subspace=position), expected, rtol=1e-3)
    np.testing.assert_allclose(here.kernel_norm.isel(step=0), jd.geometry.kernel_norm(kernel), rtol=1e-4)
    np.testing.assert_allclose(here.relative_rate, 2.0, rtol=1e-6)
    assert here.kernel_residual.isel(step=0) < 1e-5


def test_block_iteration_finds_the_leading_eigenvectors_of_a_clustered_kernel():
    """The spectrum of rank-2 at 256 examples: one large, d close together, a gap."""
    values = np.concatenate([[45.0], np.linspace(10, 4, 20), np.linspace(1.2, 0.1, 235)])
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(256, 256)))[0]
    found, vectors = jax.jit(lambda kernel: probes.leading(kernel, 10))(
        jnp.asarray(basis * values @ basis.T, jnp.float32)
    )
    np.testing.assert_allclose(found, values[:10], rtol=1e-4)
    for num in probes.SUBSPACES:
        angle = np.linalg.norm(basis[:, :num].T @ vectors[:, :num], 2) - 1
        assert abs(angle) < 1e-5
        np.testing.assert_allclose(np.linalg.norm(basis[:, :num].T @ vectors[:, :num]) ** 2, num, rtol=1e-5)


def test_an_event_is_the_step_that_its_batch_makes():
    """η is `margin` times the quantile of the batches' critical rates; each step by hand from the parameters before."""
    here = _run("rare b=4").sel(descent="rare b=4", seed=6)
    key, task, model, params = _made(dim=5, n=16, n_test=0)
    sampler, batches = jd.minibatch(4), jd.dynamics.batch_key(key)

    def loss(at, x, y):
        return jnp.mean((model.apply(at, x) - y) ** 2)

    @jax.jit
    def critical(at, step):
        kernel = jd.geometry.ntk(model.apply, at, sampler(task, batches, step)[0])
        return 4 / jnp.linalg.eigvalsh(kernel)[-1]

    rates = [critical(params, step) for step in range(sweep.CALIBRATION)]
    rate = 0.89 * np.quantile(np.array(rates), 0.05)
    np.testing.assert_allclose(here.learning_rate, rate, rtol=1e-4)
    step_by = jax.jit(jax.value_and_grad(loss))
    for step in range(6):
        x, y = sampler(task, batches, step)
        np.testing.assert_allclose(here.training[step], loss(params, task.x, task.y), rtol=1e-3)
        np.testing.assert_allclose(here.batch_ratio[step], rate / critical(params, step), rtol=1e-3)
        before, grad = step_by(params, x, y)
        params = jax.tree.map(lambda w, g: w - rate * g, params, grad)
        np.testing.assert_allclose(here.batch_growth[step], jnp.log(loss(params, x, y) / before), atol=1e-3)


@pytest.mark.slow
def test_every_descent_has_its_variables(tmp_path):
    toy = SPIKES.run(TOY, store=tmp_path / "toy.zarr").load()
    assert toy.seed.values.tolist() == [5, 6, 7]
    assert np.isfinite(toy.loss.sel(descent=["catapult", "forced 0", "forced 1", "b=4"]).isel(step=slice(0, 3))).all()
    assert np.isfinite(toy.kernel_norm.sel(descent=sweep.traced(TOY)).isel(step=slice(0, 3))).all()
    assert np.isfinite(toy[["training", "batch_ratio", "batch_growth"]].sel(descent="rare b=4").isel(event=0)).all()
    assert toy.curvatures.shape == (5, 3, 1, 1)
    np.testing.assert_allclose(toy.relative_rate.sel(descent="catapult"), 3.0, rtol=1e-6)
    np.testing.assert_allclose(toy.relative_rate.sel(descent="forced 1"), 1.8, rtol=1e-6)
    np.testing.assert_allclose(
        toy.train.sel(descent="forced 1").values, toy.loss.sel(descent="forced 1", step=toy.look).values
    )


@pytest.mark.slow
def test_every_row_of_the_ci_preset_gets_a_number_from_all_seeds():
    """A row that measures nothing is an error of the design."""
    for one in SPIKES.verdicts(SPIKES.run(SPIKES.presets["ci"])):
        assert np.isfinite([one.estimate, one.low, one.high]).all(), str(one)
        assert "left out" not in one.note, str(one)


@pytest.mark.parametrize("preset", SPIKES.presets)
def test_the_presets_are_planned(preset):
    config = SPIKES.presets[preset]
    function, _, vmap = sweep.ensemble(config)
    name = f"rare b={config.batch_sizes[0]}"
    plan = jd.ensemble.plan(function, loop={"descent": [name, f"forced {config.raises}"]}, vmap=vmap)
    assert [cell.num_members for cell in plan.cells] == [config.seeds] * 2


@pytest.mark.slow
@pytest.mark.parametrize("descent", ["b=16", "rare b=16", "forced 2"])
def test_the_paper_preset_lowers_for_accelerators_at_full_precision(descent):
    function, _, vmap = sweep.ensemble(dataclasses.replace(SPIKES.presets["paper"], num_train=64, many=64))
    plan = jd.ensemble.plan(function, loop={"descent": [descent]}, vmap=vmap)
    for traced in plan.programme(plan.cells[0]).traced:
        for platform in ("cuda", "tpu"):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)
