r"""Points of the Euclidean ball B(w0, R) in parameter space: at random on its sphere, and where a value is large.

The theorems on the transition to linearity speak of *all* w with ‖w − w0‖ ≤ R. A random point of the sphere is a typical one; a supremum
asks for the worst, which `ascend` looks for by projected gradient ascent,

    w ← P(w + ρ_t R ∇g(w) / ‖∇g(w)‖),     ρ_t = rate · (1 − t/steps),     P the projection onto B(w0, R).

What it finds is a lower bound of the supremum. Parameters are any pytree; the norm is that of R^p.

References:
    Zhu, Liu, Belkin, arXiv 2205.11786, Thm 3.6 and Cor. 3.7.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn import _tree
from jaxdyn._typing import Key, Params, Scalar


def random_point(key: Key, params0: Params, *, radius: float | Float[Array, ""], where: Params | None = None) -> Params:
    """A point w with ‖w − w0‖ = R, uniform on the sphere.

    Args:
        key: random key.
        params0: the centre w0.
        radius: R, at least 0; it may be traced.
        where: a tree like `params0` of booleans, the parameters that move; all when None. Padded parameters
            (`jd.widths`, `Masks`) take up part of the radius to no effect: `jax.tree.map(lambda w: w != 0, params0)` leaves them out.

    Returns:
        A tree like `params0`.

    Raises:
        ValueError: for a negative radius.

    Example:
        >>> point = random_point(jax.random.key(0), {"a": jnp.ones(3), "b": jnp.zeros((2, 2))}, radius=2.0)
        >>> round(float(_tree.norm(_tree.sub(point, {"a": jnp.ones(3), "b": jnp.zeros((2, 2))}))), 5)
        2.0
    """
    _check(radius)
    leaves, structure = jax.tree.flatten(params0)
    keys = jax.tree.unflatten(structure, list(jax.random.split(key, len(leaves))))
    step = jax.tree.map(lambda one, leaf: jax.random.normal(one, leaf.shape, leaf.dtype), keys, params0)
    if where is not None:
        step = jax.tree.map(lambda part, is_live: jnp.where(is_live, part, 0), step, where)
    return _add(params0, step, radius / _tree.norm(step))


def ascend(
    value: Callable[[Any], Scalar],
    params0: Params,
    *,
    key: Key,
    radius: float | Float[Array, ""],
    steps: int,
    rate: float = 0.5,
    where: Params | None = None,
) -> tuple[Params, Scalar]:
    """A point of the ball B(w0, R) where a value is large, by projected ascent along the normalised gradient.

    The ascent starts at a random point of the sphere, since at w0 itself a difference such as |f − f_lin| has no gradient. It costs
    one gradient a step. May be jitted and vmapped over everything but `value` and `steps`.

    Args:
        value: g, `params -> scalar`, differentiable.
        params0: the centre w0.
        key: random key; draws the start.
        radius: R, at least 0; it may be traced.
        steps: of the ascent.
        rate: length of the first step as a fraction of R; steps shrink linearly to rate · R / steps.
        where: as in `random_point`, for the start and for the steps.

    Returns:
        The point with the largest value met, w0 and the start included, and that value. Values that are not finite do not count;
        if none is finite, w0 and NaN.

    Raises:
        ValueError: for a negative radius, no step, or a rate that is not positive.

    Example:
        >>> centre, towards = jnp.zeros(3), jnp.array([2.0, 2.0, 1.0])
        >>> point, value = ascend(lambda w: towards @ w, centre, key=jax.random.key(0), radius=1.0, steps=30)
        >>> round(float(value), 2), [round(float(w), 2) for w in point]  # 3, in the direction of (2, 2, 1)
        (3.0, [0.67, 0.67, 0.33])
    """
    _check(radius)
    if steps < 1 or rate <= 0:
        raise ValueError(f"`steps` must be at least 1 and `rate` positive, but they are {steps} and {rate}.")
    gradient = jax.value_and_grad(value)

    def better(best: Any, point: Any, found: Any) -> Any:
        is_better = jnp.isfinite(found) & ~(found <= best[1])
        return jax.tree.map(lambda new, old: jnp.where(is_better, new, old), (point, found), best)

    def step(carry: Any, t: Any) -> Any:
        point, best = carry
        found, slope = gradient(point)
        best = better(best, point, found)
        if where is not None:
            slope = jax.tree.map(lambda part, is_live: jnp.where(is_live, part, 0), slope, where)
        length = _tree.norm(slope)
        pace = radius * rate * (1 - t / steps) / jnp.where(length > 0, length, 1)
        moved = _add(point, slope, jnp.where(jnp.isfinite(length), pace, 0))
        return (project(moved, params0, radius=radius), best), None

    with jax.default_matmul_precision("highest"):
        at_centre = value(params0)
        start = random_point(key, params0, radius=radius, where=where)
        best = (params0, jnp.where(jnp.isfinite(at_centre), at_centre, jnp.nan))
        (point, best), _ = jax.lax.scan(step, (start, best), jnp.arange(steps))
        found, largest = better(best, point, value(point))
    return found, largest


def project(params: Params, params0: Params, *, radius: float | Float[Array, ""]) -> Params:
    """The nearest point of the ball B(w0, R).

    Args:
        params: w.
        params0: the centre w0.
        radius: R.

    Example:
        >>> project(jnp.array([3.0, 4.0]), jnp.zeros(2), radius=1.0).round(3).tolist()
        [0.6000000238418579, 0.800000011920929]
    """
    away = _tree.sub(params, params0)
    distance = _tree.norm(away)
    return _add(params0, away, jnp.where(distance > radius, radius / jnp.where(distance > 0, distance, 1), 1))


def _add(params: Any, step: Any, factor: Any) -> Any:
    """The point w + factor · step, in the type of the parameters."""
    return jax.tree.map(lambda w, s: w + jnp.asarray(factor, w.dtype) * s, params, step)


def _check(radius: Any) -> None:
    """Refuse a negative radius; a traced one is not looked at."""
    try:
        is_negative = bool(radius < 0)
    except jax.errors.ConcretizationTypeError:
        return
    if is_negative:
        raise ValueError(f"`radius` must not be negative, but is {radius}.")
