"""The doctor finds what is there, and gives advice exactly where something is slow."""

import dataclasses
import os

import jax
import pytest

from jaxdyn import cli, doctor

SOUND = doctor.Findings(
    versions={"jaxdyn": "0.1.0"},
    devices=["cpu"],
    backend="cpu",
    is_gpu_present=False,
    num_cores=2,
    settings={},
    cache=("/cache", 3, 10**6, True),
    matmul_rate=1e11,
    eigh_alone=0.003,
    eigh_inside=0.004,
)


def test_a_sound_setup_gets_no_advice():
    assert doctor.advise(SOUND) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"is_gpu_present": True}, "runs on the CPU"),
        ({"eigh_inside": 0.05}, "OPENBLAS_NUM_THREADS=1"),
        ({"devices": ["cpu"] * 4}, "NPROC=8"),
        ({"cache": ("/cache", 0, 0, False)}, "JAX_COMPILATION_CACHE_DIR"),
        ({"settings": {"JAX_ENABLE_X64": "1"}, "backend": "gpu"}, "Double precision"),
    ],
)
def test_each_fault_gets_its_remedy_and_no_other(change, words):
    (advice,) = doctor.advise(dataclasses.replace(SOUND, **change))
    assert words in advice


def test_examine_measures_this_machine(tmp_path):
    (tmp_path / "programme").write_bytes(b"123")
    found = doctor.examine(str(tmp_path))
    assert found.versions["jax"] == jax.__version__
    assert found.devices == [device.device_kind for device in jax.devices()]
    assert found.cache == (str(tmp_path), 1, 3, True)
    assert found.num_cores <= (os.cpu_count() or 1)
    assert found.matmul_rate > 1e8
    assert 0 < found.eigh_alone < 5


def test_a_folder_that_cannot_be_made_is_not_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert not doctor.examine(str(tmp_path / "missing")).cache[3]


def test_the_command_prints_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "GFLOP/s" in printed
    assert str(tmp_path) in printed
