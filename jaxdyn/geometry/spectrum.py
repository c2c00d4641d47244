r"""A few eigenvalues of a symmetric matrix known by its product with a vector, and its spectral density.

`top` and `bottom` are the *algebraic* ends of the spectrum (the sharpness of a loss is the top, however negative the
bottom), `dominant` the largest in absolute value. An eigenvalue never comes alone: with it come its vector, its residual
‖A v − λ v‖, whether that residual meets the tolerance, and how many products were spent.

Method: block Lanczos with full reorthogonalisation and thick restarts. The block holds, unless told otherwise, one vector for
each eigenvalue asked for and one *guard* more, so an eigenvalue of multiplicity up to the block's width is found with all its copies, and
no ghost (a copy that rounding makes) can arise from an orthonormal basis. The search ends when every asked residual
meets the tolerance *and* the guard's own interval [θ − ρ, θ + ρ] stays below the last value asked for. Then each
vector is multiplied once more, and what is reported (Rayleigh quotients, residuals, flags) comes from that product alone.

What a flag means: the residual is at most `tolerance` times the absolute value itself, at the small end of a wide spectrum too, so a
true eigenvalue lies that close (a theorem); usually the error is of the order of the residual squared over the gap. Products in
floating point do not tell values below r = 8 ε ‖A‖ from zero (a millionth of the spectral norm in single precision). A value below r
is flagged when its residual is below r, and says that the eigenvalue is zero to rounding; one above r whose residual rounding keeps
above the tolerance has its flag down, though it may be right: allow more, or use double precision. That none *above* it was missed holds
with probability one for a cold start, and for a warm start as long as the guess is not orthogonal to what it missed:
the guard travels with a `Spectrum` given as `guess`, so that the next eigenvalue may overtake unharmed.

When `dim` is not larger than the basis, the matrix is formed with `dim` products and decomposed. All of it may be
jitted, vmapped and scanned over.

References:
    K. Wu, H. Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM J. Matrix Anal.
    Appl. 22 (2000). B. Ghorbani, S. Krishnan, Y. Xiao, "An investigation into neural net optimization via Hessian
    eigenvalue density", ICML 2019 (density). Decomposition for the density: matfree.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from matfree import decomp

from jaxdyn._typing import Key
from jaxdyn.geometry.lanczos import Setting, lanczos, over, unit


class Spectrum(NamedTuple):
    """Some eigenpairs, and how far they can be trusted.

    Attributes:
        values: [num], in the order asked for (largest first for `top`).
        vectors: [dim, num], orthonormal to the tolerance.
        residuals: ‖A v − λ v‖ with ‖v‖ = 1, in the units of the values, [num].
        converged: residual ≤ tolerance · |λ| (or both are rounding, at most 8 ε ‖A‖), and none found above it in doubt, [num].
        num_matvecs: products with the matrix that were spent, a scalar.
        guards: [dim, guard], the next vectors; not converged, only there to start from.
    """

    values: Float[Array, " num"]
    vectors: Float[Array, "dim num"]
    residuals: Float[Array, " num"]
    converged: Bool[Array, " num"]
    num_matvecs: Int[Array, ""]
    guards: Float[Array, "dim guard"]


_ROUNDINGS = 8.0  # the error of a product, in units of ε ‖A‖

Guess = Spectrum | Float[Array, "dim num"]


def top(
    matvec: Callable[[Any], Any],
    *,
    dim: int,
    num: int,
    key: Key,
    guess: Guess | None = None,
    tolerance: float = 1e-3,
    max_matvecs: int = 600,
    guard: int = 1,
    block: int | None = None,
    basis: int | None = None,
    dtype: Any = None,
) -> Spectrum:
    """The algebraically largest eigenvalues, largest first.

    Args:
        matvec: the product `v: [dim] -> [dim]` with a symmetric matrix; an `operators.Operator` is one.
        dim: number of rows.
        num: how many eigenvalues.
        key: random key; draws the start (and what of it the guess does not cover).
        guess: vectors of an earlier, similar matrix to start from: a `Spectrum` or [dim, any number]. Columns that are zero or
            not finite count as absent.
        tolerance: a value converges when its residual is at most `tolerance · |value|`, relative to itself and not to the spectral
            norm; its error is then smaller, and usually much smaller.
        max_matvecs: the search gives up, flags down, before it would spend more products.
        guard: eigenvalues beyond `num` that are watched; with 0 nothing tells that a next one may have been missed.
        block: vectors multiplied together in a cold start; None means `num + guard`, which finds every copy of a multiple
            eigenvalue (k outputs often make k copies). A smaller block, 2 or 3, spends up to a third fewer products and
            misses copies beyond its width. A guess is always a block of its own.
        basis: vectors kept in memory, [basis + block, dim]; at least four blocks, and twice what is wanted. None means
            24, or 8 blocks if more.
        dtype: of the vectors that are multiplied; that of the operator, of the guess, or JAX's default when None. With less than
            single precision the search itself is in single precision, and ε in the flags is that of the products.

    Returns:
        A `Spectrum`. A matrix whose products are not finite has NaN values and no flag up.

    Raises:
        ValueError: for `num` outside [1, dim], a guess of another dimension, a negative tolerance, or budgets too small.

    Example:
        >>> diagonal = jnp.array([5.0, 5.0, -9.0, 1.0])
        >>> found = top(lambda v: diagonal * v, dim=4, num=2, key=jax.random.key(0))
        >>> [round(float(value), 4) for value in found.values], found.converged.tolist()
        ([5.0, 5.0], [True, True])
    """
    return _solve(matvec, jnp.positive, dim, num, key, guess, tolerance, max_matvecs, guard, block, basis, dtype)


def bottom(matvec: Callable[[Any], Any], *, dim: int, num: int, key: Key, **options: Any) -> Spectrum:
    """The algebraically smallest eigenvalues, smallest (most negative) first.

    Arguments, returns and errors are those of `top`.

    Example:
        >>> diagonal = jnp.array([5.0, 5.0, -9.0, 1.0])
        >>> round(float(bottom(lambda v: diagonal * v, dim=4, num=1, key=jax.random.key(0)).values[0]), 4)
        -9.0
    """
    return _solve(matvec, jnp.negative, dim, num, key, **options)


def dominant(matvec: Callable[[Any], Any], *, dim: int, num: int, key: Key, **options: Any) -> Spectrum:
    """The eigenvalues largest in absolute value, signs kept: |values[0]| is the spectral norm.

    Arguments, returns and errors are those of `top`. This is not the sharpness of an indefinite Hessian: use `top`.

    Example:
        >>> diagonal = jnp.array([5.0, 5.0, -9.0, 1.0])
        >>> round(float(dominant(lambda v: diagonal * v, dim=4, num=1, key=jax.random.key(0)).values[0]), 4)
        -9.0
    """
    return _solve(matvec, jnp.abs, dim, num, key, **options)


def dense(matvec: Callable[[Any], Any], *, dim: int, dtype: Any = None) -> Float[Array, "dim dim"]:
    """The matrix itself, by `dim` products, for small ones: `jnp.linalg.eigvalsh(dense(...))` is the whole spectrum.

    Args:
        matvec: the product.
        dim: number of rows.
        dtype: as in `top`.

    Returns:
        (A + Aᵀ)/2, [dim, dim].

    Example:
        >>> dense(lambda v: 2 * v, dim=2).tolist()
        [[2.0, 0.0], [0.0, 2.0]]
    """
    with jax.default_matmul_precision("highest"):
        matvec, dtype, _ = _raised(matvec, None, dtype)
        matrix = jax.vmap(matvec)(jnp.eye(dim, dtype=dtype))
        return (matrix + matrix.T) / 2


class Density(NamedTuple):
    """A spectral density as weighted points, one Gauss quadrature for each random probe.

    Attributes:
        nodes: eigenvalues, [probes, num_matvecs].
        weights: the share of the spectrum each stands for; the weights of a probe sum to 1, [probes, num_matvecs].
    """

    nodes: Float[Array, "probes nodes"]
    weights: Float[Array, "probes nodes"]

    def smooth(self, grid: Float[Array, " points"], *, width: float) -> Float[Array, " points"]:
        """The density on a grid, each node spread to a Gaussian of standard deviation `width`; integrates to 1."""
        bumps = jax.scipy.stats.norm.pdf(grid[:, None, None], self.nodes[None], jnp.asarray(width, grid.dtype))
        return jnp.sum(bumps * self.weights[None], axis=(1, 2)) / self.nodes.shape[0]

    def mean(self, function: Callable[[Any], Any]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """(1/dim) tr function(A) and its standard error over the probes; multiply by `dim` for the trace.

        Example:
            >>> found = density(lambda v: 3.0 * v, dim=8, num_matvecs=2, num_probes=4, key=jax.random.key(0))
            >>> round(float(found.mean(lambda value: value**2)[0]), 4)
            9.0
        """
        each = jnp.sum(jnp.where(self.weights > 0, function(self.nodes), 0.0) * self.weights, axis=1)  # [probes]
        return jnp.mean(each), jnp.std(each) / jnp.sqrt(jnp.asarray(max(each.size - 1, 1), each.dtype))


def density(
    matvec: Callable[[Any], Any], *, dim: int, num_matvecs: int, num_probes: int, key: Key, dtype: Any = None
) -> Density:
    """The spectral density, by stochastic Lanczos quadrature with full reorthogonalisation (matfree).

    A probe v of random signs sees the measure Σ_i ⟨u_i, v⟩²/dim δ(λ − λ_i), whose mean over probes is the density of the
    eigenvalues; m steps of Lanczos are its Gauss quadrature, exact for polynomials of degree 2m − 1. One product more finds the scale.

    Args:
        matvec: the product with a symmetric matrix.
        dim: number of rows.
        num_matvecs: m, Lanczos steps for each probe (its memory is [m, dim]), at most dim.
        num_probes: probes, one after the other; the error falls like 1/√(num_probes · dim).
        key: random key.
        dtype: as in `top`.

    Returns:
        A `Density`. The outermost nodes approach the ends of the spectrum but come without residuals: use `top`.

    Raises:
        ValueError: for `num_matvecs` outside [1, dim], or no probe.

    Example:
        >>> found = density(lambda v: 3.0 * v, dim=8, num_matvecs=2, num_probes=1, key=jax.random.key(0))
        >>> round(float(found.smooth(jnp.array([3.0]), width=1.0)[0]), 4)  # 1/√(2π)
        0.3989
    """
    if not 1 <= num_matvecs <= dim:
        raise ValueError(f"`num_matvecs` must lie in [1, dim={dim}], but is {num_matvecs}.")
    if num_probes < 1:
        raise ValueError(f"`num_probes` must be at least 1, but is {num_probes}.")
    product, dtype, rounding = _raised(matvec, None, dtype)
    krylov = decomp.hessenberg(num_matvecs, reortho="full", custom_vjp=False)

    def probe(probe_key: Any) -> tuple[Any, Any]:
        start = jax.random.rademacher(probe_key, (dim,), dtype)
        projected = krylov(lambda v: over(product(v), size), start).J_small  # [m, m]
        diagonal, below = jnp.diagonal(projected), jnp.diagonal(projected, -1)
        # Past a breakdown (β at rounding level: an invariant subspace) the vectors are noise; what came before is exact.
        scale = jax.lax.cummax(jnp.abs(diagonal))[:-1]
        alive = jnp.cumprod(jnp.isfinite(below) & (below > 4 * rounding * scale)).astype(bool)
        diagonal = diagonal.at[1:].set(jnp.where(alive, diagonal[1:], 0.0))
        below = jnp.where(alive, below, 0.0)
        nodes, vectors = jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(below, 1) + jnp.diag(below, -1))
        return nodes * size, vectors[0] ** 2

    with jax.default_matmul_precision("highest"):
        size = unit(product(jax.random.normal(key, (dim,), dtype)))
        return Density(*jax.lax.map(probe, jax.random.split(key, num_probes)))


def _raised(matvec: Any, guess: Any, dtype: Any) -> tuple[Callable[[Any], Any], Any, float]:
    """The product on vectors of single precision at least, their dtype, and its error relative to the spectral norm."""
    given = dtype or getattr(matvec, "dtype", None)
    if given is None:
        given = jnp.result_type(float if guess is None else guess.vectors if isinstance(guess, Spectrum) else guess)
    given = jnp.dtype(given)
    raised = jnp.promote_types(given, jnp.float32)
    product = matvec if raised == given else lambda v: matvec(v.astype(given)).astype(raised)
    return product, raised, _ROUNDINGS * float(jnp.finfo(given).eps)


def _solve(
    matvec: Callable[[Any], Any],
    rank: Callable[[Any], Any],
    dim: int,
    num: int,
    key: Any,
    guess: Any = None,
    tolerance: float = 1e-3,
    max_matvecs: int = 600,
    guard: int = 1,
    block: int | None = None,
    basis: int | None = None,
    dtype: Any = None,
) -> Spectrum:
    """The `num` eigenpairs whose values `rank` puts first."""
    if not 1 <= num <= dim:
        raise ValueError(f"`num` must lie in [1, dim={dim}], but is {num}; a matrix has `dim` eigenvalues.")
    if guard < 0 or not tolerance >= 0:
        raise ValueError(f"`guard` and `tolerance` must not be negative, but are {guard} and {tolerance}.")
    matvec, dtype, rounding = _raised(matvec, guess, dtype)
    guard = min(guard, dim - num)
    wanted = num + guard
    rows = _rows(guess, dim, wanted, dtype)
    if block is not None and block < 1:
        raise ValueError(f"`block` must be at least 1, but is {block}.")
    block = wanted if block is None or rows is not None else min(block, wanted)
    fewest, kept = (8, 24) if basis is None else (4, basis)
    num_blocks = max(fewest, -(-kept // block), 2 * -(-wanted // block))
    with jax.default_matmul_precision("highest"):
        if dim <= (num_blocks + 2) * block:
            return _whole(matvec, rank, dim, num, guard, tolerance, rounding, dtype)
        if max_matvecs < 2 * block + num:
            raise ValueError(
                f"`max_matvecs={max_matvecs}` does not pay for two blocks of {block} and {num} checks; give at least "
                f"{2 * block + num}."
            )
        setting = Setting(num, wanted, block, num_blocks, tolerance, rounding, max_matvecs - num, warm=rows is not None)
        # The vectors of a block are multiplied together: vmap shares what does not depend on them.
        found = lanczos(jax.vmap(matvec), rank, _start(rows, dim, block, key, dtype), setting)
        images = over(jax.vmap(matvec)(found.vectors[:num]), found.unit)
    vectors, guards = found.vectors[:num], found.vectors[num:]
    values = jnp.sum(images * vectors, axis=1)
    residuals = jnp.linalg.norm(images - values[:, None] * vectors, axis=1)
    spent, floor = found.num_matvecs + num, rounding * found.scale
    return _report(values, vectors, residuals, guards, rank, tolerance, spent, found.is_safe, floor, found.unit)


def _whole(
    matvec: Callable[[Any], Any],
    rank: Callable[[Any], Any],
    dim: int,
    num: int,
    guard: int,
    tolerance: float,
    rounding: float,
    dtype: Any,
) -> Spectrum:
    """The same from the whole matrix."""
    matrix = dense(matvec, dim=dim, dtype=dtype)
    size = unit(matrix)
    matrix = over(matrix, size)
    values, columns = jnp.linalg.eigh(matrix)
    order = jnp.argsort(rank(values), descending=True)
    vectors = columns[:, order].T
    leading, chosen = values[order][:num], vectors[:num]
    residuals = jnp.linalg.norm(chosen @ matrix - leading[:, None] * chosen, axis=1)
    is_safe = jnp.ones(num, bool)
    floor = rounding * jnp.max(jnp.abs(values))
    return _report(leading, chosen, residuals, vectors[num : num + guard], rank, tolerance, dim, is_safe, floor, size)


def _rows(guess: Any, dim: int, block: int, dtype: Any) -> Any:
    """The vectors of a guess as rows, at most `block` of them; None without a guess."""
    if guess is None:
        return None
    columns = guess if not isinstance(guess, Spectrum) else jnp.concatenate([guess.vectors, guess.guards], axis=1)
    columns = jnp.asarray(columns)
    if columns.ndim != 2 or columns.shape[0] != dim:
        raise ValueError(f"`guess` must hold vectors as columns, [dim={dim}, num], but has shape {columns.shape}.")
    return columns.T[:block].astype(dtype)


def _start(rows: Any, dim: int, block: int, key: Any, dtype: Any) -> Any:
    """The guess, and random vectors in the place of what it lacks, [block, dim]."""
    start = jax.random.normal(key, (block, dim), dtype)
    if rows is None:
        return start
    lengths = jnp.linalg.norm(rows, axis=1)
    is_there = jnp.isfinite(lengths) & (lengths > 0)
    rows = jnp.where(is_there[:, None], rows / jnp.where(is_there, lengths, 1.0)[:, None], start[: rows.shape[0]])
    return start.at[: rows.shape[0]].set(rows)


def _report(
    values: Any,
    vectors: Any,
    residuals: Any,
    guards: Any,
    rank: Callable[[Any], Any],
    tolerance: float,
    spent: Any,
    is_safe: Any,
    floor: Any,
    size: Any,
) -> Spectrum:
    order = jnp.argsort(rank(values), descending=True)
    values, vectors, residuals, is_safe = values[order], vectors[order], residuals[order], is_safe[order]
    finite = jnp.all(jnp.isfinite(values)) & jnp.all(jnp.isfinite(residuals))
    allowed = jnp.where(jnp.abs(values) <= floor, floor, tolerance * jnp.abs(values))
    converged = finite & is_safe & (residuals <= allowed)
    return Spectrum(
        values=jnp.where(finite, values * size, jnp.nan),
        vectors=vectors.T,
        residuals=jnp.where(finite, residuals * size, jnp.nan),
        converged=converged,
        num_matvecs=jnp.asarray(spent, jnp.int32),
        guards=guards.T,
    )
