"""The width experiment: its presets can be planned and lowered for accelerators, its verdicts follow the data."""

import dataclasses

import jax
import numpy as np
import pytest
import xarray as xr
from experiments import planting

import jaxdyn as jd
from jaxdyn import experiments
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments.width import measure, sweep

WIDTH = experiments.load("width")
TOY = sweep.Config((4, 8, 16), 3, (1,), (3, 8), 16, 8, 5, 1.0, 3)


@pytest.fixture(scope="module")
def toy():
    return WIDTH.run(TOY)


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
    rate = sweep.learning_rate(TOY, sweep.network(1, 1).kernel(task.x).ntk)
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
    config = dataclasses.replace(sweep.PRESETS["ci"], seeds=4, steps=20, num_records=3)
    function, _, vmap = sweep.ensemble(config)
    result = jd.sweep(function, loop={"depth": [2], "expand": {"full": jd.exact}}, vmap=vmap).sel(expand="full")
    task = sweep.task(config)
    rate = sweep.learning_rate(config, sweep.network(2, 1).kernel(task.x).ntk)
    relative = rate * jd.losses.mse.c(config.num_train, 1) * result.curvature
    assert float(relative.sel(width=[64, 128, 256]).max()) < 2


BOUNDS = {
    "W1": "95 % interval at most -0.4",
    "W2": "95 % interval at most -0.4",
    "W3": "95 % interval within [-0.6, -0.4]",
    "W4": "95 % interval at most 1",
    "W5": "95 % interval at most 0",
}


def test_criteria_are_those_written_down():
    assert planting.bounds(WIDTH) == BOUNDS


def _planted(toy, exponents, ratio):
    """The toy's dataset with distances that follow power laws; the quadratic model is worst at the middle width."""
    fake, widths, seeds = toy.copy(deep=True), toy.width.values, toy.sizes["seed"]
    laws = {name: planting.power_law(widths, planting.members(one, seeds)) for name, one in exponents.items()}
    full = measure.kernel_descent(TOY, fake).isel(step=-1).values + laws["infinite"][None, :, :, None, None]
    ratios = np.exp(planting.members(np.log(ratio), seeds)) * np.array([0.3, 1.0, 0.4])[:, None]
    fake["outputs_test"] = fake["outputs_test"].transpose("expand", "step", "depth", "width", "seed", ...).astype(float)
    for name, distance in (
        ("full", 0 * laws["linear"]),
        ("linear", laws["linear"]),
        ("quadratic", ratios * laws["linear"]),
    ):
        fake["outputs_test"].loc[{"expand": name, "step": fake.step[-1]}] = full + distance[None, :, :, None, None]
    for name, step in (("change", 1), ("distance", 0)):  # the largest change is that of some step between
        fake[name] = fake[name].transpose("expand", "step", "depth", "width", "seed").astype(float) * 0
        fake[name].loc[{"expand": "full", "step": fake.step[step]}] = laws[name][None]
    return fake


@pytest.mark.parametrize(
    ("exponents", "ratio", "outcome"),
    [
        ({"change": -0.55, "linear": -0.6, "distance": -0.5, "infinite": -0.3}, 0.5, "supported"),
        ({"change": -0.3, "linear": -0.2, "distance": -0.9, "infinite": 0.2}, 1.5, "not supported"),
    ],
)
def test_planted_numbers_are_found_and_judged(toy, exponents, ratio, outcome):
    seeds = toy.sizes["seed"]
    names = {"W1/1": "change", "W2/1": "linear", "W3/1": "distance", "W5/1": "infinite"}
    planted = {id: planting.members(exponents[name], seeds) for id, name in names.items()}
    verdicts = WIDTH.verdicts(_planted(toy, exponents, ratio))
    worst = next(one for one in verdicts if one.id == "W4/1")
    assert (worst.note, str(worst.verdict)) == ("worst at 8", outcome)
    interval = np.exp(mean_interval(planting.members(np.log(ratio), seeds)))
    np.testing.assert_allclose((worst.estimate, worst.low, worst.high), interval, rtol=1e-6)
    planting.assert_planted([one for one in verdicts if one is not worst], planted, outcome, rtol=1e-6)


def test_the_figure_draws_every_claim(toy):
    page = WIDTH.figure(toy)
    assert len(page.axes) == 6
    assert all(axes.has_data() for axes in page.axes)


def test_verdicts_survive_the_store(toy, tmp_path):
    stored = WIDTH.run(TOY, store=tmp_path / "w.zarr")
    assert WIDTH.verdicts(stored) == WIDTH.verdicts(toy)
    xr.open_zarr(tmp_path / "w.zarr", chunks=None)


def test_a_quadratic_cell_of_the_paper_preset_lowers_for_accelerators_at_full_precision():
    config = dataclasses.replace(sweep.PRESETS["paper"], depths=(2,), widths=(64, 8192))  # its narrowest and widest
    function, _, vmap = sweep.ensemble(config)
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
    function, loop, vmap = sweep.ensemble(sweep.PRESETS["paper"])
    plan = jd.ensemble.plan(function, loop=loop, vmap=vmap, memory=80e9)
    assert sum(cell.num_members for cell in plan.cells) == 2 * 3 * 8 * 16
    assert len({cell.name for cell in plan.cells}) == len(plan.cells)
