"""The experiment on mediation: capped, slow and forced runs are what they say, spikes end at the level, verdicts follow the data."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from experiments import planting

import jaxdyn as jd
from jaxdyn import experiments
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments.mediation import arms, measure, sweep

MEDIATION = experiments.load("mediation")
TOY = sweep.Config(4, 24, 8, 3, (4, 8), (4,), (1, 2), 0.9, 0.3, 8, 2)


@pytest.fixture(scope="module")
def toy():
    """One arm alone: every arm is a compilation."""
    function, _, vmap = sweep.ensemble(TOY)
    return jd.sweep(function, loop={"arm": ["capped b = 4"]}, vmap=vmap).load()


@functools.cache
def setting(batch_size=4):
    key = jax.random.key(0)
    task = jd.tasks.polynomial(jax.random.fold_in(key, 1), degree=2, dim=4, n=24, n_test=24)
    model = jd.models.mlp((4, 8, 1), activation=jax.nn.relu)
    params0 = model.init(key)
    critical = jax.jit(lambda at: jd.theory.critical_learning_rate(model.apply, at, task, loss=jd.losses.mse))
    rate = 0.9 * critical(params0)
    return arms.Setting(rate, model, params0, task, jd.minibatch(batch_size), jd.dynamics.batch_key(key))


def jacobian(first, second, x):
    """Gradients of every output in the weights, [n, p], by hand."""
    hidden = np.maximum(x @ first / 2, 0)
    inner = (hidden > 0)[:, None, :] * x[:, :, None] * second[:, 0] / (2 * 8**0.5)
    return hidden @ second / 8**0.5, np.concatenate([inner.reshape(len(x), -1), hidden / 8**0.5], axis=1)


def cap(first, second, x):
    """0.9 of 2/(c λ_max) with c = 2/b."""
    rows = jacobian(first, second, x)[1]
    return 0.9 * len(x) / np.linalg.eigvalsh(rows @ rows.T)[-1]


def test_a_capped_run_is_that_of_a_plain_loop(toy):
    made = setting()
    first, second = (np.asarray(made.params0[f"dense_{i}"]["weight"], float) for i in range(2))
    rates, draw = [], jax.jit(lambda step: made.sampler(made.task, made.key, step))
    for step in range(8):
        x, y = (np.asarray(one, float) for one in draw(step))
        rates.append(min(float(made.rate), cap(first, second, x)))
        f, rows = jacobian(first, second, x)
        move = rates[-1] * 2 / 4 * rows.T @ (f - y)[:, 0]
        first, second = first - move[:32].reshape(4, 8), second - move[32:, None]
    here = toy.isel(arm=0, seed=0)
    f, _ = jacobian(first, second, np.asarray(made.task.x))
    np.testing.assert_allclose(here.loss[-1], np.mean((f - np.asarray(made.task.y)) ** 2), rtol=1e-3)
    np.testing.assert_allclose(here.rate[-1], np.mean(rates), rtol=1e-3)
    assert min(rates) < float(made.rate)  # the cap did something


def test_the_dataset_has_the_documented_variables(toy):
    assert dict(toy.loss.sizes) == {"arm": 1, "seed": 3, "step": 9}
    assert dict(toy.alignment.sizes) == {"arm": 1, "seed": 3, "probe_step": 5}
    np.testing.assert_allclose(toy.relative_rate, 1.8, rtol=1e-5)
    np.testing.assert_allclose(toy.train, toy.loss.sel(step=toy.probe_step), rtol=1e-6)


def test_a_slow_run_has_the_mean_of_the_caps_at_the_anchor():
    made = setting()
    optimizer = arms.slow(made)
    first, second = (np.asarray(made.params0[f"dense_{i}"]["weight"], float) for i in range(2))
    draw = jax.jit(lambda step: made.sampler(made.task, made.key, step)[0])
    batches = (np.asarray(draw(step), float) for step in range(64))
    expected = np.mean([min(float(made.rate), cap(first, second, x)) for x in batches])
    params = {"w": jnp.ones(3)}
    moves, state = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(moves["w"], -expected, rtol=1e-4)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], expected, rtol=1e-4)


def test_arms_are_observations_and_interventions():
    made = sweep.arms(TOY)
    assert sweep.observations(TOY) == ["b = 4", "b = 8", "b = 24"]
    assert list(made) == ["b = 4", "b = 8", "b = 24", "capped b = 4", "slow b = 4", "forced 1", "forced 2"]
    assert [made[name][0] for name in ("b = 24", "capped b = 4", "slow b = 4", "forced 2")] == [24, 4, 4, 24]
    forced = made["forced 2"][1](setting(batch_size=24)).init({"w": jnp.ones(1)} | setting().params0)
    assert forced.curvatures.shape == (2,)


def fake(seeds=8, direct=0.0):
    """Losses that come down to 0.3 at step 10 with a known number of spikes before (and two after); a = 1 + s/2, y = −a − direct · s."""
    config = dataclasses.replace(TOY, seeds=seeds, batch_sizes=(2, 4, 8), capped=(4,), forced=(1,))
    number = {"b = 2": 4, "b = 4": 3, "b = 8": 1, "b = 24": 0, "capped b = 4": 0, "slow b = 4": 1, "forced 1": 2}
    step, rng = np.arange(41), np.random.default_rng(0)
    shape = (len(number), seeds)
    loss, y, a = np.zeros((*shape, 41)), np.zeros(shape), np.zeros(shape)
    for i, (arm, count) in enumerate(number.items()):
        for j in range(seeds):
            own = max(0, count + (int(rng.integers(-1, 2)) if arm in ("b = 2", "b = 4") else 0))
            loss[i, j] = np.where(step < 10, 1.0, 0.1)
            loss[i, j, 1 : 2 * own : 2] = 9.0  # spikes of one step
            loss[i, j, [20, 30]] = 9.0  # after the level
            a[i, j] = 1 + 0.5 * np.log1p(own) + 0.2 * rng.normal()
            y[i, j] = 0.3 * j - a[i, j] - direct * np.log1p(own) + 0.02 * rng.normal()

    def along(values):
        return ("arm", "seed", "probe_step"), np.broadcast_to(values[..., None], (*shape, 41)).copy()

    data = {
        "loss": (("arm", "seed", "step"), loss),
        "train": (("arm", "seed", "probe_step"), loss),
        "log_test": along(y),
        "alignment": along(1 - np.exp(-a)),
        "rate": along(np.ones(shape)),
    }
    coords = {"arm": list(number), "seed": np.arange(seeds), "step": step, "probe_step": step}
    return xr.Dataset(data, coords, {"config": json.dumps(dataclasses.asdict(config))})


def test_spikes_are_counted_until_the_level_is_reached():
    found = measure.measures(MEDIATION.config(fake()), fake())
    assert (found.at > 9).all()
    assert (found.at < 10).all()
    assert found.spikes.sel(arm="b = 24").values.tolist() == [0] * 8
    assert found.spikes.sel(arm="forced 1").values.tolist() == [2] * 8
    np.testing.assert_allclose(found.a.sel(arm="b = 24"), 1, atol=0.8)
    np.testing.assert_allclose(found.s, np.log1p(found.spikes))


def test_what_never_comes_down_has_no_measures():
    data = fake()
    data.train.loc[{"arm": "capped b = 4", "seed": 3}] = 1.0
    found = measure.measures(MEDIATION.config(data), data).sel(arm="capped b = 4", seed=3)
    assert all(np.isnan(found[name]) for name in ("y", "s", "a", "spikes", "at"))
    verdicts = {one.id: one for one in MEDIATION.verdicts(data)}
    assert verdicts["M3/b=4/test"].note == "7 seeds"
    assert verdicts["M4/1/test"].note == "8 seeds"


def test_full_mediation_is_recognised():
    verdicts = {one.id: one for one in MEDIATION.verdicts(fake())}
    for one in verdicts.values():
        assert str(one.verdict) == "supported", one
    np.testing.assert_allclose(verdicts["M4/1/spikes"].estimate, 2)
    np.testing.assert_allclose(verdicts["M4/1/test"].estimate, -0.5 * np.log(3), atol=0.25)


BOUNDS = {
    "M1": "95 % interval at most 0",
    "M2": "95 % interval at least 0.5",
    "M2/direct": "95 % interval within [-0.2, 0.2]",
    "M2/alignment": "95 % interval at most 0",
    "M3/*/spikes": "95 % interval at most 0",
    "M3/*/alignment": "95 % interval at most 0",
    "M3/*/test": "95 % interval at least 0",
    "M3/*/rate": "95 % interval at least 0",
    "M3/*/residual": "95 % interval within [-0.2, 0.2]",
    "M4/*/spikes": "95 % interval at least 0",
    "M4/*/alignment": "95 % interval at least 0",
    "M4/*/test": "95 % interval at most 0",
    "M4/*/residual": "95 % interval within [-0.2, 0.2]",
}


def test_criteria_are_those_written_down():
    assert planting.bounds(MEDIATION) == BOUNDS


@pytest.mark.parametrize(("size", "outcome"), [(1.0, "supported"), (-1.0, "not supported")])
def test_planted_effects_of_the_interventions_are_found_and_judged(size, outcome):
    """Differences within seeds, which differ far more between one another than the arms do."""
    data = fake()
    arms = {"b = 4": 0.0, "capped b = 4": -0.3, "slow b = 4": -0.1, "b = 24": 0.0, "forced 1": 0.4}
    noise = np.random.default_rng(5).normal(scale=0.01, size=(len(arms), 8))
    log_aligned = {
        arm: 2 + np.arange(8.0) + size * (one + e) for (arm, one), e in zip(arms.items(), noise, strict=True)
    }
    for arm, one in log_aligned.items():
        data.alignment.loc[{"arm": arm}] = (1 - np.exp(-one))[:, None]
        data.log_test.loc[{"arm": arm}] = -one[:, None]
    found = {one.id: one for one in MEDIATION.verdicts(data)}
    pairs = {
        "M3/b=4": ("capped b = 4", "b = 4"),
        "M3/b=4/rate": ("capped b = 4", "slow b = 4"),
        "M4/1": ("forced 1", "b = 24"),
    }
    for id, (arm, other) in pairs.items():
        difference = log_aligned[arm] - log_aligned[other]
        names = {"": -difference} if id.endswith("rate") else {"/alignment": difference, "/test": -difference}
        for name, numbers in names.items():
            one = found[id + name]
            np.testing.assert_allclose((one.estimate, one.low, one.high), mean_interval(numbers), rtol=1e-6)
            assert str(one.verdict) == outcome, one


def test_alignment_is_with_the_true_target_at_the_test_inputs(toy):
    """The AGOP of x_1 x_2 by hand: its gradient is (x_2, x_1, 0, 0)."""
    made = setting()
    first, second = (np.asarray(made.params0[f"dense_{i}"]["weight"], float) for i in range(2))
    x = np.asarray(made.task.x_test, float)
    slopes, truth = ((x @ first > 0) * second[:, 0]) @ first.T, np.zeros((4, 4))
    truth[:2, :2] = x[:, [1, 0]].T @ x[:, [1, 0]]
    gram = slopes.T @ slopes
    cosine = (gram * truth).sum() / np.sqrt((gram**2).sum() * (truth**2).sum())
    np.testing.assert_allclose(toy.alignment.isel(arm=0, seed=0, probe_step=0), cosine, rtol=1e-4)


def test_an_effect_around_alignment_is_recognised():
    verdicts = {one.id: one for one in MEDIATION.verdicts(fake(direct=3.0))}
    assert str(verdicts["M1"].verdict) == "supported"
    for claim in ("M2", "M2/direct"):
        assert str(verdicts[claim].verdict) == "not supported", verdicts[claim]


def test_an_intervention_that_acts_otherwise_leaves_a_residual():
    data = fake()
    data.log_test.loc[{"arm": "forced 1"}] -= 1.0
    one = {one.id: one for one in MEDIATION.verdicts(data)}["M4/1/residual"]
    np.testing.assert_allclose(one.estimate, -1, atol=0.1)
    assert str(one.verdict) == "not supported"


def test_the_figure_draws():
    page = MEDIATION.figure(fake())
    assert len(page.axes) == 3
    assert all(axes.has_data() for axes in page.axes)


def test_the_paper_preset_lowers_for_accelerators_at_full_precision():
    function, _, vmap = sweep.ensemble(sweep.PRESETS["paper"])
    plan = jd.ensemble.plan(function, loop={"arm": ["capped b = 8"]}, vmap=vmap)
    assert sum(cell.num_members for cell in plan.cells) == 32
    for traced in plan.programme(plan.cells[0]).traced:
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)
