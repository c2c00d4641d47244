"""A sweep is the loop over its members, in two programmes a cell, without constants; bad axes are refused by name."""

import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd

DIGITS_LIKE = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=5, n=32)


def _run(width=16, seed=0, lr=0.1, expand=jd.exact, **settings):
    model = jd.models.mlp((5, width, width, 1), activation=jnp.cos)
    record = settings.pop("record", jd.record(jd.every(5), loss=jd.probes.Loss(), out=jd.probes.Outputs()))
    return jd.Training(
        model, DIGITS_LIKE, optax.sgd(lr), steps=settings.pop("steps", 10), key=jax.random.key(seed), expand=expand,
        record=record, **settings,
    )  # fmt: skip


def test_sweep_is_the_loop_over_its_members(x64):
    def run(lr, seed, expand):
        return _run(lr=lr, seed=seed, expand=expand)

    rates = np.asarray([0.05, 0.1, 0.2])
    expand = {"full": jd.exact, "linear": jd.linear, "quadratic": jd.quadratic}
    ds = jd.sweep(run, loop={"expand": expand}, vmap={"lr": rates, "seed": np.arange(2)})
    assert ds.loss.dims == ("expand", "lr", "seed", "step")
    assert ds.out.dims == ("expand", "lr", "seed", "step", "example", "output")
    assert ds.step.values.tolist() == [0, 5, 10]
    for name, expansion in expand.items():
        train = jax.jit(lambda rate, seed, expansion=expansion: jd.train(run(rate, seed, expansion)).values)
        for rate in rates:
            for seed in range(2):
                alone = train(rate, seed)
                np.testing.assert_allclose(ds.loss.sel(expand=name, lr=rate, seed=seed), alone["loss"], rtol=1e-12)
                np.testing.assert_allclose(ds.out.sel(expand=name, lr=rate, seed=seed), alone["out"], atol=1e-12)


def test_padded_widths_are_the_unpadded_networks_with_all_probes(x64):
    def probes():
        x = DIGITS_LIKE.x
        return {
            "loss": jd.probes.Loss(),
            "test": jd.probes.TestLoss(),
            "out": jd.probes.Outputs(),
            "moved": jd.probes.Displacement(),
            "gap": jd.probes.LinearizationGap(),
            "kernel": jd.probes.NTKMatrix(x),
            "norm": jd.probes.NTKNorm(x),
            "change": jd.probes.KernelChange(x),
            "distance": jd.probes.KernelDistance(x, to=jnp.eye(32)),
        }

    def run(width, expand):
        return _run(width, expand=expand, record=jd.record(jd.at([0, 10]), **probes()))

    expand = {"full": jd.exact, "quadratic": jd.quadratic}
    padded = jd.sweep(run, loop={"expand": expand}, vmap={"width": jd.widths([4, 7])})
    assert len(padded.attrs["cells"]) == 2  # one bucket: these networks are small
    plain = jd.sweep(run, loop={"expand": expand, "width": [4]})
    for name in probes():
        found = padded[name].sel(width=[4])
        np.testing.assert_allclose(found, plain[name].transpose(*found.dims), atol=1e-12, rtol=1e-10)


def test_widths_in_several_buckets_land_at_their_labels(monkeypatch):
    def run(width, seed):
        return _run(width, seed)

    one = jd.sweep(run, vmap={"seed": np.arange(2), "width": jd.widths([16, 4, 8])})
    monkeypatch.setattr(importlib.import_module("jaxdyn.ensemble.deciding.cost"), "COMPILATION", -1.0)
    many = jd.sweep(run, vmap={"seed": np.arange(2), "width": jd.widths([16, 4, 8])})
    assert len(one.attrs["cells"]) == 1
    assert len(many.attrs["cells"]) == 3
    assert many.width.values.tolist() == [16, 4, 8]
    np.testing.assert_allclose(many.loss, one.loss, rtol=1e-4)


