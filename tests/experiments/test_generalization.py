"""The generalization experiment: its linear models are those of a simulation, its choice of rates is fair, its verdicts follow the data."""

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
from jaxdyn.experiments.generalization import measure, sweep

TEST_LOSS = experiments.load("generalization")
TOY = sweep.Config(("digits", "mnist"), "digits", (), 8, 32, 20, 16, 8, 2, (1.0, 1.8, 2.2, 2.6), 3, 10, 5)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A run of networks and linear models; the quadratic ones borrow the networks' numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXDYN_DATA", str(tmp_path_factory.mktemp("nothing")))
        patch.setattr(sweep, "MODELS", ("network", "linear"))
        run = TEST_LOSS.run(TOY, store=tmp_path_factory.mktemp("generalization") / "toy.zarr").load()
    borrowed = run.sel(model=["network"]).assign_coords(model=["quadratic"])
    return xr.concat([run, borrowed], dim="model", combine_attrs="override")


def test_the_dataset_has_the_documented_variables(toy):
    assert toy.panel.values.tolist() == ["digits"]
    assert toy.test_loss.transpose("panel", "model", "rate", "seed", "step").shape == (1, 3, 4, 3, 3)
    assert np.isnan(toy.test_loss.sel(model="linear")).all()
    assert np.isfinite(toy.linear_test_loss.sel(model="linear")).all()


def test_closed_form_of_the_linear_model_is_its_simulation(toy):
    run = sweep.ensemble(TOY)[0]

    @jax.jit
    def simulated(rate, seed):
        looks = {"loss": jd.probes.Loss(), "test_loss": jd.probes.TestLoss(), "accuracy": jd.probes.Accuracy()}
        record = jd.record(jd.every(TOY.every), **looks)
        one = dataclasses.replace(run("digits", "network", rate, seed), expand=jd.linear, record=record)
        return jd.train(one).values

    for index, rate in enumerate(TOY.rates):
        expected = simulated(rate, 1)
        for name, values in expected.items():
            found = toy[f"linear_{name}"].sel(panel="digits", model="linear").isel(start=0, seed=1, rate=index)
            np.testing.assert_allclose(found.values, values, rtol=2e-3, atol=1e-3)


@pytest.mark.slow
def test_every_variant_runs(tmp_path, monkeypatch):
    """With the whole training set as its batch, the panel `sgd` is the one without, for all three models."""
    monkeypatch.setenv("JAXDYN_DATA", str(tmp_path))
    config = dataclasses.replace(TOY, variants=sweep.VARIANTS, rates=(1.0, 1.8, 2.2), seeds=2)
    dataset = TEST_LOSS.run(config).load()
    found = measure.curves(dataset)
    assert np.isfinite(found.test_loss).all()
    np.testing.assert_allclose(found.test_loss.sel(panel="digits"), found.test_loss.sel(panel="digits, sgd"), rtol=2e-3)
    assert len(TEST_LOSS.verdicts(dataset)) == 6 * 6


def test_curves_are_the_least_losses_along_the_run(toy):
    found = measure.curves(toy)
    here = toy.test_loss.sel(panel="digits", model="network").transpose("rate", "seed", "step").values
    best = found.sel(panel="digits", model="network").transpose("rate", "seed")
    np.testing.assert_array_equal(best.test_loss, here.min(axis=-1))
    np.testing.assert_array_equal(best.step, toy.step.values[here.argmin(axis=-1)])
    accuracy = toy.accuracy.sel(panel="digits", model="network").transpose("rate", "seed", "step").values
    np.testing.assert_array_equal(best.accuracy, np.take_along_axis(accuracy, here.argmin(-1)[..., None], -1)[..., 0])


def test_absent_data_are_left_out_and_named(toy):
    assert "mnist" in json.loads(toy.attrs["left_out"])
    assert json.loads(toy.attrs["data"]) == {
        "digits": {"classes": [3, 8], "coding": "sign", "normalise": "centred", "shape": [8, 8, 1]}
    }
    assert not any("mnist" in one.id for one in TEST_LOSS.verdicts(toy))
    name, what, why = TEST_LOSS.summary(TOY, toy)[-1]
    assert (name, what) == ("mnist", "left out")
    assert "train-images-idx3-ubyte.gz" in why


