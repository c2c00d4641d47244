"""The infinite-width kernels of a graph of blocks, block by block in topological order.

The recursion is stated in `models.block_dag`. Gaussian expectations of activations with a closed form come from neural-tangents, those of
other smooth ones from the Hermite series of `models.dual`, whose degree settles on the whole graph.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn.models import _neural_tangents, dual
from jaxdyn.models.base import Kernels


class _Moments(NamedTuple):
    """What a block hands on, per neuron.

    Attributes:
        nngp: E[h h'], [n1, n2].
        ntk: the tangent kernel of h, [n1, n2].
        own1: E[h²] at the first inputs, [n1].
        own2: at the second, [n2].
    """

    nngp: Any
    ntk: Any
    own1: Any
    own2: Any


def block_kernel(
    blocks: Sequence[Any],
    shares: Mapping[str, Sequence[Any]],
    x1: Mapping[str, Any],
    x2: Mapping[str, Any],
    gain: Any,
    tolerance: float,
) -> Kernels:
    """The kernels of one output of the last block; parents stand first.

    Args:
        blocks: `Block`s.
        shares: of each block, how much of its in-degree each parent is; they sum to 1.
        x1: columns of each input block, [n1, n_p].
        x2: likewise, [n2, n_p].
        gain: g; h = g σ(z) in hidden blocks.
        tolerance: of the series.

    Raises:
        ValueError: where a series does not settle, or would have to be traced.
    """
    smooth = [block for block in blocks[:-1] if _neural_tangents.closed_form(block.activation) is None]
    with jax.default_matmul_precision("highest"):
        if not smooth:
            found = _walk(blocks, shares, x1, x2, gain, degree=0)
            return Kernels(found.nngp, found.ntk)
        names = [block.activation for block in smooth]
        first, second = ({name: dual.concrete(names[0], x) for name, x in given.items()} for given in (x1, x2))
        fixed = {name: [float(dual.concrete(names[0], share)) for share in own] for name, own in shares.items()}
        with jax.enable_x64(True):
            whole = np.concatenate([np.concatenate([*given.values()], axis=1) for given in (first, second)])
            chosen = dual.demanding(whole)
            sample = {name: np.concatenate([first[name], second[name]])[chosen] for name in first}

            def at(degree: int) -> Any:
                found = _walk(blocks, fixed, sample, sample, gain, degree)
                return found.nngp, found.ntk

            degree = dual.settled_degree(at, names, whole, tolerance)
            end = _walk(blocks, fixed, first, second, gain, degree)
            nngp, ntk = jax.device_get((end.nngp, end.ntk))
        return Kernels(jnp.asarray(nngp, float), jnp.asarray(ntk, float))


def _walk(blocks: Any, shares: Any, x1: Any, x2: Any, gain: Any, degree: int) -> _Moments:
    known = {name: _of_input(jnp.asarray(x1[name]), jnp.asarray(x2[name])) for name in x1}
    for block in blocks:
        parts = [known[parent] for parent in block.parents]
        mixed = [
            sum(share * part for share, part in zip(shares[block.name], column, strict=True))
            for column in zip(*parts, strict=True)
        ]
        before = _Moments(*mixed)
        before = before._replace(ntk=before.nngp + before.ntk)  # of z: its own weights, and those further down
        known[block.name] = before if block is blocks[-1] else _activated(block.activation, before, gain, degree)
    return known[blocks[-1].name]


def _of_input(x1: Any, x2: Any) -> _Moments:
    size = x1.shape[1]
    nngp = x1 @ x2.T / size
    return _Moments(nngp, jnp.zeros_like(nngp), jnp.sum(x1**2, axis=1) / size, jnp.sum(x2**2, axis=1) / size)


def _activated(activation: Any, z: _Moments, gain: Any, degree: int) -> _Moments:
    if _neural_tangents.closed_form(activation) is None:
        moment, slope, own1, own2 = dual.moments(activation, z.nngp, z.own1, z.own2, degree)
    else:
        moment, slope, own1, own2 = _neural_tangents.moments(activation, z.nngp, z.own1, z.own2)
    return _Moments(*(gain**2 * part for part in (moment, slope * z.ntk, own1, own2)))
