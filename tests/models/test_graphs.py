"""Graphs: layers, order and degrees against slow references, and every way to be invalid, named."""

import numpy as np
import pytest
import scipy.sparse
from cases import edge_lists
from hypothesis import given, settings

from jaxdyn.models import graphs
from jaxdyn.models.graphs import graph

DIAMOND = (["x", "x", "a", "b", "a"], ["a", "b", "y", "y", "b"])


def _longest_path(sources, targets, vertex):
    before = [u for u, v in zip(sources, targets, strict=True) if v == vertex]
    return 1 + max(_longest_path(sources, targets, u) for u in before) if before else 0


@given(edge_lists())
@settings(max_examples=60, deadline=None)
def test_layer_is_the_longest_path_and_edges_are_sorted(edges):
    sources, targets = edges
    found = graph(edges)
    assert found.layers.tolist() == [_longest_path(sources, targets, v) for v in range(found.num_vertices)]
    assert found.in_degrees.tolist() == [targets.count(v) for v in range(found.num_vertices)]
    assert found.inputs.tolist() == sorted(set(sources) - set(targets))
    assert found.outputs.tolist() == sorted(set(targets) - set(sources))
    assert set(zip(found.sources.tolist(), found.targets.tolist(), strict=True)) == set(zip(*edges, strict=True))
    place = np.argsort(found.order)
    by_place = list(zip(place[found.targets].tolist(), place[found.sources].tolist(), strict=True))
    assert by_place == sorted(by_place)
    later = [targets.count(v) for v in range(found.num_vertices) if found.layers[v] > 1]
    if later:
        assert (found.min_in_degree, found.mean_in_degree) == (min(later), np.mean(later))


def test_sources_of_edges_agree():
    networkx = pytest.importorskip("networkx")
    by_name = graph(DIAMOND)
    assert by_name.names == ("x", "a", "b", "y")
    assert by_name.layers.tolist() == [0, 1, 2, 3]
    matrix = scipy.sparse.csr_matrix((np.ones(5), (by_name.sources, by_name.targets)), shape=(4, 4))
    directed = networkx.DiGraph(list(zip(*DIAMOND, strict=True)))
    for other in (graph(matrix), graph(directed), graph((by_name.sources, by_name.targets), names=by_name.names)):
        np.testing.assert_array_equal(other.sources, by_name.sources)
        np.testing.assert_array_equal(other.layers, by_name.layers)
    assert graph(directed).names == by_name.names


def test_stored_zeros_of_a_matrix_are_no_edges():
    matrix = scipy.sparse.coo_matrix(([1.0, 0.0, 2.0], ([0, 0, 1], [1, 2, 2])), shape=(3, 3))
    assert graph(matrix).num_edges == 2


def test_a_million_edges_take_about_a_second():
    import time

    sizes = (1000, 1000, 1000)
    first = np.repeat(np.arange(1000), 500), (1000 + np.arange(500_000) % 1000)
    second = np.repeat(np.arange(1000, 2000), 500), (2000 + np.arange(500_000) % 1000)
    edges = tuple(np.concatenate(ends) for ends in zip(first, second, strict=True))
    edges = edges[0], edges[1]
    began = time.perf_counter()
    found = graph(edges)
    assert time.perf_counter() - began < 5
    assert found.num_edges == 10**6
    assert sum(found.sizes) == sum(sizes)


def test_a_long_chain_has_its_length_as_depth():
    assert graph((np.arange(5000), np.arange(1, 5001))).depth == 5000


def test_up_to_keeps_ancestors_and_their_names():
    part = graph(DIAMOND).up_to(["b"])
    assert part.names == ("x", "a", "b")
    assert part.name(part.outputs[0]) == "b"
    assert part.num_edges == 3


@pytest.mark.parametrize(
    ("edges", "settings_", "message"),
    [
        (([0, 1, 2, 3], [1, 2, 0, 0]), {}, "cycle: (0 → 1 → 2 → 0|1 → 2 → 0 → 1|2 → 0 → 1 → 2)"),
        ((["a", "b", "c"], ["b", "c", "b"]), {}, "cycle: .*'b'"),
        (([0, 1, 1], [1, 1, 2]), {}, "[Ss]elf-loops.* 1"),
        (([0, 0, 0], [1, 2, 1]), {}, "0 → 1"),
        (([0], [3]), {}, "[Ii]solated.* 1, 2"),
        (([0, 1], [2, 2]), {"inputs": [0]}, "missing in `inputs`.* 1"),
        (([0, 1, 1], [1, 2, 3]), {"inputs": [0, 1]}, "no predecessor.* 1"),
        (([0, 1], [2, 2]), {"inputs": [0, 1, 7]}, "no vertex 7"),
        (([0, 1], [2, 2]), {"inputs": [0, 1, 0]}, "repeats.* 0"),
        (([0, 0], [1, 2]), {"outputs": [2]}, "no successor.* 1"),
        (([0, 1], [1, 2]), {"outputs": [1, 2]}, "no successor.* 1"),
        (([0, 1], [1, 2]), {"names": ["a", "b", "a"]}, "distinct.*a"),
        (([0, 1], [1, 2]), {"names": ["a", "b"]}, "2 names.*vertex 2"),
        (([0, -1], [1, 2]), {}, "-1"),
        (([0, 1], [1]), {}, "shapes"),
        (([0.5, 1.0], [1.0, 2.0]), {}, "float64"),
        (scipy.sparse.csr_matrix((2, 3)), {}, r"\(2, 3\)"),
        (7, {}, "int"),
    ],
)
def test_invalid_graphs_are_refused_by_name(edges, settings_, message):
    with pytest.raises(ValueError, match=message):
        graph(edges, **settings_)


def test_undirected_graphs_are_refused():
    networkx = pytest.importorskip("networkx")
    with pytest.raises(ValueError, match="DiGraph"):
        graph(networkx.Graph([(0, 1)]))


def test_masks_hold_the_edges():
    found = graph(([0, 1, 0, 2, 2, 3, 1], [2, 2, 3, 3, 4, 4, 5]), outputs=None).up_to([4])
    masks = graphs.Masks.of(found)
    assert sum(int(mask.sum()) for mask in masks.masks) == found.num_edges
    assert masks.reads == ((0,), (0, 1), (1, 2))


def test_masks_refuse_early_outputs_and_graphs_of_other_shapes():
    early = graph(([0, 0, 1], [1, 2, 3]))
    with pytest.raises(ValueError, match=r"\[2\]"):
        graphs.Masks.of(early)
    with pytest.raises(ValueError, match="equal layers"):
        graphs.stack([graph(([0, 1], [1, 2])), graph(([0, 0, 1, 2], [1, 2, 3, 3]))])
