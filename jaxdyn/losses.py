"""Losses `(prediction [n, k], y [n, k]) -> scalar`, and the constant c that fixes what a learning rate means.

A quadratic loss is L = (c/2) Σ_{i,a} (f_ia − y_ia)². Gradient descent on it with step η is gradient descent on the
c = 1 loss with step η c, so that the critical learning rate is 2 / (c λ_max(K)) with the unnormalised kernel
K = J Jᵀ, and η_rel = η c λ_max(K_0) is the rate without units. Papers differ in c and seldom say so; here every
quadratic loss states it:

| loss | formula | c |
|---|---|---|
| `half_sum` | ½ Σ_ia (f − y)² | 1 |
| `half_mean` | 1/(2n) Σ_ia (f − y)² | 1/n |
| `mse` | 1/n Σ_ia (f − y)², summed over outputs | 2/n |
| `torch_mse` | 1/(nk) Σ_ia (f − y)², PyTorch's `MSELoss` | 2/(nk) |

`cross_entropy` has no such constant: its curvature in the outputs depends on them. Its critical rate is
2 / λ_max(Jᵀ H J), the Gauss-Newton matrix, with H the Hessian of the loss in the outputs at the current ones.

`isinstance(loss, Quadratic)` tells the two kinds apart. A loss of your own is any function of the same signature (it
is then treated like `cross_entropy`), or a `Quadratic` with a name and a `c`. No loss here knows a network, a
regulariser or an accuracy.

References:
    L. Zhu, C. Liu, A. Radhakrishnan, M. Belkin, "Quadratic models for understanding catapult dynamics of neural
    networks", 2205.11787 (½ Σ); A. Lewkowycz et al., "The large learning rate phase of deep learning: the catapult
    mechanism", 2003.02218 (1/(2n) Σ).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Num

from jaxdyn._typing import Scalar


@dataclass(frozen=True, repr=False)
class Quadratic:
    """L = (c/2) Σ_{i,a} (f_ia − y_ia)², with `c` a function of the number of examples and of outputs.

    Attributes:
        name: how the loss is called in messages and in the attributes of results.
        c: `(n, k) -> c`, the normalisation for n examples (of a minibatch: its size) and k outputs.

    Example:
        >>> import jax.numpy as jnp
        >>> mse
        Quadratic('mse')
        >>> mse.c(100, 1)
        0.02
        >>> quarter = Quadratic("quarter", c=lambda n, k: 0.5)
        >>> float(quarter(jnp.array([[3.0]]), jnp.array([[1.0]])))
        1.0
    """

    name: str
    c: Callable[[int, int], float]

    def __call__(self, prediction: Num[ArrayLike, "..."], y: Num[ArrayLike, "..."]) -> Scalar:
        """The loss.

        Args:
            prediction: outputs f, [n, k].
            y: targets, [n, k].

        Returns:
            (c/2) Σ (f − y)², a scalar.

        Raises:
            ValueError: when the shapes are not one [n, k]; [n] against [n, 1] would broadcast to [n, n].
        """
        prediction, y, n, k = _same_shape(self.name, prediction, y)
        return jnp.sum((prediction - y) ** 2) * (self.c(n, k) / 2)

    def __repr__(self) -> str:
        return f"Quadratic({self.name!r})"


@dataclass(frozen=True, repr=False)
class CrossEntropy:
    """The mean over examples of the cross entropy of softmax outputs, or of one logistic output; stable for all logits.

    * k ≥ 2: L = 1/n Σ_i Σ_a y_ia (log Σ_b e^{f_ib} − f_ia), with `y` one-hot (or any rows of probabilities);
    * k = 1: L = 1/n Σ_i log(1 + e^{−y_i f_i}), with `y` = ±1.

    The logistic loss of one output f is the softmax loss of the two outputs (0, f). There is no constant c: see the
    module's docstring for its critical learning rate.

    Attributes:
        name: how the loss is called in messages and in the attributes of results.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(cross_entropy(jnp.array([[0.0]]), jnp.array([[1.0]]))), 4)  # log 2
        0.6931
        >>> float(cross_entropy(jnp.array([[1000.0, 0.0]]), jnp.array([[0.0, 1.0]])))
        1000.0
    """

    name: str = "cross_entropy"

    def __call__(self, prediction: Num[ArrayLike, "..."], y: Num[ArrayLike, "..."]) -> Scalar:
        """The loss.

        Args:
            prediction: logits f, [n, k].
            y: one-hot rows [n, k] with k ≥ 2, or ±1 as [n, 1]. Values are not checked: this runs inside jit.

        Returns:
            The mean over examples, a scalar, in nats.

        Raises:
            ValueError: when the shapes are not one [n, k].
        """
        prediction, y, n, k = _same_shape(self.name, prediction, y)
        if k == 1:
            return jnp.sum(jax.nn.softplus(-y * prediction)) / n
        terms = jnp.where(y == 0, 0.0, y * jax.nn.log_softmax(prediction, axis=-1))  # a masked logit, −∞, where y is 0
        return -jnp.sum(terms) / n

    def __repr__(self) -> str:
        return f"CrossEntropy({self.name!r})"


def _one(n: int, k: int) -> float:
    return 1.0


def _one_over_examples(n: int, k: int) -> float:
    return 1.0 / n


def _two_over_examples(n: int, k: int) -> float:
    return 2.0 / n


def _two_over_entries(n: int, k: int) -> float:
    return 2.0 / (n * k)


half_sum = Quadratic("half_sum", c=_one)
"""½ Σ_ia (f_ia − y_ia)²; c = 1."""

half_mean = Quadratic("half_mean", c=_one_over_examples)
"""1/(2n) Σ_ia (f_ia − y_ia)²; c = 1/n."""

mse = Quadratic("mse", c=_two_over_examples)
"""1/n Σ_ia (f_ia − y_ia)², the mean over examples and the sum over outputs; c = 2/n."""

torch_mse = Quadratic("torch_mse", c=_two_over_entries)
"""1/(nk) Σ_ia (f_ia − y_ia)², the mean over examples and outputs as in PyTorch's `MSELoss`; c = 2/(nk)."""

cross_entropy = CrossEntropy()
"""Mean softmax (k ≥ 2, one-hot `y`) or logistic (k = 1, `y` = ±1) cross entropy; no c."""


def _same_shape(
    name: str, prediction: Num[ArrayLike, "..."], y: Num[ArrayLike, "..."]
) -> tuple[Num[Array, "n k"], Num[Array, "n k"], int, int]:
    """Both arrays and their n and k; an error unless they share one shape [n, k] with n, k ≥ 1."""
    p, t = jnp.asarray(prediction), jnp.asarray(y)
    if p.ndim == 2 and p.shape == t.shape and p.size > 0:
        return p, t, p.shape[0], p.shape[1]
    remedy = "n and k must be at least 1"
    if p.shape != t.shape or p.ndim != 2:
        flat = [label for label, array in (("prediction", p), ("y", t)) if array.ndim == 1]
        remedy = " and ".join(f"write `{label}[:, None]` for one output" for label in flat)
        remedy = remedy or "give both the shape (examples, outputs)"
    raise ValueError(
        f"Loss `{name}` needs `prediction` and `y` of one shape [n, k], but they are {p.shape} and {t.shape}; {remedy}."
    )
