"""The spikes experiment: its kernel probe is that of the library, and its verdicts follow the data."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import xarray as xr
from experiments import planting

import jaxdyn as jd
from jaxdyn import experiments
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments.spikes import sweep

SPIKES = experiments.load("spikes")
TOY = sweep.Config(("fully connected",), (4,), 3, 12, 16, 0.9, 1.5, 1.4, 0.3, 1, 10)
FAKE = dataclasses.replace(TOY, seeds=5, raises=2, steps=80)


def _made_up(share=0.98, growth=1.2, fall=0.8, is_rare=True, jumps=True):
    """Two spikes a run, with a given share of the top, growth of the rest and fall of λ_max; batches before them super-critical."""
    names = list(sweep.descents(FAKE))
    steps, seeds = np.arange(FAKE.steps + 1), np.arange(FAKE.seeds)
    shape = (1, len(names), FAKE.seeds, len(steps))
    loss, rest = np.full(shape, 0.5), np.full(shape, 0.1)
    norm = np.broadcast_to(np.where(steps < 22, 1.0, np.where(steps < 52, fall, fall**2)), shape).copy()
    critical = np.full(shape, 2.0)
    critical[..., 5::10] = 0.5  # super-critical batches without consequences
    noise = 1 + 0.01 * np.random.default_rng(0).normal(size=FAKE.seeds)[None, None, :]
    for start in (20, 50):
        loss[..., start : start + 3] = 5.0
        loss[..., start + 1] = 8.0
        rest[..., start : start + 3] = ((0.1 * growth) * noise)[..., None]
        top = loss[..., start + 1]
        rest[..., start + 1] = top * (1 - share * (1 + 0.001 * (noise - 1))) if growth is None else rest[..., start + 1]
        critical[..., start - 1 : start + 1] = 0.5 if jumps else 2.0
    if not is_rare:
        critical[...] = 0.5
    top = np.repeat((loss - rest)[..., None], len(sweep.SUBSPACES), axis=-1)
    dims = ("network", "descent", "seed")
    curvatures = np.full((*shape[:3], 1, 2), np.nan)
    curvatures[:, 1, :, 0, :] = np.array([4.0, 4.0 * fall]) * noise[0, 0, :, None]
    return xr.Dataset(
        {
            "loss": ((*dims, "step"), loss),
            "kernel_top": ((*dims, "step", "subspace"), top),
            "kernel_norm": ((*dims, "step"), norm * noise[..., None]),
            "critical_rate": ((*dims, "step"), np.where(np.arange(3)[None, :, None, None] < 2, np.nan, critical)),
            "learning_rate": ((*dims, "start"), np.ones((*shape[:3], 1))),
            "curvatures": ((*dims, "end", "raise"), curvatures),
            "diverged_at": (dims, np.full(shape[:3], -1)),
        },
        coords={"network": ["fully connected"], "descent": names, "seed": seeds, "step": steps},
        attrs={"config": json.dumps(dataclasses.asdict(FAKE))},
    )


def _verdicts(**options):
    return {one.id.replace("fully connected/", ""): one for one in SPIKES.verdicts(_made_up(**options))}


def test_verdicts_follow_the_data():
    found = _verdicts()
    assert {str(one.verdict) for one in found.values()} == {"supported"}, [str(one) for one in found.values()]
    np.testing.assert_allclose(found["C2.1/catapult"].estimate, 1 - 0.12 / 8, rtol=1e-3)
    np.testing.assert_allclose(found["C2.1b/b=4"].estimate, 1.2, rtol=1e-2)
    np.testing.assert_allclose(found["C2.2c/b=4"].estimate, np.log(0.8), rtol=1e-2)
    np.testing.assert_allclose(found["C2.3b/raised/2"].estimate, np.log(0.8), rtol=1e-2)


def test_each_claim_can_fail():
    found = _verdicts(growth=20.0, fall=1.3, jumps=False)
    for claim in ("C2.1/catapult", "C2.1b/b=4", "C2.2/b=4", "C2.2b/b=4", "C2.2c/b=4", "C2.3/raised", "C2.3b/raised/2"):
        assert str(found[claim].verdict) == "not supported", found[claim]


BOUNDS = {
    "C2.1": "95 % interval at least 0.9",
    "C2.1b": "95 % interval at most 2",
    "C2.2": "95 % interval at least 1e-06",
    "C2.2b": "95 % interval at least 1e-06",
    "C2.2c": "95 % interval at most -1e-06",
    "C2.3": "95 % interval at most -1e-06",
    "C2.3b": "95 % interval at most -1e-06",
}


def test_criteria_are_those_written_down():
    assert planting.bounds(SPIKES) == BOUNDS


@pytest.mark.parametrize(("rest", "fall", "outcome"), [(0.12, -0.2, "supported"), (2.0, 0.3, "not supported")])
def test_planted_peaks_and_falls_are_found_with_the_scatter_of_seeds(rest, fall, outcome):
    """Each seed has its own rest at the peak and its own change of λ_max; seeds' levels of λ_max are far apart."""
    fake = _made_up(growth=1.0)
    rests, falls = rest * np.exp(planting.members(0.0, 5, 0.1)), planting.members(fall, 5, 0.02)
    top = fake.loss.values - 0.1
    for start in (20, 50):
        top[..., start + 1] = (fake.loss.values - rests[:, None])[..., start + 1]
    fake["kernel_top"] = (fake.kernel_top.dims, np.repeat(top[..., None], len(sweep.SUBSPACES), axis=-1))
    steps, level = np.arange(81), np.exp(np.arange(5.0))
    log_norm = np.log(level)[:, None] + falls[:, None] * ((steps >= 22).astype(float) + (steps >= 52))
    fake["kernel_norm"] = (fake.kernel_norm.dims, np.broadcast_to(np.exp(log_norm), fake.kernel_norm.shape).copy())
    fake.curvatures.loc[{"descent": "raised"}] = (level[:, None] * np.exp(np.outer(falls, [0, 1])))[:, None, :]
    found = {one.id.replace("fully connected/", ""): one for one in SPIKES.verdicts(fake)}
    expected = {f"C2.1/{name}": mean_interval(1 - rests / 8) for name in sweep.descents(FAKE)}
    expected |= {f"C2.1b/{name}": np.exp(mean_interval(np.log(rests / 0.1))) for name in sweep.descents(FAKE)}
    expected |= dict.fromkeys(("C2.3/catapult", "C2.3/raised", "C2.2c/b=4", "C2.3b/raised/2"), mean_interval(falls))
    for id, numbers in expected.items():
        one = found[id]
        np.testing.assert_allclose((one.estimate, one.low, one.high), numbers, rtol=1e-6, err_msg=id)
        assert str(one.verdict) == outcome, str(one)