@pytest.mark.parametrize("compilation", [3.0, -1.0], ids=["one bucket", "a bucket each"])
def test_any_number_of_widths_are_the_unpadded_networks(x64, monkeypatch, compilation):
    def run(first, seed, second):
        model = jd.models.mlp((5, first, second, 1), activation=jnp.cos)
        record = jd.record(jd.at([0, 3]), loss=jd.probes.Loss(), out=jd.probes.Outputs())
        return jd.Training(model, DIGITS_LIKE, optax.sgd(0.1), steps=3, key=jax.random.key(seed), record=record)

    monkeypatch.setattr(importlib.import_module("jaxdyn.ensemble.deciding.cost"), "COMPILATION", compilation)
    first, second = ([7, 2, 4, 3], [3, 6, 5]) if compilation > 0 else ([7, 2], [3, 6])
    axes = {"first": jd.widths(first), "seed": np.arange(2), "second": jd.widths(second)}
    padded = jd.sweep(run, vmap=axes)
    assert len(padded.attrs["cells"]) == (1 if compilation > 0 else 4)
    for one in first:
        for two in second:
            alone = jd.train(run(one, 1, two)).values
            for name in ("loss", "out"):
                found = padded[name].sel(first=one, second=two, seed=1)
                np.testing.assert_allclose(found, alone[name], atol=1e-12, rtol=1e-10)


def test_run_is_traced_only_while_planning_and_never_by_pieces_or_members():
    calls = []

    def run(seed):
        calls.append(1)
        return _run(seed=seed, steps=100, record=jd.record(jd.every(1), loss=jd.probes.Loss()))

    def count(members):
        calls.clear()
        jd.sweep(run, vmap={"seed": np.arange(members)})
        return len(calls)

    assert count(2) == count(50) <= 3  # twice to plan, for shapes and flops, and once for the programmes


def test_a_cell_compiles_two_programmes_whatever_members_and_pieces():
    compiled = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(kwargs.get("fun_name"))

    def run(seed):
        return _run(seed=seed, steps=64, record=jd.record(jd.every(1), loss=jd.probes.Loss()))

    jd.sweep(run, vmap={"seed": np.arange(3)})  # small programmes that fill arrays are compiled here once
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jd.sweep(run, vmap={"seed": np.arange(3)})
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) <= 2, compiled


@pytest.mark.parametrize("where", ["task", "loss", "inner jit", "scan in jit", "optimizer"])
def test_no_array_is_a_constant_of_the_programmes(where):
    big = jnp.sin(jnp.arange(5000.0))
    host = np.sin(np.arange(3000.0, dtype=np.float32))

    @jax.jit
    def inner(p):
        return p.sum() * big[:7].sum() + (big**2).sum()

    @jax.jit
    def scanned(p):
        return jax.lax.scan(lambda c, _: (c + inner(p) * jnp.sum(big), None), 0.0, None, length=2)[0]

    def loss(prediction, y):
        value = jnp.mean((prediction - y) ** 2)
        extra = {"loss": jnp.sum(big * host[0]), "inner jit": inner(prediction), "scan in jit": scanned(prediction)}
        return value + 1e-9 * extra.get(where, 0.0)

    optimizer = optax.sgd(0.1) if where != "optimizer" else optax.sgd(lambda t: 0.1 * jnp.asarray(host)[t])

    def run(seed):
        training = _run(seed=seed)
        return jd.Training(
            training.model, training.task, optimizer, steps=10, key=training.key, loss=loss, record=training.record
        )

    plan = jd.ensemble.plan(run, vmap={"seed": np.arange(3)})
    for lowered in plan.programme(plan.cells[0]).lowered:
        literal = [len(text) for text in re.findall(r"dense<\"0x([0-9A-F]+)\">", lowered.as_text())]
        assert max(literal, default=0) <= 2048, where
    ds = jd.sweep(run, vmap={"seed": np.arange(3)})
    np.testing.assert_allclose(ds.loss.sel(seed=2), jd.train(run(2)).values["loss"], rtol=1e-5)


