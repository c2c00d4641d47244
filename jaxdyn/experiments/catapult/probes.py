"""What is recorded of kernels whose eigenvectors are known, and the setting that the exact maps need."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

import jaxdyn as jd


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
    """A number or an array of the run, whatever the state."""

    value: Any
    dims: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})

    def __call__(self, _: jd.Snapshot) -> Any:
        """The number."""
        return jnp.asarray(self.value, float)
