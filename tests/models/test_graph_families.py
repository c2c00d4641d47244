"""Every family has the layers and in-degrees asked for, and depends on its seed alone."""

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


def test_heavy_tailed_law_is_a_pareto_law_cut_off():
    drawn = graphs.heavy_tailed(10, power=3, tail=1.0)(np.random.default_rng(0), 100_000)
    assert drawn.min() == 10
    assert 900 < drawn.max() <= 1000
    expected = (10 / 40 - 10 / 1001) / (1 - 10 / 1001)
    assert abs((drawn >= 40).mean() - expected) < 5 * np.sqrt(0.25 / 100_000)


@pytest.mark.parametrize("m", [1, 16, 40])
def test_fixed_mean_has_that_mean_whatever_the_smallest(m):
    drawn = graphs.fixed_mean(m, mean=40, most=300)(np.random.default_rng(0), 50_000)
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
    ],
)
def test_impossible_families_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
