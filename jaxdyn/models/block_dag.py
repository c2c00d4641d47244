r"""Networks on a directed acyclic graph of blocks: fully connected, skip, densely connected and multi-branch networks.

    h_v = g σ_v(z_v),    z_v = multiplier_v · Σ_{p → v} h_p W_pv,    W ~ N(0, 1),  multiplier_v = 1/√(Σ_p n_p)

in NTK scaling: every neuron of block v reads all neurons of its parent blocks, so its in-degree is the sum of their widths. Input blocks
hold the columns of x, output blocks are linear. No biases, and g = 1 unless `gain` is given. A chain of blocks is `models.mlp`, initial
weights included.

**Infinite width.** With all hidden widths going to infinity at fixed ratios, per neuron (the kernels of the parents, weighted by their
shares n_p / Σ n of the in-degree)

    Σ_v = Σ_p share_p E[h_p h_p'],    Θ_v = Σ_v + Σ_p share_p g² E[σ_p' σ_p''] Θ_p,    E[x x'] = x·x'/n,  Θ_input = 0.

Paths that part and meet again have no cross terms, since the weights of different parents are independent. The shares are those of the
widths given: an input of fixed size beside ever wider blocks would count for nothing in the limit, but counts as n_p / Σ n here.

References:
    Zhu, Liu, Belkin, arXiv 2205.11786 (graphs). Huang et al., arXiv 1608.06993 (densely connected networks).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdyn._typing import Params
from jaxdyn.models.base import Kernels, Model
from jaxdyn.models.gain import check_gain, with_gain
from jaxdyn.models.graphs.graph import graph
from jaxdyn.models.mlp import Activation, check_kernel, identity
from jaxdyn.models.scaling import Position, Scale, Scaling, ntk
from jaxdyn.models.width import AnyWidth, Width, active, draw, masked, maximum


def block_dag(
    parents: Mapping[str, Sequence[str]],
    *,
    widths: Mapping[str, AnyWidth],
    activation: Activation | Mapping[str, Activation],
    gain: Any = 1.0,
    scaling: Scaling = ntk,
    output: Activation = identity,
) -> Model:
    """A network on a graph of blocks.

    Args:
        parents: the blocks that each block reads. Those without parents are inputs, those that nobody reads outputs.
        widths: neurons of each block; integers, or `Width`s (what a run receives along a `jd.widths` axis) for hidden ones. The columns
            of x belong to the input blocks in the order in which they stand here.
        activation: elementwise σ of the hidden blocks, or one for each.
        gain: g, h = g σ(z): a number, or `models.unit_gain(activation)`, √2 for ReLU, which keeps the second moment from layer to layer.
        scaling: `models.ntk`, `models.standard` or `models.maximal_update`, with the whole in-degree as fan-in.
        output: elementwise function of the outputs; there is no infinite-width kernel unless it is the identity.

    Returns:
        A `Model`. Parameters are `{"h1": {"x": [n_x, n_h1]}, "h2": {"x": …, "h1": …}, …}`, child first. Inputs [n, *d] are flattened.
        Several output blocks stand side by side in f, in the order of `parents`; they have no common kernel.

    Raises:
        ValueError: for a cycle, a block that reads itself or another one twice, and missing or superfluous widths or activations, all
            by name.

    Example:
        >>> model = block_dag(
        ...     {"h1": ["x"], "h2": ["x", "h1"], "y": ["h1", "h2"]},
        ...     widths={"x": 5, "h1": 8, "h2": 8, "y": 1}, activation=jnp.tanh)
        >>> params = model.init(jax.random.key(0))
        >>> params["h2"]["x"].shape, model.apply(params, jnp.ones((3, 5))).shape
        ((5, 8), (3, 1))
    """
    check_gain(gain)
    plan = _plan(parents, widths, activation)

    def scale(block: Block) -> Scale:
        return scaling(_total([widths[p] for p in block.parents]), widths[block.name], _position(block, plan))

    def init(key: Any) -> Params:
        params: dict[str, dict[str, Any]] = {}
        for number, block in enumerate(plan.blocks):
            own = jax.random.fold_in(key, number)
            deviation = scale(block).deviation
            params[block.name] = {}
            for place, parent in enumerate(block.parents):
                stream = own if place == 0 else jax.random.fold_in(jax.random.fold_in(own, _PARENTS), place)
                weight = draw(stream, widths[parent], widths[block.name])
                params[block.name][parent] = weight * jnp.asarray(deviation, weight.dtype)
        return params

    def apply(params: Any, x: Float[Array, " n *d"]) -> Float[Array, "n k"]:
        values = _split(x, plan, widths)
        for block in plan.blocks:
            leaves = params[block.name]
            terms = [values[parent] @ leaves[parent] for parent in block.parents]
            z = sum(terms[1:], terms[0])
            z = z * jnp.asarray(scale(block).multiplier, z.dtype)
            if block.name in plan.outputs:
                values[block.name] = output(z)
                continue
            values[block.name] = masked(with_gain(block.activation, gain)(z), widths[block.name])
        outputs = [values[name] for name in plan.outputs]
        return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=1)

    def kernel(x1: Any, x2: Any = None, *, tolerance: float = 1e-8) -> Kernels:
        check_kernel(scaling, output)
        if len(plan.outputs) > 1:
            raise ValueError(
                f"The output blocks {', '.join(plan.outputs)} have a kernel each, and a model has one; ask for the kernel of a "
                "network that ends in one of them."
            )
        from jaxdyn.models._block_kernel import block_kernel

        first = _split(_two(x1), plan, widths)
        second = first if x2 is None else _split(_two(x2), plan, widths)
        shares = {
            block.name: [active(widths[p]) / active(_total([widths[q] for q in block.parents])) for p in block.parents]
            for block in plan.blocks
        }
        return block_kernel(plan.blocks, shares, first, second, gain, tolerance)

    return Model(init, apply, kernel)


class Block(NamedTuple):
    """A block that is no input.

    Attributes:
        name: its name.
        parents: the blocks it reads.
        activation: σ; the identity for outputs.
    """

    name: str
    parents: tuple[str, ...]
    activation: Activation


class Plan(NamedTuple):
    """The blocks in an order in which they can be computed.

    Attributes:
        inputs: names, in the order of their columns.
        blocks: the others, parents first.
        outputs: names, in the order of their columns.
    """

    inputs: tuple[str, ...]
    blocks: tuple[Block, ...]
    outputs: tuple[str, ...]


_PARENTS = 0x626C6F63  # the stream of the weights from the second parent on


def _plan(parents: Mapping[str, Sequence[str]], widths: Mapping[str, AnyWidth], activation: Any) -> Plan:
    alone = [name for name, own in parents.items() if not own]
    if not parents or alone:
        raise ValueError(
            f"`parents` lists what each block reads, and inputs are not listed, but {alone or 'it'} has no parents at all."
        )
    pairs = [(parent, name) for name, own in parents.items() for parent in own]
    network = graph(tuple(zip(*pairs, strict=True)))
    names = network.names or ()
    wrong = sorted(set(names) ^ set(widths))
    if wrong:
        raise ValueError(
            f"`widths` has an entry for every block and no other, but {', '.join(map(repr, wrong))} "
            f"{'is' if len(wrong) == 1 else 'are'} on one side only."
        )
    layer = dict(zip(names, network.layers.tolist(), strict=True))
    inputs = tuple(name for name in widths if layer[name] == 0)
    outputs = tuple(name for name in parents if name in {names[i] for i in network.outputs})
    for name, width in widths.items():
        if isinstance(width, Width):
            if name in inputs or name in outputs:
                raise ValueError(f"Only hidden widths can be padded, but {name!r} is an input or an output.")
        elif isinstance(width, bool) or not hasattr(width, "__index__") or width < 1:
            raise ValueError(
                f"`widths` are positive integers (or `Width`s along a `jd.widths` axis), but {name!r} has {width!r}."
            )
    hidden = [name for name in parents if name not in outputs]
    sigma = activation if isinstance(activation, Mapping) else dict.fromkeys(hidden, activation)
    wrong = sorted(set(sigma) ^ set(hidden))
    if wrong:
        raise ValueError(
            f"`activation` is one function or has an entry for every hidden block ({', '.join(hidden)}) and no other, but "
            f"{', '.join(map(repr, wrong))} is on one side only."
        )
    order = sorted(parents, key=lambda name: layer[name])  # stable: parents first, then as listed
    blocks = tuple(Block(name, tuple(parents[name]), sigma.get(name, identity)) for name in order)
    return Plan(inputs, blocks, outputs)


def _position(block: Block, plan: Plan) -> Position:
    is_first = all(parent in plan.inputs for parent in block.parents)
    if block.name in plan.outputs:
        return "only" if is_first else "output"
    return "input" if is_first else "hidden"


def _total(sizes: Sequence[AnyWidth]) -> AnyWidth:
    """The sum of widths, padded where one is."""
    if any(isinstance(size, Width) for size in sizes):
        return Width(sum(map(maximum, sizes)), sum(active(size) for size in sizes))
    return sum(map(maximum, sizes))


def _two(x: Any) -> Any:
    return jnp.asarray(x).reshape(len(x), -1)


def _split(x: Any, plan: Plan, widths: Mapping[str, AnyWidth]) -> dict[str, Any]:
    """The columns of each input block."""
    h = x.reshape(x.shape[0], -1)
    sizes = [maximum(widths[name]) for name in plan.inputs]
    if h.shape[1] != sum(sizes):
        raise ValueError(
            f"The input blocks {', '.join(plan.inputs)} take {sum(sizes)} columns, but x has shape {tuple(x.shape)}, i.e. dimension "
            f"{h.shape[1]}."
        )
    ends = np.cumsum(sizes)
    return {name: h[:, end - size : end] for name, size, end in zip(plan.inputs, sizes, ends.tolist(), strict=True)}
