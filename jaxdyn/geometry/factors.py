"""Per-example gradients in factored form, by interpreting the jaxpr of a network.

The gradient of f(w; x_i) with respect to a weight used as z = h W is the outer product of h_i and the cotangent g_i of z_i. All h_i
come from one forward pass over the examples and all g_i from one backward pass for each output, so nothing of the size of
n × p is ever formed. A *tap* is a place where a parameter leaf is used: zeros are added there, and the derivative with respect
to them is the cotangent.

The interpreter follows each leaf through isometries (reshape, transpose, squeeze, casts, nested jit) and scalings by scalars to
its use. A leaf with a single use as an operand of `dot_general`, or several in one layout, is tapped behind the product: a factored
tap. Any other single use is tapped at its operand, and a leaf with mixed uses at the leaf itself: those taps hold whole per-example
gradients. Either way the result is exact.

The function is traced for a single example and vmapped, so its examples cannot interact here.

References:
    Novak, Sohl-Dickstein, Schoenholz, arXiv 2206.08720 (structured derivatives), for dense layers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

_ISOMETRIES = {"reshape", "transpose", "squeeze", "expand_dims", "convert_element_type", "copy", "neg"}
_CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2"}


@dataclass(frozen=True)
class Tap:
    """One use of a parameter leaf.

    Attributes:
        leaf: index of the leaf.
        factored: whether its gradient is Σ_s h_s g_sᵀ, with `h` recorded; else the tap's cotangent is the gradient itself.
        positions: number S of positions an example has.
        fan_in: length C of h.
        fan_out: length O of g; the size of the whole gradient where it is not factored.
        layout: which axes of the operand are contracted; uses of one leaf must agree.
        is_plain: whether the operand has the axes of the leaf.
    """

    leaf: int
    factored: bool
    positions: int
    fan_in: int
    fan_out: int
    layout: tuple[int, ...]
    is_plain: bool


class Factors(NamedTuple):
    """What the taps of n examples hold, tap by tap.

    Attributes:
        inputs: h as [n, S, C]; None where the tap is not factored.
        cotangents: g as [n, k, S, O].
    """

    inputs: list[Any]
    cotangents: list[Any]


class _View(NamedTuple):
    """A parameter leaf on the way to its use: value = scale · isometry(leaf)."""

    leaf: int
    value: Any
    scale: Any
    is_plain: bool  # no isometry so far: its axes are the leaf's


class Interpreter:
    """The factored gradients of one function at one shape of inputs.

    Args:
        apply: `(params, x: [n, *d]) -> [n, k]`.
        params: parameters, or their shapes.
        example: one input [*d], or its shape.
    """

    def __init__(self, apply: Callable[..., Any], params: Any, example: Any) -> None:
        self.leaves, self.structure = jax.tree.flatten(params)
        paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
        self.paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]
        closed = jax.make_jaxpr(lambda p, x: apply(p, x[None])[0])(params, example)
        self.jaxpr, self.consts = closed.jaxpr, closed.consts
        self.num_outputs = math.prod(closed.out_avals[0].shape)
        self.direct = frozenset(range(len(self.leaves)))
        self.taps: list[Tap] = []
        self.shapes: list[Any] = []
        self._choose(example)

    def _choose(self, example: Any) -> None:
        """Find the uses of every leaf, and which leaves must be tapped at the leaf itself."""
        self.direct = frozenset()
        self._look(example)
        by_leaf: dict[int, list[Tap]] = {}
        for tap in self.taps:
            by_leaf.setdefault(tap.leaf, []).append(tap)
        self.direct = frozenset(
            leaf
            for leaf, taps in by_leaf.items()
            if len(taps) > 1
            and (not all(tap.factored and tap.is_plain for tap in taps) or len({tap.layout for tap in taps}) > 1)
        )
        if self.direct:
            self._look(example)

    def _look(self, example: Any) -> None:
        found: dict[str, Any] = {}

        def look(leaves: Any, x: Any) -> Any:
            walk = _Walk(self.direct, None)
            outputs = walk.run(self.jaxpr, self.consts, leaves, x)
            found["taps"] = walk.taps
            return outputs, walk.zeros

        _, shapes = jax.eval_shape(look, self.leaves, example)
        self.taps, self.shapes = found["taps"], shapes

    def factors(self, params: Any, x: Any) -> Factors:
        """The factors of the gradients at all examples.

        Args:
            params: parameters.
            x: inputs [n, *d].
        """
        leaves = jax.tree.leaves(params)

        def one(example: Any) -> Any:
            def outputs(zeros: Any) -> Any:
                walk = _Walk(self.direct, zeros)
                found = walk.run(self.jaxpr, self.consts, leaves, example)
                return found.reshape(-1), (walk.inputs, walk.scales)

            zeros = [jnp.zeros(shape.shape, shape.dtype) for shape in self.shapes]
            values, pull, (inputs, scales) = jax.vjp(outputs, zeros, has_aux=True)
            rows = jax.vmap(lambda seed: pull(seed)[0])(jnp.eye(self.num_outputs, dtype=values.dtype))
            scaled = [row * jnp.asarray(scale, row.dtype) for row, scale in zip(rows, scales, strict=True)]
            return inputs, scaled

        inputs, cotangents = jax.vmap(one)(x)
        k = self.num_outputs
        shaped = [
            g.reshape(g.shape[0], k, tap.positions, tap.fan_out) for g, tap in zip(cotangents, self.taps, strict=True)
        ]
        return Factors(inputs, shaped)


class _Walk:
    """One evaluation of the jaxpr that follows the leaves and taps their uses."""

    def __init__(self, direct: frozenset[int], zeros: Sequence[Any] | None) -> None:
        self.direct = direct
        self.given = zeros
        self.taps: list[Tap] = []
        self.zeros: list[Any] = []
        self.inputs: list[Any] = []
        self.scales: list[Any] = []
        self.varying: set[Any] = set()

    def run(self, jaxpr: Any, consts: Any, leaves: Sequence[Any], x: Any) -> Any:
        views = []
        for index, leaf in enumerate(leaves):
            if index in self.direct:
                views.append(self.tap(leaf, _whole(index, leaf), None, 1.0))
            else:
                views.append(_View(index, leaf, 1.0, True))
        varying = [False] * len(views) + [True]
        return self.settle(self.evaluate(jaxpr, consts, [*views, x], varying)[0])

    def tap(self, value: Any, tap: Tap, inputs: Any, scale: Any) -> Any:
        """Add the zeros of a tap to a value, [.., S·O] in the layout of its cotangent."""
        zero = jnp.zeros(value.shape, value.dtype) if self.given is None else self.given[len(self.taps)]
        self.taps.append(tap)
        self.zeros.append(zero)
        self.inputs.append(inputs)
        self.scales.append(scale)
        return value + zero

    def evaluate(self, jaxpr: Any, consts: Any, arguments: Sequence[Any], varying: Sequence[bool]) -> list[Any]:
        """The results of a jaxpr, some of them leaves that only pass through it.

        Args:
            jaxpr: what to evaluate.
            consts: its constants.
            arguments: its arguments; views of leaves among them.
            varying: which arguments depend on the example.
        """
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))
        self.varying.update(v for v, varies in zip(jaxpr.invars, varying, strict=True) if varies)

        def read(v: Any) -> Any:
            return v.val if isinstance(v, core.Literal) else values[v]

        for eqn in jaxpr.eqns:
            values.update(zip(eqn.outvars, self.equation(eqn, [read(v) for v in eqn.invars]), strict=True))
            if any(self.varies(v) for v in eqn.invars):
                self.varying.update(eqn.outvars)
        return [read(v) for v in jaxpr.outvars]

    def varies(self, v: Any) -> bool:
        return not isinstance(v, core.Literal) and v in self.varying

    def equation(self, eqn: Any, inputs: list[Any]) -> list[Any]:
        views = [i for i, value in enumerate(inputs) if isinstance(value, _View)]
        name = eqn.primitive.name
        if not views:
            return _bind(eqn, inputs)
        if name in _CALLS:
            inner = eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"]
            varying = [self.varies(v) for v in eqn.invars]
            return self.evaluate(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs, varying)
        if len(views) == 1:
            view, place = inputs[views[0]], views[0]
            if name in _ISOMETRIES and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
                moved = _bind(eqn, [view.value])[0]
                keeps = name in ("convert_element_type", "copy", "neg")
                return [
                    view._replace(
                        value=moved,
                        scale=-view.scale if name == "neg" else view.scale,
                        is_plain=view.is_plain and keeps,
                    )
                ]
            if self.is_shift(eqn, place):
                values = [one.value if i == place else one for i, one in enumerate(inputs)]
                sign = -1.0 if name == "sub" and place == 1 else 1.0
                return [view._replace(value=_bind(eqn, values)[0], scale=view.scale * sign)]
            scale = _scalar_factor(name, inputs, place)
            if scale is not None:
                values = [one.value if i == place else one for i, one in enumerate(inputs)]
                return [view._replace(value=_bind(eqn, values)[0], scale=view.scale * scale)]
            if name == "dot_general" and not any(eqn.params["dimension_numbers"][1]):
                return [self.product(eqn, inputs, place)]
        return _bind(eqn, [self.settle(value) for value in inputs])

    def is_shift(self, eqn: Any, place: int) -> bool:
        """Whether a leaf is shifted by something of its shape that is the same for all examples, such as its anchor."""
        if eqn.primitive.name not in ("add", "sub", "add_any"):
            return False
        other = eqn.invars[1 - place]
        return not self.varies(other) and other.aval.shape == eqn.invars[place].aval.shape

    def settle(self, value: Any) -> Any:
        """A leaf that is used in a way no rule knows: tapped as it is, so that the cotangent is its whole gradient."""
        if not isinstance(value, _View):
            return value
        return self.tap(value.value, _whole(value.leaf, value.value), None, value.scale)

    def product(self, eqn: Any, inputs: list[Any], place: int) -> Any:
        """Z = h · W: tapped behind the product."""
        view, other = inputs[place], inputs[1 - place]
        contracted = eqn.params["dimension_numbers"][0]
        own, its = contracted[place], contracted[1 - place]
        weight = view.value
        free = [axis for axis in range(weight.ndim) if axis not in own]
        positions = [axis for axis in range(other.ndim) if axis not in its]
        fan_in = math.prod(weight.shape[axis] for axis in own)
        fan_out = math.prod(weight.shape[axis] for axis in free)
        num_positions = math.prod(other.shape[axis] for axis in positions)
        # the order of the contracted axes follows the weight's, so that uses of one leaf agree
        order = sorted(range(len(own)), key=lambda i: own[i])
        h = jnp.transpose(other, [*positions, *(its[i] for i in order)]).reshape(num_positions, fan_in)
        z = _bind(eqn, [weight if i == place else other for i in range(2)])[0]
        flat = z.reshape(num_positions, fan_out) if place == 1 else z.reshape(fan_out, num_positions).T
        tap = Tap(view.leaf, True, num_positions, fan_in, fan_out, tuple(sorted(own)), view.is_plain)
        tapped = self.tap(flat, tap, h, view.scale)
        return tapped.reshape(z.shape) if place == 1 else tapped.T.reshape(z.shape)


def _whole(leaf: int, value: Any) -> Tap:
    return Tap(leaf, False, 1, 1, math.prod(jnp.shape(value)), (), False)


def _scalar_factor(name: str, inputs: list[Any], place: int) -> Any:
    """The scalar a leaf is multiplied with, or None where this is no such thing."""
    if name not in ("mul", "div") or len(inputs) != 2 or (name == "div" and place == 1):
        return None
    other = inputs[1 - place]
    if jnp.ndim(other) != 0 and jnp.size(other) != 1:
        return None
    scalar = jnp.reshape(jnp.asarray(other), ())
    return scalar if name == "mul" else 1.0 / scalar


def _bind(eqn: Any, inputs: Sequence[Any]) -> list[Any]:
    results = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return list(results) if eqn.primitive.multiple_results else [results]
