"""Several processes on one store: each computes its share, and the result is that of one process, bit for bit."""

import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import xarray as xr
from ensemble.test_placement import TASK

import jaxdyn as jd
from jaxdyn.ensemble.doing import processes

HERE = str(Path(__file__).parents[1])
LOOP = {"width": [8, 12]}


def _run(seed, width=8):
    """Two records, minibatches and an optimizer with a state, as little to compile as there can be."""
    record = (
        jd.record(jd.every(1), loss=jd.probes.Loss()),
        jd.record(jd.every(5), dim="seldom", moved=jd.probes.Displacement()),
    )
    return jd.Training(
        jd.models.mlp((5, width, width, 1), activation=jax.numpy.tanh), TASK, optax.adam(0.05), steps=20,
        key=jax.random.key(seed), sampler=jd.minibatch(5), record=record,
    )  # fmt: skip


SCRIPT = textwrap.dedent(
    """
    import os, sys, time, numpy as np
    import jaxdyn as jd
    num_processes, process, port, store, pause = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5], float(sys.argv[5])
    jd.ensemble.use_cores(int(sys.argv[7]))
    if num_processes > 1:
        jd.ensemble.connect(f"127.0.0.1:{port}", num_processes, process, heartbeat=10)
        assert int(os.environ["NPROC"]) == 2 * int(sys.argv[7])  # they wait for each other
    sys.path.insert(0, sys.argv[6])
    from ensemble import test_processes
    class Slow(jd.ensemble.Silent):
        def advance(self, work, glance):
            print("piece", flush=True)
            time.sleep(pause)
    vmap = {"seed": np.arange(int(sys.argv[8]))}
    jd.sweep(
        test_processes._run, store=store, checkpoint_every=0, keep_params=True, progress=Slow(), loop=test_processes.LOOP, vmap=vmap
    )
    """
)


def _start(num_processes, process, devices, port, store, pause=0.0, seeds=8):
    clean = {name: value for name, value in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
    environment = {**clean, "PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"}
    arguments = [num_processes, process, port, store, pause, HERE, devices, seeds]
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _finish(*started):
    for one in started:
        _, error = one.communicate(timeout=250)
        assert one.returncode == 0, error[-3000:]


def test_two_processes_of_two_devices_are_one_of_four_bit_for_bit(tmp_path):
    port = _port()
    _finish(*(_start(2, process, 2, port, tmp_path / "two") for process in (1, 0)))
    _finish(_start(1, 0, 4, 0, tmp_path / "one"))
    two, one = (jd.results.open(tmp_path / name).load() for name in ("two", "one"))
    assert two.done.all()
    assert len(two.attrs["cells"]) == 4  # each width in two blocks
    xr.testing.assert_equal(two, one)
    for seed in (0, 7):  # of the first process, and of the second
        found, expected = (jd.results.params(tmp_path / name, width=12, seed=seed) for name in ("two", "one"))
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow  # four processes start
def test_two_processes_grow_a_store_as_one_does(tmp_path):
    """Each computes its share of the new seeds; finished members keep their bits, whoever computed them."""
    small, port = tmp_path / "small", _port()
    _finish(_start(1, 0, 4, 0, small, seeds=4))
    before = jd.results.open(small).load()
    for name in ("two", "one"):
        shutil.copytree(small, tmp_path / name)
    _finish(*(_start(2, process, 2, port, tmp_path / "two") for process in (1, 0)))
    _finish(_start(1, 0, 4, 0, tmp_path / "one"))
    two, one = (jd.results.open(tmp_path / name).load() for name in ("two", "one"))
    assert two.done.all()
    assert two.sizes["seed"] == 8
    xr.testing.assert_equal(two, one)
    xr.testing.assert_equal(two.sel(seed=before.seed), before)
    for seed in (1, 6):
        found, expected = (jd.results.params(tmp_path / name, width=12, seed=seed) for name in ("two", "one"))
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow  # the survivor waits for the dead one
def test_when_one_process_of_two_is_killed_the_other_says_so_and_one_process_ends_the_sweep(tmp_path):
    port, store = _port(), tmp_path / "killed"
    killed, survivor = _start(2, 1, 2, port, store, pause=0.5), _start(2, 0, 2, port, store)
    pieces = 0
    while pieces < 5:
        line = killed.stdout.readline()
        assert line, killed.stderr.read()[-3000:]
        pieces += line == "piece\n"
    killed.send_signal(signal.SIGKILL)
    _, error = survivor.communicate(timeout=250)
    assert survivor.returncode != 0
    assert "Another process of this job has died" in error
    assert "run the same command again" in error
    killed.communicate()
    half = jd.results.open(store).done
    assert 0 < int(half.sum()) < half.size
    began = time.monotonic()
    _finish(_start(1, 0, 4, 0, store))
    _finish(_start(1, 0, 4, 0, tmp_path / "whole"))
    xr.testing.assert_equal(jd.results.open(store).load(), jd.results.open(tmp_path / "whole").load())
    assert time.monotonic() - began < 250


@pytest.mark.parametrize("num_processes", [1, 2, 3, 5])
def test_every_cell_is_dealt_to_one_process_and_no_process_idles(monkeypatch, num_processes):
    monkeypatch.setattr(
        importlib.import_module("jaxdyn.ensemble.deciding.plan").jax, "process_count", lambda: num_processes
    )
    plan = jd.ensemble.plan(_run, loop={"width": [8, 64]}, vmap={"seed": np.arange(10)})
    dealt = processes.share(plan.cells, num_processes)
    assert sorted(cell.key for cells in dealt for cell in cells) == sorted(cell.key for cell in plan.cells)
    assert all(dealt)
    members = [sum(cell.num_members for cell in cells) for cells in dealt]
    assert max(members) <= 2 * min(members)


def test_where_nothing_tells_who_else_there_is_the_remedy_is_named():
    script = "import jaxdyn as jd\ntry:\n    jd.ensemble.connect()\nexcept ValueError as error:\n    print(error)"
    environment = {
        name: value for name, value in os.environ.items() if not re.match("JAX_(COORD|NUM|PROC)|SLURM|OMPI", name)
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env={**environment, "PYTHONPATH": os.getcwd()}, capture_output=True, text=True
    )
    assert "JAX_COORDINATOR_ADDRESS" in done.stdout, done.stderr
