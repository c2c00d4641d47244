"""Verdicts follow from the interval and the criterion alone, and survive the attributes of a dataset."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdyn.analysis import estimates
from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within, find, from_json, judge, to_json
from jaxdyn.analysis.scaling import mean_interval

NAN, INF = math.nan, math.inf


def one_of(criterion, estimate, low, high):
    (one,) = judge({"A": (estimate, low, high)}, [Claim("A", "Kernels freeze.", "arXiv 2010.01092", criterion)])
    return one


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.6, -0.5, "supported"),
        (-0.6, -0.4, "supported"),
        (-0.6, -0.3, "inconclusive"),
        (-0.4, -0.3, "inconclusive"),
        (-0.39, -0.3, "not supported"),
        (-INF, INF, "inconclusive"),
    ],
)
def test_at_most_holds_the_whole_interval_against_the_bound_and_at_least_mirrors_it(low, high, verdict):
    middle = (max(low, -9) + min(high, 9)) / 2
    assert one_of(AtMost(-0.4), middle, low, high).verdict == verdict
    assert one_of(AtLeast(0.4), -middle, -high, -low).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.55, -0.45, "supported"),
        (-0.6, -0.4, "supported"),
        (-0.7, -0.61, "not supported"),
        (-0.39, 0.0, "not supported"),
        (-0.7, -0.5, "inconclusive"),
        (-0.5, -0.3, "inconclusive"),
        (-0.7, -0.3, "inconclusive"),
    ],
)
def test_within_is_supported_inside_and_not_supported_outside(low, high, verdict):
    one = one_of(Within(-0.6, -0.4), (low + high) / 2, low, high)
    assert one.verdict == verdict
    assert "[-0.6, -0.4]" in one.criterion


@pytest.mark.parametrize("numbers", [(NAN, 0, 1), (0.5, NAN, 1), (0.5, 0, NAN), (NAN, NAN, NAN)])
def test_a_missing_number_is_inconclusive_with_the_reason(numbers):
    estimate, low, high = numbers
    one = one_of(AtMost(2), estimate, low, high)
    assert one.verdict == "inconclusive"
    assert "not a number" in one.note
    assert "not a number" in one.outcome


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: one_of(AtMost(0), 0, 1, -1), "upside down"),
        (lambda: AtMost(NAN), "bound"),
        (lambda: AtLeast(NAN), "bound"),
        (lambda: Within(1, -1), "bounds"),
        (lambda: Within(NAN, 1), "bounds"),
    ],
)
def test_criteria_that_say_nothing_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_numpy_numbers_are_numbers():
    one = one_of(AtMost(np.float64(1)), np.float32(0.5), np.float32(0.25), np.array(1.0))
    assert (one.estimate, one.low, one.high, one.verdict) == (0.5, 0.25, 1.0, "supported")


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.lists(
        st.tuples(st.text(alphabet="ab/ü", min_size=1), numbers, numbers, numbers, st.floats(allow_nan=False)),
        max_size=4,
    )
)
def test_json_returns_the_same_verdicts_and_is_strict(rows):
    made = []
    for text, estimate, a, b, bound in rows:
        low, high = (a, b) if math.isnan(a + b) else sorted((a, b))
        made += judge({text: (estimate, low, high)}, [Claim(text, text, "—", AtMost(bound))])
    written = to_json(made)
    json.loads(written, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [repr(one) for one in from_json(written)] == [repr(one) for one in made]  # NaN is not equal to itself


@pytest.mark.parametrize("text", ["", "{}x", '[{"id": "A"}]', "[1]", '{"id": 1}'])
def test_text_that_holds_no_verdicts_is_refused(text):
    with pytest.raises(ValueError, match="Not a list of verdicts"):
        from_json(text)


def test_an_estimate_is_judged_by_the_longest_claim_that_covers_it_in_the_order_of_the_claims():
    stated = [Claim(id, f"{id}.", "us", AtMost(i)) for i, id in enumerate(("C1", "C1/far", "C2/*/mean"))]
    assert find("C10", stated) is None
    found = judge({"C2/a/mean/b": 1.5, "C1/far/x": 1.5, "C1": 0, "C1/near": -1}, stated)
    assert [one.id for one in found] == ["C1", "C1/near", "C1/far/x", "C2/a/mean/b"]
    assert [one.verdict for one in found] == ["supported", "supported", "not supported", "supported"]
    with pytest.raises(ValueError, match="C10, D; the claims are C1, C1/far"):
        judge({"C10": 0, "D": 0, "C1": 0}, stated)


def test_a_verdict_says_all_of_itself():
    one = one_of(AtMost(-0.4), -0.513, -0.55, -0.47)
    assert (
        str(one)
        == "A: supported — Kernels freeze. -0.513 [-0.55, -0.47]; 95 % interval at most -0.4 (arXiv 2010.01092)"
    )


def test_means_leave_out_what_is_not_finite_and_say_so():
    values = np.array([1.0, 4.0, NAN, 2.0, 0.5, 8.0, INF])
    kept = values[np.isfinite(values)]
    assert estimates.mean(values)[:3] == tuple(mean_interval(kept))
    assert estimates.mean(values).note == "2 of 7 seeds left out"
    expected = np.exp(mean_interval(np.log(kept)))
    np.testing.assert_allclose(estimates.geometric_mean(values)[:3], expected, rtol=1e-12)
    assert math.isnan(estimates.mean([1.0, NAN]).value)


@pytest.mark.parametrize(("lowest", "case"), [(True, "b"), (False, "c")])
def test_the_worst_case_is_the_one_whose_interval_reaches_farthest(lowest, case):
    found = estimates.worst({"a": (0, -1, 1), "b": (0.5, -2, 0.6), "c": (-0.5, -0.6, 2)}, lowest=lowest)
    assert found.note == f"worst at {case}"
