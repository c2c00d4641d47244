"""The breaking experiment: what it measures is what its names say, and its verdicts follow the data."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from experiments import planting

import jaxdyn as jd
from jaxdyn import experiments
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments.breaking import networks, sweep

BREAKING = experiments.load("breaking")
TOY = sweep.Config(("wide", "linear1"), (4, 8, 16), 3, 4, 5, 1.0, 3, 0.5, 3)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return BREAKING.run(TOY, store=tmp_path_factory.mktemp("breaking") / "toy.zarr").load()


def _named(dataset, *names):
    """The same numbers under other networks' names, so that every kind of claim is judged without running every network."""
    return dataset.assign_coords(network=list(names))


def test_the_dataset_has_the_documented_variables(toy):
    assert toy.loss.dims == ("network", "width", "seed", "step")
    assert toy.ball_curvature.dims == ("network", "width", "seed", "start", "point", "example", "output")
    assert toy.attrs["experiment"] == "breaking"
    for variable, network in (("loss", "wide"), ("ball_gradient", "wide"), ("multilinear_mixed", "linear1")):
        assert np.isfinite(toy[variable].sel(network=network)).all()
    assert np.isnan(toy.loss.sel(network="linear1")).all()
    assert np.isnan(toy.multilinear_mixed.sel(network="wide")).all()


def test_curvature_at_the_anchor_is_that_of_the_unpadded_network(toy):
    model = networks.NETWORKS["wide"].build(8)
    params = model.init(jax.random.key(1))
    x = sweep.task_of(TOY).x[:2]
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    dense = jax.hessian(lambda w: model.apply(unravel(w), x)[:, 0])(flat)
    expected = np.abs(np.linalg.eigvalsh(np.asarray(dense, np.float64))).max(axis=1)
    found = toy.ball_curvature.sel(network="wide", width=8, seed=1).isel(start=0, point=0, output=0)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_every_network_has_a_claim_a_title_and_a_padded_form():
    width = jd.models.Width(6, jnp.asarray(4))
    for name, network in networks.NETWORKS.items():
        plain, padded = network.build(4), network.build(width)
        params = jax.eval_shape(plain.init, jax.random.key(0))
        assert jax.eval_shape(plain.apply, params, jnp.ones((3, networks.DIM))).shape == (3, 1), name
        assert jax.eval_shape(padded.init, jax.random.key(0)), name
        if network.blocks:
            jd.geometry.multilinear.split(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params), network.blocks)
    claimed = {network.claim for network in networks.NETWORKS.values()}
    assert claimed == {"C4.1", "C4.2", "C4.3", "C4.4", "C4.5", "M"}
    for preset in ("ci", "laptop", "paper"):
        chosen = {networks.NETWORKS[name].claim for name in sweep.PRESETS[preset].networks}
        assert chosen == claimed, preset


def test_targets_can_be_taken_by_every_output():
    y = sweep.task_of(sweep.PRESETS["laptop"]).y
    assert float(y.min()) > 0.05
    assert float(y.max()) < 0.95


@pytest.mark.parametrize(
    ("names", "falling", "staying"),
    [
        (("wide", "linear1"), {"C4.1/wide", "C4.1h/wide", "M1/linear1", "M3/linear1"}, {"M2/linear1"}),
        (("softplus", "linear0"), {"M1/linear0", "M3/linear0"}, {"C4.2/softplus", "C4.2h/softplus", "C4.2l/softplus"}),
        (("small", "linear2"), {"C4.3/small", "M1/linear2", "M3/linear2"}, {"C4.3g/small", "M2/linear2"}),
        (("dominated", "linear1deep"), {"M1/linear1deep", "M3/linear1deep"}, {"C4.4/dominated", "M2/linear1deep"}),
        (("shared", "linear1"), {"M1/linear1", "M3/linear1"}, {"C4.5/shared", "M2/linear1"}),
    ],
)
def test_verdicts_follow_the_data(toy, names, falling, staying):
    """Measurements made to fall like 1/m, or not at all, turn the verdicts round."""

    def verdicts(power):
        fake = _named(toy.copy(deep=True), *names)
        noise = np.exp(0.02 * np.random.default_rng(0).normal(size=(1, 3, 3)))
        size = np.asarray([4.0, 8.0, 16.0])[None, :, None] ** power * noise
        falls = (
            "ball_curvature",
            "ball_gradient",
            "change",
            "multilinear_remainder",
            "multilinear_mixed",
            "multilinear_beyond",
        )
        for name in falls:
            fake[name] = fake[name] * 0 + size.reshape(1, 3, 3, *(1,) * (fake[name].ndim - 3))
        small = 1e-3 if power == 0 else 1.0  # trained to a small loss where nothing falls with the width
        fake["loss"] = fake.loss * 0 + xr.where(fake.step > 0, small, 1.0)
        return {one.id: str(one.verdict) for one in BREAKING.verdicts(fake)}

    fast, flat = verdicts(-1.0), verdicts(0.0)
    assert set(fast) == falling | staying
    assert {name for name in fast if fast[name] == "supported"} == falling
    assert {name for name in fast if fast[name] == "not supported"} == staying
    assert {name for name in flat if flat[name] == "supported"} == staying
    assert {name for name in flat if flat[name] == "not supported"} == falling


