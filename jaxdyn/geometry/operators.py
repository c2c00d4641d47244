r"""Matrices of R^p and R^{nk} known only by their product with a vector: tangent kernel, Gauss-Newton, Hessians.

With f(w) the outputs [n, k] at all inputs, J = ∂f/∂w and L(w) = loss(f(w), y):

| operator | matrix | acts on |
|---|---|---|
| `tangent_kernel` | J Jᵀ | R^{nk}, rows (example, output), examples first |
| `gauss_newton` | Jᵀ H_out J, H_out the Hessian of the loss in the outputs | R^p |
| `loss_hessian` | ∂²L/∂w² = Gauss-Newton + Σ_ia ∂L/∂f_ia H_{f_a}(w; x_i) | R^p |
| `function_hessian` | H_{f_a}(w; x_i), one output of one example | R^p |

Parameters and examples of less than single precision (bfloat16) are taken to single precision first: the matrices are those of the
same function at the same point, in arithmetic that can resolve their spectra.

An `Operator` maps flat vectors to flat vectors and knows its `dim` and `dtype`, which is what `geometry.spectrum`
wants; `ravel` and `unravel` translate to and from the shape the vector has in the network. `only=` restricts R^p to some
leaves of the parameters; the others stay where they are (a principal submatrix).

Everything that does not depend on the vector is computed once, when the operator is made: a product with a Hessian then
costs about two gradients, one with the kernel or the Gauss-Newton matrix about one. Make operators inside the function
you jit. Nothing here forms a matrix; `spectrum.dense` does, for small ones.

References:
    B. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994). N. Schraudolph, "Fast
    curvature matrix-vector products for second-order gradient descent", Neural Computation 14 (2002).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from jaxdyn import _jaxpr, _tree
from jaxdyn._typing import Apply, Loss, Params
from jaxdyn.geometry.kernel.independence import check

Only = str | Callable[[str], bool]
"""Which leaves: a path such as `"dense_1/weight"`, the beginning of one such as `"dense_1"`, or a predicate on paths."""


@dataclass(frozen=True)
class Operator:
    """A symmetric matrix known by its product with a vector. Not a pytree: make it inside the function you jit.

    Attributes:
        matvec: `v: [dim] -> [dim]`, linear.
        dim: the number of rows.
        dtype: of the vectors.
        ravel: the flat vector of one in the network's own shape (a tree of the selected leaves, or outputs [n, k]).
        unravel: its inverse.
    """

    matvec: Callable[[Any], Any]
    dim: int
    dtype: Any
    ravel: Callable[[Any], Any]
    unravel: Callable[[Any], Any]

    def __call__(self, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The product with one vector."""
        with jax.default_matmul_precision("highest"):
            return self.matvec(vector)


@_jaxpr.forward_mode()
def tangent_kernel(apply: Apply, params: Params, x: Float[Array, "n ..."], *, only: Only | None = None) -> Operator:
    """The whole tangent kernel J Jᵀ of n examples and k outputs, on R^{nk} (examples first).

    One product costs a backward and a tangent forward pass. For a few thousand rows `geometry.ntk_blocks` is faster.

    Args:
        apply: the function, `(params, x: [n, *d]) -> [n, k]`.
        params: where.
        x: inputs [n, *d].
        only: the leaves whose gradients count; all when None.

    Returns:
        An operator with `dim` = n k; `unravel` gives [n, k].

    Example:
        >>> kernel = tangent_kernel(lambda w, x: x @ w, jnp.ones((2, 1)), jnp.eye(3, 2))
        >>> kernel(jnp.array([1.0, 2.0, 3.0])).tolist()
        [1.0, 2.0, 0.0]
    """
    params, x = _tree.single((params, x))
    flat, rebuild, _ = selected(params, only)
    with jax.default_matmul_precision("highest"):
        outputs, push = jax.linearize(lambda w: apply(rebuild(w), x), flat)
    _jaxpr.check_forward(jax.make_jaxpr(push)(flat).jaxpr)
    pull = jax.linear_transpose(push, flat)
    shape = outputs.shape

    def matvec(vector: Any) -> Any:
        (gradient,) = pull(vector.reshape(shape))
        return push(gradient).reshape(-1)

    return Operator(matvec, outputs.size, outputs.dtype, lambda u: jnp.reshape(u, -1), lambda v: v.reshape(shape))


@_jaxpr.forward_mode()
def gauss_newton(
    apply: Apply,
    params: Params,
    x: Float[Array, "n ..."],
    y: Float[Array, "n k"],
    *,
    loss: Loss,
    only: Only | None = None,
) -> Operator:
    """The Gauss-Newton matrix Jᵀ H_out J of a loss, on R^p; c JᵀJ for a quadratic loss (c/2) Σ (f − y)².

    Args:
        apply: the function.
        params: where.
        x: inputs [n, *d].
        y: targets [n, k].
        loss: any `(prediction, y) -> scalar`; the matrix carries its normalisation.
        only: the leaves of the submatrix; all when None.

    Returns:
        An operator with `dim` = the number of selected parameters.

    Example:
        >>> from jaxdyn import losses
        >>> matrix = gauss_newton(lambda w, x: x * w, jnp.array(1.0), jnp.ones((3, 1)), jnp.zeros((3, 1)), loss=losses.half_sum)
        >>> matrix(jnp.array([2.0])).tolist()
        [6.0]
    """
    params, x, y = _tree.single((params, x, y))
    flat, rebuild, unravel = selected(params, only)
    with jax.default_matmul_precision("highest"):
        outputs, push = jax.linearize(lambda w: apply(rebuild(w), x), flat)
        _, bend = jax.linearize(jax.grad(lambda f: loss(f, y)), outputs)
    _jaxpr.check_forward(jax.make_jaxpr(push)(flat).jaxpr)
    pull = jax.linear_transpose(push, flat)

    def matvec(vector: Any) -> Any:
        (product,) = pull(bend(push(vector)))
        return product

    return Operator(matvec, flat.size, flat.dtype, _ravel, unravel)


