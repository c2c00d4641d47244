"""Shares against the binomial distribution itself."""

import numpy as np
import pytest
import scipy.stats

from jaxdyn.analysis import estimates, levels


@pytest.mark.parametrize(("successes", "trials"), [(0, 8), (3, 8), (8, 8), (1, 1), (40, 64)])
@pytest.mark.parametrize("alpha", [0.05, 0.003])
def test_the_ends_of_a_share_are_where_the_binomial_tails_are_half_of_alpha(successes, trials, alpha):
    with levels.significance(alpha):
        found = estimates.share(successes, trials)
    assert found.value == successes / trials
    assert found.low < found.high
    if successes:
        np.testing.assert_allclose(scipy.stats.binom.sf(successes - 1, trials, found.low), alpha / 2, rtol=1e-6)
    if successes < trials:
        np.testing.assert_allclose(scipy.stats.binom.cdf(successes, trials, found.high), alpha / 2, rtol=1e-6)
    assert (found.low == 0.0) == (successes == 0)
    assert (found.high == 1.0) == (successes == trials)


def test_a_share_counts_booleans_and_without_trials_is_no_number():
    assert estimates.share([True, False, True]) == estimates.share(2, 3)
    assert np.isnan(estimates.share(0, 0)[:3]).all()


@pytest.mark.parametrize("p", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("trials", [8, 16])
def test_the_interval_of_a_share_covers_at_least_95_percent(p, trials):
    ends = [estimates.share(k, trials) for k in range(trials + 1)]
    chances = scipy.stats.binom.pmf(np.arange(trials + 1), trials, p)
    assert sum(chance for chance, one in zip(chances, ends, strict=True) if one.low <= p <= one.high) >= 0.95


@pytest.mark.parametrize("arguments", [(3, 2), (-1, 2), (1.5, 2), ([1, 0],), ([[True]],)])
def test_what_is_no_count_is_refused(arguments):
    with pytest.raises(ValueError, match="share"):
        estimates.share(*arguments)
