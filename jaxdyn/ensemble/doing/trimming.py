"""The final parameters of a cell without the padding of its widths, as they are kept beside a store."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxdyn.dynamics import anchored
from jaxdyn.ensemble.compiling.programme import call_run
from jaxdyn.ensemble.deciding.cells import Cell, Plan, first_member


def trimmed(chosen: Plan, cell: Cell, params: Any) -> list[tuple[str, dict[str, list[int]], Any]]:
    """Parameters [members, …], one entry a combination of the cell's widths: `(key, positions by axis, tree of [members, …])`."""
    axes, cut = chosen.axes, cell.cut
    index = {axis.name: [i] for axis, i in zip(axes.loop, cut.loop, strict=True)}
    index |= {axis.name: [int(i) for i in pick] for axis, pick in zip(axes.vmap, cut.picks, strict=True)}
    if not axes.widths:
        return [(cell.key, index, params)]
    entries = []
    for places in itertools.product(*(range(cell.shape[i]) for i in axes.widths)):
        at = dict(zip(axes.widths, places, strict=True))
        active = [int(axes.vmap[i].values.active[cell.picks[i][place]]) for i, place in at.items()]
        positions = {axes.vmap[i].name: int(cut.picks[i][place]) for i, place in at.items()}
        where = tuple(at.get(i, slice(None)) for i in range(len(cell.shape)))

        def trim(leaf: Any, shape: Any, where: Any = where) -> np.ndarray:
            members = np.asarray(leaf).reshape((*cell.shape, *leaf.shape[1:]))[where].reshape(-1, *leaf.shape[1:])
            return members[(slice(None), *(slice(0, length) for length in shape.shape))]

        own = index | {name: [position] for name, position in positions.items()}
        key = "-".join([cell.key, *map(str, positions.values())])
        entries.append((key, own, jax.tree.map(trim, params, _unpadded(chosen, cell, active))))
    return entries


def _unpadded(chosen: Plan, cell: Cell, active: Sequence[int]) -> Any:
    """Shapes of the parameters of the network of some widths, without padding."""

    def init(values: Any) -> Any:
        return anchored(call_run(chosen.run, cell.fixed, values)).params0

    return jax.eval_shape(init, first_member(chosen.axes, active))