def test_values_that_depend_on_no_axis_stay_unbatched():
    def run(lr):
        params0 = jd.models.mlp((5, 16, 16, 1), activation=jnp.cos).init(jax.random.key(3))
        return jd.Training(
            jd.models.mlp((5, 16, 16, 1), activation=jnp.cos), DIGITS_LIKE, optax.sgd(lr), steps=3,
            key=jax.random.key(0), params0=params0, expand=jd.linear, record=jd.record(jd.every(1), loss=jd.probes.Loss()),
        )  # fmt: skip

    plan = jd.ensemble.plan(run, vmap={"lr": np.linspace(0.1, 0.2, 7)})
    programme = plan.programme(plan.cells[0])
    _, carried = programme.start(plan.cells[0].arguments)
    assert (16, 16) in [x.shape for x in carried.shared]  # the anchor, once
    assert [x.shape for x in carried.own] == [(programme.placement.padded,)]  # the rate, a member each


def test_sweep_without_vmap_axes_runs_one_member_a_cell():
    ds = jd.sweep(lambda expand: _run(expand=expand), loop={"expand": [jd.exact, jd.linear]})
    assert ds.loss.dims == ("expand", "step")
    assert ds.expand.values.tolist() == ["exact", "linear"]
    assert jd.sweep(lambda: _run()).loss.dims == ("step",)


def test_cells_may_record_different_variables():
    def run(expand):
        probes = {"loss": jd.probes.Loss()}
        if expand is jd.exact:
            probes["norm"] = jd.probes.NTKNorm(DIGITS_LIKE.x)
        return _run(expand=expand, record=jd.record(jd.every(5), **probes))

    ds = jd.sweep(run, loop={"expand": {"full": jd.exact, "linear": jd.linear}})
    assert np.isfinite(ds.norm.sel(expand="full")).all()
    assert np.isnan(ds.norm.sel(expand="linear")).all()
    assert np.isfinite(ds.loss).all()


def test_axes_may_be_keys_and_pytrees():
    def run(key, pair):
        return jd.Training(
            jd.models.mlp((5, 8, 1), activation=jnp.tanh), DIGITS_LIKE, optax.sgd(pair["lr"]), steps=2, key=key,
            record=jd.record(jd.every(1), loss=jd.probes.Loss()),
        )  # fmt: skip

    ds = jd.sweep(run, vmap={"key": jax.random.split(jax.random.key(0), 3), "pair": {"lr": jnp.asarray([0.1, 0.2])}})
    assert dict(ds.loss.sizes) == {"key": 3, "pair": 2, "step": 3}


def test_a_sick_member_leaves_the_others_alone():
    ds = jd.sweep(lambda lr: _run(lr=lr), vmap={"lr": np.asarray([0.1, np.float64(1e30), 0.2])})
    assert ds.diverged_at.values.tolist()[0] == -1
    assert ds.diverged_at.values[1] >= 0
    assert np.isfinite(ds.loss.sel(lr=[0.1, 0.2])).all()


def test_progress_counts_every_member_step():
    class Tally(jd.ensemble.Silent):
        total = done = cells = 0.0

        def start(self, num_cells, work):
            self.total = work

        def cell(self, name, num_members):
            self.cells += 1

        def advance(self, work, glance):
            self.done += work

    tally = Tally()
    jd.sweep(
        lambda expand, seed: _run(seed=seed, expand=expand, steps=37),
        loop={"expand": [jd.exact, jd.linear]},
        vmap={"seed": np.arange(3)},
        progress=tally,
    )
    assert tally.total == tally.done == 2 * 3 * 37
    assert tally.cells == 2


