"""The spikes experiment: its probes are what the library or a plain loop computes, every row is fed, and its verdicts follow the data."""

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
from jaxdyn.experiments.spikes import events, measure, probes, sweep

SPIKES = experiments.load("spikes")
TOY = sweep.Config((4,), 3, 12, 4, 12, 10, 5, 16, 6, 1, first_seed=5)
FAKE = dataclasses.replace(TOY, seeds=5, raises=2, steps=80, many_steps=1000)
SEEDS, START = np.arange(5), np.exp(np.arange(5.0))  # seeds' levels of λ_max are far apart


def _planted(size=1.0, sharing=10):
    """A dataset on which every claim is true, or with `size` −1 false, and the numbers of the seeds that are planted in it.

    Each spike of the traced descents peaks at 8 with a rest that is a seed's own, and λ_max changes across it by a seed's own factor. In
    each block of 50 steps `sharing` batches are super-critical, and growth is a line in ρ with a slope of the seed's own.
    """
    is_true = size > 0
    names, step = list(sweep.descents(FAKE)), np.arange(FAKE.steps + 1)
    rests = (0.12 if is_true else 2.0) * np.exp(planting.members(0.0, 5, 0.1))
    falls, gains = (size * planting.members(mean, 5, 0.02) for mean in (-0.2, 0.3))
    slopes = {name: size * planting.members(mean, 5, 0.1) for name, mean in (("training", 2.0), ("batch", 5.0))}
    shape = (len(names), 5)

    loss, rest = np.full((*shape, len(step)), 0.5), np.full((*shape, len(step)), 0.1)
    for start in (20, 50):
        loss[..., start : start + 3] = [5.0, 8.0, 5.0]
        rest[..., start + 1] = rests
    heights = np.exp(planting.members(np.log(30.0 if is_true else 1.5), 5, 0.1))
    loss[names.index("forced 1")] = 0.5
    loss[names.index("forced 1"), :, 4] = 100.0  # before the raise
    loss[names.index("forced 1"), :, 70] = 0.5 * heights
    norm = START[:, None] * np.exp(falls[:, None] * ((step >= 22).astype(float) + (step >= 52)))
    curvatures = START[:, None] * np.exp(np.outer(falls, [0, 1]))

    rng, blocks = np.random.default_rng(0), 20
    is_super = rng.permuted(np.broadcast_to(np.arange(50) < sharing, (5, blocks, 50)), axis=-1)
    ratio = np.where(is_super, 1.05, 0.7) + 0.1 * rng.random(is_super.shape)
    within = ratio - ratio.mean(axis=-1, keepdims=True)
    growth = (slopes["training"][:, None, None] * within).reshape(5, -1)
    drift = 0.3 * rng.normal(size=(5, blocks, 1))
    batch = (slopes["batch"][:, None, None] * within + drift).reshape(5, -1)

    look = step[::2]
    arm = np.array([int(name.split()[1]) if name.startswith("forced") else np.nan for name in names])[:, None, None]
    train = np.exp(-0.1 * look + 0.03 * arm) * np.ones((*shape, 1))
    alignment = SEEDS[:, None] + gains[:, None] * arm + 0.01 * np.log(train)
    test = np.exp(SEEDS[:, None] - gains[:, None] * arm) * np.ones(len(look))
    train[..., 2], alignment[..., 2], test[..., 2] = 0.01, 7.0, 7.0  # down for a moment, before the raises
    raises = np.where(look >= 10, arm, 0 * arm) * np.ones((*shape, 1))

    def rare(values):
        full = np.full((*shape, 1001), np.nan)
        full[names.index("rare b=4")] = values
        return ("descent", "seed", "event"), full

    def along(name, values):
        return ("descent", "seed", name), values

    traced = np.isin(names, sweep.traced(FAKE))[:, None, None]
    parts = np.repeat(np.where(traced, loss - rest, np.nan)[..., None], len(probes.SUBSPACES), axis=-1)
    parts[..., -1] = loss  # in P≤10 lies all
    data = {
        "loss": along("step", loss),
        "kernel_top": (("descent", "seed", "step", "subspace"), parts),
        "kernel_norm": along("step", np.where(traced, norm, np.nan)),
        "kernel_residual": along("step", np.where(traced, 1e-7, np.nan) * np.ones_like(loss)),
        "training": rare(np.exp(np.pad(growth.cumsum(axis=-1), ((0, 0), (1, 0))))),
        "batch_ratio": rare(np.pad(ratio.reshape(5, -1), ((0, 0), (0, 1)), constant_values=2.0)),
        "batch_growth": rare(np.pad(batch, ((0, 0), (0, 1)))),
        "train": along("look", train),
        "alignment": along("look", alignment),
        "test": along("look", test),
        "raises": along("look", raises),
        "curvatures": (("descent", "seed", "end", "raise"), np.broadcast_to(curvatures[None, :, None], (*shape, 1, 2))),
        "diverged_at": (("descent", "seed"), np.full(shape, -1)),
    }
    coords = {"descent": names, "seed": 5 + SEEDS, "step": step, "event": np.arange(1001), "look": look}
    fake = xr.Dataset(data, coords, {"config": json.dumps(dataclasses.asdict(FAKE))})
    numbers = {f"C2.1/{name}": 1 - rests / 8 for name in sweep.traced(FAKE)}
    numbers |= {f"C2.1b/{name}": _geometric(rests / 0.1) for name in sweep.traced(FAKE)}
    numbers |= dict.fromkeys(("C2.3/catapult", "C2.3/forced 2", "C2.2c/b=4", "C2.3b/2"), falls)
    numbers |= {"C2.2/dose/b=4": slopes["training"], "C2.2/batch/b=4": slopes["batch"]}
    numbers |= {"C2.2/share/b=4": sharing / 50, "C2.2/events/b=4": float(5 * blocks * min(sharing, 50 - sharing) // 4)}
    own = _counted(growth, ratio.reshape(5, -1))
    numbers |= {
        "C2.2/b=4": own,
        "C2.2/placebo/b=4": own,
    }  # every block has as many of both kinds: shuffled, there is no difference
    for num in (1, 2):
        numbers |= {f"C2.5/alignment/{num}": gains, f"C2.5/test/{num}": -gains}
    numbers |= {"C2.5/catapult/1": _geometric(heights), "C2.5/catapult/2": 16.0}
    return fake, numbers


def _geometric(values):
    return tuple(np.exp(planting.mean_interval(np.log(values))))


def _counted(growth, ratio):
    """P(jump | ρ > 1) − P(jump | ρ ≤ 1) by loops, [seed]."""
    found = []
    for one, rho in zip(growth, ratio, strict=True):
        hit = {True: [], False: []}
        for g, r in zip(one, rho, strict=True):
            hit[bool(r > 1)].append(np.exp(g) > 1.1)
        found.append(np.mean(hit[True]) - np.mean(hit[False]))
    return np.array(found)


BOUNDS = {
    "C2.1": "95 % interval at least 0.9",
    "C2.1b": "95 % interval at most 2",
    "C2.2": "95 % interval at least 1e-06",
    "C2.2/placebo": "95 % interval at least 1e-06",
    "C2.2/dose": "95 % interval at least 1e-06",
    "C2.2/batch": "95 % interval at least 1e-06",
    "C2.2/share": "95 % interval within [0.1, 0.3]",
    "C2.2/events": "95 % interval at least 200",
    "C2.2c": "95 % interval at most -1e-06",
    "C2.3": "95 % interval at most -1e-06",
    "C2.3b": "95 % interval at most -1e-06",
    "C2.5/catapult": "95 % interval at least 2",
    "C2.5/alignment": "95 % interval at least 1e-06",
    "C2.5/test": "95 % interval at most -1e-06",
}


def test_criteria_are_those_written_down():
    assert planting.bounds(SPIKES) == BOUNDS


@pytest.mark.parametrize(("size", "sharing", "outcome"), [(1.0, 10, "supported"), (-1.0, 30, "not supported")])
def test_planted_numbers_are_found_and_judged(size, sharing, outcome):
    fake, numbers = _planted(size, sharing)
    exceptions = {"C2.2/events/b=4": "supported", "C2.5/catapult/2": "supported"}  # planted once
    planting.assert_planted(SPIKES.verdicts(fake), numbers, dict.fromkeys(numbers, outcome) | exceptions)


def test_a_study_with_too_few_events_says_so():
    fake, _ = _planted()
    short = fake.isel(event=slice(0, 401))
    found = {one.id: one for one in SPIKES.verdicts(short)}["C2.2/events/b=4"]
    assert (found.estimate, str(found.verdict)) == (100, "not supported")


def test_a_seed_without_a_spike_is_left_out_and_counted():
    fake, numbers = _planted()
    fake.loss.loc[{"descent": "b=4", "seed": 6}] = 0.5
    found = {one.id: one for one in SPIKES.verdicts(fake)}["C2.1/b=4"]
    assert "1 of 5 seeds left out; 8 spikes" in found.note
    np.testing.assert_allclose(found.estimate, np.delete(numbers["C2.1/b=4"], 1).mean(), rtol=1e-6)


def _study(seed=0, drift=0.0, effect=0.0, steps=230, seeds=3):
    """Events of some seeds; every other block is hot: more super-critical batches (by `drift`) and more jumps."""
    rng = np.random.default_rng(seed)
    hot = (np.arange(steps) // events.BLOCK % 2)[None, :] * np.ones((seeds, 1))
    is_super = rng.random((seeds, steps)) < 0.2 + drift * hot
    is_jump = rng.random((seeds, steps)) < 0.1 + drift * hot + effect * is_super
    ratio = np.where(is_super, 1.2, 0.8)
    growth = np.where(is_jump, 0.2, -0.1)
    ratio[0, 7:30] = growth[0, 7:30] = np.nan
    return events.Events(ratio, growth, growth)


def test_the_placebo_is_the_mean_over_shuffles_within_blocks():
    study, rng = _study(drift=0.4), np.random.default_rng(1)
    effect, placebo = events.excess(study)
    np.testing.assert_allclose(
        effect,
        [
            _counted(g[np.isfinite(r)][None], r[np.isfinite(r)][None])[0]
            for g, r in zip(study.growth, study.ratio, strict=True)
        ],
    )
    found = []
    for _ in range(2000):
        ratio = study.ratio.copy()
        for s in range(3):
            for start in range(0, ratio.shape[1], events.BLOCK):
                place = start + np.flatnonzero(np.isfinite(ratio[s, start : start + events.BLOCK]))
                ratio[s, place] = rng.permutation(ratio[s, place])
        found.append(events.excess(study._replace(ratio=ratio))[0])
    error = np.std(found, axis=0) / 2000**0.5
    assert (abs(np.mean(found, axis=0) - placebo) < 4 * error).all()


def test_drift_alone_is_seen_by_the_placebo():
    """Jumps and super-critical batches that share nothing but hot times: an excess, none of it over the placebo."""
    study = _study(drift=0.4, steps=20_000)
    effect, placebo = events.excess(study)
    assert (effect > 0.1).all()
    assert (abs(effect - placebo) < 0.03).all()
    assert (abs(events.slope(study, study.growth)) < 0.03).all()
    caused = _study(effect=0.3, steps=20_000)
    effect, placebo = events.excess(caused)
    np.testing.assert_allclose(effect - placebo, 0.3, atol=0.03)
    np.testing.assert_allclose(events.slope(caused, caused.growth), 0.3 * 0.3 / 0.4, atol=0.03)


def test_what_drift_does_is_taken_off_by_the_placebo():
    fake, _ = _planted()
    study = _study(drift=0.4, steps=1000, seeds=5)
    loss = np.pad(np.nan_to_num(study.growth).cumsum(axis=1), ((0, 0), (1, 0)))
    fake["training"].loc[{"descent": "rare b=4"}] = np.exp(loss)
    fake["batch_ratio"].loc[{"descent": "rare b=4"}] = np.pad(study.ratio, ((0, 0), (0, 1)), mode="edge")
    found = {one.id: one for one in SPIKES.verdicts(fake)}
    assert str(found["C2.2/b=4"].verdict) == "supported"
    assert str(found["C2.2/placebo/b=4"].verdict) != "supported"
    assert abs(found["C2.2/placebo/b=4"].estimate) < 0.2 * found["C2.2/b=4"].estimate


def test_bins_hold_equally_many_steps_on_either_side_of_the_critical_rate():
    fake, _ = _planted()
    study = events.of(fake, 4)
    curve = events.curve(study)
    assert curve.number.tolist() == [1000] * 4 + [250] * 4
    assert (np.diff(curve.middle) > 0).all()
    assert curve.middle[3] < 1 < curve.middle[4]
    np.testing.assert_array_equal(curve.jumps, np.repeat([[0.0] * 4 + [1.0] * 4], 5, axis=0))
    np.testing.assert_allclose(curve.placebo, 0.2)
    within = (study.ratio >= curve.middle[4]) & (study.ratio < 1.2)
    assert curve.growth[0, 4] < study.growth[0][within[0]].mean() < curve.growth[0, 7]


def test_steps_of_runs_that_diverged_or_ended_do_not_count():
    fake, _ = _planted()
    fake["diverged_at"].loc[{"descent": "rare b=4", "seed": 6}] = 400
    fake["training"].loc[{"descent": "rare b=4", "seed": 7}] = 1e-7
    study = events.of(fake, 4)
    assert np.isfinite(study.ratio).sum(axis=1).tolist() == [1000, 0, 0, 1000, 1000]
    assert np.isnan(events.share(study)[1])
    assert "2 of 5 seeds left out" in {one.id: one for one in SPIKES.verdicts(fake)}["C2.2/b=4"].note


def test_forced_runs_are_compared_between_the_looks_around_the_target():
    fake, _ = _planted()
    found = measure.matched(FAKE, fake)
    assert found.steps.values.tolist() == [[40] * 5] * 3  # log 50 = 3.912, 3.912 + 0.06 < 4
    gain = np.diff(fake.alignment.sel(descent=["forced 0", "forced 1"]).isel(look=0), axis=0)[0] - 0.01 * 0.03
    expected = SEEDS + gain + 0.01 * np.log(0.02)
    np.testing.assert_allclose(found.alignment.sel(descent="forced 1"), expected, rtol=1e-9)


def test_a_forced_run_that_never_comes_down_or_was_not_raised_is_left_out():
    fake, _ = _planted()
    fake["train"].loc[{"descent": "forced 1", "seed": 6}] = 0.5
    fake["raises"].loc[{"descent": "forced 2", "seed": 7}] = 1
    fake["train"].loc[{"descent": "forced 2", "seed": 8, "look": 60}] = 3.0  # up once more
    found = measure.matched(FAKE, fake)
    assert found.test.isnull().sum("seed").values.tolist() == [0, 1, 1]
    assert np.isnan(measure.heights(fake, 2)).tolist() == [False, False, True, False, False]
    assert found.steps.sel(descent="forced 2", seed=8) == 62
    assert "1 of 5 seeds left out" in {one.id: one for one in SPIKES.verdicts(fake)}["C2.5/test/1"].note


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


def test_summary_and_figure_show_every_descent():
    fake, _ = _planted()
    heading, *rows = SPIKES.summary(FAKE, fake)
    assert [row[0] for row in rows] == ["catapult", "forced 2", "b=4"]
    assert all(len(row) == len(heading) for row in rows)
    assert all(axes.has_data() for axes in SPIKES.figure(fake).axes)


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
