"""The axes of a sweep, and how its members are cut into cells.

Two kinds of axes, named for what happens: a `loop` axis compiles anew (architecture, depth, expansion, batch size:
shapes or code), a `vmap` axis is traced and batched (rate, seed, scale, hidden width). One value of every loop axis and
one bucket of every axis of widths make a *cell*, whose members run together.

A padded width costs what the largest width of its bucket costs, and every bucket costs a compilation: `buckets` weighs
the two.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxdyn.models.width import Width

_ROUNDS = 10  # of cutting the axes of widths in turn, at most


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
    def widths(self) -> tuple[int, ...]:
        """Positions of the axes of hidden widths among the vmap axes."""
        return tuple(i for i, axis in enumerate(self.vmap) if isinstance(axis.values, Width))

    def loop_values(self, index: Sequence[int]) -> dict[str, Any]:
        """What `run` receives for the loop axes at an index."""
        return {axis.name: axis.values[i] for axis, i in zip(self.loop, index, strict=True)}

    def members(
        self, picks: Sequence[np.ndarray], maxima: Sequence[int] | None = None
    ) -> tuple[dict[str, Any], tuple[int, ...]]:
        """The vmapped arguments of a block of members, each with one leading member axis, and the shape they unflatten to.

        Args:
            picks: indices along each vmap axis.
            maxima: to how many units each axis of widths is padded; the largest width of its picks when None.
        """
        shape = tuple(len(pick) for pick in picks)
        grids = np.meshgrid(*picks, indexing="ij") if picks else []
        padded = iter(maxima or [])
        arguments = {}
        for axis, grid in zip(self.vmap, grids, strict=True):
            flat = grid.reshape(-1)
            values = jax.tree.map(lambda leaf, flat=flat: leaf[flat], axis.values)
            if isinstance(values, Width):
                maximum = int(np.max(values.active)) if maxima is None else next(padded)
                values = Width(maximum=maximum, active=values.active)
            arguments[axis.name] = values
        return arguments, shape


def blocks(picks: Sequence[np.ndarray], lengths: Sequence[int]) -> list[tuple[np.ndarray, ...]]:
    """A box of members cut into boxes of at most `lengths` along each vmap axis, in order."""
    cuts = [
        [pick[start : start + length] for start in range(0, len(pick), length)]
        for pick, length in zip(picks, lengths, strict=True)
    ]
    return list(itertools.product(*cuts))


def boxes(mask: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """The true entries of a mask as disjoint boxes, each an index array an axis; along an axis, equal slices stay together.

    Example:
        >>> [[pick.tolist() for pick in box] for box in boxes(np.array([[0, 1], [0, 1], [1, 1]], bool))]
        [[[0, 1], [1]], [[2], [0, 1]]]
    """
    if mask.ndim == 0:
        return [()] if mask else []
    alike: dict[bytes, list[int]] = {}
    for i, part in enumerate(mask):
        alike.setdefault(part.tobytes(), []).append(i)
    return [(np.asarray(same), *rest) for same in alike.values() for rest in boxes(np.asarray(mask[same[0]]))]


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
    return Axes(
        tuple(_loop_axis(name, values) for name, values in loop.items()),
        tuple(_vmap_axis(name, values) for name, values in vmap.items()),
    )


def buckets(
    values: Sequence[np.ndarray], cost: Callable[[tuple[int, ...]], float], compilation: float
) -> list[list[np.ndarray]]:
    """Which widths run padded together, for each axis of widths; what is compiled is the product of the axes' buckets.

    The axes are cut in turn, each at least total cost given the cuts of the others, until nothing changes: for one axis the optimum, for
    several a local one.

    Args:
        values: the widths of each axis.
        cost: seconds that all members of one combination of widths take when padded to these maxima.
        compilation: seconds that one more compilation takes.

    Returns:
        For each axis its buckets as index arrays, smallest widths first.
    """
    cuts = [[np.argsort(one, kind="stable")] for one in values]
    for _ in range(_ROUNDS):
        before = [len(cut) for cut in cuts]
        for axis, own in enumerate(values):
            others = [[(int(one[b].max()), len(b)) for b in cut] for one, cut in zip(values, cuts, strict=True)]
            others[axis] = [(0, 1)]
            beside = [tuple(zip(*cell, strict=True)) for cell in itertools.product(*others)]

            def price(width: int, axis: int = axis, beside: Any = beside) -> float:
                return sum(math.prod(n) * cost((*m[:axis], width, *m[axis + 1 :])) for m, n in beside)

            cuts[axis] = _cut(own, price, len(beside) * compilation)
        if [len(cut) for cut in cuts] == before or len(values) == 1:
            break
    return [[np.sort(bucket) for bucket in cut] for cut in cuts]


def _cut(values: np.ndarray, price: Callable[[int], float], more: float) -> list[np.ndarray]:
    """The buckets of one axis at least cost: each costs `more`, and `price(its maximum)` for every width in it."""
    order = np.argsort(values, kind="stable")
    best: list[tuple[float, list[np.ndarray]]] = [(0.0, [])]
    for end in range(1, len(order) + 1):
        each = price(int(values[order[end - 1]]))
        options = [
            (best[start][0] + more + (end - start) * each, [*best[start][1], order[start:end]]) for start in range(end)
        ]
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][1]


def loop_indices(axes: Axes) -> Iterable[tuple[int, ...]]:
    """All index tuples of the loop axes."""
    return itertools.product(*(range(len(axis)) for axis in axes.loop))


def _loop_axis(name: str, values: Any) -> LoopAxis:
    if isinstance(values, Mapping):
        labels, entries = list(values), list(values.values())
    else:
        entries = list(values)
        plain = (bool, int, float, str, np.generic)
        labels = [one if isinstance(one, plain) else str(getattr(one, "__name__", one)) for one in entries]
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
