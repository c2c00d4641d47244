"""When a run has spent its budget of epochs, or reached its training loss."""

from typing import Any

import numpy as np


def epoch(num_train: int, size: Any) -> Any:
    """Steps of an epoch with batches of a size, rounded up."""
    return -(-num_train // size)


def reached(loss: np.ndarray, window: Any, target: Any) -> np.ndarray:
    """The first record at which the loss has been below the target for a window of records.

    Args:
        loss: losses, [..., t]; NaN is not below.
        window: number of records, broadcast against [...].
        target: the loss, broadcast against [...].

    Returns:
        Positions, [...]; −1 where there is none.

    Example:
        >>> reached(np.array([3.0, 1.0, 3.0, 1.0, 1.0]), 2, 2.0).tolist()
        4
    """
    position = np.arange(loss.shape[-1])
    last = np.maximum.accumulate(np.where(loss < np.asarray(target)[..., None], -1, position), axis=-1)
    is_met = position - last >= np.asarray(window)[..., None]
    return np.where(is_met.any(axis=-1), is_met.argmax(axis=-1), -1)
