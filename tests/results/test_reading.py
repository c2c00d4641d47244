"""What was written and is gone is an error; what was never computed reads as missing values."""

import pickle
import shutil

import numpy as np
import pytest
import xarray as xr
import zarr

from jaxdyn import cli, results
from jaxdyn.results.store import WHOLE

LABELS = {"rate": np.array([0.0, 0.5]), "seed": np.arange(4)}
VALUES = {
    "loss": np.full((2, 4, 3), np.nan, np.float32),  # the first cell: a finished run that is NaN all over
    "diverged_at": np.full((2, 4), -1),  # and never diverged: fill values, all of them
}
CELLS = [(0, slice(0, 2)), (0, slice(2, 4)), (1, slice(0, 2)), (1, slice(2, 4))]


def _template():
    fields = {
        "loss": results.Field(("rate", "seed", "step"), (2, 4, 3), np.dtype(np.float32), np.float32(np.nan)),
        "diverged_at": results.Field(("rate", "seed"), (2, 4), np.dtype(np.int32), np.int32(-1)),
        "done": results.Field(("rate", "seed"), (2, 4), np.dtype(bool), False),
    }
    return results.Template(("rate", "seed"), {"seed": 2}, fields, LABELS | {"step": np.array([0, 10, 20])})


def _write(where, cells):
    store = results.create_or_open(where, _template(), {"axis": {}, "record": {}}, {})
    for number in cells:
        index = CELLS[number]
        values = {name: value[index] for name, value in VALUES.items()}
        if number:
            values["loss"] = np.full_like(values["loss"], number)
        store.write(f"cell-{number}", index, values, {})
    return store


@pytest.fixture
def store(tmp_path):
    _write(tmp_path / "a.zarr", [0, 1, 2])
    return tmp_path / "a.zarr"


def test_members_that_are_not_finished_read_as_missing_values_and_finished_ones_as_they_are(store):
    found = results.open(store)
    assert WHOLE not in found.attrs
    expected = np.full((2, 4, 3), np.nan)
    expected[0, 2:], expected[1, :2] = 1, 2
    np.testing.assert_array_equal(found["loss"], expected)
    np.testing.assert_array_equal(found["done"], [[True] * 4, [True, True, False, False]])
    np.testing.assert_array_equal(found["diverged_at"], -1)
    np.testing.assert_array_equal(found["rate"], LABELS["rate"])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found))["loss"], expected)
    xr.testing.assert_equal(xr.open_zarr(store, chunks=None), found)


@pytest.mark.parametrize("harm", ["delete", "move"])
def test_a_store_that_went_away_after_opening_is_an_error(store, harm):
    found, kept = results.open(store), results.open(store).load()
    shutil.rmtree(store) if harm == "delete" else store.rename(store.with_name("b.zarr"))
    for name in ("loss", "diverged_at", "done"):
        with pytest.raises(results.StoreError, match=rf"{store.name}' is gone.*jd\.results\.open") as caught:
            found[name].load()
        assert caught.value.dataset is None
    assert float(kept["loss"][0, 2, 0]) == 1  # in memory: nothing to lose
    if harm == "move":
        np.testing.assert_array_equal(results.open(store.with_name("b.zarr"))["loss"], kept["loss"])


@pytest.mark.parametrize("chunk", ["loss/c/0/0/0", "loss/c/0/1/0", "diverged_at/c/1/0", "seed/c/0", "rate/c/0"])
def test_a_lost_chunk_of_a_finished_cell_is_an_error_that_names_it(store, chunk):
    (store / chunk).unlink()
    with pytest.raises(results.StoreError, match=rf"damaged.*{chunk}.*store="):
        results.open(store).load()


def test_what_a_finished_cell_does_not_record_reads_as_missing_values(tmp_path):
    opened = results.create_or_open(tmp_path / "a.zarr", _template(), {"axis": {}, "record": {}}, {})
    opened.write("cell-0", CELLS[0], {"diverged_at": VALUES["diverged_at"][CELLS[0]]}, {})
    found = results.open(tmp_path / "a.zarr").load()
    assert np.isnan(found["loss"]).all()
    assert int(found["done"].sum()) == 2
    assert opened.is_intact("cell-0", CELLS[0])


def test_other_cells_of_a_damaged_store_are_still_readable(store):
    (store / "loss/c/0/0/0").unlink()
    np.testing.assert_array_equal(results.open(store)["loss"].isel(rate=1, seed=slice(0, 2)), 2)


def test_a_chunk_that_is_written_while_it_is_read_is_no_loss(store, monkeypatch):
    found, get, late = results.open(store), zarr.storage.LocalStore.get, []

    async def slow(self, key, *arguments, **options):
        value = await get(self, key, *arguments, **options)
        if key == "loss/c/1/1/0" and not late:
            late.append(1)
            return None
        return value

    _write(store, [3])
    monkeypatch.setattr(zarr.storage.LocalStore, "get", slow)
    np.testing.assert_array_equal(found["loss"].isel(rate=1, seed=slice(2, 4)), 3)
    assert late


def test_a_lost_mask_means_a_damaged_cell(store):
    opened = results.create_or_open(store, _template(), {"axis": {}, "record": {}}, {})
    assert opened.is_intact("cell-1", CELLS[1])
    (store / "done/c/0/1").unlink()
    assert not opened.is_intact("cell-1", CELLS[1])


def test_stores_of_fill_values_without_chunks_are_read_as_ever(store):
    del zarr.open_group(store, mode="r+").attrs[WHOLE]  # as written before every chunk was
    (store / "diverged_at/c/0/0").unlink()
    np.testing.assert_array_equal(results.open(store)["diverged_at"], -1)


def test_stores_in_memory_are_guarded_too():
    where = zarr.storage.MemoryStore()
    _write(where, [0, 1])
    found = results.open(where)
    assert np.isnan(found["loss"].isel(rate=1)).all()
    where._store_dict.clear()
    with pytest.raises(results.StoreError, match="is gone"):
        found["loss"].load()


def test_show_says_what_is_lost_without_a_traceback(store, capsys):
    (store / "seed/c/0").unlink()
    assert cli.main(["show", str(store)]) == 2
    told = capsys.readouterr()
    assert "error: The store" in told.err
    assert "damaged" in told.err
    assert "Traceback" not in told.err
