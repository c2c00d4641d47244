r"""Block Lanczos with full reorthogonalisation and thick restarts: the engine of `geometry.spectrum`.

The basis V (rows, orthonormal) grows by a block at a time. With W = A V_j, C = V Wᵀ its coefficients and R = W − Cᵀ V
what is left, the next block is an orthonormal basis of R and

    A Vᵀ = Vᵀ H + V_{next}ᵀ B E_jᵀ,        residual of the Ritz pair (θ, Vᵀ s) = ‖B s_j‖,

s_j the entries of s in the last block, so residuals are known at every step for nothing. When the basis is full its better half of
Ritz vectors is kept, and the next block goes on from there (thick restart); nothing is multiplied twice.

Orthogonalisation happens twice, once before and once after R is normalised, since what a small R keeps of V is not
small next to R. A direction that is nothing but rounding (an invariant subspace is exhausted) becomes a zero row, masked
out of H. The first pass need only visit blocks that H couples with (three terms, or all after a restart).

Not a public solver: `spectrum` checks arguments, multiplies the result once more and reports.

References:
    K. Wu, H. Simon, SIAM J. Matrix Anal. Appl. 22 (2000), 602-616. G. Golub, R. Underwood, "The block Lanczos method
    for computing eigenvalues", 1977.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int


@dataclass(frozen=True)
class Setting:
    """What shapes the search.

    Attributes:
        num: eigenpairs that must converge.
        block: vectors multiplied together, at least `num`; those beyond are guards.
        num_blocks: blocks in the basis, at least 4; one more is kept in memory.
        tolerance: relative, see `spectrum.top`.
        max_matvecs: upper bound on the products.
        warm: whether the start is a guess. Two blocks are then the least, so that a guess is never judged by itself alone.
    """

    num: int
    block: int
    num_blocks: int
    tolerance: float
    max_matvecs: int
    warm: bool


class Ritz(NamedTuple):
    """The best Ritz pairs of the final basis.

    Attributes:
        vectors: rows, the first `num` and the guards, [block, dim].
        is_safe: whether no guard may hide an eigenvalue above this one, [num].
        scale: the largest |λ| seen, a lower bound of the spectral norm.
        num_matvecs: products spent.
    """

    vectors: Float[Array, "block dim"]
    is_safe: Bool[Array, " num"]
    scale: Float[Array, ""]
    num_matvecs: Int[Array, ""]


_ZERO = np.int32(0)  # indices of one dtype, in double precision too


class _Basis(NamedTuple):
    """The state of the search: blocks 0 … last − 1 are multiplied, block `last` is next.

    `coefficients` is H with B below its last block; `valid` says which rows are not zero; A times the next block overlaps
    with no block before `first`; overlaps up to `limit` may stay in the basis.
    """

    rows: Any  # [num_blocks + 1, block, dim]
    coefficients: Any  # [size + block, size], size = num_blocks · block
    valid: Any  # [size + block]
    last: Any
    first: Any
    spent: Any
    is_safe: Any  # [num]
    scale: Any
    limit: Any
    done: Any


def lanczos(
    products: Callable[[Any], Any],
    rank: Callable[[Any], Any],
    start: Float[Array, "block dim"],
    setting: Setting,
) -> Ritz:
    """Search the eigenpairs whose values `rank` puts first.

    Args:
        products: the symmetric matrix applied to each row of [block, dim].
        rank: an eigenvalue's standing; the identity for the algebraic top, `jnp.abs` for the largest in absolute value.
        start: the first block, rows of full rank, not necessarily orthonormal.
        setting: sizes, tolerance and budget.

    Returns:
        Orthonormal Ritz vectors, converged or not.

    Example:
        >>> setting = Setting(num=1, block=1, num_blocks=4, tolerance=1e-3, max_matvecs=50, warm=False)
        >>> found = lanczos(lambda rows: rows * jnp.arange(9.0)[None], lambda value: value, jnp.ones((1, 9)), setting)
        >>> round(float(jnp.sum(found.vectors[0] ** 2 * jnp.arange(9.0))), 3)
        8.0
    """
    block, num_blocks = setting.block, setting.num_blocks
    size, dim = num_blocks * block, start.shape[1]
    rows = jnp.zeros((num_blocks + 1, block, dim), start.dtype).at[0].set(jnp.linalg.qr(start.T)[0].T)
    basis = _Basis(
        rows=rows,
        coefficients=jnp.zeros((size + block, size), start.dtype),
        valid=jnp.arange(size + block) < block,
        last=jnp.int32(0),
        first=jnp.int32(0),
        spent=jnp.int32(0),
        is_safe=jnp.zeros(setting.num, bool),
        scale=jnp.zeros((), start.dtype),
        limit=jnp.zeros((), start.dtype),
        done=jnp.bool_(False),
    )

    def cycle(basis: _Basis) -> _Basis:
        grown = lax.while_loop(
            lambda b: ~b.done & (b.last < num_blocks), lambda b: _judge(_grow(products, b), rank, setting), basis
        )
        return _restart(grown, rank, num_blocks // 2)

    basis = lax.while_loop(lambda b: ~b.done, cycle, basis)
    return Ritz(basis.rows[0], basis.is_safe, basis.scale, basis.spent)


def rounding(dtype: Any) -> float:
    """Residuals below this share of the spectral norm are rounding: no product is more exact."""
    return 32.0 * float(jnp.finfo(dtype).eps)


def _grow(products: Callable[[Any], Any], basis: _Basis) -> _Basis:
    """Multiply the next block, store its coefficients, and make the block after it."""
    rows, last = basis.rows, basis.last
    block = rows.shape[1]
    images = products(rows[last])
    images, first_pass = _orthogonalise(rows, images, basis.first, last + 1)
    factor, triangle = jnp.linalg.qr(images.T)  # images = triangleᵀ factorᵀ
    fresh, second_pass = _reorthogonalise(rows, factor.T, last + 1, basis.limit)
    gram, rotation = jnp.linalg.eigh(fresh @ fresh.T)
    is_new = gram > 0.25  # less is left only of directions that were rounding to begin with
    root = jnp.sqrt(jnp.where(is_new, gram, 1.0))
    fresh = jnp.where(is_new[:, None], rotation.T @ fresh / root[:, None], 0.0)
    below = root[:, None] * (rotation.T @ triangle)  # B, [block, block]
    columns = (first_pass + second_pass @ triangle).reshape(-1, block)  # [size + block, block]
    columns = lax.dynamic_update_slice(columns, below, ((last + 1) * block, _ZERO))
    return basis._replace(
        rows=rows.at[last + 1].set(fresh),
        coefficients=lax.dynamic_update_slice(basis.coefficients, columns, (_ZERO, last * block)),
        valid=lax.dynamic_update_slice(basis.valid, is_new, ((last + 1) * block,)),
        last=last + 1,
        first=last,
        spent=basis.spent + block,
    )


def _orthogonalise(rows: Any, images: Any, first: Any, stop: Any) -> tuple[Any, Any]:
    """Take from the images their overlap with blocks first … stop − 1; what is left, and the overlaps [blocks, b, b]."""

    def take(i: Any, carry: Any) -> Any:
        images, overlaps = carry
        overlap = rows[i] @ images.T
        return images - overlap.T @ rows[i], overlaps.at[i].set(overlap)

    num, block, _ = rows.shape
    return lax.fori_loop(first, stop, take, (images, jnp.zeros((num, block, block), images.dtype)))


def _reorthogonalise(rows: Any, fresh: Any, stop: Any, limit: Any) -> tuple[Any, Any]:
    """The same against all blocks before `stop`, where an overlap is large enough to matter."""
    num, block, _ = rows.shape

    def measure(i: Any, overlaps: Any) -> Any:
        return overlaps.at[i].set(rows[i] @ fresh.T)

    overlaps = lax.fori_loop(_ZERO, stop, measure, jnp.zeros((num, block, block), fresh.dtype))
    return lax.cond(
        jnp.max(jnp.abs(overlaps)) > limit,
        lambda: _orthogonalise(rows, fresh, _ZERO, stop),
        lambda: (fresh, jnp.zeros_like(overlaps)),
    )


def _ritz(basis: _Basis, rank: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
    """All Ritz values, best first, their coefficients in the basis (columns), and the residuals' coefficients ‖B s_j‖."""
    size, block = basis.coefficients.shape[1], basis.rows.shape[1]
    used = basis.valid[:size] & (jnp.arange(size) < basis.last * block)
    matrix = jnp.where(used[:, None] & used[None, :], basis.coefficients[:size], 0.0)
    matrix = (matrix + matrix.T) / 2
    outside = -4.0 * jnp.linalg.norm(matrix) - 1.0  # where no Ritz value can be: rows that are not in use
    values, vectors = jnp.linalg.eigh(matrix + jnp.diag(jnp.where(used, 0.0, outside)))
    order = jnp.argsort(jnp.where(values < outside / 2, -jnp.inf, rank(values)), descending=True)
    values = jnp.where(values < outside / 2, 0.0, values)[order]
    vectors = jnp.where(used[:, None], vectors[:, order], 0.0)
    corner = (basis.last * block, (basis.last - 1) * block)
    below = lax.dynamic_slice(basis.coefficients, corner, (block, block))
    tail = below @ lax.dynamic_slice(vectors, ((basis.last - 1) * block, _ZERO), (block, size))  # [block, size]
    return values, vectors, tail


