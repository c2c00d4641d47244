"""The catapult experiment: what it records, and verdicts that follow the exact maps of theory.catapult, written out in numpy."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from experiments import planting

import jaxdyn as jd
from jaxdyn import experiments
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments.catapult import problems, sweep

CATAPULT = experiments.load("catapult")
TOY = sweep.Config((8, 16, 32), (0.1, 0.03, 0.01), 16, 12, 2, 6, 2.0, 0.1, 3)
EXACT = sweep.Config((512, 2048, 8192), (1e-2, 3e-3, 1e-3), 5000, 128, 6, 800, 0.1, 0.02, 10)


@pytest.fixture(scope="module")
def toy():
    function, _, vmap = sweep.ensemble(TOY)
    attrs = {"experiment": "catapult", "config": json.dumps(dataclasses.asdict(TOY))}
    return jd.sweep(function, loop={"case": ["clusters network 16", "general 0.1"]}, vmap=vmap, attrs=attrs).load()


@pytest.fixture(scope="module")
def exact():
    """Every case as the map of one example says, the general one as a pure quadratic model."""
    rng, config = np.random.default_rng(0), EXACT
    rate, known, shape = problems.rates(0.1, 0.02), sweep.cases(config), (6, 2)
    fields = {name: [] for name in ("loss", "output", "kernel", "lr", "coupling", "target")}
    for case in known.values():
        c, floor, only = 1.0, 0.0, np.array([1.0, 0.0])
        noise = rng.normal(size=shape) / np.sqrt(case.size if case.size > 1 else 1 / case.size**2)
        kernel, output = (1 + noise) * only, rng.normal(size=shape) * only
        coupling, target = only / case.size, 0 * only
        if case.family == "general":
            coupling = only * case.size**2
        elif case.family.startswith("single"):
            target = only
        elif case.family.startswith("clusters"):
            c, floor, square = 2 / 128, 0.2, np.array([320.0, 260.0])
            kernel, output = square * (1 + noise), 4 * rng.normal(size=shape)
            coupling, target = square / case.size, np.array([7.0, 6.0])
        lr = rate[:, None] / (c * kernel.max(-1))[None, :]
        eta, f, k = c * lr[:, :, None], output + 0 * lr[:, :, None], kernel + 0 * lr[:, :, None]
        paths = []
        with np.errstate(all="ignore"):
            for _ in range(config.steps + 1):
                paths.append((c / 2 * (((f - target) ** 2).sum(-1)) + floor, f, k))
                r = f - target
                f, k = (
                    target + (1 - eta * k + coupling * eta**2 * r * f) * r,
                    k + coupling * eta**2 * r**2 * k - 4 * coupling * eta * r * f,
                )
        loss, f, k = (np.stack(part) for part in zip(*paths, strict=True))
        for name, part in (("loss", loss), ("output", f[:: config.every]), ("kernel", k[:: config.every])):
            fields[name].append(np.moveaxis(part, 0, 2))
        has_map = np.nan if case.family == "general" else 1.0
        fields["lr"].append(lr[..., None])
        fields["coupling"].append(np.broadcast_to(coupling * has_map, (len(rate), *shape))[:, :, None])
        fields["target"].append(np.broadcast_to(target, (len(rate), *shape))[:, :, None])
    whole = {name: np.stack(parts) for name, parts in fields.items()}
    member, along = ("case", "rate", "seed"), "direction"
    data = {
        "loss": ((*member, "step"), whole["loss"]),
        "state_output": ((*member, "probe_step", along), whole["output"]),
        "state_kernel": ((*member, "probe_step", along), whole["kernel"]),
        "learning_rate": ((*member, "start"), whole["lr"]),
        "coupling": ((*member, "start", along), whole["coupling"]),
        "target": ((*member, "start", along), whole["target"]),
        "diverged_at": (member, np.where(np.isfinite(whole["loss"]).all(-1), -1, 50)),
    }
    coords = {"case": list(known), "rate": rate, "seed": np.arange(6), "start": [0]}
    coords |= {"step": np.arange(config.steps + 1), "probe_step": np.arange(0, config.steps + 1, config.every)}
    return xr.Dataset(data, coords, {"config": json.dumps(dataclasses.asdict(config))})


def _verdicts(dataset):
    return {one.id: one for one in CATAPULT.verdicts(dataset)}


def test_the_dataset_has_the_documented_variables(toy):
    count = len(problems.rates(TOY.coarse, TOY.fine))
    assert toy.loss.transpose("case", "rate", "seed", "step").shape == (2, count, 2, 7)
    assert toy.state_kernel.transpose("case", "rate", "seed", "probe_step", "direction").shape == (2, count, 2, 3, 2)
    assert np.isnan(toy.coupling.sel(case="general 0.1")).all()


def test_learning_rates_have_the_relative_rates_of_the_axis(toy):
    first = toy.state_kernel.isel(probe_step=0).max("direction")
    c = xr.DataArray([2 / 12, 1.0], dims="case")
    relative = (toy.learning_rate.isel(start=0) * c * first).transpose("case", "seed", "rate")
    np.testing.assert_allclose(relative, np.broadcast_to(toy.rate, relative.shape), rtol=1e-4)


@pytest.mark.parametrize(("coarse", "fine"), [(0.1, 0.02), (0.25, 0.04), (0.05, 0.01)])
def test_the_rates_bracket_two_and_four_closely(coarse, fine):
    rate = problems.rates(coarse, fine)
    assert (np.diff(rate) > 0).all()
    for edge in (2.0, 4.0):
        i = np.searchsorted(rate, edge)
        assert rate[i - 1] < edge < rate[i]
        assert rate[i] / rate[i - 1] - 1 < 1.1 * fine
        assert ((np.diff(rate[i - 3 : i + 3]) / edge) > 0.4 * fine).all()


def test_both_sign_classes_are_eigenvectors_of_networks_too(x64):
    """The forms are the two eigenvalues of the dense kernel, at a moved network."""
    config = sweep.Config((8,), (0.1,), 16, 12, 2, 6, 2.0, 0.1, 3)
    found = problems.problem(problems.Case("clusters network", 16), config.num_train, jax.random.key(3))
    key = jax.random.key(1)
    params = jax.tree.map(lambda w: w + 0.7 * jax.random.normal(key, w.shape), found.model.init(key))

    training = jd.Training(found.model, found.task, optax.sgd(0.1), steps=0, key=key, params0=params)
    record = jd.record(jd.at([0]), state=problems.Along(found.directions))
    observed = jax.jit(lambda: jd.dynamics.observe(training, jd.dynamics.init(training), record))()
    values = {name: observed[f"state_{name}"] for name in ("kernel", "output")}
    jacobian = jax.jit(jax.jacrev(lambda p: found.model.apply(p, found.task.x)[:, 0]))(params)
    flat = np.concatenate([np.asarray(leaf).reshape(12, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
    kernel = flat @ flat.T
    np.testing.assert_allclose(np.sort(values["kernel"]), np.linalg.eigvalsh(kernel)[-2:], rtol=1e-12)
    f = found.model.apply(params, found.task.x)[:, 0]
    np.testing.assert_allclose(values["output"], found.directions.T @ f, rtol=1e-12)


def test_exact_maps_support_the_claims(exact):
    """Where the data are the maps of wide models, what the theorems say is supported; the rest depends on six random starts."""
    verdicts = _verdicts(exact)
    sure = ("C1.1/", "C1.2", "C1.3", "C1.4/peak", "C1.4/kernel", "C1.4/gamma", "C1.5/λ", "C1.8", "C6.4", "map")
    for claim in [name for name in verdicts if name.startswith(sure)]:
        assert str(verdicts[claim].verdict) == "supported", verdicts[claim]
    assert {name.split("/")[0] for name in verdicts} == {
        "C1.1", "C1.1b", "C1.2", "C1.3", "C1.4", "C1.5", "C1.8", "C6.4", "map",
    }  # fmt: skip


def test_verdicts_follow_the_data(exact):
    fake = exact.copy(deep=True)
    start = fake.loss.isel(step=0, drop=True)
    fake["loss"] = (start / (1 + fake.step)).transpose(*exact.loss.dims)  # lazy everywhere
    fake["diverged_at"] = fake.diverged_at * 0 - 1
    fake["state_kernel"] = (1 + 1e-4 * (fake.state_kernel.probe_step > 0)) * fake.state_kernel.isel(
        probe_step=0, drop=True
    )
    fake["state_output"] = exact.state_output * 1.001
    verdicts = {name: str(one.verdict) for name, one in _verdicts(fake).items()}
    assert all(verdicts[f"C1.1/{family}"] == "supported" for family in ("uv", "single network", "general"))
    for claim in ("C1.2/uv", "C1.3/single quadratic", "C1.8", "map/clusters quadratic"):
        assert verdicts[claim] == "not supported", claim
    assert verdicts["C1.3/boundary/uv"] == "inconclusive"  # there is none


BOUNDS = {
    "C1.1": "95 % interval at least 1",
    "C1.1b": "95 % interval at most -0.6",
    "C1.2": "95 % interval at least 0.95",
    "C1.2/boundary": "95 % interval within [1.9, 2.1]",
    "C1.3": "95 % interval at least 0.95",
    "C1.3/boundary": "95 % interval within [3.8, 4.2]",
    "C1.4/gamma": "95 % interval within [-2.2, -1.8]",
    "C1.4/kernel": "95 % interval at most 0",
    "C1.4/peak": "95 % interval at least 0",
    "C1.4/size": "95 % interval within [-0.1, 0.1]",
    "C1.5/kernel": "95 % interval within [0.8, 1.25]",
    "C1.5/peak": "95 % interval within [0.8, 1.25]",
    "C1.5/λ_1": "95 % interval within [1.9, 2.1]",
    "C1.5/λ_2": "95 % interval within [1.9, 2.1]",
    "C1.8": "95 % interval at least 0.95",
    "C6.4": "95 % interval within [0.9, 1.1]",
    "map": "95 % interval at most 1e-12",
}


def test_criteria_are_those_written_down():
    assert planting.bounds(CATAPULT) == BOUNDS


def _planted(exact, *, peaks, sizes, drift, gamma, edge, ratio):
    """Short runs of every case: lazy below `edge[0]`, catapults up to `edge[1]`, with laws of peak, drift and final λ of each seed."""
    rate, cases = exact.rate.values, sweep.cases(EXACT)
    laws = {
        "peak": planting.members(peaks, 6, 0.01), "size": planting.members(sizes, 6, 0.01), "drift": planting.members(drift, 6, 0.01),
        "gamma": planting.members(gamma, 6, 0.01), "ratio": np.exp(planting.members(np.log(ratio), 6, 0.01)),
    }  # fmt: skip
    shape = (len(cases), len(rate), 6)
    peak, kept, unit = np.ones(shape), np.ones(shape), np.ones(shape)
    for i, case in enumerate(cases.values()):
        size = case.size / 512 if case.family != "general" else case.size / 1e-2
        top = 50 * size ** (laws["gamma"] if case.family == "general" else laws["peak"]) * (rate[:, None] / 3.0) ** 2
        left = 0.05 * size ** laws["size"] * (rate[:, None] / 2.8) ** -1.5
        is_wild = rate[:, None] > edge[0]
        factor = laws["ratio"] if case.family.endswith("network") else 1.0
        peak[i] = np.where(is_wild, np.maximum(top, 2.0) * factor, 1.0)
        kept[i] = np.where(is_wild, np.minimum(left, 0.9) * factor, 1 - 0.02 * size ** laws["drift"])
    is_over = np.broadcast_to(rate[:, None] > edge[1], shape)
    loss = np.stack([unit, np.where(is_over, np.inf, peak), np.where(is_over, np.inf, 0.1 * unit)], axis=-1)
    kernel = np.stack([unit, kept, kept], axis=-1)[..., None] * np.array([1.0, 0.5])
    c = np.array([2 / 128 if "clusters" in label else 1.0 for label in cases])[:, None, None]
    member = ("case", "rate", "seed")
    data = {
        "loss": ((*member, "step"), loss.astype(np.float32)),
        "state_kernel": ((*member, "probe_step", "direction"), kernel),
        "learning_rate": ((*member, "start"), (rate[:, None] / c * unit)[..., None]),
        "diverged_at": (member, np.where(is_over, 1, -1)),
    }
    coords = {"case": list(cases), "rate": rate, "seed": np.arange(6), "step": [0, 1, 2], "probe_step": [0, 1, 2]}
    return xr.Dataset(data, coords, exact.attrs), laws


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        ({"peaks": 1.0, "sizes": 0.0, "drift": -1.0, "gamma": -2.0, "edge": (2.0, 4.0), "ratio": 1.05}, "supported"),
        ({"peaks": 0.4, "sizes": 0.5, "drift": -0.3, "gamma": -1.0, "edge": (2.6, 6.0), "ratio": 1.6}, "not supported"),
    ],
)
def test_planted_laws_and_boundaries_are_found(exact, settings, outcome):
    fake, laws = _planted(exact, **settings)
    found = _verdicts(fake)
    rows = {f"C6.4/{family}": laws["peak"] for family in ("single network", "single quadratic", "uv")}
    rows |= {f"C1.1b/{family}": laws["drift"] for family in ("single network", "single quadratic", "uv")}
    rows |= {
        "C1.4/gamma": laws["gamma"],
        "C1.4/size/single quadratic/3.5": laws["size"],
        "C1.4/size/general/2.8": laws["size"],
    }
    for id, numbers in rows.items():
        one = found[id]
        np.testing.assert_allclose((one.estimate, one.low, one.high), mean_interval(numbers), atol=3e-3, err_msg=id)
        assert str(one.verdict) == outcome, str(one)
    rate = fake.rate.values
    for id, edge in {"C1.2/boundary/uv": settings["edge"][0], "C1.3/boundary/general": settings["edge"][1]}.items():
        one = found[id]
        assert (one.low, one.high) == (rate[rate <= edge].max(), rate[rate > edge].min())
        assert str(one.verdict) == outcome, str(one)
    for family in ("uv", "single quadratic", "general"):
        in_window = rate[(rate > 2.199) & (rate < 3.801)]
        share = np.mean((in_window > settings["edge"][0]) & (in_window <= settings["edge"][1]))  # all members alike
        assert found[f"C1.2/{family}"].estimate <= share + 1e-9
        assert found[f"C1.3/{family}"].estimate == (
            1.0 if outcome == "supported" else np.mean(rate[(rate >= 4.2) & (rate <= 6.0)] > 6.0)
        )
    assert (str(found["C1.1/uv"].verdict), str(found["C1.8"].verdict)) == ("supported", outcome)
    if outcome == "supported":
        for claim in ("peak", "kernel"):
            one = found[f"C1.5/{claim}/single/3"]
            np.testing.assert_allclose(
                (one.estimate, one.low, one.high), np.exp(mean_interval(np.log(laws["ratio"]))), rtol=1e-5
            )
        np.testing.assert_allclose(found["C1.4/peak/single quadratic"].estimate, 2.0, atol=1e-3)
        np.testing.assert_allclose(found["C1.4/kernel/single quadratic"].estimate, -1.5, atol=0.3)


def test_single_precision_has_no_claim_about_the_maps(exact):
    assert not [
        name
        for name in _verdicts(exact.assign(loss=exact.loss.clip(max=1e30).astype(np.float32)))
        if name.startswith("map")
    ]


def test_the_figure_draws(exact):
    page = CATAPULT.figure(exact)
    assert len(page.axes) == 7
    assert all(axes.has_data() for axes in page.axes)


def test_the_paper_preset_lowers_for_accelerators_at_full_precision():
    function, _, vmap = sweep.ensemble(sweep.PRESETS["paper"])
    plan = jd.ensemble.plan(function, loop={"case": ["clusters quadratic 5000"]}, vmap=vmap)
    for traced in plan.programme(plan.cells[0]).traced:
        text = traced.lower(lowering_platforms=("cuda", "tpu")).as_text()
        assert all("HIGHEST" in line for line in text.splitlines() if "stablehlo.dot_general" in line)


@pytest.mark.slow
def test_simulated_models_follow_their_maps(x64):
    """The experiment itself in double precision: C1.5, map, at small width."""
    config = sweep.Config((64, 128, 256), (1e-2, 1e-3, 1e-4), 128, 32, 2, 150, 0.5, 0.04, 5)
    verdicts = _verdicts(CATAPULT.run(config))
    assert all(str(one.verdict) == "supported" for name, one in verdicts.items() if name.startswith("map"))
    assert jnp.zeros(()).dtype == jnp.float64


@pytest.mark.slow
def test_the_paper_preset_is_planned():
    function, loop, vmap = sweep.ensemble(sweep.PRESETS["paper"])
    plan = jd.ensemble.plan(function, loop=loop, vmap=vmap)
    assert sum(cell.num_members for cell in plan.cells) == 24 * 16 * len(problems.rates(0.05, 0.01))
