"""Data drawn from a known law: monomials, multi-index models, two clusters.

Inputs are drawn row by row: with threefry keys (JAX's default) the n examples of a task are the leading ones of a task
with more (to the last digit), and its test examples are the same. The keys may be traced, so that a task can be made
inside `vmap` over seeds. Training inputs, test inputs and the parameters of the target have streams of their own; none
depends on a network.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from jaxdyn._typing import Key
from jaxdyn.tasks._checks import count
from jaxdyn.tasks._draws import normal_rows
from jaxdyn.tasks.base import Task, from_arrays

_TRAIN, _TEST, _DIRECTIONS = 0x74726169, 0x74657374, 0x64697265  # purposes of the streams


@jax.tree_util.register_static
@dataclass(frozen=True)
class Monomial:
    """The target x -> x_1 ⋯ x_degree, as [n, 1]. A pytree without leaves, equal to another of equal degree.

    Attributes:
        degree: how many of the leading coordinates are multiplied.
    """

    degree: int

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n 1"]:
        """The product of the first `degree` coordinates of each row."""
        factors = [x[:, i : i + 1] for i in range(self.degree)]  # each [n, 1]
        return functools.reduce(jnp.multiply, factors)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class MultiIndex:
    """The target x -> link(Uᵀ x). A pytree whose leaf is U, so that it may differ from member to member.

    Attributes:
        directions: U with orthonormal columns, [d, r].
        link: `z: [n, r] -> [n, k]`.
    """

    directions: Any
    link: Callable[[Any], Any] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """The link of the projections of each row, at the highest matmul precision."""
        with jax.default_matmul_precision("highest"):
            y: Array = self.link(x @ self.directions)
        return y


def polynomial(key: Key, *, degree: int, dim: int, n: int, n_test: int = 1000) -> Task:
    """Gaussian inputs and the monomial of their leading coordinates: y = x_1 ⋯ x_degree with x ~ N(0, I_dim).

    The targets have mean 0 and variance 1. `degree=2` and `degree=3` are the "rank-2" and "rank-3" regressions of the
    literature on feature learning.

    Args:
        key: randomness of the inputs; it may be traced.
        degree: number of factors, at least 1.
        dim: input dimension d, at least `degree`.
        n: training examples.
        n_test: test examples; 0 for none.

    Returns:
        A task with `x` [n, d], `y` [n, 1] and the `target` `Monomial(degree)`.

    Raises:
        ValueError: when a number is too small, or `degree` exceeds `dim`.
        TypeError: when one is not an integer.

    Example:
        >>> import jax
        >>> task = polynomial(jax.random.key(0), degree=2, dim=50, n=100)
        >>> task.x.shape, bool((task.y[:, 0] == task.x[:, 0] * task.x[:, 1]).all())
        ((100, 50), True)
    """
    degree, dim = count("degree", degree), count("dim", dim)
    if degree > dim:
        raise ValueError(f"`degree` is {degree}, but there are only dim={dim} coordinates to multiply; raise `dim`.")
    return _gaussian_task(key, Monomial(degree), dim=dim, n=n, n_test=n_test)


def multi_index(key: Key, *, link: Callable[[Any], Any], directions: int, dim: int, n: int, n_test: int = 1000) -> Task:
    """Gaussian inputs and a function of a few random directions of them: y = link(Uᵀ x) with x ~ N(0, I_dim).

    U [d, r] has orthonormal columns and is uniformly distributed (Haar); it depends on `key`, `dim` and `directions`
    alone. The projections Uᵀ x are N(0, I_r).

    Args:
        key: randomness of the directions and the inputs; it may be traced.
        link: `z: [n, r] -> y: [n, k]`, written with `jax.numpy`.
        directions: number of directions r, from 1 to `dim`.
        dim: input dimension d.
        n: training examples.
        n_test: test examples; 0 for none.

    Returns:
        A task with `x` [n, d], `y` [n, k] and the `target` `MultiIndex(U, link)`.

    Raises:
        ValueError: when a number is out of range, or `link` does not return [n, k].
        TypeError: when one is not an integer.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> link = lambda z: jnp.tanh(z[:, :1] * z[:, 1:])
        >>> task = multi_index(jax.random.key(0), link=link, directions=2, dim=9, n=20)
        >>> task.y.shape, task.target.directions.shape
        ((20, 1), (9, 2))
    """
    directions, dim = count("directions", directions), count("dim", dim)
    if directions > dim:
        raise ValueError(f"`directions` is {directions}, but there are only dim={dim} orthogonal ones; raise `dim`.")
    shape = getattr(jax.eval_shape(link, jnp.zeros((2, directions))), "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != 2:
        raise ValueError(
            f"`link` must map [n, {directions}] to [n, k], but maps (2, {directions}) to {shape}; for one output keep "
            "the axis, as in `z[:, :1]` or `jnp.sum(…, axis=1, keepdims=True)`."
        )
    gaussian = normal_rows(jax.random.fold_in(key, _DIRECTIONS), dim, directions)  # [d, r]
    with jax.default_matmul_precision("highest"):
        q, r = jnp.linalg.qr(gaussian)
    orthonormal = q * jnp.where(jnp.diagonal(r) < 0, -1, 1)[None, :].astype(q.dtype)  # the sign makes it Haar
    return _gaussian_task(key, MultiIndex(orthonormal, link), dim=dim, n=n, n_test=n_test)


def two_clusters(
    key: Key,
    *,
    n: int,
    centers: Num[ArrayLike, ""] = 2.0,
    std: Num[ArrayLike, ""] = 1.0,
    dim: int = 1,
    n_test: int = 1000,
) -> Task:
    """Two Gaussian clusters and their signs: x ~ N(y · centers · e_1, std² I_dim) with y = ±1.

    With the defaults and n = 128 it is the one-dimensional data of the catapult experiments of quadratic models, where
    the tangent kernel has rank two, one direction for each sign of x. Labels alternate, −1 first, so that the
    classes are balanced. Labels are no function of the inputs: the clusters overlap, and `target` is None.

    Args:
        key: randomness of the inputs; it may be traced.
        n: training examples.
        centers: distance of each centre from the origin, along the first coordinate; it may be traced.
        std: standard deviation of every coordinate; it may be traced.
        dim: input dimension d.
        n_test: test examples; 0 for none.

    Returns:
        A task with `x` [n, d] and `y` = ±1 as [n, 1].

    Raises:
        ValueError: when a count is too small.
        TypeError: when one is not an integer.

    Example:
        >>> import jax
        >>> task = two_clusters(jax.random.key(0), n=128)
        >>> task.x.shape, task.y[:4, 0].tolist()
        ((128, 1), [-1.0, 1.0, -1.0, 1.0])

    References:
        L. Zhu, C. Liu, A. Radhakrishnan, M. Belkin, 2205.11787, figures 3 and 5.
    """
    n, n_test, dim = count("n", n), count("n_test", n_test, minimum=0), count("dim", dim)

    def draw(purpose: int, num: int) -> tuple[Any, Any]:
        noise = normal_rows(jax.random.fold_in(key, purpose), num, dim)
        y = jnp.where(jnp.arange(num) % 2 == 0, -1, 1).astype(noise.dtype)[:, None]  # [num, 1]
        return jnp.asarray(std * noise).at[:, :1].add(y * centers), y

    x, y = draw(_TRAIN, n)
    if n_test == 0:
        return from_arrays(x, y)
    x_test, y_test = draw(_TEST, n_test)
    return from_arrays(x, y, x_test=x_test, y_test=y_test)


def _gaussian_task(key: Key, target: Callable[[Any], Any], *, dim: int, n: int, n_test: int) -> Task:
    """Inputs x ~ N(0, I_dim) and targets y = target(x)."""
    n, n_test = count("n", n), count("n_test", n_test, minimum=0)
    x = normal_rows(jax.random.fold_in(key, _TRAIN), n, dim)
    x_test = normal_rows(jax.random.fold_in(key, _TEST), n_test, dim) if n_test else None
    return from_arrays(x, target(x), x_test=x_test, target=target)
