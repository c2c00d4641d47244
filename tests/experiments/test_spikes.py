"""The spikes experiment: its verdicts follow the data, seed by seed; forced descents are compared where they should be."""

import numpy as np
import pytest
from experiments import planting
from experiments.planted_spikes import FAKE, SEEDS, planted

from jaxdyn import experiments
from jaxdyn.experiments.spikes import measure

SPIKES = experiments.load("spikes")


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
    fake, numbers = planted(size, sharing)
    exceptions = {"C2.2/events/b=4": "supported", "C2.5/catapult/2": "supported"}  # planted once
    planting.assert_planted(SPIKES.verdicts(fake), numbers, dict.fromkeys(numbers, outcome) | exceptions)


def test_a_seed_without_a_spike_is_left_out_and_counted():
    fake, numbers = planted()
    fake.loss.loc[{"descent": "b=4", "seed": 6}] = 0.5
    found = {one.id: one for one in SPIKES.verdicts(fake)}["C2.1/b=4"]
    assert "1 of 5 seeds left out; 8 spikes" in found.note
    np.testing.assert_allclose(found.estimate, np.delete(numbers["C2.1/b=4"], 1).mean(), rtol=1e-6)


def test_forced_runs_are_compared_between_the_looks_around_the_target():
    fake, _ = planted()
    found = measure.matched(FAKE, fake)
    assert found.steps.values.tolist() == [[40] * 5] * 3  # log 50 = 3.912, 3.912 + 0.06 < 4
    gain = np.diff(fake.alignment.sel(descent=["forced 0", "forced 1"]).isel(look=0), axis=0)[0] - 0.01 * 0.03
    expected = SEEDS + gain + 0.01 * np.log(0.02)
    np.testing.assert_allclose(found.alignment.sel(descent="forced 1"), expected, rtol=1e-9)


def test_a_forced_run_that_never_comes_down_or_was_not_raised_is_left_out():
    fake, _ = planted()
    fake["train"].loc[{"descent": "forced 1", "seed": 6}] = 0.5
    fake["raises"].loc[{"descent": "forced 2", "seed": 7}] = 1
    fake["train"].loc[{"descent": "forced 2", "seed": 8, "look": 60}] = 3.0  # up once more
    found = measure.matched(FAKE, fake)
    assert found.test.isnull().sum("seed").values.tolist() == [0, 1, 1]
    assert np.isnan(measure.heights(fake, 2)).tolist() == [False, False, True, False, False]
    assert found.steps.sel(descent="forced 2", seed=8) == 62
    assert "1 of 5 seeds left out" in {one.id: one for one in SPIKES.verdicts(fake)}["C2.5/test/1"].note


def test_summary_and_figure_show_every_descent():
    fake, _ = planted()
    heading, *rows = SPIKES.summary(FAKE, fake)
    assert [row[0] for row in rows] == ["catapult", "forced 2", "b=4"]
    assert all(len(row) == len(heading) for row in rows)
    assert all(axes.has_data() for axes in SPIKES.figure(fake).axes)
