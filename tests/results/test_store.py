"""A store holds a sweep: resumed where it stopped, refused where it belongs to another, never half written."""

import errno
import importlib
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import jaxdyn as jd
from jaxdyn.results.places import exclusive

TASK = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=5, n=16)
AXES = {
    "loop": {"expand": {"full": jd.exact, "linear": jd.linear}},
    "vmap": {"width": jd.widths([4, 8]), "seed": np.arange(2)},
}


def _run(expand, width, seed, task=TASK, rate=0.1, steps=6):
    model = jd.models.mlp((5, width, 1), activation=jnp.tanh)
    return jd.Training(
        model, task, optax.sgd(rate), steps=steps, key=jax.random.key(seed), expand=expand,
        record=jd.record(jd.every(2), loss=jd.probes.Loss(), out=jd.probes.Outputs()),
    )  # fmt: skip


def test_a_store_holds_what_the_sweep_returns(tmp_path):
    path = tmp_path / "a.zarr"
    stored, plain = jd.sweep(_run, store=path, **AXES), jd.sweep(_run, **AXES)
    xr.testing.assert_equal(stored.load(), plain)
    direct = xr.open_zarr(path, chunks=None)  # one line, no warning, no jaxdyn
    assert bool(direct.done.all())
    np.testing.assert_array_equal(direct.loss, plain.loss)


def test_attributes_tell_where_the_numbers_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "jaxdyn.ensemble.compiling.programme.Programme.compile_in", lambda *_: None
    )  # nothing ahead: it waits for XLA
    attrs = jd.sweep(_run, store=tmp_path / "a.zarr", attrs={"experiment": "mine"}, **AXES).attrs
    assert attrs["experiment"] == "mine"
    assert attrs["versions"]["jax"] == jax.__version__
    assert attrs["device_kind"] == "cpu"
    assert attrs["precision"] == ["highest"]
    assert attrs["seconds_tracing"] > 0
    assert attrs["seconds_compiling"] > 0
    assert "mse" in attrs["losses"][0]
    json.dumps(attrs)


def test_running_again_computes_nothing_and_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    first = jd.sweep(_run, store=path, **AXES).load()
    monkeypatch.setattr("jaxdyn.ensemble.compiling.programme.Programme.start", _forbidden)
    xr.testing.assert_identical(jd.sweep(_run, store=path, **AXES).load().drop_attrs(), first.drop_attrs())


def test_a_resumed_store_equals_the_uninterrupted_one_bit_for_bit(tmp_path, monkeypatch):
    whole = jd.sweep(_run, store=tmp_path / "whole.zarr", **AXES).load()
    path = tmp_path / "cut.zarr"

    class Interrupt(jd.ensemble.Silent):
        def cell(self, name, num_members):
            if "linear" in name:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jd.sweep(_run, store=path, progress=Interrupt(), **AXES)
    half = jd.results.open(path)
    assert half.done.sel(expand="full").all()
    assert not half.done.sel(expand="linear").any()
    assert np.isnan(half.loss.sel(expand="linear")).all()
    xr.testing.assert_equal(jd.sweep(_run, store=path, **AXES).load(), whole)


