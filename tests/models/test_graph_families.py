"""Every family has the layers and in-degrees asked for, and depends on its seed alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.models import graphs

SIZES = (3, 40, 40, 40, 2)

FAMILIES = {
    "layered": lambda seed: graphs.layered(SIZES),
    "densely_connected": lambda seed: graphs.densely_connected(SIZES),
    "constant": lambda seed: graphs.random_layered(SIZES, law=graphs.constant(5), seed=seed),
    "previous": lambda seed: graphs.random_layered(SIZES, law=graphs.constant(2), seed=seed, reach=1),
    "single": lambda seed: graphs.random_layered(SIZES, law=graphs.constant(1), seed=seed),
    "uniform": lambda seed: graphs.random_layered(SIZES, law=graphs.uniform(5), seed=seed),
    "heavy_tailed": lambda seed: graphs.random_layered(SIZES, law=graphs.heavy_tailed(5, power=2), seed=seed),
    "small_world": lambda seed: graphs.small_world(SIZES, neighbours=4, rewire=0.3, seed=seed),
    "pruned": lambda seed: graphs.pruned(graphs.layered(SIZES), keep=0.1, seed=seed),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_families_have_the_layers_asked_for_and_no_dead_end(family, seed):
    found = FAMILIES[family](seed)
    assert found.sizes == SIZES
    assert found.inputs.tolist() == [0, 1, 2]
    assert found.outputs.tolist() == [123, 124]
    again, other = FAMILIES[family](seed), FAMILIES[family](seed + 1)
    np.testing.assert_array_equal(found.sources, again.sources)
    if family not in ("layered", "densely_connected"):
        assert not np.array_equal(found.sources, other.sources)


def test_random_in_degrees_follow_the_law_exactly_when_nobody_is_left_out():
    found = graphs.random_layered((3, 200, 200, 200, 1), law=graphs.uniform(20), seed=0)
    degrees = found.in_degrees[found.layers == 3]
    assert (degrees.min(), degrees.max()) == (20, 60)
    assert (np.bincount(degrees)[20:] > 0).mean() > 0.8
    assert found.min_in_degree == 20
    second = found.layers[found.targets] == 3
    from_first = (found.layers[found.sources[second]] == 1).mean()
    assert abs(from_first - 0.5) < 5 * np.sqrt(0.25 / second.sum())  # both hidden layers alike


LAWS = {
    "constant": graphs.constant(5),
    "uniform": graphs.uniform(5),
    "heavy_tailed": graphs.heavy_tailed(5, power=1.5),
    "fixed_mean": graphs.fixed_mean(2, mean=7.5, most=20),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("reach", [None, 1])
def test_masks_drawn_in_a_trace_follow_the_law_of_graphs_drawn_by_numpy(law, reach):
    sizes, num = (3, 20, 24, 28, 2), 200
    keys = jax.random.split(jax.random.key(0), num)
    drawn = jax.jit(jax.vmap(lambda key: graphs.random_masks(sizes, law=LAWS[law], key=key, reach=reach)))(keys)
    found = [graphs.random_layered(sizes, law=LAWS[law], seed=seed, reach=reach) for seed in range(num)]
    reads = ((0,), (1,), (1, 2) if reach is None else (2,), (3,))
    stacked = [graphs.Masks.of(one, reads=reads) for one in found]
    assert (drawn.sizes, drawn.reads) == (stacked[0].sizes, reads)
    for layer, mask in enumerate(map(np.asarray, drawn.masks)):
        other = np.stack([one.masks[layer] for one in stacked])
        assert mask.shape == other.shape
        assert mask.any(axis=1).all()  # nobody without a parent
        assert mask[:, -sizes[layer] :].any(axis=1).all()  # nor without one in the layer before
        degrees, others = mask.sum(axis=1).ravel(), other.sum(axis=1).ravel()
        error = np.hypot(degrees.std(), others.std()) / np.sqrt(degrees.size) + 1e-9
        assert abs(degrees.mean() - others.mean()) < 5 * error
        assert abs((degrees == degrees.min()).mean() - (others == others.min()).mean()) < 0.03
        assert degrees.min() == others.min()
        chances, expected = mask.mean(axis=(0, 2)), other.mean(axis=(0, 2))  # of each source
        assert abs(chances - expected).max() < 5 * np.sqrt(0.5 / mask[:, 0].size)
    for layer in (1, 2):  # the hidden ones that could be left out
        has_child = np.zeros((num, sizes[layer]), bool)
        for row, mask in zip(reads, drawn.masks, strict=True):
            if layer in row:
                start = sum(sizes[earlier] for earlier in row[: row.index(layer)])
                has_child |= np.asarray(mask)[:, start : start + sizes[layer]].any(axis=2)
        assert has_child.all()
    assert len({np.asarray(drawn.masks[1][i]).tobytes() for i in range(num)}) == num


def test_a_mask_depends_on_its_key_alone():
    def draw(key):
        return graphs.random_masks(SIZES, law=graphs.uniform(5), key=key).masks

    keys = jax.random.split(jax.random.key(1), 3)
    together = jax.vmap(draw)(keys)
    for i, key in enumerate(keys):
        for one, many in zip(draw(key), together, strict=True):
            np.testing.assert_array_equal(one, jnp.broadcast_to(many, (3, *one.shape))[i])


def test_heavy_tailed_law_is_a_pareto_law_cut_off():
    drawn = graphs.heavy_tailed(10, power=3, tail=1.0)(np.random.default_rng(0).random(100_000))
    assert drawn.min() == 10
    assert 900 < drawn.max() <= 1000
    expected = (10 / 40 - 10 / 1001) / (1 - 10 / 1001)
    assert abs((drawn >= 40).mean() - expected) < 5 * np.sqrt(0.25 / 100_000)


@pytest.mark.parametrize("m", [1, 16, 40])
def test_fixed_mean_has_that_mean_whatever_the_smallest(m):
    drawn = graphs.fixed_mean(m, mean=40, most=300)(np.random.default_rng(0).random(50_000))
    assert drawn.min() == m
    assert abs(drawn.mean() - 40) < 1e-9 + 5 * drawn.std() / np.sqrt(50_000)


def test_a_small_world_without_rewiring_is_a_ring_and_with_it_is_not():
    ring = graphs.small_world((2, 10, 10, 1), neighbours=4, rewire=0.0, seed=0)
    inner = ring.layers[ring.targets] == 2
    apart = (ring.targets[inner] - 12 - (ring.sources[inner] - 2)) % 10
    assert set(apart.tolist()) == {0, 1, 2, 9}
    random = graphs.small_world((2, 100, 100, 1), neighbours=4, rewire=0.5, seed=0)
    inner = random.layers[random.targets] == 2
    apart = (random.targets[inner] - 102 - (random.sources[inner] - 2)) % 100
    share = np.isin(apart, [0, 1, 2, 99]).mean()
    assert abs(share - 0.5) < 0.15


def test_pruning_keeps_a_part():
    whole = graphs.layered((3, 100, 100, 1))
    part = graphs.pruned(whole, keep=0.3, seed=0)
    pairs = [set(zip(g.sources.tolist(), g.targets.tolist(), strict=True)) for g in (part, whole)]
    assert pairs[0] < pairs[1]
    inner = (part.layers[part.targets] == 2).sum() / 10_000
    assert 0.28 < inner < 0.34  # 0.3, at most 0.014 more by what must be kept, 4 standard errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: graphs.random_layered((3, 4, 4, 1), law=graphs.constant(5), seed=0), "5.*1 to 4"),
        (lambda: graphs.random_layered((3, 4, 4, 1), law=graphs.constant(2), seed=0, reach=0), "reach"),
        (lambda: graphs.layered((3, 1)), "three layers"),
        (lambda: graphs.small_world((2, 3, 3, 1), neighbours=4, rewire=0.1, seed=0), "neighbours"),
        (lambda: graphs.small_world((2, 3, 3, 1), neighbours=2, rewire=1.1, seed=0), "probability"),
        (lambda: graphs.pruned(graphs.layered((3, 4, 1)), keep=0.0, seed=0), "probability"),
        (lambda: graphs.uniform(4, factor=0.5), "factor"),
        (lambda: graphs.heavy_tailed(4, power=2, tail=0.0), "tail"),
        (lambda: graphs.fixed_mean(4, mean=3, most=9), "not 3"),
        (lambda: graphs.constant(0), "at least 1, but is 0"),
        (lambda: graphs.random_masks((3, 4, 4, 1), law=graphs.uniform(2), key=jax.random.key(0)), "2 to 6.*1 to 4"),
        (lambda: graphs.random_masks((3, 4, 4, 1), law=graphs.constant(2), key=jax.random.key(0), reach=0), "reach"),
        (lambda: graphs.random_masks((3, 1), law=graphs.constant(2), key=jax.random.key(0)), "three layers"),
    ],
)
def test_impossible_families_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
