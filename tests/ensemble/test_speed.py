"""What the planner knows of a device is read off correctly, kept by device, and never trusted when damaged."""

import math

import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.ensemble.deciding import calibration, cost, speed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDYN_CACHE", str(tmp_path))
    speed.speed.cache_clear()
    yield tmp_path
    speed.speed.cache_clear()


def _model(overhead, rate, enough):
    """Seconds a member step of a device that follows the formula up to `enough` flops of a batched step, and gets worse beyond."""
    flops = {8: 1e5, 48: 1.6e6}
    seconds = {
        (width, chunk): (overhead / chunk + one / rate) * (1.0 if chunk * one <= enough else 1.3)
        for width, one in flops.items()
        for chunk in (1, 4, 16)
    }
    return seconds, flops


def test_rate_overhead_and_size_are_read_off_a_device_that_follows_the_formula():
    seconds, flops = _model(1e-5, 1e11, 2e6)
    found = calibration._read_off(seconds, flops, False)
    assert found.rate == pytest.approx(1e11, rel=0.7)
    assert found.overhead == pytest.approx(1e-5, rel=0.2)
    assert 4e5 <= found.together <= 6.4e6


def test_an_accelerator_runs_all_members_that_fit():
    assert math.isinf(calibration._read_off(*_model(1e-4, 1e13, 1e30), True).together)


def test_a_noisy_machine_cannot_push_the_choice_beyond_all_bounds():
    seconds, flops = _model(1.0, 1e30, 1e30)
    assert calibration._read_off(seconds, flops, False).together <= 2e7


def test_a_measurement_is_kept_for_its_device_and_used_by_the_planner(folder, monkeypatch):
    assumed = speed.speed()
    assert not assumed.measured
    found = speed.Speed(1e9, 1e-6, 1e3, "2026-11-24")
    measured = []
    monkeypatch.setattr(calibration, "_measure", lambda: (measured.append(1), found)[1])
    assert jd.ensemble.calibrate() == found
    assert jd.ensemble.calibrate() == found
    assert len(measured) == 1
    assert cost.members_together(cost.Step(10.0, 0.0, 0, 1), 512) == 128
    assert cost.Step(1e9, 0.0, 0, 1).seconds == pytest.approx(1.0, rel=1e-3)
    monkeypatch.setattr(speed, "_device", lambda: "another")
    speed.speed.cache_clear()
    assert speed.speed() == assumed


@pytest.mark.parametrize("content", ["", "{", "[]", '{"mine": {"speed": 1}}'])
def test_a_damaged_file_counts_as_none(folder, monkeypatch, content):
    monkeypatch.setattr(speed, "_device", lambda: "mine")
    (folder / "speed.json").write_text(content)
    assert not speed.speed().measured


def test_a_real_measurement_is_plausible(folder):
    found = jd.ensemble.calibrate(again=True)
    assert 1e8 < found.rate < 1e16
    assert 0 < found.overhead < 1e-2
    assert found.measured
    assert (folder / "speed.json").exists()
    plan = jd.ensemble.plan(calibration._work(), loop={"width": [8]}, vmap={"seed": np.arange(4)})
    assert f"measured {found.measured}" in str(plan)
