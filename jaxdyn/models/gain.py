"""The gain of an activation: h = g σ(z), so that layers neither shrink nor grow what passes through them.

With g = 1 three ReLU layers in NTK scaling halve the second moment three times. With g = 1/√E[σ(z)²], z ~ N(0, 1), a layer whose
inputs have second moment 1 has outputs of second moment 1: √2 for ReLU (He initialisation, in NTK scaling).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_NODES, _END = 40, 12  # Gauss-Legendre nodes between whole numbers, up to 12 standard deviations


def unit_gain(activation: Callable[[Any], Any]) -> float:
    """The gain that keeps the second moment: 1/√E[σ(z)²], z ~ N(0, 1).

    Args:
        activation: elementwise σ; smooth but at whole numbers (kinks of ReLU and hard tanh), where the quadrature is cut.

    Raises:
        ValueError: where E[σ(z)²] is 0 or not finite.

    Example:
        >>> round(unit_gain(jax.nn.relu), 12), round(unit_gain(lambda z: 3 * z), 12)
        (1.414213562373, 0.333333333333)
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    z = (np.arange(-_END, _END)[:, None] + (nodes + 1) / 2).reshape(-1)
    density = np.tile(weights / 2, 2 * _END) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        moment = float(np.sum(density * np.asarray(activation(jnp.asarray(z)), np.float64) ** 2))
    if not (np.isfinite(moment) and moment > 0):
        raise ValueError(
            f"{getattr(activation, '__name__', activation)} has E[σ(z)²] = {moment:g} under z ~ N(0, 1), so no gain makes it 1."
        )
    return float(1 / np.sqrt(moment))


def check_gain(gain: Any) -> None:
    """Refuse a gain that is not a positive number (tracers pass).

    Raises:
        ValueError: with the value.
    """
    if isinstance(gain, jax.core.Tracer):
        return
    is_number = isinstance(gain, int | float | np.ndarray | np.generic | jax.Array) and np.shape(gain) == ()
    if not is_number or not 0 < float(gain) < np.inf:
        raise ValueError(f"`gain` is a positive number (1, or `models.unit_gain(activation)`), but is {gain!r}.")


def with_gain(activation: Callable[[Any], Any], gain: Any) -> Callable[[Any], Any]:
    """The function z -> g σ(z); σ itself where g is the number 1."""
    if isinstance(gain, int | float) and gain == 1:
        return activation
    return lambda z: (h := activation(z)) * jnp.asarray(gain, h.dtype)
