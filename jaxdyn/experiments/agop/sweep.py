"""One network and rate for all batch sizes, and gradient descent with raises of the rate."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.experiments.agop import budgets, references

TRACED, TOP = 128, 5  # training examples on which the kernel of one run is followed, and eigenvectors of its top


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    tasks: tuple[str, ...]  # some of rank-2, rank-3, rank-4, digits
    batch_sizes: tuple[int, ...]  # the last is that of gradient descent, n
    catapults: tuple[int, ...]  # numbers of raises of the rate in gradient descent, beside none
    seeds: int  # number of initialisations and streams of minibatches
    width: int  # of the hidden layer
    num_test: int  # test examples (the digits may have fewer)
    rate: float  # η in units of 2/(c λ_max(K_0))
    jump: float  # η after a raise in units of the critical rate of that moment
    level: float  # loss below which the rate is raised
    targets: tuple[float, ...]  # of each task, the training loss that ends a run
    steps: int  # budget of steps; 0 for no such answer
    epochs: int  # budget of epochs; 0 for no such answer
    most: int  # steps after which a run ends although its loss has not reached the target
    every: int  # steps between two looks at the alignment and the test loss
    references: int  # number of reference networks of the digits
    reference_steps: int  # steps of their training

    @property
    def num_train(self) -> int:
        """The number of training examples, n."""
        return max(self.batch_sizes)


PRESETS = {
    "ci": Config(("rank-2",), (8, 32, 256), (1,), 8, 128, 200, 0.9, 1.4, 0.2, (2e-3,), 250, 10, 1500, 25, 4, 100),
    "laptop": Config(
        ("rank-2", "rank-3", "digits"), (8, 16, 32, 64, 250, 1000), (1, 2, 3), 8, 512, 1000, 0.9, 1.4, 0.2, (2e-3, 0.3, 0.1),
        1000, 50, 8000, 25, 4, 1000,
    ),
    "paper": Config(
        ("rank-2", "rank-3", "rank-4"), (8, 16, 32, 64, 128, 512, 4000), (1, 2, 3, 4), 16, 4096, 4000, 0.9, 1.4, 0.2, (2e-3, 2e-3, 2e-3),
        4000, 100, 100000, 50, 4, 1000,
    ),
}  # fmt: skip


def options(config: Config) -> dict[str, Any]:
    """References are trained where the digits are asked for; a member ends once its loss has been below the target for an epoch."""
    truths, described = references.truths(config) if "digits" in config.tasks else (None, {})

    def stop(values: Any) -> Any:
        size, least = (values[name][:, 0].astype(int) for name in ("batch_size", "least"))
        num = values["loss"].shape[1] - 1
        epoch = budgets.epoch(config.num_train, size)
        return (num >= least) & (budgets.reached(values["loss"], epoch, values["target"][:, 0]) >= 0)

    return {"attrs": described, "inputs": {"truths": truths}, "stop": stop}


def ensemble(config: Config, truths: Any = None) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (task, variant, seed, …), a variant being "b=…" or "… raises": along `step` (all of them) `loss`; along
    `probe_step` `test_loss`, `accuracy` (of the sign), `alignment` [reference], and `rate` and `raises` of runs with catapults; along
    `start` `learning_rate`, `relative_rate` (η c λ_max(K_0)), `batch_size`, `least` (steps before which a run does not end), `target`;
    along `trace_step`, of the `traced` runs only, `subspace_top`, `subspace_rest` and `curvature` of the kernel of the first 128 training
    examples.

    Args:
        config: sizes.
        truths: AGOPs of the references of the digits, [reference, d, d]; zeros, enough for a plan, when None.
    """
    n = config.num_train
    if truths is None:
        truths = jnp.zeros((config.references, 64, 64))
    tasks = {
        name: references.parity(config) if name == "digits" else references.monomial(config, name)
        for name in config.tasks
    }
    aims = {name: truths if task.target is None else references.known(config, task) for name, task in tasks.items()}
    kinds = variants(config)

    def one(task: str, variant: str, seed: Any) -> jd.Training:
        data, (size, raises), target = tasks[task], kinds[variant], target_of(config, task)
        key = jax.random.key(seed)
        model = network(config, task, data)
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, data, loss=jd.losses.mse)
        learning_rate = config.rate * critical
        least = max(config.steps, config.epochs * budgets.epoch(config.num_train, size))
        optimizer: Any = optax.sgd(learning_rate)
        more: dict[str, Any] = {}
        if raises:
            optimizer = jd.dynamics.catapults(
                learning_rate, apply=model.apply, x=data.x, loss=jd.losses.mse, ratio=config.jump, level=config.level, num=raises
            )  # fmt: skip
            more = {
                "rate": lambda snapshot: snapshot.optimizer_state.rate,
                "raises": lambda snapshot: snapshot.optimizer_state.num_raised,
            }
        records = [
            jd.record(jd.every(1), loss=jd.probes.Loss()),
            jd.record(
                jd.every(config.every), dim="probe_step", test_loss=jd.probes.TestLoss(), accuracy=jd.probes.Accuracy(),
                alignment=references.Alignment(data.x_test, aims[task]), **more,
            ),
            jd.record(
                jd.at([0]), dim="start", learning_rate=lambda snapshot: learning_rate,
                relative_rate=lambda snapshot: 2 * learning_rate / critical, batch_size=lambda snapshot: jnp.asarray(float(size)),
                least=lambda snapshot: jnp.asarray(float(least)), target=lambda snapshot: jnp.asarray(target),
            ),
        ]  # fmt: skip
        if task == config.tasks[0] and variant in traced(config):
            x, y = data.x[:TRACED], data.y[:TRACED]
            records.append(
                jd.record(
                    jd.every(2), dim="trace_step", subspace=jd.probes.SubspaceLoss(TOP, x, y), curvature=jd.probes.NTKNorm(x)
                )
            )  # fmt: skip
        return jd.Training(
            model,
            data,
            optimizer,
            steps=max(config.most, least),
            key=key,
            params0=params0,
            sampler=jd.full_batch if size == n else jd.minibatch(size),
            record=tuple(records),
        )

    return one, {"task": list(config.tasks), "variant": list(kinds)}, {"seed": np.arange(config.seeds)}


def variants(config: Config) -> dict[str, tuple[int, int]]:
    """`{name: (batch size, raises of the rate)}`."""
    found = {f"b={size}": (size, 0) for size in config.batch_sizes}
    return found | {f"{num} raises": (config.num_train, num) for num in config.catapults}


def traced(config: Config) -> tuple[str, ...]:
    """The variants of the first task whose kernel is followed for the figure: one with catapults, one with minibatches."""
    raised = [f"{num} raises" for num in config.catapults[:2]]
    small = [size for size in config.batch_sizes if size <= 32]
    return tuple(raised[-1:] + [f"b={size}" for size in small[-1:]])


def target_of(config: Config, task: str) -> float:
    """The training loss that ends a run on a task."""
    return config.targets[config.tasks.index(task)]


def network(config: Config, task: str, data: jd.Task) -> jd.Model:
    """The network that learns a task."""
    sizes = (data.x.shape[1], config.width, 1)
    return jd.models.mlp(sizes, activation=jax.nn.relu, bias=0.0 if task == "rank-2" else 1.0)
