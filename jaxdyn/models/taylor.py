"""Taylor expansions of a model in its parameters around the anchor w0.

With δ = w - w0 and D the derivative along δ,

    taylor(k):  f(w0; x) + D f(w0; x) + … + D^k f(w0; x) / k!

`linear` is k = 1, `quadratic` k = 2 (f + ∇f·δ + ½ δᵀH_f δ). The order is a choice of function seen from the anchor:
the same model, initialisation and optimizer serve the network and its expansions.

"Derivative" is what automatic differentiation returns, so a ReLU keeps the gates it has at the anchor: the quadratic
model of a two-layer ReLU network is the same network with its gates frozen at w0.

References:
    Zhu, Liu, Radhakrishnan, Belkin, "Quadratic models for understanding catapult dynamics of neural networks",
    arXiv 2205.11787, section 2.
"""

import math
from typing import Any

import jax

from jaxdyn import _tree
from jaxdyn._typing import Apply, Expansion


def exact(apply: Apply, params0: Any) -> Apply:
    """The function itself, whatever the anchor."""
    return apply


def taylor(order: int) -> Expansion:
    """The Taylor expansion of a given order, by nested forward-mode derivatives (order + 1 passes at most 2^order).

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

    def expand(apply: Apply, params0: Any) -> Apply:
        def expanded(params: Any, x: Any) -> Any:
            delta = _tree.sub(params, params0)

            def derivatives(k: int) -> Any:
                """The function `w -> (f, Df, …, D^k f)(w)` along δ."""
                if k == 0:
                    return lambda w: (apply(w, x),)
                lower = derivatives(k - 1)

                def upper(w: Any) -> Any:
                    values, tangents = jax.jvp(lower, (w,), (delta,))
                    return (*values, tangents[-1])

                return upper

            terms = derivatives(order)(params0)
            return sum((term / math.factorial(j) for j, term in enumerate(terms[1:], start=1)), terms[0])

        return expanded

    return expand


def linear(apply: Apply, params0: Any) -> Apply:
    """The linear model f(w0; x) + ∇f(w0; x)·(w - w0), whose tangent kernel never changes."""
    return taylor(1)(apply, params0)


def quadratic(apply: Apply, params0: Any) -> Apply:
    """The quadratic model f + ∇f·δ + ½ δᵀH_f δ around w0 (arXiv 2205.11787, the NQM)."""
    return taylor(2)(apply, params0)
