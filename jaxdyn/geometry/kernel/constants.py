"""NumPy arrays that a function makes of the number of its examples, such as `numpy.arange(n)`.

They reach a programme as constants. What they hold is read for 2 and for 3 examples, and read again for as many as there are.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxdyn._jaxpr import inner
from jaxdyn.geometry.kernel.axes import holds_places


def known(first: Any, second: Any) -> dict[str, Any]:
    """What is known of a constant, as the fields of a value, from its two forms for different numbers of examples.

    Args:
        first: an array.
        second: the same of another number of examples.

    Returns:
        Whether it `is_ranked`; whether it holds the `places` of the examples, as a row or a column does; whether it `is_never`
        true.
    """
    shape = np.shape(first)
    axes = [axis for axis, (a, b) in enumerate(zip(shape, np.shape(second), strict=True)) if a != b]
    if not axes:
        is_numpy = isinstance(first, np.ndarray) and isinstance(second, np.ndarray) and first is not second
        return {"is_ranked": is_numpy and not np.array_equal(first, second)}
    try:
        pair = [np.asarray(c) for c in (first, second)]
    except (jax.errors.TracerArrayConversionError, TypeError):  # traced, or random keys
        return {"is_ranked": True}
    if axes == [0] and holds_places(pair[0].dtype) and all(_is_column(c) for c in pair):
        return {"places": (True,)}
    if len(axes) == 1:
        rows = [np.moveaxis(c, axes[0], 0) for c in pair]
        if all((c == rows[0][:1]).all() for c in rows):  # alike for all examples
            return {"is_never": pair[0].dtype == bool and not pair[0].any()}
    return {"is_ranked": True}


def confirmed(traces: Sequence[Any], trace: Callable[[], Any]) -> bool:
    """Whether constants that were read from the programmes for few examples hold the same in that for all, which `trace` gives."""
    pairs = list(zip(*map(_arrays, traces), strict=False))
    read = [known(a, b) if np.shape(a) != np.shape(b) else {"is_ranked": True} for a, b in pairs]
    if all(found.get("is_ranked") for found in read):
        return True
    third = list(_arrays(trace()))
    told = zip(read, pairs, third, strict=False)
    return len(third) == len(pairs) and all(found.get("is_ranked") or known(a, c) == found for found, (a, _), c in told)


def _is_column(array: np.ndarray) -> bool:
    return array.size == len(array) and bool(np.array_equal(array.reshape(-1), np.arange(len(array))))


def _arrays(closed: Any) -> Iterator[Any]:
    """The arrays among the constants of a programme and of those within it, in their order."""
    yield from (c for c in getattr(closed, "consts", ()) if np.ndim(c))
    for eqn in getattr(closed, "jaxpr", closed).eqns:
        yield from (v.val for v in eqn.invars if isinstance(v, core.Literal) and np.ndim(v.val))
        for called in inner(eqn):
            yield from _arrays(called)
