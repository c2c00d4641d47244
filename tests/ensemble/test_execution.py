"""Cells end early when all their members are done, signals save first, and whoever watches is told the truth."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import jaxdyn as jd
from jaxdyn.ensemble.compiling.programme import Programme
from jaxdyn.ensemble.doing import interrupt
from jaxdyn.ensemble.doing.progress import Glance, glance

TASK = jd.tasks.polynomial(jax.random.key(0), degree=1, dim=3, n=8)


def _run(lr, seed, steps=32):
    model = jd.models.mlp((3, 8, 1), activation=jnp.tanh)
    record = (
        jd.record(jd.every(1), loss=jd.probes.Loss()),
        jd.record(jd.every(8), dim="seldom", out=jd.probes.Outputs()),
    )
    return jd.Training(model, TASK, optax.sgd(lr), steps=steps, key=jax.random.key(seed), record=record)


def _pieces(monkeypatch):
    calls = []
    real = Programme.go_on

    def counted(self, *arguments):
        calls.append(1)
        return real(self, *arguments)

    monkeypatch.setattr(Programme, "go_on", counted)
    return calls


def test_a_cell_ends_when_all_its_members_have_diverged_and_not_before(monkeypatch):
    calls = _pieces(monkeypatch)
    some = jd.sweep(_run, vmap={"lr": np.asarray([0.1, 1e30]), "seed": np.arange(2)})
    whole = len(calls)
    calls.clear()
    none = jd.sweep(_run, vmap={"lr": np.asarray([1e25, 1e30]), "seed": np.arange(2)})
    assert len(calls) < whole / 2
    assert (none.diverged_at >= 0).all()
    xr.testing.assert_equal(none.diverged_at.sel(lr=1e30), some.diverged_at.sel(lr=1e30))
    reached = int(np.isfinite(some.loss.sel(lr=1e30)).sum("step").max())
    assert np.isnan(none.loss.isel(step=slice(-8, None))).all()
    np.testing.assert_array_equal(none.loss.sel(lr=1e30)[:, :reached], some.loss.sel(lr=1e30)[:, :reached])
    assert np.isfinite(some.loss.sel(lr=0.1)).all()


def test_a_condition_ends_a_cell_and_its_step_is_kept_and_a_resume_ends_it_there_too(tmp_path):
    def is_low(values):
        return values["loss"][:, -1] < 0.5 * values["loss"][:, 0]

    axes = {"loop": {"lr": [0.2, 1e-6]}, "vmap": {"seed": np.arange(3)}}
    plain, ended = jd.sweep(_run, **axes), jd.sweep(_run, stop=is_low, **axes)
    step = int(ended.stopped_at.sel(lr=0.2)[0])
    assert 0 < step < 32
    assert (ended.stopped_at.sel(lr=0.2) == step).all()
    assert (ended.stopped_at.sel(lr=1e-6) == -1).all()
    before = plain.loss.sel(lr=0.2).sel(step=slice(0, step - 1))
    np.testing.assert_array_equal(ended.loss.sel(lr=0.2).sel(step=slice(0, step - 1)), before)
    assert (before.isel(step=-1) < 0.5 * before.isel(step=0)).all()
    assert np.isnan(ended.loss.sel(lr=0.2).sel(step=slice(step + 1, None))).all()
    xr.testing.assert_equal(ended.loss.sel(lr=1e-6), plain.loss.sel(lr=1e-6))

    class CutOff(jd.ensemble.Silent):
        def advance(self, work, glance):
            raise KeyboardInterrupt

    store = tmp_path / "a.zarr"
    with pytest.raises(KeyboardInterrupt):
        jd.sweep(_run, stop=is_low, store=store, checkpoint_every=0, progress=CutOff(), **axes)
    xr.testing.assert_equal(jd.sweep(_run, stop=is_low, store=store, **axes).load(), ended)
    with pytest.raises(ValueError, match=r"belongs to another sweep.*stop"):
        jd.sweep(_run, stop=lambda values: values["loss"][:, -1] < 0.1, store=store, **axes)


def test_a_condition_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"one truth value a member, \(2,\).*shape \(\)"):
        jd.sweep(lambda seed: _run(0.1, seed), vmap={"seed": np.arange(2)}, stop=lambda values: True)


def test_a_member_that_is_nan_from_the_first_step_leaves_its_neighbours_bit_for_bit():
    """A rate that is not a number cannot be an axis, so the scale of the targets makes the loss infinite from the start."""

    def run(scale, seed):
        task = jd.tasks.from_arrays(TASK.x, TASK.y * scale)
        training = _run(0.1, seed)
        return jd.Training(
            training.model,
            task,
            training.optimizer,
            steps=8,
            key=training.key,
            record=jd.record(jd.every(1), loss=jd.probes.Loss()),
        )

    both = jd.sweep(run, vmap={"scale": np.asarray([1.0, 1e30, 2.0], np.float32), "seed": np.arange(2)})
    healthy = jd.sweep(run, vmap={"scale": np.asarray([1.0, 1.0, 2.0], np.float32), "seed": np.arange(2)})
    assert (both.diverged_at.isel(scale=1) == 0).all()
    assert (both.diverged_at.isel(scale=[0, 2]) == -1).all()
    np.testing.assert_array_equal(both.loss.isel(scale=[0, 2]), healthy.loss.isel(scale=[0, 2]))


SCRIPT = textwrap.dedent(
    """
    import sys, time, numpy as np
    sys.path.insert(0, sys.argv[2])
    import jaxdyn as jd
    from test_execution import _run
    class Slow(jd.ensemble.Silent):
        def advance(self, work, glance):
            print("piece", flush=True)
            time.sleep(0.2)
    jd.sweep(_run, vmap={"lr": np.asarray([0.1]), "seed": np.arange(2)}, store=sys.argv[1], progress=Slow())
    """
)


@pytest.mark.parametrize(("kind", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_saves_a_checkpoint_although_none_was_due_and_the_rest_is_not_computed_twice(
    tmp_path, monkeypatch, kind, status
):
    store = tmp_path / "a.zarr"
    command = [sys.executable, "-c", SCRIPT, str(store), os.path.dirname(__file__)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(3):
        assert process.stdout.readline() == "piece\n"
    process.send_signal(kind)
    out, error = process.communicate(timeout=60)
    assert process.returncode == status, error
    assert "saving a checkpoint" in error
    done = 3 + out.count("piece")
    assert [file.name for file in (store / "checkpoints").glob("*.npz")] == ["cell.npz"]
    calls = _pieces(monkeypatch)
    axes = {"vmap": {"lr": np.asarray([0.1]), "seed": np.arange(2)}}
    resumed = jd.sweep(_run, store=store, **axes).load()
    resumed_pieces = len(calls)
    calls.clear()
    xr.testing.assert_equal(resumed, jd.sweep(_run, **axes))
    assert resumed_pieces == len(calls) - done


def test_signals_are_left_as_they_were_and_only_the_main_thread_listens():
    before = signal.getsignal(signal.SIGINT)
    with interrupt.postponed(True) as signals:
        assert signal.getsignal(signal.SIGINT) == signals.note
        signal.raise_signal(signal.SIGINT)
        assert signals.is_pending
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # the second acts
    assert signal.getsignal(signal.SIGINT) is before
    seen = []

    def elsewhere():
        with interrupt.postponed(True):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_handler_of_the_users_own_stays():
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        mine = signal.getsignal(signal.SIGTERM)
        with interrupt.postponed(True):
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_glance_counts_the_diverged_and_shows_the_loss_of_the_finite():
    taken = {
        "out": [np.zeros((4, 1, 3), np.float32)],
        "loss": [np.asarray([[9.0, 1.0], [9.0, 3.0], [9.0, np.inf], [9.0, 2.0]])],
    }
    found = glance(np.asarray([-1, -1, 5, -1]), taken)
    assert found == Glance(4, 1, "loss", (1.2, 2.0, 2.8))
    assert str(found) == "1 of 4 diverged, loss 2 (1.2 to 2.8)"
    assert str(glance(np.asarray([-1]), {})) == ""


def test_lines_tell_rate_loss_and_diverged_members(tmp_path):
    with (tmp_path / "log").open("w") as out:
        axes = {"lr": np.asarray([0.1, 1e30]), "seed": np.arange(2)}
        jd.sweep(_run, vmap=axes, progress=jd.ensemble.Lines(out, seconds=0.0))
    lines = (tmp_path / "log").read_text().splitlines()
    assert "100%" in lines[-1]
    assert "2 of 4 diverged" in lines[-1]
    assert "loss 0." in lines[-1]
    assert "member steps/s" in lines[0]
    assert "s left" in lines[0]


def test_the_bar_takes_what_the_sweep_tells_it(monkeypatch):
    bar = jd.ensemble.Bar()
    jd.sweep(lambda seed: _run(0.1, seed), vmap={"seed": np.arange(2)}, progress=bar)
    task = bar._bar.tasks[0]
    assert task.completed == task.total == 64
    assert "loss" in task.fields["glance"]


def test_the_first_cell_is_compiled_while_the_store_is_made_and_the_next_while_it_runs(monkeypatch):
    told = []
    real = Programme.compile_in

    def noted(self, pool):
        if not self._compiling:
            told.append(("compile", self.placement.num_members))
        return real(self, pool)

    class Told(jd.ensemble.Silent):
        def start(self, num_cells, work):
            told.append(("store", None))

        def begin(self):
            told.append(("run", None))

    monkeypatch.setattr(Programme, "compile_in", noted)
    jd.sweep(_run, loop={"lr": [0.1, 0.2, 0.3]}, vmap={"seed": np.arange(2)}, progress=Told())
    kinds = [kind for kind, _ in told]
    assert kinds[:4] == ["compile", "compile", "store", "run"]  # the second cell before the first has begun
    assert kinds.count("run") == 3


def test_a_condition_with_code_inside_is_the_same_in_every_process():
    """A generator within it has an address, and a set an order, which are others each time."""
    sweep = importlib.import_module("jaxdyn.ensemble.sweep")

    def made(text):
        return eval(f"lambda values: {text}")

    inside = "any(name in {'loss', 'change', 'norm'} for name in values)"
    found = {sweep._code(made(inside)) for _ in range(5)}
    program = (
        "import importlib; sweep = importlib.import_module('jaxdyn.ensemble.sweep'); "
        f'print(sweep._code(eval("lambda values: {inside}")))'
    )
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        found.add(done.stdout.strip())
    assert len(found) == 1
    assert sweep._code(made(inside.replace("norm", "gap"))) not in found
