"""The tangent kernel from explicit Jacobians, what the fast one is compared with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn.geometry.kernel import ntk, ntk_blocks, ntk_plan
from jaxdyn.geometry.kernel.routes import Route


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def explicit(apply, params, x1, x2):
    """The whole kernel from one Jacobian for each example."""

    def matrix(x):
        jacobian = jax.vmap(lambda e: jax.jacrev(lambda p: apply(p, e[None])[0], allow_int=True)(params))(x)
        leaves = [leaf for leaf in jax.tree.leaves(jacobian) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return jnp.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=2)

    return jnp.einsum("iap,jbp->ijab", matrix(x1), matrix(x2), precision="highest")


def assert_exact(apply, params, x1, x2=None, tolerance=1e-10):
    """Both kernels agree with the explicit one, relative to its largest entry."""
    params, x1 = jax.tree.map(jnp.asarray, (params, x1))
    x2 = None if x2 is None else jnp.asarray(x2)

    @jax.jit
    def all_three(p):
        return explicit(apply, p, x1, x1 if x2 is None else x2), ntk_blocks(apply, p, x1, x2), ntk(apply, p, x1, x2)

    expected, whole, trace = (np.asarray(kernel) for kernel in all_three(params))
    size = np.abs(expected).max()
    assert size > 0
    np.testing.assert_allclose(whole, expected, atol=tolerance * size, rtol=0)
    mean = np.trace(expected, axis1=2, axis2=3) / expected.shape[-1]
    np.testing.assert_allclose(trace, mean, atol=tolerance * size, rtol=0)


def routes(apply, params, x):
    """The route of each leaf by its path."""
    return {leaf.path: leaf.route for leaf in ntk_plan(apply, params, x).routes}


def prefer(monkeypatch, kind):
    """Make one route win wherever it is possible."""
    monkeypatch.setattr(Route, "cost", lambda self, n1, n2: float(self.kind != kind))


def params_of(shapes):
    """Float64 parameters; a weight and a gain are there even if the function ignores them."""
    sizes = {"s": (3,), "w": (5, 3), **shapes}
    return {name: normal(10 + i, *shape) / 2 for i, (name, shape) in enumerate(sorted(sizes.items()))}


def assert_exact_on(kinds, apply, shapes, x, monkeypatch):
    """The parameters of the given shapes take each route when it is preferred, and the kernel is exact."""
    params, x = jax.tree.map(jnp.asarray, (params_of(shapes), x))
    expected = jax.jit(lambda p: explicit(apply, p, x, x[:2]))(params)
    for kind in kinds:
        prefer(monkeypatch, kind)
        found = jax.jit(lambda p: ntk_blocks(apply, p, x, x[:2]))(params)
        np.testing.assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max(), rtol=0)
        assert {route for path, route in routes(apply, params, x).items() if path.split("[")[0] in shapes} == {kind}
