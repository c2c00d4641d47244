"""Random rows that do not depend on how many are drawn."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn._typing import Key


@functools.partial(jax.jit, static_argnums=(1, 2))
def normal_rows(key: Key, num_rows: int, num_columns: int) -> Float[Array, "n d"]:
    """Standard normal numbers [n, d]; row i comes from `fold_in(key, i)`.

    With threefry keys (JAX's default) the draw is a leading block of every larger one, in rows and in columns: from the
    same random bits, and equal up to the last digit, in which XLA's vectorised erf⁻¹ may differ between shapes. It
    costs the same as one draw of the whole.
    """
    return jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), (num_columns,)))(jnp.arange(num_rows))


@functools.partial(jax.jit, static_argnums=(1, 2))
def uniform_rows(key: Key, num_rows: int, num_columns: int) -> Float[Array, "n d"]:
    """Uniform numbers in [0, 1), [n, d], drawn like `normal_rows`."""
    return jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(key, row), (num_columns,)))(jnp.arange(num_rows))
