"""The AGOP experiment: one run answers three questions about budgets, and its verdicts follow the data."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from experiments import planting

import jaxdyn as jd
from jaxdyn import experiments
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments.agop import budgets, measure, references, sweep

AGOP = experiments.load("agop")
TOY = sweep.Config(("rank-2",), (4, 16), (), 3, 8, 12, 0.9, 1.4, 0.3, (0.05,), 8, 2, 24, 4, 2, 3)
FAKE = dataclasses.replace(
    TOY, tasks=("rank-2", "digits"), batch_sizes=(4, 8, 16), catapults=(1, 2), targets=(0.05, 0.05), seeds=6, most=300
)


def _made_up(alignment=0.05, test=-0.2, num_spikes=3, raised=0.03):
    """Losses that decay and spike `num_spikes` times a halving; features that follow the batch size and the raises exactly."""
    kinds = sweep.variants(FAKE)
    seeds, steps = np.arange(FAKE.seeds), np.arange(FAKE.most + 1)
    probe = steps[:: FAKE.every]
    shape = (2, len(kinds), FAKE.seeds)
    loss = np.broadcast_to(np.exp(-0.001 * steps), (*shape, len(steps))).copy()
    loss[..., 280:] = 1e-4  # the target is reached by all
    aligned, tested = np.zeros((*shape, len(probe), 2)), np.zeros((*shape, len(probe)))
    for i, (size, raises) in enumerate(kinds.values()):
        halvings = math.log2(16 / size)
        for place in range(round(num_spikes * halvings)):
            loss[:, i, :, 40 + 20 * place : 42 + 20 * place] = 9.0
        noise = 0.002 * np.random.default_rng(i).normal(size=FAKE.seeds)[None, :, None]
        aligned[:, i] = (0.5 + alignment * halvings + raised * raises + noise)[..., None]
        tested[:, i] = np.exp(test * (halvings + raises) + noise)
    aligned[1, ..., 1] -= 0.1  # the second reference of the digits sees another alignment
    sizes = np.array([float(size) for size, _ in kinds.values()])[None, :, None, None]
    asked = np.array([raises or -1 for _, raises in kinds.values()])[None, :, None, None]
    dims = ("task", "variant", "seed")
    return xr.Dataset(
        {
            "loss": ((*dims, "step"), loss),
            "test_loss": ((*dims, "probe_step"), tested),
            "accuracy": ((*dims, "probe_step"), 0.9 + 0 * tested),
            "alignment": ((*dims, "probe_step", "reference"), aligned),
            "batch_size": ((*dims, "start"), np.broadcast_to(sizes, (*shape, 1))),
            "raises": ((*dims, "probe_step"), np.broadcast_to(asked, tested.shape)),
            "diverged_at": (dims, np.full(shape, -1)),
        },
        coords={"task": list(FAKE.tasks), "variant": list(kinds), "seed": seeds, "step": steps, "probe_step": probe},
        attrs={
            "config": json.dumps(dataclasses.asdict(FAKE)),
            "reference_agreement": "[0.97, 0.96, 0.98]",
            "reference_error": "[0.01, 0.02, 0.01]",
        },
    )


def _verdicts(dataset):
    return {one.id: one for one in AGOP.verdicts(dataset)}


def test_verdicts_follow_the_data():
    found = _verdicts(_made_up())
    for claim in (
        "C2.4/rank-2/loss/spikes",
        "C2.4/digits/loss/alignment",
        "C2.4/rank-2/steps/test",
        "C2.4/rank-2/rule",
        "R/digits",
    ):
        assert str(found[claim].verdict) == "supported", found[claim]
    np.testing.assert_allclose(found["C2.4/rank-2/loss/spikes"].estimate, 3.0, atol=1e-9)
    np.testing.assert_allclose(found["C2.4/rank-2/loss/alignment"].estimate, 0.05, atol=2e-3)
    np.testing.assert_allclose(found["C2.5/rank-2/loss/alignment"].estimate, 0.03, atol=2e-3)
    np.testing.assert_allclose(found["C2.5/rank-2/loss/test"].estimate, -0.2, atol=2e-3)
    other = _verdicts(_made_up(alignment=-0.05, test=0.2, raised=-0.03))
    for claim in (
        "C2.4/rank-2/loss/alignment",
        "C2.4/digits/steps/test",
        "C2.5/digits/loss/alignment",
        "C2.5/rank-2/steps/test",
    ):
        assert str(other[claim].verdict) == "not supported", other[claim]


RISES, FALLS = "95 % interval at least 1e-06", "95 % interval at most -1e-06"
BOUNDS = {
    "C2.4/*/*/spikes": RISES,
    "C2.4/*/*/per_step": RISES,
    "C2.4/*/*/per_epoch": RISES,
    "C2.4/*/*/alignment": RISES,
    "C2.4/*/*/test": FALLS,
    "C2.4/*/rule": RISES,
    "C2.5/*/*/alignment": RISES,
    "C2.5/*/*/test": FALLS,
    "R": "95 % interval at least 0.9",
}


def test_criteria_are_those_written_down():
    assert planting.bounds(AGOP) == BOUNDS


@pytest.mark.parametrize(("sign", "outcome"), [(1, "supported"), (-1, "not supported")])
def test_planted_slopes_are_found_and_judged(sign, outcome):
    """Slopes of each seed by `np.polyfit`; where two references disagree, the interval holds both of theirs."""
    fake = _made_up()
    x = {"C2.4": ["b=4", "b=8", "b=16"], "C2.5": ["b=16", "1 raises", "2 raises"]}
    along = {"C2.4": [2, 1, 0], "C2.5": [0, 1, 2]}
    slopes = {"C2.4": planting.members([[0.05], [0.09]], 6, 0.01), "C2.5": planting.members([[0.03], [0.06]], 6, 0.01)}
    start = np.arange(6.0)  # seeds differ far more between one another than the slopes are
    for claim, variants in x.items():
        for value, variant in zip(along[claim], variants, strict=True):
            planted = start + sign * value * slopes[claim]  # [reference, seed]
            fake.alignment.loc[{"variant": variant}] = planted.T[:, None, :]
            fake.test_loss.loc[{"variant": variant}] = np.exp(-planted[0])[:, None]
    found = _verdicts(fake)
    for claim, (first, second) in slopes.items():
        for case in (f"{task}/{budget}" for task in FAKE.tasks for budget in ("steps", "loss")):
            ends = [mean_interval(sign * one) for one in (first, second)]
            union = np.mean([one.mean for one in ends]), min(one.low for one in ends), max(one.high for one in ends)
            for quantity, expected in (("alignment", union), ("test", mean_interval(-sign * first))):
                one = found[f"{claim}/{case}/{quantity}"]
                np.testing.assert_allclose((one.estimate, one.low, one.high), expected, rtol=1e-6)
                assert str(one.verdict) == outcome


def test_planted_agreement_of_references_is_judged():
    for numbers, outcome in (([0.97, 0.96, 0.98], "supported"), ([0.6, 0.65, 0.62], "not supported")):
        one = _verdicts(_made_up().assign_attrs(reference_agreement=json.dumps(numbers)))["R/digits"]
        np.testing.assert_allclose((one.estimate, one.low, one.high), mean_interval(numbers), rtol=1e-12)
        assert str(one.verdict) == outcome


def test_no_spikes_at_all_support_nothing():
    found = _verdicts(_made_up(num_spikes=0))
    for quantity in ("spikes", "per_step", "per_epoch"):
        assert str(found[f"C2.4/rank-2/loss/{quantity}"].verdict) == "not supported"
    assert str(found["C2.4/rank-2/rule"].verdict) == "not supported"


def test_a_run_that_misses_the_target_is_left_out_of_that_answer_alone():
    fake = _made_up()
    fake["loss"].loc[{"variant": "b=16", "seed": 2, "task": "rank-2"}] = 1.0
    found = _verdicts(fake)
    assert "1 of 6 seeds left out" in found["C2.4/rank-2/loss/alignment"].note
    assert "left out" not in found["C2.4/rank-2/steps/alignment"].note
    fake["diverged_at"].loc[{"variant": "b=16", "seed": 3, "task": "rank-2"}] = 7
    assert "1 of 6 seeds left out" in _verdicts(fake)["C2.4/rank-2/steps/alignment"].note


def test_a_run_that_was_not_raised_in_time_is_left_out():
    fake = _made_up()
    fake["raises"] = fake.raises.astype(float).copy()
    fake["raises"].loc[{"variant": "2 raises", "seed": [0, 4], "task": "rank-2"}] = 1
    found = _verdicts(fake)
    assert "2 of 6 seeds left out" in found["C2.5/rank-2/loss/alignment"].note
    assert "left out" not in found["C2.4/rank-2/loss/alignment"].note


def test_budgets_are_read_at_their_step():
    fake = _made_up()
    found = measure.measures(FAKE, fake).sel(task="rank-2", seed=0)
    assert found["time"].sel(budget="steps").values.tolist() == [8] * 5
    assert found["time"].sel(budget="epochs").values.tolist() == [8, 4, 2, 2, 2]  # two epochs of 16 examples
    assert found["time"].sel(budget="loss", variant="b=4") == 280 + 3  # four steps below the target
    assert found["time"].sel(budget="loss", variant="b=16") == 280
    spikes = found["spikes"].sel(budget="loss", variant="b=4")
    assert spikes == 6
    np.testing.assert_allclose(found["per_epoch"].sel(budget="loss", variant="b=4"), 6 / 283 * 4)


def test_the_target_is_reached_after_an_epoch_below_it():
    losses = np.random.default_rng(0).random((5, 60))
    for epoch in (1, 3):
        expected = []
        for row in losses:
            hits = [t for t in range(60) if t + 1 >= epoch and (row[t + 1 - epoch : t + 1] < 0.4).all()]
            expected.append(hits[0] if hits else -1)
        np.testing.assert_array_equal(budgets.reached(losses, np.array(epoch), 0.4), expected)
    assert budgets.reached(np.array([np.nan, 0.1, np.nan, 0.1]), np.array(2), 0.4) == -1


def test_dimensions_keep_the_monomials_an_example():
    assert references.dimension(2, 1000) == 50  # the recipe of the digest
    for rank in (2, 3, 4):
        dim = references.dimension(rank, 1000)
        assert math.comb(dim + rank - 1, rank) <= 1.28 * 1000 < math.comb(dim + rank, rank)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return AGOP.run(TOY, store=tmp_path_factory.mktemp("agop") / "toy.zarr").load()


def test_a_run_has_the_documented_variables_and_the_asked_rate(toy):
    assert toy.loss.transpose("task", "variant", "seed", "step").shape == (1, 2, 3, 25)
    assert toy.alignment.sizes["reference"] == 2
    np.testing.assert_allclose(toy.relative_rate, 1.8, rtol=1e-6)
    for seed in (1,):
        task = references.monomial(TOY, "rank-2")
        model = sweep.network(TOY, "rank-2", task)
        params = model.init(jax.random.key(seed))
        kernel = jd.geometry.ntk(model.apply, params, task.x)
        rate = 0.9 * 16 / float(jnp.linalg.eigvalsh(kernel)[-1])  # 0.9 n/λ
        np.testing.assert_allclose(toy.learning_rate.sel(variant="b=4", seed=seed), rate, rtol=1e-4)
        aim = jd.geometry.agop(task.target, task.x_test)
        here = jd.geometry.agop(lambda x, p=params, m=model: m.apply(p, x), task.x_test)
        expected = float(jd.geometry.cosine(here, aim))
        np.testing.assert_allclose(toy.alignment.sel(variant="b=4", seed=seed).isel(probe_step=0), expected, rtol=1e-4)


def test_runs_end_no_earlier_than_their_budgets(toy):
    stopped = toy.stopped_at.where(toy.stopped_at >= 0, TOY.most)
    assert (stopped >= TOY.steps).all()
    there = measure.measures(TOY, toy)["time"].sel(budget="steps").notnull()
    assert (there == (toy.diverged_at < 0)).all()


def test_summary_and_figure_show_every_variant(toy):
    heading, *rows = AGOP.summary(TOY, toy)
    assert all(len(row) == len(heading) for row in rows)
    assert {row[1] for row in rows} == {"b=4", "b=16"}
    page = AGOP.figure(toy)
    assert len(page.axes) == 6
    assert all(axes.has_data() for axes in page.axes[:1])


def test_the_paper_preset_lowers_for_accelerators_at_full_precision():
    config = dataclasses.replace(sweep.PRESETS["paper"], tasks=("rank-4",))
    function, _, vmap = sweep.ensemble(config)
    plan = jd.ensemble.plan(function, loop={"task": ["rank-4"], "variant": ["b=64"]}, vmap=vmap)
    for traced in plan.programme(plan.cells[0]).traced:
        for platform in ("cuda", "tpu"):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)


def test_a_reference_is_trained_on_all_images_but_its_fold(monkeypatch):
    config, seen = dataclasses.replace(sweep.PRESETS["laptop"], references=3, reference_steps=1), []

    def look(run, vmap):
        for fold in vmap["fold"]:
            task = run(fold).task
            seen.append(
                ({row.tobytes() for row in np.asarray(task.x)}, {row.tobytes() for row in np.asarray(task.x_test)})
            )
        raise InterruptedError

    monkeypatch.setattr(jd, "sweep", look)
    with pytest.raises(InterruptedError):
        references.truths(config)
    assert len(seen) == 3
    assert all(kept.isdisjoint(out) for kept, out in seen)
    assert len({frozenset(kept | out) for kept, out in seen}) == 1  # together they are all images, each time
    assert len(frozenset.union(*(frozenset(out) for _, out in seen))) == sum(len(out) for _, out in seen)


@pytest.mark.slow
def test_references_learn_parity_and_leave_their_fold_out():
    config = dataclasses.replace(sweep.PRESETS["laptop"], references=3, reference_steps=200)
    agops, described = references.truths(config)
    assert agops.shape == (3, 64, 64)
    assert max(json.loads(described["reference_error"])) < 0.1
    assert min(np.linalg.eigvalsh(np.asarray(agops)).min(axis=1)) > -1e-5
    assert all(0 < one <= 1 for one in json.loads(described["reference_agreement"]))


def test_parity_is_even_against_odd():
    task = references.parity(dataclasses.replace(TOY, batch_sizes=(40,)))
    digits = jd.tasks.digits(classes=tuple(range(10)), n=40, n_test=12)
    expected = np.where(np.argmax(digits.y, axis=1) % 2 == 0, 1.0, -1.0)
    np.testing.assert_array_equal(task.y[:, 0], expected)
    assert task.x.shape == (40, 64)
