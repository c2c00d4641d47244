"""The leading eigendirection of the current kernel along a run, and what each step does to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdyn import geometry


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class TopDirection:
    """The loss in every eigendirection of the current kernel, and what the last step did to the top one. Record it at every step.

    `eigenvalue` and `loss` [mode] are λ_i and (c/2)⟨u_i, r⟩², largest eigenvalue first. `output_correction` and `kernel_decrease` are
    p1ᵀR_f p1 and p1ᵀR_K p1 of the step that ended here, p1 being the top direction at its start; NaN at the first record. Costs the
    kernel and the eigenvectors of an n × n matrix.
    """

    rate: Any  # η c

    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "eigenvalue": ("mode",),
        "loss": ("mode",),
        "output_correction": (),
        "kernel_decrease": (),
    }

    def start(self, snapshot: Any) -> Any:
        """No direction yet: zeros in place of p1, λ_1 and ⟨p1, r⟩."""
        y = snapshot.task.y
        return jnp.zeros(y.size, y.dtype), jnp.zeros((), y.dtype), jnp.zeros((), y.dtype)

    def __call__(self, snapshot: Any, memory: Any) -> Any:
        """The values, and the direction for the next record."""
        task = snapshot.task
        residual = (snapshot.apply(snapshot.params, task.x) - task.y).reshape(-1)
        kernel = geometry.as_matrix(geometry.ntk_blocks(snapshot.apply, snapshot.params, task.x))
        values, vectors = jnp.linalg.eigh((kernel + kernel.T) / 2)
        values, vectors = values[::-1], vectors[:, ::-1]
        part = vectors.T @ residual
        direction, value, before = memory
        is_first = value == 0
        growth = (direction @ residual) / jnp.where(before == 0, jnp.nan, before)
        found = {
            "eigenvalue": values,
            "loss": snapshot.loss.c(*task.y.shape) / 2 * part**2,
            "output_correction": growth - 1 + self.rate * value,
            "kernel_decrease": jnp.where(is_first, jnp.nan, value - direction @ (kernel @ direction)),
        }
        return found, (vectors[:, 0], values[0], part[0])
