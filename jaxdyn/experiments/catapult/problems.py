"""What the catapult experiment trains: solvable models with one example or two sign classes, and the networks they come from."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxdyn as jd

DIM, NUM_PARAMS = 4, 100
"""Input dimension of the single example; parameters of the general quadratic model."""

BEYOND = (4.5, 5.0, 6.0, 8.0, 12.0, 20.0)
"""Relative rates at which only networks may train."""


class Case(NamedTuple):
    """One row of the loop axis."""

    family: str  # one of the table's
    size: Any  # width m or γ

    def __str__(self) -> str:
        return f"{self.family} {self.size:g}"


class Problem(NamedTuple):
    """What a case is made of."""

    model: Any  # the network
    task: Any  # its data
    expand: Any  # `exact`, or the quadratic model
    loss: Any  # with its c
    directions: Any  # unit eigenvectors of the kernel, [n, 2]; the second may be zero
    coupling: Any  # a of the exact maps, [2]; NaN where there is none
    target: Any  # y of the exact maps, [2]


def rates(coarse: float, fine: float) -> np.ndarray:
    """The relative rates, sorted: spaced by `coarse`, by half of it from 2 to 3.5, relatively by `fine` around 2 and 4, which are none."""
    offsets = 1 + fine * (np.arange(6) - 2.5)
    around = np.concatenate([2 * offsets, 4 * offsets])
    plain = np.concatenate([np.arange(0.5, 4.4, coarse), np.arange(2.0, 3.5, coarse / 2)])
    is_near = (np.abs(plain[:, None] / around[None, :] - 1) < 0.3 * fine).any(axis=1)
    is_edge = (np.abs(plain[:, None] / np.array([2.0, 4.0])[None, :] - 1) < fine).any(axis=1)
    return np.unique(np.round(np.concatenate([plain[~is_near & ~is_edge], around, BEYOND]), 4))


def problem(case: Case, num_train: int, key: Any) -> Problem:
    """Model, data and exact setting of a case; data of the two clusters and of the general model are drawn from the key."""
    loss, one_direction, nothing = jd.losses.half_sum, jnp.array([[1.0, 0.0]]), jnp.full(2, jnp.nan)
    first = jnp.array([1.0, 0.0])
    if case.family == "uv":
        task = jd.tasks.from_arrays(jnp.ones((1, 1)), jnp.zeros((1, 1)))
        return Problem(jd.models.uv(case.size), task, jd.exact, loss, one_direction, first / case.size, 0 * first)
    if case.family == "general":
        x = jax.random.normal(jax.random.fold_in(key, 1), (1, NUM_PARAMS))
        signs = jnp.where(jax.random.bernoulli(jax.random.fold_in(key, 2), shape=(NUM_PARAMS,)), 1.0, -1.0)
        model = jd.models.general_quadratic(
            NUM_PARAMS,
            gamma=case.size,
            feature=lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True),
            curvature=lambda x, w: jnp.broadcast_to((signs * w)[None, :], x.shape),
        )
        task = jd.tasks.from_arrays(x, jnp.zeros((1, 1)))
        return Problem(model, task, jd.exact, loss, one_direction, nothing, 0 * first)
    if case.family.startswith("single"):
        task = jd.tasks.from_arrays(jnp.ones((1, DIM)), jnp.ones((1, 1)))
        model, setting = jd.models.two_layer_relu(DIM, case.size), (one_direction, first / case.size, first)
    else:
        task = jd.tasks.two_clusters(jax.random.fold_in(key, 1), n=num_train, n_test=0)
        classes = jd.theory.catapult.sign_classes(task.x, task.y, case.size)
        model, setting = jd.models.two_layer_relu(1, case.size), (classes.directions, classes.coupling, classes.y)
        loss = jd.losses.mse
    expand = jd.exact if case.family.endswith("network") else jd.models.frozen_gates_on(task.x)
    return Problem(model, task, expand, loss, *setting)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Along:
    """Outputs and kernel along given vectors of R^n: ⟨f, p_i⟩ and p_iᵀKp_i = ‖Jᵀp_i‖², one backward pass each; one output."""

    directions: Any  # p_i as columns, [n, r]

    dims: ClassVar[dict[str, tuple[str, ...]]] = {"output": ("direction",), "kernel": ("direction",)}

    def __call__(self, snapshot: jd.Snapshot) -> Any:
        """`{"output": [r], "kernel": [r]}`."""
        f, pull = jax.vjp(lambda params: snapshot.apply(params, snapshot.task.x), snapshot.params)

        def form(p: Any) -> Any:
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(pull(p[:, None])))

        p = self.directions.astype(f.dtype)
        return {"output": p.T @ f[:, 0], "kernel": jnp.stack([form(p[:, i]) for i in range(p.shape[1])])}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Constant:
    """A number of the run, whatever the state."""

    value: Any  # the number, or an array
    dims: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})  # names of its axes

    def __call__(self, _: jd.Snapshot) -> Any:
        """The number."""
        return jnp.asarray(self.value, float)
