"""The event study of the spikes experiment: what is counted, its placebo and its bins."""

import numpy as np
from experiments.planted_spikes import counted, planted

from jaxdyn import experiments
from jaxdyn.experiments.spikes import events

SPIKES = experiments.load("spikes")


def test_a_study_with_too_few_events_says_so():
    fake, _ = planted()
    short = fake.isel(event=slice(0, 401))
    found = {one.id: one for one in SPIKES.verdicts(short)}["C2.2/events/b=4"]
    assert (found.estimate, str(found.verdict)) == (100, "not supported")


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
            counted(g[np.isfinite(r)][None], r[np.isfinite(r)][None])[0]
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
    fake, _ = planted()
    study = _study(drift=0.4, steps=1000, seeds=5)
    loss = np.pad(np.nan_to_num(study.growth).cumsum(axis=1), ((0, 0), (1, 0)))
    fake["training"].loc[{"descent": "rare b=4"}] = np.exp(loss)
    fake["batch_ratio"].loc[{"descent": "rare b=4"}] = np.pad(study.ratio, ((0, 0), (0, 1)), mode="edge")
    found = {one.id: one for one in SPIKES.verdicts(fake)}
    assert str(found["C2.2/b=4"].verdict) == "supported"
    assert str(found["C2.2/placebo/b=4"].verdict) != "supported"
    assert abs(found["C2.2/placebo/b=4"].estimate) < 0.2 * found["C2.2/b=4"].estimate


def test_bins_hold_equally_many_steps_on_either_side_of_the_critical_rate():
    fake, _ = planted()
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
    fake, _ = planted()
    fake["diverged_at"].loc[{"descent": "rare b=4", "seed": 6}] = 400
    fake["training"].loc[{"descent": "rare b=4", "seed": 7}] = 1e-7
    study = events.of(fake, 4)
    assert np.isfinite(study.ratio).sum(axis=1).tolist() == [1000, 0, 0, 1000, 1000]
    assert np.isnan(events.share(study)[1])
    assert "2 of 5 seeds left out" in {one.id: one for one in SPIKES.verdicts(fake)}["C2.2/b=4"].note
