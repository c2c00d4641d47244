"""How a dense layer scales with its width: z = multiplier · (h W), W_ij ~ N(0, deviation²).

| scaling | layer | deviation | multiplier |
|---|---|---|---|
| `ntk` | all | 1 | 1/√fan_in |
| `standard` | all | 1/√fan_in | 1 |
| `maximal_update` | input | 1/√fan_out | √(fan_out/fan_in) |
| | hidden | 1/√fan_in | 1 |
| | output | 1/√fan_in | 1/√fan_in |

The gain of the activation is the model's `gain=`. The learning rate of gradient descent is independent of the width under `ntk` and
`maximal_update`; under `standard` the tangent kernel grows like the width. A bias is a layer of fan_in 1 beside the
weights, times `bias`.

References:
    Jacot et al. 2018 (NTK parameterisation). Yang and Hu 2021, Table 1: a_1 = -1/2, a_l = 0, a_{L+1} = 1/2, b = 1/2,
    c = 0 (maximal update).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from jaxdyn.models.width import AnyWidth, inverse_sqrt

Position = Literal["input", "hidden", "output", "only"]
"""Where a layer stands; `only` is both the first and the last."""


class Scale(NamedTuple):
    """The scale of one group of weights.

    Attributes:
        deviation: standard deviation of the parameters at initialisation.
        multiplier: what the product with the inputs is multiplied with.
    """

    deviation: Any
    multiplier: Any


Scaling = Callable[[AnyWidth, AnyWidth, Position], Scale]
"""A function `(fan_in, fan_out, position) -> Scale`."""


def ntk(fan_in: AnyWidth, fan_out: AnyWidth, position: Position) -> Scale:
    """NTK scaling: W ~ N(0, 1), z = hW/√fan_in.

    Example:
        >>> ntk(4, 16, "hidden")
        Scale(deviation=1.0, multiplier=0.5)
    """
    return Scale(1.0, _number(inverse_sqrt(fan_in)))


def standard(fan_in: AnyWidth, fan_out: AnyWidth, position: Position) -> Scale:
    """Standard scaling: W ~ N(0, 1/fan_in), z = hW.

    Example:
        >>> standard(4, 16, "hidden")
        Scale(deviation=0.5, multiplier=1.0)
    """
    return Scale(_number(inverse_sqrt(fan_in)), 1.0)


def maximal_update(fan_in: AnyWidth, fan_out: AnyWidth, position: Position) -> Scale:
    """Maximal-update scaling (μP) for gradient descent with a width-independent learning rate.

    Example:
        >>> maximal_update(4, 16, "output")
        Scale(deviation=0.5, multiplier=0.5)
    """
    if position == "input":
        shrink = inverse_sqrt(fan_out)
        return Scale(_number(shrink), _number(inverse_sqrt(fan_in) / shrink))
    if position == "output":
        return Scale(_number(inverse_sqrt(fan_in)), _number(inverse_sqrt(fan_in)))
    return standard(fan_in, fan_out, position)


def _number(value: Any) -> Any:
    """A Python float where the width is plain, so that no dtype is forced on the network."""
    return float(value) if not isinstance(value, jnp.ndarray) else value
