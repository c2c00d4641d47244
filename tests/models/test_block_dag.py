"""Networks on graphs of blocks: chains are fully connected, kernels are those of `stax` where it has the graph, and of wide networks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn import geometry
from jaxdyn.models import _neural_tangents, block_dag
from jaxdyn.models.width import Width

SKIP = {"h1": ["x"], "h2": ["x", "h1"], "y": ["h1", "h2"]}


def _x(n=4, d=5, seed=0):
    return jax.random.normal(jax.random.key(seed), (n, d))


@pytest.mark.parametrize(
    "scaling", [jd.models.ntk, jd.models.standard, jd.models.maximal_update], ids=lambda f: f.__name__
)
def test_a_chain_is_a_fully_connected_network_from_the_same_key(scaling):
    chain = {"y": ["b"], "b": ["a"], "a": ["x"]}  # listed back to front
    model = block_dag(chain, widths={"x": 5, "a": 8, "b": 6, "y": 2}, activation=jnp.tanh, scaling=scaling)
    twin = jd.models.mlp((5, 8, 6, 2), activation=jnp.tanh, scaling=scaling)
    params, other = model.init(jax.random.key(3)), twin.init(jax.random.key(3))
    weights = [params["a"]["x"], params["b"]["a"], params["y"]["b"]]
    chex.assert_trees_all_equal(weights, [other[f"dense_{i}"]["weight"] for i in range(3)])
    np.testing.assert_array_equal(model.apply(params, _x()), twin.apply(other, _x()))


@pytest.mark.parametrize("activation", [jax.nn.relu, jnp.tanh], ids=lambda f: f.__name__)
def test_the_kernel_of_a_chain_is_that_of_a_fully_connected_network(activation, x64):
    chain = {"a": ["x"], "b": ["a"], "y": ["b"]}
    found = block_dag(chain, widths={"x": 5, "a": 8, "b": 6, "y": 2}, activation=activation).kernel(_x(), _x(3, seed=1))
    expected = jd.models.mlp((5, 8, 6, 2), activation=activation).kernel(_x(), _x(3, seed=1))
    chex.assert_trees_all_close(found, expected, rtol=1e-7)


def test_network_is_the_network_on_the_graph_of_its_neurons(x64):
    """Every neuron of a block reads every neuron of its parents: the same function as `models.dag`."""
    widths = {"x": 3, "h1": 4, "h2": 5, "y": 2}
    first = dict(zip(widths, np.cumsum([0, *widths.values()][:-1]).tolist(), strict=True))
    edges = [
        (first[p] + a, first[c] + b)
        for c, own in SKIP.items()
        for p in own
        for a in range(widths[p])
        for b in range(widths[c])
    ]
    network = jd.models.graphs.graph(tuple(zip(*edges, strict=True)))
    neurons = jd.models.dag(network, activation=jnp.sin)
    model = block_dag(SKIP, widths=widths, activation=jnp.sin)
    params = model.init(jax.random.key(0))
    block = {v: (name, v - start) for name, start in first.items() for v in range(start, start + widths[name])}
    weight = [
        params[block[v][0]][block[u][0]][block[u][1], block[v][1]]
        for u, v in zip(network.sources.tolist(), network.targets.tolist(), strict=True)
    ]
    into = network.layers[network.targets]
    flat = {f"layer_{i}": {"weight": jnp.asarray(weight)[into == i]} for i in range(1, network.depth + 1)}
    np.testing.assert_allclose(neurons.apply(flat, _x(4, 3)), model.apply(params, _x(4, 3)), atol=1e-14)


def test_skip_network_by_hand(x64):
    model = block_dag(SKIP, widths={"x": 5, "h1": 7, "h2": 3, "y": 1}, activation={"h1": jnp.tanh, "h2": jnp.sin})
    p, x = model.init(jax.random.key(0)), _x()
    h1 = np.tanh(x @ p["h1"]["x"] / np.sqrt(5))
    h2 = np.sin((x @ p["h2"]["x"] + h1 @ p["h2"]["h1"]) / np.sqrt(12))
    np.testing.assert_allclose(model.apply(p, x), (h1 @ p["y"]["h1"] + h2 @ p["y"]["h2"]) / np.sqrt(10), atol=1e-14)


def test_padded_widths_change_nothing(x64):
    def make(h1, h2):
        return block_dag(SKIP, widths={"x": 5, "h1": h1, "h2": h2, "y": 1}, activation=jnp.cos)

    plain, x = make(4, 6), _x()
    padded = make(Width(8, jnp.asarray(4)), Width(9, jnp.asarray(6)))
    small, large = (model.init(jax.random.key(1)) for model in (plain, padded))
    chex.assert_trees_all_equal(small["h2"]["h1"], large["h2"]["h1"][:4, :6])
    np.testing.assert_allclose(padded.apply(large, x), plain.apply(small, x), atol=1e-14)
    np.testing.assert_allclose(geometry.ntk(padded.apply, large, x), geometry.ntk(plain.apply, small, x), atol=1e-13)
    chex.assert_trees_all_close(padded.kernel(x), plain.kernel(x), rtol=1e-12)


def test_two_branches_are_a_fan_in_of_neural_tangents(x64):
    """Concatenated branches and one readout; a readout of each branch, summed, is twice as much."""
    stax, x = _neural_tangents.stax(), _x()
    branches = {"a": ["x"], "b": ["x"], "y": ["a", "b"]}
    found = block_dag(branches, widths={"x": 5, "a": 6, "b": 6, "y": 1}, activation=jax.nn.relu).kernel(x)
    dense, split = lambda width: stax.Dense(width, b_std=None), [stax.FanOut(2)]
    hidden = [stax.serial(dense(6), stax.Relu()) for _ in range(2)]
    read = [stax.serial(dense(6), stax.Relu(), dense(1)) for _ in range(2)]
    with _neural_tangents._calm():
        joined = stax.serial(*split, stax.parallel(*hidden), stax.FanInConcat(-1), dense(1))[2](
            x, None, ("nngp", "ntk")
        )
        added = stax.serial(*split, stax.parallel(*read), stax.FanInSum())[2](x, None, ("nngp", "ntk"))
    np.testing.assert_allclose(found.nngp, joined.nngp, rtol=1e-12)
    np.testing.assert_allclose(found.ntk, joined.ntk, rtol=1e-12)
    np.testing.assert_allclose(2 * found.nngp, added.nngp, rtol=1e-12)
    np.testing.assert_allclose(2 * found.ntk, added.ntk, rtol=1e-12)


@pytest.mark.parametrize("activation", [jnp.tanh, {"h1": jax.nn.relu, "h2": jnp.sin}], ids=["tanh", "mixed"])
def test_kernel_is_the_mean_over_wide_networks(activation):
    """Shares 1 : 3; mean of 64 networks within 5 of its standard errors plus a bias of order 1/width."""
    widths = {"x": 5, "h1": 128, "h2": 384, "y": 1}
    model, x = block_dag(SKIP, widths=widths, activation=activation), _x(3)

    @jax.jit
    def one(key):
        params = model.init(key)
        return model.apply(params, x)[:, 0], geometry.ntk(model.apply, params, x)

    outputs, kernels = jax.lax.map(one, jax.random.split(jax.random.key(0), 64))
    expected = model.kernel(x)
    error = np.std(kernels, axis=0, ddof=1) / 8
    assert (np.abs(np.mean(kernels, axis=0) - expected.ntk) < 5 * error + np.max(expected.ntk) / 128).all()
    assert np.max(np.abs(np.mean(kernels, axis=0) - expected.ntk)) < 0.05 * np.max(expected.ntk)
    products = np.einsum("ri,rj->rij", outputs, outputs)
    spread = 5 * np.std(products, axis=0, ddof=1) / 8
    assert (np.abs(np.mean(products, axis=0) - expected.nngp) < spread + 0.02).all()


def test_kernels_of_unequal_shares_differ(x64):
    """The shares are seen at all: else the test above could not fail."""
    kernels = [
        block_dag(SKIP, widths={"x": 5, "h1": a, "h2": b, "y": 1}, activation=jnp.tanh).kernel(_x(3)).ntk
        for a, b in ((128, 384), (384, 128))
    ]
    assert np.max(np.abs(kernels[0] - kernels[1])) > 0.1 * np.max(kernels[0])


def test_several_inputs_and_outputs_stand_side_by_side(x64):
    model = block_dag(
        {"h": ["u", "v"], "y": ["h"], "z": ["h"]}, widths={"v": 2, "u": 3, "h": 4, "y": 1, "z": 2}, activation=jnp.tanh
    )
    p, x = model.init(jax.random.key(0)), _x()
    h = np.tanh((x[:, 2:] @ p["h"]["u"] + x[:, :2] @ p["h"]["v"]) / np.sqrt(5))
    expected = np.concatenate([h @ p["y"]["h"], h @ p["z"]["h"]], axis=1) / 2
    np.testing.assert_allclose(model.apply(p, x), expected, atol=1e-14)
    with pytest.raises(ValueError, match="y, z"):
        model.kernel(x)


@pytest.mark.parametrize(
    ("parents", "changes", "message"),
    [
        ({"a": ["x", "b"], "b": ["a"], "y": ["b"]}, {}, "cycle.*'a'"),
        ({"a": ["x", "a"], "y": ["a"]}, {}, "[Ss]elf-loops.*'a'"),
        ({"a": ["x", "x"], "y": ["a"]}, {}, "'x' → 'a'"),
        ({"a": [], "y": ["a"]}, {}, "a.*no parents"),
        ({"a": ["x"], "y": ["a"]}, {"widths": {"x": 5, "a": 3}}, "'y'"),
        ({"a": ["x"], "y": ["a"]}, {"widths": {"x": 5, "a": 3, "y": 1, "q": 2}}, "'q'"),
        ({"a": ["x"], "y": ["a"]}, {"widths": {"x": 5, "a": 0, "y": 1}}, "'a' has 0"),
        ({"a": ["x"], "y": ["a"]}, {"widths": {"x": Width(5, 3), "a": 2, "y": 1}}, "padded.*'x'"),
        ({"a": ["x"], "y": ["a"]}, {"activation": {"b": jnp.tanh}}, "'a', 'b'"),
    ],
)
def test_impossible_graphs_are_refused_by_name(parents, changes, message):
    widths = dict.fromkeys([*parents, *(p for own in parents.values() for p in own)], 3)
    with pytest.raises(ValueError, match=message):
        block_dag(parents, **({"widths": widths, "activation": jnp.tanh} | changes))


def test_what_has_no_kernel_says_so():
    widths = {"x": 5, "h1": 8, "h2": 8, "y": 1}
    with pytest.raises(ValueError, match="nonlinear output"):
        block_dag(SKIP, widths=widths, activation=jnp.tanh, output=jnp.tanh).kernel(_x())
    with pytest.raises(ValueError, match="NTK scaling"):
        block_dag(SKIP, widths=widths, activation=jnp.tanh, scaling=jd.models.standard).kernel(_x())
    with pytest.raises(ValueError, match="traced"):
        jax.jit(block_dag(SKIP, widths=widths, activation=jnp.tanh).kernel)(_x())
    with pytest.raises(ValueError, match="take 5 columns"):
        block_dag(SKIP, widths=widths, activation=jnp.tanh).kernel(_x(3, 4))
