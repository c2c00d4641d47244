"""The final parameters of a cell without the padding of its widths, as they are kept beside a store."""

from typing import Any

import jax
import numpy as np

from jaxdyn.dynamics import anchored
from jaxdyn.ensemble.compiling.programme import call_run
from jaxdyn.ensemble.deciding.cells import Cell, Plan, first_member


def trimmed(chosen: Plan, cell: Cell, params: Any) -> list[tuple[str, dict[str, list[int]], Any]]:
    """One entry a width of the cell: `(key, positions by axis, tree of [members, …])`.

    Args:
        chosen: the plan of the cell.
        cell: whose parameters.
        params: pytree whose leaves have one leading member axis.
    """
    axes = chosen.axes
    index = {axis.name: [i] for axis, i in zip(axes.loop, cell.loop, strict=True)}
    index |= {axis.name: [int(i) for i in pick] for axis, pick in zip(axes.vmap, cell.picks, strict=True)}
    if axes.width is None:
        return [(cell.key, index, params)]
    entries = []
    width = axes.vmap[axes.width]
    for place, position in enumerate(cell.picks[axes.width]):
        shapes = _unpadded(chosen, cell, int(np.asarray(width.values.active)[position]))

        def trim(leaf: Any, shape: Any, place: int = place) -> np.ndarray:
            members = np.asarray(leaf).reshape((*cell.shape, *leaf.shape[1:]))
            members = np.take(members, place, axis=axes.width).reshape(-1, *leaf.shape[1:])
            return members[(slice(None), *(slice(0, length) for length in shape.shape))]

        own = index | {width.name: [int(position)]}
        entries.append((f"{cell.key}-{position}", own, jax.tree.map(trim, params, shapes)))
    return entries


def _unpadded(chosen: Plan, cell: Cell, active: int) -> Any:
    """Shapes of the parameters of the network of one width, without padding."""

    def init(values: Any) -> Any:
        return anchored(call_run(chosen.run, cell.fixed, values)).params0

    return jax.eval_shape(init, first_member(chosen.axes, active))
