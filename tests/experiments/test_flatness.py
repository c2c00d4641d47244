"""The flatness experiment: its horizons and rates, and verdicts that follow made-up data."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import xarray as xr

import jaxdyn as jd
from jaxdyn.experiments import flatness

TOY = flatness.Config(8, 2, 20, 20, (0.5, 1.0, 3.0), 12, 4.0)


def _made_up(*, drift=0.0, above=1.5, gain=0.05, edge=12.0, soon=5, config=flatness.PRESETS["laptop"]):
    """Runs whose curvature is λ_0 = 1 below 2, and min(1, above/η) above it from step `soon` on; accuracy gains above 2."""
    rate = xr.DataArray(np.asarray(config.rates), dims="rate")
    seed = xr.DataArray(0.01 * np.array([0.3, -1.0, 0.1, 0.8, -0.4]), dims="seed")
    times = sorted({*range(51), *flatness.horizon(config).tolist(), config.steps})
    step, probe = xr.DataArray(np.arange(config.steps + 1), dims="step"), xr.DataArray(times, dims="probe_step")
    c = jd.losses.half_mean.c(config.num_train, 1)
    curvature = xr.where((rate > 2) & (probe >= soon), above / rate, 1 + drift * (probe > 0)) * np.exp(0 * seed) / c
    loss = xr.where(step == 0, 1.0, xr.where((step < 4) & (rate > 2), 5.0, 0.1)) + 0 * seed + 0 * rate
    is_wild = rate > edge
    accuracy = 0.8 + gain * (rate > 2) + seed + 0 * probe
    data = {
        "loss": loss.where(~is_wild | (step < 3), np.inf),
        "curvature": curvature,
        "accuracy": accuracy,
        "test_loss": 1 - accuracy + 0.3,
        "learning_rate": (rate + 0 * seed).expand_dims(start=[0]),
        "diverged_at": xr.where(is_wild, 3, -1) + (0 * seed).astype(int),
    }
    coords = {"rate": np.asarray(config.rates), "seed": np.arange(5), "step": step.values, "probe_step": times}
    return xr.Dataset(data, coords, {"config": json.dumps(dataclasses.asdict(config))})


def _verdicts(**changes):
    return {one.id: str(one.verdict) for one in flatness.claims(_made_up(**changes))}


@pytest.fixture(scope="module")
def toy():
    return flatness.run(TOY).load()


def test_the_dataset_has_the_documented_variables(toy):
    assert toy.loss.transpose("rate", "seed", "step").shape == (3, 2, 13)
    np.testing.assert_array_equal(toy.probe_step, np.arange(13))
    assert ((toy.accuracy >= 0) & (toy.accuracy <= 1)).all()
    found = flatness.measures(toy)
    at = toy.curvature.sel(rate=0.5).isel(seed=0)
    expected = at.sel(probe_step=8) / at.sel(probe_step=0)  # 4.0/0.5 steps
    np.testing.assert_allclose(found.kept.sel(rate=0.5, horizon="time").isel(seed=0), expected, rtol=1e-6)
    np.testing.assert_allclose(
        found.relative.sel(rate=1.0, horizon="steps").isel(seed=0),
        (toy.learning_rate.isel(start=0) * toy.curvature.sel(probe_step=12) / 20).sel(rate=1.0).isel(seed=0),
        rtol=1e-6,
    )


def test_learning_rates_are_relative_to_the_curvature_of_paper_6(toy):
    relative = (toy.learning_rate.isel(start=0) * toy.curvature.sel(probe_step=0) / 20).transpose("seed", "rate")
    np.testing.assert_allclose(relative, np.broadcast_to(TOY.rates, (2, 3)), rtol=1e-4)


def test_the_task_is_the_parity_of_all_digits():
    task = flatness.parity(flatness.PRESETS["ci"])
    assert task.x.shape == (64, 64)
    assert task.x_test.shape == (200, 64)
    assert set(np.unique(task.y)) == {-1.0, 1.0}
    digits = jd.tasks.digits(classes=tuple(range(10)), n=64, n_test=200, key=jax.random.key(0))
    is_even = np.argmax(digits.y, axis=1) % 2 == 0
    np.testing.assert_array_equal(task.y[:, 0], np.where(is_even, 1.0, -1.0))


def test_verdicts_follow_the_data():
    good = _verdicts()
    assert set(good.values()) == {"supported"}, good
    assert len(good) == 10
    bad = _verdicts(drift=0.5, above=2.5, gain=-0.05, edge=4.5, soon=40)
    for claim in ("C6.1/steps", "C6.1/time", "C6.2", "C6.2/soon", "C6.3/steps", "C6.3/time", "C6.3/loss", "edge"):
        assert bad[claim] == "not supported", claim
    assert bad["C6.1/rate"] == "supported"


def test_the_best_rate_is_chosen_without_the_seed_it_is_measured_on():
    """Pure noise: the maximum over many rates would gain, the choice by the other seeds does not."""
    rng = np.random.default_rng(0)
    rates = np.concatenate([[1.0], np.linspace(2.2, 4.0, 40)])
    score = xr.DataArray(rng.normal(size=(41, 200)), dims=("rate", "seed"), coords={"rate": rates})
    gain = flatness.best(score, xr.ones_like(score, dtype=bool))
    assert abs(gain.mean()) < 4 * np.sqrt(2 / 200)
    only = xr.DataArray([[1.0, 2.0], [5.0, 7.0]], dims=("rate", "seed"), coords={"rate": [1.0, 3.0]})
    np.testing.assert_array_equal(flatness.best(only, only > 0), [4.0, 5.0])
    assert np.isnan(flatness.best(only, only < 3)).all()  # nothing trains above


def test_a_time_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="lower `time`"):
        flatness.ensemble(dataclasses.replace(TOY, time=40.0))


def test_the_figure_draws():
    page = flatness.figure(_made_up())
    assert len(page.axes) == 4
    assert all(axes.has_data() for axes in page.axes)


@pytest.mark.slow
def test_the_paper_preset_lowers_for_accelerators_at_full_precision():
    function, loop, vmap = flatness.ensemble(flatness.PRESETS["paper"])
    plan = jd.ensemble.plan(function, loop=loop, vmap=vmap)
    assert sum(cell.num_members for cell in plan.cells) == 17 * 8
    for traced in plan.programme(plan.cells[0]).traced:
        text = traced.lower(lowering_platforms=("cuda", "tpu")).as_text()
        assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)


def test_the_paper_preset_fits_its_steps():
    function, loop, vmap = flatness.ensemble(flatness.PRESETS["paper"])
    assert loop == {}
    assert len(vmap["rate"]) * len(vmap["seed"]) == 17 * 8
    assert flatness.horizon(flatness.PRESETS["paper"]).tolist()[:3] == [320, 160, 80]
    assert callable(function)
