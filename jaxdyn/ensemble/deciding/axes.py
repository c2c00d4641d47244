"""The axes of a sweep, and how its members are cut into cells.

Two kinds of axes, named for what happens: a `loop` axis compiles anew (architecture, depth, expansion, batch size:
shapes or code), a `vmap` axis is traced and batched (rate, seed, scale, hidden width). One value of every loop axis and
one bucket of widths make a *cell*, whose members run together.

A padded width costs what the largest width of its bucket costs, and every bucket costs a compilation: `buckets` weighs
the two.
"""

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxdyn.models.width import Width


@dataclass(frozen=True, eq=False)
class LoopAxis:
    """A loop axis: its name, the values handed to `run`, and their labels."""

    name: str
    values: tuple[Any, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, eq=False)
class VmapAxis:
    """A vmap axis: its name, a pytree with one leading axis, and the coordinate."""

    name: str
    values: Any
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Axes:
    """All axes of a sweep, in the order of the dataset's dimensions."""

    loop: tuple[LoopAxis, ...]
    vmap: tuple[VmapAxis, ...]

    @property
    def every(self) -> tuple["LoopAxis | VmapAxis", ...]:
        """All axes, loop axes first."""
        return self.loop + self.vmap

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, loop axes first."""
        return tuple(len(axis) for axis in self.every)

    @property
    def width(self) -> int | None:
        """Position of the width axis among the vmap axes."""
        found = [i for i, axis in enumerate(self.vmap) if isinstance(axis.values, Width)]
        return found[0] if found else None

    @property
    def widths(self) -> np.ndarray:
        """The values of the width axis; empty where there is none."""
        return np.asarray([] if self.width is None else self.vmap[self.width].values.active)

    def loop_values(self, index: Sequence[int]) -> dict[str, Any]:
        """What `run` receives for the loop axes at an index."""
        return {axis.name: axis.values[i] for axis, i in zip(self.loop, index, strict=True)}

    def members(self, picks: Sequence[np.ndarray]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """The vmapped arguments of a block of members, each with one leading member axis, and the shape they unflatten to.

        Args:
            picks: indices along each vmap axis.
        """
        shape = tuple(len(pick) for pick in picks)
        grids = np.meshgrid(*picks, indexing="ij") if picks else []
        arguments = {}
        for axis, grid in zip(self.vmap, grids, strict=True):
            flat = grid.reshape(-1)
            values = jax.tree.map(lambda leaf, flat=flat: leaf[flat], axis.values)
            if isinstance(values, Width):
                values = Width(maximum=int(np.max(values.active)), active=values.active)
            arguments[axis.name] = values
        return arguments, shape

    def blocks(self, bucket: np.ndarray | None, lengths: Sequence[int]) -> Iterator[tuple[np.ndarray, ...]]:
        """Cut the members of a bucket of widths into blocks of at most `lengths` along each vmap axis, in order."""
        whole = [np.arange(len(axis)) for axis in self.vmap]
        if bucket is not None and self.width is not None:
            whole[self.width] = bucket
        cuts = [
            [pick[start : start + length] for start in range(0, len(pick), length)]
            for pick, length in zip(whole, lengths, strict=True)
        ]
        yield from itertools.product(*cuts)


def parse(run: Callable[..., Any], loop: Mapping[str, Any] | None, vmap: Mapping[str, Any] | None) -> Axes:
    """Check the axes of a sweep against each other and against the signature of `run`.

    Raises:
        TypeError: for an axis that `run` does not take, or an argument of `run` without an axis.
        ValueError: for an empty, ragged or repeated axis.
    """
    loop, vmap = dict(loop or {}), dict(vmap or {})
    both = sorted(set(loop) & set(vmap))
    if both:
        raise ValueError(f"Axis `{both[0]}` is given in `loop` and in `vmap`; keep one of them.")
    _check_signature(run, [*loop, *vmap])
    axes = Axes(
        tuple(_loop_axis(name, values) for name, values in loop.items()),
        tuple(_vmap_axis(name, values) for name, values in vmap.items()),
    )
    if sum(isinstance(axis.values, Width) for axis in axes.vmap) > 1:
        raise ValueError("Only one vmapped axis can be `jd.widths([...])`; put the other widths in `loop=`.")
    return axes


def buckets(axes: Axes, cost: Callable[[int], float], compilation: float) -> list[np.ndarray | None]:
    """Which widths run padded together, by least total cost.

    Args:
        axes: the axes.
        cost: seconds that all members of one width take when padded to a maximum.
        compilation: seconds that one more compilation takes.

    Returns:
        Index arrays along the width axis, smallest widths first; `[None]` where there is no width axis.
    """
    if axes.width is None:
        return [None]
    values = axes.widths
    order = np.argsort(values, kind="stable")
    count = len(order)
    best: list[tuple[float, list[np.ndarray]]] = [(0.0, [])]
    for end in range(1, count + 1):
        price = cost(int(values[order[end - 1]]))
        options = [
            (best[start][0] + compilation + (end - start) * price, [*best[start][1], order[start:end]])
            for start in range(end)
        ]
        best.append(min(options, key=lambda option: option[0]))
    return [np.sort(bucket) for bucket in best[count][1]]


def loop_indices(axes: Axes) -> Iterable[tuple[int, ...]]:
    """All index tuples of the loop axes."""
    return itertools.product(*(range(len(axis)) for axis in axes.loop))


def _loop_axis(name: str, values: Any) -> LoopAxis:
    if isinstance(values, Mapping):
        labels, entries = list(values), list(values.values())
    else:
        entries = list(values)
        labels = [
            entry if isinstance(entry, (bool, int, float, str, np.generic)) else _label(entry) for entry in entries
        ]
    if not entries:
        raise ValueError(f"Axis `{name}` is empty; give at least one value.")
    if len(set(labels)) != len(labels):
        raise ValueError(f"Axis `{name}` has repeated labels {labels}; name the values with a dict.")
    coordinate = np.asarray(labels)
    if coordinate.dtype.kind not in "biuf":
        coordinate = np.asarray([str(label) for label in labels])
    return LoopAxis(name, tuple(entries), coordinate)


def _vmap_axis(name: str, values: Any) -> VmapAxis:
    if isinstance(values, Width):
        if np.ndim(values.active) != 1:
            raise ValueError(f"Axis `{name}` is a single Width; make the axis with `jd.widths([...])`.")
        return VmapAxis(name, values, np.asarray(values.active))
    if isinstance(values, (list, tuple, range)) and all(isinstance(v, (bool, int, float, np.generic)) for v in values):
        values = np.asarray(values)
    leaves = jax.tree.leaves(values)
    lengths = {leaf.shape[0] if getattr(leaf, "ndim", 0) else -1 for leaf in leaves}
    if not leaves or len(lengths) != 1 or min(lengths) < 1:
        shapes = [getattr(leaf, "shape", type(leaf).__name__) for leaf in leaves]
        raise ValueError(
            f"Axis `{name}` must be an array (or a pytree of arrays) with one common, non-empty leading axis, but has the "
            f"shapes {shapes}; what is not an array belongs in `loop=`."
        )
    if any(isinstance(leaf, np.ndarray) and leaf.dtype.kind in "OUS" for leaf in leaves):
        raise ValueError(f"Axis `{name}` holds {values!r}, which cannot be traced; put it in `loop=`.")
    for leaf in leaves:
        if jax.numpy.issubdtype(leaf.dtype, np.inexact) and not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"Axis `{name}` holds nan or inf: {np.asarray(leaf).tolist()}; drop that value.")
    is_plain = len(leaves) == 1 and leaves[0] is values and values.ndim == 1
    is_numeric = is_plain and jax.numpy.issubdtype(values.dtype, np.number)
    return VmapAxis(name, values, np.asarray(values) if is_numeric else np.arange(lengths.pop()))


def _label(value: Any) -> str:
    return str(getattr(value, "__name__", value))


def _check_signature(run: Callable[..., Any], names: list[str]) -> None:
    try:
        signature = inspect.signature(run)
    except (TypeError, ValueError):
        return
    parameters = signature.parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    unknown = [name for name in names if name not in known]
    if unknown and not takes_any:
        raise TypeError(f"`run` does not take the axis `{unknown[0]}`; its arguments are {sorted(known)}.")
    missing = [p.name for p in parameters if p.name in known and p.default is p.empty and p.name not in names]
    if missing:
        raise TypeError(
            f"`run` needs the argument `{missing[0]}`, but no axis has that name; add it to `loop=` or `vmap=`."
        )