def test_an_interrupted_write_is_done_again(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    whole = jd.sweep(_run, store=path, **AXES).load()
    commit = sorted(place for place in (path / "cells").iterdir() if place.is_dir())[-1]
    shutil.rmtree(commit)  # killed after the values, before the commit record
    for file in [f for f in (path / "loss" / "c" / "1").rglob("*") if f.is_file()]:
        file.unlink()
    xr.testing.assert_equal(jd.sweep(_run, store=path, **AXES).load(), whole)


@pytest.mark.parametrize(
    ("other", "axes", "words"),
    [
        ({"rate": 0.2}, AXES, "programme itself"),
        (
            {"task": jd.tasks.polynomial(jax.random.key(9), degree=2, dim=5, n=16)},
            AXES,
            "arrays that `run` closes over",
        ),
        ({"steps": 8}, AXES, "steps"),
    ],
    ids=["code", "data", "steps"],
)
def test_a_changed_sweep_is_refused_and_the_difference_named(tmp_path, other, axes, words):
    path = tmp_path / "a.zarr"
    jd.sweep(_run, store=path, **AXES)
    with pytest.raises(ValueError, match=rf"belongs to another sweep.*{words}"):
        jd.sweep(lambda expand, width, seed: _run(expand, width, seed, **other), store=path, **axes)


def test_another_version_is_refused_by_name(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    jd.sweep(_run, store=path, **AXES)
    monkeypatch.setattr(importlib.import_module("jaxdyn.ensemble.sweep"), "versions", lambda: {"jax": "0.0.0"})
    with pytest.raises(ValueError, match=r"version.*jax"):
        jd.sweep(_run, store=path, **AXES)


def test_what_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "precious").mkdir()
    with pytest.raises(ValueError, match="no jaxdyn store"):
        jd.sweep(_run, store=tmp_path / "precious", **AXES)
    with pytest.raises(ValueError, match="no jaxdyn store"):
        jd.results.open(tmp_path / "nothing")


def test_a_full_disk_loses_nothing_that_was_computed(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    whole = jd.sweep(_run, **AXES)
    write, calls = jd.results.Store.write, []

    def full(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, *arguments)

    monkeypatch.setattr(jd.results.Store, "write", full)
    with pytest.raises(jd.results.StoreError, match=r"No space left.*free space") as caught:
        jd.sweep(_run, store=path, **AXES)
    np.testing.assert_array_equal(caught.value.dataset.loss, whole.loss)  # the unwritten cell included
    assert caught.value.dataset.done.all()
    xr.testing.assert_equal(jd.sweep(_run, store=path, **AXES).load(), whole)


def test_a_store_in_a_read_only_place_says_so(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("zarr.create_group", refuse)
    with pytest.raises(jd.results.StoreError, match="Permission denied"):
        jd.sweep(_run, store=tmp_path / "a.zarr", **AXES)


def test_a_corrupted_chunk_is_an_error_not_a_wrong_number(tmp_path):
    path = tmp_path / "a.zarr"
    jd.sweep(_run, store=path, **AXES)
    chunk = next(f for f in (path / "out" / "c").rglob("*") if f.is_file())
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        jd.results.open(path).load()


@pytest.mark.parametrize("harm", ["flip", "cut", "lose"])
def test_a_damaged_cell_is_found_out_and_computed_again_and_no_other(tmp_path, monkeypatch, harm):
    path = tmp_path / "a.zarr"
    whole = jd.sweep(_run, store=path, **AXES).load()
    chunk = next(f for f in (path / "out" / "c" / "1").rglob("*") if f.is_file())
    data = bytearray(chunk.read_bytes())
    if harm == "lose":
        chunk.unlink()
    elif harm == "cut":
        chunk.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 0xFF
        chunk.write_bytes(data)
    started = []
    start = importlib.import_module("jaxdyn.ensemble.compiling.programme").Programme.start
    monkeypatch.setattr(
        "jaxdyn.ensemble.compiling.programme.Programme.start", lambda self, a: (started.append(1), start(self, a))[1]
    )
    with pytest.warns(RuntimeWarning, match=r"linear.*damaged.*computed again"):
        found = jd.sweep(_run, store=path, **AXES)
    assert len(started) == 1
    xr.testing.assert_equal(found.load(), whole)


def test_a_store_may_lie_behind_a_url(tmp_path):
    url = f"memory://{tmp_path.name}/a.zarr"
    plain = jd.sweep(_run, **AXES)
    stored = jd.sweep(_run, store=url, **AXES)
    xr.testing.assert_equal(stored.load(), plain)
    xr.testing.assert_equal(jd.results.open(url).load(), plain)
    before = stored.attrs["seconds_running"]
    assert jd.sweep(_run, store=url, **AXES).attrs["seconds_running"] == before  # nothing was computed
    with pytest.raises(ValueError, match="programme itself"):
        jd.sweep(lambda expand, width, seed: _run(expand, width, seed, rate=0.2), store=url, **AXES)
    with pytest.raises(ValueError, match="a path"):
        jd.sweep(_run, store=url, keep_params=True, **AXES)
    with pytest.raises(ValueError, match="no jaxdyn store"):
        jd.results.open("memory://nowhere/a.zarr")


def test_a_url_without_its_package_names_the_remedy():
    with pytest.raises(ValueError, match="pip install"):
        jd.results.open("nonsense://bucket/a.zarr")


def test_final_parameters_come_back_as_the_unpadded_pytree(tmp_path):
    path = tmp_path / "a.zarr"
    jd.sweep(_run, store=path, keep_params=True, **AXES)
    for width in (4, 8):
        found = jd.results.params(path, expand="full", width=width, seed=1)
        alone = jd.train(_run(jd.exact, width, 1)).final.params
        assert jax.tree.structure(found) == jax.tree.structure(alone)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    both = jd.results.params(path, expand="linear", width=4)
    assert both["dense_0"]["weight"].shape == (2, 5, 4)
    xr.open_zarr(path, chunks=None)


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"expand": "cubic"}, "cubic"),
        ({"lr": 0.1}, "lr"),
        ({"expand": "full", "seed": 0}, "different shapes"),
    ],
)
def test_a_bad_selection_of_parameters_is_refused_by_name(tmp_path, selection, words):
    path = tmp_path / "a.zarr"
    jd.sweep(_run, store=path, keep_params=True, **AXES)
    with pytest.raises(ValueError, match=words):
        jd.results.params(path, **selection)


def test_parameters_that_were_not_kept_are_refused_with_the_remedy(tmp_path):
    jd.sweep(_run, store=tmp_path / "a.zarr", **AXES)
    with pytest.raises(ValueError, match="keep_params=True"):
        jd.results.params(tmp_path / "a.zarr", expand="full", width=4, seed=0)
    with pytest.raises(ValueError, match="store="):
        jd.sweep(_run, keep_params=True, **AXES)


def test_one_trajectory_is_a_dataset_too():
    training = _run(jd.exact, 8, 0)
    trajectory = jd.train(training)
    ds = jd.results.dataset(training, trajectory)
    assert ds.loss.dims == ("step",)
    assert ds.out.dims == ("step", "example", "output")
    np.testing.assert_array_equal(ds.loss, trajectory.values["loss"])


def _forbidden(*arguments):
    raise AssertionError("nothing should be computed")


def test_two_runs_on_one_store_at_once_are_refused_and_the_other_named(tmp_path):
    path = tmp_path / "a.zarr"
    whole = jd.sweep(_run, store=path, **AXES).load()
    with (
        exclusive(path),
        pytest.raises(ValueError, match=rf"written by another run \(process {os.getpid()} on "),
    ):
        jd.sweep(_run, store=path, **AXES)
    xr.testing.assert_equal(jd.sweep(_run, store=path, **AXES).load(), whole)
