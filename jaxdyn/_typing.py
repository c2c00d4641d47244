"""The vocabulary of the library: aliases and protocols, no code.

Shape letters, here and in every docstring: `n` examples, `d` input, `k` outputs, `m` width, `p` parameters,
`t` records, `r` members of an ensemble.
"""

from typing import Any, Protocol, runtime_checkable

import chex
from jaxtyping import Array, Float
from jaxtyping import Key as TypedKey

Params = chex.ArrayTree
"""Parameters: any pytree of floating arrays."""

Key = TypedKey[Array, ""]
"""A typed JAX random key, as made by `jax.random.key`."""

Scalar = Float[Array, ""]
"""A floating scalar."""


@runtime_checkable
class Apply(Protocol):
    """A function `(params, x: [n, *d]) -> [n, k]`: pure, batch first, always."""

    def __call__(self, params: Any, x: Any, /) -> Any: ...


@runtime_checkable
class Loss(Protocol):
    """A function `(prediction: [n, k], y: [n, k]) -> scalar`."""

    def __call__(self, prediction: Any, y: Any, /) -> Any: ...


@runtime_checkable
class Sampler(Protocol):
    """A function `(task, key, step) -> (x, y)`: which examples enter a step; stateless in the step."""

    def __call__(self, task: Any, key: Any, step: Any, /) -> tuple[Any, Any]: ...


@runtime_checkable
class Expansion(Protocol):
    """A function `(apply, params0) -> apply`: the function that is trained, seen from the anchor."""

    def __call__(self, apply: Any, params0: Any, /) -> Any: ...
