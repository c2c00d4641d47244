"""Training against explicit loops, and what recording, cadences, pieces and divergence may not change."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

import jaxdyn as jd
from jaxdyn import dynamics


def _training(**changes):
    settings = {
        "model": jd.models.mlp((4, 16, 1), activation=jnp.tanh),
        "task": jd.tasks.polynomial(jax.random.key(0), degree=2, dim=4, n=32),
        "optimizer": optax.sgd(0.1),
        "steps": 20,
        "key": jax.random.key(1),
        "record": jd.record(jd.every(1), loss=jd.probes.Loss(), moved=jd.probes.Displacement()),
    } | changes
    return jd.Training(settings.pop("model"), settings.pop("task"), settings.pop("optimizer"), **settings)


def _explicit(training, batches=None):
    """Plain Python gradient descent; loss at every time."""
    params = training.model.init(training.key)
    optimizer = optax.with_extra_args_support(training.optimizer)
    state, losses = optimizer.init(params), []
    task = training.task
    for step in range(training.steps + 1):
        losses.append(training.loss(training.model.apply(params, task.x), task.y))
        x, y = (task.x, task.y) if batches is None else batches(step)
        grad = jax.grad(lambda p, x=x, y=y: training.loss(training.model.apply(p, x), y))(params)
        updates, state = optimizer.update(grad, state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(losses)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1), optax.sgd(0.05, momentum=0.9), optax.adam(0.01)])
def test_training_is_the_explicit_loop(optimizer, x64):
    training = _training(optimizer=optimizer)
    np.testing.assert_allclose(jd.train(training).values["loss"], _explicit(training), rtol=1e-10)


def test_minibatch_training_is_the_explicit_loop_over_the_same_batches(x64):
    training = _training(sampler=jd.minibatch(8))
    key = jax.random.fold_in(training.key, dynamics.training._BATCHES)
    explicit = _explicit(training, lambda step: training.sampler(training.task, key, step))
    np.testing.assert_allclose(jd.train(training).values["loss"], explicit, rtol=1e-10)


def test_linear_model_follows_the_closed_form(x64):
    training = _training(expand=jd.linear, steps=1000, record=jd.record(jd.at([0, 10, 1000]), out=jd.probes.Outputs()))
    model, task = training.model, training.task
    params0 = model.init(training.key)
    jacobian = jax.jacobian(lambda p: model.apply(p, task.x)[:, 0])(params0)
    flat = np.concatenate([np.asarray(leaf).reshape(32, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    f0 = np.asarray(model.apply(params0, task.x))
    out = jd.train(training).values["out"]
    for position, t in enumerate((0, 10, 1000)):
        decay = (1 - 0.1 * (2 / 32) * values) ** t
        expected = task.y + vectors @ (decay[:, None] * (vectors.T @ (f0 - task.y)))
        np.testing.assert_allclose(out[position], expected, atol=1e-10)


def test_recording_does_not_change_the_run():
    final = jd.train(_training(record=())).final
    probes = {"ntk": jd.probes.NTKNorm(_training().task.x), "loss": jd.probes.Loss()}
    recorded = jd.train(_training(record=jd.record(jd.every(3), **probes))).final
    for a, b in zip(jax.tree.leaves(final.params), jax.tree.leaves(recorded.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_cadence_ten_is_every_tenth_of_cadence_one(x64):
    probes = {"loss": jd.probes.Loss(), "moved": jd.probes.Displacement()}
    often = jd.train(_training(steps=40, record=jd.record(jd.every(1), **probes))).values
    seldom = jd.train(_training(steps=40, record=jd.record(jd.every(10), **probes))).values
    for name in probes:
        np.testing.assert_allclose(seldom[name], often[name][::10], rtol=1e-12)


def test_several_cadences_run_at_once():
    loss, moved = jd.probes.Loss(), jd.probes.Displacement()
    both = jd.train(
        _training(
            steps=30, record=(jd.record(jd.every(1), loss=loss), jd.record(jd.at([3, 17, 30]), dim="rare", moved=moved))
        )
    ).values
    alone = jd.train(_training(steps=30, record=jd.record(jd.every(1), loss=loss, moved=moved))).values
    np.testing.assert_allclose(both["loss"], alone["loss"], rtol=1e-5)
    np.testing.assert_allclose(both["moved"], alone["moved"][np.asarray([3, 17, 30])], rtol=1e-5)


def test_a_schedule_need_not_start_at_the_anchor_nor_reach_the_end():
    often = jd.train(_training()).values["loss"]
    trajectory = jd.train(_training(record=jd.record(jd.at([5, 9]), loss=jd.probes.Loss())))
    np.testing.assert_allclose(trajectory.values["loss"], often[np.asarray([5, 9])], rtol=1e-5)
    assert int(trajectory.final.step) == 20


@pytest.mark.parametrize("cut", [[0, 7, 20], [0, 20], [0, 1, 2, 19, 20]])
def test_advance_in_pieces_is_the_uninterrupted_run(cut, x64):
    training = _training()
    state, whole = dynamics.init(training), jd.train(training)
    taken = []
    for start, stop in itertools.pairwise(cut):
        state, values = dynamics.advance(training, state, list(range(start + (start > 0), stop + 1)))
        taken.append(values["loss"])
    np.testing.assert_allclose(np.concatenate(taken), whole.values["loss"], rtol=1e-12)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(whole.final.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def _bundled(steps):
    often, rare = jd.record(jd.every(1), loss=jd.probes.Loss()), jd.probes.Displacement()
    at = jd.record(jd.at([8, steps]), dim="rare", moved=rare)
    return _training(steps=steps, record=(often, at)), _training(steps=steps, record=jd.record(jd.every(1), moved=rare))


@pytest.mark.parametrize("num_legs", [1, 9, 40, 100])
def test_pieces_with_a_rarer_record_yield_what_each_record_alone_does(num_legs, x64):
    training, alone = _bundled(40)
    cut = dynamics.pieces(training.timetable(), num_legs)
    assert {piece.bundle for piece in cut} == {8}
    state, found = dynamics.init(training), {"loss": [], "moved": []}
    for times in cut:
        state, values = dynamics.advance(training, state, times)
        for position, name in enumerate(found):
            found[name].append(values[name][times.rows(position)])
    loss, moved = (np.concatenate(parts) for parts in found.values())
    np.testing.assert_allclose(loss, jd.train(_training(steps=40)).values["loss"], rtol=1e-12)
    np.testing.assert_allclose(moved, jd.train(alone).values["moved"][np.array([8, 40])], rtol=1e-12)


def test_steps_with_a_record_each_do_not_ask_whether_a_rarer_one_is_due():
    """A device waits for the host wherever it asks."""
    training, _ = _bundled(40)
    (piece,) = dynamics.pieces(training.timetable(), 41)
    closed = jax.make_jaxpr(lambda s: dynamics.advance(training, s, piece))(dynamics.init(training))
    loops = {
        eqn.params["length"]: str(eqn.params["jaxpr"])
        for eqn in _equations(closed.jaxpr)
        if eqn.primitive.name == "scan"
    }
    assert "cond[" in loops[6]  # the bundles, each with eight steps
    assert "cond[" not in loops[8]
    assert "dot_general" in loops[8]


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from _equations(inner)


def test_train_may_be_jitted_and_vmapped():
    def loss(seed):
        return jd.train(_training(key=jax.random.key(seed))).values["loss"]

    together = jax.jit(jax.vmap(loss))(jnp.arange(3))
    np.testing.assert_allclose(together[2], loss(2), rtol=1e-4)


def test_a_diverged_member_freezes_and_leaves_its_neighbours_bit_identical():
    def final(rates):
        def one(rate):
            trajectory = jd.train(_training(optimizer=optax.sgd(rate), steps=200))
            return trajectory.final.params, trajectory.diverged_at, trajectory.values["loss"]

        return jax.jit(jax.vmap(one))(jnp.asarray(rates))

    params, diverged_at, loss = final([0.1, 1e4, 0.2])
    healthy, sound_at, sound = final([0.1, 0.1, 0.2])
    assert diverged_at[1] > 0
    assert diverged_at[0] == diverged_at[2] == -1
    assert (sound_at == -1).all()
    step = int(diverged_at[1])
    assert np.isfinite(loss[1, :step]).all()
    assert not np.isfinite(loss[1, step:]).any()
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(healthy), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[2], b[2])
    np.testing.assert_array_equal(loss[0], sound[0])


@pytest.mark.parametrize("record", [(), None])
def test_diverge_above_is_a_threshold_on_the_batch_loss(record):
    changes = {} if record is None else {"record": record}
    start = float(jd.train(_training()).values["loss"][0])
    assert int(jd.train(_training(diverge_above=start / 2, **changes)).diverged_at) == 0
    assert int(jd.train(_training(diverge_above=start * 2, **changes)).diverged_at) == -1


def test_divergence_at_the_very_end_is_seen_with_and_without_records():
    for record in ((), jd.record(jd.every(1), loss=jd.probes.Loss())):
        blown = jd.train(_training(optimizer=optax.sgd(1e4), steps=1, record=record, diverge_above=1e3))
        assert int(blown.diverged_at) == 1


def test_a_probe_at_a_cadence_is_paid_only_at_that_cadence():
    calls = []

    def probe(snapshot):
        jax.debug.callback(lambda step: calls.append(int(step)), snapshot.step)
        return snapshot.step

    record = (jd.record(jd.every(1), loss=jd.probes.Loss()), jd.record(jd.every(10), dim="rare", seen=probe))
    jax.block_until_ready(jd.train(_training(record=record)))
    jax.effects_barrier()
    assert sorted(calls) == [0, 10, 20]


def test_recording_the_loss_every_step_shares_its_forward_pass_with_the_step():
    def flops(record):
        def one(seed):
            training = _training(
                model=jd.models.mlp((4, 256, 256, 1), activation=jnp.tanh), key=jax.random.key(seed), record=record
            )
            return dynamics.advance(training, dynamics.init(training), training.timetable())

        return jax.jit(one).lower(0).compile().cost_analysis()["flops"]

    bare = flops(jd.record(jd.every(1), step=lambda snapshot: snapshot.step))
    assert flops(jd.record(jd.every(1), loss=jd.probes.Loss())) < 1.02 * bare


class Counter:
    """A probe with a memory: how often it was asked, starting at 100."""

    dims = ()

    def start(self, snapshot):
        return jnp.asarray(100)

    def __call__(self, snapshot, memory):
        return memory, memory + 1


def test_probes_may_remember():
    record = (jd.record(jd.every(1), a=Counter()), jd.record(jd.every(10), dim="rare", b=Counter()))
    values = jd.train(_training(record=record)).values
    np.testing.assert_array_equal(values["a"], 100 + np.arange(21))
    np.testing.assert_array_equal(values["b"], [100, 101, 102])


def test_probes_may_return_dictionaries():
    record = jd.record(jd.every(10), both=lambda s: {"one": s.step, "two": jnp.ones(3)})
    values = jd.train(_training(record=record)).values
    assert values["both_one"].tolist() == [0, 10, 20]
    assert values["both_two"].shape == (3, 3)


def test_everything_is_traced_at_highest_precision_unless_lowered():
    def precisions(**changes):
        text = (
            jax.jit(lambda: jd.train(_training(**changes)).values).trace().lower(lowering_platforms=("cuda",)).as_text()
        )
        dots = [line for line in text.splitlines() if "dot_general" in line]
        assert dots
        return {("HIGHEST" in line) for line in dots}

    assert precisions() == {True}
    assert False in precisions(precision="default")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"steps": -1}, ValueError, "-1"),
        ({"key": 3}, TypeError, "jax.random.key"),
        ({"optimizer": 0.1}, TypeError, "optax"),
        ({"record": jd.record(jd.at([0, 21]), loss=jd.probes.Loss())}, ValueError, "21"),
        (
            {
                "record": (
                    jd.record(jd.every(1), a=jd.probes.Loss()),
                    jd.record(jd.every(2), dim="b", a=jd.probes.Loss()),
                )
            },
            ValueError,
            "twice",
        ),
    ],
)
def test_bad_trainings_are_refused_with_the_remedy(changes, error, words):
    with pytest.raises(error, match=words):
        _training(**changes)


def test_labels_that_do_not_match_the_outputs_are_refused():
    task = jd.tasks.from_arrays(jnp.ones((8, 4)), jnp.ones((8, 2)))
    with pytest.raises((ValueError, TypeError), match=r"\(8, [12]\)"):
        jd.train(_training(task=task))


def test_a_probe_class_instead_of_a_probe_is_refused():
    with pytest.raises(TypeError, match=r"Loss\(\)"):
        jd.record(jd.every(1), loss=jd.probes.Loss)


def test_zero_steps_record_the_anchor():
    assert jd.train(_training(steps=0)).values["loss"].shape == (1,)


def test_a_diverged_run_keeps_its_parameters_and_its_optimizer_as_they_were():
    """The rate is too large: the loss exceeds `diverge_above` while all numbers are finite, and everything stays as it was there."""
    for optimizer in (optax.sgd(8.0, momentum=0.5), optax.adam(3.0)):
        whole = jd.train(_training(optimizer=optimizer))
        losses = np.asarray(whole.values["loss"])
        above = float(losses[0]) * 3
        step = int(np.argmax(losses > above))
        assert 0 < step < 18
        assert np.isfinite(losses).all()
        stopped = jd.train(_training(optimizer=optimizer, diverge_above=above))
        assert int(stopped.diverged_at) == step
        expected = jd.train(_training(optimizer=optimizer, steps=step, record=())).final
        found = stopped.final
        for a, b in zip(
            jax.tree.leaves((found.params, found.opt_state)),
            jax.tree.leaves((expected.params, expected.opt_state)),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(stopped.values["loss"][step:], losses[step], rtol=1e-6)  # the frozen network


@pytest.mark.parametrize("every", [1, 7])
def test_the_optimizer_updates_once_a_step_and_no_more(every, x64):
    record = jd.record(jd.every(every), loss=jd.probes.Loss())
    training = _training(optimizer=optax.adam(0.01), record=record)
    final = jd.train(training).final
    params = training.model.init(training.key)
    state = training.optimizer.init(params)
    grad = jax.jit(jax.grad(lambda p: training.loss(training.model.apply(p, training.task.x), training.task.y)))
    for _ in range(20):
        updates, state = training.optimizer.update(grad(params), state, params)
        params = optax.apply_updates(params, updates)
    assert int(final.opt_state[0].count) == 20
    for a, b in zip(jax.tree.leaves((final.params, final.opt_state)), jax.tree.leaves((params, state)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14)


def test_a_snapshot_shows_the_batch_that_enters_the_next_step():
    training = _training(
        sampler=jd.minibatch(8), steps=5,
        record=jd.record(jd.every(1), x=_Seen(lambda s: s.batch[0]), y=_Seen(lambda s: s.batch[1]), loss=jd.probes.BatchLoss()),
    )  # fmt: skip
    values = jd.train(training).values
    for step in range(6):
        x, y = training.sampler(training.task, dynamics.batch_key(training.key), step)
        np.testing.assert_array_equal(values["x"][step], x)
        np.testing.assert_array_equal(values["y"][step], y)


class _Seen:
    def __init__(self, look):
        self.look, self.dims = look, ("example", "entry")

    def __call__(self, snapshot):
        return self.look(snapshot)


@pytest.mark.parametrize("is_opaque", [False, True])
def test_sharpness_aware_minimisation_is_its_explicit_loop(is_opaque, x64):
    """`update` takes `grad_fn` and nothing else: an inner ascent of 0.05, then the gradient there."""
    training = _training(optimizer=optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), opaque_mode=is_opaque))
    params = training.model.init(training.key)
    grad = jax.jit(jax.grad(lambda p: training.loss(training.model.apply(p, training.task.x), training.task.y)))
    for _ in range(20 if is_opaque else 10):  # a transparent step is the ascent or the descent
        raised = jax.tree.map(lambda w, g: w + 0.05 * g, params, grad(params))
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, grad(raised))
    for a, b in zip(jax.tree.leaves(jd.train(training).final.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
