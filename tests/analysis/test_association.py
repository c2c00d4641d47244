"""Rank correlations are scipy's, mediations are those of plain regressions, intervals cover."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from jaxdyn.analysis import association

DIMS = ("optimizer", "seed")


def arrays(*values, dims=DIMS):
    return [xr.DataArray(np.asarray(one, float), dims=dims) for one in values]


def test_rank_correlation_is_scipys_with_ties_too():
    rng = np.random.default_rng(0)
    a, b = arrays(rng.integers(4, size=(9, 5)), rng.normal(size=(9, 5)))
    found = association.rank_correlation(a, b.transpose("seed", "optimizer"), "optimizer")
    assert found.dims == ("seed",)
    for seed in range(5):
        expected = scipy.stats.spearmanr(a[:, seed], b[:, seed]).statistic
        np.testing.assert_allclose(found[seed], expected, rtol=1e-12)


def test_rank_correlation_ignores_monotone_maps_and_knows_missing_numbers():
    rng = np.random.default_rng(1)
    a, b = arrays(rng.normal(size=(7, 3)), rng.normal(size=(7, 3)))
    plain = association.rank_correlation(a, b, "optimizer")
    np.testing.assert_allclose(association.rank_correlation(np.exp(a), -(b**3), "optimizer"), -plain, atol=1e-14)
    a[2, 1] = np.nan
    b[:, 2] = 1.0
    assert np.isnan(association.rank_correlation(a, b, "optimizer")).values.tolist() == [False, True, True]


def test_ranking_is_that_of_the_means_and_as_sure_as_the_data():
    rng = np.random.default_rng(2)
    level = np.arange(10.0)[:, None]
    a, b = arrays(level + 0.5 * rng.normal(size=(10, 8)), -level + 0.5 * rng.normal(size=(10, 8)))
    found = association.ranking(a, b, "optimizer", over="seed")
    np.testing.assert_allclose(found.mean, scipy.stats.spearmanr(a.mean("seed"), b.mean("seed")).statistic)
    assert found.low == -1.0
    assert found.high < -0.8
    noise = association.ranking(*arrays(*rng.normal(size=(2, 10, 8))), "optimizer", over="seed")
    assert noise.low < 0 < noise.high


def test_ranking_leaves_out_what_is_missing():
    a, b = arrays(np.arange(6.0)[:, None] * np.ones(4), np.arange(6.0)[:, None] * np.ones(4))
    b[5] = np.nan  # an optimizer that never arrived
    b[0, 0] = np.nan
    assert association.ranking(a, b, "optimizer", over="seed").mean == pytest.approx(1.0)
    assert np.isnan(association.ranking(a[:2], b[:2], "optimizer", over="seed").mean)


def drawn(rng, seeds, units=6):
    s = np.log(np.arange(1.0, units + 1))[None, :] + 0.2 * rng.normal(size=(seeds, units))
    a = 0.8 * s + 0.4 * rng.normal(size=s.shape)
    y = -0.7 * a - 0.2 * s + 0.4 * rng.normal(size=s.shape)
    return arrays(y, s, a, dims=("seed", "batch_size"))


def test_mediation_is_least_squares_of_standardised_numbers():
    y, s, a = drawn(np.random.default_rng(3), 7)
    y[2, 3] = np.nan
    found = association.mediation(y, exposure=s, mediator=a.transpose("batch_size", "seed"), over="seed")
    is_there = np.isfinite(y.values)
    ys, ss, as_ = (scipy.stats.zscore(one.values[is_there]) for one in (y, s, a))
    ones = np.ones_like(ss)
    (_, total), *_ = np.linalg.lstsq(np.stack([ones, ss], 1), ys)
    (_, direct, through), *_ = np.linalg.lstsq(np.stack([ones, ss, as_], 1), ys)
    np.testing.assert_allclose([found.total.mean, found.direct.mean, found.mediator.mean], [total, direct, through])
    np.testing.assert_allclose(found.share.mean, 1 - direct / total)
    np.testing.assert_allclose(found.on_mediator.mean, np.corrcoef(ss, as_)[0, 1])
    assert (found.num_units, found.num_excluded) == (41, 1)


def test_a_mediator_that_does_everything_or_nothing_is_told_apart():
    rng = np.random.default_rng(4)
    _, s, a = drawn(rng, 16)
    noise = 0.2 * xr.DataArray(rng.normal(size=s.shape), dims=s.dims)
    all_of_it = association.mediation(-a + noise, exposure=s, mediator=a, over="seed")
    none_of_it = association.mediation(-s + noise, exposure=s, mediator=a, over="seed")
    assert 0.5 < all_of_it.share.low < 1 < all_of_it.share.high
    assert none_of_it.share.low < 0 < none_of_it.share.high < 0.5
    assert none_of_it.direct.high < -0.8


def test_units_of_one_member_are_not_taken_for_independent():
    """Copies of the units of a member leave the interval as it is; as independent units they would narrow it."""
    y, s, a = drawn(np.random.default_rng(5), 8)
    once = association.mediation(y, exposure=s, mediator=a, over="seed")
    copies = [xr.concat([one] * 5, dim="copy") for one in (y, s, a)]
    many = association.mediation(copies[0], exposure=copies[1], mediator=copies[2], over="seed")
    np.testing.assert_allclose(many.direct, once.direct, rtol=1e-8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda y, s, a: association.mediation(y, exposure=s[:2], mediator=a[:, 0], over="seed"), "same dimensions"),
        (lambda y, s, a: association.mediation(y[:2], exposure=s[:2], mediator=a[:2], over="seed"), "3 members"),
        (lambda y, s, _: association.rank_correlation(y, s, "step"), "`step`"),
        (lambda y, s, _: association.ranking(y, s, "seed", over="step"), "dimensions"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(*drawn(np.random.default_rng(6), 4))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [8, 16])
def test_intervals_cover(seeds):
    """Nominal 95 %; below 90 % in 300 ensembles would be 3.6 standard errors off."""
    rng = np.random.default_rng(7)
    whole = drawn(rng, 20000)
    correlation = np.corrcoef([one.values.ravel() for one in whole])
    through = np.linalg.solve(correlation[1:, 1:], correlation[1:, 0])
    truth = {"total": correlation[0, 1], "direct": through[0], "mediator": through[1]}
    truth["share"] = 1 - truth["direct"] / truth["total"]
    hits = dict.fromkeys(truth, 0)
    for _ in range(300):
        y, s, a = drawn(rng, seeds)
        found = association.mediation(y, exposure=s, mediator=a, over="seed", num_resamples=1000)
        for name, value in truth.items():
            interval = getattr(found, name)
            hits[name] += interval.low <= value <= interval.high
    assert min(hits.values()) >= 270, hits


@pytest.mark.parametrize(("units", "r"), [(8, -0.99), (8, -0.9), (16, 0.5)])
def test_the_interval_of_a_ranking_covers_the_correlation_of_the_units(units, r):
    rng, true, hits = np.random.default_rng(units), 6 / np.pi * np.arcsin(r / 2), []
    for _ in range(300):
        x = rng.normal(size=units)
        y = r * x + np.sqrt(1 - r**2) * rng.normal(size=units)
        arrays = [
            xr.DataArray(one[:, None] + 0.01 * rng.normal(size=(units, 8)), dims=("unit", "seed")) for one in (x, y)
        ]
        found = association.ranking(*arrays, "unit", over="seed", num_resamples=500)
        hits.append(found.low <= true <= found.high)
    assert 0.93 <= np.mean(hits) <= 1.0


def test_perfect_ranks_of_few_units_leave_room():
    x = xr.DataArray(np.arange(8.0)[:, None] + np.zeros((8, 5)), dims=("unit", "seed"))
    found = association.ranking(x, -x, "unit", over="seed")
    assert (found.mean, found.low) == (-1.0, -1.0)
    assert -0.95 < found.high < -0.8
