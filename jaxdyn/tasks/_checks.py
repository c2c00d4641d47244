"""What every factory of a task checks at the boundary, before anything is computed; knows arrays, no task."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def count(name: str, value: Any, *, minimum: int = 1) -> int:
    """`value` as a Python integer of at least `minimum`.

    Raises:
        TypeError: when it is not an integer, or a traced one: it sets a shape.
        ValueError: when it is too small.
    """
    try:
        number = operator.index(value)
    except (TypeError, jax.errors.TracerIntegerConversionError):
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise TypeError(
            f"`{name}` must be an integer, but is {value!r}; it sets the shape of an array, so that it may be an axis "
            "of `loop=`, not of `vmap=`."
        )
    if number < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}, but is {number}.")
    return number


def inputs(name: str, x: Any) -> jax.Array:
    """`x` as floating inputs [n, *d]."""
    x = x if hasattr(x, "dtype") else np.asarray(x)
    if x.ndim < 2:
        raise ValueError(
            f"`{name}` must be [n, *d], one row an example, but has shape {x.shape}; for scalar inputs write "
            f"`{name}[:, None]`."
        )
    return _floating(name, x)


def targets(name: str, y: Any) -> jax.Array:
    """`y` as floating targets [n, k]."""
    y = y if hasattr(y, "dtype") else np.asarray(y)
    if jnp.issubdtype(y.dtype, jnp.integer) or y.dtype == np.bool_:
        raise TypeError(
            f"`{name}` holds {y.dtype} labels, but targets are floating numbers [n, k]; write "
            f"`jax.nn.one_hot(labels, num_classes)` for classes, ±1.0 as [n, 1] for two of them, or "
            f"`{name}.astype(float)` if these numbers are what the network should output."
        )
    if y.ndim == 1:
        raise ValueError(f"`{name}` must be [n, k], but has shape {y.shape}; for one output write `{name}[:, None]`.")
    if y.ndim != 2:
        raise ValueError(f"`{name}` must be [n, k], but has shape {y.shape}; flatten the outputs to one axis.")
    return _floating(name, y)


def same_length(name_x: str, x: Any, name_y: str, y: Any) -> None:
    """An error unless both have as many rows."""
    if x.shape[0] != y.shape[0]:
        raise ValueError(
            f"`{name_x}` has {x.shape[0]} examples, but `{name_y}` has {y.shape[0]}; they must be as many."
        )


def concrete(array: Any) -> Any:
    """The values as a NumPy array, or None where they are not known (a tracer) or not all here (other processes)."""
    try:
        return np.asarray(array) if getattr(array, "is_fully_addressable", True) else None
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return None


def _floating(name: str, array: Any) -> jax.Array:
    """`array` in JAX's default floating type; an error if it is empty, not real or not finite there."""
    real = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, np.bool_))
    if not real:
        raise TypeError(f"`{name}` must hold real numbers, but its type is {array.dtype}.")
    if 0 in array.shape:
        raise ValueError(f"`{name}` is empty: its shape is {array.shape}.")
    default = jnp.result_type(float)
    values = concrete(array)
    if values is None:
        return jnp.asarray(array, default)
    with np.errstate(over="ignore"):
        converted = values.astype(default, copy=False)
    bad = ~np.isfinite(converted)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"`{name}` contains {int(bad.sum())} of {bad.size} values that are not finite in {default}, the first at "
            f"index {first}: {values[first]}; remove those examples or mend the data."
        )
    return jnp.asarray(array, default) if isinstance(array, jax.Array) else jnp.asarray(converted)
