"""The values of axes one by one, as a store tells them apart: a store grows by values that it lacks and yields those it has."""

import hashlib
from collections.abc import Container, Mapping
from typing import Any

import jax
import numpy as np

from jaxdyn.ensemble.compiling.programme import on_host
from jaxdyn.ensemble.deciding.axes import Axes, LoopAxis, VmapAxis
from jaxdyn.ensemble.deciding.cells import Held, Layout

_ROUNDING = 1e-6  # labels nearer than this share of them are one number in two precisions


def elements(axis: LoopAxis | VmapAxis) -> dict[str, list[Any]]:
    """The labels of an axis, and a hash of the value behind each."""
    if isinstance(axis, LoopAxis):
        values = list(axis.values)
    else:
        leaves = [on_host(leaf) for leaf in jax.tree.leaves(axis.values)]
        values = [[leaf[i] for leaf in leaves] for i in range(len(axis))]
    return {"labels": axis.labels.tolist(), "values": [digest(value) for value in values]}


def digest(*values: Any) -> str:
    """A short hash of values; functions count by name."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(values, is_leaf=callable):
        is_array = isinstance(leaf, (np.ndarray, jax.Array, int, float, bool, str, np.generic))
        found.update(repr(on_host(leaf).tolist()).encode() if is_array else str(getattr(leaf, "__name__", "")).encode())
    return found.hexdigest()[:16]


def hold(axes: Axes, told: Mapping[str, Any], layout: Layout, finished: Container[str], where: Any) -> Held:
    """Where along a store's axes the values of a sweep lie; values that the store lacks come behind its own.

    Args:
        axes: the axes of the sweep.
        told: the elements of the store's axes, by axis.
        layout: how what the store holds was cut.
        finished: keys of the cells that are computed.
        where: the store, for messages.

    Raises:
        ValueError: where the store has other axes, or another value at a label.
    """
    own = {axis.name: elements(axis) for axis in axes.every}
    if list(told) != list(own):
        raise ValueError(
            f"The store {str(where)!r} belongs to another sweep: its axes are {list(told)}, asked were {list(own)}. Ask for the same "
            "axes in the same order, or choose another path for `store=`."
        )
    places, shape = [], []
    for name, asked in own.items():
        labels = list(told[name]["labels"])
        known = {label: position for position, label in enumerate(labels)}
        for label, value in zip(asked["labels"], asked["values"], strict=True):
            wrong = _wrong(label, value, told[name], known)
            if wrong:
                raise ValueError(
                    f"The store {str(where)!r} belongs to another sweep: axis `{name}`: {wrong}; the store has {_few(labels)}, asked were "
                    f"{_few(asked['labels'])}. Ask for the store's values and any new ones, or choose another path for `store=`."
                )
        new = [label for label in asked["labels"] if label not in known]
        known |= {label: len(labels) + i for i, label in enumerate(new)}
        places.append(np.asarray([known[label] for label in asked["labels"]]))
        shape.append(len(known))
    return Held(layout, tuple(places), tuple(shape), finished)


def merged(axes: Axes, told: Mapping[str, Any] | None) -> dict[str, dict[str, list[Any]]]:
    """The elements of a store's axes, and behind them those of the sweep's axes that it lacks."""
    found = {}
    for axis in axes.every:
        asked = elements(axis)
        held = {"labels": [], "values": []} if told is None else told[axis.name]
        new = [i for i, label in enumerate(asked["labels"]) if label not in held["labels"]]
        found[axis.name] = {part: [*held[part], *(asked[part][i] for i in new)] for part in held}
    return found


def _wrong(label: Any, value: str, told: Mapping[str, Any], known: Mapping[Any, int]) -> str | None:
    """What speaks against an asked value, in words."""
    if label in known:
        if told["values"][known[label]] != value:
            return f"the value at {label!r} is another one than the store's"
        return None
    if isinstance(label, str) != isinstance(next(iter(known)), str):
        return f"{label!r} is a label of another kind"
    if isinstance(label, float):
        near = [one for one in known if abs(one - label) <= _ROUNDING * abs(label)]
        if near:
            return f"{label!r} is the store's {near[0]!r} in another precision"
    return None


def _few(labels: list[Any]) -> str:
    """How many labels, and the first and last of them."""
    shown = ", ".join(map(repr, labels)) if len(labels) <= 4 else f"{labels[0]!r}, {labels[1]!r} … {labels[-1]!r}"
    return f"{len(labels)} value{'s' if len(labels) > 1 else ''}, {shown}"
