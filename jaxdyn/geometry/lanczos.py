r"""Block Lanczos with full reorthogonalisation and thick restarts: the engine of `geometry.spectrum`.

The basis V (rows, orthonormal) grows by a block at a time. With W = A V_j, C = V Wᵀ its coefficients and R = W − Cᵀ V
what is left, the next block is an orthonormal basis of R and

    A Vᵀ = Vᵀ H + V_{next}ᵀ B E_jᵀ,        residual of the Ritz pair (θ, Vᵀ s) = ‖B s_j‖,

s_j the entries of s in the last block, so residuals are known at every step for nothing. When the basis is full its better half of
Ritz vectors is kept, and the next block goes on from there (thick restart); nothing is multiplied twice.

R loses its overlap with the whole basis at once, in two products of tall matrices. What one such pass leaves grows with ‖W‖ / ‖R‖ and
with what earlier passes left in the blocks that W overlaps with; this is estimated from norms (Simon's recurrence, by blocks),
and a second pass is spent where it would matter ("twice is enough"). A direction that is nothing but rounding (an
invariant subspace is exhausted) becomes a zero row, masked out of H.

The matrix is searched in units of a power of two, that of the largest entry seen in a product: squares of 1e-20 or 1e20 would leave
single precision, and powers of two round nothing.

Not a public solver: `spectrum` checks arguments, multiplies the result once more and reports.

References:
    K. Wu, H. Simon, SIAM J. Matrix Anal. Appl. 22 (2000), 602-616. H. Simon, "The Lanczos algorithm with partial
    reorthogonalization", Math. Comp. 42 (1984). G. Golub, R. Underwood, "The block Lanczos method
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
        wanted: `num` and the guards, whose intervals must stay below.
        block: vectors multiplied together.
        num_blocks: blocks in the basis, at least 4, half of them enough for what is wanted; one more is kept in memory.
        tolerance: relative, see `spectrum.top`.
        rounding: the error of a product, relative to the spectral norm.
        max_matvecs: upper bound on the products.
        warm: whether the start is a guess. Two blocks are then the least, so that a guess is never judged by itself alone.
    """

    num: int
    wanted: int
    block: int
    num_blocks: int
    tolerance: float
    rounding: float
    max_matvecs: int
    warm: bool


class Ritz(NamedTuple):
    """The best Ritz pairs of the final basis.

    Attributes:
        vectors: rows, the first `num` and the guards, [wanted, dim].
        is_safe: whether no guard may hide an eigenvalue above this one, [num].
        scale: the largest |λ| seen, a lower bound of the spectral norm, in units.
        unit: a power of two, or 0 where every product was 0.
        num_matvecs: products spent.
    """

    vectors: Float[Array, "wanted dim"]
    is_safe: Bool[Array, " num"]
    scale: Float[Array, ""]
    unit: Float[Array, ""]
    num_matvecs: Int[Array, ""]


_ZERO = np.int32(0)  # indices of one dtype, in double precision too


class _Basis(NamedTuple):
    """The state of the search: blocks 0 … last − 1 are multiplied, block `last` is next.

    `coefficients` is H with B below its last block; `valid` says which rows are not zero; `drift` bounds what overlap each
    block has with the others, and overlaps up to `limit` may stay.
    """

    rows: Any  # [size + block, dim], size = num_blocks · block
    coefficients: Any  # [size + block, size]
    valid: Any  # [size + block]
    drift: Any  # [num_blocks + 1]
    last: Any
    spent: Any
    is_safe: Any  # [num]
    scale: Any
    unit: Any
    limit: Any
    done: Any


