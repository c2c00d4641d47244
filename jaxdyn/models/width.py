"""A hidden width that may be traced: the axis along which wide networks are compared.

A `Width` has a static `maximum`, which sets the shapes, and a traced `active`, the number of units that take part.
Units beyond `active` are exact zeros: their weights are zero at initialisation, a mask follows every activation
(σ(0) may not be 0), so their gradients are zero too, and every scale 1/√fan_in uses `active`. The padded network
therefore computes what the unpadded one does.

The weights of unit row i are drawn from `fold_in(key, i)`, so the unscaled weights of the narrow network of a seed
are the leading block of the wide one's, whatever is padded or vmapped. This holds for threefry keys only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Width:
    """A padded width. Arithmetic and comparisons go through `active`; it cannot be a shape.

    Attributes:
        maximum: number of units that are allocated (static).
        active: number of units that take part, an integer or an integer array, at most `maximum`.

    Example:
        >>> width = Width(maximum=8, active=jnp.asarray(4))
        >>> float(1 / width), width.maximum
        (0.25, 8)
    """

    maximum: int = field(metadata={"static": True})
    active: Any

    def __jax_array__(self) -> Array:
        return jnp.asarray(self.active)

    def sqrt(self) -> Array:
        """The square root of the active width."""
        return jnp.sqrt(self.active)

    def __add__(self, other: Any) -> Any:
        return self.active + other

    def __sub__(self, other: Any) -> Any:
        return self.active - other

    def __rsub__(self, other: Any) -> Any:
        return other - self.active

    def __mul__(self, other: Any) -> Any:
        return self.active * other

    def __truediv__(self, other: Any) -> Any:
        return self.active / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.active

    def __pow__(self, other: Any) -> Any:
        return jnp.asarray(self.active, float) ** other

    def __neg__(self) -> Any:
        return -self.active

    def __lt__(self, other: Any) -> Any:
        return self.active < other

    def __le__(self, other: Any) -> Any:
        return self.active <= other

    def __gt__(self, other: Any) -> Any:
        return self.active > other

    def __ge__(self, other: Any) -> Any:
        return self.active >= other

    __radd__ = __add__
    __rmul__ = __mul__

    def __index__(self) -> NoReturn:
        raise TypeError(
            f"A padded Width (maximum={self.maximum}) is not a shape: only the families in jaxdyn.models pad their "
            "layers. Elsewhere a width is an integer, along an axis of `loop=`."
        )

    __int__ = __index__

    def __bool__(self) -> NoReturn:
        raise TypeError("The truth of a Width is not defined; compare `width.active` with a number.")


AnyWidth = int | Width
"""A plain width or a padded one."""


def widths(values: Sequence[int]) -> Width:
    """The axis of hidden widths of a vmapped sweep: `vmap={"width": jd.widths([64, 256, 1024])}`.

    Args:
        values: distinct positive integers, in any order.

    Returns:
        A `Width` whose `active` holds all values; `sweep` hands each member its own.

    Raises:
        ValueError: for an empty, repeated, fractional or non-positive width.

    Example:
        >>> widths([4, 16]).maximum
        16
    """
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"`widths` takes a non-empty list of integers, but got {values!r}.")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"Widths are whole numbers, but got {values!r}.")
    if (array < 1).any():
        raise ValueError(f"Widths are at least 1, but got {array.min()} in {array.tolist()}.")
    if len(set(array.tolist())) != array.size:
        raise ValueError(f"Widths are distinct, but {array.tolist()} repeats one; drop the repetition.")
    return Width(maximum=int(array.max()), active=array.astype(np.int32))


def maximum(width: AnyWidth) -> int:
    """The number of units allocated."""
    return width.maximum if isinstance(width, Width) else width


def active(width: AnyWidth) -> Any:
    """The number of units that take part: a Python integer, or a traced one."""
    return width.active if isinstance(width, Width) else width


def inverse_sqrt(width: AnyWidth) -> Any:
    """1/√active, a Python float for a plain width."""
    return 1.0 / np.sqrt(width) if isinstance(width, int) else 1.0 / jnp.sqrt(jnp.asarray(width.active, float))


def mask(width: AnyWidth, dtype: Any) -> Float[Array, " m"] | None:
    """Ones at active units and zeros at padded ones, [m]; None for a plain width."""
    if not isinstance(width, Width):
        return None
    return (jnp.arange(width.maximum) < width.active).astype(dtype)


def masked(h: Float[Array, "..."], width: AnyWidth) -> Float[Array, "..."]:
    """The same with zeros at padded units, which are the last axis."""
    live = mask(width, h.dtype)
    return h if live is None else h * jnp.expand_dims(live, tuple(range(h.ndim - 1)))


def draw_bias(key: Any, units: AnyWidth) -> Float[Array, " units"]:
    """Standard normal biases [units] of the layer whose weights are drawn from `key`, a stream of their own, zero in the padding."""
    return draw(jax.random.fold_in(key, 0x62696173), 1, units)[0]


def draw(key: Any, rows: AnyWidth, columns: AnyWidth) -> Float[Array, "rows columns"]:
    """Standard normal weights [rows, columns], prefix-stable in both directions, zero in the padding.

    Row i is `normal(fold_in(key, i), (columns,))`.

    Raises:
        ValueError: for a key that is not threefry while a width is padded.
    """
    is_padded = isinstance(rows, Width) or isinstance(columns, Width)
    if is_padded:
        implementation = str(jax.random.key_impl(key))
        is_partitionable = bool(jax.config.values["jax_threefry_partitionable"])
        if "threefry" not in implementation or not is_partitionable:
            raise ValueError(
                f"Padded widths need partitionable threefry keys, whose draws are prefix-stable, but the key is "
                f"{implementation!r} (jax_threefry_partitionable={is_partitionable}). "
                "Use `jax.random.key(seed)`, or sweep the width with `loop=`."
            )
    row_keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(maximum(rows)))
    weights = jax.vmap(lambda row_key: jax.random.normal(row_key, (maximum(columns),)))(row_keys)
    row_mask, column_mask = mask(rows, weights.dtype), mask(columns, weights.dtype)
    if row_mask is not None:
        weights = weights * row_mask[:, None]
    if column_mask is not None:
        weights = weights * column_mask[None, :]
    return weights
