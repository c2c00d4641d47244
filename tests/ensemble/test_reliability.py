"""Real full and read-only file systems, and many cells: nothing is lost, and the message names the remedy."""

import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import jaxdyn as jd
from jaxdyn.ensemble.doing.execution import Execution

TASK = jd.tasks.polynomial(jax.random.key(0), degree=1, dim=3, n=8)
AXES = {"loop": {"lr": [0.1, 0.2, 0.3]}, "vmap": {"seed": np.arange(64)}}

pytestmark = pytest.mark.slow


def _run(lr, seed):
    model = jd.models.mlp((3, 8, 1), activation=jnp.tanh)
    record = jd.record(jd.every(1), loss=jd.probes.Loss(), out=jd.probes.Outputs())
    return jd.Training(model, TASK, optax.sgd(lr), steps=32, key=jax.random.key(seed), record=record)


@pytest.fixture
def disk(tmp_path):
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]).returncode
    ):
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def _fill(disk, leave):
    """Fill the disk but for so many bytes."""
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        size = shutil.disk_usage(disk).free - leave
        while size > 0:
            try:
                size -= ballast.write(b"\0" * min(size, 4096))
            except OSError:
                break


@pytest.mark.parametrize("leave", [0, 40_000, 120_000])
def test_a_disk_filled_to_the_last_byte_loses_nothing(disk, leave):
    whole = jd.sweep(_run, **AXES)
    store = disk / "a.zarr"

    class FillUp(jd.ensemble.Silent):
        cells = 0

        def cell(self, name, num_members):
            self.cells += 1
            if self.cells == 2:
                _fill(disk, leave)

    with pytest.raises(jd.results.StoreError, match=r"No space left.*free space.*run the same sweep again") as caught:
        jd.sweep(_run, store=store, progress=FillUp(), **AXES)
    held = caught.value.dataset
    count = int(held.done.sum())
    assert count >= 128
    done = held.where(held.done, drop=True)
    np.testing.assert_array_equal(done.loss, whole.loss.sel(lr=done.lr))
    (disk / "ballast").unlink()
    xr.testing.assert_equal(jd.sweep(_run, store=store, **AXES).load(), whole)


def test_a_read_only_store_says_so_hands_out_what_is_computed_and_goes_on_when_it_is_writable(disk):
    whole = jd.sweep(_run, **AXES)
    store = disk / "a.zarr"

    class CutOff(jd.ensemble.Silent):
        cells = 0

        def cell(self, name, num_members):
            self.cells += 1
            if self.cells == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jd.sweep(_run, store=store, progress=CutOff(), **AXES)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert int(jd.results.open(store).done.sum()) == 64
    with pytest.raises(jd.results.StoreError, match=r"[Rr]ead-only.*mend the permissions") as caught:
        jd.sweep(_run, store=store, **AXES)
    held = caught.value.dataset
    assert int(held.done.sum()) == 128
    np.testing.assert_array_equal(held.loss.sel(lr=0.2), whole.loss.sel(lr=0.2))
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    xr.testing.assert_equal(jd.sweep(_run, store=store, **AXES).load(), whole)


@pytest.mark.timeout(1200)
def test_three_hundred_cells_are_resumed_without_computing_one_twice(tmp_path, monkeypatch):
    def run(lr, seed):
        model = jd.models.mlp((3, 4, 1), activation=jnp.tanh)
        record = jd.record(jd.at([0, 4]), loss=jd.probes.Loss())
        return jd.Training(model, TASK, optax.sgd(lr), steps=4, key=jax.random.key(seed), record=record)

    axes = {"loop": {"lr": np.linspace(0.01, 0.3, 300).tolist()}, "vmap": {"seed": np.arange(2)}}

    class CutOff(jd.ensemble.Silent):
        cells = 0

        def cell(self, name, num_members):
            self.cells += 1
            if self.cells == 151:
                raise KeyboardInterrupt

    store = tmp_path / "a.zarr"
    with pytest.raises(KeyboardInterrupt):
        jd.sweep(run, store=store, progress=CutOff(), **axes)
    assert int(jd.results.open(store).done.sum()) == 300
    started = []
    start = Execution.run
    monkeypatch.setattr(Execution, "run", lambda *arguments: (started.append(1), start(*arguments))[1])
    found = jd.sweep(run, store=store, **axes).load()
    assert len(started) == 150
    assert found.done.all()
    last = jd.train(run(0.3, 1)).values["loss"]
    np.testing.assert_allclose(found.loss.isel(lr=-1, seed=1), last, rtol=1e-5)
