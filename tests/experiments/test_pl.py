"""The PL* experiment: its numbers are those of theory.pl, and its verdicts follow the data."""

import dataclasses
import json

import numpy as np
import pytest
import xarray as xr

import jaxdyn as jd
from jaxdyn.experiments import pl

TOY = pl.Config((8, 16, 32), 3, 6, 12, 0.5, 3, 20)
RUN = ("tanh8", "quadratic", "narrow", "gaussian")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Four of the seven networks are run; the other two widths and the softplus output borrow the numbers of the first."""
    function, _, vmap = pl.ensemble(TOY)
    attrs = {"experiment": "pl", "config": json.dumps(dataclasses.asdict(TOY))}
    path = tmp_path_factory.mktemp("pl") / "toy.zarr"
    run = jd.sweep(function, loop={"network": list(RUN)}, vmap=vmap, attrs=attrs, store=path).load()
    borrowed = [run.sel(network=["tanh8"]).assign_coords(network=[name]) for name in ("tanh16", "tanh32", "softplus")]
    return xr.concat([run, *borrowed], dim="network", combine_attrs="override")


def test_the_dataset_has_the_documented_variables(toy):
    assert toy.loss.transpose("network", "seed", "step").shape == (7, 3, 13)
    assert toy.log_condition.sel(network="gaussian").shape == (3, 1, 3)
    assert np.isfinite(toy.path.sel(network=["tanh8", "quadratic"])).all()
    assert np.isnan(toy.path.sel(network="narrow")).all()
    assert set(pl.ensemble(TOY)[1]["network"]) == {str(name) for name in toy.network.values}


def test_learning_rates_are_the_asked_part_of_critical(toy):
    task = pl._digits(TOY)
    relative = toy.learning_rate * jd.losses.mse.c(6, 1) * toy.anchor_largest
    assert task.x.shape == (6, 64)
    np.testing.assert_allclose(relative.sel(network="tanh8"), 0.5, rtol=1e-4)


def test_the_exact_claims_hold_on_small_networks_too(toy):
    """C5.0 to C5.4 are inequalities of theorems: they hold at any size, or something is computed wrongly."""
    verdicts = {one.id: one for one in pl.claims(toy)}
    for claim in ("C5.0", "C5.1", "C5.1b", "C5.2", "C5.3"):
        for name in ("tanh", "quadratic"):
            assert str(verdicts[f"{claim}/{name}"].verdict) == "supported", verdicts[f"{claim}/{name}"]
    assert str(verdicts["C5.4"].verdict) == "supported"


def test_verdicts_follow_the_data(toy):
    fake = toy.copy(deep=True).load()
    decay = np.exp(-1e-6 * fake.step)
    fake["loss"] = fake.loss * 0 + 1.0 * decay  # far slower than promised
    fake["ratio"] = fake.ratio * 0  # below c λ_min
    fake["path"] = fake.path * 1e6
    fake["identity"] = fake.identity * 0 + 0.1
    fake["log_condition"] = fake.log_condition * 0 + 30.0
    verdicts = {one.id: str(one.verdict) for one in pl.claims(fake)}
    for claim in ("C5.1", "C5.1b", "C5.2", "C5.2b", "C5.3"):
        assert verdicts[f"{claim}/quadratic"] == "not supported", claim
    assert all(verdicts[f"C5.5/{n}x{m}"] == "not supported" for n, m in pl.SHAPES)


def test_drop_of_the_conditioning_is_fitted_over_the_widths(toy):
    fake = toy.copy(deep=True).load()
    for width in TOY.widths:
        kernel = fake.kernel.sel(network=f"tanh{width}")
        size = np.array([1.0, 1.1, 0.9])[:, None] / width
        fake["kernel"].loc[{"network": f"tanh{width}"}] = kernel * 0 + 1.0 - size * (kernel.step.values[None, :] > 0)
    fit = {one.id: one for one in pl.claims(fake)}["C5.6"]
    np.testing.assert_allclose(fit.estimate, -1.0, rtol=1e-5)
    assert str(fit.verdict) == "supported"


def test_the_figure_draws(toy):
    page = pl.figure(toy)
    assert len(page.axes) == 3
    assert all(axes.has_data() for axes in page.axes)


def test_the_paper_preset_lowers_for_accelerators_at_full_precision():
    function, _, vmap = pl.ensemble(pl.PRESETS["paper"])
    plan = jd.ensemble.plan(function, loop={"network": ["tanh64"]}, vmap=vmap)
    for traced in plan.programme(plan.cells[0]).traced:
        for platform in ("cuda", "tpu"):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)


@pytest.mark.slow
def test_the_paper_preset_is_planned():
    function, loop, vmap = pl.ensemble(pl.PRESETS["paper"])
    plan = jd.ensemble.plan(function, loop=loop, vmap=vmap)
    assert sum(cell.num_members for cell in plan.cells) == 9 * 16
