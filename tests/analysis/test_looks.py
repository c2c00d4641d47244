"""Critical values against published ones, and wrong verdicts over all looks against simulation."""

import numpy as np
import pytest
import scipy.stats
from scipy.optimize import brentq

from jaxdyn.analysis import association, brackets, levels, looks
from jaxdyn.analysis.scaling import mean_interval, power_law

SIZES = (8, 16, 32, 64)


@pytest.mark.parametrize(
    ("num", "pocock", "obrien_fleming"),  # Jennison and Turnbull, tables 2.1 and 2.3: alpha = 0.05, two-sided
    [(2, 2.178, 1.977), (3, 2.289, 2.004), (4, 2.361, 2.024), (5, 2.413, 2.040)],
)
def test_equal_looks_have_the_published_constants_of_pocock_and_of_obrien_and_fleming(num, pocock, obrien_fleming):
    fractions = np.arange(1, num + 1) / num
    flat = brentq(lambda c: looks.crossing(fractions, [c] * num).sum() - 0.05, 1, 4)
    falling = brentq(lambda c: looks.crossing(fractions, c / np.sqrt(fractions)).sum() - 0.05, 1, 4)
    np.testing.assert_allclose([flat, falling], [pocock, obrien_fleming], atol=6e-4)


def test_five_equal_looks_of_the_spending_function_have_the_published_bounds():
    """The bounds that `ldbounds` and Reboussin et al., Control. Clin. Trials 21, 2000, give."""
    found = looks.plan([20, 40, 60, 80, 100])
    np.testing.assert_allclose(found.critical, [4.8769, 3.3569, 2.6803, 2.2898, 2.0310], atol=2e-4)


def test_two_looks_agree_with_the_bivariate_normal_distribution():
    found = looks.plan([30, 100], spending="pocock")
    joint = scipy.stats.multivariate_normal(cov=[[1, np.sqrt(0.3)], [np.sqrt(0.3), 1]])
    a, b = found.critical
    inside = joint.cdf([a, b]) - joint.cdf([-a, b]) - joint.cdf([a, -b]) + joint.cdf([-a, -b])
    np.testing.assert_allclose(1 - inside, 0.05, atol=1e-5)
    np.testing.assert_allclose(2 * scipy.stats.norm.sf(a), 0.05 * np.log1p((np.e - 1) * 0.3), rtol=1e-8)


def test_one_look_is_the_plain_level():
    np.testing.assert_allclose(looks.plan([8]).nominal, 0.05, rtol=1e-8)


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_all_is_spent_at_the_last_look_and_more_nodes_change_nothing(spending, monkeypatch):
    found = looks.plan(SIZES, spending=spending)
    np.testing.assert_allclose(looks.crossing(SIZES, found.critical).cumsum(), found.spent, rtol=1e-6)
    assert found.spent[-1] == pytest.approx(0.05)
    monkeypatch.setattr(looks, "NODES", 2 * looks.NODES)
    looks._planned.cache_clear()
    np.testing.assert_allclose(looks.plan(SIZES, spending=spending).critical, found.critical, rtol=1e-9)


def _wrong(draw, spending, trials=40_000):
    """Share of ensembles in which Student's t misses the true mean, 0, at some look."""
    sample = draw(np.random.default_rng(0), (trials, SIZES[-1]))
    plan = looks.plan(SIZES, spending=spending)
    misses = np.zeros(trials, bool)
    for size, alpha in zip(plan.sizes, plan.nominal, strict=True):
        part = sample[:, :size]
        t = part.mean(axis=1) / (part.std(axis=1, ddof=1) / np.sqrt(size))
        misses |= np.abs(t) > scipy.stats.t.isf(alpha / 2, size - 1)
    return misses.mean()


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_verdicts_on_normal_numbers_are_wrong_in_5_percent_over_all_looks(spending):
    wrong = _wrong(lambda rng, shape: rng.normal(size=shape), spending)
    assert abs(wrong - 0.05) < 0.004  # Monte-Carlo error 0.0011


