"""Exponents against laws known exactly, and the interval against simulated coverage, scipy and explicit resampling."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from jaxdyn.analysis.scaling import mean_interval, power_law

WIDTHS = np.array([32, 64, 128, 256, 512])


def _array(values, dims=("width", "seed"), **coords):
    return xr.DataArray(values, dims=dims, coords={"width": WIDTHS, **coords})


def _noisy(seeds=8, spread=0.2, seed=0):
    noise = np.random.default_rng(seed).normal(size=(len(WIDTHS), seeds))
    return 3 * WIDTHS[:, None] ** -0.5 * np.exp(spread * noise)


def test_an_exact_power_law_is_recovered_without_an_interval():
    fit = power_law(_array(3 * WIDTHS[:, None] ** -0.5 * np.ones(8)), "width", over="seed")
    np.testing.assert_allclose([fit.exponent, fit.low, fit.high, fit.prefactor], [-0.5, -0.5, -0.5, 3], rtol=1e-12)
    np.testing.assert_allclose(fit(WIDTHS), 3 * WIDTHS**-0.5)


def test_the_exponent_is_least_squares_on_the_geometric_mean_and_the_mean_of_the_members_own():
    values = _noisy()
    fit = power_law(_array(values), "width", over="seed")
    line = np.polyfit(np.log(WIDTHS), np.log(scipy.stats.gmean(values, axis=1)), 1)
    own = [np.polyfit(np.log(WIDTHS), np.log(member), 1)[0] for member in values.T]
    np.testing.assert_allclose([fit.exponent, np.log(fit.prefactor)], line, rtol=1e-10)
    np.testing.assert_allclose(fit.exponent, np.mean(own), rtol=1e-10)
    assert fit.low < fit.exponent < fit.high


@pytest.mark.parametrize(("seeds", "band"), [(3, (0.93, 0.97)), (8, (0.92, 0.965)), (16, (0.925, 0.97))])
def test_the_interval_covers_the_true_exponent_in_about_95_percent_of_ensembles(seeds, band):
    rng = np.random.default_rng(1)
    trials = 1500  # standard error of the coverage: 0.6 %
    own = 0.1 * rng.normal(size=(trials, 1, seeds)) * np.log(WIDTHS)[:, None]  # each member has an exponent of its own
    noise = own + rng.normal(size=(trials, len(WIDTHS), seeds)) + rng.normal(size=(trials, 1, seeds))
    array = _array(WIDTHS[:, None] ** -0.5 * np.exp(noise), ("trial", "width", "seed"))
    fit = power_law(array, "width", over="seed", num_resamples=2000)
    coverage = float(((fit.low <= -0.5) & (fit.high >= -0.5)).mean())
    assert band[0] <= coverage <= band[1]


def test_members_are_resampled_whole_so_that_a_factor_common_to_all_widths_changes_nothing():
    factors = np.exp(np.random.default_rng(3).normal(size=8) * 2)
    plain = power_law(_array(_noisy()), "width", over="seed")
    scaled = power_law(_array(_noisy() * factors), "width", over="seed")
    np.testing.assert_allclose([scaled.exponent, scaled.low, scaled.high], [plain.exponent, plain.low, plain.high])


def test_the_interval_is_the_bootstrap_t_of_an_explicit_loop():
    sample = np.random.default_rng(4).exponential(size=9)
    rng = np.random.default_rng(5)
    error = sample.std(ddof=1) / 3
    ratios = []
    for _ in range(20_000):
        again = rng.choice(sample, size=9)
        ratios.append((again.mean() - sample.mean()) / (again.std(ddof=1) / 3))
    lower, upper = np.quantile(ratios, [0.025, 0.975])
    expected = [sample.mean(), sample.mean() - upper * error, sample.mean() - lower * error]
    np.testing.assert_allclose(mean_interval(sample), expected, atol=0.04 * (expected[2] - expected[1]))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_few_members_get_the_interval_of_student(size):
    sample = np.random.default_rng(size).normal(size=size)
    expected = scipy.stats.t.interval(0.95, size - 1, loc=sample.mean(), scale=scipy.stats.sem(sample))
    np.testing.assert_allclose(mean_interval(sample)[1:], expected, rtol=1e-9)


def test_the_interval_is_the_same_each_time_and_moves_with_the_data():
    sample = np.random.default_rng(6).normal(size=8)
    assert mean_interval(sample) == mean_interval(sample)
    np.testing.assert_allclose(mean_interval(5 + 2 * sample), 5 + 2 * np.array(mean_interval(sample)))


def test_equal_members_leave_no_interval_and_a_missing_one_no_mean():
    assert mean_interval([2.0, 2.0, 2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)
    assert all(np.isnan(mean_interval([1.0, 2.0, np.nan, 3.0, 4.0])))


def test_members_that_diverged_are_left_out_and_counted():
    values = _noisy()
    broken = values.copy()
    broken[4, 2], broken[0, 5] = np.inf, np.nan
    fit, kept = (power_law(_array(v), "width", over="seed") for v in (broken, np.delete(values, [2, 5], axis=1)))
    np.testing.assert_allclose([fit.exponent, fit.low, fit.high], [kept.exponent, kept.low, kept.high], rtol=1e-10)
    assert (fit.fitted.num_members, fit.fitted.num_excluded) == (6, 2)
    assert "6 seeds, 2 excluded as not finite" in str(fit)


def test_an_ensemble_without_two_finite_members_has_no_exponent():
    values = _noisy()
    values[1, 1:] = np.nan
    fit = power_law(_array(values), "width", over="seed")
    assert np.isnan([fit.exponent, fit.low, fit.high, fit.prefactor]).all()
    assert fit.fitted.num_excluded == 7


def test_other_dimensions_are_fitted_cell_by_cell_whatever_their_order():
    cells = np.stack([_noisy(seed=1), _noisy(seed=2) * WIDTHS[:, None] ** -0.5])
    array = _array(cells, ("depth", "width", "seed"), depth=[2, 3])
    fit = power_law(array.transpose("seed", "depth", "width"), "width", over="seed")
    assert fit.exponent.dims == ("depth",)
    for depth in (2, 3):
        one = power_law(array.sel(depth=depth), "width", over="seed")
        for name in ("exponent", "low", "high", "prefactor"):
            np.testing.assert_allclose(getattr(fit, name).sel(depth=depth), getattr(one, name), rtol=1e-12)
    assert fit.fitted.num_members.values.tolist() == [8, 8]
    assert "over depth" in str(fit)


def test_the_fitted_range_is_reported():
    fit = power_law(_array(_noisy()), "width", over="seed")
    assert (fit.fitted.low, fit.fitted.high, fit.fitted.num_points, fit.fitted.num_members) == (32, 512, 5, 8)
    assert str(fit).endswith("widths 32–512 (5), 8 seeds")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.isel(width=slice(2)), "at least 3 points"),
        (lambda a: a.isel(seed=[0]), "at least 2 members"),
        (lambda a: a.drop_vars("width"), "no coordinate for `width`"),
        (lambda a: a.rename(seed="member"), "no dimension `seed`"),
        (lambda a: a.assign_coords(width=[0, 1, 2, 3, 4]), r"positive numbers as the coordinate `width`"),
        (lambda a: a.assign_coords(width=list("abcde")), r"positive numbers as the coordinate `width`"),
        (lambda a: a.rename("change").where(a.seed != 3, 0.0), r"change is 0 at {'width': 32, 'seed': 3} \(5 such"),
        (lambda a: -a, "positive values"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_refused_by_name(change, words):
    array = _array(_noisy(), seed=np.arange(8))
    with pytest.raises(ValueError, match=words):
        power_law(change(array), "width", over="seed")


def test_one_dimension_cannot_serve_twice():
    with pytest.raises(ValueError, match="both 'width'"):
        power_law(_array(_noisy()), "width", over="width")


@pytest.mark.parametrize(
    ("values", "options"), [([1.0], {}), (np.ones((3, 3)), {}), ([1.0, 2.0], {"num_resamples": 10})]
)
def test_an_interval_of_nothing_is_refused(values, options):
    with pytest.raises(ValueError, match="at least"):
        mean_interval(values, **options)


@pytest.mark.parametrize(
    "values", [[0.005, 0.005, 0.01, 0.005, 0.005], [0.9] * 7 + [0.905], [1.0, 2.0, 4.0], [0.5, 0.5, 0.5, 0.6, 0.6, 0.6]]
)
def test_few_values_or_few_different_ones_have_the_interval_of_student(values):
    found, error = mean_interval(values), np.std(values, ddof=1) / np.sqrt(len(values))
    reach = scipy.stats.t.ppf(0.975, len(values) - 1) * error
    np.testing.assert_allclose(found, (np.mean(values), np.mean(values) - reach, np.mean(values) + reach), rtol=1e-9)


def test_no_interval_of_accuracies_is_infinite_and_they_cover_the_mean():
    rng = np.random.default_rng(0)
    for num in (5, 8, 16):
        found = [mean_interval(rng.binomial(200, 0.9, size=num) / 200, num_resamples=2000) for _ in range(400)]
        ends = np.array([(one.low, one.high) for one in found])
        assert np.isfinite(ends).all()
        assert (ends[:, 1] - ends[:, 0]).max() < 1.0
        assert 0.92 <= np.mean((ends[:, 0] <= 0.9) & (ends[:, 1] >= 0.9)) <= 0.985
