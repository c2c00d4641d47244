"""What is recorded of the descents beside the library's probes: the loss in the leading eigenspaces, a step of a batch, raises."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

import jaxdyn as jd

SUBSPACES = (1, 2, 5, 10)
"""Numbers s of leading eigenvectors; claims are about the third."""

BLOCK, SWEEPS = 32, 6
"""Vectors that are iterated together, and how often they are multiplied by K² and made orthonormal again."""


@dataclass(frozen=True)
class Kernel:
    """The loss in the leading eigenspaces of the current kernel, `_top` [subspace], λ_max of the kernel, `_norm`, and `_residual`.

    The eigenvectors are those of a block power iteration from a fixed start: on two shared cores a decomposition of 256 examples takes
    5 to 800 ms inside a sweep, since LAPACK's threads and XLA's get in each other's way, the iteration 0.5 ms. `_residual` is the largest
    ‖K u − λ u‖ of the first `SUBSPACES[2]` vectors in units of λ_1.
    """

    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {"top": ("subspace",), "norm": (), "residual": ()}

    def __call__(self, snapshot: jd.Snapshot) -> Any:
        """One set of vectors serves all subspaces."""
        x, y = snapshot.task.x, snapshot.task.y
        kernel = jd.geometry.ntk_blocks(snapshot.apply, snapshot.params, x)[:, :, 0, 0]
        residual = (snapshot.apply(snapshot.params, x) - y)[:, 0]
        values, vectors = leading(kernel, max(SUBSPACES))
        parts = jnp.cumsum((vectors.T @ residual) ** 2) * (jd.losses.mse.c(len(x), 1) / 2)
        claimed = vectors[:, : SUBSPACES[2]]
        off = jnp.linalg.norm(kernel @ claimed - claimed * values[None, : SUBSPACES[2]], axis=0)
        return {"top": parts[np.array(SUBSPACES) - 1], "norm": values[0], "residual": off.max() / values[0]}


def leading(kernel: Any, num: int) -> tuple[Any, Any]:
    """The largest eigenvalues [num] of a kernel [n, n] and their vectors [n, num], largest first, by block power iteration."""
    n = len(kernel)
    start = jax.random.normal(jax.random.key(0), (n, min(BLOCK, n)), kernel.dtype)
    unit = kernel / jnp.linalg.norm(kernel)  # squares stay within the floating range

    def again(_: Any, vectors: Any) -> Any:
        return jnp.linalg.qr(unit @ (unit @ vectors))[0]

    vectors = jax.lax.fori_loop(0, SWEEPS, again, jnp.linalg.qr(start)[0])
    values, rotation = jnp.linalg.eigh(vectors.T @ (kernel @ vectors))
    return values[::-1][:num], vectors @ rotation[:, ::-1][:, :num]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class BatchStep:
    """What the batch that enters next does: `_ratio`, ρ = η/η_crit(X_b), and `_growth`, log of its loss after the step over that before.

    The step is that of plain SGD at η, which the next step of the run is too; its gradient is shared.
    """

    rate: Any  # η

    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {"ratio": (), "growth": ()}

    def __call__(self, snapshot: jd.Snapshot) -> Any:
        """Two losses and a gradient of the batch, and its kernel."""
        x, y = snapshot.batch

        def loss(params: Any) -> Any:
            return snapshot.loss(snapshot.apply(params, x), y)

        before, grad = jax.value_and_grad(loss)(snapshot.params)
        after = loss(jax.tree.map(lambda w, g: w - self.rate * g, snapshot.params, grad))
        ratio = self.rate / jd.probes.BatchCriticalRate()(snapshot)
        return {"ratio": ratio, "growth": jnp.log(after / before)}


@dataclass(frozen=True)
class Curvatures:
    """λ_max(K) at each raise of the rate, [raise], as the schedule measured it; NaN where there was none."""

    num: int  # the most raises of any descent

    dims: ClassVar[tuple[str, ...]] = ("raise",)

    def __call__(self, snapshot: jd.Snapshot) -> Any:
        """One number a raise."""
        found = snapshot.optimizer_state.curvatures
        return jnp.pad(found, (0, self.num - len(found)), constant_values=jnp.nan)
