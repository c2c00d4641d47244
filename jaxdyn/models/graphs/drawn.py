"""Random masks drawn by JAX: a graph a member inside a sweep, from a key that may be traced."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxdyn.models.graphs.families import Law, check_degrees, check_reach, check_sizes, first_read
from jaxdyn.models.graphs.masks import Masks


def random_masks(sizes: Sequence[int], *, law: Law, key: Any, reach: int | None = None) -> Masks:
    """The masks of a random graph with a law of in-degrees: the law of `random_layered`, other draws.

    Parents are drawn without replacement from earlier hidden layers. Where a vertex would have no parent in the layer before, one of its
    parents is replaced; where a hidden vertex would have no child at all, a random vertex of the next layer gets one parent more.

    Args:
        sizes: vertices of the layers, inputs and outputs included.
        law: of the in-degrees from the second hidden layer on, as in `random_layered`; its u are traced.
        key: random key, possibly traced: call it inside the function of a sweep, with the key of a seed.
        reach: how many layers back parents may be; all earlier hidden layers when None.

    Raises:
        ValueError: for sizes that cannot be, or a law with in-degrees larger than the number of possible parents.

    Example:
        >>> from jaxdyn.models.graphs import constant
        >>> keys = jax.random.split(jax.random.key(0), 5)
        >>> masks = jax.vmap(lambda key: random_masks((3, 8, 8, 1), law=constant(4), key=key))(keys)
        >>> masks.masks[1].shape, int(masks.masks[1].sum(axis=1).min())
        ((5, 8, 8), 4)
    """
    check_sizes(sizes)
    check_reach(reach)
    last = len(sizes) - 1
    reads = [(0,), *(tuple(range(first_read(layer, reach), layer)) for layer in range(2, last)), (last - 1,)]
    keys = {layer: jax.random.split(jax.random.fold_in(key, layer), 3) for layer in range(1, last)}
    masks: list[Any] = []
    for layer, row in enumerate(reads, start=1):
        available = sum(sizes[earlier] for earlier in row)
        if layer in (1, last):
            masks.append(jnp.ones((available, sizes[layer]), bool))
            continue
        check_degrees(np.asarray(law(np.linspace(0, 1, 4096, endpoint=False))), layer, available)
        of_degrees, of_parents, _ = keys[layer]
        masks.append(_inner(of_degrees, of_parents, law, available, sizes[layer], near=sizes[layer - 1]))
    for layer in range(1, last - 1):
        has_child = _has_child(layer, sizes, reads, masks)
        chosen = jax.random.randint(keys[layer][2], (sizes[layer], 1), 0, sizes[layer + 1])
        added = ~has_child[:, None] & (jnp.arange(sizes[layer + 1])[None, :] == chosen)
        masks[layer] = masks[layer].at[-sizes[layer] :].set(masks[layer][-sizes[layer] :] | added)
    return Masks(tuple(sizes), tuple(reads), tuple(masks))


def _inner(of_degrees: Any, of_parents: Any, law: Law, available: int, size: int, *, near: int) -> Bool[Array, "s t"]:
    """The `degree` parents of lowest priority of each vertex, one at least among the last `near`."""
    degrees = law(jax.random.uniform(of_degrees, (size,)))
    priority = jax.random.uniform(of_parents, (size, available))
    rank = jnp.argsort(jnp.argsort(priority, axis=1), axis=1)
    is_near = jnp.arange(available)[None, :] >= available - near
    nearest = jnp.argmin(jnp.where(is_near, rank, available), axis=1, keepdims=True)
    is_nearest = jnp.arange(available)[None, :] == nearest
    is_left_out = jnp.take_along_axis(rank, nearest, axis=1) >= degrees[:, None]
    count = degrees[:, None] - is_left_out  # its last parent goes, and the nearest comes
    return ((rank < count) | (is_left_out & is_nearest)).T


def _has_child(layer: int, sizes: Sequence[int], reads: Sequence[tuple[int, ...]], masks: Sequence[Any]) -> Any:
    """Whether each vertex of a layer has a child anywhere, [size]."""
    found = jnp.zeros(sizes[layer], bool)
    for row, mask in zip(reads, masks, strict=True):
        if layer in row:
            start = sum(sizes[earlier] for earlier in row[: row.index(layer)])
            found |= mask[start : start + sizes[layer]].any(axis=1)
    return found
