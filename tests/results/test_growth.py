"""A store grows by what it lacks, keeps every finished bit, reads what it has, and refuses in words what is another sweep."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import jaxdyn as jd

TASK = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=5, n=16)
EXPAND = {"full": jd.exact, "linear": jd.linear}
start = importlib.import_module("jaxdyn.ensemble.compiling.programme").Programme.start


def _run(expand, seed, lr=0.1, task=TASK, steps=4):
    model = jd.models.mlp((5, 8, 1), activation=jnp.tanh)
    return jd.Training(
        model, task, optax.sgd(lr), steps=steps, key=jax.random.key(seed), expand=expand,
        record=jd.record(jd.every(2), loss=jd.probes.Loss(), out=jd.probes.Outputs()),
    )  # fmt: skip


def _axes(seeds, *labels):
    return {"loop": {"expand": {label: EXPAND[label] for label in labels}}, "vmap": {"seed": np.asarray(seeds)}}


@pytest.fixture
def members(monkeypatch):
    """How many members each cell that runs has."""
    found = []

    def counted(self, arguments):
        found.append(len(jax.tree.leaves(arguments)[0]))
        return start(self, arguments)

    monkeypatch.setattr("jaxdyn.ensemble.compiling.programme.Programme.start", counted)
    return found


def _assert_alone(dataset, expand, seed):
    alone = jd.train(_run(EXPAND[expand], seed)).values
    np.testing.assert_allclose(dataset.loss.sel(expand=expand, seed=seed), alone["loss"], rtol=1e-5)
    np.testing.assert_allclose(dataset.out.sel(expand=expand, seed=seed), alone["out"], rtol=1e-4, atol=1e-6)


def test_more_seeds_and_labels_compute_what_is_missing_and_nothing_else(tmp_path, members):
    path = tmp_path / "a.zarr"
    old = jd.sweep(_run, store=path, keep_params=True, attrs={"config": "three"}, **_axes([0, 1, 2], "full")).load()
    new = jd.sweep(
        _run, store=path, keep_params=True, attrs={"config": "five"}, **_axes(range(5), "full", "linear")
    ).load()
    assert members == [3, 2, 5]
    assert new.done.all()
    assert new.seed.values.tolist() == [0, 1, 2, 3, 4]
    xr.testing.assert_equal(new.sel(expand=["full"], seed=[0, 1, 2]), old)
    _assert_alone(new, "full", 4)
    _assert_alone(new, "linear", 1)
    direct = xr.open_zarr(path, chunks=None)
    xr.testing.assert_equal(direct.load(), new)
    assert direct.attrs["config"] == new.attrs["config"] == "five"
    xr.testing.assert_equal(jd.sweep(_run, store=path, **_axes(range(5), "full", "linear")).load(), new)
    assert members == [3, 2, 5]
    kept = jd.results.params(path, expand="linear", seed=4)
    alone = jd.train(_run(jd.linear, 4)).final.params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), kept, alone)


def test_fewer_values_in_any_order_are_read_and_nothing_is_computed(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    whole = jd.sweep(_run, store=path, attrs={"config": "all"}, **_axes(range(4), "full")).load()

    def forbidden(*_):
        raise AssertionError("nothing should be computed")

    monkeypatch.setattr("jaxdyn.ensemble.compiling.programme.Programme.start", forbidden)
    some = jd.sweep(_run, store=path, attrs={"config": "some"}, **_axes([3, 1], "full")).load()
    xr.testing.assert_equal(some, whole.sel(seed=[3, 1]))
    assert some.attrs["config"] == "some"
    assert jd.results.open(path).attrs["config"] == "all"


def test_a_store_grows_in_steps_that_share_chunks(tmp_path, members):
    path = tmp_path / "a.zarr"
    first = jd.sweep(_run, store=path, **_axes([0, 1, 2], "full")).load()
    second = jd.sweep(_run, store=path, **_axes([4, 3, 2, 1, 0], "full")).load()
    assert second.seed.values.tolist() == [4, 3, 2, 1, 0]
    third = jd.sweep(_run, store=path, **_axes([5, 6, 7, 8], "full")).load()
    assert members == [3, 2, 4]
    whole = jd.results.open(path).load()
    assert whole.seed.values.tolist() == [0, 1, 2, 4, 3, 5, 6, 7, 8]
    for part in (first, second, third):
        xr.testing.assert_equal(whole.sel(seed=part.seed), part)
    _assert_alone(whole, "full", 3)


def test_growth_that_is_cut_off_goes_on(tmp_path, monkeypatch, members):
    path = tmp_path / "a.zarr"
    old = jd.sweep(_run, store=path, **_axes([0, 1], "full")).load()
    tiling = importlib.import_module("jaxdyn.results.store")
    real = tiling.extend

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tiling, "extend", fail)
    with pytest.raises(KeyboardInterrupt):
        jd.sweep(_run, store=path, **_axes(range(4), "full"))
    xr.testing.assert_equal(jd.results.open(path).load(), old)
    monkeypatch.setattr(tiling, "extend", real)
    with pytest.raises(KeyboardInterrupt):
        jd.sweep(_run, store=path, progress=_Stopped(), **_axes(range(4), "full"))
    assert int(jd.results.open(path).done.sum()) == 2
    found = jd.sweep(_run, store=path, **_axes(range(4), "full")).load()
    assert members == [2, 2]
    xr.testing.assert_equal(found.sel(seed=[0, 1]), old)
    _assert_alone(found, "full", 3)


class _Stopped(jd.ensemble.Silent):
    """Interrupts the first cell that would run."""

    def begin(self):
        raise KeyboardInterrupt


def test_an_unfinished_cell_of_which_less_is_asked_is_cut_anew(tmp_path, members):
    path = tmp_path / "a.zarr"
    with pytest.raises(KeyboardInterrupt):
        jd.sweep(_run, store=path, progress=_Stopped(), **_axes(range(4), "full"))
    two = jd.sweep(_run, store=path, **_axes([0, 2], "full")).load()
    four = jd.sweep(_run, store=path, **_axes(range(4), "full")).load()
    assert members == [2, 2]
    assert four.done.all()
    xr.testing.assert_equal(four.sel(seed=[0, 2]), two)


@pytest.mark.parametrize(
    ("change", "axes", "words"),
    [
        ({}, {"seed": np.arange(2), "lr": np.asarray([0.1])}, r"its axes are \['expand', 'seed'\], asked were .*'lr'"),
        ({"task": jd.tasks.polynomial(jax.random.key(9), degree=2, dim=5, n=16)}, {"seed": np.arange(2)}, "task, anchor"),
        ({"steps": 6}, {"seed": np.arange(3)}, "`steps` was 4 and is 6 now"),
    ],
    ids=["axes", "task", "steps"],
)  # fmt: skip
def test_what_differs_is_refused_in_words_and_nothing_need_be_deleted(tmp_path, change, axes, words):
    path = tmp_path / "a.zarr"
    loop = {"expand": {"full": jd.exact}}
    jd.sweep(_run, store=path, **_axes([0, 1], "full"))
    with pytest.raises(ValueError, match=words) as caught:
        jd.sweep(lambda expand, seed, lr=0.1: _run(expand, seed, lr, **change), store=path, loop=loop, vmap=axes)
    assert "delete" not in str(caught.value)
    assert jd.results.open(path).seed.values.tolist() == [0, 1]


def test_another_value_under_a_label_is_refused_with_the_values(tmp_path):
    path = tmp_path / "a.zarr"
    scales = {"vmap": {"scale": {"lr": np.asarray([0.1, 0.2])}}}
    jd.sweep(lambda scale: _run(jd.exact, 0, scale["lr"]), store=path, **scales)
    with pytest.raises(
        ValueError, match=r"axis `scale`: the value at 1 is another .* 2 values, 0, 1, asked were 3 values, 0, 1, 2"
    ):
        jd.sweep(
            lambda scale: _run(jd.exact, 0, scale["lr"]),
            store=path, vmap={"scale": {"lr": np.asarray([0.1, 0.3, 0.4])}},
        )  # fmt: skip


def test_widths_grow_into_cells_of_their_own(tmp_path, members):
    def run(width, seed):
        model = jd.models.mlp((5, width, 1), activation=jnp.tanh)
        record = jd.record(jd.every(2), loss=jd.probes.Loss())
        return jd.Training(model, TASK, optax.sgd(0.1), steps=4, key=jax.random.key(seed), record=record)

    path = tmp_path / "a.zarr"
    old = jd.sweep(run, store=path, vmap={"width": jd.widths([4, 8]), "seed": np.arange(2)}).load()
    new = jd.sweep(run, store=path, vmap={"width": jd.widths([2, 4, 8]), "seed": np.arange(3)}).load()
    assert members == [4, 3, 2]
    assert new.done.all()
    assert new.width.values.tolist() == [2, 4, 8]
    xr.testing.assert_equal(new.sel(width=[4, 8], seed=[0, 1]), old)
    for width, seed in ((2, 0), (8, 2)):
        np.testing.assert_allclose(
            new.loss.sel(width=width, seed=seed), jd.train(run(width, seed)).values["loss"], rtol=1e-5
        )