def _judge(basis: _Basis, rank: Callable[[Any], Any], setting: Setting) -> _Basis:
    """Whether the search may end: residuals small, guards below, budget spent, or not finite."""
    values, _, tail = _ritz(basis, rank)
    num, block = setting.num, setting.block
    residuals = jnp.linalg.norm(tail[:, :block], axis=0)
    scale = jnp.maximum(basis.scale, jnp.max(jnp.abs(values)))
    slack = setting.tolerance * jnp.abs(values[:block]) + rounding(values.dtype) * scale
    standing = rank(values[:block])
    threat = jnp.max(standing[num:] + residuals[num:], initial=-jnp.inf)
    is_safe = threat <= standing[:num] + slack[:num]
    found = jnp.all((residuals <= slack)[:num] & is_safe) & (basis.last >= (2 if setting.warm else 1))
    # Overlaps δ falsify residuals by about δ ‖A‖ and values by its square (Simon 1984); the residuals sought are the slack.
    limit = jnp.minimum(
        jnp.min(slack[:num]) / (16 * jnp.where(scale > 0, scale, 1.0)), jnp.sqrt(jnp.finfo(values.dtype).eps)
    )
    stuck = ~jnp.all(jnp.isfinite(tail)) | (basis.spent + block > setting.max_matvecs)
    return basis._replace(is_safe=is_safe, scale=scale, limit=limit, done=found | stuck)


def _restart(basis: _Basis, rank: Callable[[Any], Any], kept: int) -> _Basis:
    """Keep the best `kept` blocks of Ritz vectors and the next block."""
    num, block, dim = basis.rows.shape
    size, keep = (num - 1) * block, kept * block
    values, vectors, tail = _ritz(basis, rank)
    ritz = vectors[:, :keep].T @ basis.rows[:-1].reshape(size, dim)  # [keep, dim]
    rows = basis.rows.at[kept].set(basis.rows[basis.last]).at[:kept].set(ritz.reshape(kept, block, dim))
    used = jnp.any(vectors[:, :keep] != 0, axis=0)
    coefficients = jnp.zeros_like(basis.coefficients)
    coefficients = coefficients.at[:keep, :keep].set(jnp.diag(jnp.where(used, values[:keep], 0.0)))
    coefficients = coefficients.at[keep : keep + block, :keep].set(tail[:, :keep])
    fresh = lax.dynamic_slice(basis.valid, (basis.last * block,), (block,))
    valid = jnp.zeros_like(basis.valid).at[:keep].set(used).at[keep : keep + block].set(fresh)
    return basis._replace(rows=rows, coefficients=coefficients, valid=valid, last=jnp.int32(kept), first=jnp.int32(0))
