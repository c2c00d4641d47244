"""A model is a pure function with an initialiser and, where it has one, an infinite-width kernel.

`Model(init, apply, kernel)` holds three functions and no state. A model never trains and never sees a task or a loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from jaxdyn._typing import Apply, Params


class Kernels(NamedTuple):
    """The infinite-width kernels of a model between two sets of inputs.

    Attributes:
        nngp: covariance of one output over random initialisations, [n1, n2].
        ntk: tangent kernel of one output, Σ_p ∂f(x)/∂p ∂f(x')/∂p, [n1, n2]; the whole kernel of k outputs is
            `ntk ⊗ I_k`.
    """

    nngp: Float[Array, "n1 n2"]
    ntk: Float[Array, "n1 n2"]


def no_kernel(x1: Any, x2: Any = None, *, tolerance: float = 1e-8) -> Kernels:
    """The kernel of a model without a known infinite-width limit: always an error."""
    raise ValueError(
        "This model has no infinite-width kernel that jaxdyn knows (wrapped flax modules, fixed bottlenecks and nonlinear "
        "outputs have none). Use `geometry.ntk(model.apply, params, x)` for the kernel at given parameters."
    )


@dataclass(frozen=True)
class Model:
    """A finite network.

    Attributes:
        init: `key -> params`.
        apply: `(params, x: [n, *d]) -> [n, k]`, pure, batch first.
        kernel: `(x1, x2=None, *, tolerance=1e-8) -> Kernels(nngp, ntk)`, the infinite-width kernels; an error where there is no
            limit. `tolerance` is the relative accuracy of activations without a closed form, whose kernels are series.
    """

    init: Callable[[Any], Params]
    apply: Apply
    kernel: Callable[..., Kernels] = no_kernel
