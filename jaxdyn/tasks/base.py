"""A task: inputs and targets to learn from, inputs and targets to be judged by, and the truth where it is known.

    task = (x [n, *d], y [n, k]; x_test [n_test, *d], y_test [n_test, k]; target: x -> y)

A task holds data alone. It has no loss, no sampler and no network; it draws nothing and trains nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jaxdyn.tasks._checks import inputs, same_length, targets


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Task:
    """What is to be learned: a pytree of arrays.

    Tasks are made by factories (`from_arrays`, `polynomial`, `digits`, …), which check them. The class itself checks
    nothing, because JAX rebuilds it around tracers, axis numbers and other stand-ins; for the same reason its fields
    are annotated `Any`. Under `vmap` every array gains a leading axis of members. Change a field with
    `dataclasses.replace`.

    Attributes:
        x: training inputs, [n, *d].
        y: training targets, [n, k].
        x_test: test inputs, [n_test, *d], or None.
        y_test: test targets, [n_test, k], or None exactly when `x_test` is.
        target: the true function `x: [n, *d] -> y: [n, k]` where it is known, else None. It is a pytree too: one with
            random parameters carries them as leaves, so that it may differ from member to member and is never a
            compile-time constant; a plain function is held without leaves, as a `jax.tree_util.Partial`, so that two
            tasks of one target have one tree structure.
    """

    x: Any
    y: Any
    x_test: Any = None
    y_test: Any = None
    target: Any = None


def from_arrays(
    x: Any, y: Any, *, x_test: Any = None, y_test: Any = None, target: Callable[[Any], Any] | None = None
) -> Task:
    """A task from arrays.

    The data become JAX arrays of JAX's default floating type (float64 when x64 is on). Nothing is centred or scaled.
    NumPy arrays, JAX arrays, tracers and nested lists are accepted; of tracers only shapes and types are checked.

    Args:
        x: training inputs, [n, *d] with at least one input axis.
        y: training targets, floating, [n, k]. For classes give one-hot rows, or ±1.0 as [n, 1].
        x_test: test inputs, [n_test, *d].
        y_test: test targets, [n_test, k]. Test data come as a pair; with a `target` they may be left out, and are then
            `target(x_test)`.
        target: the true function `x -> y`, if known, written with `jax.numpy`.

    Returns:
        The task.

    Raises:
        ValueError: for a shape that does not fit, no data, NaN or inf, or only one of `x_test` and `y_test`.
        TypeError: for integer labels, or data that are not real numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.linspace(-1.0, 1.0, 8)[:, None]
        >>> task = from_arrays(x, jnp.sin(x), x_test=x / 2, target=jnp.sin)
        >>> task.y.shape, task.y_test.shape
        ((8, 1), (8, 1))
    """
    x, y = inputs("x", x), targets("y", y)
    same_length("x", x, "y", y)
    target = _as_pytree(target, x, y)
    if x_test is None:
        if y_test is not None:
            raise ValueError("`y_test` is given without `x_test`; give both or neither.")
        return Task(x, y, target=target)
    x_test = inputs("x_test", x_test)
    if y_test is None:
        if target is None:
            raise ValueError(
                "`x_test` is given without `y_test`; give both or neither, or a `target` that computes `y_test`."
            )
        y_test = target(x_test)
    y_test = targets("y_test", y_test)
    same_length("x_test", x_test, "y_test", y_test)
    for name, test, train in (("x", x_test, x), ("y", y_test, y)):
        if test.shape[1:] != train.shape[1:]:
            raise ValueError(
                f"One example of `{name}_test` has shape {test.shape[1:]}, but one of `{name}` has {train.shape[1:]}; "
                "training and test examples must have one shape."
            )
    return Task(x, y, x_test, y_test, target)


def _as_pytree(target: Callable[[Any], Any] | None, x: jax.Array, y: jax.Array) -> Callable[[Any], Any] | None:
    """`target` as a callable pytree, once it is seen to map x to the shape of y."""
    if target is None:
        return None
    try:
        shape = getattr(jax.eval_shape(target, x), "shape", None)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError("`target` cannot be traced by JAX; write it with `jax.numpy` instead of `numpy`.") from error
    if shape != y.shape:
        raise ValueError(f"`target` maps `x` of shape {x.shape} to {shape}, but `y` has shape {y.shape}.")
    if jax.tree_util.all_leaves([target]):  # a plain function: no pytree yet
        return jax.tree_util.Partial(target)
    return target
