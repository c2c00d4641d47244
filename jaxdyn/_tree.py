"""Vector algebra on pytrees: parameters are vectors of R^p, whatever tree they come in. Nothing about networks."""

import jax
import jax.numpy as jnp

from jaxdyn._typing import Params, Scalar


def dot(a: Params, b: Params) -> Scalar:
    """The inner product Σ a_i b_i over all leaves."""
    products = jax.tree.map(lambda u, v: jnp.vdot(u, v), a, b)
    return jax.tree.reduce(jnp.add, products, jnp.zeros(()))


def norm(a: Params) -> Scalar:
    """The Euclidean norm over all leaves."""
    return jnp.sqrt(dot(a, a))


def axpy(alpha: Scalar | float, x: Params, y: Params) -> Params:
    """`alpha x + y`, leaf by leaf."""
    return jax.tree.map(lambda u, v: alpha * u + v, x, y)


def sub(a: Params, b: Params) -> Params:
    """`a - b`, leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)


def scale(alpha: Scalar | float, x: Params) -> Params:
    """`alpha x`, leaf by leaf."""
    return jax.tree.map(lambda u: alpha * u, x)
