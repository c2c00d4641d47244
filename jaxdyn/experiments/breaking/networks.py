"""The networks of the experiment: which become linear as they widen, and what keeps others from it."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdyn as jd

DIM = 16
"""Dimension of the inputs; 4 × 4 pixels for the convolutional network."""


@dataclass(frozen=True)
class Network:
    """One network of the table above."""

    build: Callable[[Any], jd.Model]  # the model of a width
    claim: str  # `C4.1` … `C4.5` or `M`
    title: str  # what it is, for figures and statements
    blocks: tuple[Any, ...] = ()  # of parameters, where multilinearity is asked for

    @property
    def is_trained(self) -> bool:
        """Whether its claims are about training."""
        return self.claim in ("C4.1", "C4.2")


def _mlp(*hidden: int | None, activation: Any = jnp.tanh, output: Any = None) -> Callable[[Any], jd.Model]:
    """A fully connected network; None stands for the width."""
    options = {} if output is None else {"output": output}

    def build(width: Any) -> jd.Model:
        sizes = [width if size is None else size for size in hidden]
        return jd.models.mlp((DIM, *sizes, 1), activation=activation, **options)

    return build


def _conv(width: Any) -> jd.Model:
    return jd.models.conv((4, 4, 1), (width,), 1, activation=jnp.tanh, pool=jd.models.flatten)


_NEURON = jd.models.mlp((DIM, 1), activation=jnp.tanh, output=jnp.tanh)
_SMALL = jd.models.mlp((DIM, 4, 1), activation=jnp.tanh)
_BRANCH = jd.models.assembly(_NEURON, 4, output=jnp.sin)


def _assembly(sub: jd.Model, **options: Any) -> Callable[[Any], jd.Model]:
    return lambda num: jd.models.assembly(sub, num, weights=jd.models.signs, **options)


def _halves(*layers: int) -> tuple[list[str], ...]:
    """Blocks of consecutive layers, so many each."""
    starts = np.concatenate([[0], np.cumsum(layers)])
    return tuple([f"dense_{i}" for i in range(a, b)] for a, b in itertools.pairwise(starts.tolist()))


NETWORKS = {
    "wide": Network(_mlp(None, None), "C4.1", "two hidden layers"),
    "conv": Network(_conv, "C4.1", "convolutional"),
    "softplus": Network(_mlp(None, None, output=jax.nn.softplus), "C4.2", "softplus output"),
    "swish": Network(_mlp(None, None, output=jax.nn.swish), "C4.2", "swish output"),
    "tanh": Network(_mlp(None, None, output=jnp.tanh), "C4.2", "tanh output"),
    "bottleneck1": Network(_mlp(None, 1, None), "C4.2", "bottleneck of 1"),
    "bottleneck3": Network(_mlp(None, 3, None), "C4.2", "bottleneck of 3"),
    "neurons": Network(_assembly(_NEURON), "C4.3", "assembly of neurons"),
    "small": Network(_assembly(_SMALL), "C4.3", "assembly of small networks"),
    "recursive": Network(_assembly(_BRANCH), "C4.3", "assembly of assemblies of neurons"),
    "dominated": Network(_assembly(_SMALL, shares=jd.models.dominated(1.0)), "C4.4", "assembly with a dominant member"),
    "shared": Network(_assembly(_SMALL, members=jd.models.shared), "C4.5", "assembly of one shared member"),
    "linear0": Network(_mlp(None, None, activation=jax.nn.identity), "M", "linear, no bottleneck", _halves(3)),
    "linear1": Network(_mlp(None, 1, None, activation=jax.nn.identity), "M", "linear, one bottleneck", _halves(2, 2)),
    "linear1deep": Network(
        _mlp(None, None, 1, None, None, activation=jax.nn.identity), "M", "linear, deeper, one bottleneck", _halves(3, 3)
    ),
    "linear2": Network(
        _mlp(None, 1, None, 1, None, activation=jax.nn.identity), "M", "linear, two bottlenecks", _halves(2, 2, 2)
    ),
}  # fmt: skip
"""The networks by name."""
