r"""The exact empirical tangent kernel: a function is traced, and each parameter leaf is followed from station to station.

    Θ[i, j, a, b] = Σ_p ∂f_a(x_i)/∂w_p · ∂f_b(x_j)/∂w_p

Take a network with one filter v that is shared by two layers, and one dense layer w:

>>> import jax
>>> import jax.numpy as jnp
>>> def apply(params, x):
...     h = x
...     for _ in range(2):
...         h = jnp.tanh(jax.lax.conv(h, params["v"], (1, 1), "SAME"))
...     return h.reshape(h.shape[0], -1) @ (params["w"] / 12)
>>> params, x = {"v": jnp.ones((3, 3, 3, 3)), "w": jnp.ones((192, 2))}, jnp.ones((5, 3, 8, 8))
>>> print(ntk_plan(apply, params, x))
leaf  shape    route   used by                 Mflop   kB/example
v     3×3×3×3  formed  2 conv_general_dilated  0.423   1.3
w     192×2    outer   1 dot_general           0.0099  0.784
blocks of 5 × 5 examples; 1 passes over a block, 2 outputs each

1. `independence` traces `apply` for 2 and for 3 examples and walks both programmes, to refuse functions in which examples meet; the
   rules of the primitives are in `axes`. The convolutions have the examples as their images (`INNER`), the product with w contracts
   features, not examples (`ALONG`): the function is accepted.
2. `program` traces `apply` for one example and makes a flat list of equations. What hides products is opened by `inlining`, here the
   `jit` around some operations. It is known of each value whether it depends on the example: h does, w / 12 does not.
3. `uses` finds the products of a value that depends on the example with one that does not (`PRODUCTS`), and knows their gradient as
   two factors. For the dense layer these are h and the cotangent g of its result. For the filter they are the patch at each of the
   64 pixels and g there; it has two such uses.
4. `plumbing` finds the linear paths from each leaf to its uses, and `linear` knows how factors go back through each step (`LINEAR`):
   from w to w / 12 by one `div`, from v to both of its uses by nothing.
5. `routes` counts work and takes the cheapest exact way for each leaf. The dense layer has one position: `outer`, its gradient is never
   formed. The filter has 128: `formed`, one gradient of its 81 numbers is less than 128² pairs of positions. A leaf that no rule
   covers, such as a bias, takes `gradient`: automatic differentiation.
6. `gradients` runs forward once and keeps the left factors, and backward once for each output, for the right factors. The dense layer
   keeps both, brought back to w; the filter's are multiplied out at both uses and added, which is where their cross terms come from.
7. `contraction` takes inner products: (h·h')(g·g') for the dense layer, those of whole gradients for the filter. It adds up the leaves.
8. `empirical` does so for blocks of examples within a budget of memory; `plan` is what `ntk_plan` prints.

A new rule goes where the primitive is met:

* examples are refused although they do not meet, or accepted although they do: `axes`, or `independence.INSIDE` for what has a body;
* a call hides a product: `inlining.INLINED`;
* a product of parameters with an example is left to automatic differentiation: `uses.PRODUCTS`;
* a linear operation on parameters alone makes a product `formed` where `outer` were cheaper: `linear.LINEAR`.

A rule for products or steps is a row in `tests/geometry/kernel/test_rules.py` or `test_positions.py`, which compare it with explicit
Jacobians on each route; one for examples is a row in `test_independence.py`, where it is accepted or refused. These are all:

`axes.ALONG`: may work along the axis of the examples
    approx_top_k, cholesky, concatenate, cumlogsumexp, cummax, cummin, cumprod, cumsum, dot_general,
    dynamic_update_slice, eig, eigh, fft, gather, geqrf, hessenberg, householder_product, lu, pad, qr,
    ragged_dot_general, reduce_window, rev, scatter, schur, sort, svd, top_k, triangular_solve, tridiagonal,
    tridiagonal_solve
`axes.INNER`: rearranges the neighbours that belong to one example
    conv_general_dilated, reshape
`axes.PLACES`: makes or keeps the places of examples
    broadcast_in_dim, concatenate, convert_element_type, copy, iota, squeeze, stop_gradient, transpose
`axes.RANKED`: depends on how many examples there are
    iota, random_
`axes.STARTS`: has operands that do not matter where an axis is taken whole
    dynamic_slice, dynamic_update_slice
`axes.CERTAIN`: has results of which all is known
    lt, select_n
`independence.INSIDE`: walked from the inside, as calls are
    cond, custom_linear_solve, device_put, scan, while
`inlining.INLINED`: opened where parameters enter
    checkpoint, closed_call, cond, core_call, jit, pjit, remat, remat2, reshape, scan
`linear.LINEAR`: linear steps between a leaf and its use
    add, add_any, broadcast_in_dim, concatenate, convert_element_type, copy, div, expand_dims, mul, neg, reduce_sum,
    reshape, rev, slice, split, squeeze, sub, transpose
`uses.PRODUCTS`: products of a parameter with an example
    conv_general_dilated, dot_general, gather
"""

from jaxdyn.geometry.kernel.empirical import ntk, ntk_blocks, ntk_plan

__all__ = ["ntk", "ntk_blocks", "ntk_plan"]
