"""Verdicts follow from the interval and the criterion alone, and survive the attributes of a dataset."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdyn.analysis import claims
from jaxdyn.analysis.claims import at_least, at_most, from_json, table, to_json, within

TEXT = {"statement": "Kernels freeze.", "source": "arXiv 2010.01092"}
NAN, INF = math.nan, math.inf


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
    assert at_most("A", **TEXT, estimate=middle, low=low, high=high, bound=-0.4).verdict == verdict
    assert at_least("A", **TEXT, estimate=-middle, low=-high, high=-low, bound=0.4).verdict == verdict


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
    one = within("A", **TEXT, estimate=(low + high) / 2, low=low, high=high, lower=-0.6, upper=-0.4)
    assert one.verdict == verdict
    assert "[-0.6, -0.4]" in one.criterion


@pytest.mark.parametrize("numbers", [(NAN, 0, 1), (0.5, NAN, 1), (0.5, 0, NAN), (NAN, NAN, NAN)])
def test_a_missing_number_is_inconclusive_with_the_reason(numbers):
    estimate, low, high = numbers
    one = at_most("A", **TEXT, estimate=estimate, low=low, high=high, bound=2)
    assert one.verdict == "inconclusive"
    assert "not a number" in one.reason
    assert "not a number" in table([one])[0][-1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: at_most("A", **TEXT, estimate=0, low=1, high=-1, bound=0), "upside down"),
        (lambda: at_most("A", **TEXT, estimate=0, low=0, high=0, bound=NAN), "bounds"),
        (lambda: at_least("A", **TEXT, estimate=0, low=0, high=0, bound=NAN), "bounds"),
        (lambda: within("A", **TEXT, estimate=0, low=0, high=0, lower=1, upper=-1), "bounds"),
    ],
)
def test_criteria_that_say_nothing_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_numpy_numbers_are_numbers():
    one = at_most("A", **TEXT, estimate=np.float32(0.5), low=np.float32(0.25), high=np.array(1.0), bound=np.float64(1))
    assert (one.estimate, one.low, one.high, one.verdict) == (0.5, 0.25, 1.0, "supported")


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(st.text(), numbers, numbers, numbers, st.floats(allow_nan=False)), max_size=4))
def test_json_returns_the_same_verdicts_and_is_strict(rows):
    made = []
    for text, estimate, a, b, bound in rows:
        low, high = (a, b) if math.isnan(a + b) else sorted((a, b))
        made.append(at_most(text, statement=text, source="—", estimate=estimate, low=low, high=high, bound=bound))
    written = to_json(made)
    json.loads(written, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [repr(one) for one in from_json(written)] == [repr(one) for one in made]  # NaN is not equal to itself


@pytest.mark.parametrize("text", ["", "{}x", '[{"id": "A"}]', "[1]", '{"id": 1}'])
def test_text_that_holds_no_verdicts_is_refused(text):
    with pytest.raises(ValueError, match="Not a list of verdicts"):
        from_json(text)


def test_rows_of_the_table_match_its_headings():
    one = at_most("W1", **TEXT, estimate=-0.513, low=-0.55, high=-0.47, bound=-0.4)
    (row,) = table([one])
    assert len(row) == len(claims.COLUMNS)
    assert row[0] == "W1"
    assert row[2:] == ("-0.513 [-0.55, -0.47]", "95 % interval at most -0.4", "supported")
    assert "W1: supported" in str(one)
