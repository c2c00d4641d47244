r"""How alike two matrices are: cosine (AGOP alignment), Pearson correlation (feature ansatz), matrix powers.

* `cosine`: ρ(A, B) = ⟨A, B⟩_F / (‖A‖_F ‖B‖_F), *not* centred. With A the AGOP of a network and B that of the target this is
  the AGOP alignment of Zhu et al.; it lies in [0, 1] for positive semidefinite matrices, and two random ones are not at 0.
* `factor_cosine`: the same from A = FᵀF, B = EᵀE, never forming d × d: ⟨A, B⟩_F = ‖F Eᵀ‖²_F.
* `pearson`: the *centred* correlation of entries, the measure of the neural feature ansatz. The two differ; neither is the other's
  substitute.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815 (AGOP alignment); Mallinar et al., ICML 2025;
    Radhakrishnan et al., arXiv 2212.13881 (ansatz).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn import _tree


def cosine(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, ""]:
    """The uncentred cosine ⟨A, B⟩_F / (‖A‖_F ‖B‖_F) of two arrays of one shape; NaN if one is zero.

    Args:
        a: A, such as `agop(f, x)`, [d, d].
        b: B.

    Returns:
        A scalar in [-1, 1].

    Raises:
        ValueError: for two shapes.

    Example:
        >>> float(cosine(jnp.eye(4), jnp.diag(jnp.array([1.0, 0.0, 0.0, 0.0]))))
        0.5
    """
    a, b = _one_shape(a, b)
    a, b = a / jnp.max(jnp.abs(a)), b / jnp.max(jnp.abs(b))  # squares of small gradients would underflow
    return jnp.sum(a * b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))


def factor_cosine(a: Float[Array, "r _"], b: Float[Array, "s _"]) -> Float[Array, ""]:
    """The cosine of FᵀF and EᵀE from the factors F and E, in memory r s + r² + s² (or d², where that is smaller).

    Args:
        a: F, [r, d], such as `agop_factor(f, x)`.
        b: E, [s, d].

    Returns:
        A scalar in [0, 1]; NaN if a factor is zero.

    Raises:
        ValueError: for factors that do not share d.

    Example:
        >>> round(float(factor_cosine(jnp.eye(4), jnp.eye(1, 4))), 4)
        0.5
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or 0 in (*a.shape, *b.shape):
        raise ValueError(
            f"Factors must be [r, d] and [s, d] with one d, not empty, but have shapes {a.shape} and {b.shape}."
        )
    a, b = a / jnp.max(jnp.abs(a)), b / jnp.max(jnp.abs(b))
    with jax.default_matmul_precision("highest"):
        if max(a.shape[0], b.shape[0]) > a.shape[1]:
            return cosine(a.T @ a, b.T @ b)
        overlap = jnp.sum((a @ b.T) ** 2)
        return overlap / (jnp.linalg.norm(a @ a.T) * jnp.linalg.norm(b @ b.T))


def pearson(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, ""]:
    """The centred correlation of the entries of two arrays of one shape; NaN if one is constant.

    Args:
        a: such as a neural feature matrix, [d, d].
        b: such as `matrix_power(layer_agop(...), 0.5)`.

    Returns:
        A scalar in [-1, 1].

    Raises:
        ValueError: for two shapes.

    Example:
        >>> round(float(pearson(jnp.array([1.0, 2.0, 3.0]), jnp.array([5.0, 4.0, 3.0]))), 4)
        -1.0
    """
    a, b = _one_shape(a, b)
    return cosine(a - jnp.mean(a), b - jnp.mean(b))


def matrix_power(matrix: Float[Array, "d d"], exponent: float) -> Float[Array, "d d"]:
    """G^s of a positive semidefinite matrix, by its eigenvalues; those below zero (rounding) count as zero.

    Args:
        matrix: G, symmetric.
        exponent: s > 0; the ansatz has ½.

    Returns:
        [d, d].

    Raises:
        ValueError: for an exponent that is not positive.

    Example:
        >>> matrix_power(jnp.diag(jnp.array([4.0, 9.0])), 0.5).round(4).tolist()
        [[2.0, 0.0], [0.0, 3.0]]
    """
    if not exponent > 0:
        raise ValueError(f"`exponent` must be positive, but is {exponent}; a singular matrix has no other power.")
    with jax.default_matmul_precision("highest"):
        matrix = _tree.single(matrix)
        values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
        return (vectors * jnp.maximum(values, 0.0)[None, :] ** exponent) @ vectors.T


def _one_shape(a: Any, b: Any) -> tuple[Any, Any]:
    if jnp.shape(a) != jnp.shape(b) or 0 in jnp.shape(a):
        raise ValueError(
            f"Arrays must have one shape to be compared, not empty, but have {jnp.shape(a)} and {jnp.shape(b)}."
        )
    return jnp.asarray(a), jnp.asarray(b)
