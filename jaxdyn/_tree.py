"""Vector algebra on pytrees: parameters are vectors of R^p, whatever tree they come in. Nothing about networks."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdyn._typing import Params, Scalar


def single(tree: Any) -> Any:
    """Floating leaves of less than single precision in single precision, all others as they are."""

    def raised(leaf: Any) -> Any:
        kind = jnp.result_type(leaf)
        is_half = jnp.issubdtype(kind, jnp.floating) and jnp.finfo(kind).bits < 32
        return jnp.asarray(leaf, jnp.float32) if is_half else leaf

    return jax.tree.map(raised, tree)


def moving(tree: Any) -> Any:
    """The leaves that training moves, floating or complex; None in the place of the others, which are constants."""
    return jax.tree.map(lambda leaf: leaf if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) else None, tree)


def completed(moved: Any, tree: Any) -> Any:
    """A tree with the leaves that `moving` keeps taken from `moved`."""
    return jax.tree.map(lambda leaf, new: leaf if new is None else new, tree, moved)


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
