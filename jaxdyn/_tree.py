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


def sub(a: Params, b: Params) -> Params:
    """`a - b`, leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)
