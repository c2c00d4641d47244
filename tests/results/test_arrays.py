"""Pytrees of arrays in one file come back as they were, or not at all."""

import collections
import errno

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxdyn.results.arrays import load_arrays, save_arrays

Pair = collections.namedtuple("Pair", "left right")


def test_nested_trees_come_back_as_dictionaries_and_lists(tmp_path):
    tree = {
        "layers": [{"weight": np.arange(6.0).reshape(2, 3)}, {"weight": np.zeros((0, 2), np.int8)}],
        "pair": Pair(np.float32(3.0), jnp.asarray([True, False])),
        "half": jnp.asarray([1.5, -2.0], jnp.bfloat16),
    }
    save_arrays(tmp_path / "deep" / "a.npz", tree, {"index": {"seed": [0, 1]}})
    found, told = load_arrays(tmp_path / "deep" / "a.npz")
    assert told == {"index": {"seed": [0, 1]}}
    np.testing.assert_array_equal(found["layers"][0]["weight"], tree["layers"][0]["weight"])
    assert found["layers"][1]["weight"].shape == (0, 2)
    assert found["pair"]["left"] == 3.0
    assert found["pair"]["right"].tolist() == [True, False]
    assert found["half"].dtype == ml_dtypes.bfloat16
    assert found["half"].astype(float).tolist() == [1.5, -2.0]


def test_a_single_array_is_a_tree(tmp_path):
    save_arrays(tmp_path / "a.npz", np.arange(3))
    assert load_arrays(tmp_path / "a.npz")[0].tolist() == [0, 1, 2]


def test_a_failing_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    save_arrays(tmp_path / "a.npz", np.arange(3))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("jaxdyn.results.arrays.np.savez", full)
    with pytest.raises(OSError, match="No space left"):
        save_arrays(tmp_path / "a.npz", np.arange(4))
    assert load_arrays(tmp_path / "a.npz")[0].tolist() == [0, 1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip file"])
def test_what_is_no_such_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz.*damaged"):
        load_arrays(tmp_path / "a.npz")
