"""The width experiment: its presets can be planned and lowered for accelerators, its verdicts follow the data."""

import dataclasses

import jax
import numpy as np
import pytest
import xarray as xr

import jaxdyn as jd
from jaxdyn.experiments import width

TOY = width.Config((4, 8, 16), 3, (1,), (3, 8), 16, 8, 5, 1.0, 3)


@pytest.fixture(scope="module")
def toy():
    return width.run(TOY)


def test_the_dataset_has_the_documented_variables(toy):
    assert toy.loss.dims == ("depth", "expand", "width", "seed", "step")
    assert toy.outputs_test.shape == (1, 3, 3, 3, 3, 8, 1)
    assert np.isfinite(toy.change.sel(expand="full")).all()
    assert toy.attrs["experiment"] == "width"


def test_full_linear_and_quadratic_start_together(toy):
    start = toy.outputs_test.isel(step=0)
    for name in ("linear", "quadratic"):
        np.testing.assert_allclose(start.sel(expand=name), start.sel(expand="full"), atol=1e-5)


def test_the_linear_model_follows_kernel_descent_with_its_own_kernel(toy):
    task = jd.tasks.digits(classes=(3, 8), n=16, n_test=8)
    model = jd.models.mlp((64, 16, 1), activation=jax.numpy.tanh)
    params0 = model.init(jax.random.key(1))
    rate = width._learning_rate(TOY, width._network(1, 1).kernel(task.x).ntk)
    linearized = jd.theory.linearized
    expected = linearized.test_outputs(
        linearized.decompose(jd.geometry.ntk(model.apply, params0, task.x)), model.apply(params0, task.x), task.y,
        linearized.descent(rate, 5), loss=jd.losses.mse, cross=jd.geometry.ntk(model.apply, params0, task.x_test, task.x),
        f0_test=model.apply(params0, task.x_test),
    )  # fmt: skip
    found = toy.outputs_test.sel(depth=1, expand="linear", width=16, seed=1).isel(step=-1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_training_is_sub_critical_for_every_member():
    """η c λ_max(K) stays below 2 along all runs of the smallest preset, so the claims speak of the lazy phase."""
    config = dataclasses.replace(width.PRESETS["ci"], seeds=4, steps=20, num_records=3)
    function, _, vmap = width.ensemble(config)
    result = jd.sweep(function, loop={"depth": [2], "expand": {"full": jd.exact}}, vmap=vmap).sel(expand="full")
    task = width._task(config)
    rate = width._learning_rate(config, width._network(2, 1).kernel(task.x).ntk)
    relative = rate * jd.losses.mse.c(config.num_train, 1) * result.curvature
    assert float(relative.sel(width=[64, 128, 256]).max()) < 2


def test_verdicts_follow_the_data(toy):
    """Distances that are made to fall like 1/m, or not at all, flip the verdicts."""

    def verdicts(power):
        fake = toy.copy(deep=True).load()
        full = fake.outputs_test.sel(expand="full")
        noise = np.exp(0.05 * np.random.default_rng(0).normal(size=(1, 3, 3, 1, 1, 1)))
        shift = fake.width.values.astype(float)[None, :, None, None, None, None] ** power * noise
        for name, size in (("linear", 1.0), ("quadratic", 0.1)):
            fake.outputs_test.loc[{"expand": name}] = full + size * shift
        return {one.id: str(one.verdict) for one in width.claims(fake)}

    fast, flat = verdicts(-1.0), verdicts(0.0)
    assert fast["W2/1"] == "supported"
    assert flat["W2/1"] == "not supported"
    assert fast["W4/1"] == "supported"


def test_the_figure_draws_every_claim(toy):
    page = width.figure(toy)
    assert len(page.axes) == 6
    assert all(axes.has_data() for axes in page.axes)


def test_verdicts_survive_the_store(toy, tmp_path):
    stored = width.run(TOY, store=tmp_path / "w.zarr")
    assert width.claims(stored) == width.claims(toy)
    xr.open_zarr(tmp_path / "w.zarr", chunks=None)


def test_a_quadratic_cell_of_the_paper_preset_lowers_for_accelerators_at_full_precision():
    config = dataclasses.replace(width.PRESETS["paper"], depths=(2,), widths=(64, 8192))  # its narrowest and widest
    function, _, vmap = width.ensemble(config)
    loop = {"depth": [2], "expand": {"quadratic": jd.quadratic}}
    plan = jd.ensemble.plan(function, loop=loop, vmap=vmap, memory=80e9)  # of an accelerator, not of this machine
    widest = next(cell for cell in plan.cells if "8192" in cell.name)
    lowered = [
        traced.lower(lowering_platforms=(platform,)).as_text()
        for traced in plan.programme(widest).traced
        for platform in ("cuda", "tpu")
    ]
    products = ("stablehlo.dot_general", "stablehlo.convolution")
    dots = [line for text in lowered for line in text.splitlines() if any(name in line for name in products)]
    assert dots
    assert all("HIGHEST" in line for line in dots)


@pytest.mark.slow
def test_the_paper_preset_is_planned():
    function, loop, vmap = width.ensemble(width.PRESETS["paper"])
    plan = jd.ensemble.plan(function, loop=loop, vmap=vmap, memory=80e9)
    assert sum(cell.num_members for cell in plan.cells) == 2 * 3 * 8 * 16
    assert len({cell.name for cell in plan.cells}) == len(plan.cells)
