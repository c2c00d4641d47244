r"""Which way each parameter leaf takes into the kernel, decided from shapes by counted work.

| route | kernel of the leaf | possible if | suits |
|---|---|---|---|
| `outer` | Σ_{s,t} (h_s·h'_t)(g_s·g'_t), no gradient is formed | every use is a product, plumbing acts on one factor | few positions |
| `formed` | G·G' with G = Σ_s h_s ⊗ g_s of each example | every use is a product | many positions: convolutions |
| `gradient` | G·G' with G from automatic differentiation | always | biases, gains, any leaf that no rule covers |
| `unused` | 0 | | |
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax

from jaxdyn.geometry.kernel.linear import NotSeparableError
from jaxdyn.geometry.kernel.plumbing import Path, Split, Views, is_isometric, linear_paths, pull_back
from jaxdyn.geometry.kernel.program import Program, statics
from jaxdyn.geometry.kernel.uses import Use, find, product, right_factor

Kind = Literal["outer", "formed", "gradient", "unused"]
Member = tuple[Use, Path]

_FLOPS_PER_BYTE = 10.0  # what a processor computes while it moves a byte; between 5 and 15 on CPUs and GPUs


@dataclass(frozen=True, eq=False)
class Route:
    """The way of one root: a leaf, or a piece of one.

    Attributes:
        root: its number.
        kind: `outer`, `formed`, `gradient` or `unused`.
        members: the products it takes part in, each with the path from the point where all paths part.
        equations: in words, which equations use it.
        flops: operations to form and contract its part of the kernel, beyond the passes through the network.
        held: bytes of factors or gradients for each example.
        paired: bytes of intermediates for each pair of examples.
    """

    root: int
    kind: Kind
    members: tuple[Member, ...] = ()
    equations: str = ""
    flops: float = 0.0
    held: float = 0.0
    paired: float = 0.0

    def cost(self, n1: int, n2: int) -> float:
        """Operations plus bytes at their exchange rate."""
        return self.flops + _FLOPS_PER_BYTE * ((n1 + n2) * self.held + n1 * n2 * self.paired)


def choose(program: Program, n1: int, n2: int, *, is_whole: bool) -> tuple[Route, ...]:
    """The cheapest exact route of each root to a kernel [n1, n2]; `is_whole` where all k × k blocks are wanted, not their trace."""
    views = linear_paths(program)
    products, others = _find(program)
    members = {
        root: _members(program, views, uses, root) for root, uses in products.items() if uses and not others[root]
    }
    sizes = _factor_sizes(program, {root: found for root, found in members.items() if found is not None})
    k = program.shape(program.output)[0]
    num_pairs = k * k if is_whole else k
    chosen = []
    for root, uses in products.items():
        names = [use.equation.name for use in uses] + others[root]
        words = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
        item = max(4, program.avals[root].dtype.itemsize)
        size = math.prod(program.shape(root))
        gram, held = 2.0 * n1 * n2 * num_pairs * size, 2.0 * item * k * size
        if not names:
            options = [Route(root, "unused")]
        elif others[root]:
            options = [Route(root, "gradient", (), words, gram, held)]
        else:
            work = sum(2.0 * use.positions * k * math.prod(program.shape(use.value)) for use in uses)
            plain = tuple((use, ()) for use in uses)
            options = [Route(root, "formed", plain, words, gram + (n1 + n2) * work, held)]
            found = members[root]
            if found is not None and root in sizes:
                left, right = sizes[root]
                positions = sum(use.positions for use, _ in found)
                flops = 2.0 * n1 * n2 * positions**2 * (left + num_pairs * (right + 1))
                held = float(item * positions * (left + k * right))
                paired = float(item * positions**2 * (1 + (num_pairs if is_whole else 1)))
                options.append(Route(root, "outer", found, words, flops, held, paired))
        chosen.append(min(options, key=lambda route: route.cost(n1, n2)))
    return tuple(chosen)


def _find(program: Program) -> tuple[dict[int, tuple[Use, ...]], dict[int, list[str]]]:
    """For each root, the products it takes part in, and the names of other equations that use it."""
    products: dict[int, list[Use]] = {root: [] for root in program.roots}
    others: dict[int, list[str]] = {root: [] for root in program.roots}
    for equation in program.equations:
        if not any(out in program.varying for out in equation.outvars):
            continue
        for position, value in enumerate(equation.invars):
            if value in program.varying or not program.leaves[value]:
                continue
            use = find(program, equation, position)
            for root in program.leaves[value]:
                if use is None:
                    others[root].append(equation.name)
                else:
                    products[root].append(use)
    if program.output not in program.varying:
        for root in program.leaves[program.output]:
            others[root].append("output")
    return {root: tuple(found) for root, found in products.items()}, others


def _members(program: Program, views: Views, uses: Sequence[Use], root: int) -> tuple[Member, ...] | None:
    """The uses of a root with their paths from where they part; None where the plumbing is not linear."""
    members: list[Member] = []
    for use in uses:
        paths = views[use.value].get(root)
        if paths is None:
            return None
        shape = program.shape(use.value)
        tail: Path = () if use.shape == shape else (Split(shape, use.shape),)
        members += [(use, path + tail) for path in paths]
    while all(path for _, path in members) and len({path[0] for _, path in members}) == 1:
        if not is_isometric(members[0][1][0]):
            break
        members = [(use, path[1:]) for use, path in members]
    return tuple(members)


def _factor_sizes(program: Program, members: Mapping[int, Sequence[Member]]) -> dict[int, tuple[int, int]]:
    """Numbers in the left and in the right factor of each root whose factors go back to it unmultiplied.

    Found by abstract evaluation: nothing is computed.
    """
    sizes: dict[int, tuple[int, int]] = {}

    def probe(values: dict[int, Any]) -> None:
        known = statics(program, [values[leaf] for leaf in range(program.num_leaves)])
        for root, found in members.items():
            try:
                pairs = [_pair(program, known, values, use, path) for use, path in found]
            except NotSeparableError:
                continue
            left, right = (
                max(math.prod(factor.array.shape[1:]) for factor in side) for side in zip(*pairs, strict=True)
            )
            sizes[root] = (left, right)

    needed = {number for found in members.values() for use, _ in found for number in (use.operand, use.output)}
    kinds = {
        number: jax.ShapeDtypeStruct(program.shape(number), program.avals[number].dtype)
        for number in needed | set(range(program.num_leaves))
    }
    jax.eval_shape(probe, kinds)
    return sizes


def _pair(program: Program, known: Mapping[int, Any], values: Mapping[int, Any], use: Use, path: Path) -> Any:
    h = values[use.operand]
    _, left = product(use, h, known[use.value])
    return pull_back(program, known, path, left, right_factor(use, values[use.output], h))