@pytest.mark.parametrize(
    ("axes", "error", "words"),
    [
        ({"vmap": {"seed": []}}, ValueError, "seed"),
        ({"vmap": {"nonsense": np.arange(2)}}, TypeError, "nonsense"),
        ({"vmap": {}}, TypeError, "seed"),
        ({"vmap": {"seed": np.arange(2)}, "loop": {"seed": [1]}}, ValueError, "seed"),
        ({"vmap": {"seed": [jd.exact, jd.linear]}}, ValueError, "loop="),
        ({"vmap": {"seed": np.asarray([0.0, np.nan])}}, ValueError, "nan"),
        ({"loop": {"seed": []}}, ValueError, "empty"),
    ],
)
def test_bad_axes_are_refused_by_name(axes, error, words):
    with pytest.raises(error, match=words):
        jd.sweep(lambda seed: _run(seed=seed), **axes)


def test_a_decision_in_python_on_a_traced_axis_names_the_way_out():
    with pytest.raises(TypeError, match=r"loop="):
        jd.sweep(lambda lr: _run(lr=0.1 if lr > 0 else 0.2), vmap={"lr": np.asarray([0.1])})
    with pytest.raises(TypeError, match=r"lr.*loop="):
        jd.sweep(lambda lr: _run(lr=optax.exponential_decay(0.1, 10, lr)), vmap={"lr": np.asarray([0.1])})


def test_what_is_not_a_training_is_refused():
    with pytest.raises(TypeError, match=r"Training.*float"):
        jd.sweep(lambda seed: 1.0, vmap={"seed": np.arange(2)})


@pytest.mark.parametrize("optimizer", [optax.adafactor(0.1), optax.contrib.muon(0.1)], ids=["adafactor", "muon"])
def test_shape_dependent_optimizers_are_refused_by_name_on_padded_widths(optimizer):
    def run(width):
        training = _run(width)
        return jd.Training(training.model, training.task, optimizer, steps=2, key=training.key, record=training.record)

    with pytest.raises(TypeError, match=r"adafactor|muon"):
        jd.sweep(run, vmap={"width": jd.widths([4, 8])})


def test_flax_modules_are_refused_on_padded_widths_with_the_remedy():
    import flax.linen as linen

    def run(width):
        model = jd.models.from_linen(linen.Dense(width), DIGITS_LIKE.x)
        return jd.Training(model, DIGITS_LIKE, optax.sgd(0.1), steps=2, key=jax.random.key(0))

    with pytest.raises(TypeError, match="loop="):
        jd.sweep(run, vmap={"width": jd.widths([4, 8])})


def test_two_schedules_on_one_dimension_are_refused():
    record = (jd.record(jd.every(1), a=jd.probes.Loss()), jd.record(jd.every(2), b=jd.probes.Loss()))
    with pytest.raises(ValueError, match="dim="):
        jd.sweep(lambda seed: _run(seed=seed, record=record), vmap={"seed": np.arange(2)})


def _run_of_two_records(lr, width):
    probes = {"loss": jd.probes.Loss(), "norm": jd.probes.NTKNorm(DIGITS_LIKE.x)}
    record = (jd.record(jd.every(1), **probes), jd.record(jd.at([3]), dim="once", a=lambda s: s.step))
    return _run(width, lr=lr, record=record)


AXES = {"lr": np.asarray([0.1, 1e30, 0.2]), "width": [4, 8]}


@pytest.fixture(scope="module")
def together():
    with jax.enable_x64(True):
        return jd.sweep(_run_of_two_records, vmap=AXES | {"width": jd.widths(AXES["width"])})


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_members_in_chunks_are_the_members_together(chunk, together, monkeypatch, x64):
    monkeypatch.setattr(importlib.import_module("jaxdyn.ensemble.deciding.cost"), "members_together", lambda *_: chunk)
    chunked = jd.sweep(_run_of_two_records, vmap=AXES | {"width": jd.widths(AXES["width"])})
    assert chunked.attrs["members_at_a_time"] == [min(chunk, -(-6 // jax.local_device_count()))]
    np.testing.assert_array_equal(chunked.diverged_at >= 0, together.diverged_at >= 0)
    for name in ("loss", "norm", "a"):  # a diverging member amplifies rounding without bound
        np.testing.assert_allclose(chunked[name].sel(lr=[0.1, 0.2]), together[name].sel(lr=[0.1, 0.2]), rtol=1e-12)
