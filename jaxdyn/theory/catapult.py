"""Exact maps of gradient descent on quadratic models: what the catapult phase is made of.

With L = (c/2) Σ (g − y)² and steps η, all that matters is η̂ = η c; K is the tangent kernel JJᵀ, not normalised.

One example (`example_map`), with output g, kernel λ, r = g − y and a coupling a:

    g' − y = [1 − η̂λ + a η̂² r g] r
    λ'     = λ + a η̂² r² λ − 4 a η̂ r g

holds at every width for the quadratic model of a two-layer ReLU network, a = ‖x‖²/(md); for `models.uv`, a = x²/m; for the
pure quadratic model, a = γ²‖x‖². In d = 1 each class of equal sign of x, n examples in all, is one such problem
(`sign_classes`), and the two never meet. Without units (`reduced_map`), with u = aη̂²r², w = aη̂²ry, v = η̂λ:

    u' = κu,   w' = √κ w (with the sign of 1 − v + u + w),   v' = v − u(4 − v) − 4w,   κ = (1 − v + u + w)²

η_rel = v(0): below 2 the loss falls and λ stays within O(1/m); between 2 and 4 the loss first grows to O(m) while λ falls, then
falls to zero where η̂λ < 2; above 4 λ grows with the loss, and both diverge. `boundaries` are the two rates.

Any quadratic model with n examples (`quadratic_update`), with v = Jᵀr, and G the n rows G_i = vᵀH_{g_i}:

    r' = (I − η̂K + ½η̂² GJᵀ) r,     K' = K − η̂(GJᵀ + JGᵀ) + η̂² GGᵀ

Maps are functions `state -> state` of pytrees, for `trajectory`, `jit` and `vmap`. Use float64: the loss peaks at about 0.05 m,
and a diverging one overflows within ten steps. These are the forms with the misprints of the paper put right: there, the kernel
update of the general model is not symmetric, and proposition 10 has γ for γ² and lacks an η.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2205.11787, section 3 and proposition 10. Lewkowycz et al., arXiv 2003.02218, section 3.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from jaxdyn import _tree
from jaxdyn._typing import Apply, Loss, Params
from jaxdyn.geometry import check_examples
from jaxdyn.losses import Quadratic

Map = Callable[[Any], Any]
"""One step of gradient descent, `state -> state`."""

Number = Num[ArrayLike, "..."]


class Example(NamedTuple):
    """Where a problem with one example stands.

    Attributes:
        output: g.
        kernel: λ = ‖∇g‖², not normalised.
    """

    output: Any
    kernel: Any


class Reduced(NamedTuple):
    """The same without units.

    Attributes:
        u: aη̂²(g − y)², the loss.
        v: η̂λ, the relative rate of the moment.
        w: aη̂²(g − y)y, |w| = C √u/√m.
    """

    u: Any
    v: Any
    w: Any


def example_map(learning_rate: Number, *, coupling: Number, y: Number, c: Number) -> Map:
    """One step of a problem with one example, exactly, at every width. Arguments may be arrays that broadcast.

    Args:
        learning_rate: η.
        coupling: a: ‖x‖²/(md) for the two-layer quadratic model, x²/m for `models.uv`, γ²‖x‖² for the pure quadratic one.
        y: the target.
        c: the constant of the loss, such as `losses.half_sum.c(1, 1)` = 1.

    Returns:
        A map of `Example`.

    Example:
        >>> step = example_map(3.0, coupling=0.01, y=0.0, c=1.0)  # η_rel = 3
        >>> path = trajectory(step, Example(jnp.asarray(0.5), jnp.asarray(1.0)), steps=40)
        >>> round(float(jnp.max(jnp.abs(path.output))), 2), bool(path.kernel[-1] < 2 / 3), bool(abs(path.output[-1]) < 1e-3)
        (2.94, True, True)
    """
    eta, a = jnp.asarray(learning_rate) * c, jnp.asarray(coupling)

    def step(state: Example) -> Example:
        g, kernel = state
        r = g - y
        return Example(
            y + (1 - eta * kernel + a * eta**2 * r * g) * r,
            kernel + a * eta**2 * r**2 * kernel - 4 * a * eta * r * g,
        )

    return step


def reduce(state: Example, learning_rate: Number, *, coupling: Number, y: Number, c: Number) -> Reduced:
    """The state without units; arguments as of `example_map`."""
    eta = jnp.asarray(learning_rate) * c
    r = state.output - y
    return Reduced(coupling * eta**2 * r**2, eta * state.kernel, coupling * eta**2 * r * y)


def growth(state: Reduced) -> Any:
    """κ = (1 − v + u + w)²: what the loss is multiplied with in the next step."""
    return (1 - state.v + state.u + state.w) ** 2


def reduced_map(state: Reduced) -> Reduced:
    """One step of a problem with one example without units; it has no parameters.

    Example:
        >>> after = reduced_map(Reduced(u=jnp.asarray(0.01), v=jnp.asarray(3.0), w=jnp.asarray(0.0)))
        >>> round(float(after.u), 6), round(float(after.v), 6)
        (0.039601, 2.99)
    """
    u, v, w = state
    factor = 1 - v + u + w
    return Reduced(factor**2 * u, v - u * (4 - v) - 4 * w, factor * w)


def trajectory(step: Map, state: Any, *, steps: int) -> Any:
    """The states along an orbit.

    Args:
        step: the map.
        state: where it starts; any pytree of arrays of floating numbers.
        steps: number of steps t ≥ 0.

    Returns:
        The pytree with one leading axis [t + 1], the start included.
    """
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), state)
    _, path = jax.lax.scan(lambda s, _: (step(s), s), start, None, length=steps + 1)
    return path


class Equilibria(NamedTuple):
    """The isolated fixed points of `example_map`; all unstable.

    Attributes:
        above: r = 2/(η̂√a), η̂λ = 4 + w: the loss stays at u = 4 for ever; u_i = v_i, and every step turns it round.
        below: the same with r = −2/(η̂√a).
        origin: g = 0 and λ = 0, parameters zero; for y ≠ 0.
    """

    above: Example
    below: Example
    origin: Example


def equilibria(learning_rate: Number, *, coupling: Number, y: Number, c: Number) -> Equilibria:
    """The isolated fixed points of `example_map`, arguments as there.

    The others are the line g = y with any λ, along which the multiplier is 1 and across which it is 1 − η̂λ: stable for
    0 < λ < 2/η̂ (theorem 2). For y = 0 the plane η̂λ = 4 is also kept, with a cycle of period two at u = 2.
    """
    eta, a = jnp.asarray(learning_rate, float) * c, jnp.asarray(coupling, float)
    target = jnp.asarray(y, float)

    def edge(r: Any) -> Example:
        return Example(target + r, (4 + a * eta**2 * r * target) / eta)

    r = 2 / (eta * jnp.sqrt(a))
    return Equilibria(edge(r), edge(-r), Example(jnp.zeros_like(r * target), jnp.zeros_like(r * target)))


def multipliers(step: Map, state: Example) -> Float[Array, "2"]:
    """Absolute values of the eigenvalues of the linearised map at a state, largest first; a fixed point is unstable above 1.

    Args:
        step: a map of two numbers, such as `example_map` gives.
        state: where, scalars.

    Returns:
        [2].

    Example:
        >>> step = example_map(1.0, coupling=0.1, y=1.0, c=1.0)
        >>> [round(float(m), 4) for m in multipliers(step, Example(jnp.asarray(1.0), jnp.asarray(2.5)))]  # |1 − ηλ| and 1
        [1.5, 1.0]
    """

    def flat(point: Any) -> Any:
        return jnp.stack(step(Example(point[0], point[1])))

    j = jax.jacfwd(flat)(jnp.stack([jnp.asarray(part, float) for part in state]))  # [2, 2]
    half, determinant = (j[0, 0] + j[1, 1]) / 2, j[0, 0] * j[1, 1] - j[0, 1] * j[1, 0]
    root = jnp.sqrt((half**2 - determinant).astype(complex))
    found = jnp.abs(jnp.stack([half + root, half - root]))
    return jnp.sort(found)[::-1]


class Boundaries(NamedTuple):
    """The learning rates between the phases of a quadratic model.

    Attributes:
        critical: 2/(cλ), lazy below, catapult above.
        maximal: 4/(cλ), divergent above.
    """

    critical: Any
    maximal: Any


def boundaries(kernel: Number, *, c: Number) -> Boundaries:
    """The rates 2/(cλ) and 4/(cλ), to O(log m/√m); exact limits of wide models with one example or one class.

    Args:
        kernel: λ_max of the kernel at the start, not normalised.
        c: the constant of the loss.

    Example:
        >>> [float(rate) for rate in boundaries(4.0, c=0.5)]
        [1.0, 2.0]
    """
    unit = 1 / (jnp.asarray(kernel, float) * c)
    return Boundaries(2 * unit, 4 * unit)


class SignClasses(NamedTuple):
    """n numbers in d = 1 as two problems of one example each: those with x ≥ 0 first, those with x < 0 second.

    Attributes:
        directions: unit vectors p_±/‖p_±‖ of the inputs of a class, zero where it is empty, [n, 2].
        coupling: a = ‖p_±‖²/m, [2].
        y: y_eff = ⟨y, p_±⟩/‖p_±‖, [2].
        floor: Σ_i of the squared residuals orthogonal to both, which no step changes; the loss ends at c/2 of it.
    """

    directions: Any
    coupling: Any
    y: Any
    floor: Any

    def states(self, outputs: Float[Array, "n 1"], kernel: Float[Array, "n n"]) -> Example:
        """The two problems at outputs [n, 1] and kernel [n, n] of a two-layer model: arrays [2]."""
        with jax.default_matmul_precision("highest"):
            quadratic_form = jnp.sum(self.directions * (kernel @ self.directions), axis=0)
            return Example(self.directions.T @ outputs[:, 0], quadratic_form)

    def outputs(self, state: Example) -> Float[Array, "... n 1"]:
        """The outputs on all examples of states [..., 2]."""
        with jax.default_matmul_precision("highest"):
            return (state.output @ self.directions.T)[..., None]

    def loss(self, state: Example, *, c: Number) -> Any:
        """(c/2) Σ (g_i − y_i)² of states [..., 2]."""
        target = self.y.reshape((1,) * (state.output.ndim - 1) + (2,))
        return (jnp.sum((state.output - target) ** 2, axis=-1) + self.floor) * (jnp.asarray(c) / 2)


def sign_classes(x: Float[Array, "..."], y: Float[Array, "..."], width: Any) -> SignClasses:
    """The two one-example problems of a two-layer quadratic model in one dimension.

    `example_map(η, coupling=found.coupling, y=found.y, c=c)` steps both. Inputs of the other sign share no neuron with a class.

    Args:
        x: inputs, [n, 1].
        y: targets, [n, 1].
        width: m, a number or a `models.Width`.

    Raises:
        ValueError: for inputs that are not [n, 1], or targets that do not belong to them.

    Example:
        >>> found = sign_classes(jnp.array([[3.0], [4.0], [-2.0]]), jnp.array([[1.0], [1.0], [-1.0]]), 100)
        >>> [round(float(a), 3) for a in found.coupling], [round(float(target), 3) for target in found.y]
        ([0.25, 0.04], [1.4, 1.0])
    """
    if x.ndim != 2 or x.shape[1] != 1 or y.shape != x.shape:
        raise ValueError(
            f"Sign classes need inputs and targets of shape [n, 1], but got {x.shape} and {y.shape}; in more dimensions follow "
            "`quadratic_update`."
        )
    p = jnp.concatenate([jnp.maximum(x, 0.0), jnp.minimum(x, 0.0)], axis=1)  # [n, 2]
    square = jnp.sum(p**2, axis=0)  # [2]
    directions = p / jnp.sqrt(jnp.where(square > 0, square, 1.0))[None, :]
    with jax.default_matmul_precision("highest"):
        target = directions.T @ y[:, 0]
        left = y[:, 0] - directions @ target
    return SignClasses(directions, square / width, target, jnp.sum(left**2))


class Update(NamedTuple):
    """One step of gradient descent of a quadratic model, as a prediction from where it stands; N = nk rows.

    Attributes:
        outputs: after the step, [n, k].
        kernel: after the step, [N, N].
        output_correction: R_f = ½η̂² GJᵀ, so that r' = (I − η̂K + R_f) r, [N, N].
        kernel_decrease: R_K = η̂(GJᵀ + JGᵀ) − η̂² GGᵀ, so that K' = K − R_K, [N, N].
    """

    outputs: Any
    kernel: Any
    output_correction: Any
    kernel_decrease: Any


def quadratic_update(
    apply: Apply,
    params: Params,
    x: Float[Array, "n ..."],
    y: Float[Array, "n k"],
    *,
    learning_rate: Num[ArrayLike, ""],
    loss: Loss,
) -> Update:
    """The exact change of outputs and kernel of a quadratic model in one step, from J and H at the present parameters.

    For a network it is the second-order prediction. Costs the Jacobian, N reverse passes and N·p numbers, and its derivative.

    Args:
        apply: the quadratic model, such as `models.quadratic(model.apply, params0)`.
        params: where it stands.
        x: inputs, [n, *d].
        y: targets, [n, k].
        learning_rate: η.
        loss: a quadratic loss, which states c.

    Raises:
        ValueError: for another loss, or a function whose examples interact.

    Example:
        >>> from jaxdyn import losses
        >>> found = quadratic_update(lambda w, x: x * w**2, jnp.array(1.0), jnp.ones((1, 1)), jnp.zeros((1, 1)),
        ...                          learning_rate=0.25, loss=losses.half_sum)
        >>> float(found.outputs[0, 0]), float(found.kernel[0, 0])  # w' = 1/2
        (0.25, 1.0)
    """
    if not isinstance(loss, Quadratic):
        raise ValueError(f"The maps need a quadratic loss such as losses.mse, but got {loss!r}.")
    check_examples(apply, params, x)
    params, x, y = _tree.single((params, x, y))
    eta = learning_rate * jnp.asarray(loss.c(*y.shape), y.dtype)
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def outputs(w: Any) -> Any:
        return apply(unravel(w), x).reshape(-1)

    with jax.default_matmul_precision("highest"):
        f = outputs(flat)
        r = f - y.reshape(-1)  # [N]
        jacobian = jax.jacrev(outputs)(flat)  # [N, p]
        pull = jacobian.T @ r
        bent = jax.jvp(jax.jacrev(outputs), (flat,), (pull,))[1]  # G, [N, p]
        mixed = bent @ jacobian.T
        kernel = jacobian @ jacobian.T
        correction = eta**2 / 2 * mixed
        decrease = eta * (mixed + mixed.T) - eta**2 * (bent @ bent.T)
        after = f - eta * (kernel @ r) + correction @ r
    return Update(after.reshape(y.shape), kernel - decrease, correction, decrease)


class Outcome(NamedTuple):
    """What the map of one example gives for a whole run.

    Attributes:
        peak: largest (c/2)(g − y)²; infinite or NaN where the run diverges.
        peak_step: where it is reached.
        final: the last loss.
        kernel: the last λ.
    """

    peak: Any
    peak_step: Any
    final: Any
    kernel: Any


def outcome(learning_rate: Number, state: Example, *, coupling: Number, y: Number, c: Number, steps: int) -> Outcome:
    """Peak of the loss and final curvature of a run, by iterating `example_map`; arguments as there, which may be vmapped.

    Example:
        >>> found = outcome(2.5, Example(jnp.asarray(0.5), jnp.asarray(1.0)), coupling=0.001, y=0.0, c=1.0, steps=100)
        >>> bool(found.peak > 10), bool(found.final < 1e-6), bool(found.kernel < 2 / 2.5)
        (True, True, True)
    """
    path = trajectory(example_map(learning_rate, coupling=coupling, y=y, c=c), state, steps=steps)
    loss = (path.output - y) ** 2 * (jnp.asarray(c) / 2)
    return Outcome(jnp.max(loss, axis=0), jnp.argmax(loss, axis=0), loss[-1], path.kernel[-1])