def test_super_critical_claims_are_measured_by_counting():
    """Of 80 steps 8 are super-critical without a jump and 4 with one: 0.5 → 5 → 8, twice. No other step jumps."""
    found = _verdicts()
    np.testing.assert_allclose(found["C2.2/b=4"].estimate, 4 / 12 - 0 / 68, atol=1e-9)
    assert "15.0% of the steps" in found["C2.2/b=4"].note
    always = _verdicts(is_rare=False)["C2.2/b=4"]
    assert str(always.verdict) == "inconclusive"  # no other steps to compare with


def _run(descents):
    function, _, vmap = sweep.ensemble(TOY)
    return jd.sweep(function, loop={"network": ["fully connected"], "descent": descents}, vmap=vmap)


def test_the_kernel_probe_is_that_of_the_library():
    toy = _run(["b=4"])
    task = jd.tasks.digits(classes=(3, 8), n=12, n_test=0, shape=(8, 8, 1))
    model = sweep.model_of(TOY, "fully connected")
    params = model.init(jax.random.key(1))
    here = toy.sel(network="fully connected", descent="b=4", seed=1).isel(step=0)
    kernel = jd.geometry.ntk_blocks(model.apply, params, task.x)
    residual = model.apply(params, task.x) - task.y
    for position, num in enumerate(sweep.SUBSPACES):
        expected = jd.geometry.subspace_loss(kernel, residual, num).top
        np.testing.assert_allclose(here.kernel_top.isel(subspace=position), expected, rtol=1e-3)
    np.testing.assert_allclose(here.kernel_norm, jd.geometry.kernel_norm(kernel), rtol=1e-4)
    np.testing.assert_allclose(here.relative_rate, 1.8, rtol=1e-6)
    assert np.isfinite(toy.critical_rate).all()


@pytest.mark.slow
def test_every_descent_has_its_variables(tmp_path):
    toy = SPIKES.run(TOY, store=tmp_path / "toy.zarr").load()
    assert np.isfinite(toy.loss).all()
    assert np.isfinite(toy.critical_rate.sel(descent="b=4")).all()
    assert toy.critical_rate.sel(descent="raised").isnull().all()
    assert toy.curvatures.sel(descent="raised").shape == (1, 3, 1, 1)
    np.testing.assert_allclose(toy.relative_rate.sel(descent="catapult"), 3.0, rtol=1e-6)


def test_summary_and_figure_show_every_descent():
    fake = _made_up()
    heading, *rows = SPIKES.summary(FAKE, fake)
    assert [row[1] for row in rows] == ["catapult", "raised", "b=4"]
    assert all(len(row) == len(heading) for row in rows)
    assert all(axes.has_data() for axes in SPIKES.figure(fake).axes)


@pytest.mark.parametrize("network", sweep.NETWORKS)
def test_networks_take_the_images(network):
    config = dataclasses.replace(TOY, width=32)
    model = sweep.model_of(config, network)
    x = jax.ShapeDtypeStruct((3, 8, 8, 1), np.float32)
    assert jax.eval_shape(model.apply, jax.eval_shape(model.init, jax.random.key(0)), x).shape == (3, 1)


def test_the_paper_preset_is_planned():
    function, _, vmap = sweep.ensemble(sweep.PRESETS["paper"])
    plan = jd.ensemble.plan(function, loop={"network": ["fully connected"], "descent": ["b=16"]}, vmap=vmap)
    assert [cell.num_members for cell in plan.cells] == [16]


@pytest.mark.slow
def test_the_paper_preset_lowers_for_accelerators_at_full_precision():
    function, _, vmap = sweep.ensemble(dataclasses.replace(sweep.PRESETS["paper"], num_train=64))
    plan = jd.ensemble.plan(function, loop={"network": ["convolutional"], "descent": ["b=16"]}, vmap=vmap)
    for traced in plan.programme(plan.cells[0]).traced:
        for platform in ("cuda", "tpu"):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)
