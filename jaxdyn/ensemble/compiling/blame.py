"""Which axis is at fault where a run cannot be traced.

A traced value has no shape, truth, hash or text that Python could use, and the errors are many. So the trace is tried again with
axes as plain values, the way `loop=` hands them over: where that gets past the error, it failed only because they were traced.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import jax
import numpy as np

from jaxdyn.models.width import Width

_NOT_CONCRETE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


@contextmanager
def blaming(body: Callable[[dict[str, Any]], Any], values: Mapping[str, Any]) -> Iterator[None]:
    """Name the axes at fault where tracing fails inside this context.

    Args:
        body: what is traced there, as a function of the vmapped arguments of one member.
        values: those arguments of one member, concrete.

    Raises:
        TypeError: where tracing fails and would not with axes in `loop=`; other errors pass.
    """
    try:
        yield
    except Exception as error:
        found, several = _at_fault(body, values, error), "`, `".join(values)
        told = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if found:
            one = len(found) == 1
            raise TypeError(
                f"The vmapped ax{'is' if one else 'es'} `{'`, `'.join(found)}` {'is' if one else 'are'} traced, but used as a fixed "
                "value: in a shape, a count, a Python `if`, an index, a text, a static argument, or a schedule such as "
                f"optax.exponential_decay. Move {'it' if one else 'them'} to `loop=`, or use jax.numpy there. The error was {told}"
            ) from error
        if values and isinstance(error, _NOT_CONCRETE):
            raise TypeError(
                f"`run` is traced, its vmapped axes `{several}` too, but it uses what jax.numpy computes there as a fixed value. Compute "
                f"that with NumPy, from axes in `loop=`. The error was {told}"
            ) from error
        raise


def _at_fault(body: Callable[[dict[str, Any]], Any], values: Mapping[str, Any], error: Exception) -> list[str]:
    """The fewest axes as plain values that take the trace past an error; none where no axis does."""
    for scalar in (np.ndarray.item, itemgetter(())):  # as a list in `loop=` hands it over, and as an array
        plain = {name: _plain(value, scalar) for name, value in values.items()}
        reached = _reached(body, plain, {})
        if reached == _place(error):
            continue
        found = dict(plain)
        for name in plain:
            fewer = {other: value for other, value in found.items() if other != name}
            traced = {other: value for other, value in values.items() if other not in fewer}
            found = fewer if _reached(body, fewer, traced) == reached else found
        return list(found)
    return []


def _reached(body: Callable[[dict[str, Any]], Any], plain: Mapping[str, Any], traced: Mapping[str, Any]) -> Any:
    """Where a trace fails; None where it does not."""
    try:
        jax.eval_shape(lambda traced: (body({**plain, **traced}), None)[1], traced)
    except Exception as error:
        return _place(error)
    return None


def _place(error: Exception) -> Any:
    """What kind an error is of, and the line that raised it."""
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    return type(error), frame.f_code, line


def _plain(value: Any, scalar: Callable[[np.ndarray], Any]) -> Any:
    """An argument as `loop=` would hand it over."""
    if isinstance(value, Width):
        return int(value.active)

    def leaf(array: Any) -> Any:
        if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
            return array
        return scalar(np.asarray(array)) if np.ndim(array) == 0 else np.asarray(array)

    return jax.tree.map(leaf, value)
