"""Any flax module is a model too. The only file that imports flax.

Only parameters are trained: a module with another mutable collection (batch statistics, a cache) or with dropout is
refused by name, since a model is a pure function of its parameters.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxdyn._typing import Params
from jaxdyn.models.base import Model


def from_linen(module: Any, x: Any) -> Model:
    """A flax.linen module as a model.

    Args:
        module: a `flax.linen.Module` called as `module(x)`.
        x: example inputs [n, *d]; only shape and dtype matter.

    Returns:
        A `Model` whose parameters are the module's `params` collection.

    Raises:
        ValueError: for a module with other collections than `params`, or with dropout.

    Example:
        >>> import flax.linen as nn, jax.numpy as jnp
        >>> model = from_linen(nn.Dense(1), jnp.ones((1, 3)))
        >>> model.apply(model.init(jax.random.key(0)), jnp.ones((5, 3))).shape
        (5, 1)
    """
    import flax.errors

    name = type(module).__name__
    example = jax.ShapeDtypeStruct(x.shape, x.dtype)
    try:
        variables = jax.eval_shape(module.init, jax.random.key(0), example)
        others = sorted(set(variables) - {"params"})
        if others:
            raise ValueError(
                f"{name} has the mutable collections {others} (batch statistics?), but only `params` is trained: use group "
                "or layer normalisation instead."
            )
        jax.eval_shape(module.apply, variables, example)
    except flax.errors.InvalidRngError as error:
        raise ValueError(
            f"{name} draws random numbers when applied (dropout?), but a model is a deterministic function of its "
            f"parameters; build it with `deterministic=True` or without dropout. flax says: {error}"
        ) from error

    def init(key: Any) -> Params:
        return module.init(key, jax.numpy.zeros(example.shape, example.dtype)).get("params", {})

    def apply(params: Any, inputs: Any) -> Any:
        return module.apply({"params": params}, inputs)

    return Model(init, apply)


def from_nnx(factory: Callable[..., Any]) -> Model:
    """A flax.nnx module as a model.

    Args:
        factory: `rngs -> module`, which builds the module from a `flax.nnx.Rngs`.

    Returns:
        A `Model` whose parameters are the module's `nnx.Param` variables, as a nested dictionary.

    Raises:
        ValueError: for a module with other variables than `nnx.Param` (batch statistics, random streams of dropout).

    Example:
        >>> from flax import nnx
        >>> import jax.numpy as jnp
        >>> model = from_nnx(lambda rngs: nnx.Linear(3, 1, rngs=rngs))
        >>> model.apply(model.init(jax.random.key(0)), jnp.ones((5, 3))).shape
        (5, 1)
    """
    from flax import nnx

    def split(key: Any) -> Any:
        return nnx.split(factory(nnx.Rngs(key)), nnx.Param, ...)

    graph, _, rest = nnx.eval_shape(split, jax.random.key(0))
    others = sorted({type(variable).__name__ for _, variable in nnx.to_flat_state(rest)})
    if others:
        raise ValueError(
            f"The nnx module holds the variables {others} beside `Param` (batch statistics, dropout?), but only parameters are "
            "trained: use group or layer normalisation, and build it without dropout."
        )

    def init(key: Any) -> Params:
        return nnx.to_pure_dict(split(key)[1])

    def apply(params: Any, inputs: Any) -> Any:
        state = nnx.eval_shape(split, jax.random.key(0))[1]
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state, rest)(inputs)

    return Model(init, apply)