def test_without_boundaries_four_looks_err_twice_as_often(monkeypatch):
    flat = looks.Plan(SIZES, "none", 0.05, (0.05,) * 4, (1.96,) * 4, (0.05,) * 4)
    monkeypatch.setattr(looks, "plan", lambda *_, **__: flat)
    assert _wrong(lambda rng, shape: rng.normal(size=shape), "none") > 0.1


def _missed(draw, spending, trials=100):
    """As `_wrong`, with the intervals of the library."""
    rng, plan, missed = np.random.default_rng(1), looks.plan(SIZES, spending=spending), 0
    for _ in range(trials):
        sample = draw(rng, SIZES[-1])
        for size, alpha in zip(plan.sizes, plan.nominal, strict=True):
            with levels.significance(alpha):
                found = mean_interval(sample[:size], num_resamples=1000)
            if not found.low <= 0 <= found.high:
                missed += 1
                break
    return missed / trials


def test_the_intervals_of_the_library_miss_in_about_5_percent_over_all_looks():
    assert _missed(lambda rng, n: rng.normal(size=n), "pocock") <= 0.05 + 3 * 0.022  # three Monte-Carlo errors


def test_a_level_reaches_every_interval_and_ends_with_its_context():
    rng = np.random.default_rng(2)
    sample, grid = rng.normal(size=12), np.array([16, 32, 64])
    array = _array(grid[:, None] ** -0.5 * np.exp(0.1 * rng.normal(size=(3, 12))), grid)
    trio = [_ranked(rng.normal(size=(10, 12))) for _ in range(3)]

    def all_of_them():
        fit = power_law(array, "width", over="seed")
        boundary = brackets.geometric_mean(np.exp(sample), np.exp(sample) + 0.1)
        mediated = association.mediation(trio[0], exposure=trio[1], mediator=trio[2], over="seed").total
        return [mean_interval(sample), (fit.exponent, fit.low, fit.high), boundary, mediated]

    plain = all_of_them()
    with levels.significance(0.05):
        assert all_of_them() == plain
    for alpha in (0.02, 0.003, 1e-5):
        with levels.significance(alpha):
            wider = all_of_them()
        for (middle, low, high), (again, lower, higher) in zip(plain, wider, strict=True):
            assert middle == again
            assert lower < low
            assert high < higher
    assert all_of_them() == plain


def test_a_level_reaches_a_ranking():
    units = np.random.default_rng(4).permutation(12) + 0.5 * np.arange(12)
    a, b = (_ranked(one[:, None] + np.random.default_rng(5).normal(size=(12, 8))) for one in (units, np.arange(12.0)))
    plain = association.ranking(a, b, "unit", over="seed", num_resamples=1000)
    with levels.significance(0.4):
        narrower = association.ranking(a, b, "unit", over="seed", num_resamples=1000)
    assert plain.low < narrower.low < plain.mean == narrower.mean < narrower.high < plain.high
    with levels.significance(1e-5):
        assert association.ranking(a, b, "unit", over="seed") == (plain.mean, -1.0, 1.0)


def test_an_end_too_far_out_for_resamples_is_students():
    sample = np.random.default_rng(3).exponential(size=16)
    with levels.significance(1e-5):
        found = mean_interval(sample)
    expected = scipy.stats.t.interval(1 - 1e-5, 15, loc=sample.mean(), scale=scipy.stats.sem(sample))
    np.testing.assert_allclose(found[1:], expected, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.5, float("nan")])
def test_an_impossible_level_is_refused(alpha):
    with pytest.raises(ValueError, match="between 0 and 1"), levels.significance(alpha):
        pass
    with pytest.raises(ValueError, match="between 0 and 1"):
        looks.plan(SIZES, alpha=alpha)


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [([], {}, "growing"), ([8, 8], {}, "growing"), ([1, 2], {}, "at least 2"), (SIZES, {"spending": "all"}, "'all'")],
)
def test_other_plans_are_refused(sizes, options, words):
    with pytest.raises(ValueError, match=words):
        looks.plan(sizes, **options)


def _array(values, widths):
    import xarray as xr

    return xr.DataArray(values, dims=("width", "seed"), coords={"width": widths})


def _ranked(values):
    import xarray as xr

    return xr.DataArray(values, dims=("unit", "seed"))
