"""How far the run has left its anchor, and how linear the network is there.

References:
    Liu, Zhu, Belkin, arXiv 2010.01092 (constancy of the tangent kernel); Zhu, Liu, Belkin, arXiv 2205.11786, Cor. 3.7.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdyn import _tree, geometry
from jaxdyn.dynamics.record import Snapshot
from jaxdyn.models.taylor import linear


@dataclass(frozen=True)
class Displacement:
    """Euclidean distance ‖w - w0‖ from the anchor, a scalar."""

    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        return _tree.norm(_tree.sub(snapshot.params, snapshot.params0))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LinearizationGap:
    """Root mean square over examples and outputs of f(w; x) - f_lin(w; x), f_lin the linear model around the anchor.

    Attributes:
        x: inputs [n, *d]; the training inputs when None.
    """

    x: Any = None
    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        x = snapshot.task.x if self.x is None else self.x
        tangent = linear(snapshot.network, snapshot.params0)
        return rms(snapshot.apply(snapshot.params, x) - tangent(snapshot.params, x))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class NTKMatrix:
    """Tangent kernel of the trained function, [n, n]: the trace over outputs divided by k.

    Attributes:
        x: inputs [n, *d].
    """

    x: Any
    dims: ClassVar[tuple[str, ...]] = ("example", "example_")

    def __call__(self, snapshot: Snapshot) -> Any:
        return geometry.ntk(snapshot.apply, snapshot.params, self.x)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class NTKNorm:
    """Largest eigenvalue of the whole tangent kernel (nk × nk), a scalar: the curvature that sets critical rates.

    Attributes:
        x: inputs [n, *d].
    """

    x: Any
    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        return geometry.kernel_norm(geometry.ntk_blocks(snapshot.apply, snapshot.params, self.x))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class KernelChange:
    """Relative change ‖K_t - K_0‖_F / ‖K_0‖_F of the tangent kernel since the anchor, a scalar.

    Attributes:
        x: inputs [n, *d].
    """

    x: Any
    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        start = geometry.ntk(snapshot.apply, snapshot.params0, self.x)
        return _relative(geometry.ntk(snapshot.apply, snapshot.params, self.x), start)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class KernelDistance:
    """Relative distance ‖K_t - K‖_F / ‖K‖_F of the tangent kernel to a given one, a scalar.

    Attributes:
        x: inputs [n, *d].
        to: the kernel compared with, [n, n], such as `model.kernel(x).ntk`.
    """

    x: Any
    to: Any
    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        return _relative(geometry.ntk(snapshot.apply, snapshot.params, self.x), jnp.asarray(self.to))


def rms(values: Any) -> Any:
    """The root mean square of real values at one example at least."""
    if values.size == 0 or not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(
            f"The probe needs real outputs [n, k] at one example at least, but has {values.dtype} of shape {values.shape}; "
            "give it another `x`, or make two outputs of the parts of a complex one."
        )
    return jnp.sqrt(jnp.mean(values**2))


def _relative(kernel: Any, reference: Any) -> Any:
    return jnp.linalg.norm(kernel - reference) / jnp.linalg.norm(reference)
