"""How well the run has learned: losses, accuracy, outputs.

Each probe is a frozen dataclass `Snapshot -> Array`; `dims` names the axes of its value.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdyn.dynamics.record import Snapshot


@dataclass(frozen=True)
class Loss:
    """Loss on the whole training set, a scalar. With minibatches it costs a full forward pass: record it at a cadence."""

    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        return snapshot.loss(snapshot.apply(snapshot.params, snapshot.task.x), snapshot.task.y)


@dataclass(frozen=True)
class BatchLoss:
    """Loss on the batch that enters the next step, a scalar; free, since the step computes it anyway."""

    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        return snapshot.batch_loss


@dataclass(frozen=True)
class TestLoss:
    """Loss on the test set, a scalar."""

    __test__: ClassVar[bool] = False
    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        x, y = _test_set(snapshot)
        return snapshot.loss(snapshot.apply(snapshot.params, x), y)


@dataclass(frozen=True)
class Accuracy:
    """Share of test examples classified rightly, in [0, 1]: by the sign for one output, by the largest of several."""

    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        x, y = _test_set(snapshot)
        prediction = snapshot.apply(snapshot.params, x)
        if y.shape[1] == 1:
            return jnp.mean(jnp.sign(prediction) == jnp.sign(y))
        return jnp.mean(jnp.argmax(prediction, axis=1) == jnp.argmax(y, axis=1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs of the trained function, [n, k].

    Attributes:
        x: inputs [n, *d]; the training inputs when None.
    """

    x: Any = None
    dims: ClassVar[tuple[str, ...]] = ("example", "output")

    def __call__(self, snapshot: Snapshot) -> Any:
        return snapshot.apply(snapshot.params, snapshot.task.x if self.x is None else self.x)


def _test_set(snapshot: Snapshot) -> tuple[Any, Any]:
    if snapshot.task.x_test is None or snapshot.task.y_test is None:
        raise ValueError(
            "This probe needs a test set, but the task has none; give `x_test` and `y_test` (or `n_test=`) when making the task."
        )
    return snapshot.task.x_test, snapshot.task.y_test
