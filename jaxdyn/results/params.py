"""Final parameters beside a dataset: one file a cell, `<store>/params/<key>.npz`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdyn.results.arrays import load_arrays, save_arrays


def save_params(where: Path, key: str, index: Mapping[str, list[int]], params: Any) -> None:
    """Save the parameters of one cell: leaves with one leading member axis, row-major over the axes, `index` their positions by axis."""
    import jax

    save_arrays(where / "params" / f"{key}.npz", jax.device_get(params), {"index": dict(index)})


def params(store: Any, **selection: Any) -> Any:
    """The final parameters of one member, or of several, of a sweep that ran with `keep_params=True`.

    Args:
        store: path of the store.
        **selection: labels by axis, `width=256, seed=3`; an axis that is left out keeps all its members, as a leading
            axis of every leaf, in the order of the dataset's axes.

    Returns:
        The parameters as a pytree of dictionaries and lists.

    Raises:
        ValueError: for an unknown axis or label, members that are not done or differ in shape, or a store without
            parameters.
    """
    import jax

    from jaxdyn.results.store import open as open_store

    dataset = open_store(store)
    files = sorted(Path(store).glob("params/*.npz"))
    if not files:
        raise ValueError(f"The store {str(store)!r} holds no parameters; run the sweep with `keep_params=True`.")
    axes = dataset["done"].dims
    picks = {axis: _positions(dataset, axis, selection) for axis in axes}
    unknown = sorted(set(selection) - set(axes))
    if unknown:
        raise ValueError(f"The store has no axis `{unknown[0]}`; its axes are {list(axes)}.")
    shape = tuple(len(picks[axis]) for axis in axes)
    trees: dict[tuple[int, ...], Any] = {}
    for file in files:
        trees.update(_members(file, axes, picks))
    wanted = [tuple(picks[axis][i] for axis, i in zip(axes, where, strict=True)) for where in np.ndindex(*shape)]
    absent = [where for where in wanted if where not in trees]
    if absent:
        labels = {axis: dataset[axis].values[i].item() for axis, i in zip(axes, absent[0], strict=True)}
        raise ValueError(f"The parameters of {labels} are not in the store {str(store)!r}: that cell is not done yet.")
    kept = tuple(len(picks[axis]) for axis in axes if axis not in selection)
    chosen = [trees[where] for where in wanted]
    if len({str(jax.tree.map(np.shape, tree)) for tree in chosen}) > 1:
        raise ValueError(
            "The selected members have parameters of different shapes; select one label of the axes they differ in."
        )
    return jax.tree.map(lambda *leaves: np.stack(leaves).reshape((*kept, *leaves[0].shape)), *chosen)


def _positions(dataset: Any, axis: str, selection: Mapping[str, Any]) -> list[int]:
    labels = dataset[axis].values
    if axis not in selection:
        return list(range(len(labels)))
    found = np.flatnonzero(labels == selection[axis])
    if found.size == 0:
        raise ValueError(f"Axis `{axis}` has no label {selection[axis]!r}; its labels are {labels.tolist()}.")
    return [int(found[0])]


def _members(file: Path, axes: Any, picks: Mapping[str, list[int]]) -> dict[tuple[int, ...], Any]:
    """The wanted members of one cell, by their position along the axes."""
    import jax

    tree, told = load_arrays(file)
    index = told["index"]
    found = {}
    for row, place in enumerate(np.ndindex(*(len(index[axis]) for axis in axes))):
        where = tuple(index[axis][i] for axis, i in zip(axes, place, strict=True))
        if all(i in picks[axis] for axis, i in zip(axes, where, strict=True)):
            found[where] = jax.tree.map(lambda leaf, row=row: leaf[row], tree)
    return found
