"""The whole tangent kernel of k outputs, as blocks [n, n, k, k] and as one matrix [nk, nk]."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def as_matrix(blocks: Float[Array, "n1 n2 k k"]) -> Float[Array, "n1k n2k"]:
    """Blocks Θ[i, j, a, b] as the matrix with rows (i, a) and columns (j, b), examples first.

    Raises:
        ValueError: for other than four axes, or an empty one.

    Example:
        >>> as_matrix(jnp.ones((3, 4, 2, 2))).shape
        (6, 8)
    """
    if blocks.ndim != 4 or 0 in blocks.shape:
        raise ValueError(
            f"Blocks are [n1, n2, k, k], as `ntk_blocks` makes them, none of them empty, but have shape {blocks.shape}."
        )
    n1, n2, k, _ = blocks.shape
    return jnp.transpose(blocks, (0, 2, 1, 3)).reshape(n1 * k, n2 * k)
