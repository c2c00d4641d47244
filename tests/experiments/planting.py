"""Numbers planted in a dataset: what a measurement must give back, estimate, interval and verdict.

Every member (seed) gets its own number around a planted mean. A claim about the mean over seeds must give back that mean with the interval
of the members' numbers: so a fit to averaged seeds, whose interval has no width, or a fit to the wrong width, case or variable is seen.
"""

import numpy as np

from jaxdyn.analysis.scaling import mean_interval


def members(mean, num=8, scatter=0.02):
    """Numbers of the seeds, [s], whose mean is exactly `mean`."""
    noise = np.random.default_rng(7).normal(size=num)
    return mean + scatter * (noise - noise.mean())


def power_law(x, exponents, level=1.0):
    """Values [x, s] that follow x^exponent, with an exponent of its own for every seed."""
    return level * np.asarray(x, float)[:, None] ** np.asarray(exponents)[None, :]


def bounds(experiment):
    """`{claim: criterion in words}`: to be held against a table that the test writes down."""
    return {one.id: str(one.criterion) for one in experiment.claims}


def assert_planted(verdicts, planted, outcome, *, rtol=1e-4):
    """Every planted number is found, with the interval of its members, and judged so; nothing else was measured.

    Args:
        verdicts: of the experiment on the planted dataset.
        planted: `{id: number}` that is exact, `{id: numbers of the seeds}`, or a tuple of estimate and interval.
        outcome: of all of them, or `{id: outcome}`.
        rtol: relative tolerance, of float32 data.
    """
    found = {one.id: one for one in verdicts}
    assert set(found) == set(planted)
    for id, numbers in planted.items():
        expected = mean_interval(numbers) if np.ndim(numbers) else (numbers,) * 3
        expected = numbers if isinstance(numbers, tuple) else expected
        verdict = found[id]
        np.testing.assert_allclose(
            (verdict.estimate, verdict.low, verdict.high), expected, rtol=rtol, atol=rtol * 0.1, err_msg=id
        )
        assert str(verdict.verdict) == (outcome if isinstance(outcome, str) else outcome[id]), str(verdict)