def _made_up(levels, config=TOY):
    """A dataset with given best test losses {model: [rate]} and noise, constant along the run."""
    noise = 1 + 0.02 * np.random.default_rng(0).normal(size=config.seeds)
    shape = (1, 3, len(config.rates), config.seeds)
    loss = np.stack([np.outer(levels[model], noise) for model in sweep.MODELS])[None]
    accuracy = 1 - loss / 10
    along = (*shape, 1)
    simulated, closed = loss.copy(), loss.copy()
    simulated[:, 1], closed[:, [0, 2]] = np.nan, np.nan
    members = ("panel", "model", "rate", "seed")
    data = {}
    for name, factor in (("loss", 0.1), ("test_loss", 1.0)):
        data[name] = ((*members, "step"), (factor * simulated).reshape(along))
        data[f"linear_{name}"] = ((*members, "start", "time"), (factor * closed).reshape(*shape, 1, 1))
    data["accuracy"] = ((*members, "step"), np.where(np.isnan(simulated), np.nan, accuracy).reshape(along))
    data["linear_accuracy"] = (
        (*members, "start", "time"),
        np.where(np.isnan(closed), np.nan, accuracy).reshape(*shape, 1, 1),
    )
    coords = {"panel": ["digits"], "model": list(sweep.MODELS), "rate": list(config.rates), "step": [10]}
    attrs = {"config": json.dumps(dataclasses.asdict(config)), "left_out": "{}"}
    return xr.Dataset(data, {**coords, "seed": np.arange(config.seeds)}, attrs)


def _verdicts(levels):
    return {one.id: one for one in TEST_LOSS.verdicts(_made_up(levels))}


def test_verdicts_follow_the_data():
    falling, rising = [1.0, 0.9, 0.7, 0.8], [1.0, 0.9, 3.0, 9.0]
    found = _verdicts({"network": falling, "linear": rising, "quadratic": falling})
    assert {str(one.verdict) for one in found.values()} == {"supported"}
    assert len(found) == 6
    opposite = _verdicts({"network": [1.5, 1.4, 3.0, 9.0], "linear": falling, "quadratic": rising})
    assert {name: str(one.verdict) for name, one in opposite.items()} == {
        "C1.7/digits/same/network": "not supported",
        "C1.7/digits/same/quadratic": "supported",
        "C1.7/digits/network": "not supported",
        "C1.7/digits/quadratic": "not supported",
        "C1.7/digits/linear": "not supported",
        "C6.3/digits": "not supported",
    }


def test_notes_name_losses_and_rates():
    note = _verdicts({model: [1.0, 0.5, 0.25, 0.4] for model in sweep.MODELS})["C1.7/digits/network"].note
    assert "0.5" in note
    assert "at η_rel = 1.8 below" in note
    assert "at η_rel = 2.2 above" in note
    assert "2 of 2 rates above are better" in note


BOUNDS = {
    "C1.7/*/same": "95 % interval within [0.9, 1.1]",
    "C1.7/*/network": "95 % interval at most 1",
    "C1.7/*/quadratic": "95 % interval at most 1",
    "C1.7/*/linear": "95 % interval at least 1",
    "C6.3": "95 % interval at least 0",
}


def test_criteria_are_those_written_down():
    assert planting.bounds(TEST_LOSS) == BOUNDS


