"""Taylor expansions of a model in its parameters around the anchor w0.

With δ = w - w0 and D the derivative along δ,

    taylor(k):  f(w0; x) + D f(w0; x) + … + D^k f(w0; x) / k!

`linear` is k = 1, `quadratic` k = 2 (f + ∇f·δ + ½ δᵀH_f δ). The order is a choice of function seen from the anchor:
the same model, initialisation and optimizer serve the network and its expansions.

The k nested derivatives are merged into the propagation of k Taylor coefficients before anything is differentiated (`_staging`): for
k = 2 a hidden layer takes dz = h0 δW + dh W0 and ddz = 2 dh δW + ddh W0, 4 products, and 5 on the way back, where a network takes 3.
Where all steps see the same inputs (`Training(sampler=full_batch)`) h0, φ'(z0), φ''(z0) are computed once before the steps, by `on`.

Integer leaves of w0 are constants.

"Derivative" is what automatic differentiation returns, so a ReLU keeps the gates it has at the anchor: the quadratic
model of a two-layer ReLU network is the same network with its gates frozen at w0.

References:
    Zhu, Liu, Radhakrishnan, Belkin, "Quadratic models for understanding catapult dynamics of neural networks",
    arXiv 2205.11787, section 2.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax

from jaxdyn import _jaxpr, _tree
from jaxdyn._typing import Apply, Expansion
from jaxdyn.models import _staging


def exact(apply: Apply, params0: Any) -> Apply:
    """The function itself, whatever the anchor."""
    return apply


def taylor(order: int) -> Expansion:
    """The Taylor expansion of a given order, by nested forward-mode derivatives with equal parts made one.

    Args:
        order: k ≥ 0.

    Returns:
        An expansion `(apply, params0) -> apply`.

    Raises:
        ValueError: for an order that is not a whole number of at least 0.

    Example:
        >>> import jax.numpy as jnp
        >>> cube = lambda w, x: (w**3 * x)
        >>> third = taylor(3)(cube, jnp.asarray(1.0))
        >>> float(third(jnp.asarray(2.0), jnp.ones((1, 1)))[0, 0])
        8.0
    """
    if isinstance(order, bool) or not isinstance(order, int) or order < 0:
        raise ValueError(f"The order of a Taylor expansion is a whole number of at least 0, but is {order!r}.")

    return lambda apply, params0: Expanded(apply, params0, order)


@dataclass(frozen=True, eq=False)
class Expanded:
    """The function of a Taylor model.

    Attributes:
        network: the function that is expanded.
        params0: the anchor.
        order: k.
    """

    network: Apply
    params0: Any
    order: int

    def __call__(self, params: Any, x: Any) -> Any:
        """f(w0; x) + … + D^k f(w0; x) / k!, [n, k]."""
        leaves = [*jax.tree.leaves(self.params0), x, *self._delta(params)]
        (value,) = _staging.call(self._traced(leaves), leaves)
        return value

    def on(self, x: Any) -> Apply:
        """The same function with what depends on the anchor and on fixed inputs alone computed once, here.

        Args:
            x: the array that the steps will see, [n, *d].

        Returns:
            `(params, x) -> [n, k]`. What was computed is used where the function is called with this very array.
        """
        fixed = [*jax.tree.leaves(self.params0), x]
        parts = _staging.split(self._traced([*fixed, *self._delta(self.params0)]), len(fixed))
        residuals = jax.jit(parts.known)(fixed)

        def apply(params: Any, inputs: Any) -> Any:
            if inputs is not x:
                return self(params, inputs)
            (value,) = parts.later(residuals, self._delta(params))
            return value

        return apply

    def _delta(self, params: Any) -> list[Any]:
        return jax.tree.leaves(_tree.sub(_tree.moving(params), _tree.moving(self.params0)))

    @_jaxpr.forward_mode()
    def _traced(self, leaves: list[Any]) -> Any:
        """The expansion as a traced function of the leaves of w0, x and the leaves of δ."""
        structure = jax.tree.structure(self.params0)
        moving = jax.tree.structure(_tree.moving(self.params0))
        n = len(jax.tree.leaves(self.params0))

        def expanded(*leaves: Any) -> Any:
            params0, x = jax.tree.unflatten(structure, leaves[:n]), leaves[n]
            delta = jax.tree.unflatten(moving, leaves[n + 1 :])
            function = _derivatives(lambda w: self.network(_tree.completed(w, params0), x), delta, self.order)
            terms = function(_tree.moving(params0))
            return (sum((term / math.factorial(j) for j, term in enumerate(terms[1:], start=1)), terms[0]),)

        traced = _staging.merged(expanded, *leaves)
        _jaxpr.check_forward(traced.jaxpr)
        return traced


def linear(apply: Apply, params0: Any) -> Apply:
    """The linear model f(w0; x) + ∇f(w0; x)·(w - w0), whose tangent kernel never changes."""
    return taylor(1)(apply, params0)


def quadratic(apply: Apply, params0: Any) -> Apply:
    """The quadratic model f + ∇f·δ + ½ δᵀH_f δ around w0 (arXiv 2205.11787, the NQM)."""
    return taylor(2)(apply, params0)


def _derivatives(f: Any, delta: Any, order: int) -> Any:
    """The function `w -> (f, Df, …, D^k f)(w)` along δ."""
    if order == 0:
        return lambda w: (f(w),)
    lower = _derivatives(f, delta, order - 1)

    def upper(w: Any) -> Any:
        values, tangents = jax.jvp(lower, (w,), (delta,))
        return (*values, tangents[-1])

    return upper
