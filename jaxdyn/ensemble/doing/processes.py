"""Several processes, on one machine or many, share a sweep: each computes its own cells and writes them into one store.

`connect` joins them through `jax.distributed`, which knows Slurm, MPI, Kubernetes and TPU pods. Members never talk to each
other, so that a process runs its cells on its own devices and waits for the others twice: for the store to be laid out, and at
the end. Every group of cells is cut into at least as many blocks as there are processes; process 0 decides how, and the store
tells the others. If a process dies, the others finish what they have and say so; the same command run again, by as many
processes as one likes, computes what is missing.
"""

import atexit
import contextlib
import os
import time
from collections.abc import Sequence

import jax

from jaxdyn.ensemble.deciding import cost
from jaxdyn.ensemble.deciding.cells import Cell

_SIGN_OFF = 2.0  # seconds that process 0 stays after the last meeting


def connect(
    address: str | None = None, num_processes: int | None = None, process: int | None = None, *, heartbeat: int = 100
) -> tuple[int, int]:
    """Join the processes of a job, before JAX is first used. Where a CPU was split into devices, XLA gets two threads for each.

    Args:
        address: `host:port` of process 0; found from the scheduler, or JAX_COORDINATOR_ADDRESS, when None.
        num_processes: how many there are; found from the scheduler, or JAX_NUM_PROCESSES, when None.
        process: which one this is, from 0; found from the scheduler, or JAX_PROCESS_ID, when None.
        heartbeat: seconds without a sign of life after which a process counts as dead.

    Returns:
        Which process this is, and how many there are.

    Raises:
        ValueError: where neither the arguments nor the scheduler tell.
    """
    number = {"JAX_NUM_PROCESSES": num_processes, "JAX_PROCESS_ID": process}
    given = {
        name: int(os.environ[name]) if value is None and name in os.environ else value for name, value in number.items()
    }
    num_devices = jax.config.values["jax_num_cpu_devices"]
    if num_devices > 1:  # devices that wait for each other, as processes do between cells, hang with fewer threads
        os.environ["NPROC"] = str(max(2 * num_devices, int(os.environ.get("NPROC", 0))))
    jax.config.update("jax_enable_recoverability", True)  # one process that dies does not take the others down
    try:
        jax.distributed.initialize(
            coordinator_address=address,
            num_processes=given["JAX_NUM_PROCESSES"],
            process_id=given["JAX_PROCESS_ID"],
            heartbeat_timeout_seconds=heartbeat,
        )
    except ValueError as error:
        raise ValueError(
            f"The processes of this job could not be joined: {error} Run it under Slurm, MPI or Kubernetes, or set "
            "JAX_COORDINATOR_ADDRESS=host:port (of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID for each process."
        ) from error
    atexit.register(_leave)
    return jax.process_index(), jax.process_count()


def _leave() -> None:
    """Let the others sign off before process 0, which keeps their books, is gone."""
    if jax.process_count() == 1:
        return
    with contextlib.suppress(RuntimeError):
        wait("jaxdyn: leaving")
    if is_first():
        time.sleep(_SIGN_OFF)
    else:
        jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this process is the one that lays out the store and speaks for all."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Wait until all processes have come here.

    Raises:
        RuntimeError: where one of them has died.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    try:
        multihost_utils.sync_global_devices(name)
    except Exception as error:  # what JAX raises depends on how the process died, and on the backend
        raise RuntimeError(
            "Another process of this job has died. Everything finished is in the store, and checkpoints of what was not; run the "
            f"same command again, with any number of processes, to compute what is missing. JAX says: {str(error).splitlines()[0][:200]}"
        ) from error


def share(cells: Sequence[Cell], num_processes: int) -> list[list[Cell]]:
    """The cells of each process, in order: each goes to the one that would be done first, compilations included."""
    load = [0.0] * num_processes
    known: list[set[str]] = [set() for _ in range(num_processes)]
    dealt: list[list[Cell]] = [[] for _ in range(num_processes)]

    def price(cell: Cell, process: int) -> float:
        compiling = 0.0 if cell.group in known[process] else cost.COMPILATION
        return compiling + cell.step.seconds * cell.steps * cell.num_members / max(len(cell.placement.devices), 1)

    for cell in cells:
        process = min(range(num_processes), key=lambda one: (load[one] + price(cell, one), one))
        load[process] += price(cell, process)
        known[process].add(cell.group)
        dealt[process].append(cell)
    return dealt