FALLS, STAYS = "95 % interval at most -0.3", "95 % interval at least -0.2"
BOUNDS = {
    "C4.1": "95 % interval at most -0.4",
    "C4.1h": FALLS,
    "C4.2": STAYS,
    "C4.2h": STAYS,
    "C4.2l": "95 % interval at most 0.01",
    "C4.3": FALLS,
    "C4.3g": "95 % interval at least -0.1",
    "C4.4": STAYS,
    "C4.5": STAYS,
    "M1": "95 % interval at most -0.4",
    "M2": STAYS,
    "M3": "95 % interval at most -0.4",
}


def test_criteria_are_those_written_down():
    assert planting.bounds(BREAKING) == BOUNDS


@pytest.mark.parametrize(
    ("names", "exponents"),
    [
        (("wide", "linear2"), {"change": ("C4.1", -0.5), "curvature": ("C4.1h", -0.45)}),
        (("softplus", "linear1"), {"change": ("C4.2", -0.05), "curvature": ("C4.2h", 0.1)}),
        (("small", "linear1"), {"curvature": ("C4.3", -0.4), "gradient": ("C4.3g", 0.02)}),
    ],
)
@pytest.mark.parametrize("outcome", ["supported", "not supported"])
def test_planted_exponents_are_found_with_the_scatter_of_seeds(toy, names, exponents, outcome):
    """Every quantity has an exponent of its own; curvature is the largest of three points, the change that of a step between."""
    exponents = exponents | {"remainder": ("M1", -0.6), "mixed": ("M2", 0.0), "beyond": ("M3", -0.7)}
    fake, widths, planted = _named(toy.copy(deep=True).astype(float), *names), toy.width.values, {}
    for number, (variable, (claim, exponent)) in enumerate(exponents.items()):
        if outcome == "not supported":
            exponent = -0.9 if exponent > -0.3 else 0.3
        seeds = planting.members(exponent, 3, 0.005 * (1 + number))
        law = planting.power_law(widths, seeds)  # [width, seed]
        planted[f"{claim}/{names[0] if variable in ('change', 'curvature', 'gradient') else names[1]}"] = seeds
        if variable == "change":
            fake["change"] = fake.change.transpose("network", "width", "seed", "step") * 0
            fake.change[..., 1] = law
        else:
            full = {"curvature": "ball_curvature", "gradient": "ball_gradient"}.get(variable, f"multilinear_{variable}")
            shape = law.reshape(3, 3, *(1,) * (fake[full].ndim - 3))
            fake[full] = fake[full].transpose("network", "width", "seed", ...) * 0 + shape
            if variable == "curvature":
                less = 0.5 * widths[0] / widths  # two points have less, and less and less of it
                shares = np.stack([less, np.ones_like(less), less], axis=1)
                fake[full] = fake[full] * xr.DataArray(shares, dims=("width", "point"))
    losses = {}
    if names[0] == "softplus":
        ratio = 5e-3 if outcome == "supported" else 0.5
        losses["C4.2l/softplus"] = np.exp(planting.members(np.log(ratio), 3, 0.05))
        fake["loss"] = fake.loss.transpose("network", "width", "seed", "step") * 0 + 7.0
        fake.loss[..., -1] = 7.0 * 1e-4 * np.ones((3, 3))
        fake.loss[:, 1, :, -1] = 7.0 * losses["C4.2l/softplus"]  # the middle width is the worst
    verdicts = BREAKING.verdicts(fake)
    trained = [one for one in verdicts if one.id in losses]
    planting.assert_planted([one for one in verdicts if one.id not in losses], planted, outcome, rtol=1e-6)
    for one in trained:
        np.testing.assert_allclose(
            (one.estimate, one.low, one.high), np.exp(mean_interval(np.log(losses[one.id]))), rtol=1e-6
        )
        assert (one.note, str(one.verdict)) == ("worst at 8", outcome)


def test_the_figure_draws_every_panel_that_has_networks(toy):
    page = BREAKING.figure(toy)
    assert [axes.has_data() for axes in page.axes] == [True, True, False, True, True, True]


def test_the_recorded_configuration_is_the_one_that_ran(toy):
    fields = json.loads(toy.attrs["config"])
    assert sweep.Config(**fields | {"networks": tuple(fields["networks"]), "widths": tuple(fields["widths"])}) == TOY


def test_unknown_networks_are_refused_with_the_names():
    with pytest.raises(ValueError, match=r"'deep'.*bottleneck1"):
        BREAKING.run(dataclasses.replace(TOY, networks=("deep",)))


def test_the_paper_preset_lowers_for_accelerators_at_full_precision():
    function, _, vmap = sweep.ensemble(sweep.PRESETS["paper"])
    vmap["width"] = jd.widths([4096])
    plan = jd.ensemble.plan(function, loop={"network": ["bottleneck1"]}, vmap=vmap)
    for traced in plan.programme(plan.cells[0]).traced:
        for platform in ("cuda", "tpu"):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)


@pytest.mark.slow
def test_the_paper_preset_is_planned():
    function, loop, vmap = sweep.ensemble(sweep.PRESETS["paper"])
    plan = jd.ensemble.plan(function, loop=loop, vmap=vmap)
    assert sum(cell.num_members for cell in plan.cells) == 16 * 7 * 16
