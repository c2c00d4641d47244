"""Schedules count completed steps, from the anchor to the end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxdyn as jd
from jaxdyn.dynamics import pieces, timetable


@given(k=st.integers(1, 50), steps=st.integers(0, 300))
def test_every_includes_the_anchor_all_multiples_and_the_end(k, steps):
    times = jd.every(k).times(steps).tolist()
    assert times == sorted({*range(0, steps + 1, k), steps})


@given(num=st.integers(2, 60), steps=st.integers(1, 5000))
def test_log_spaced_gives_the_number_asked_for_with_even_ratios(num, steps):
    times = jd.log_spaced(num).times(steps)
    assert times[0] == 0
    assert times[-1] == steps
    assert len(times) == min(num, steps + 1)
    assert (np.diff(times) > 0).all()
    gaps = np.diff(times[1:])
    assert (gaps[1:] >= gaps[:-1] - 1).all() or len(gaps) < 3  # gaps grow, up to rounding


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jd.at([]), "non-empty"),
        (lambda: jd.at([3, 1]), "sorted"),
        (lambda: jd.at([1, 1]), "distinct"),
        (lambda: jd.at([-1, 1]), "at least 0"),
        (lambda: jd.every(0), "at least 1"),
        (lambda: jd.log_spaced(1), "at least"),
        (lambda: jd.at([0, 250]).times(100), "250"),
    ],
)
def test_bad_schedules_are_refused_with_the_value(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@given(
    first=st.sets(st.integers(0, 40), min_size=1),
    second=st.sets(st.integers(0, 40), min_size=1),
    num_legs=st.integers(1, 20),
)
def test_pieces_record_every_due_time_once_and_reach_the_end(first, second, num_legs):
    records = [jd.record(jd.at(sorted(times)), a=lambda s: 0) for times in (first, second)]
    whole = timetable(records, 40)
    taken: list[list[int]] = [[], []]
    step = 0
    for piece in pieces(whole, num_legs):
        assert num_legs <= len(piece.stop) < num_legs + 16
        assert not (np.diff(piece.stop, prepend=step) % piece.stride).any()
        for leg, stop in enumerate(piece.stop):
            for position in range(2):
                if piece.slots[position][leg] >= 0:
                    taken[position].append(step)
            assert stop >= step
            step = int(stop)
        for position in range(2):
            capacity = piece.capacity[position]
            assert capacity is None or len(piece.rows(position)) <= capacity
    assert step == 40
    assert taken == [sorted(first), sorted(second)]
