"""The experiment on recursive feature machines: its numbers are those of theory.rfm and geometry, its verdicts follow the data."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import jaxdyn as jd
from jaxdyn.experiments import rfm
from jaxdyn.theory import radial
from jaxdyn.theory import rfm as machines

TOY = rfm.Config(60, 3, 2, 8, 12, 20, 0.5)


@pytest.fixture(scope="module")
def toy():
    """Two of the three learners are run; the second kernel borrows the numbers of the first."""
    function, _, vmap = rfm.ensemble(TOY)
    attrs = {"config": json.dumps(dataclasses.asdict(TOY))}
    run = jd.sweep(function, loop={"learner": ["laplace", "network"]}, vmap=vmap, attrs=attrs).load()
    borrowed = run.sel(learner=["laplace"]).assign_coords(learner=["gaussian"])
    return xr.concat([run, borrowed], dim="learner", combine_attrs="override")


def test_the_dataset_has_the_documented_variables(toy):
    assert toy.machine_metric.sel(learner="laplace").isel(start=0).shape == (3, 3, 20, 20)
    assert toy.agop.sel(learner="network").shape == (3, 2, 20, 20)
    assert np.isnan(toy.agop.sel(learner="gaussian")).all()
    assert np.isnan(toy.machine_mse.sel(learner="network")).all()
    np.testing.assert_allclose(toy.relative_rate.sel(learner="network"), 1.0, rtol=1e-5)


def test_machines_are_those_of_the_theory_and_each_seed_has_its_own_data(toy):
    task = rfm.draw(jax.random.fold_in(jax.random.key(2), 1), 60)
    settings = {"kernel": radial.laplace(10.0), "ridge": 1e-3, "iterations": 2}
    found = jax.jit(lambda t: machines.fit(t.x, t.y, x_test=t.x_test, y_test=t.y_test, **settings))(task)
    here = toy.sel(learner="laplace", seed=2).isel(start=0)
    np.testing.assert_allclose(here.machine_mse, found.test_mse, rtol=1e-3)
    np.testing.assert_allclose(here.machine_metric, found.metrics, atol=1e-3 * float(jnp.max(found.metrics[-1])))
    kernel, normalise = rfm.MACHINES["gaussian"]
    assert normalise is machines.by_max
    np.testing.assert_allclose(kernel(jnp.array(10.0)), np.exp(-1))  # q = E‖x − z‖²
    assert len(np.unique(toy.machine_mse.sel(learner="laplace").isel(iteration=0))) == 3


def test_the_target_reads_three_coordinates():
    x = jax.random.normal(jax.random.key(0), (50, 20))
    y = np.array([[row[0] * row[1] if row[5] > 0 else 0.0] for row in np.asarray(x)])
    np.testing.assert_allclose(rfm.target(x), y)
    assert 5 < np.count_nonzero(y) < 45


def test_the_ansatz_is_the_one_of_explicit_matrices():
    """Gradients of a network with two hidden layers by hand, in numpy."""
    task = rfm.draw(jax.random.key(3), 30)
    model = jd.models.mlp((20, 6, 7, 1), activation=jax.nn.relu, scaling=jd.models.maximal_update)
    params0, params = model.init(jax.random.key(0)), model.init(jax.random.key(1))
    found = jax.jit(lambda at, then: rfm._Ansatz()(_Looked(at, then, task, model.apply)))(params, params0)

    x, scales = np.asarray(task.x), ((6 / 20) ** 0.5, 1.0, 7**-0.5)

    def grams(at):
        first, second, third = (s * np.asarray(at[f"dense_{i}"]["weight"]) for i, s in enumerate(scales))
        hidden = np.maximum(x @ first, 0)
        inner = (hidden @ second > 0) * third[:, 0] @ second.T  # df / d(input of the second layer), [n, 6]
        outer = ((x @ first > 0) * inner) @ first.T
        return [_root(outer.T @ outer / 30), _root(inner.T @ inner / 30)]

    for layer, (now, then) in enumerate(zip(grams(params), grams(params0), strict=True)):
        weight, start = (np.asarray(at[f"dense_{layer}"]["weight"]) for at in (params, params0))
        moved = (weight - start) @ (weight - start).T
        expected = {
            "plain": _pearson(weight @ weight.T, now),
            "removed": _pearson(moved, now),
            "before": _pearson(moved, then),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][layer], value, rtol=2e-3, atol=2e-3)


class _Looked:
    def __init__(self, params, params0, task, apply):
        self.params, self.params0, self.task, self.apply = params, params0, task, apply


def _root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _pearson(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_verdicts_follow_the_data(toy):
    """A machine that learns the coordinates, an ansatz that comes true, and a network that sees the same."""
    fake = toy.copy(deep=True)
    jitter = np.array([0.9, 1.0, 1.1])
    ideal = np.zeros((20, 20))
    ideal[list(rfm.RELEVANT), list(rfm.RELEVANT)] = 1.0
    for name in rfm.KERNELS:
        fake.machine_mse.loc[{"learner": name}] = jitter[:, None, None] * np.array([1.0, 0.3, 0.1])
        fake.machine_metric.loc[{"learner": name}] = ideal
    fake.agop.loc[{"learner": "network"}] = ideal
    fake.ansatz_plain.loc[{"learner": "network"}] = np.array([0.8, 0.7])[None, :, None]
    fake.ansatz_before.loc[{"learner": "network"}] = 0.1
    fake.ansatz_removed.loc[{"learner": "network"}] = 0.9
    verdicts = {one.id: one for one in rfm.claims(fake)}
    for claim in ("C7.1/laplace", "C7.2/gaussian", "C7.3/removed/1", "C7.3/removed/2", "R1/laplace"):
        assert str(verdicts[claim].verdict) == "supported", verdicts[claim]
    assert str(verdicts["C7.3/plain/1"].verdict) == "not supported"
    np.testing.assert_allclose(verdicts["C7.1/laplace"].estimate, 0.1)
    np.testing.assert_allclose(verdicts["C7.3/removed/2"].estimate, 0.8, rtol=1e-5)
    assert "C7.1/notebook" not in verdicts  # another n
    fake.machine_metric.loc[{"learner": "laplace"}] = np.eye(20)
    broken = {one.id: one for one in rfm.claims(fake)}
    np.testing.assert_allclose(broken["C7.2/laplace"].estimate, 3 / 20)
    np.testing.assert_allclose(broken["R1/laplace"].estimate, np.sqrt(3 / 20), rtol=1e-6)
    assert str(broken["C7.2/laplace"].verdict) == str(broken["R1/laplace"].verdict) == "not supported"


def test_the_figure_draws(toy):
    page = rfm.figure(toy)
    assert len(page.axes) == 3
    assert all(axes.has_data() for axes in page.axes)


@pytest.mark.slow
def test_the_paper_preset_lowers_for_accelerators_at_full_precision():
    function, loop, vmap = rfm.ensemble(rfm.PRESETS["paper"])
    plan = jd.ensemble.plan(function, loop=loop, vmap=vmap)
    assert sum(cell.num_members for cell in plan.cells) == 3 * 8
    for traced in plan.programme(plan.cells[-1]).traced:
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)
