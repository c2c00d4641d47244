"""The rates experiment: its brackets are those of closed forms and slow loops, and its verdicts follow the data."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import xarray as xr

import jaxdyn as jd
from jaxdyn.experiments import rates

TOY = rates.Config(8, (8, 16, 32), (1, 2), ("tanh",), ("gaussian", "positive"), (0.9,), 3, 6, 30, 2, 16.0)
BASE = rates.Case("relu", 1, "gaussian", 8)
RUN = [BASE._replace(optimizer="0.9", model="linear").name, BASE._replace(model="quadratic").name]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Two of the cases are run; the others borrow the numbers of the quadratic model."""
    function, loop, vmap = rates.ensemble(TOY)
    attrs = {"experiment": "rates", "config": json.dumps(dataclasses.asdict(TOY))}
    path = tmp_path_factory.mktemp("rates") / "toy.zarr"
    run = jd.sweep(function, loop={"case": RUN}, vmap=vmap, attrs=attrs, store=path).load()
    others = [name for name in loop["case"] if name not in RUN]
    borrowed = [run.sel(case=[RUN[1]]).assign_coords(case=[name]) for name in others]
    return xr.concat([run, *borrowed], dim="case", combine_attrs="override")


def test_grids_avoid_two_and_four_and_end_below_the_top():
    for config in (TOY, *rates.PRESETS.values()):
        grid = rates.ratios(config)
        assert grid[0] > 1
        assert grid[-1] < config.top < grid[-1] * 2 ** (1 / config.per_octave)
        assert np.abs(np.log2(grid[:, None] / np.array([2.0, 4.0]))).min() > 0.4 / config.per_octave


def test_every_rate_is_there_in_both_units(toy):
    one = toy.sel(case=RUN[0]).isel(start=0)
    np.testing.assert_allclose(
        one.relative_rate.transpose("ratio", "seed"), 1.9 * np.tile(rates.ratios(TOY)[:, None], 3), rtol=1e-5
    )
    np.testing.assert_allclose(
        one.relative_rate / one.learning_rate, one.curvature.isel(end=0), rtol=1e-4
    )  # η_rel/η = c λ_max


def test_linear_models_fail_at_the_bound_of_heavy_ball(toy):
    found = rates.maximal(toy).sel(case=RUN[0])
    assert (found.low < 2).all()
    assert (found.high > 2).all()


def test_brackets_of_the_quadratic_model_are_those_of_a_plain_loop(toy):
    """Gradient descent written out, rate by rate, for the first seed."""
    case = rates.cases(TOY)[RUN[1]]
    task, model = rates._task(case.data, TOY.num_train), jd.models.mlp((64, 8, 1), activation=jax.nn.relu)
    params0 = model.init(jax.random.key(0))
    frozen = (np.asarray(task.x) @ np.asarray(params0["dense_0"]["weight"])) > 0
    kernel = float(jd.geometry.kernel_norm(jd.geometry.ntk_blocks(model.apply, params0, task.x)))
    x, y = np.asarray(task.x, float), np.asarray(task.y, float)

    def holds(ratio):
        u, v = (np.asarray(params0[f"dense_{i}"]["weight"], float) for i in range(2))
        losses = []
        for _ in range(TOY.steps + 1):
            h = frozen * (x @ u) / 8
            r = h @ v / np.sqrt(8) - y
            losses.append(np.mean(r**2))
            back = 2 / len(x) * r / np.sqrt(8)
            rate = ratio * len(x) / (2 * kernel)
            u, v = u - rate * x.T @ (frozen * (back @ v.T)) / 8, v - rate * h.T @ back
        return np.isfinite(losses[-1]) and losses[-1] < losses[0]

    with np.errstate(all="ignore"):
        first = next(ratio for ratio in rates.ratios(TOY) if not holds(ratio))
    assert float(rates.maximal(toy).sel(case=RUN[1]).high.isel(seed=0)) == pytest.approx(first)


def _faked(toy, high):
    """The data set with runs that fail from a given ratio on, `{case name: ratio}`."""
    fake = toy.copy(deep=True).load()
    for name, at in high.items():
        last = np.where(toy.ratio.values < at, 0.5, 2.0)
        fake["loss"].loc[{"case": name}] = 1.0
        fake["loss"].loc[{"case": name, "step": TOY.steps}] = xr.DataArray(last, dims="ratio")
        fake["diverged_at"].loc[{"case": name}] = -1
        fake["curvature"].loc[{"case": name}] = 1.0
    return fake


def test_verdicts_follow_the_data(toy):
    known = rates.cases(TOY)
    high = dict.fromkeys(known, 4.0)
    high |= {BASE._replace(hidden=2).name: 13.0, BASE._replace(data="positive").name: 1000.0}
    high |= {name: 2.0 for name, case in known.items() if case.model == "linear"}
    verdicts = {one.id: one for one in rates.claims(_faked(toy, high))}
    outcome = {claim: str(one.verdict) for claim, one in verdicts.items()}
    assert {outcome[claim] for claim in ("R1/gd", "R1/0.9", "D1", "H1", "H3", "H4")} == {"supported"}, outcome
    assert outcome["C6/1 gaussian"] == "not supported"
    assert outcome["C6/2 gaussian"] == "supported"
    assert outcome["C6/1 positive"] == "inconclusive"  # no rate of the grid fails
    assert outcome["D2"] == "inconclusive"  # and the grid of this test ends below 18
    assert np.isinf(verdicts["C6/1 positive"].high)
    swapped = {one.id: str(one.verdict) for one in rates.claims(_faked(toy, dict.fromkeys(known, 6.0)))}
    assert swapped["R1/gd"] == "not supported"
    assert swapped["R2"] == "not supported"
    assert swapped["D2"] == "not supported"


def test_predictions_are_ratios_to_the_quadratic_model(toy):
    fake = toy.copy(deep=True).load()
    spread = xr.DataArray([1.0, 1.2, 0.9], dims="seed")  # of the seeds, the same for both models
    for width in TOY.widths:
        for model, factors in (("network", (3.0, 1.1, 1.05)), ("quadratic", (1.0, 1.0, 1.0))):
            name = BASE._replace(width=width, model=model).name
            for variable, factor in zip(("loss", "curvature", "loss_test"), factors, strict=True):
                fake[variable].loc[{"case": name}] = factor * spread
    ratio = rates.predicted(fake)
    np.testing.assert_allclose(ratio.peak, 3.0, rtol=1e-5)
    np.testing.assert_allclose(ratio.curvature, 1.1, rtol=1e-5)
    verdicts = {one.id: one for one in rates.claims(fake)}
    assert str(verdicts["H5/peak"].verdict) == "not supported"
    assert str(verdicts["H5/curvature"].verdict) == "supported"
    assert "from width 8 on" in verdicts["H5t"].statement
    assert "at no width" in verdicts["H5/peak"].statement


def test_the_figure_draws(toy):
    page = rates.figure(toy)
    assert all(axes.has_data() for axes in page.axes)


@pytest.mark.slow
def test_the_paper_preset_lowers_for_an_accelerator_at_full_precision():
    config = rates.PRESETS["paper"]
    function, _, vmap = rates.ensemble(config)
    plan = jd.ensemble.plan(
        function, loop={"case": [rates.Case("relu", 1, "gaussian", 2048, model="quadratic").name]}, vmap=vmap
    )
    assert plan.cells[0].num_members == len(rates.ratios(config)) * config.seeds
    for traced in plan.programme(plan.cells[0]).traced:
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)
