"""Any flax module is a model too. The only file that imports flax.

Only parameters are trained. What else a module holds (running statistics in evaluation mode, random streams that nothing draws
from, variables of your own) is a constant; a module that changes it when applied, such as batch norm or dropout in training mode,
is refused by name, since a model is a pure function of its parameters.
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
        A `Model` whose parameters are the module's `params` collection. Other collections are constants, made with
        `jax.random.key(0)` whatever the key of `init`.

    Raises:
        ValueError: for a module that changes another collection than `params` when applied, or draws random numbers.

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
        jax.eval_shape(module.apply, variables, example)
    except flax.errors.ModifyScopeVariableError as error:
        raise ValueError(
            f"{name} changes the collections {others} when applied (batch statistics?), but only `params` is trained: use "
            "`use_running_average=True`, or group or layer normalisation."
        ) from error
    except flax.errors.InvalidRngError as error:
        raise ValueError(
            f"{name} draws random numbers when applied (dropout?), but a model is a deterministic function of its "
            f"parameters; build it with `deterministic=True` or without dropout. flax says: {error}"
        ) from error

    def whole(key: Any) -> Any:
        return module.init(key, jax.numpy.zeros(example.shape, example.dtype))

    constants = _constants(lambda key: {name: whole(key)[name] for name in others}) if others else {}

    def init(key: Any) -> Params:
        return whole(key).get("params", {})

    def apply(params: Any, inputs: Any) -> Any:
        return module.apply({"params": params, **constants}, inputs)

    return Model(init, apply)


def from_nnx(factory: Callable[..., Any]) -> Model:
    """A flax.nnx module as a model.

    Args:
        factory: `rngs -> module`, which builds the module from a `flax.nnx.Rngs`.

    Returns:
        A `Model` whose parameters are the module's `nnx.Param` variables, as a nested dictionary. Other
        variables are constants, made with `jax.random.key(0)` whatever the key of `init`.

    Raises:
        ValueError: for batch norm or dropout in training mode and, from `apply`, for a module that changes other variables.

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

    graph, state, rest = nnx.eval_shape(split, jax.random.key(0))
    others = sorted({type(variable).__name__ for _, variable in nnx.to_flat_state(rest)})
    refusal = (
        f"The nnx module changes variables beside `Param` when applied; it holds {others} (batch statistics, dropout?), but only "
        "parameters are trained: return `module.eval()`'s module from the factory (batch norm by its running averages, no "
        "dropout), or use group or layer normalisation."
    )
    if others and any(
        isinstance(one, nnx.Module) and _is_training(one) for _, one in nnx.iter_graph(nnx.merge(graph, state, rest))
    ):
        raise ValueError(refusal)
    constants = _constants(lambda key: split(key)[2]) if others else rest

    def init(key: Any) -> Params:
        return nnx.to_pure_dict(split(key)[1])

    def apply(params: Any, inputs: Any) -> Any:
        state = nnx.eval_shape(split, jax.random.key(0))[1]
        nnx.replace_by_pure_dict(state, params)
        module = nnx.merge(graph, state, constants)
        before = jax.tree.leaves(nnx.split(module, nnx.Param, ...)[2])
        outputs = module(inputs)
        after = jax.tree.leaves(nnx.split(module, nnx.Param, ...)[2])
        if len(before) != len(after) or any(a is not b for a, b in zip(before, after, strict=True)):
            raise ValueError(refusal)
        return outputs

    return Model(init, apply)


def _is_training(module: Any) -> bool:
    """Whether a module is batch norm or dropout in training mode."""
    rate = getattr(module, "rate", getattr(module, "dropout_rate", 1.0))
    is_random = getattr(module, "deterministic", None) is False and rate != 0
    return is_random or getattr(module, "use_running_average", None) is False


def _constants(make: Callable[[Any], Any]) -> Any:
    """What does not depend on the key of a run, computed at once even under a trace."""
    with jax.ensure_compile_time_eval():
        return jax.jit(make)(jax.random.key(0))
