"""Networks on graphs against a slow neuron-by-neuron reference, against fully connected networks, and between their ways of execution."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import edge_lists
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdyn as jd
from jaxdyn import geometry
from jaxdyn.models import graphs
from jaxdyn.models.graphs import graph

FUNCTIONS = (jnp.tanh, jnp.sin, jnp.cos)
PRODUCTS = (graphs.by_density, graphs.dense, graphs.gathered)


def _by_neuron(network, activations, weights, x):
    """One example, one neuron at a time, and the gradient of every output by hand-written back-propagation."""
    slopes = {jnp.tanh: lambda z: 1 - np.tanh(z) ** 2, jnp.sin: np.cos, jnp.cos: lambda z: -np.sin(z)}
    numpy = {jnp.tanh: np.tanh, jnp.sin: np.sin, jnp.cos: np.cos}
    linear = {*network.inputs.tolist(), *network.outputs.tolist()}
    edges = list(zip(network.sources.tolist(), network.targets.tolist(), strict=True))
    value, slope = dict(zip(network.inputs.tolist(), x, strict=True)), {}
    for vertex in np.argsort(network.layers, kind="stable").tolist():
        into = [i for i, (_, v) in enumerate(edges) if v == vertex]
        if into:
            z = sum(weights[i] * value[edges[i][0]] for i in into) / np.sqrt(len(into))
            value[vertex] = z if vertex in linear else numpy[activations[vertex]](z)
            slope[vertex] = 1.0 if vertex in linear else slopes[activations[vertex]](z)
    gradients = np.zeros((len(network.outputs), len(edges)))
    for row, output in enumerate(network.outputs.tolist()):
        back = dict.fromkeys(range(network.num_vertices), 0.0)
        back[output] = 1.0
        for vertex in np.argsort(-network.layers, kind="stable").tolist():
            into = [i for i, (_, v) in enumerate(edges) if v == vertex]
            for i in into:
                flow = back[vertex] * slope[vertex] / np.sqrt(len(into))
                gradients[row, i] = flow * value[edges[i][0]]
                back[edges[i][0]] += flow * weights[i]
    return np.array([value[output] for output in network.outputs.tolist()]), gradients


@given(edge_lists(), st.lists(st.sampled_from(FUNCTIONS), min_size=9, max_size=9), st.sampled_from(PRODUCTS))
@settings(max_examples=12, deadline=None)
def test_forward_gradient_and_kernel_agree_with_a_slow_reference(edges, functions, product):
    with jax.enable_x64(True):
        network = graph(edges)
        activations = functions[: network.num_vertices]
        model = jd.models.dag(network, activation=activations, product=product)
        params = model.init(jax.random.key(0))
        x = np.random.default_rng(0).normal(size=(3, len(network.inputs)))
        weights = np.concatenate([params[f"layer_{layer}"]["weight"] for layer in range(1, network.depth + 1)])
        reference = [_by_neuron(network, activations, weights, example) for example in x]
        np.testing.assert_allclose(model.apply(params, jnp.asarray(x)), [f for f, _ in reference], atol=1e-13)
        jacobian = jax.jacrev(model.apply)(params, jnp.asarray(x))
        flat = np.concatenate([jacobian[f"layer_{layer}"]["weight"] for layer in range(1, network.depth + 1)], axis=-1)
        gradients = np.stack([g for _, g in reference])
        np.testing.assert_allclose(flat, gradients, atol=1e-12)
        kernel = geometry.ntk_blocks(model.apply, params, jnp.asarray(x))
        np.testing.assert_allclose(kernel, np.einsum("iap,jbp->ijab", gradients, gradients), atol=1e-11)


def _complete(sizes):
    starts = np.concatenate([[0], np.cumsum(sizes)])
    pairs = [
        (starts[layer] + a, starts[layer + 1] + b)
        for layer in range(len(sizes) - 1)
        for a in range(sizes[layer])
        for b in range(sizes[layer + 1])
    ]
    return graph(tuple(np.array(pairs).T))


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda f: f.__name__)
def test_layered_complete_graph_is_a_fully_connected_network(product, x64):
    sizes = (3, 7, 5, 2)
    model = jd.models.dag(_complete(sizes), activation=jnp.tanh, product=product)
    twin = jd.models.mlp(sizes, activation=jnp.tanh)
    params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (6, 3))

    def as_mlp(tree):
        return {
            f"dense_{layer}": {"weight": tree[f"layer_{layer + 1}"]["weight"].reshape(sizes[layer + 1], -1).T}
            for layer in range(3)
        }

    def loss(apply, p):
        return jnp.sum(jnp.sin(apply(p, x)))

    np.testing.assert_allclose(model.apply(params, x), twin.apply(as_mlp(params), x), atol=1e-12)
    ours = jax.grad(functools.partial(loss, model.apply))(params)
    chex.assert_trees_all_close(as_mlp(ours), jax.grad(functools.partial(loss, twin.apply))(as_mlp(params)), atol=1e-12)
    np.testing.assert_allclose(
        geometry.ntk(model.apply, params, x), geometry.ntk(twin.apply, as_mlp(params), x), atol=1e-11
    )


def _random(seed, sizes=(4, 12, 9, 2), density=0.5):
    rng = np.random.default_rng(seed)
    whole = _complete(sizes)
    is_kept = rng.random(whole.num_edges) < density
    _, first = np.unique(whole.targets, return_index=True)
    is_kept[first] = True  # every vertex has a predecessor
    is_kept[np.unique(whole.sources, return_index=True)[1]] = True  # and a successor
    return graph((whole.sources[is_kept], whole.targets[is_kept]))


def test_ways_of_execution_share_parameters_and_results(x64):
    network, x = _random(0), jax.random.normal(jax.random.key(2), (40, 4))
    models = [jd.models.dag(network, activation=jnp.tanh, product=product) for product in PRODUCTS]
    params = [model.init(jax.random.key(3)) for model in models]
    chex.assert_trees_all_equal(*params)
    chex.assert_trees_all_close(*(model.apply(params[0], x) for model in models), atol=1e-13)
    gradients = [jax.grad(lambda p, f=model.apply: jnp.sum(f(p, x) ** 2))(params[0]) for model in models]
    chex.assert_trees_all_close(*gradients, atol=1e-12)


def test_blocks_of_examples_change_nothing(x64):
    """Enough edges and examples for the blocked gather of a CPU, with a remainder."""
    network, x = _random(1, (50, 200, 150, 1), 0.7), jax.random.normal(jax.random.key(2), (37, 50))
    blocked = jd.models.dag(network, activation=jnp.tanh, product=graphs.gathered)
    plain = jd.models.dag(network, activation=jnp.tanh, product=graphs.dense)
    params = plain.init(jax.random.key(0))
    assert network.num_edges * 37 > 2**19

    def both(apply):
        return jax.jit(jax.value_and_grad(lambda p: jnp.sum(apply(p, x) ** 2)))(params)

    chex.assert_trees_all_close(both(blocked.apply), both(plain.apply), rtol=1e-10)
    np.testing.assert_allclose(geometry.ntk(blocked.apply, params, x), geometry.ntk(plain.apply, params, x), rtol=1e-9)


def test_pruning_leaves_the_other_weights_as_they_are():
    whole, part = _complete((4, 12, 9, 2)), _random(0)
    weights = {
        (int(u), int(v)): float(w) for u, v, w in zip(whole.sources, whole.targets, _weights(whole), strict=True)
    }
    left = [weights[int(u), int(v)] for u, v in zip(part.sources, part.targets, strict=True)]
    np.testing.assert_array_equal(_weights(part), np.float32(left))


def test_initial_weights_are_standard_normal_and_distinct(x64):
    weights = _weights(_complete((50, 60, 40)))
    assert len(np.unique(weights)) == len(weights)
    assert abs(weights.mean()) < 5 / np.sqrt(len(weights))
    assert abs(weights.std() - 1) < 5 / np.sqrt(2 * len(weights))


def _weights(network, seed=0):
    params = jd.models.dag(network, activation=jnp.tanh).init(jax.random.key(seed))
    return np.concatenate([params[f"layer_{layer}"]["weight"] for layer in range(1, network.depth + 1)])


def test_masked_network_is_the_network_on_the_graph(x64):
    networks = [_random(seed) for seed in range(3)]
    x = jax.random.normal(jax.random.key(2), (5, 4))
    masks = graphs.stack(networks)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def together(masks):
        def one(masks):
            model = jd.models.masked_dag(masks, activation=jnp.tanh)
            params = model.init(jax.random.key(3))
            return model.apply(params, x), geometry.ntk(model.apply, params, x)

        return jax.vmap(one)(masks)

    outputs, kernels = together(masks)
    together(jax.tree.map(lambda mask: ~mask, masks))
    for i, network in enumerate(networks):
        model = jd.models.dag(network, activation=jnp.tanh)
        params = model.init(jax.random.key(3))
        np.testing.assert_allclose(outputs[i], model.apply(params, x), atol=1e-13)
        np.testing.assert_allclose(kernels[i], geometry.ntk(model.apply, params, x), atol=1e-12)


def test_padding_of_masks_stays_zero_in_training():
    masks = graphs.Masks.of(_random(0))
    model = jd.models.masked_dag(masks, activation=jnp.tanh)
    params = model.init(jax.random.key(0))
    gradient = jax.grad(lambda p: jnp.sum(model.apply(p, jnp.ones((3, 4))) ** 2))(params)
    for layer, mask in enumerate(masks.masks, start=1):
        for tree in (params, gradient):
            np.testing.assert_array_equal(np.asarray(tree[f"layer_{layer}"]["weight"])[~mask], 0)


def test_graphs_are_an_axis_of_a_sweep():
    import optax

    masks, task = (
        graphs.stack([_random(seed) for seed in range(3)]),
        jd.tasks.from_arrays(jnp.ones((4, 4)), jnp.ones((4, 2))),
    )

    def run(seed):
        model = jd.models.masked_dag(jax.tree.map(lambda mask: jnp.asarray(mask)[seed], masks), activation=jnp.tanh)
        return jd.Training(
            model,
            task,
            optax.sgd(0.1),
            steps=2,
            key=jax.random.key(seed),
            record=jd.record(jd.every(2), f=jd.probes.Outputs()),
        )

    found = jd.sweep(run, vmap={"seed": np.arange(3)})
    model = jd.models.dag(_random(2), activation=jnp.tanh)
    start = model.apply(model.init(jax.random.key(2)), task.x)
    np.testing.assert_allclose(found.f.sel(seed=2).isel(step=0), start, atol=1e-5)


@pytest.mark.parametrize("product", [graphs.dense, graphs.gathered], ids=lambda f: f.__name__)
def test_hessian_norm_is_that_of_the_dense_hessian(product, x64):
    network = _random(4, (3, 5, 4, 2), 0.7)
    model = jd.models.dag(network, activation=jnp.tanh, product=product)
    params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (2, 3))
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    hessians = jax.hessian(lambda w: model.apply(unravel(w), x))(flat)
    expected = np.abs(np.linalg.eigvalsh(hessians)).max(-1)
    found = geometry.function_hessian_norm(model.apply, params, x, key=jax.random.key(2), tolerance=1e-7)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_outputs_of_several_layers_come_in_their_order(x64):
    edges = (["x", "x", "a", "x", "b"], ["a", "p", "b", "q", "r"])
    model = jd.models.dag(edges, activation=jnp.tanh, outputs=["r", "q", "p"])
    network = graph(edges, outputs=["r", "q", "p"])
    params = model.init(jax.random.key(0))
    w = {
        (network.names[u], network.names[v]): float(value)
        for u, v, value in zip(
            network.sources,
            network.targets,
            jnp.concatenate([params[f"layer_{i}"]["weight"] for i in (1, 2, 3)]),
            strict=True,
        )
    }
    deep = w["b", "r"] * np.tanh(w["a", "b"] * np.tanh(2 * w["x", "a"]))
    found = model.apply(params, jnp.full((1, 1), 2.0))[0]
    np.testing.assert_allclose(found, [deep, 2 * w["x", "q"], 2 * w["x", "p"]], atol=1e-14)


def test_activations_by_name():
    edges = (["x", "x", "a", "b"], ["a", "b", "y", "y"])
    both = jd.models.dag(edges, activation={"a": jnp.tanh, "b": jnp.cos})
    params, x = both.init(jax.random.key(0)), jnp.ones((1, 1))
    (wa, wb), (va, vb) = params["layer_1"]["weight"], params["layer_2"]["weight"]
    expected = (va * np.tanh(wa) + vb * np.cos(wb)) / np.sqrt(2)
    np.testing.assert_allclose(both.apply(params, x)[0, 0], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="'b'"):
        jd.models.dag(edges, activation={"a": jnp.tanh})
    with pytest.raises(ValueError, match=r"4 vertices.*2 entries"):
        jd.models.dag(edges, activation=[jnp.tanh, jnp.tanh])


def test_wrong_inputs_and_missing_kernels_say_so():
    model = jd.models.dag(_random(0), activation=jnp.tanh)
    with pytest.raises(ValueError, match=r"4 inputs.*dimension 3"):
        model.apply(model.init(jax.random.key(0)), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="no infinite-width kernel"):
        model.kernel(jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="2 hidden layers, but 1"):
        jd.models.masked_dag(graphs.Masks.of(_random(0)), activation=[jnp.tanh])
