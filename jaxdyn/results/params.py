"""Final parameters beside a dataset: one orbax checkpoint a cell, in `<store>/params/<key>`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_INDEX = "index.json"


def save_params(where: Path, key: str, index: Mapping[str, list[int]], params: Any) -> None:
    """Save the parameters of one cell.

    Args:
        where: the store's path.
        key: the cell.
        index: `{axis: positions}` that the cell covers, in the order of the axes.
        params: pytree whose leaves have one leading member axis, row-major over the axes.
    """
    import jax
    import orbax.checkpoint as ocp

    folder = where.absolute() / "params" / key
    with ocp.StandardCheckpointer(multiprocessing_options=alone()) as checkpointer:
        checkpointer.save(folder / "tree", jax.device_get(params), force=True)
    (folder / _INDEX).write_text(json.dumps(index))


def alone() -> Any:
    """Orbax options under which a process saves and restores by itself, without waiting for the others of its job."""
    import jax
    import orbax.checkpoint as ocp

    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process-{process}"
    )


def params(store: Any, **selection: Any) -> Any:
    """The final parameters of one member, or of several, of a sweep that ran with `keep_params=True`.

    Args:
        store: path of the store.
        **selection: labels by axis, `width=256, seed=3`; an axis that is left out keeps all its members, as a leading
            axis of every leaf, in the order of the dataset's axes.

    Returns:
        The parameters as a pytree (dictionaries and lists, as orbax restores them).

    Raises:
        ValueError: for an unknown axis or label, members that are not done or differ in shape, or a store without
            parameters.
    """
    import jax

    from jaxdyn.results.store import open as open_store

    root = Path(store).absolute()
    dataset = open_store(root)
    if not any(root.glob(f"params/*/{_INDEX}")):
        raise ValueError(f"The store {str(store)!r} holds no parameters; run the sweep with `keep_params=True`.")
    axes = dataset["done"].dims
    picks = {axis: _positions(dataset, axis, selection) for axis in axes}
    unknown = sorted(set(selection) - set(axes))
    if unknown:
        raise ValueError(f"The store has no axis `{unknown[0]}`; its axes are {list(axes)}.")
    shape = tuple(len(picks[axis]) for axis in axes)
    trees: dict[tuple[int, ...], Any] = {}
    for folder in sorted((root / "params").iterdir()):
        if (folder / _INDEX).exists():
            trees.update(_members(folder, axes, picks))
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


def _members(folder: Path, axes: Any, picks: Mapping[str, list[int]]) -> dict[tuple[int, ...], Any]:
    """The wanted members of one cell, by their position along the axes; padded widths keep their padding."""
    import jax
    import orbax.checkpoint as ocp

    index = json.loads((folder / _INDEX).read_text())
    where = [
        (row, tuple(index[axis][i] for axis, i in zip(axes, place, strict=True)))
        for row, place in enumerate(np.ndindex(*(len(index[axis]) for axis in axes)))
    ]
    wanted = [
        (row, place) for row, place in where if all(i in picks[axis] for axis, i in zip(axes, place, strict=True))
    ]
    if not wanted:
        return {}
    with ocp.StandardCheckpointer(multiprocessing_options=alone()) as checkpointer:
        tree = checkpointer.restore(folder / "tree")
    return {place: jax.tree.map(lambda leaf, row=row: np.asarray(leaf[row]), tree) for row, place in wanted}
