"""The detector, and what it says of each spike, against the rule written out in plain Python, one member and record at a time."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

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


SERIES = st.lists(
    st.one_of(st.floats(0.03125, 64.0, width=32), st.just(math.nan), st.just(1.0)), min_size=2, max_size=40
)


@settings(deadline=None, max_examples=150)
@given(SERIES, st.integers(1, 12), st.sampled_from([(1.5, 1.0), (2.0, 1.1), (3.0, 3.0)]), st.floats(0.0, 4.0))
def test_any_series_has_the_spikes_of_the_rule(series, window, pair, floor):
    factor, rearm = pair
    found = spikes.find(xr.DataArray(series, dims="step"), factor=factor, window=window, floor=floor, rearm=rearm)
    assert found.values.tolist() == _reference(series, factor, window, floor, rearm)


@settings(deadline=None, max_examples=150)
@given(SERIES, st.integers(-20, 20))
def test_spikes_do_not_depend_on_the_unit_of_the_loss(series, power):
    """Exactly, by powers of two; the floor is a loss and scales with it."""
    unit = 2.0**power
    rule = {"factor": 2.0, "window": 5, "rearm": 1.25}
    loss = xr.DataArray(series, dims="step")
    scaled = spikes.annotate(loss * unit, floor=0.5 * unit, **rule)
    plain = spikes.annotate(loss, floor=0.5, **rule)
    for name in ("start", "peak_step", "end"):
        np.testing.assert_array_equal(scaled[name], plain[name])
    np.testing.assert_array_equal(scaled.peak, plain.peak * unit)


def _slow(loss, extra, times, rule):
    """Rows of `annotate` of one run, spike by spike; `extra` are (top, rest, curvature, ratio) at `times`."""
    starts = np.flatnonzero(_reference(loss, **rule))
    rows = []
    for number, start in enumerate(starts):
        seen = [v for v in loss[max(0, start - rule["window"]) : start] if not math.isnan(v)]
        least = min(seen)
        end = start + 1
        while end < len(loss) and not loss[end] < rule["rearm"] * least and end not in starts[number + 1 :]:
            end += 1
        inside = [t for t in range(start, end) if not math.isnan(loss[t])]
        peak = max(inside, key=lambda t: loss[t])
        top, rest, curvature, ratio = extra
        taken = [i for i, t in enumerate(times) if start <= t < end]
        best = max(taken, key=lambda i: top[i] + rest[i]) if taken else None
        earlier = [i for i, t in enumerate(times) if t < start]
        later = [i for i, t in enumerate(times) if t >= end and end < len(loss)]
        climb = [ratio[i] > 1 for i, t in enumerate(times) if i >= earlier[-1] and t < peak]
        rows.append({
            "start": start, "peak_step": peak, "end": end if end < len(loss) else -1, "least": least, "peak": loss[peak],
            "top_share": math.nan if best is None else top[best] / (top[best] + rest[best]),
            "curvature_before": curvature[earlier[-1]],
            "curvature_after": curvature[later[0]] if later else math.nan,
            "curvature_change": curvature[later[0]] - curvature[earlier[-1]] if later else math.nan,
            "rate_ratio": ratio[earlier[-1]], "is_super_critical": ratio[earlier[-1]] > 1,
            "super_critical_share": sum(climb) / len(climb),
        })  # fmt: skip
    return rows


@pytest.mark.parametrize("every", [1, 7])
def test_annotations_are_those_of_a_search_spike_by_spike(every):
    losses = _walks(0)
    rng = np.random.default_rng(1)
    times = np.arange(0, 400, every)
    top, rest, curvature, ratio = rng.exponential(size=(4, 6, len(times)))
    coords = {"probe_step": times}

    def recorded(values):
        return xr.DataArray(values, dims=("seed", "probe_step"), coords=coords).transpose()

    found = spikes.annotate(
        xr.DataArray(losses, dims=("seed", "step"), coords={"seed": [5, 4, 3, 2, 1, 0]}), **RULE,
        top=recorded(top), rest=recorded(rest), curvature=recorded(curvature), learning_rate=0.5, critical_rate=recorded(0.5 / ratio),
    )  # fmt: skip
    expected = [
        {"seed": 5 - i} | row
        for i in range(6)
        for row in _slow(losses[i].tolist(), (top[i], rest[i], curvature[i], ratio[i]), times, RULE)
    ]
    assert found.sizes["spike"] == len(expected) > 20
    assert len({row["seed"] for row in expected}) >= 5
    for name in expected[0]:
        np.testing.assert_allclose(found[name], [row[name] for row in expected], rtol=1e-12, err_msg=name)
    assert found.attrs == RULE


def test_rates_that_differ_between_runs_meet_their_own_runs():
    loss = xr.DataArray([[1.0, 1.0, 9.0, 1.0], [1.0, 9.0, 1.0, 1.0]], dims=("lr", "step"), coords={"lr": [0.1, 0.3]})
    critical = xr.DataArray([0.2, 0.2, 0.2, 0.2], dims="step")
    found = spikes.annotate(loss, **RULE, learning_rate=loss.lr, critical_rate=critical)
    assert found.lr.values.tolist() == [0.1, 0.3]
    assert found.is_super_critical.values.tolist() == [False, True]
    np.testing.assert_allclose(found.rate_ratio, [0.5, 1.5])


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([1.0] * 6, []),  # none
        ([1.0, 1.0, 5.0, 1.0, 1.0], [(2, 2, 3)]),  # one
        ([1.0, 5.0, 0.1, 5.0, 0.1], [(1, 1, 2), (3, 3, 4)]),  # touching
        ([1.0, 5.0, 5.0, 5.0, 1.0], [(1, 1, 4)]),  # a plateau: its first record is the peak
        ([1.0, 5.0, math.nan, 7.0, 1.0], [(1, 3, 4)]),  # not a number within
        ([5.0, 1.0, 1.0], []),  # at the beginning nothing lies before
        ([1.0, 1.0, 5.0], [(2, 2, -1)]),  # at the end
        ([1.0, 5.0, math.inf, math.nan], [(1, 2, -1)]),  # divergence
    ],
)
def test_hand_made_series(series, expected):
    found = spikes.annotate(xr.DataArray(series, dims="step"), **RULE)
    assert list(zip(*(found[name].values.tolist() for name in ("start", "peak_step", "end")), strict=True)) == expected


def test_counts_per_run_step_and_epoch():
    loss = np.tile([1.0, 1.0, 5.0, 1.0, 1.0], 8)[None, :].repeat(2, 0)  # 8 spikes in 40 records
    loss[1, 20:] = np.nan  # stopped after 4
    array = xr.DataArray(loss, dims=("b", "step"), coords={"b": [10, 20], "step": np.arange(40) * 2})
    found = spikes.count(array, **RULE, steps_per_epoch=100 / array.b)
    assert found.per_run.values.tolist() == [8, 4]
    assert found.steps.values.tolist() == [78, 38]
    np.testing.assert_allclose(found.per_step, [8 / 78, 4 / 38])
    np.testing.assert_allclose(found.per_epoch, [80 / 78, 20 / 38])
    assert found.attrs == RULE
    assert "per_epoch" not in spikes.count(array, **RULE)
    assert np.isnan(spikes.count(array.isel(step=[0]), **RULE).per_step).all()


def test_sensitivity_is_find_on_a_grid():
    loss = xr.DataArray(_walks(0), dims=("seed", "step"))
    grid = {"factor": [1.5, 3.0], "window": [2, 30], "floor": [0.0, 1.0], "rearm": [1.1, 2.0]}
    found = spikes.sensitivity(loss, **grid)
    assert found.dims == ("factor", "window", "floor", "rearm", "seed")
    for factor, window, floor in ((1.5, 2, 0.0), (3.0, 30, 1.0)):
        rule = {"factor": factor, "window": window, "floor": floor, "rearm": 1.1}
        np.testing.assert_array_equal(found.sel(rule), spikes.find(loss, **rule).sum("step"))
    assert np.isnan(found.sel(factor=1.5, rearm=2.0)).all()
    with pytest.raises(ValueError, match="rename"):
        spikes.sensitivity(loss.rename(seed="window"), **grid)


def test_half_of_a_pair_and_arrays_without_records_are_refused():
    loss = xr.DataArray(np.ones(5), dims="step")
    with pytest.raises(ValueError, match="`rest` together"):
        spikes.annotate(loss, **RULE, top=loss)
    with pytest.raises(ValueError, match="`critical_rate` together"):
        spikes.annotate(loss, **RULE, learning_rate=0.1)
    with pytest.raises(ValueError, match="one dimension of records"):
        spikes.annotate(loss, **RULE, curvature=loss.isel(step=0))


def test_a_spike_that_settles_above_where_it_began_counts_as_disarmed_records():
    loss = np.concatenate([[1.0] * 5, [8.0], np.tile([1.5, 9.0], 20), [1.0] * 4])  # never below 1.1 · 1 until the end
    found = spikes.count(xr.DataArray(loss, dims="step"), factor=2, window=3, floor=0.02, rearm=1.1)
    assert (int(found.per_run), int(found.disarmed)) == (1, 41)
    calm = spikes.count(xr.DataArray([1.0] * 9, dims="step"), factor=2, window=3, floor=0.02, rearm=1.1)
    assert (int(calm.per_run), int(calm.disarmed)) == (0, 0)
