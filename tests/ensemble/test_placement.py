"""Where members run changes nothing: devices, blocks, padding and a resume elsewhere leave every bit as it is."""

import json
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import jaxdyn as jd
from jaxdyn.ensemble.compiling.placement import place, sound_partitioner
from jaxdyn.ensemble.deciding import cost, memory
from jaxdyn.ensemble.deciding.speed import Speed

TASK = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=5, n=16)


def _run(seed, lr=0.05, width=8, steps=20):
    model = jd.models.mlp((5, width, width, 1), activation=jnp.tanh)
    return jd.Training(
        model, TASK, optax.adam(lr), steps=steps, key=jax.random.key(seed), sampler=jd.minibatch(5),
        record=(
            jd.record(jd.every(1), loss=jd.probes.Loss()),
            jd.record(jd.every(5), dim="seldom", norm=jd.probes.NTKNorm(TASK.x)),
        ),
    )  # fmt: skip


SCRIPT = textwrap.dedent(
    """
    import sys, json, numpy as np, jax
    sys.path.insert(0, "tests/ensemble")
    import jaxdyn as jd
    from jaxdyn.ensemble.deciding import cost
    import test_placement
    chunk, store, stop = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    cost.members_together = lambda *_: chunk
    class CutOff(jd.ensemble.Silent):
        left = stop
        def advance(self, work, glance):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
    try:
        jd.sweep(test_placement._run, vmap={"seed": np.arange(7)}, store=store, checkpoint_every=0, progress=CutOff())
    except KeyboardInterrupt:
        pass
    print(jax.device_count())
    """
)


