"""Why the run succeeds: the conditioning of its kernel, the PL* ratio, the length of its path.

With `theory.pl` they say whether the run obeys the convergence theorem: ratio ≥ c λ_min(K), loss ≤ (1 − ημ)^t, path ≤ R.

References:
    Liu, Zhu, Belkin, arXiv 2003.00307.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdyn import _tree
from jaxdyn.dynamics.record import Snapshot
from jaxdyn.theory import pl


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Conditioning:
    """Smallest eigenvalue of the whole tangent kernel (nk × nk), unnormalised, and beside it the `_largest`; two scalars.

    Attributes:
        x: inputs [n, *d]; the training inputs when None.
    """

    x: Any = None
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {"": (), "largest": ()}

    def __call__(self, snapshot: Snapshot) -> Any:
        x = snapshot.task.x if self.x is None else self.x
        found = pl.conditioning(snapshot.apply, snapshot.params, x)
        return {"": found.smallest, "largest": found.largest}


@dataclass(frozen=True)
class PLRatio:
    """‖∇L‖²/(2L) on the training set, a scalar: at least c λ_min(K) for a quadratic loss; NaN where the loss is 0."""

    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        task = snapshot.task
        return pl.ratio(snapshot.apply, snapshot.params, task.x, task.y, loss=snapshot.loss)


@dataclass(frozen=True)
class PathLength:
    """Length Σ ‖w_{s'} − w_s‖ of the path through the records so far, a scalar.

    Recorded at every step it is the length of the run's path; at a cadence, that of the chords between records, which is shorter.
    """

    dims: ClassVar[tuple[str, ...]] = ()

    def start(self, snapshot: Snapshot) -> Any:
        """The point last seen, and the length up to it."""
        return snapshot.params, jnp.zeros((), _tree.norm(snapshot.params).dtype)

    def __call__(self, snapshot: Snapshot, memory: Any) -> Any:
        seen, length = memory
        length = length + _tree.norm(_tree.sub(snapshot.params, seen))
        return length, (snapshot.params, length)