def lanczos(
    products: Callable[[Any], Any], rank: Callable[[Any], Any], start: Float[Array, "block dim"], setting: Setting
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
        >>> setting = Setting(num=1, wanted=1, block=1, num_blocks=4, tolerance=1e-3, rounding=1e-6, max_matvecs=50, warm=False)
        >>> found = lanczos(lambda rows: rows * jnp.arange(9.0)[None], lambda value: value, jnp.ones((1, 9)), setting)
        >>> round(float(jnp.sum(found.vectors[0] ** 2 * jnp.arange(9.0))), 3)
        8.0
    """
    block, num_blocks = setting.block, setting.num_blocks
    size, dim = num_blocks * block, start.shape[1]
    rows = jnp.zeros((size + block, dim), start.dtype).at[:block].set(jnp.linalg.qr(start.T)[0].T)
    basis = _Basis(
        rows=rows,
        coefficients=jnp.zeros((size + block, size), start.dtype),
        valid=jnp.arange(size + block) < block,
        drift=jnp.full(num_blocks + 1, _least(start.dtype), start.dtype),
        last=jnp.int32(0),
        spent=jnp.int32(0),
        is_safe=jnp.zeros(setting.num, bool),
        scale=jnp.zeros((), start.dtype),
        unit=jnp.zeros((), start.dtype),
        limit=_limit(setting.tolerance, start.dtype),
        done=jnp.bool_(False),
    )

    def grow(basis: _Basis) -> _Basis:
        return _judge(_grow(products, basis, block), rank, setting)

    def cycle(basis: _Basis) -> _Basis:
        basis = lax.while_loop(lambda b: ~b.done & (b.last < num_blocks), grow, basis)
        # A loop of one turn at most, where a conditional would copy the basis.
        return lax.while_loop(
            lambda b: ~b.done & (b.last == num_blocks), lambda b: _restart(b, rank, block, num_blocks // 2), basis
        )

    basis = lax.while_loop(lambda b: ~b.done, cycle, basis)
    best = _ritz(basis, rank, block)[1][:, : setting.wanted]
    return Ritz(jnp.pad(best, ((0, block), (0, 0))).T @ basis.rows, basis.is_safe, basis.scale, basis.unit, basis.spent)


def unit(values: Any) -> Any:
    """The power of two at the largest |entry| or just below it, 0 for zeros: what divides by it loses no digit.

    Example:
        >>> float(unit(jnp.array([3.0, -5.0])))
        4.0
    """
    largest = jnp.max(jnp.abs(values))
    return largest / jnp.where(largest == 0, 1.0, 2 * jnp.frexp(largest)[0])


def over(values: Any, unit: Any) -> Any:
    """Values in these units; as they are where the unit is 0."""
    return values / jnp.where(unit == 0, 1.0, unit)


def _grow(products: Callable[[Any], Any], basis: _Basis, block: int) -> _Basis:
    """Multiply the next block, store its coefficients, and make the block after it."""
    rows, last, dim = basis.rows, basis.last, basis.rows.shape[1]
    here, after = (last * block, _ZERO), ((last + 1) * block, _ZERO)
    images = products(lax.dynamic_slice(rows, here, (block, dim)))
    grown = jnp.maximum(basis.unit, unit(images))
    shrunk = over(basis.unit, grown)
    images, earlier = over(images, grown), basis.coefficients * shrunk
    overlaps = _overlaps(rows, images)
    fresh, below, lengths = _directions(images - overlaps.T @ rows)

    smallest = jnp.min(lengths)
    parts = jnp.linalg.norm(overlaps.reshape(-1, block * block), axis=1)  # [num_blocks + 1]
    around = _least(rows.dtype) * (jnp.linalg.norm(parts) + jnp.linalg.norm(lengths)) + parts @ basis.drift
    left = around / jnp.where(smallest > 0, smallest, around)

    def again() -> tuple[Any, Any, Any, Any, Any]:
        second = _overlaps(rows, fresh)
        rest = fresh - second.T @ rows
        triangle, is_new = _triangle(rest @ rest.T)
        turned = jnp.where(is_new[:, None], jnp.linalg.inv(triangle + jnp.diag(1.0 - is_new)).T, 0.0) @ rest
        drift = 2 * _least(rows.dtype) + jnp.minimum(left, 1.0) * jnp.max(basis.drift)
        return turned, triangle @ below, second @ below, is_new, drift

    def enough() -> tuple[Any, Any, Any, Any, Any]:
        return fresh, below, jnp.zeros_like(overlaps), jnp.ones(block, bool), left

    fresh, below, more, is_new, drift = lax.cond(left <= basis.limit, enough, again)
    columns = lax.dynamic_update_slice(overlaps + more, below, after)
    return basis._replace(
        rows=lax.dynamic_update_slice(rows, fresh, after),
        coefficients=lax.dynamic_update_slice(earlier, columns, (_ZERO, last * block)),
        valid=lax.dynamic_update_slice(basis.valid, is_new, ((last + 1) * block,)),
        drift=basis.drift.at[last + 1].set(drift),
        last=last + 1,
        scale=basis.scale * shrunk,
        unit=grown,
        spent=basis.spent + block,
    )


def _least(dtype: Any) -> float:
    """What a pass leaves of an overlap, relative, when the basis is orthonormal."""
    return 4.0 * float(jnp.finfo(dtype).eps)


def _overlaps(rows: Any, images: Any) -> Any:
    """Overlaps with the basis, [size + block, block]; rows not yet in use are zero.

    Left to itself XLA turns this product around where its transpose is needed, which takes four times as long on CPU.
    """
    return lax.optimization_barrier(rows @ images.T)


def _directions(rows: Any) -> tuple[Any, Any, Any]:
    """Orthonormal X, B and the lengths of the principal directions, longest first, with rows = Bᵀ X.

    By the small Gram matrix: its eigenvectors are good to ε ‖rows‖ / length, and the lengths are measured afterwards.
    """
    gram = rows @ rows.T
    turned = jnp.linalg.eigh(gram)[1].T[::-1]
    directions = turned @ rows
    lengths = jnp.linalg.norm(directions, axis=1)
    return directions / jnp.where(lengths > 0, lengths, 1.0)[:, None], lengths[:, None] * turned, lengths


def _triangle(gram: Any) -> tuple[Any, Any]:
    """R with G = Rᵀ R, row by row, and which rows are not rounding: those that keep more than half their length.

    The rows of a block come longest first, so what is dropped is rounding, and no other row loses by it.
    """

    def eliminate(j: Any, carry: Any) -> Any:
        left, triangle, is_new = carry
        keeps = left[j, j] > 0.25
        row = jnp.where(keeps, left[j] / jnp.sqrt(jnp.where(keeps, left[j, j], 1.0)), 0.0)
        row = jnp.where(jnp.arange(len(row)) < j, 0.0, row)
        return left - jnp.outer(row, row), triangle.at[j].set(row), is_new.at[j].set(keeps)

    start = (gram, jnp.zeros_like(gram), jnp.zeros(len(gram), bool))
    _, triangle, is_new = lax.fori_loop(0, len(gram), eliminate, start)
    return triangle, is_new


def _ritz(basis: _Basis, rank: Callable[[Any], Any], block: int) -> tuple[Any, Any, Any]:
    """All Ritz values, best first, their coefficients in the basis (columns), and the residuals' coefficients ‖B s_j‖."""
    size = basis.coefficients.shape[1]
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
    num, wanted, block = setting.num, setting.wanted, setting.block
    values, vectors, tail = _ritz(basis, rank, block)
    is_there = jnp.any(vectors[:, :wanted] != 0, axis=0)
    residuals = jnp.where(is_there, jnp.linalg.norm(tail[:, :wanted], axis=0), jnp.inf)
    scale = jnp.maximum(basis.scale, jnp.max(jnp.abs(values)))
    # A fresh product has to meet the tolerance as well, though it rounds anew and overlaps falsify what is known here; far below
    # rounding nothing more is to be had.
    floor = setting.rounding * scale
    slack = jnp.maximum(63 / 64 * setting.tolerance * jnp.abs(values[:wanted]) - floor, floor / 16)
    standing = rank(values[:wanted])
    threat = jnp.max(standing[num:] + residuals[num:], initial=-jnp.inf)
    is_safe = is_there[:num] & (threat <= standing[:num] + slack[:num])
    found = jnp.all((residuals <= slack)[:num] & is_safe) & (basis.last >= (2 if setting.warm else 1))
    # Overlaps δ falsify residuals by about δ ‖A‖ and values by its square (Simon 1984); the residuals sought are the slack.
    limit = _limit(jnp.min(slack[:num]) / jnp.where(scale > 0, scale, 1.0), values.dtype)
    stuck = ~jnp.all(jnp.isfinite(tail)) | (basis.spent + block > setting.max_matvecs)
    return basis._replace(is_safe=is_safe, scale=scale, limit=limit, done=found | stuck)


def _limit(slack: Any, dtype: Any) -> Any:
    """The overlaps that may stay in the basis, for residuals sought of `slack` times the spectral norm."""
    return jnp.minimum(jnp.asarray(slack, dtype) / 16, jnp.sqrt(jnp.finfo(dtype).eps))


def _restart(basis: _Basis, rank: Callable[[Any], Any], block: int, kept: int) -> _Basis:
    """Keep the best `kept` blocks of Ritz vectors and the next block."""
    size, keep = basis.coefficients.shape[1], kept * block
    values, vectors, tail = _ritz(basis, rank, block)
    turn = jnp.zeros((size + block, size + block), basis.rows.dtype).at[:keep, :size].set(vectors[:, :keep].T)
    turn = lax.dynamic_update_slice(turn, jnp.eye(block, dtype=turn.dtype), (np.int32(keep), basis.last * block))
    rows = turn @ basis.rows
    used = jnp.any(vectors[:, :keep] != 0, axis=0)
    coefficients = jnp.zeros_like(basis.coefficients)
    coefficients = coefficients.at[:keep, :keep].set(jnp.diag(jnp.where(used, values[:keep], 0.0)))
    coefficients = coefficients.at[keep : keep + block, :keep].set(tail[:, :keep])
    is_fresh = lax.dynamic_slice(basis.valid, (basis.last * block,), (block,))
    valid = jnp.zeros_like(basis.valid).at[:keep].set(used).at[keep : keep + block].set(is_fresh)
    drift = jnp.full_like(basis.drift, jnp.max(basis.drift)).at[kept].set(basis.drift[basis.last])
    return basis._replace(rows=rows, coefficients=coefficients, valid=valid, drift=drift, last=jnp.int32(kept))
