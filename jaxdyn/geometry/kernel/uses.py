r"""Where a parameter meets an example, and the two factors of its gradient there.

A product `z = h · v` of something that depends on the example (h) and something that does not (v: a parameter, perhaps scaled or
reshaped) has the gradient Σ_s h_s ⊗ g_s with respect to v, g the cotangent of z and s the positions (pixels, tokens) at which v is
used. `find` recognises such products:

| equation | left factor h_s | right factor g_s |
|---|---|---|
| `dot_general`, v on either side, batched or not | h over the contracted axes | g over the free axes of v |
| `conv_general_dilated`, v the kernel | the patch at pixel s | g over output channels |
| `gather` of whole rows | the number of the row (a one-hot vector) | g over the row |

Axes of v that are batched with h (or groups of a convolution) are in both factors.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdyn.geometry.kernel.program import Equation, Program

_OFFSETS = 64  # kernels up to this size are cut out by slices; larger ones by the convolution that extracts patches


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Factor:
    """One factor of a gradient at its positions.

    Attributes:
        array: [S, *sizes of the labels], or row numbers [S] of a one-hot factor.
        labels: the axes of v that the array has after its first; axes of length 1 are left out.
        rows: the length of the one-hot axis; None for an array of numbers.
    """

    array: Any
    labels: tuple[int, ...] = field(metadata={"static": True})
    rows: int | None = field(default=None, metadata={"static": True})


@dataclass(frozen=True, eq=False)
class Use:
    """One product of a parameter value with an example.

    Attributes:
        equation: the product.
        value: the number of v.
        operand: the number of h.
        shape: the shape of v; that of a grouped convolution has the output channels split by group.
        left: axes of v in the left factor.
        right: axes of v in the right factor. Those in both are batched.
        positions: S.
    """

    equation: Equation
    value: int
    operand: int
    shape: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    positions: int

    @property
    def output(self) -> int:
        """The number of z."""
        return self.equation.outvars[0]


def find(program: Program, equation: Equation, position: int) -> Use | None:
    """The use that an equation makes of its operand at `position`, which does not depend on the example; None if no rule fits."""
    if not jnp.issubdtype(program.avals[equation.outvars[0]].dtype, jnp.floating):
        return None
    rule = PRODUCTS.get(equation.name)
    return None if rule is None else rule.find(program, equation, position)


def product(use: Use, h: Any, v: Any) -> tuple[Any, Factor]:
    """The result z and its left factor."""
    z, left = PRODUCTS[use.equation.name].product(use, h, v)
    return z, _drop_ones(left, use)


def right_factor(use: Use, g: Any, h: Any) -> Factor:
    """The right factor from the cotangent g of z."""
    g = PRODUCTS[use.equation.name].positions_first(use, g, h)
    return _drop_ones(Factor(g.reshape(use.positions, *(use.shape[axis] for axis in use.right)), use.right), use)


def dense(factor: Factor, dtype: Any) -> Factor:
    """A factor as an array of numbers."""
    if factor.rows is None:
        return factor
    return Factor(jax.nn.one_hot(factor.array, factor.rows, dtype=dtype), factor.labels)


def sort_labels(factor: Factor) -> Factor:
    """The axes of a factor in the order of their labels."""
    order = sorted(range(len(factor.labels)), key=lambda i: factor.labels[i])
    if factor.rows is not None:
        return factor
    return Factor(jnp.transpose(factor.array, [0, *(i + 1 for i in order)]), tuple(factor.labels[i] for i in order))


def form(use: Use, left: Factor, right: Factor, shape: tuple[int, ...]) -> Any:
    """The gradient Σ_s h_s ⊗ g_s as an array of the shape of v."""
    kept = [axis for axis, size in enumerate(use.shape) if size > 1]
    if left.rows is not None:
        (rows,) = left.labels
        zeros = jnp.zeros((left.rows, *right.array.shape[1:]), right.array.dtype)
        gradient = zeros.at[left.array].add(right.array, mode="drop")  # [rows, *right]
        gradient = jnp.transpose(gradient, [(rows, *right.labels).index(axis) for axis in kept])
    else:
        letters = {axis: chr(ord("a") + i) for i, axis in enumerate(kept)}
        first, second, out = ("".join(letters[axis] for axis in axes) for axes in (left.labels, right.labels, kept))
        gradient = jnp.einsum(f"z{first},z{second}->{out}", left.array, right.array)
    return gradient.reshape(shape)


def _drop_ones(factor: Factor, use: Use) -> Factor:
    """Leave out axes of length 1, which pass through every reshape unseen."""
    if factor.rows == 1:
        factor = Factor(jnp.ones((*factor.array.shape, 1)), factor.labels)
    if factor.rows is not None:
        return factor
    kept = tuple(axis for axis in factor.labels if use.shape[axis] > 1)
    return Factor(factor.array.reshape(factor.array.shape[0], *(use.shape[axis] for axis in kept)), kept)


def _free(ndim: int, *taken: Any) -> list[int]:
    used = set(itertools.chain(*taken))
    return [axis for axis in range(ndim) if axis not in used]


def _dot(program: Program, equation: Equation, position: int) -> Use | None:
    value, operand = equation.invars[position], equation.invars[1 - position]
    contract, batch = equation.params["dimension_numbers"]
    free_h = _free(len(program.shape(operand)), contract[1 - position], batch[1 - position])
    positions = math.prod(program.shape(operand)[axis] for axis in free_h)
    shape = program.shape(value)
    batched, contracted = tuple(batch[position]), tuple(contract[position])
    free = tuple(_free(len(shape), contracted, batched))
    return Use(equation, value, operand, shape, (*batched, *contracted), (*batched, *free), positions)


def _dot_product(use: Use, h: Any, v: Any) -> tuple[Any, Factor]:
    parameters, v_first = use.equation.params, use.equation.invars[0] == use.value
    z = jax.lax.dot_general_p.bind(*((v, h) if v_first else (h, v)), **parameters)
    contract, batch = parameters["dimension_numbers"]
    mine = 1 if v_first else 0
    order = [*_free(h.ndim, contract[mine], batch[mine]), *batch[mine], *contract[mine]]
    sizes = [use.shape[axis] for axis in use.left]
    return z, Factor(jnp.transpose(h, order).reshape(use.positions, *sizes), use.left)


def _dot_positions(use: Use, g: Any, h: Any) -> Any:
    contract, batch = use.equation.params["dimension_numbers"]
    num_batch, v_first = len(batch[0]), use.equation.invars[0] == use.value
    num_free_v = len(use.shape) - num_batch - len(contract[0 if v_first else 1])
    batched, rest = list(range(num_batch)), list(range(num_batch, g.ndim))
    split = num_free_v if v_first else len(rest) - num_free_v
    free_h, free_v = (rest[split:], rest[:split]) if v_first else (rest[:split], rest[split:])
    return jnp.transpose(g, [*free_h, *batched, *free_v])


def _gather(program: Program, equation: Equation, position: int) -> Use | None:
    value, operand = equation.invars
    numbers, shape = equation.params["dimension_numbers"], program.shape(value)
    row_axes = tuple(numbers.start_index_map)
    is_rows = (
        position == 0
        and len(row_axes) == 1
        and tuple(numbers.collapsed_slice_dims) == row_axes
        and not numbers.operand_batching_dims
        and all(size == (1 if i in row_axes else shape[i]) for i, size in enumerate(equation.params["slice_sizes"]))
        and equation.params["mode"]
        in (jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS, jax.lax.GatherScatterMode.FILL_OR_DROP)
    )
    if not is_rows:
        return None
    free = tuple(_free(len(shape), row_axes))
    return Use(equation, value, operand, shape, row_axes, free, math.prod(program.shape(operand)[:-1]))


def _gather_product(use: Use, h: Any, v: Any) -> tuple[Any, Factor]:
    z = use.equation.source.primitive.bind(v, h, **use.equation.params)
    return z, Factor(h.reshape(-1), use.left, use.shape[use.left[0]])


def _gather_positions(use: Use, g: Any, h: Any) -> Any:
    offset = use.equation.params["dimension_numbers"].offset_dims
    order = [*_free(g.ndim, offset, ()), *offset]
    if use.equation.params["mode"] != jax.lax.GatherScatterMode.FILL_OR_DROP:
        return jnp.transpose(g, order)
    rows, length = h.reshape(-1), use.shape[use.left[0]]
    valid = ((rows >= 0) & (rows < length)).reshape(*h.shape[:-1], *(1 for _ in offset))
    return jnp.where(valid, jnp.transpose(g, order), 0)


def _convolution(program: Program, equation: Equation, position: int) -> Use | None:
    if position != 1 or equation.params["batch_group_count"] != 1:
        return None
    operand, value = equation.invars
    out, inner, *window = equation.params["dimension_numbers"].rhs_spec
    shape, groups = program.shape(value), equation.params["feature_group_count"]
    spec = equation.params["dimension_numbers"].out_spec
    z = program.shape(equation.outvars[0])
    positions = math.prod(z[axis] for axis in (spec[0], *spec[2:]))
    if groups == 1:
        return Use(equation, value, operand, shape, (*window, inner), (out,), positions)
    shape = (*shape[:out], groups, shape[out] // groups, *shape[out + 1 :])

    def moved(axis: int) -> int:
        return axis + 1 if axis > out else axis

    left = (*(moved(axis) for axis in window), out, moved(inner))
    return Use(equation, value, operand, shape, left, (out, out + 1), positions)


def _convolution_product(use: Use, h: Any, v: Any) -> tuple[Any, Factor]:
    """A convolution as a product of patches with the kernel: the patches are the left factor anyway."""
    parameters = use.equation.params
    spec, groups = parameters["dimension_numbers"], parameters["feature_group_count"]
    z = use.equation.source.outvars[0].aval
    window = [v.shape[axis] for axis in spec.rhs_spec[2:]]
    out_sizes = [z.shape[axis] for axis in spec.out_spec[2:]]
    patches = _patches(
        jnp.transpose(h, (spec.lhs_spec[0], *spec.lhs_spec[2:], spec.lhs_spec[1])), window, out_sizes, parameters
    )
    num_inner = v.shape[spec.rhs_spec[1]]
    left = patches.reshape(use.positions, math.prod(window), groups, num_inner)
    kernel = jnp.transpose(v, (*spec.rhs_spec[2:], spec.rhs_spec[1], spec.rhs_spec[0]))
    kernel = kernel.reshape(math.prod(window), num_inner, groups, -1)
    dtype = parameters["preferred_element_type"]
    if groups == 1:
        flat = jnp.matmul(
            left.reshape(use.positions, -1), kernel.reshape(-1, kernel.shape[-1]), preferred_element_type=dtype
        )
    else:
        flat = jnp.einsum("swgi,wigo->sgo", left, kernel, preferred_element_type=dtype)
    order = [0] * z.ndim
    for source, target in enumerate((spec.out_spec[0], *spec.out_spec[2:], spec.out_spec[1])):
        order[target] = source
    out = jnp.transpose(flat.reshape(h.shape[spec.lhs_spec[0]], *out_sizes, -1), order).astype(z.dtype)
    factor = left.reshape(use.positions, *(use.shape[axis] for axis in use.left))
    return out, Factor(factor, use.left)


def _convolution_positions(use: Use, g: Any, h: Any) -> Any:
    out = use.equation.params["dimension_numbers"].out_spec
    return jnp.transpose(g, [out[0], *out[2:], out[1]])


def _patches(h: Any, window: list[int], out_sizes: list[int], parameters: dict[str, Any]) -> Any:
    """The inputs of each output pixel, [N, *out, *window, C], from images [N, *sizes, C]."""
    strides, dilation = parameters["window_strides"], parameters["rhs_dilation"]
    edges = [
        (low, high, inner - 1)
        for (low, high), inner in zip(parameters["padding"], parameters["lhs_dilation"], strict=True)
    ]
    if any(edge != (0, 0, 0) for edge in edges):
        h = jax.lax.pad(h, jnp.zeros((), h.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    num_images, *sizes, channels = h.shape
    num_axes = len(window)
    is_tiling = list(strides) == window and [o * w for o, w in zip(out_sizes, window, strict=True)] == sizes
    if is_tiling and all(step == 1 for step in dilation):
        tiles = h.reshape(num_images, *itertools.chain(*zip(out_sizes, window, strict=True)), channels)
        return jnp.transpose(tiles, (0, *range(1, 2 * num_axes, 2), *range(2, 2 * num_axes + 1, 2), 2 * num_axes + 1))
    if math.prod(window) > _OFFSETS:
        spatial = "".join(chr(ord("0") + axis) for axis in range(num_axes))
        numbers = (f"N{spatial}C", f"OI{spatial}", f"N{spatial}C")
        found = jax.lax.conv_general_dilated_patches(
            h, window, strides, [(0, 0)] * num_axes, rhs_dilation=dilation, dimension_numbers=numbers
        )
        return jnp.moveaxis(found.reshape(num_images, *out_sizes, channels, *window), num_axes + 1, -1)
    slices = []
    for offset in itertools.product(*(range(size) for size in window)):
        start = [o * step for o, step in zip(offset, dilation, strict=True)]
        stop = [a + (size - 1) * stride + 1 for a, size, stride in zip(start, out_sizes, strides, strict=True)]
        slices.append(jax.lax.slice(h, (0, *start, 0), (num_images, *stop, channels), (1, *strides, 1)))
    return jnp.stack(slices, axis=-2).reshape(num_images, *out_sizes, *window, channels)


class Product(NamedTuple):
    """What is to be known of a product.

    Attributes:
        find: `(program, equation, position) -> use`, None where the equation is no product of a kind that the other two know.
        product: `(use, h, v) -> (z, left factor)`.
        positions_first: `(use, cotangent of z, h) -> cotangent` with the positions before the axes in `use.right`.
    """

    find: Callable[[Program, Equation, int], Use | None]
    product: Callable[[Use, Any, Any], tuple[Any, Factor]]
    positions_first: Callable[[Use, Any, Any], Any]


PRODUCTS = {
    "dot_general": Product(_dot, _dot_product, _dot_positions),
    "conv_general_dilated": Product(_convolution, _convolution_product, _convolution_positions),
    "gather": Product(_gather, _gather_product, _gather_positions),
}