def loss_hessian(
    apply: Apply,
    params: Params,
    x: Float[Array, "n ..."],
    y: Float[Array, "n k"],
    *,
    loss: Loss,
    only: Only | None = None,
) -> Operator:
    """The Hessian ∂²L/∂w² of the loss, on R^p; its largest eigenvalue is the sharpness.

    Forward over reverse: one product costs two to three gradients.

    Args:
        apply: the function.
        params: where.
        x: inputs [n, *d].
        y: targets [n, k].
        loss: any `(prediction, y) -> scalar`; the Hessian carries its normalisation.
        only: the leaves of the principal submatrix; all when None.

    Returns:
        An operator with `dim` = the number of selected parameters.

    Example:
        >>> hessian = loss_hessian(
        ...     lambda w, x: x * w**2, jnp.array(3.0), jnp.ones((1, 1)), jnp.zeros((1, 1)), loss=lambda f, y: jnp.sum(f - y))
        >>> hessian(jnp.array([1.0])).tolist()
        [2.0]
    """
    params, x, y = _tree.single((params, x, y))
    flat, rebuild, unravel = selected(params, only)
    return _hessian(lambda w: loss(apply(rebuild(w), x), y), flat, unravel)


def function_hessian(
    apply: Apply, params: Params, x: Float[Array, "*d"], *, output: int | Int[Array, ""] = 0, only: Only | None = None
) -> Operator:
    """The Hessian H_{f_a}(w; x) of one output at one example, on R^p; indefinite.

    Its spectral norm is what goes to zero with the width in the transition to linearity; see `function_hessian_norm`.

    Args:
        apply: the function.
        params: where.
        x: one example, [*d], without the batch axis.
        output: a, which output; may be traced.
        only: the leaves of the principal submatrix; all when None.

    Returns:
        An operator with `dim` = the number of selected parameters.

    Raises:
        ValueError: for a function whose examples interact, or whose outputs are not real [n, k].

    Example:
        >>> hessian = function_hessian(lambda w, x: x * w["u"] * w["v"], {"u": jnp.array(1.0), "v": jnp.array(2.0)}, jnp.ones(1))
        >>> hessian(jnp.array([1.0, 0.0])).tolist()  # the cross block of u v
        [0.0, 1.0]
    """
    check(apply, params, x[None])
    params, x = _tree.single((params, x))
    flat, rebuild, unravel = selected(params, only)
    return _hessian(lambda w: apply(rebuild(w), x[None])[0, output], flat, unravel)


def paths(params: Params) -> tuple[str, ...]:
    """The paths of the leaves, such as `"dense_1/weight"`, in the order of the flat vector.

    Example:
        >>> paths({"dense_0": {"weight": jnp.ones((2, 3)), "bias": jnp.ones(3)}})
        ('dense_0/bias', 'dense_0/weight')
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return tuple(jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves)


def _hessian(function: Callable[[Any], Any], flat: Any, unravel: Callable[[Any], Any]) -> Operator:
    with jax.default_matmul_precision("highest"):
        _, matvec = jax.linearize(jax.grad(function), flat)
    return Operator(matvec, flat.size, flat.dtype, _ravel, unravel)


def _ravel(tree: Any) -> Any:
    return ravel_pytree(tree)[0]


def selected(params: Params, only: Only | None) -> tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]:
    """The selected leaves as one vector, how to put one back into the parameters, and as a dict of leaves by path."""
    leaves, structure = jax.tree.flatten(params)
    names = paths(params)
    chosen = [
        index
        for index, name in enumerate(names)
        if is_selected(name, only) and jnp.issubdtype(jnp.result_type(leaves[index]), jnp.floating)
    ]
    if not chosen:
        raise ValueError(f"`only={only!r}` selects no floating parameter; the leaves are {', '.join(names) or 'none'}.")
    if only is None and len(chosen) == len(leaves):
        flat, unravel = ravel_pytree(params)
        return flat, unravel, unravel
    flat, unravel = ravel_pytree({names[index]: leaves[index] for index in chosen})

    def rebuild(vector: Any) -> Any:
        values = unravel(vector)
        new = [
            values[name] if index in chosen else leaf
            for index, (name, leaf) in enumerate(zip(names, leaves, strict=True))
        ]
        return jax.tree.unflatten(structure, new)

    return flat, rebuild, unravel


def is_selected(name: str, only: Only | None) -> bool:
    """Whether the leaf of that path is meant; every one is by None.

    Example:
        >>> is_selected("dense_1/weight", "dense_1"), is_selected("dense_10/weight", "dense_1")
        (True, False)
    """
    if only is None:
        return True
    if callable(only):
        return bool(only(name))
    return name == only.strip("/") or name.startswith(only.strip("/") + "/")
