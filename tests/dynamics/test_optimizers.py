"""Every transformation that optax exports trains a network, or is here with the reason why it cannot."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd

RATE = 0.01

ARGUMENTS = {
    "learning_rate": RATE, "step_size": -RATE, "clipping": 1.0, "eta": 0.01, "gamma": 0.55, "inner": optax.sgd(RATE),
    "max_consecutive_errors": 3, "max_delta": 1.0, "threshold": 1.0, "max_norm": 1.0, "decay": 0.9, "tx": optax.sgd(RATE),
    "should_transform_fn": lambda step, **_: step >= 0, "mask": True, "fast_optimizer": optax.sgd(RATE), "sync_period": 2,
    "slow_step_size": 0.5, "max_backtracking_steps": 5, "max_linesearch_steps": 5, "step_size_fn": lambda step: -RATE,
    "f": lambda g, *_: -RATE * g, "optimizer": optax.sgd(RATE), "freeze_mask": False, "base_optimizer": optax.sgd(RATE),
    "adv_optimizer": optax.sgd(RATE),
}  # fmt: skip
"""What the required arguments of the factories are given, by name."""

FROZEN = {"dense_0": {"weight": True}, "dense_1": {"weight": False}}

MATRICES = {f"dense_{i}": {"weight": optax.contrib.MuonDimensionNumbers(0, 1)} for i in range(2)}

SPECIAL = {
    "apply_every": lambda: optax.chain(optax.sgd(RATE), optax.apply_every(2)),
    "scale_by_backtracking_linesearch": lambda: optax.chain(optax.scale(-1.0), optax.scale_by_backtracking_linesearch(5)),
    "scale_by_zoom_linesearch": lambda: optax.chain(optax.scale(-1.0), optax.scale_by_zoom_linesearch(5)),
    "scale_by_muon": lambda: optax.chain(optax.contrib.scale_by_muon(weight_dimension_numbers=MATRICES), optax.scale(-RATE)),
    "add_noise": lambda: optax.add_noise(0.01, 0.55, key=0),
    "differentially_private_aggregate": lambda: optax.contrib.differentially_private_aggregate(1.0, 1.0, 0),
    "dpsgd": lambda: optax.contrib.dpsgd(RATE, 1.0, 1.0, seed=0),
    "chain": lambda: optax.chain(optax.scale(-RATE)),
    "freeze": lambda: optax.chain(optax.sgd(RATE), optax.freeze(mask=FROZEN)),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=RATE),
    "inject_stateful_hyperparams": lambda: optax.inject_stateful_hyperparams(optax.sgd)(learning_rate=RATE),
    "scale_by_distance_over_gradients": lambda: optax.chain(optax.scale_by_distance_over_gradients(), optax.scale(-RATE)),
    "measure_with_ema": lambda: optax.measure_with_ema(lambda updates, *_: optax.tree.norm(updates), 0.9),
    "multi_transform": lambda: optax.multi_transform({"a": optax.sgd(RATE)}, "a"),
    "named_chain": lambda: optax.named_chain(("scale", optax.scale(-RATE))),
    "noisy_sgd": lambda: optax.noisy_sgd(RATE, eta=0.01, gamma=0.55, key=0),
    "partition": lambda: optax.partition({"a": optax.sgd(RATE)}, "a"),
    "selective_transform": lambda: optax.selective_transform(
        optax.sgd(RATE), freeze_mask=FROZEN),
    "snapshot": lambda: optax.snapshot("norm", lambda updates, *_: optax.tree.norm(updates)),
    "stateless": lambda: optax.stateless(lambda updates, params: jax.tree.map(lambda g: -RATE * g, updates)),
    "split_real_and_imaginary": lambda: optax.contrib.split_real_and_imaginary(optax.sgd(RATE)),
    "reduce_on_plateau": lambda: optax.chain(optax.sgd(RATE), optax.contrib.reduce_on_plateau()),
    "dadapt_adamw": lambda: optax.contrib.dadapt_adamw(1.0),
}  # fmt: skip

REFUSED = ("lookahead", "differentially_private_aggregate", "dpsgd", "sophia", "measure_with_ema")
"""Factories whose transformations cannot train here; the error names the reason."""


PROMOTES = ("scale_by_distance_over_gradients", "scale_by_muon", "muon")
"""They multiply arrays of different ranks, which these tests forbid elsewhere."""


def _factories():
    found = {}
    for module in (optax, optax.contrib):
        for name in dir(module):
            one = getattr(module, name)
            if name.startswith("_") or not inspect.isfunction(one):  # the one class, MultiSteps, has a test of its own
                continue
            if "GradientTransformation" in str(inspect.signature(one).return_annotation):
                found.setdefault(name, one)
    return found


FACTORIES = _factories()


def _made(name):
    if name in SPECIAL:
        return SPECIAL[name]()
    parameters = inspect.signature(FACTORIES[name]).parameters.values()
    required = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    made = FACTORIES[name](**{argument: ARGUMENTS[argument] for argument in required})
    return optax.chain(made, optax.scale(-RATE)) if name.startswith("scale_by_") else made


def test_the_table_names_nothing_that_optax_does_not_export():
    assert len(FACTORIES) > 100
    assert set(SPECIAL) | set(REFUSED) <= set(FACTORIES)


def test_steps_that_accumulate_gradients_train_too():
    run = jd.train(_training(optax.MultiSteps(optax.sgd(RATE), every_k_schedule=2).gradient_transformation()))
    assert np.isfinite(run.values["loss"]).all()
    assert float(run.values["moved"][-1]) > 0


def test_what_wraps_sam_is_refused_with_the_remedy():
    sam = optax.contrib.sam(optax.sgd(RATE), optax.sgd(RATE))
    with pytest.raises(TypeError, match="wrap what is inside"):
        _training(optax.chain(optax.clip(1.0), sam))
    _training(optax.contrib.sam(optax.chain(optax.clip(1.0), optax.sgd(RATE)), optax.sgd(RATE)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_every_transformation_trains_like_a_plain_loop_or_is_refused_for_a_reason(name):
    if name in REFUSED:
        with pytest.raises(TypeError, match=r"contains optax's `\w+`, which (keeps|needs|gives)"):
            _training(_made(name))
        return
    with jax.numpy_rank_promotion("allow" if name in PROMOTES else "raise"):
        training = _training(_made(name))
        run = jax.jit(lambda: jd.train(training))()
        expected = jax.jit(lambda: _looped(training))()
    np.testing.assert_allclose(run.values["loss"], expected, rtol=1e-4)
    assert np.isfinite(run.values["loss"]).all()
    if name not in ("set_to_zero",):
        assert float(run.values["moved"][-1]) > 0


def _looped(training):
    """The losses at even steps of a loop written out, with whatever `update` takes."""
    task, optimizer, losses = training.task, training.optimizer, []
    params = training.model.init(training.key)
    state = optimizer.init(params)
    takes = inspect.signature(optimizer.update).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in takes.values())

    def loss(params):
        return training.loss(training.model.apply(params, task.x), task.y)

    for step in range(7):
        value, grad = jax.value_and_grad(loss)(params)
        losses += [value] if step % 2 == 0 else []
        more = {"value": value, "grad": grad, "value_fn": loss}
        more = more if takes_any else {name: one for name, one in more.items() if name in takes}
        updates, state = optimizer.update(grad, state, params, **more)
        params = optax.apply_updates(params, updates)
    return jnp.stack(losses)


def _training(optimizer):
    task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=4, n=16)
    record = jd.record(jd.every(2), loss=jd.probes.Loss(), moved=jd.probes.Displacement())
    model = jd.models.mlp((4, 8, 1), activation=jnp.tanh)
    return jd.Training(model, task, optimizer, steps=6, key=jax.random.key(1), record=record)
