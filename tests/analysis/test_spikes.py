"""The vectorised detector against the rule written out in plain Python, one member and one record at a time."""

import math

import numpy as np
import pytest
import xarray as xr

from jaxdyn.analysis import spikes

RULE = {"factor": 2.0, "window": 30, "floor": 0.02, "rearm": 1.1}


def _reference(losses, factor, window, floor, rearm):
    starts, is_armed, before = [], True, math.nan
    for t, loss in enumerate(losses):
        seen = [value for value in losses[max(0, t - window) : t] if not math.isnan(value)]
        least = min(seen) if seen else math.nan
        if not is_armed and loss < rearm * before:
            is_armed = True
        if is_armed and loss > factor * least and loss > floor:
            starts.append(True)
            is_armed, before = False, least
        else:
            starts.append(False)
    return starts


def _walks(seed, members=6, steps=400):
    rng = np.random.default_rng(seed)
    losses = np.exp(np.cumsum(0.4 * rng.standard_t(3, size=(members, steps)) - 0.01, axis=1))
    losses[1, 100:] = np.nan
    losses[2, rng.integers(0, steps, 40)] = np.nan
    losses[3, 200], losses[3, 201:] = np.inf, np.nan
    losses[4] = np.round(losses[4], 1)  # ties
    return losses


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("factor", "window", "floor", "rearm"),
    [(2.0, 30, 0.02, 1.1), (1.5, 1, 0.0, 1.0), (3.0, 7, 0.5, 2.0), (2.0, 1000, 0.1, 2.0), (1.1, 2, 0.0, 1.05)],
)
def test_spikes_are_those_of_the_rule_written_out(factor, window, floor, rearm, dtype, seed):
    losses = _walks(seed).astype(dtype)
    array = xr.DataArray(losses, dims=("seed", "step"))
    found = spikes.find(array, factor=factor, window=window, floor=floor, rearm=rearm)
    expected = [_reference([dtype(v) for v in row], factor, window, floor, rearm) for row in losses]
    assert np.sum(expected) >= 6
    np.testing.assert_array_equal(found.values, expected)


def test_the_three_catapults_of_a_loss_are_found_where_they_start():
    loss = 0.5 * np.exp(-np.arange(300) / 100)
    for start, height in ((60, 8.0), (140, 3.0), (220, 30.0)):
        loss[start : start + 12] *= 1 + height * np.exp(-np.arange(12) / 2.0)
    found = spikes.find(xr.DataArray(loss, dims="step"), **RULE)
    assert np.flatnonzero(found.values).tolist() == [60, 140, 220]


def test_a_spike_that_climbs_for_many_steps_and_stays_up_counts_once():
    climb = np.concatenate([np.ones(40), 1.3 ** np.arange(20), np.full(200, 150.0)])
    found = spikes.find(xr.DataArray(climb, dims="step"), **RULE)
    assert found.sum() == 1
    assert np.flatnonzero(found.values) == [43]  # 1.3³ > 2 > 1.3²


@pytest.mark.parametrize("window", [1, 2, 3, 5, 7, 30, 32])
def test_the_window_reaches_back_exactly_its_number_of_records(window):
    loss = np.full(200, 10.0)
    loss[100] = 1.0  # leaves the window one record after 100 + window
    for ago, is_spike in ((window, True), (window + 1, False)):
        with_rise = loss.copy()
        with_rise[101 : 100 + ago] = 1.9  # no spike yet
        found = spikes.find(xr.DataArray(with_rise, dims="step"), **{**RULE, "window": window, "factor": 6.0})
        assert bool(found[100 + ago]) == is_spike


def test_rounding_noise_under_the_floor_is_no_spike():
    noise = 1e-14 * np.random.default_rng(0).exponential(size=500)
    assert not spikes.find(xr.DataArray(noise, dims="step"), **RULE).any()


def test_dimensions_coordinates_and_the_rule_come_back():
    loss = xr.DataArray(_walks(0).reshape(2, 3, 400), dims=("b", "seed", "time"), coords={"b": [8, 16]})
    found = spikes.find(loss.transpose("b", "time", "seed"), **RULE, dim="time")
    assert found.dims == ("b", "time", "seed")
    assert found.dtype == bool
    assert found.b.values.tolist() == [8, 16]
    assert found.attrs == RULE
    np.testing.assert_array_equal(found.transpose(*loss.dims), spikes.find(loss, **RULE, dim="time"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"window": 0}, "window"),
        ({"factor": 1.0, "rearm": 1.0}, "factor"),
        ({"rearm": 2.5}, "rearm"),
        ({"rearm": 0.9}, "rearm"),
        ({"floor": -1.0}, "floor"),
        ({"factor": math.nan}, "factor"),
        ({"dim": "time"}, "no dimension `time`"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        spikes.find(xr.DataArray(np.ones(5), dims="step"), **{**RULE, **change})
