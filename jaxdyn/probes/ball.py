"""The function on a ball around where the run stands: its curvature, and how multilinear it is. Seen from the current parameters.

References:
    Zhu, Liu, Belkin, arXiv 2205.11786, Thm 3.6 (all of the ball). Liu, Zhu, Belkin, arXiv 2206.15058 (multilinearity).
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdyn import _tree, geometry
from jaxdyn.dynamics.record import Snapshot
from jaxdyn.models.taylor import linear
from jaxdyn.probes.linearity import rms


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class BallCurvature:
    """The curvature of the function on a ball around the current parameters: at w0, at random, and where an ascent of |f − f_lin| ends.

    The values `_curvature`, `_gradient` and `_gap` are lower bounds of their suprema on the ball. Zeros among the parameters are taken for
    padding and do not move.

    Attributes:
        x: inputs [n, *d].
        key: random key.
        radius: R.
        steps: of the ascent.
    """

    x: Any
    key: Any
    radius: float
    steps: int = field(metadata={"static": True})
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "curvature": ("point", "example", "output"),
        "gradient": ("example", "output"),
        "gap": (),
    }

    def __call__(self, snapshot: Snapshot) -> dict[str, Any]:
        """‖H_f‖ at w0, a random point, and the end of the ascent, [3, n, k]; ‖∇f‖ at w0, [n, k]; the largest rms |f − f_lin|."""
        apply, w0, x = snapshot.apply, snapshot.params, self.x
        where, (climb_key, random_key, spectrum_key) = _live(w0), jax.random.split(self.key, 3)
        tangent = linear(apply, w0)

        def distance(w: Any) -> Any:
            return rms(apply(w, x) - tangent(w, x))

        ball = geometry.ball
        far, gap = ball.ascend(distance, w0, key=climb_key, radius=self.radius, steps=self.steps, where=where)
        random = ball.random_point(random_key, w0, radius=self.radius, where=where)
        points = jax.tree.map(lambda *leaves: jnp.stack(leaves), w0, random, far)

        def norms(w: Any) -> Any:
            return geometry.function_hessian_norm(apply, w, x, key=spectrum_key, tolerance=1e-2)

        blocks = jnp.einsum("iiaa->ia", geometry.ntk_blocks(apply, w0, x))  # [n, k]
        return {"curvature": jax.lax.map(norms, points), "gradient": jnp.sqrt(blocks), "gap": gap}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Multilinearity:
    """How multilinear the function is on a ball around the current parameters: `_remainder`, `_mixed` and `_beyond`.

    Each is the largest root mean square over inputs and outputs that an ascent met, a lower bound. Zeros among the parameters are taken for
    padding and do not move.

    Attributes:
        x: inputs [n, *d].
        key: random key.
        radius: R.
        steps: of each ascent.
        blocks: of parameters, as in `geometry.multilinear`; for one block there is no mixed difference.
    """

    x: Any
    key: Any
    radius: float
    steps: int = field(metadata={"static": True})
    blocks: tuple[Any, ...] = field(metadata={"static": True})
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {"remainder": (), "mixed": (), "beyond": ()}

    def __call__(self, snapshot: Snapshot) -> dict[str, Any]:
        """The second-order remainder within the blocks, the mixed difference of all, and |f − f_multilinear|; three scalars."""
        apply, w0, x = snapshot.apply, snapshot.params, self.x
        blocks, multilinear = self.blocks, geometry.multilinear
        where, expanded = _live(w0), multilinear.multilinear(blocks)(apply, w0)

        def remainder(w: Any) -> Any:
            one = functools.partial(multilinear.block_remainder, apply, w0, x, _tree.sub(w, w0))
            return rms(jnp.stack([one(only=block) for block in blocks]))

        def mixed(w: Any) -> Any:
            return rms(multilinear.mixed_difference(apply, w0, x, _tree.sub(w, w0), blocks=blocks))

        values = {"remainder": remainder, "beyond": lambda w: rms(apply(w, x) - expanded(w, x))}
        values |= {"mixed": mixed} if len(blocks) > 1 else {}
        climb = functools.partial(
            geometry.ball.ascend, params0=w0, key=self.key, radius=self.radius, steps=self.steps, where=where
        )
        return {name: climb(value)[1] for name, value in values.items()}


def _live(params: Any) -> Any:
    """The parameters that are no padding: no radius is spent on the others."""
    return jax.tree.map(lambda leaf: leaf != 0, params)
