r"""Inner products of the gradients of two sets of examples: from factors or whole gradients to the kernel.

For factors, Θ_ij = Σ_{s,t} (h_is · h'_jt)(g_is · g'_jt), s and t the positions of all uses of a leaf together, so that uses that
share it interact.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from jaxdyn.geometry.kernel.uses import Factor, dense

_INNER = ((0, 1), (0, 1), (0, 1))  # the first two operands, then the other two, then both results


def contract(first: Mapping[int, Any], second: Mapping[int, Any], dtype: Any, *, is_whole: bool) -> Any:
    """The kernel of all roots together, from their gradients (`gradients.gradients`) at the rows and at the columns.

    Returns:
        All blocks [n1, n2, k, k], or the trace over outputs [n1, n2], summed in `dtype`; 0 if there is no root.
    """
    total: Any = 0
    for root, one in first.items():
        if isinstance(one, tuple):
            total = total + sum(
                _term(a, b, is_whole) for a in _merged(one, dtype) for b in _merged(second[root], dtype)
            )
        else:
            a, b = (g.astype(dtype).reshape(*g.shape[:2], -1) for g in (one, second[root]))
            total = total + (jnp.einsum("iap,jbp->ijab", a, b) if is_whole else jnp.einsum("iap,jap->ij", a, b))
    return total


def _merged(members: Sequence[tuple[Factor, Factor]], dtype: Any) -> list[tuple[Factor, Factor]]:
    """Members whose factors have the same axes, as one with their positions in a row."""
    alike: dict[Any, list[tuple[Factor, Factor]]] = {}
    for left, right in members:
        alike.setdefault((left.labels, right.labels, left.rows), []).append((left, right))
    merged = []
    for (labels, right_labels, rows), pairs in alike.items():
        h = jnp.concatenate([left.array for left, _ in pairs], axis=1)
        g = jnp.concatenate([right.array for _, right in pairs], axis=2).astype(dtype)
        merged.append((Factor(h if rows is not None else h.astype(dtype), labels, rows), Factor(g, right_labels)))
    return merged


def _term(one: tuple[Factor, Factor], other: tuple[Factor, Factor], is_whole: bool) -> Any:
    """The inner products of one kind of factors with another."""
    (left, right), (left_, right_) = one, other
    b = "b" if is_whole else "a"
    out = "ijab" if is_whole else "ij"
    if left.rows is not None and left_.rows is not None and left.labels == left_.labels:
        equal = (left.array[:, :, None, None] == left_.array[None, None]).astype(right.array.dtype)
        operands = [("isjt", equal), _named("ias", right), _named(f"j{b}t", right_)]
        path: Any = ((1, 2), (0, 1))
    else:
        pieces = [_named("is", _flat(left, right)), _named("jt", _flat(left_, right_))]
        pieces += [_named("ias", right), _named(f"j{b}t", right_)]
        if left.labels == left_.labels:
            operands, path = pieces, _INNER
        elif left.labels == right_.labels and right.labels == left_.labels:
            operands, path = [pieces[0], pieces[3], pieces[1], pieces[2]], _INNER
        else:
            operands, path = pieces, "optimal"
    return jnp.einsum(
        ",".join(name for name, _ in operands) + f"->{out}", *(array for _, array in operands), optimize=path
    )


def _flat(left: Factor, right: Factor) -> Factor:
    """A left factor as numbers."""
    if left.rows is None:
        return left
    rows = dense(Factor(left.array.reshape(-1), left.labels, left.rows), right.array.dtype).array
    return Factor(rows.reshape(*left.array.shape, left.rows), left.labels)


def _named(axes: str, factor: Factor) -> tuple[str, Any]:
    """Letters for the axes of a factor; a single position needs none."""
    array = factor.array
    if array.shape[len(axes) - 1] == 1:
        array, axes = jnp.squeeze(array, len(axes) - 1), axes[:-1]
    return axes + "".join(chr(ord("A") + label) for label in factor.labels), array