def _elsewhere(devices, chunk, store, stop=-1):
    """The sweep in a process of so many devices, with a compile cache as the `jaxdyn` command has it."""
    environment = {
        **os.environ, "NPROC": "8", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.getcwd(), "JAX_COMPILATION_CACHE_DIR": str(store.parent / f"compiled-{devices}"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }  # fmt: skip
    command = [sys.executable, "-c", SCRIPT, str(chunk), str(store), str(stop)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(devices)]
    return jd.results.open(store).load()


@pytest.mark.parametrize(("chunk", "tolerance"), [(1, 0.0), pytest.param(2, 1e-4, marks=pytest.mark.slow)])
def test_one_device_and_four_agree_and_so_does_a_sweep_begun_on_one_and_ended_on_four(tmp_path, chunk, tolerance):
    """In sequence bit for bit; in vmapped chunks to rounding."""
    one = _elsewhere(1, chunk, tmp_path / "one")
    four = _elsewhere(4, chunk, tmp_path / "four")
    assert (one.attrs["devices_used"], four.attrs["devices_used"]) == (1, 4)
    assert one.attrs["members_at_a_time"] == four.attrs["members_at_a_time"] == [chunk]
    _elsewhere(1, chunk, tmp_path / "moved", stop=5)
    assert not jd.results.open(tmp_path / "moved").done.any()
    for other in (four, _elsewhere(4, chunk, tmp_path / "moved")):
        xr.testing.assert_allclose(other, one, rtol=tolerance, atol=0.0)


@pytest.mark.skipif(jax.local_device_count() < 2, reason="needs two devices, which tests/conftest.py makes on a CPU")
def test_members_on_several_devices_never_talk_to_each_other():
    plan = jd.ensemble.plan(_run, vmap={"seed": np.arange(6)})
    programme = plan.programme(plan.cells[0])
    assert len(programme.placement.devices) == jax.local_device_count()
    for compiled in programme.compiled:
        text = compiled.as_text()
        assert not [word for word in ("all-reduce", "all-gather", "collective-permute", "all-to-all") if word in text]


@pytest.mark.parametrize(
    ("members", "chunk", "devices", "padded"), [(7, 2, 2, 8), (1, 4, 1, 1), (5, 1, 2, 6), (9, 4, 2, 16)]
)
def test_members_are_padded_to_devices_times_chunk_and_no_device_idles(members, chunk, devices, padded):
    found = place(members, chunk)
    assert (len(found.devices), found.padded) == (devices, padded)
    keys = found.pad(jax.random.split(jax.random.key(0), members))
    numbers = found.pad(jnp.arange(members))
    assert numbers.tolist() == [min(i, members - 1) for i in range(padded)]
    assert keys.shape == (padded,)


def test_a_sweep_cut_into_blocks_is_the_sweep_in_one(tmp_path):
    axes = {"vmap": {"width": jd.widths([4, 8]), "seed": np.arange(3), "lr": np.asarray([0.01, 0.02])}}
    one = jd.sweep(_run, **axes)
    store = tmp_path / "blocks.zarr"
    many = jd.sweep(_run, store=store, memory=_tight(axes), keep_params=True, **axes)
    assert many.attrs["layout"]["block"] != one.attrs["layout"]["block"]
    assert many.done.all()
    np.testing.assert_allclose(many.loss, one.loss, rtol=1e-4)
    member = jd.results.params(store, width=4, seed=2, lr=0.02)
    assert member["dense_1"]["weight"].shape == (4, 4)
    alone = jd.train(_run(2, 0.02, 4)).final.params
    np.testing.assert_allclose(member["dense_1"]["weight"], alone["dense_1"]["weight"], rtol=1e-3, atol=1e-5)


def _tight(axes):
    """A budget that holds the states of a third of the members."""
    cell = jd.ensemble.plan(_run, **axes).cells[0]
    members = cell.num_members // 3 // jax.local_device_count()
    return 2 * members * memory.of_member(cell.step, cell.records)


def test_blocks_are_resumed_one_by_one_and_as_they_were_cut(tmp_path):
    axes = {"vmap": {"seed": np.arange(24)}}
    store, tight = tmp_path / "a.zarr", _tight(axes)
    whole = jd.sweep(_run, memory=tight, **axes)
    blocks = len(whole.attrs["cells"])
    assert blocks > 2

    class CutOff(jd.ensemble.Silent):
        cells = 0

        def cell(self, name, num_members):
            self.cells += 1
            if self.cells == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jd.sweep(_run, store=store, memory=tight, progress=CutOff(), **axes)
    done = jd.results.open(store).done.values
    assert 0 < done.sum() < 24
    found = jd.sweep(_run, store=store, **axes)  # the budget is another one now, the blocks are those of the store
    assert found.attrs["layout"] == whole.attrs["layout"]
    xr.testing.assert_equal(found.load(), whole)


def test_what_cannot_fit_is_refused_before_it_starts_with_what_it_needs():
    with pytest.raises(ValueError, match=r"one member at a time.*budget is 5 kB.*memory="):
        jd.sweep(_run, vmap={"seed": np.arange(2)}, memory=5_000)
    with pytest.raises(ValueError, match="positive"):
        jd.sweep(_run, vmap={"seed": np.arange(2)}, memory=0)


def test_the_memory_of_a_plan_is_what_xla_plans_and_grows_with_the_members():
    small, large = (jd.ensemble.plan(_run, vmap={"seed": np.arange(n)}) for n in (4, 64))
    held = [plan.memory(plan.cells[0]) for plan in (small, large)]
    state = large.cells[0].step.state
    assert held[1] - held[0] > 60 / jax.local_device_count() * state
    assert held[1] < 64 * 20 * state + 10**6


def test_a_step_counts_its_products_three_times():
    model = jd.models.mlp((5, 64, 64, 1), activation=jnp.tanh)

    def run(values):
        return jd.Training(model, TASK, optax.sgd(0.1), steps=1, key=jax.random.key(values["seed"]))

    found = cost.step(run, {"seed": 0})
    products = 3 * 2 * 16 * (5 * 64 + 64 * 64 + 64)
    assert products <= found.flops <= 1.2 * products
    assert found.state == 4 * (5 * 64 + 64 * 64 + 64) + 2 * 4  # step and diverged_at
    assert found.examples == 16


@pytest.mark.parametrize(
    ("flops", "members", "together"), [(1e7, 64, 1), (1.2e6, 64, 1), (4e5, 64, 4), (5e4, 64, 32), (10.0, 64, 64)]
)
def test_small_members_run_together_and_large_ones_in_sequence_on_a_cpu(flops, members, together, monkeypatch):
    monkeypatch.setattr(cost, "speed", lambda: Speed(1e11, 5e-6, 2e6))
    assert cost.members_together(cost.Step(flops, 0.0, 0, 1), members) == together


def test_a_plan_says_what_runs():
    text = str(jd.ensemble.plan(_run, loop={"width": [8, 16]}, vmap={"seed": np.arange(6)}))
    assert "2 cells, 12 members, 2 compilations" in text
    assert "flops a member step" in text


def test_ten_thousand_members_take_few_files(tmp_path):
    def tiny(seed):
        model = jd.models.mlp((5, 4, 1), activation=jnp.tanh)
        record = jd.record(jd.at([0, 5]), loss=jd.probes.Loss())
        return jd.Training(model, TASK, optax.sgd(0.01), steps=5, key=jax.random.key(seed), record=record)

    ds = jd.sweep(tiny, vmap={"seed": np.arange(10_000)}, store=tmp_path / "members.zarr")
    assert ds.done.all()
    assert len([f for f in (tmp_path / "members.zarr" / "loss").rglob("*") if f.is_file()]) <= 10
    assert float(ds.loss.isel(seed=9_999, step=1)) == pytest.approx(
        float(jd.train(tiny(9_999)).values["loss"][1]), rel=1e-4
    )


@pytest.mark.parametrize("num", [0, -1])
def test_no_devices_are_refused(num):
    with pytest.raises(ValueError, match="at least 1"):
        jd.ensemble.use_cores(num)


@pytest.mark.parametrize(("collectives", "num_threads"), [(False, "3"), (True, "6")])
def test_use_cores_makes_devices_before_jax_starts_and_refuses_afterwards(collectives, num_threads):
    script = textwrap.dedent(
        f"""
        import json, os, jax
        import jaxdyn as jd
        made = jd.ensemble.use_cores(3, collectives={collectives})
        found = [made, jax.local_device_count(), os.environ["NPROC"]]
        try:
            jd.ensemble.use_cores(2)
        except RuntimeError as error:
            found.append(str(error))
        print(json.dumps(found))
        """
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "NPROC")}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**environment, "PYTHONPATH": os.getcwd()}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    made, devices, threads, words = json.loads(done.stdout)
    assert (made, devices, threads) == (3, 3, num_threads)
    assert "xla_force_host_platform_device_count=2" in words


def test_the_partitioner_is_another_only_where_it_kills_and_only_meanwhile(monkeypatch):
    option = "jax_use_shardy_partitioner"
    if option not in jax.config.values:
        pytest.skip("this JAX has one partitioner")
    before = jax.config.values[option]
    for version, inside in (("0.11.2", False), ("0.10.2", before), ("0.12.0", before)):
        monkeypatch.setattr(jax, "__version__", version)
        with sound_partitioner():
            assert jax.config.values[option] == inside
        assert jax.config.values[option] == before
    monkeypatch.setattr(jax, "__version__", "0.11.2")
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    with sound_partitioner():
        assert jax.config.values[option] == before
