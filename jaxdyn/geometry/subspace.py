r"""The residual in the eigenspaces of the tangent kernel: P_{≤s} and P_{>s}.

With K u_i = λ_i u_i, λ_1 ≥ λ_2 ≥ …, the projection P_{≤s} v = Σ_{i≤s} ⟨u_i, v⟩ u_i, and P_{>s} v = v − P_{≤s} v. Spikes of the
training loss live in P_{≤s} of the *current* kernel with a small s, while the loss in P_{>s} keeps falling. An old kernel leaks: its
eigenvectors are no longer those of the dynamics.

For k > 1 outputs the kernel is the whole nk × nk matrix and s counts its eigenvectors; that is our definition. If λ_s = λ_{s+1}
the projection is not unique.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from matfree import decomp

from jaxdyn import _tree, losses
from jaxdyn.geometry import spectrum
from jaxdyn.geometry.blocks import as_matrix
from jaxdyn.geometry.lanczos import over, unit

_QUICK = 24  # products of a first attempt at the largest eigenvalue
_SMALL = 512  # rows up to which the squares of a matrix cost an accelerator next to nothing


class Parts(NamedTuple):
    """What lies in the top eigenspace, and what does not.

    Attributes:
        top: in P_{≤s}.
        rest: in P_{>s}.
    """

    top: Any
    rest: Any


def eigenspace(kernel: Float[Array, "..."], num: int) -> Float[Array, "nk num"]:
    """Orthonormal eigenvectors of the `num` largest eigenvalues, largest first.

    Args:
        kernel: [n, n] of one output, blocks [n, n, k, k] (`ntk_blocks`), or the whole matrix [nk, nk].
        num: s, how many, in [1, nk].

    Returns:
        [nk, num], rows (example, output), examples first.

    Raises:
        ValueError: for a kernel that is not square, or `num` out of range.

    Example:
        >>> jnp.abs(eigenspace(jnp.diag(jnp.array([1.0, 3.0])), 1)).tolist()
        [[0.0], [1.0]]
    """
    matrix = _matrix(kernel)
    if not 1 <= num <= matrix.shape[0]:
        raise ValueError(f"`num` must lie in [1, {matrix.shape[0]}], the size of the kernel, but is {num}.")
    with jax.default_matmul_precision("highest"):
        _, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    return vectors[:, ::-1][:, :num]


def kernel_norm(kernel: Float[Array, "..."]) -> Float[Array, ""]:
    """The largest eigenvalue of a tangent kernel, a scalar.

    A formed kernel is multiplied two dozen times (Lanczos) on a CPU, and squared twelve times elsewhere, if it has at most 512 rows: an
    accelerator does few large products faster than many small ones. Where the residual of what that finds is above √ε/4 of the
    value, the search goes on by `spectrum.top`, and a dense cluster is decomposed at last. Inside compiled loops on a CPU that is
    far cheaper than to decompose always, since LAPACK's threads and XLA's get in each other's way. Under `vmap` the search goes on,
    for all, where one of them needs it.

    Args:
        kernel: as in `eigenspace`.

    Example:
        >>> float(kernel_norm(jnp.diag(jnp.array([1.0, 3.0]))))
        3.0
    """
    matrix = _matrix(kernel)
    size = unit(matrix)  # squares of very small or large entries would leave the floating range
    matrix = over(matrix + matrix.T, 2 * size)
    return size * _largest(matrix)


@jax.custom_batching.custom_vmap
def _largest(matrix: Any) -> Any:
    """The largest eigenvalue of a symmetric matrix."""
    value, is_found = _guessed(matrix)
    return jax.lax.cond(is_found, lambda: value, lambda: _searched(matrix))


@jax.custom_batching.custom_vmap
def _largest_each(matrices: Any) -> Any:
    """Of each of a stack. A choice of its own for each would compute everything for all."""
    values, are_found = jax.vmap(_guessed)(matrices)
    return jax.lax.cond(
        jnp.all(are_found), lambda: values, lambda: jnp.where(are_found, values, _searched_each(matrices))
    )


@_largest.def_vmap
def _(num: int, _: Any, matrices: Any) -> tuple[Any, bool]:
    return _largest_each(matrices), True


@_largest_each.def_vmap
def _(num: int, _: Any, stacks: Any) -> tuple[Any, bool]:
    return _largest_each(stacks.reshape(-1, *stacks.shape[2:])).reshape(stacks.shape[:2]), True


def _guessed(matrix: Any) -> tuple[Any, Any]:
    """The largest eigenvalue by a fixed number of products, and whether its residual is small."""
    vector = jax.lax.platform_dependent(matrix, cpu=_ritz, default=_powered if matrix.shape[0] <= _SMALL else _ritz)
    vector = vector / jnp.linalg.norm(vector)
    image = matrix @ vector
    value = vector @ image
    return value, jnp.linalg.norm(image - value * vector) <= _tolerance(matrix) * value


def _ritz(matrix: Any) -> Any:
    """The top Ritz vector after two dozen products with a random start."""
    start = jax.random.rademacher(jax.random.key(0), (matrix.shape[0],), matrix.dtype)
    num = min(_QUICK, matrix.shape[0])
    krylov = decomp.tridiag_sym(num, reortho="full", custom_vjp=False)(lambda v: matrix @ v, start)
    return jnp.linalg.eigh(krylov.J_small)[1][:, -1] @ krylov.Q_tall  # rows are the basis


def _powered(matrix: Any) -> Any:
    """The 4096th power times a random start: far from the top eigenvector only where another eigenvalue is within some thousandths."""
    for _ in range(3):
        matrix = matrix / jnp.linalg.norm(matrix)  # then λ₁ ≥ n^(-1/2), and λ₁¹⁶ does not underflow
        for _ in range(4):
            matrix = matrix @ matrix
    return matrix @ jax.random.rademacher(jax.random.key(0), (matrix.shape[0],), matrix.dtype)


def _searched(matrix: Any) -> Any:
    """The largest eigenvalue by as many products as it takes, or by decomposition."""
    value, is_found = _search(matrix)
    return jax.lax.cond(is_found, lambda: value, lambda: _decomposed(matrix))


def _searched_each(matrices: Any) -> Any:
    """Of each of a stack."""
    values, are_found = jax.vmap(_search)(matrices)
    return jax.lax.cond(
        jnp.all(are_found),
        lambda: values,
        lambda: jnp.where(are_found, values, jax.vmap(_decomposed)(matrices)),
    )


def _search(matrix: Any) -> tuple[Any, Any]:
    found = spectrum.top(
        lambda v: matrix @ v,
        dim=matrix.shape[0],
        num=1,
        key=jax.random.key(0),
        tolerance=_tolerance(matrix),
        max_matvecs=200,
        dtype=matrix.dtype,
    )
    return found.values[0], found.converged[0]


def _decomposed(matrix: Any) -> Any:
    return jnp.linalg.eigvalsh(matrix)[-1].astype(matrix.dtype)


def _tolerance(matrix: Any) -> float:
    return float(jnp.finfo(matrix.dtype).eps) ** 0.5 / 4


def project(kernel: Float[Array, "..."], residual: Float[Array, "n k"], num: int) -> Parts:
    """P_{≤s} and P_{>s} of a residual.

    Costs the eigenvectors of an nk × nk matrix.

    Args:
        kernel: at the same inputs and the current parameters, see `eigenspace`.
        residual: f − y, [n, k].
        num: s, how many eigenvectors make the top.

    Returns:
        `Parts` of shape [n, k]; they are orthogonal and sum to the residual.

    Raises:
        ValueError: when the kernel is not nk × nk.

    Example:
        >>> parts = project(jnp.diag(jnp.array([1.0, 3.0])), jnp.array([[5.0], [7.0]]), 1)
        >>> parts.top.tolist(), parts.rest.tolist()
        ([[0.0], [7.0]], [[5.0], [0.0]])
    """
    _check(kernel, residual)
    return project_onto(eigenspace(kernel, num), residual)


def project_onto(vectors: Float[Array, "nk num"], residual: Float[Array, "n k"]) -> Parts:
    """The same with given orthonormal vectors, such as those of `spectrum.top(operators.tangent_kernel(…))`.

    Args:
        vectors: [nk, num], orthonormal columns.
        residual: f − y, [n, k].

    Returns:
        `Parts` of shape [n, k].

    Example:
        >>> project_onto(jnp.array([[1.0], [0.0]]), jnp.array([[5.0], [7.0]])).top.tolist()
        [[5.0], [0.0]]
    """
    if vectors.shape[0] != residual.size:
        raise ValueError(
            f"`vectors` have {vectors.shape[0]} rows, but a residual {residual.shape} has {residual.size} entries."
        )
    flat = residual.reshape(-1)
    with jax.default_matmul_precision("highest"):
        top = (vectors @ (vectors.T @ flat)).reshape(residual.shape)
    return Parts(top, residual - top)


def subspace_loss(
    kernel: Float[Array, "..."], residual: Float[Array, "n k"], num: int, *, loss: losses.Quadratic = losses.mse
) -> Parts:
    """The loss in the top eigenspace and in the rest, (c/2) ‖P (f − y)‖²; they sum to the loss.

    Args:
        kernel: at the same inputs and the current parameters, see `eigenspace`.
        residual: f − y, [n, k].
        num: s.
        loss: a quadratic loss, for its c; `losses.mse` gives the papers' 1/n.

    Returns:
        `Parts` of two scalars.

    Raises:
        ValueError: when the kernel is not nk × nk.

    Example:
        >>> [float(part) for part in subspace_loss(jnp.diag(jnp.array([1.0, 3.0])), jnp.array([[2.0], [4.0]]), 1)]
        [8.0, 2.0]
    """
    parts = project(kernel, residual, num)
    n, k = residual.shape
    return Parts(*(loss.c(n, k) / 2 * jnp.sum(part**2) for part in parts))


def _matrix(kernel: Any) -> Any:
    kernel = _tree.single(kernel)
    if kernel.ndim == 4 and kernel.shape[0] == kernel.shape[1] and kernel.shape[2] == kernel.shape[3]:
        return as_matrix(kernel)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.size == 0:
        raise ValueError(
            f"A kernel is [n, n], [n, n, k, k] or [nk, nk] of at least one example, but has shape {kernel.shape}."
        )
    return kernel


def _check(kernel: Any, residual: Any) -> None:
    size = _matrix(kernel).shape[0]
    if residual.ndim != 2 or size != residual.size:
        raise ValueError(
            f"The kernel has {size} rows, but the residual {residual.shape} has {residual.size} entries; with k > 1 outputs "
            "give the whole kernel, `ntk_blocks(apply, params, x)`."
        )
