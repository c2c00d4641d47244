"""How the members of a cell lie on devices: padded to devices × chunk, shared out along one mesh axis `member`.

On each device the members run in chunks, one chunk after the other; within a chunk they are vmapped, or, where the chunk is
one member, run as they are (a vmap over one member costs up to twice as much on a CPU). Members never talk to each other. Members
in sequence give the same bits on one device and on four; vmapped chunks give the same bits on two devices and on four, and agree to
rounding with one, for which XLA compiles in its own way.

`use_cores` splits a CPU into one device a core. Most of what a step of a small network does is too small for XLA to
share out among threads; a member on each core is.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

MEMBER = "member"


@dataclass(frozen=True, eq=False)
class Placement:
    """Where members run, and how many together.

    Attributes:
        num_members: how many there are.
        chunk: how many are vmapped at a time on a device.
        devices: devices of this process.
    """

    num_members: int
    chunk: int
    devices: tuple[Any, ...]

    @property
    def padded(self) -> int:
        """Members after padding: a multiple of devices × chunk."""
        together = len(self.devices) * self.chunk
        return -(-self.num_members // together) * together

    @cached_property
    def mesh(self) -> Mesh:
        """The devices along the axis `member`."""
        return Mesh(np.asarray(self.devices), (MEMBER,))

    @property
    def split(self) -> Sharding:
        """Members shared out among the devices."""
        return self._lay(PartitionSpec(MEMBER))

    @property
    def whole(self) -> Sharding:
        """The same on every device."""
        return self._lay(PartitionSpec())

    def _lay(self, spec: PartitionSpec) -> Sharding:
        return SingleDeviceSharding(self.devices[0]) if len(self.devices) == 1 else NamedSharding(self.mesh, spec)

    def pad(self, tree: Any) -> Any:
        """Repeat the last member until they are `padded`, and lay them on the devices."""

        def padded(leaf: Any) -> Any:
            positions = np.minimum(np.arange(self.padded), leaf.shape[0] - 1)
            return jax.device_put(leaf if leaf.shape[0] == self.padded else leaf[positions], self.split)

        return jax.tree.map(padded, tree)

    def over_members(self, one: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
        """A function of one member as a function of all.

        What a member holds is overwritten where it lies: stacking new values beside the old ones instead costs two more copies of
        every state.

        Args:
            one: `(shared, held, own) -> (held, results)` of one member.

        Returns:
            `(shared, held, own) -> (held, results)`, where every leaf of `held`, `own` and the results has a leading axis of `padded`
            members.
        """

        def local(shared: Any, held: Any, own: Any) -> Any:
            def some(held: Any, item: Any) -> Any:
                position, mine = item
                here = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, position, keepdims=False), held)
                together = one if self.chunk == 1 else jax.vmap(one, in_axes=(None, 0, 0))
                new, results = together(shared, here, mine)
                put = jax.lax.dynamic_update_index_in_dim
                return jax.tree.map(lambda leaf, value: put(leaf, value, position, 0), held, new), results

            def cut(leaf: Any) -> Any:
                return leaf if self.chunk == 1 else leaf.reshape(-1, self.chunk, *leaf.shape[1:])

            def joined(leaf: Any) -> Any:
                return leaf if self.chunk == 1 else leaf.reshape(-1, *leaf.shape[2:])

            turns = jnp.arange(self.padded // (self.chunk * len(self.devices)))
            both = jax.lax.scan(some, jax.tree.map(cut, held), (turns, jax.tree.map(cut, own)))
            return jax.tree.map(joined, both)

        if len(self.devices) == 1:
            return local
        members, everywhere = PartitionSpec(MEMBER), PartitionSpec()
        specs = (everywhere, members, members)
        return jax.shard_map(local, mesh=self.mesh, in_specs=specs, out_specs=members, check_vma=False)


def place(num_members: int, chunk: int, devices: Sequence[Any] | None = None) -> Placement:
    """Lay members on some devices (all local ones when None), no more than have something to do, `chunk` vmapped at a time."""
    found = list(jax.local_devices() if devices is None else devices)
    useful = max(1, min(len(found), -(-num_members // chunk)))
    return Placement(num_members, min(chunk, -(-num_members // useful)), tuple(found[:useful]))


@contextmanager
def sound_partitioner() -> Iterator[None]:
    """XLA's older partitioner in place of Shardy while programmes for several CPU devices are compiled, where Shardy kills the process.

    It does in jaxlib 0.11 (segmentation fault, `probes.Sharpness` on two devices); neither 0.10.2 nor 0.12.0 does.
    """
    if not jax.__version__.startswith("0.11.") or jax.default_backend() != "cpu" or jax.local_device_count() == 1:
        yield
        return
    before = jax.config.values["jax_use_shardy_partitioner"]
    jax.config.update("jax_use_shardy_partitioner", False)  # for all threads: some compile
    try:
        yield
    finally:
        jax.config.update("jax_use_shardy_partitioner", before)


def num_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cores(num: int | None = None, *, collectives: bool = False) -> int:
    """Split the CPU of this process into several JAX devices, so that a sweep runs a member on every core.

    Call it before JAX is first used; it sets `jax_num_cpu_devices`, and NPROC in the environment where that is not set: XLA's
    threads, one a device, because members of a sweep never wait for each other and more threads than cores get in their way.
    Accelerators are not touched.

    Args:
        num: devices; one a core this process may use when None.
        collectives: whether programmes of yours communicate between these devices. XLA then gets two threads a device, as it does
            where `connect` joins several processes; with one, devices that wait for each other hang.

    Returns:
        How many CPU devices there will be.

    Raises:
        ValueError: when `num` is below 1.
        RuntimeError: when JAX has been used already.
    """
    num = num_cores() if num is None else num
    if num < 1:
        raise ValueError(f"`num` is at least 1, but is {num}.")
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return jax.local_device_count("cpu")
    threads = 2 * num if collectives or jax.distributed.is_initialized() else num
    try:
        jax.config.update("jax_num_cpu_devices", num)
    except RuntimeError as error:
        raise RuntimeError(
            "JAX has been used already, and its devices are fixed; call `jd.ensemble.use_cores()` first thing, or set "
            f"NPROC={threads} and XLA_FLAGS=--xla_force_host_platform_device_count={num} in the environment."
        ) from error
    if num > 1:
        os.environ.setdefault("NPROC", str(threads))
    return num