@pytest.mark.parametrize(
    ("above", "same", "outcome"),
    [
        (
            {"network": 0.7, "linear": 1.6, "quadratic": 0.8},
            {"network": (1.02, 0.97), "quadratic": (1.0, 1.03)},
            "supported",
        ),
        (
            {"network": 1.4, "linear": 0.6, "quadratic": 1.3},
            {"network": (1.0, 1.3), "quadratic": (0.7, 0.95)},
            "not supported",
        ),
    ],
)
def test_planted_ratios_are_found_with_the_scatter_of_seeds(above, same, outcome):
    """Every seed has a level of its own; a worst rate, of two, has a ratio of its own."""
    config = dataclasses.replace(TOY, seeds=8)
    fake, level = _made_up(dict.fromkeys(sweep.MODELS, [1.0] * 4), config), np.exp(np.arange(8.0) / 4)
    ratios, worst = {}, {}
    for number, (model, ratio) in enumerate(above.items()):
        below = np.array(same.get(model, (1.0, 1.0)))
        noise = 0.02 * np.random.default_rng(number).normal(size=(4, 8))
        logs = (
            np.log([*(below * [1.0, 1.1]), ratio * below[0], 3 * ratio])[:, None]
            + noise
            - noise.mean(axis=1, keepdims=True)
        )
        name = "linear_test_loss" if model == "linear" else "test_loss"
        losses = (level * np.exp(logs))[None]
        fake[name].loc[{"model": model}] = losses.reshape(fake[name].sel(model=model).shape)
        ratios[model] = logs
        worst[model] = int(np.argmax(np.abs(np.log(below))))
    found = {one.id: one for one in TEST_LOSS.verdicts(fake)}
    for model in sweep.MODELS:
        one, best = found[f"C1.7/digits/{model}"], int(np.argmin(ratios[model][:2].mean(axis=1)))
        expected = np.exp(mean_interval(ratios[model][2] - ratios[model][best]))
        np.testing.assert_allclose((one.estimate, one.low, one.high), expected, rtol=1e-6)
        assert str(one.verdict) == outcome
        if model != "linear":
            one, at = found[f"C1.7/digits/same/{model}"], worst[model]
            expected = np.exp(mean_interval(ratios[model][at] - ratios["linear"][at]))
            np.testing.assert_allclose((one.estimate, one.low, one.high), expected, rtol=1e-6)
            assert str(one.verdict) == outcome
            assert one.note == f"at η_rel = {TOY.rates[at]:g}"


def test_choosing_the_best_rate_favours_nobody():
    """Of many equal rates with independent noise, the least is below the mean; the choice of the other seeds is not."""
    rng = np.random.default_rng(1)
    found, least = [], []
    for _ in range(300):
        noise = rng.normal(size=(8, 5))
        array = xr.DataArray(noise, dims=("rate", "seed"), coords={"rate": np.arange(8.0)})
        found.append(measure._best(array).values.mean())
        least.append(noise.mean(axis=1).min())
    assert abs(np.mean(found)) < 0.1
    assert np.mean(least) < -0.5


def test_the_figure_draws(toy):
    page = TEST_LOSS.figure(toy)
    drawn = [axes for axes in page.axes if axes.get_visible()]
    assert len(drawn) == 2
    assert all(axes.has_data() for axes in drawn)


def test_settings_without_their_data_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDYN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python\.tar\.gz"):
        sweep.ensemble(dataclasses.replace(TOY, data=("digits", "cifar-2"), studied="cifar-2", variants=("sgd",)))
    with pytest.raises(ValueError, match="no data set 'imagenet'"):
        sweep.ensemble(dataclasses.replace(TOY, data=("imagenet",)))


def test_variants_run_on_the_first_data_set_where_the_studied_one_is_not_asked_for():
    config = dataclasses.replace(TOY, data=("polynomial",), variants=("sgd",))
    assert sweep.ensemble(config)[1]["panel"] == ["polynomial", "polynomial, sgd"]


def test_the_paper_preset_lowers_for_accelerators_at_full_precision():
    paper = dataclasses.replace(sweep.PRESETS["paper"], data=("polynomial",), studied="polynomial")
    function, loop, vmap = sweep.ensemble(paper)
    assert len(loop["panel"]) == 6
    plan = jd.ensemble.plan(function, loop={**loop, "panel": ["polynomial"], "model": ["quadratic"]}, vmap=vmap)
    for traced in plan.programme(plan.cells[0]).traced:
        for platform in ("cuda", "tpu"):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)
