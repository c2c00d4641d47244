"""What a run leaves behind, and the least it needs to go on."""

from typing import Any, NamedTuple

from jaxdyn._typing import Params


class State(NamedTuple):
    """The least that the next step, or a resumed run, needs.

    Attributes:
        step: number of completed steps; one scalar for a whole ensemble, never batched.
        params: parameters.
        opt_state: state of the optax transformation.
        diverged_at: the step at which the run left the finite numbers (or `diverge_above`), -1 until then.
        memory: `{name: memory}` of the probes that have one.
    """

    step: Any
    params: Params
    opt_state: Any
    diverged_at: Any
    memory: Any


class Trajectory(NamedTuple):
    """A finished run.

    Attributes:
        values: `{name: [t, *dims]}`, the recorded values.
        final: the last state.
        diverged_at: the step at which the run diverged, or -1.
    """

    values: dict[str, Any]
    final: State
    diverged_at: Any
