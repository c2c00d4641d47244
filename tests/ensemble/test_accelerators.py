"""What a sweep would cost elsewhere follows from counts and published rates, by hand."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd
from jaxdyn.ensemble.deciding.accelerators import LAUNCH

TASK = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=8, n=64)


def _plan(width=64, members=16, steps=100, **record):
    def run(seed):
        model = jd.models.mlp((8, width, width, 1), activation=jnp.tanh)
        return jd.Training(model, TASK, optax.sgd(0.1), steps=steps, key=jax.random.key(seed), **record)

    return jd.ensemble.plan(run, vmap={"seed": np.arange(members)})


def _device(rate=1e12, bandwidth=1e30, memory=1e12):
    return jd.ensemble.Accelerator("mine", rate, bandwidth, memory)


def test_large_networks_are_bound_by_their_products():
    found = jd.ensemble.budget(_plan(), _device(rate=1e9), efficiency=0.5)
    products = 3 * 2 * 64 * (8 * 64 + 64 * 64 + 64) * 100 * 16
    assert found.seconds == pytest.approx(products / 0.5e9, rel=0.1)
    assert found.bound["flops"] == found.seconds
    assert found.device_hours == pytest.approx(found.seconds / 3600)


def test_what_moves_most_bytes_is_bound_by_the_peak_bandwidth():
    found = jd.ensemble.budget(_plan(), _device(rate=1e30, bandwidth=1e6), efficiency=0.1)
    assert found.bound["bytes"] == found.seconds
    assert found.seconds == pytest.approx(_plan().cells[0].step.touched * 16 * 100 / 1e6)


MEASURED = json.loads((Path(__file__).parents[2] / "benchmarks/results/accelerator-h100.json").read_text())


@pytest.mark.parametrize(("width", "members"), [(256, 64), (64, 1024), (4096, 8)])
def test_what_was_measured_on_a_gpu_is_foretold_within_a_factor_of_one_and_a_half(width, members):
    (section,) = [one for one in MEASURED["sections"] if one["section"] == "ensembles"]
    (row,) = [one for one in section["rows"] if one["what"] == f"{members} members of 64-{width}-{width}-1"]
    task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=64, n=128)

    def run(seed):
        model = jd.models.mlp((64, width, width, 1), activation=jnp.tanh)
        return jd.Training(model, task, optax.sgd(0.1), steps=1000, key=jax.random.key(seed))

    plan = jd.ensemble.plan(run, vmap={"seed": np.arange(members)})
    ratio = (
        jd.ensemble.budget(plan, "H100").seconds / row["ms a step"]
    )  # a thousand steps in seconds, one in milliseconds
    assert 1 / 1.5 <= ratio <= 1.5, ratio


def test_small_networks_are_bound_by_launches_whatever_the_count_of_devices():
    one, four = (jd.ensemble.budget(_plan(width=4), _device(rate=1e20), count=count) for count in (1, 4))
    assert one.seconds == four.seconds == pytest.approx(100 * LAUNCH)
    assert four.device_hours == pytest.approx(4 * one.device_hours)


def test_devices_share_the_members():
    one, four = (jd.ensemble.budget(_plan(), _device(rate=1e9), count=count) for count in (1, 4))
    assert one.seconds == pytest.approx(4 * four.seconds)


def test_members_that_do_not_fit_together_run_in_turns():
    plan = _plan(width=4)
    state = plan.cells[0].step.state
    found = jd.ensemble.budget(plan, _device(rate=1e20, memory=4 * state * 4 / 0.7))
    assert found.blocks >= 4
    assert found.seconds == pytest.approx(found.blocks * 100 * LAUNCH)


def test_probes_are_counted():
    kernel = jd.record(jd.every(1), kernel=jd.probes.NTKMatrix(TASK.x))
    without, beside = (jd.ensemble.budget(plan, _device(rate=1e9)) for plan in (_plan(), _plan(record=kernel)))
    factors = 2 * 64 * 64 * (8 + 64 + 64 + 64 + 64)  # products of activations, and of cotangents, layer by layer
    assert beside.flops - without.flops > 101 * 16 * factors


def test_what_was_assumed_is_printed():
    text = str(jd.ensemble.budget(_plan(), "A100", count=2, efficiency=0.25))
    for words in ("2 × A100", "19.5 TFLOP/s", "assumed 25%", "device-hours", "bound by"):
        assert words in text


@pytest.mark.parametrize(
    ("device", "settings", "words"),
    [("K80", {}, r"K80.*H100"), ("H100", {"count": 0}, "count"), ("H100", {"efficiency": 1.5}, r"1\.5")],
)
def test_bad_requests_are_refused_by_name(device, settings, words):
    with pytest.raises(ValueError, match=words):
        jd.ensemble.budget(_plan(), device, **settings)
