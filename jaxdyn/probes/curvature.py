"""Curvature along a run: of the loss, where stability shows, and of the function, where linearity does.

No eigenvalue comes alone. A probe here yields the values under its own name and beside them, with `sharpness=Sharpness()`,
`sharpness_residual`, `sharpness_converged` and `sharpness_matvecs` (products spent). Each record starts the search from
the vectors of the record before, which travel with the run's state; the first one starts from a fixed random vector.

References:
    Cohen et al., arXiv 2103.00065 (sharpness); Zhu, Liu, Belkin, arXiv 2205.11786 (Hessian of the function).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdyn import geometry
from jaxdyn.dynamics.record import Snapshot
from jaxdyn.geometry import operators, spectrum

_START = 0x70726F62  # the stream of the first vectors
_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class HessianSpectrum:
    """Eigenvalues of the loss Hessian at one end of its spectrum, [num], the outermost first.

    Attributes:
        num: how many.
        x: inputs [n, *d]; the training inputs when None.
        y: their targets [n, k]; the training targets when None.
        end: `geometry.spectrum.top` (algebraically largest), `bottom` or `dominant`.
        matrix: `geometry.operators.loss_hessian`, or `gauss_newton`.
        only: leaves of the principal submatrix, as in `geometry.operators`; all when None.
        tolerance: relative, on the residual.
        max_matvecs: products a record may spend.
    """

    num: int = field(metadata=_STATIC)
    x: Any = None
    y: Any = None
    end: Callable[..., Any] = field(default=spectrum.top, metadata=_STATIC)
    matrix: Callable[..., Any] = field(default=operators.loss_hessian, metadata=_STATIC)
    only: Any = field(default=None, metadata=_STATIC)
    tolerance: float = field(default=1e-3, metadata=_STATIC)
    max_matvecs: int = field(default=600, metadata=_STATIC)
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "": ("eigen",),
        "residual": ("eigen",),
        "converged": ("eigen",),
        "matvecs": (),
    }

    def start(self, snapshot: Snapshot) -> Any:
        """No vector yet: [p, num + 1] zeros, the last column for the guard."""
        hessian = self._hessian(snapshot)
        return jnp.zeros((hessian.dim, min(self.num + 1, hessian.dim)), hessian.dtype)

    def __call__(self, snapshot: Snapshot, memory: Any) -> Any:
        hessian = self._hessian(snapshot)
        found = self.end(
            hessian,
            dim=hessian.dim,
            num=self.num,
            key=jax.random.key(_START),
            guess=memory,
            tolerance=self.tolerance,
            max_matvecs=self.max_matvecs,
        )
        return _parts(found.values, found), jnp.concatenate([found.vectors, found.guards], axis=1)

    def _hessian(self, snapshot: Snapshot) -> operators.Operator:
        x, y = _examples(self.x, self.y, snapshot)
        return self.matrix(snapshot.apply, snapshot.params, x, y, loss=snapshot.loss, only=self.only)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Sharpness:
    """Largest algebraic eigenvalue of the loss Hessian, a scalar; gradient descent is stable below the rate 2 / sharpness.

    Attributes:
        x: inputs [n, *d]; the training inputs when None.
        y: their targets [n, k]; the training targets when None.
        tolerance: relative, on the residual.
        max_matvecs: products a record may spend.
    """

    x: Any = None
    y: Any = None
    tolerance: float = field(default=1e-3, metadata=_STATIC)
    max_matvecs: int = field(default=600, metadata=_STATIC)
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {"": (), "residual": (), "converged": (), "matvecs": ()}

    def start(self, snapshot: Snapshot) -> Any:
        """No vector yet."""
        return self._spectrum().start(snapshot)

    def __call__(self, snapshot: Snapshot, memory: Any) -> Any:
        value, memory = self._spectrum()(snapshot, memory)
        return {part: jnp.reshape(one, ()) for part, one in value.items()}, memory

    def _spectrum(self) -> HessianSpectrum:
        return HessianSpectrum(1, self.x, self.y, tolerance=self.tolerance, max_matvecs=self.max_matvecs)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class FunctionHessianNorm:
    """Spectral norm ‖H_{f_a}(w; x_i)‖ of the Hessian of every output at every example, [n, k].

    Its memory is one vector of R^p for each example and output: a few examples are enough to see it fall with the width.

    Attributes:
        x: inputs [n, *d].
        only: leaves of the principal submatrix, as in `geometry.operators`; all when None.
        tolerance: relative, on the residual; the error is usually its square.
        max_matvecs: products that an output of an example may spend.
        batch_size: pairs of example and output that are worked on at once.
    """

    x: Any
    only: Any = field(default=None, metadata=_STATIC)
    tolerance: float = field(default=1e-3, metadata=_STATIC)
    max_matvecs: int = field(default=300, metadata=_STATIC)
    batch_size: int = field(default=1, metadata=_STATIC)
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        ("", "residual", "converged", "matvecs"), ("example", "output")
    )

    def start(self, snapshot: Snapshot) -> Any:
        """No vector yet: zeros [n, k, p]."""
        k = geometry.check_examples(snapshot.apply, snapshot.params, self.x)
        hessian = operators.function_hessian(snapshot.apply, snapshot.params, self.x[0], only=self.only)
        return jnp.zeros((self.x.shape[0], k, hessian.dim), hessian.dtype)

    def __call__(self, snapshot: Snapshot, memory: Any) -> Any:
        found = geometry.function_hessian_spectra(
            snapshot.apply,
            snapshot.params,
            self.x,
            key=jax.random.key(_START),
            guess=memory,
            only=self.only,
            tolerance=self.tolerance,
            max_matvecs=self.max_matvecs,
            batch_size=self.batch_size,
        )
        return _parts(found.norms, found), found.vectors


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SubspaceLoss:
    """The quadratic loss in the top eigenspace of the *current* tangent kernel, `_top`, and outside it, `_rest`; two scalars.

    They sum to the loss. Spikes of SGD live in `_top` with a small s. Costs the kernel and the eigenvectors of an nk × nk matrix.

    Attributes:
        num: s, how many eigenvectors make the top.
        x: inputs [n, *d]; the training inputs when None.
        y: their targets [n, k]; the training targets when None.

    References:
        Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815.
    """

    num: int = field(metadata=_STATIC)
    x: Any = None
    y: Any = None
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {"top": (), "rest": ()}

    def __call__(self, snapshot: Snapshot) -> Any:
        loss = _quadratic(snapshot, "splits into eigenspaces")
        x, y = _examples(self.x, self.y, snapshot)
        residual = snapshot.apply(snapshot.params, x) - y
        blocks = geometry.ntk_blocks(snapshot.apply, snapshot.params, x)
        return geometry.subspace_loss(blocks, residual, self.num, loss=loss)._asdict()


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class TopDirection:
    """The loss in every eigendirection of the current kernel, and what the last step did to the top one. Record it at every step.

    `eigenvalue` and `loss` [mode] are λ_i and (c/2)⟨u_i, r⟩², largest eigenvalue first. `output_correction` and `kernel_decrease` are
    p1ᵀR_f p1 and p1ᵀR_K p1 of the step that ended here, p1 being the top direction at its start,

        ⟨p1, r_{t+1}⟩ = (1 − η c λ_1 + p1ᵀR_f p1) ⟨p1, r_t⟩,    p1ᵀK_{t+1} p1 = λ_1 − p1ᵀR_K p1;

    NaN at the first record. Costs the kernel and the eigenvectors of an nk × nk matrix.

    Attributes:
        rate: η c.

    References:
        Zhu, Liu, Radhakrishnan, Belkin, arXiv 2205.11787, appendix 19.3.
    """

    rate: Any
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "eigenvalue": ("mode",),
        "loss": ("mode",),
        "output_correction": (),
        "kernel_decrease": (),
    }

    def start(self, snapshot: Snapshot) -> Any:
        """No direction yet: zeros in place of p1, λ_1 and ⟨p1, r⟩."""
        y = snapshot.task.y
        return jnp.zeros(y.size, y.dtype), jnp.zeros((), y.dtype), jnp.zeros((), y.dtype)

    def __call__(self, snapshot: Snapshot, memory: Any) -> Any:
        """The values, and the direction for the next record."""
        task, loss = snapshot.task, _quadratic(snapshot, "splits into eigendirections")
        residual = (snapshot.apply(snapshot.params, task.x) - task.y).reshape(-1)
        kernel = geometry.as_matrix(geometry.ntk_blocks(snapshot.apply, snapshot.params, task.x))
        values, vectors = jnp.linalg.eigh((kernel + kernel.T) / 2)
        values, vectors = values[::-1], vectors[:, ::-1]
        part = vectors.T @ residual
        direction, value, before = memory
        is_first = value == 0
        growth = (direction @ residual) / jnp.where(before == 0, jnp.nan, before)
        found = {
            "eigenvalue": values,
            "loss": loss.c(*task.y.shape) / 2 * part**2,
            "output_correction": growth - 1 + self.rate * value,
            "kernel_decrease": jnp.where(is_first, jnp.nan, value - direction @ (kernel @ direction)),
        }
        return found, (vectors[:, 0], values[0], part[0])


@dataclass(frozen=True)
class BatchCriticalRate:
    """η_crit(X_b) = 2 / (c λ_max(K(X_b, X_b))) of the batch that enters the next step, at the current parameters, a scalar.

    A step whose learning rate exceeds it is super-critical: the linearised model's loss on that batch grows. c is that of the loss for
    the batch's size. Costs the kernel of the batch, a backward pass over it for each output, and O((bk)²) for each of a few
    dozen products with it; above `max_rows` rows bk the kernel is not formed, and each product costs about a gradient.

    Attributes:
        max_rows: up to so many rows the kernel of the batch is formed.
        tolerance: relative, on the residual, where it is not; NaN if it is not met within `max_matvecs`.
        max_matvecs: products a record may spend then.

    References:
        Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815.
    """

    max_rows: int = 1024
    tolerance: float = 1e-3
    max_matvecs: int = 200
    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        x, y = snapshot.batch
        n, k = y.shape
        c = _quadratic(snapshot, "has a critical rate without targets").c(n, k)
        if n * k <= self.max_rows:
            return 2.0 / (c * geometry.kernel_norm(geometry.ntk_blocks(snapshot.apply, snapshot.params, x)))
        kernel = operators.tangent_kernel(snapshot.apply, snapshot.params, x)
        found = spectrum.top(
            kernel,
            dim=kernel.dim,
            num=1,
            key=jax.random.key(_START),
            tolerance=self.tolerance,
            max_matvecs=self.max_matvecs,
        )
        return jnp.where(found.converged[0], 2.0 / (c * found.values[0]), jnp.nan)


def _parts(values: Any, found: Any) -> dict[str, Any]:
    """Eigenvalues with what makes them trustworthy, under the names that records give them."""
    return {"": values, "residual": found.residuals, "converged": found.converged, "matvecs": found.num_matvecs}


def _quadratic(snapshot: Snapshot, does: str) -> Any:
    """The loss, which must be a quadratic one."""
    if not hasattr(snapshot.loss, "c"):
        raise ValueError(
            f"Only a quadratic loss {does}, and {snapshot.loss!r} is none; train with one of "
            "`jd.losses.half_sum`, `half_mean`, `mse`, `torch_mse`."
        )
    return snapshot.loss


def _examples(x: Any, y: Any, snapshot: Snapshot) -> tuple[Any, Any]:
    """The inputs and targets given, or those of the training set."""
    if (x is None) != (y is None):
        raise ValueError("Give `x` and `y` together, or neither: the loss needs both.")
    return (snapshot.task.x, snapshot.task.y) if x is None else (x, y)
