r"""Spectral norms of Hessians: of the function, where linearity shows, and of the loss, where stability does.

The transition to linearity is ‖H_{f_a}(w; x)‖ = O(1/√m) on a ball around the anchor: on it |f − f_lin| ≤ ½ sup‖H‖ R². H_f is indefinite,
so its norm is the largest *absolute* eigenvalue; the sharpness of a loss is the largest *algebraic* one.

The supremum over a ball cannot be computed; `function_hessian_supremum` climbs and samples, and what it finds is a lower bound.

References:
    Liu, Zhu, Belkin, arXiv 2010.01092. Zhu, Liu, Belkin, arXiv 2205.11786, Thm 3.6 (all of the ball). Cohen et al., arXiv
    2103.00065 (sharpness).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdyn import _jaxpr, _tree
from jaxdyn._typing import Apply, Key, Loss, Params
from jaxdyn.geometry import operators, spectrum
from jaxdyn.geometry.kernel.independence import check
from jaxdyn.geometry.lanczos import over, unit
from jaxdyn.geometry.operators import Only
from jaxdyn.geometry.spectrum import Guess, Spectrum


class HessianNorms(NamedTuple):
    """Spectral norms with what makes them trustworthy.

    Attributes:
        norms: ‖H_{f_a}(w; x_i)‖, [n, k].
        residuals: of the eigenpairs they come from, [n, k].
        converged: [n, k].
        num_matvecs: [n, k].
        vectors: the eigenvectors [n, k, p], where a guess was given; else None, since they are large.
    """

    norms: Float[Array, "n k"]
    residuals: Float[Array, "n k"]
    converged: Bool[Array, "n k"]
    num_matvecs: Int[Array, "n k"]
    vectors: Float[Array, "n k p"] | None = None


def function_hessian_norm(
    apply: Apply,
    params: Params,
    x: Float[Array, "n ..."],
    *,
    key: Key,
    only: Only | None = None,
    tolerance: float = 1e-3,
    max_matvecs: int = 300,
    batch_size: int = 1,
) -> Float[Array, "n k"]:
    """The spectral norm of the Hessian of every output at every example; NaN where it did not converge.

    Args:
        apply: the function, `(params, x: [n, *d]) -> [n, k]`.
        params: where.
        x: inputs [n, *d].
        key: random key; draws the starts.
        only: the leaves of the principal submatrix; all when None.
        tolerance: relative, on the residual; the error is usually its square.
        max_matvecs: for each output of each example.
        batch_size: how many (example, output) pairs are worked on at once. Each keeps 26 vectors of R^p in memory; raise it
            for small networks on accelerators.

    Returns:
        ‖H_{f_a}(w; x_i)‖, [n, k]. `function_hessian_spectra` returns residuals and flags too.

    Example:
        >>> apply = lambda w, x: x @ w["u"] @ w["v"]  # bilinear: the Hessian's eigenvalues are ±‖x‖
        >>> params = {"u": jnp.ones((2, 3)), "v": jnp.ones((3, 1))}
        >>> round(float(function_hessian_norm(apply, params, jnp.array([[3.0, 4.0]]), key=jax.random.key(0))[0, 0]), 4)
        5.0
    """
    found = function_hessian_spectra(
        apply, params, x, key=key, only=only, tolerance=tolerance, max_matvecs=max_matvecs, batch_size=batch_size
    )
    return jnp.where(found.converged, found.norms, jnp.nan)


def function_hessian_spectra(
    apply: Apply,
    params: Params,
    x: Float[Array, "n ..."],
    *,
    key: Key,
    guess: Float[Array, "n k p"] | None = None,
    only: Only | None = None,
    tolerance: float = 1e-3,
    max_matvecs: int = 300,
    batch_size: int = 1,
) -> HessianNorms:
    """`function_hessian_norm` with residuals, flags and counts, and values also where they did not converge.

    Arguments are those of `function_hessian_norm`, and `guess`: the `vectors` [n, k, p] of an earlier, similar call to start from, or
    zeros, which count as absent.

    Example:
        >>> found = function_hessian_spectra(lambda w, x: x * w**2, jnp.array(1.0), jnp.ones((2, 1)), key=jax.random.key(0))
        >>> found.norms.tolist(), found.converged.tolist()
        ([[2.0], [2.0]], [[True], [True]])
    """
    n, k = x.shape[0], check(apply, params, x)

    def one(pair: Any) -> Any:
        example, output, pair_key, vector = pair
        start = None if vector is None else vector[:, None]
        found = _leading(apply, params, x[example], output, pair_key, start, only, tolerance, max_matvecs)
        value = HessianNorms(jnp.abs(found.values[0]), found.residuals[0], found.converged[0], found.num_matvecs)
        return value if vector is None else value._replace(vectors=found.vectors[:, 0])

    examples, outputs = jnp.repeat(jnp.arange(n), k), jnp.tile(jnp.arange(k), n)
    starts = None if guess is None else guess.reshape(n * k, -1)
    pairs = (examples, outputs, jax.random.split(key, n * k), starts)
    found = jax.lax.map(one, pairs, batch_size=_batch(batch_size))
    return jax.tree.map(lambda part: part.reshape(n, k, *part.shape[1:]), found)


class Supremum(NamedTuple):
    """Lower bounds of sup ‖H_{f_a}(w; x_i)‖ over the ball ‖w − w0‖ ≤ R, none of them the supremum itself.

    Attributes:
        anchor: at w0, [n, k].
        sampled: the largest at random points of the sphere ‖w − w0‖ = R, [n, k].
        climbed: the largest met by projected gradient ascent, [n, k].
    """

    anchor: Float[Array, "n k"]
    sampled: Float[Array, "n k"]
    climbed: Float[Array, "n k"]

    @property
    def lower_bound(self) -> Float[Array, "n k"]:
        """The largest of the three."""
        return jnp.fmax(self.anchor, jnp.fmax(self.sampled, self.climbed))


@_jaxpr.forward_mode()
def function_hessian_supremum(
    apply: Apply,
    params: Params,
    x: Float[Array, "n ..."],
    *,
    radius: float | Float[Array, ""],
    key: Key,
    steps: int = 10,
    num_directions: int = 4,
    tolerance: float = 1e-3,
    max_matvecs: int = 300,
    batch_size: int = 1,
) -> Supremum:
    """Lower bounds of the largest spectral norm of the function's Hessian in a ball around the parameters.

    The ascent follows ∇_w |vᵀ H_f(w) v| (a third derivative) with v the current leading vector, in steps of length 4 R/steps that shrink
    linearly, and is projected back to the ball after each; v starts warm at every step. Points where the eigenvalue
    did not converge do not count.

    Args:
        apply: the function, three times differentiable.
        params: the centre w0.
        x: inputs [n, *d].
        radius: R, Euclidean, in all parameters.
        key: random key.
        steps: of the ascent.
        num_directions: random points on the sphere.
        tolerance: as in `function_hessian_norm`.
        max_matvecs: as there, at every point.
        batch_size: as there.

    Returns:
        A `Supremum`; `.lower_bound` is the largest found.

    Raises:
        ValueError: for a negative radius, no step or no direction.

    Example:
        >>> found = function_hessian_supremum(  # f = w³: f'' = 6 w, so the supremum over |w - 1| ≤ 1 is 12
        ...     lambda w, x: x * w**3, jnp.array(1.0), jnp.ones((1, 1)), radius=1.0, key=jax.random.key(0))
        >>> round(float(found.anchor[0, 0]), 3), round(float(found.lower_bound[0, 0]), 3)
        (6.0, 12.0)
    """
    if steps < 1 or num_directions < 1 or _is_negative(radius):
        raise ValueError(
            f"`radius` must not be negative and `steps` and `num_directions` at least 1, but are {radius}, {steps} and "
            f"{num_directions}."
        )
    params, x = _tree.single((params, x))
    centre, unravel, _ = operators.selected(params, None)
    n, k = x.shape[0], check(apply, params, x)
    radius = jnp.asarray(radius, centre.dtype)

    def one(pair: Any) -> Any:
        example, output, pair_key = pair

        def leading(w: Any, leading_key: Any, guess: Any) -> Any:
            found = _leading(apply, unravel(w), x[example], output, leading_key, guess, None, tolerance, max_matvecs)
            return jnp.where(found.converged[0], jnp.abs(found.values[0]), jnp.nan), found

        def bend(w: Any, v: Any) -> Any:
            def slope(u: Any) -> Any:
                return jax.jvp(lambda t: apply(unravel(t), x[example][None])[0, output], (u,), (v,))[1]

            return jnp.abs(jax.jvp(slope, (w,), (v,))[1])

        def sample(direction_key: Any) -> Any:
            step = jax.random.normal(direction_key, centre.shape, centre.dtype)
            return leading(centre + radius * step / jnp.linalg.norm(step), direction_key, None)[0]

        def climb(carry: Any, t: Any) -> Any:
            w, found, best = carry
            gradient = jax.grad(bend)(w, found.vectors[:, 0])
            gradient = over(gradient, unit(gradient))
            length = jnp.linalg.norm(gradient)
            pace = radius * (4 / steps) * (1 - t.astype(centre.dtype) / steps)
            w = w + pace * gradient / jnp.where(length > 0, length, 1.0)
            away = jnp.linalg.norm(w - centre)
            w = centre + (w - centre) * jnp.where(away > radius, radius / jnp.where(away > 0, away, 1.0), 1.0)
            value, found = leading(w, jax.random.fold_in(pair_key, t), found)
            return (w, found, jnp.fmax(best, value)), None

        anchor, start = leading(centre, pair_key, None)
        samples = jax.lax.map(sample, jax.random.split(jax.random.fold_in(pair_key, _SAMPLES), num_directions))
        (_, _, climbed), _ = jax.lax.scan(climb, (centre, start, anchor), jnp.arange(steps))
        return anchor, jnp.nanmax(samples), climbed

    examples, outputs = jnp.repeat(jnp.arange(n), k), jnp.tile(jnp.arange(k), n)
    with jax.default_matmul_precision("highest"):
        found = jax.lax.map(one, (examples, outputs, jax.random.split(key, n * k)), batch_size=_batch(batch_size))
    return Supremum(*(part.reshape(n, k) for part in found))


def sharpness(
    apply: Apply,
    params: Params,
    x: Float[Array, "n ..."],
    y: Float[Array, "n k"],
    *,
    loss: Loss,
    key: Key,
    num: int = 1,
    guess: Guess | None = None,
    only: Only | None = None,
    tolerance: float = 1e-3,
    max_matvecs: int = 600,
) -> Spectrum:
    """The largest algebraic eigenvalues of the loss Hessian; gradient descent is stable below learning rate 2 / values[0].

    Args:
        apply: the function.
        params: where.
        x: inputs [n, *d].
        y: targets [n, k].
        loss: any `(prediction, y) -> scalar`; the values carry its normalisation.
        key: random key.
        num: how many.
        guess: the `Spectrum` of an earlier step; far fewer products are spent then.
        only: the leaves of the principal submatrix; all when None.
        tolerance: as in `spectrum.top`.
        max_matvecs: as there.

    Returns:
        A `Spectrum`.

    Example:
        >>> from jaxdyn import losses
        >>> found = sharpness(
        ...     lambda w, x: x @ w, jnp.zeros((2, 1)), jnp.array([[3.0, 4.0]]), jnp.ones((1, 1)),
        ...     loss=losses.half_sum, key=jax.random.key(0))
        >>> round(float(found.values[0]), 3)
        25.0
    """
    hessian = operators.loss_hessian(apply, params, x, y, loss=loss, only=only)
    return spectrum.top(
        hessian, dim=hessian.dim, num=num, key=key, guess=guess, tolerance=tolerance, max_matvecs=max_matvecs
    )


_SAMPLES = 0x73616D70  # the stream of random directions


def _leading(
    apply: Apply,
    params: Any,
    example: Any,
    output: Any,
    key: Any,
    guess: Any,
    only: Only | None,
    tolerance: float,
    max_matvecs: int,
) -> Spectrum:
    """The eigenvalue of one function Hessian that is largest in absolute value."""
    hessian = operators.function_hessian(apply, params, example, output=output, only=only)
    return spectrum.dominant(
        hessian, dim=hessian.dim, num=1, key=key, guess=guess, tolerance=tolerance, max_matvecs=max_matvecs, guard=0
    )


def _batch(batch_size: int) -> int | None:
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, but is {batch_size}.")
    return batch_size if batch_size > 1 else None


def _is_negative(radius: Any) -> bool:
    """Whether a concrete radius is negative; a traced one is not looked at."""
    try:
        return bool(radius < 0)
    except jax.errors.ConcretizationTypeError:
        return False
