"""The architectures, the three functions of each, and how linear they are around the anchor."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

import jaxdyn as jd
from jaxdyn.models import graphs

DIM, SIDE = 16, 4
GRAPHS = ("uniform", "heavy-tailed", "fixed budget")


def network(architecture: str, width: int, masks: Any) -> tuple[jd.Model, Any]:
    """The model, and the three functions of it."""
    last = jax.nn.softplus
    if architecture == "convolution":
        model = jd.models.conv((SIDE, SIDE, 1), (width, width), 1, activation=jnp.tanh, pool=jd.models.flatten)
        pre = None
    elif architecture in GRAPHS:
        model = jd.models.masked_dag(masks, activation=jnp.tanh)
        inner = graphs.Masks((*masks.sizes[:-2], 1), masks.reads[:-1], (*masks.masks[:-2], masks.masks[-2][:, :1]))
        pre = _inner(jd.models.masked_dag(inner, activation=jnp.tanh), "layer_", len(masks.sizes) - 2)
    else:
        hidden = 3 if architecture == "fully connected" else 5
        model = jd.models.mlp((DIM, *(width,) * hidden, 1), activation=jnp.tanh)
        inner_model = jd.models.mlp((DIM, *(width,) * (hidden - 1), 1), activation=jnp.tanh)
        pre = _inner(inner_model, "dense_", hidden - 1)

    def functions(params: Any, x: Any) -> Any:
        f = model.apply(params, x)
        return jnp.concatenate([f, last(f), jnp.zeros_like(f) if pre is None else pre(params, x)], axis=1)

    return model, functions


def _inner(model: jd.Model, prefix: str, last: int) -> Any:
    """The pre-activation of the first neuron of the last hidden layer, whose leaf is number `last`."""

    def pre(params: Any, x: Any) -> Any:
        kept = {name: leaf for name, leaf in params.items() if int(name.removeprefix(prefix)) <= last}
        name = f"{prefix}{last}"
        return model.apply(kept | {name: {"weight": params[name]["weight"][:, :1]}}, x)

    return pre


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Linearity:
    """How linear some functions of a network are around the anchor."""

    # `(params, x) -> [n, 3]`, the `FUNCTIONS`
    functions: Callable[[Any, Any], Any] = dataclasses.field(metadata={"static": True})
    x: Any  # one example [1, d]
    key: Any  # random key
    radius: float  # R
    steps: int = dataclasses.field(metadata={"static": True})  # of the ascent of |f − f_lin|

    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "norm": ("point", "function"),
        "gradient": ("function",),
        "gap": (),
    }

    def __call__(self, snapshot: Any) -> Any:
        """Norms at the three points, gradients at the first, and the largest |f − f_lin|."""
        anchor, ball = snapshot.params, jd.geometry.ball
        is_live = jax.tree.map(lambda w: w != 0, anchor)

        def output(params: Any) -> Any:
            return self.functions(params, self.x)[0, 0]

        start, slopes = output(anchor), jax.jacrev(lambda params: self.functions(params, self.x)[0])(anchor)

        def gap(params: Any) -> Any:
            moved = jax.tree.map(lambda slope, w, w0: jnp.vdot(slope[0], w - w0), slopes, params, anchor)
            return jnp.abs(output(params) - start - jax.tree.reduce(jnp.add, moved))

        first, second, third = jax.random.split(self.key, 3)
        climbed, largest = ball.ascend(gap, anchor, key=first, radius=self.radius, steps=self.steps, where=is_live)
        sphere = ball.random_point(second, anchor, radius=self.radius, where=is_live)
        points = jax.tree.map(lambda *leaves: jnp.stack(leaves), anchor, sphere, climbed)
        norms = jax.lax.map(
            lambda params: jd.geometry.function_hessian_norm(self.functions, params, self.x, key=third)[0], points
        )
        lengths = jnp.sqrt(sum(jnp.sum(leaf.reshape(3, -1) ** 2, axis=1) for leaf in jax.tree.leaves(slopes)))
        is_there = lengths > 0
        return {
            "norm": jnp.where(is_there[None, :], norms, jnp.nan),
            "gradient": jnp.where(is_there, lengths, jnp.nan),
            "gap": largest,
        }
