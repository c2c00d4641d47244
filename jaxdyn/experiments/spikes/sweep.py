"""Descents at one rate in units of the critical one: with a catapult, with raises, with minibatches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.geometry import subspace

SUBSPACES = (1, 2, 5, 10)
"""Numbers of leading eigenvectors; claims are about the third."""

NETWORKS = ("fully connected", "convolutional", "wide ResNet", "ViT")


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    networks: tuple[str, ...]  # some of `NETWORKS`
    batch_sizes: tuple[int, ...]  # of stochastic descent
    seeds: int  # number of initialisations and streams of minibatches
    num_train: int  # training images
    width: int  # hidden units; eight times the channels, and a quarter of the tokens' MLP
    rate: float  # in units of the critical rate
    high: float  # the same, of the descent with one catapult
    jump: float  # the rate after a raise, in units of the critical rate of that moment
    level: float  # the loss below which the rate is raised
    raises: int  # how often
    steps: int  # of every descent


PRESETS = {
    "ci": Config(("fully connected",), (8,), 8, 32, 128, 0.9, 1.5, 1.4, 0.2, 2, 120),
    "laptop": Config(("fully connected", "convolutional"), (8, 32, 64), 8, 128, 256, 0.9, 1.5, 1.4, 0.2, 3, 400),
    "paper": Config(NETWORKS, (8, 16, 32, 64), 16, 256, 2048, 0.9, 1.5, 1.4, 0.2, 4, 2000),
}


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (network, descent, seed, …): along `step` (all of them) `loss`, `kernel_top` [subspace], `kernel_norm` (λ_max(K)),
    and `critical_rate` (of the batch) and, where it changes, `rate`; along `start` `learning_rate` and `relative_rate` (η c λ_max(K_0));
    along `end`, of raised descents, `curvatures` [raise].
    """
    task = jd.tasks.digits(classes=(3, 8), n=config.num_train, n_test=0, shape=(8, 8, 1))

    def one(network: str, descent: str, seed: Any) -> jd.Training:
        key, model = jax.random.key(seed), model_of(config, network)
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
        learning_rate = (config.high if descent == "catapult" else config.rate) * critical
        optimizer: Any = optax.sgd(learning_rate)
        start = {
            "learning_rate": lambda snapshot: learning_rate,
            "relative_rate": lambda snapshot: 2 * learning_rate / critical,
        }
        records = [jd.record(jd.at([0]), dim="start", **start)]
        always: dict[str, Any] = {"loss": jd.probes.Loss(), "kernel": Kernel()}
        if descent == "raised":
            optimizer = jd.dynamics.catapults(
                learning_rate, apply=model.apply, x=task.x, loss=jd.losses.mse, ratio=config.jump, level=config.level, num=config.raises
            )  # fmt: skip
            always["rate"] = lambda snapshot: snapshot.optimizer_state.rate
            records.append(jd.record(jd.at([config.steps]), dim="end", curvatures=Curvatures()))
        elif descent != "catapult":
            always["critical_rate"] = jd.probes.BatchCriticalRate()
        records.append(jd.record(jd.every(1), **always))
        size = descents(config)[descent]
        return jd.Training(
            model,
            task,
            optimizer,
            steps=config.steps,
            key=key,
            params0=params0,
            sampler=jd.full_batch if size == config.num_train else jd.minibatch(size),
            record=tuple(records),
        )

    loop = {"network": list(config.networks), "descent": list(descents(config))}
    return one, loop, {"seed": np.arange(config.seeds)}


def descents(config: Config) -> dict[str, int]:
    """`{name: batch size}`."""
    n = config.num_train
    return {"catapult": n, "raised": n} | {f"b={size}": size for size in config.batch_sizes}


def model_of(config: Config, network: str) -> jd.Model:
    """One of the networks."""
    shape, channels, relu = (8, 8, 1), max(2, config.width // 8), jax.nn.relu
    if network == "fully connected":
        return jd.models.mlp((64, config.width, config.width, 1), activation=relu)
    if network == "convolutional":
        return jd.models.conv(shape, (channels, channels), 1, activation=relu, pool=jd.models.flatten)
    if network == "wide ResNet":
        norm = jd.models.group_norm(1)
        return jd.models.wide_resnet(shape, 1, widen=max(1, channels // 16), normalise=norm, channels=min(16, channels))
    if network == "ViT":
        return jd.models.vit(shape, 1, patch=2, width=4 * channels, heads=4, depth=4)
    raise ValueError(f"`networks` are some of {', '.join(NETWORKS)}, but one is {network!r}.")


@dataclass(frozen=True)
class Kernel:
    """The loss in the leading eigenspaces of the current kernel, `_top` [subspace], and λ_max of the kernel, `_norm`."""

    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {"top": ("subspace",), "norm": ()}

    def __call__(self, snapshot: jd.Snapshot) -> Any:
        """One decomposition serves all subspaces."""
        x, y = snapshot.task.x, snapshot.task.y
        kernel = jd.geometry.ntk_blocks(snapshot.apply, snapshot.params, x)[:, :, 0, 0]
        residual = (snapshot.apply(snapshot.params, x) - y)[:, 0]
        vectors = subspace.eigenspace(kernel, max(SUBSPACES))
        parts = jnp.cumsum((vectors.T @ residual) ** 2) * (jd.losses.mse.c(len(x), 1) / 2)
        leading = vectors[:, 0]
        return {"top": parts[np.array(SUBSPACES) - 1], "norm": leading @ (kernel @ leading)}


@dataclass(frozen=True)
class Curvatures:
    """λ_max(K) at each raise of the rate, [raise]."""

    dims: ClassVar[tuple[str, ...]] = ("raise",)

    def __call__(self, snapshot: jd.Snapshot) -> Any:
        """As the schedule measured it."""
        return snapshot.optimizer_state.curvatures
