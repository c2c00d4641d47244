"""Distances keep their digits far from the origin, at any scale of a feature, and between close points: NumPy in float64 says so."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.theory import radial, rfm


def _points(kind, dim):
    rng = np.random.default_rng(dim)
    x = rng.normal(size=(60, dim))
    if kind == "far":
        x = np.concatenate([1e4 + x[:-1], 0 * x[-1:]])  # a cluster, and a point that keeps the centre away from it
    elif kind == "close":
        x[30:] = x[:30] + 1e-3 * x[30:]
    elif kind == "scale":
        x[:, 0] *= 1e4
    elif kind == "repeated":
        x[30:] = x[:30]
    return x.astype(np.float32)


@pytest.mark.parametrize("dim", [2, radial.FEW + 1, 200])
@pytest.mark.parametrize(
    ("kind", "bandwidth"), [("plain", 5.0), ("far", 5.0), ("close", 0.05), ("scale", 3e3), ("repeated", 5.0)]
)
@pytest.mark.parametrize("memory", [2**28, 60 * 4 * 4 * 7])
def test_kernels_are_those_of_float64(dim, kind, bandwidth, memory):
    x = _points(kind, dim)
    differences = x[:, None].astype(np.float64) - x[None].astype(np.float64)
    expected = np.exp(-np.sqrt((differences**2).sum(axis=-1)) / bandwidth)
    found = radial.gram(radial.laplace(bandwidth), jnp.eye(dim), jnp.asarray(x), jnp.asarray(x), memory=memory)
    np.testing.assert_allclose(found, expected, atol=5e-5)  # the bound that `squares` states is far above
    assert (np.asarray(found)[expected == 1] == 1).all()


@pytest.mark.parametrize("dim", [2, 16, radial.FEW])
def test_distances_in_few_coordinates_keep_all_their_digits(dim):
    """Off the origin by a dozen distances, where ‖a‖² + ‖b‖² − 2 a·b would lose two more digits."""
    x = np.float32((100 + 8 * np.random.default_rng(dim).normal(size=(60, dim))) / dim**0.5)
    differences = x[:, None].astype(np.float64) - x[None].astype(np.float64)
    np.testing.assert_allclose(radial.squares(jnp.asarray(x), jnp.asarray(x)), (differences**2).sum(axis=-1), rtol=1e-6)


def test_the_outlier_of_the_report():
    x = jnp.array([[512695.0], [512804.0], [0.0]])
    np.testing.assert_allclose(radial.gram(radial.laplace(1e3), jnp.eye(1), x, x)[0, 1], np.exp(-0.109), rtol=1e-4)


def test_a_machine_does_not_depend_on_the_origin():
    """Two clusters 2000 apart: targets, gradients and metric are those of the same machine in float64 units of the clusters."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)).astype(np.float32)
    x[:40, 2] += 2000
    y = jnp.asarray(x[:, :1] * x[:, 1:2])
    settings = {"kernel": radial.laplace(10.0), "ridge": 1e-2, "iterations": 2}

    def machine(shift):
        moved = jnp.asarray(x + np.float32(shift))
        return rfm.fit(moved[::2], y[::2], x_test=moved[1::2], y_test=y[1::2], **settings)

    near, far = machine(0.0), machine(4096.0)
    np.testing.assert_allclose(far.test_mse, near.test_mse, rtol=1e-2)
    np.testing.assert_allclose(far.metrics[-1], near.metrics[-1], atol=1e-2 * float(near.metrics[-1].max()))


@pytest.mark.parametrize("empty", ["x", "x_test"])
def test_sets_without_examples_are_refused(empty):
    sets = {"x": jnp.ones((4, 2)), "x_test": jnp.ones((3, 2))} | {empty: jnp.ones((0, 2))}
    with pytest.raises(ValueError, match="need at least one example each"):
        rfm.fit(
            sets["x"], jnp.ones((len(sets["x"]), 1)), x_test=sets["x_test"], y_test=jnp.ones((len(sets["x_test"]), 1)),
            kernel=radial.laplace(1.0), ridge=1e-3, iterations=1,
        )  # fmt: skip
