"""The experiment on optimizers: rates are chosen by training loss alone, budgets are what they say, verdicts follow the data."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest
import xarray as xr
from experiments import planting

import jaxdyn as jd
from jaxdyn import experiments
from jaxdyn.analysis import association
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments.optimizers import measure, sweep

RANKING = experiments.load("optimizers")
TOY = sweep.Config(("momentum",), 4, 24, 8, 3, 6, 12, 2, 4, 0.5)


@pytest.fixture(scope="module")
def toy():
    return RANKING.run(TOY).load()


def test_the_dataset_has_the_documented_variables_and_rates(toy):
    assert dict(toy.loss.sizes) == {"optimizer": 1, "scale": 2, "seed": 3, "step": 4}
    relative = toy.relative_rate.isel(optimizer=0, start=0, seed=1)
    np.testing.assert_allclose(relative, [2.0, 2 * 10**-0.5], rtol=1e-5)
    assert len(np.unique(toy.loss.isel(optimizer=0, step=0, scale=0))) == 3  # a data set for each seed


@pytest.mark.parametrize("name", list(sweep.OPTIMIZERS))
def test_every_optimizer_takes_traced_rates_and_steps_in_proportion(name):
    """Twice the rate is twice the first step: nothing decays the weights behind our back."""
    make, _ = sweep.OPTIMIZERS[name]
    params = {"weight": jax.random.normal(jax.random.key(0), (3, 4))}
    grads = jax.tree.map(jax.numpy.sin, params)

    def step(rate):
        optimizer = make(rate)
        return optimizer.update(grads, optimizer.init(params), params)[0]["weight"]

    small, large = jax.vmap(step)(jax.numpy.array([0.01, 0.02]))
    np.testing.assert_allclose(large, 2 * small, rtol=1e-4)
    assert float(jax.numpy.vdot(small, grads["weight"])) < 0


def test_a_run_is_the_training_it_says(toy):
    """The first seed at the smaller rate, by a plain loop over numpy gradients of the network."""
    task = jd.tasks.polynomial(jax.random.fold_in(jax.random.key(0), 1), degree=2, dim=4, n=24, n_test=24)
    params = jd.models.mlp((4, 8, 1), activation=jax.nn.relu).init(jax.random.key(0))
    first, second = (np.asarray(params[f"dense_{i}"]["weight"], float) for i in range(2))
    rate, speed = float(toy.learning_rate[0, 1, 0, 0]), [0.0, 0.0]

    def forward(x):
        hidden = np.maximum(x @ first / 2, 0)
        return hidden, hidden @ second / 8**0.5

    draw = jax.jit(lambda step: jd.minibatch(6)(task, jd.dynamics.batch_key(jax.random.key(0)), step))
    for step in range(12):
        x, y = (np.asarray(one, float) for one in draw(step))
        hidden, f = forward(x)
        error = 2 / 6 * (f - y)
        grads = x.T @ ((hidden > 0) * (error @ second.T / 8**0.5)) / 2, hidden.T @ error / 8**0.5
        speed = [0.9 * v + g for v, g in zip(speed, grads, strict=True)]
        first, second = first - rate * speed[0], second - rate * speed[1]
    here = toy.isel(optimizer=0, scale=1, seed=0, step=-1)
    np.testing.assert_allclose(
        here.loss, np.mean((forward(np.asarray(task.x))[1] - np.asarray(task.y)) ** 2), rtol=1e-3
    )
    slopes = (forward(np.asarray(task.x_test))[0] > 0) * second[:, 0] @ first.T
    gram, truth = slopes.T @ slopes, np.zeros((4, 4))
    pair = np.asarray(task.x_test)[:, [1, 0]]
    truth[:2, :2] = pair.T @ pair
    cosine = (gram * truth).sum() / np.sqrt((gram**2).sum() * (truth**2).sum())
    np.testing.assert_allclose(here.alignment, cosine, rtol=1e-3)


def fake(names=("sgd", "adam", "lion", "muon"), seeds=6):
    """Losses 4^(−step/10) · (how far the scale is from that of the optimizer): known choice, crossing and ranking."""
    config = dataclasses.replace(TOY, optimizers=names, seeds=seeds, num_rates=3, level=1 / 64)
    coords = {
        "optimizer": list(names),
        "scale": [1.0, 0.3, 0.1],
        "seed": np.arange(seeds),
        "step": np.arange(0, 101, 10),
    }
    ones = xr.DataArray(np.ones([len(values) for values in coords.values()]), coords, list(coords))
    rank = xr.DataArray(np.arange(len(names)), dims="optimizer")
    best = xr.DataArray(1 + np.arange(len(names)) % 2, dims="optimizer")
    away = 1 + abs(xr.DataArray(np.arange(3), dims="scale") - best)
    jitter = xr.DataArray(np.random.default_rng(0).normal(size=seeds), dims="seed")
    loss = ones * away * 4.0 ** (-ones["step"] / 10)
    data = {
        "loss": loss,
        "test": ones * np.exp(-0.5 * rank + 0.1 * jitter - 0.01 * ones["step"]),
        "alignment": ones * (0.5 + 0.1 * rank + 0.01 * jitter),
        "diverged_at": ones.isel(step=0, drop=True).astype(int) * 0 - 1,
    }
    return xr.Dataset(data, attrs={"config": json.dumps(dataclasses.asdict(config))})


def test_rates_are_chosen_by_the_final_training_loss_among_those_that_hold():
    data = fake()
    assert measure.choose(data).values.tolist() == [0.3, 0.1, 0.3, 0.1]
    other = data.assign(test=data.test[..., ::-1] * 7, alignment=-data.alignment)
    assert measure.choose(other).values.tolist() == [0.3, 0.1, 0.3, 0.1]  # the test set is not looked at
    data.diverged_at.loc[{"optimizer": "sgd", "scale": 0.3, "seed": 2}] = 50
    data.diverged_at.loc[{"optimizer": "lion"}] = 50
    found = measure.choose(data)
    assert found.sel(optimizer="sgd") in (1.0, 0.1)
    assert np.isnan(found.sel(optimizer="lion"))


def test_budgets_are_the_last_step_and_the_crossing_of_the_level():
    found = measure.measures(RANKING.config(fake()), fake())
    np.testing.assert_allclose(found["at"].sel(budget="steps"), 100)
    np.testing.assert_allclose(found["at"].sel(budget="loss"), 30)  # 4^-3 = 1/64
    test = found.log_test.mean("seed").sel(optimizer="adam")
    np.testing.assert_allclose(test.sel(budget="loss") - test.sel(budget="steps"), 0.7, rtol=1e-6)


BOUNDS = {
    "C2.6/*/*/means": "95 % interval at most 0",
    "C2.6/*/*/seeds": "95 % interval at most -0.5",
    "O1": "95 % interval at least 1.1",
}


def test_criteria_are_those_written_down():
    assert planting.bounds(RANKING) == BOUNDS


@pytest.mark.parametrize(("sign", "outcome"), [(1, "supported"), (-1, "not supported")])
def test_planted_rankings_are_found_and_judged(sign, outcome):
    """Every seed, and each of the budgets, has noise of its own between ranks of alignment."""
    data = fake(("sgd", "adam", "lion", "muon", "rmsprop", "adagrad"), seeds=8)
    noise = np.random.default_rng(3).normal(size=(2, 6, 8))
    alignment = 0.5 + sign * 0.01 * (np.arange(6)[None, :, None] + 0.7 * noise)  # [budget, optimizer, seed]
    early = data.step <= 50  # the level is crossed at 30
    data["alignment"] = data.alignment * 0 + xr.where(
        early, *(xr.DataArray(a, dims=("optimizer", "seed")) for a in alignment[::-1])
    )
    found = {one.id: one for one in RANKING.verdicts(data)}
    budgets = ("steps", "loss")
    assert set(found) == {
        f"{a}/polynomial/{b}{c}" for b in budgets for a, c in (("C2.6", "/means"), ("C2.6", "/seeds"), ("O1", ""))
    }
    for budget, values in zip(budgets, alignment, strict=True):
        ranks = values.argsort(axis=0).argsort(axis=0)
        numbers = [np.corrcoef(ranks[:, s], -np.arange(6))[0, 1] for s in range(8)]  # the test loss falls with the rank
        one = found[f"C2.6/polynomial/{budget}/seeds"]
        np.testing.assert_allclose((one.estimate, one.low, one.high), mean_interval(numbers), rtol=1e-9)
        assert str(one.verdict) == outcome
        means, log_test = (
            xr.DataArray(values, dims=("optimizer", "seed")),
            np.log(data.test.isel(scale=0, step=0, drop=True)),
        )
        expected = association.ranking(means, log_test.drop_vars(["optimizer", "seed"]), "optimizer", over="seed")
        one = found[f"C2.6/polynomial/{budget}/means"]
        np.testing.assert_allclose((one.estimate, one.low, one.high), expected, atol=1e-9)
        assert np.sign(one.estimate) == -sign


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "supported"), (0.05, "not supported")])
def test_a_planted_spread_of_test_losses_is_found_within_seeds(factor, outcome):
    data, widest = fake(), planting.members(1.5 * factor, 6, scatter=0.05 * factor)
    rank = xr.DataArray(np.arange(4), dims="optimizer", coords={"optimizer": data.optimizer})
    between = xr.DataArray(np.arange(6.0), dims="seed")  # seeds differ far more than the optimizers of a seed
    data["test"] = data.test * 0 + np.exp(between - rank / 3 * xr.DataArray(widest, dims="seed"))
    for one in RANKING.verdicts(data):
        if one.id.startswith("O1"):
            np.testing.assert_allclose((one.estimate, one.low, one.high), np.exp(mean_interval(widest)), rtol=1e-9)
            assert str(one.verdict) == outcome


def test_an_optimizer_that_does_not_arrive_is_left_out_of_the_second_budget_only():
    data = fake()
    data.loss.loc[{"optimizer": "adam", "seed": 1}] = 1.0
    verdicts = {one.id: one for one in RANKING.verdicts(data)}
    assert verdicts["C2.6/polynomial/loss/seeds"].note == "3 optimizers"
    assert verdicts["C2.6/polynomial/steps/seeds"].note == "4 optimizers"


def test_the_figure_draws():
    page = RANKING.figure(fake())
    assert len(page.axes) == 3
    assert all(axes.has_data() for axes in page.axes)


def test_the_paper_preset_lowers_for_accelerators_at_full_precision():
    function, _, vmap = sweep.ensemble(sweep.PRESETS["paper"])
    plan = jd.ensemble.plan(function, loop={"optimizer": ["muon"]}, vmap=vmap)
    assert sum(cell.num_members for cell in plan.cells) == 6 * 16
    for traced in plan.programme(plan.cells[0]).traced:
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)


@pytest.mark.slow
def test_digits_are_compared_with_the_mean_of_several_reference_networks():
    """They are different networks; how little their AGOPs agree is said in the module's docstring."""
    config = dataclasses.replace(TOY, task="digits", num_train=1000, width=16, batch_size=32, steps=50)
    model, pose, points = sweep.problem(config)
    task, truth = pose(jax.random.key(0))
    assert task.x.shape == (1000, 64)
    assert points == 256
    found = sweep.reference(model, task, config)
    assert found.shape == (3, 64, 64)
    np.testing.assert_allclose(truth, np.asarray(found).mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, found.swapaxes(1, 2), rtol=1e-4, atol=1e-5)
    assert max(float(jd.geometry.cosine(found[0], other)) for other in found[1:]) < 0.999
    with pytest.raises(ValueError, match="`polynomial` or `digits`"):
        sweep.problem(dataclasses.replace(config, task="cats"))


def test_the_names_are_optax_ones():
    assert all(name in ("momentum", "muon") or hasattr(optax, name) for name in sweep.OPTIMIZERS)
