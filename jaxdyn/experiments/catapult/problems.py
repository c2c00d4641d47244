"""What is trained: solvable models with one example or two sign classes, and the networks they come from."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxdyn as jd

DIM, NUM_PARAMS = 4, 100
"""Input dimension of the single example; parameters of the general quadratic model."""


class Case(NamedTuple):
    """One row of the loop axis."""

    family: str
    size: Any  # width m, or γ

    def __str__(self) -> str:
        return f"{self.family} {self.size:g}"


class Problem(NamedTuple):
    """What a case is made of."""

    model: Any
    task: Any
    expand: Any  # `exact`, or the quadratic model
    loss: Any
    directions: Any  # unit eigenvectors of the kernel, [n, 2]; the second may be zero
    coupling: Any  # a of the exact maps, [2]; NaN where there is none
    target: Any  # y of the exact maps, [2]


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
