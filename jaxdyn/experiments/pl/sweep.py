"""Networks and a quadratic map with every quantity of the theorem along their paths, and kernels that are looked at once."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd

SHAPES = ((8, 8), (8, 16), (8, 128))
"""Equations and parameters of the Gaussian Jacobians."""


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    widths: tuple[int, ...]  # of the tanh networks; the largest is also that of the softplus output
    seeds: int  # number of initialisations
    num_train: int  # training images
    steps: int  # steps of gradient descent
    rate: float  # learning rate times c λ_max(K_0), at most 1 for η ≤ 1/β
    num_sharpness: int  # how many times the sharpness is measured
    draws: int  # Gaussian matrices a seed


PRESETS = {
    "ci": Config((32, 128, 512), 8, 12, 300, 0.5, 5, 50),
    "laptop": Config((64, 128, 256, 512, 1024), 8, 16, 2000, 0.5, 10, 500),
    "paper": Config((64, 256, 1024, 4096, 16384), 16, 32, 20000, 0.5, 20, 5000),
}


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (network, seed, …): along `step` (all of them) `loss`, `ratio`, `kernel`, `kernel_largest` (the ends of the
    kernel's spectrum), `identity` (relative difference of ‖∇L‖² and c² rᵀKr), `away`, `path`; along `probe_step` `sharpness`; along `start`
    `anchor`, `anchor_largest` (the ends of the kernel's spectrum at w0), `learning_rate`, and `log_condition` of the Gaussian kernels.
    """
    digits = _digits(config)
    rng = np.random.default_rng(0)
    crowd = jd.tasks.from_arrays(jnp.asarray(rng.normal(size=(24, 4)), float), jnp.zeros((24, 1)))
    models: dict[str, jd.Model] = {}
    for width in config.widths:
        models[f"tanh{width}"] = jd.models.mlp((64, width, 1), activation=jnp.tanh)
    models["softplus"] = jd.models.mlp((64, max(config.widths), 1), activation=jnp.tanh, output=jax.nn.softplus)
    models["quadratic"] = jd.Model(lambda key: jnp.zeros(60), _quadratic_map)
    models["narrow"] = models["gaussian"] = jd.models.mlp((4, 3, 1), activation=jnp.tanh)

    def one(network: str, seed: Any) -> jd.Training:
        key, model = jax.random.key(seed), models[network]
        task = crowd if network in ("narrow", "gaussian") else digits
        task = _random_map(jax.random.fold_in(key, 1)) if network == "quadratic" else task
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
        learning_rate = config.rate / 2 * critical
        before: dict[str, Any] = {"anchor": jd.probes.Conditioning(), "learning_rate": lambda snapshot: learning_rate}
        if network == "gaussian":
            before = {"log_condition": _LogCondition(jax.random.fold_in(key, 2), config.draws)}
        return jd.Training(
            model,
            task,
            optax.sgd(learning_rate),
            steps=0 if network in ("narrow", "gaussian") else config.steps,
            key=key,
            params0=params0,
            record=(jd.record(jd.at([0]), dim="start", **before), *(_records(config) if is_trained(network) else ())),
        )

    return one, {"network": list(models)}, {"seed": np.arange(config.seeds)}


def _records(config: Config) -> tuple[jd.dynamics.Record, ...]:
    def identity(snapshot: jd.Snapshot) -> Any:
        task = snapshot.task
        found = jd.theory.pl.gradient(snapshot.apply, snapshot.params, task.x, task.y, loss=snapshot.loss)
        return jnp.abs(found.squared - found.form) / found.squared

    every = jd.record(
        jd.every(1), loss=jd.probes.Loss(), ratio=jd.probes.PLRatio(), kernel=jd.probes.Conditioning(), identity=identity,
        away=jd.probes.Displacement(), path=jd.probes.PathLength(),
    )  # fmt: skip
    seldom = jd.record(
        jd.every(max(1, config.steps // config.num_sharpness)), dim="probe_step", sharpness=jd.probes.Sharpness()
    )
    return every, seldom


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class _LogCondition:
    """Means of log κ(K) = 2 log κ(J) over Gaussian J of every one of `SHAPES`, [shape]."""

    key: Any
    draws: int = dataclasses.field(metadata={"static": True})
    dims = ("shape",)

    def __call__(self, snapshot: jd.Snapshot) -> Any:
        """From the singular values of J, which keep their accuracy where those of J Jᵀ lose it."""

        def mean(shape: tuple[int, int], key: Any) -> Any:
            singular = jnp.linalg.svd(jax.random.normal(key, (self.draws, *shape)), compute_uv=False)
            return jnp.mean(2 * jnp.log(singular[:, 0] / singular[:, -1]))

        keys = jax.random.split(self.key, len(SHAPES))
        return jnp.stack([mean(shape, key) for shape, key in zip(SHAPES, keys, strict=True)])


def _quadratic_map(params: Any, x: Any) -> Any:
    """F_i(w) = a_i·w + ½ wᵀA_i w, row i of x holding a_i and A_i."""
    dim = params.shape[0]
    squares = x[:, dim:].reshape(-1, dim, dim)
    return (x[:, :dim] @ params + 0.5 * jnp.einsum("p,npq,q->n", params, squares, params))[:, None]


def _random_map(key: Any) -> Any:
    """Gaussian a_i, and A_i symmetric with ‖A_i‖ about 0.1; targets of norm about 1."""
    num, dim, bend = 8, 60, 0.1
    linear, square, target = (jax.random.fold_in(key, i) for i in range(3))
    squares = jax.random.normal(square, (num, dim, dim))
    squares = bend / (2 * np.sqrt(2 * dim)) * (squares + squares.transpose(0, 2, 1))
    x = jnp.concatenate([jax.random.normal(linear, (num, dim)), squares.reshape(num, -1)], axis=1)
    return jd.tasks.from_arrays(x, jax.random.normal(target, (num, 1)) / np.sqrt(num))


def is_trained(network: str) -> bool:
    """Whether a network learns; the others are looked at once."""
    return network not in ("narrow", "gaussian")


def _digits(config: Config) -> Any:
    drawn = jd.tasks.digits(classes=(3, 8), n=config.num_train)
    return jd.tasks.from_arrays(drawn.x, 0.5 + 0.4 * drawn.y)
