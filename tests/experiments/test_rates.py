"""The rates experiment: its brackets are those of closed forms and slow loops, and its verdicts follow the data."""

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
from jaxdyn.experiments.rates import measure, sweep

RATES = experiments.load("rates")
TOY = sweep.Config(8, (8, 16, 32), (1, 2), ("tanh",), ("gaussian", "positive"), (0.9,), 3, 6, 30, 2, 16.0)
BASE = sweep.Case("relu", 1, "gaussian", 8)
RUN = [BASE._replace(optimizer="0.9", model="linear").name, BASE._replace(model="quadratic").name]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Two of the cases are run; the others borrow the numbers of the quadratic model."""
    function, loop, vmap = sweep.ensemble(TOY)
    attrs = {"experiment": "rates", "config": json.dumps(dataclasses.asdict(TOY))}
    path = tmp_path_factory.mktemp("rates") / "toy.zarr"
    run = jd.sweep(function, loop={"case": RUN}, vmap=vmap, attrs=attrs, store=path).load()
    others = [name for name in loop["case"] if name not in RUN]
    borrowed = [run.sel(case=[RUN[1]]).assign_coords(case=[name]) for name in others]
    return xr.concat([run, *borrowed], dim="case", combine_attrs="override")


def test_grids_avoid_two_and_four_and_end_below_the_top():
    for config in (TOY, *sweep.PRESETS.values()):
        grid = sweep.ratios(config)
        assert grid[0] > 1
        assert grid[-1] < config.top < grid[-1] * 2 ** (1 / config.per_octave)
        assert np.abs(np.log2(grid[:, None] / np.array([2.0, 4.0]))).min() > 0.4 / config.per_octave


def test_every_rate_is_there_in_both_units(toy):
    one = toy.sel(case=RUN[0]).isel(start=0)
    np.testing.assert_allclose(
        one.relative_rate.transpose("ratio", "seed"), 1.9 * np.tile(sweep.ratios(TOY)[:, None], 3), rtol=1e-5
    )
    np.testing.assert_allclose(
        one.relative_rate / one.learning_rate, one.curvature.isel(end=0), rtol=1e-4
    )  # η_rel/η = c λ_max


def test_linear_models_fail_at_the_bound_of_heavy_ball(toy):
    found = measure.maximal(toy).sel(case=RUN[0])
    assert (found.low < 2).all()
    assert (found.high > 2).all()


def test_brackets_of_the_quadratic_model_are_those_of_a_plain_loop(toy):
    """Gradient descent written out, rate by rate, for the first seed."""
    case = sweep.cases(TOY)[RUN[1]]
    task, model = sweep._task(case.data, TOY.num_train), jd.models.mlp((64, 8, 1), activation=jax.nn.relu)
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
        first = next(ratio for ratio in sweep.ratios(TOY) if not holds(ratio))
    assert float(measure.maximal(toy).sel(case=RUN[1]).high.isel(seed=0)) == pytest.approx(first)


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
    known = sweep.cases(TOY)
    high = dict.fromkeys(known, 4.0)
    high |= {BASE._replace(hidden=2).name: 13.0, BASE._replace(data="positive").name: 1000.0}
    high |= {name: 2.0 for name, case in known.items() if case.model == "linear"}
    verdicts = {one.id: one for one in RATES.verdicts(_faked(toy, high))}
    outcome = {claim: str(one.verdict) for claim, one in verdicts.items()}
    assert {outcome[claim] for claim in ("D1", "H1", "H3", "H4")} == {"supported"}, outcome
    assert {(verdicts[f"R1/{one}"].note, outcome[f"R1/{one}"]) for one in ("gd", "0.9")} == {("3 of 3", "inconclusive")}
    assert outcome["C6/1 gaussian"] == "not supported"
    assert outcome["C6/2 gaussian"] == "supported"
    assert outcome["C6/1 positive"] == "inconclusive"  # no rate of the grid fails
    assert outcome["D2"] == "inconclusive"  # and the grid of this test ends below 18
    assert np.isinf(verdicts["C6/1 positive"].high)
    swapped = {one.id: str(one.verdict) for one in RATES.verdicts(_faked(toy, dict.fromkeys(known, 6.0)))}
    assert swapped["R1/gd"] == "inconclusive"  # 0 of 3 seeds
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
    ratio = measure.predicted(TOY, fake)
    np.testing.assert_allclose(ratio.peak, 3.0, rtol=1e-5)
    np.testing.assert_allclose(ratio.curvature, 1.1, rtol=1e-5)
    verdicts = {one.id: one for one in RATES.verdicts(fake)}
    assert str(verdicts["H5/peak"].verdict) == "not supported"
    assert str(verdicts["H5/curvature"].verdict) == "supported"
    assert "from width 8 on" in verdicts["H5t"].note
    assert "at no width" in verdicts["H5/peak"].note


BOUNDS = {
    "R1": "95 % interval at least 0.5",
    "R2": "95 % interval within [3.6, 4.4]",
    "C6": "95 % interval within [8, 16]",
    "D1": "95 % interval at most 5",
    "D2": "95 % interval at least 18",
    "D3": "95 % interval at least 10.7",
    "H1": "95 % interval at least 1",
    "H2": "95 % interval at least 1",
    "H3": "95 % interval within [-0.1, 0.1]",
    "H4": "95 % interval at least 1",
    "H5/peak": "95 % interval within [0.8, 1.25]",
    "H5/curvature": "95 % interval within [0.8, 1.25]",
    "H5t": "95 % interval within [0.9, 1.1]",
    "H5s": "95 % interval within [0.9, 1.1]",
    "H6": "95 % interval at most 1",
    "H7": "95 % interval within [0.5, 2]",
}


def test_criteria_are_those_written_down():
    assert planting.bounds(RATES) == BOUNDS


FINE = dataclasses.replace(TOY, per_octave=24, top=60.0)


def _planted(fails):
    """A dataset whose runs fail from given ratios on, `{case: ratio of every seed}`, on a fine grid."""
    grid, known = sweep.ratios(FINE), sweep.cases(FINE)
    shape = (len(known), len(grid), 3)
    loss, high = np.ones((*shape, 3)), np.array([fails[name] for name in known])
    loss[..., 2] = np.where(grid[None, :, None] < high[:, None, :], 0.5, 2.0)
    dims, ends = ("case", "ratio", "seed"), np.ones((*shape, 2))
    data = {
        "loss": ((*dims, "step"), loss), "loss_test": ((*dims, "end"), ends), "curvature": ((*dims, "end"), ends.copy()),
        "diverged_at": (dims, np.full(shape, -1)),
    }  # fmt: skip
    attrs = {"config": json.dumps(dataclasses.asdict(FINE))}
    return xr.Dataset(data, {"case": list(known), "ratio": grid, "seed": np.arange(3), "step": [0, 15, 30]}, attrs)


def _fails(config, linear, quadratic, one, two, positive, tanh, momentum, adam, adam_linear, exponent):
    """Ratios at which each case fails, seeds a few per cent apart."""
    scatter = np.array([0.97, 1.0, 1.03])
    fails = {}
    for name, case in sweep.cases(config).items():
        at = {"linear": linear, "quadratic": quadratic}.get(case.model, one)
        if case.model == "network":
            at = tanh if case.activation == "tanh" else two if case.hidden == 2 else at
            at = positive if case.data == "positive" else at
            at = momentum if case.optimizer == "0.9" else at
            at = at * (case.width / config.width) ** exponent
        if case.optimizer == "adam":
            at = adam_linear if case.model == "linear" else adam
        fails[name] = at * (scatter if case.model == "network" else np.ones(3))
    return fails


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        ((2.0, 4.0, 4.0, 13.0, 24.0, 25.0, 3.0, 8.0, 9.0, 0.0), "supported"),
        ((3.0, 6.0, 7.0, 5.0, 5.0, 4.0, 9.0, 30.0, 5.0, 0.6), "not supported"),
    ],
)
def test_planted_maximal_rates_are_found_and_judged(numbers, outcome):
    fails = _fails(FINE, *numbers)
    found = {one.id: one for one in RATES.verdicts(_planted(fails))}
    base, quadratic = BASE, BASE._replace(width=32, model="quadratic")
    second, positive, adam = base._replace(hidden=2), base._replace(data="positive"), base._replace(optimizer="adam")
    tanh = base._replace(activation="tanh")
    over = {
        "H1": (second, base), "H2/1": (tanh, base), "H2/2": (tanh._replace(hidden=2), second), "H4": (positive, base),
        "H6/0.9": (base._replace(optimizer="0.9"), base), "H7": (adam, adam._replace(model="linear")),
    }  # fmt: skip
    step = 2 ** (1 / FINE.per_octave)
    for id, (case, other) in over.items():
        one, expected = found[id], fails[case.name] / fails[other.name]
        assert str(one.verdict) == outcome, str(one)
        np.testing.assert_allclose(one.estimate, np.exp(np.log(expected).mean()), rtol=step - 1)
        assert one.low <= one.estimate / step**0.9 < one.estimate * step**0.9 <= one.high  # the grid's width is in it
    for id, case in {"R2": quadratic, "D1": base, "D2": positive, "D3": second}.items():
        np.testing.assert_allclose(found[id].estimate, np.exp(np.log(fails[case.name]).mean()), rtol=step - 1)
        assert str(found[id].verdict) == outcome, str(found[id])
    for id in ("R1/gd", "R1/0.9"):
        assert (found[id].estimate, found[id].low < found[id].high) == (float(outcome == "supported"), True)
    np.testing.assert_allclose(found["H3"].estimate, numbers[-1], atol=0.02)
    assert str(found["H3"].verdict) == outcome
    assert str(found["C6/2 gaussian"].verdict) == outcome
    assert str(found["C6/1 gaussian"].verdict) == "not supported"


@pytest.mark.parametrize(("widest", "outcome"), [(1.04, "supported"), (2.0, "not supported")])
def test_planted_foresight_is_judged_at_the_largest_width(widest, outcome):
    fake, seeds = _planted(_fails(FINE, *[4.0] * 9, 0.0)), {}
    for width, ratio in zip(FINE.widths, (3.0, 0.5, widest), strict=True):
        level = np.array([1.0, 5.0, 25.0])  # of the seeds, the same for both models
        seeds[width] = ratio * np.exp([0.004, -0.006, 0.002])
        for model, values in (("network", seeds[width] * level), ("quadratic", level)):
            name = BASE._replace(width=width, model=model).name
            for variable in ("loss", "curvature", "loss_test"):
                fake[variable].loc[{"case": name}] = values[None, :, None]
    found = {one.id: one for one in RATES.verdicts(fake)}
    for id in ("H5/peak", "H5/curvature", "H5t", "H5s"):
        one = found[id]
        np.testing.assert_allclose(
            (one.estimate, one.low, one.high), np.exp(mean_interval(np.log(seeds[32]))), rtol=1e-6
        )
        assert str(one.verdict) == outcome
        assert one.note == ("from width 32 on" if outcome == "supported" else "at no width of the sweep")


def test_the_figure_draws(toy):
    page = RATES.figure(toy)
    assert all(axes.has_data() for axes in page.axes)


@pytest.mark.slow
def test_the_paper_preset_lowers_for_an_accelerator_at_full_precision():
    config = sweep.PRESETS["paper"]
    function, _, vmap = sweep.ensemble(config)
    plan = jd.ensemble.plan(
        function, loop={"case": [sweep.Case("relu", 1, "gaussian", 2048, model="quadratic").name]}, vmap=vmap
    )
    assert plan.cells[0].num_members == len(sweep.ratios(config)) * config.seeds
    for traced in plan.programme(plan.cells[0]).traced:
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)
