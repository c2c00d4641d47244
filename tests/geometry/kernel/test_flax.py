"""Tangent kernels of flax modules against explicit Jacobians in float64, on each route."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometry.reference import assert_exact, normal, prefer, routes

import jaxdyn as jd

pytestmark = pytest.mark.usefixtures("x64")

IMAGES = normal(1, 3, 6, 6, 4)
TOKENS = np.random.default_rng(3).integers(0, 9, (4, 5))


class Convolutional(nn.Module):
    @nn.compact
    def __call__(self, x):
        for features in (4, 6):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
        return nn.Dense(3)(x.mean((1, 2)))


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.Conv(4, (3, 3), use_bias=False)(x)
        for _ in range(2):
            h = h + nn.Conv(4, (3, 3))(nn.relu(nn.LayerNorm()(h)))
        h = nn.GroupNorm(2)(h)
        return nn.Dense(2)(h.reshape(h.shape[0], -1))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), strides=3, padding="VALID")(x)
        x = x.reshape(x.shape[0], -1, 8)
        token = self.param("token", nn.initializers.normal(), (1, 1, 8))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, 8)), x], axis=1)
        x = x + self.param("place", nn.initializers.normal(), (1, x.shape[1], 8))
        h = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(2)(h, h)
        h = nn.LayerNorm()(x)
        return nn.Dense(3)((x + nn.Dense(8)(nn.gelu(nn.Dense(16)(h))))[:, 0])


@pytest.mark.parametrize(
    ("module", "kind"), [(Convolutional(), "formed"), (Residual(), "outer"), (Transformer(), "outer")]
)
def test_linen_modules_are_exact(module, kind, monkeypatch):
    prefer(monkeypatch, kind)
    params = module.init(jax.random.key(0), IMAGES)
    params = jax.tree.map(lambda w: w.astype(jnp.float64) + 0.1 * normal(7, *w.shape), params)
    assert_exact(module.apply, params, IMAGES, IMAGES[:2])
    found = routes(module.apply, params, IMAGES)
    assert all(route == kind for path, route in found.items() if path.endswith("kernel"))


def test_nnx_module_is_exact():
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(9, 6, rngs=rngs)
            self.conv = nnx.Conv(6, 4, (3,), rngs=rngs)
            self.dense = nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, tokens):
            return self.dense(nnx.relu(self.conv(self.embed(tokens))).mean(1))

    model = jd.models.from_nnx(lambda rngs: Network(rngs))
    assert_exact(model.apply, model.init(jax.random.key(0)), TOKENS, tolerance=1e-6)  # nnx computes in float32
