"""A sweep that is cut off in the middle of a cell ends, when run again, bit for bit where it would have ended."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import jaxdyn as jd
from jaxdyn.ensemble.compiling.programme import Programme
from jaxdyn.ensemble.doing.checkpoint import Checkpoints, Progressed

TASK = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=5, n=16)
AXES = {"vmap": {"width": jd.widths([4, 8]), "seed": np.arange(2)}}


def _run(width, seed, rate=0.01):
    """Everything that travels from step to step: moments, a noise key, minibatches, a warm start."""
    model = jd.models.mlp((5, width, 1), activation=jnp.tanh)
    key = jax.random.key(seed)
    optimizer = optax.chain(optax.add_noise(0.01, 0.5, key=jax.random.key(7)), optax.adam(rate))
    return jd.Training(
        model, TASK, optimizer, steps=40, key=key, sampler=jd.minibatch(5),
        record=(
            jd.record(jd.every(1), loss=jd.probes.Loss()),
            jd.record(jd.every(4), dim="probe_step", sharp=jd.probes.Sharpness(), out=jd.probes.Outputs()),
        ),
    )  # fmt: skip


class CutOff(jd.ensemble.Silent):
    """Interrupts after so many pieces."""

    def __init__(self, pieces):
        self.left = pieces

    def advance(self, amount, glance):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def _count(monkeypatch):
    calls = []
    real = Programme.go_on

    def counted(self, *arguments):
        calls.append(1)
        return real(self, *arguments)

    monkeypatch.setattr(Programme, "go_on", counted)
    return calls


@pytest.fixture(scope="module")
def whole():
    return jd.sweep(_run, **AXES)


@pytest.mark.parametrize("pieces", [1, 9])
def test_a_sweep_cut_off_inside_a_cell_goes_on_and_ends_bit_for_bit(tmp_path, monkeypatch, whole, pieces):
    path = tmp_path / "a.zarr"
    with pytest.raises(KeyboardInterrupt):
        jd.sweep(_run, store=path, checkpoint_every=0.0, progress=CutOff(pieces), **AXES)
    assert not jd.results.open(path).done.any()
    total = len(_pieces())
    calls = _count(monkeypatch)
    xr.testing.assert_equal(jd.sweep(_run, store=path, checkpoint_every=0.0, **AXES).load(), whole)
    assert len(calls) == total - pieces
    assert _kept(path) == []


def _kept(path):
    return sorted(place.name for place in (path / "checkpoints").glob("*.npz"))


def _pieces():
    chosen = jd.ensemble.plan(_run, **AXES)
    return chosen.programme(chosen.cells[0]).pieces


def test_a_cadence_that_never_comes_writes_nothing(tmp_path, whole):
    path = tmp_path / "a.zarr"
    xr.testing.assert_equal(jd.sweep(_run, store=path, checkpoint_every=1e9, **AXES).load(), whole)
    assert _kept(path) == []


def test_the_checkpoint_of_another_programme_is_not_used(tmp_path, whole):
    path = tmp_path / "a.zarr"
    with pytest.raises(KeyboardInterrupt):
        jd.sweep(
            lambda width, seed: _run(width, seed, 0.02), store=path, checkpoint_every=0.0, progress=CutOff(4), **AXES
        )
    xr.testing.assert_equal(jd.sweep(_run, store=path, checkpoint_every=0.0, **AXES).load(), whole)


def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_the_sweep_goes_on(tmp_path, monkeypatch, whole):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxdyn.ensemble.doing.checkpoint.save_arrays", fail)
    with pytest.warns(RuntimeWarning, match="No space left.*goes on"):
        found = jd.sweep(_run, store=tmp_path / "a.zarr", checkpoint_every=0.0, **AXES)
    xr.testing.assert_equal(found.load(), whole)


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_a_damaged_checkpoint_is_removed_with_a_warning_and_its_cell_starts_anew(tmp_path, whole, share):
    path = tmp_path / "a.zarr"
    with pytest.raises(KeyboardInterrupt):
        jd.sweep(_run, store=path, checkpoint_every=0.0, progress=CutOff(4), **AXES)
    assert _kept(path) == ["cell-0.npz"]
    file = path / "checkpoints" / "cell-0.npz"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.warns(RuntimeWarning, match="damaged.*starts anew"):
        found = jd.sweep(_run, store=path, checkpoint_every=0.0, **AXES)
    xr.testing.assert_equal(found.load(), whole)


def test_no_flipped_byte_of_a_checkpoint_passes_for_what_was_saved(tmp_path):
    saved = Progressed(
        3,
        {"w": jax.random.normal(jax.random.key(0), (300,)), "key": jax.random.key(1), "step": jnp.asarray(7)},
        {"loss": np.linspace(0, 1, 40)[None]},
    )
    told = {"programme": "abc"}
    checkpoints = Checkpoints(tmp_path, 0.0)
    checkpoints.save("cell", told, saved)
    file = tmp_path / "checkpoints" / "cell.npz"
    content = file.read_bytes()
    noticed = 0
    for position in range(0, len(content), 7):
        file.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = checkpoints.latest("cell", told, saved.state)
        noticed += found is None
        if found is not None:  # a byte that means nothing, such as a time stamp
            assert found.piece == 3
            np.testing.assert_array_equal(found.state["w"], saved.state["w"])
            np.testing.assert_array_equal(found.values["loss"], saved.values["loss"])
            assert (jax.random.key_data(found.state["key"]) == jax.random.key_data(saved.state["key"])).all()
    assert noticed > 0.8 * len(content) / 7


def test_a_clock_that_runs_backwards_does_no_harm(tmp_path, monkeypatch, whole):
    ticks = iter(range(10**6, 0, -1))
    monkeypatch.setattr("jaxdyn.ensemble.doing.checkpoint.time.monotonic", lambda: float(next(ticks)))
    found = jd.sweep(_run, store=tmp_path / "a.zarr", checkpoint_every=5.0, **AXES)
    xr.testing.assert_equal(found.load(), whole)


def test_a_negative_cadence_is_refused(tmp_path):
    with pytest.raises(ValueError, match="-1"):
        jd.sweep(_run, store=tmp_path / "a.zarr", checkpoint_every=-1, **AXES)


SCRIPT = textwrap.dedent(
    """
    import sys
    import numpy as np
    sys.path.insert(0, sys.argv[2])
    import jaxdyn as jd
    from test_checkpoint import RATES, _grown, _run
    print("ready", flush=True)
    jd.sweep(_run, store=sys.argv[1], checkpoint_every=0.0, loop=RATES, vmap=_grown(int(sys.argv[3])))
    print("done", flush=True)
    """
)
RATES = {"rate": [0.01, 0.02, 0.03]}


def _grown(seeds):
    return AXES["vmap"] | {"seed": np.arange(seeds)}


@pytest.mark.slow  # thirty processes
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("before", "seeds"), [(0, 2), (2, 5)], ids=["starts", "grows"])
def test_thirty_random_kills_change_no_bit(tmp_path, before, seeds):
    """Of a sweep that starts, and of one that adds seeds to a store: then it equals a store that grew undisturbed."""
    path, start, here = tmp_path / "a.zarr", tmp_path / "start.zarr", str(Path(__file__).parent)
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    if before:
        jd.sweep(_run, store=start, loop=RATES, vmap=_grown(before))
        shutil.copytree(start, path)
    rng = random.Random(0)
    command = [sys.executable, "-c", SCRIPT, str(path), here, str(seeds)]
    kills = 0
    while kills < 30:
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.0, 6.0))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            else:  # it got through: start over
                shutil.rmtree(path)
                if before:
                    shutil.copytree(start, path)
    subprocess.run(command, env=environment, check=True)
    undisturbed = jd.sweep(_run, store=start, loop=RATES, vmap=_grown(seeds)).load()
    found = jd.results.open(path).load()
    assert found.done.all()
    xr.testing.assert_equal(found, undisturbed)
