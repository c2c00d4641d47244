"""What this set-up is, and what is slow about it: `jaxdyn doctor`.

`examine` looks and measures for a few seconds; `advise` turns what it found into sentences with a remedy. It changes nothing.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Findings:
    """What `examine` found.

    Attributes:
        versions: of jaxdyn, JAX and the rest.
        devices: kind of each device JAX sees.
        backend: `cpu`, `gpu` or `tpu`.
        is_gpu_present: whether the machine has an NVIDIA device, seen by JAX or not.
        num_cores: cores this process may use.
        settings: environment variables that matter, as they are set.
        cache: folder of compiled programmes, how many there are, their bytes, and whether it can be written.
        matmul_rate: flops a second of float32 products 1024³.
        eigh_alone: seconds of a 256 × 256 eigenvalue problem by itself.
        eigh_inside: the same between products in a compiled loop, where two thread pools may get in each other's way.
    """

    versions: dict[str, str]
    devices: list[str]
    backend: str
    is_gpu_present: bool
    num_cores: int
    settings: dict[str, str]
    cache: tuple[str, int, int, bool]
    matmul_rate: float
    eigh_alone: float
    eigh_inside: float

    def __str__(self) -> str:
        folder, count, size, _ = self.cache
        lines = [
            *(f"{name:18} {version}" for name, version in self.versions.items()),
            f"{'devices':18} {len(self.devices)} × {self.devices[0]} ({self.backend})",
            f"{'cores':18} {self.num_cores}",
            *(f"{name:18} {value}" for name, value in self.settings.items()),
            f"{'compile cache':18} {folder}: {count} programmes, {size / 1e6:.1f} MB",
            f"{'products 1024³':18} {self.matmul_rate / 1e9:.0f} GFLOP/s in float32",
            f"{'eigenvalues, 256':18} {1e3 * self.eigh_alone:.1f} ms alone, {1e3 * self.eigh_inside:.1f} ms inside a compiled loop",
        ]
        return "\n".join(lines)


_SETTINGS = ("JAX_PLATFORMS", "XLA_FLAGS", "NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "JAX_ENABLE_X64")


def examine(cache: str) -> Findings:
    """Look at the machine, at JAX on it and its folder of compiled programmes, and time three small things."""
    import jax
    import jax.numpy as jnp

    from jaxdyn.ensemble.compiling.placement import num_cores
    from jaxdyn.results.provenance import versions

    matrix = jax.random.normal(jax.random.key(0), (1024, 1024))
    small = matrix[:256, :256] + matrix[:256, :256].T
    product = jax.jit(lambda a: a @ a)
    eigenvalues = jax.jit(jnp.linalg.eigvalsh)

    def loop(a: Any, is_measured: bool) -> Any:
        def body(total: Any, _: Any) -> Any:
            mixed = jnp.tanh(a @ (a + total))
            edge = jnp.linalg.eigvalsh(mixed[:256, :256])[-1] if is_measured else mixed[0, 0]
            return total + 1e-9 * edge, None

        return jax.lax.scan(body, jnp.zeros((), a.dtype), None, length=10)[0]

    inside, without = jax.jit(lambda a: loop(a, True)), jax.jit(lambda a: loop(a, False))
    together = (_seconds(lambda: inside(matrix)) - _seconds(lambda: without(matrix))) / 10
    folder = Path(cache)
    files = [file for file in folder.glob("*") if file.is_file()] if folder.is_dir() else []
    return Findings(
        versions=versions(),
        devices=[device.device_kind for device in jax.devices()],
        backend=jax.default_backend(),
        is_gpu_present=Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists(),
        num_cores=num_cores(),
        settings={name: os.environ[name] for name in _SETTINGS if name in os.environ},
        cache=(cache, len(files), sum(file.stat().st_size for file in files), _is_writable(folder)),
        matmul_rate=2 * 1024**3 / _seconds(lambda: product(matrix)),
        eigh_alone=_seconds(lambda: eigenvalues(small)),
        eigh_inside=max(together, 0.0),
    )


def advise(found: Findings) -> list[str]:
    """What is slow or wrong about what `examine` found, each with its remedy; empty when nothing is."""
    advice = []
    if found.is_gpu_present and found.backend == "cpu":
        advice.append(
            "There is an NVIDIA device, but JAX runs on the CPU: install `jaxdyn[cuda13]` (or `[cuda12]`), and see that "
            "JAX_PLATFORMS does not say `cpu`."
        )
    if found.eigh_inside > 3 * found.eigh_alone + 2e-3:
        advice.append(
            f"An eigenvalue problem takes {1e3 * found.eigh_inside:.0f} ms inside a compiled loop and {1e3 * found.eigh_alone:.0f} ms "
            "alone: LAPACK's threads and XLA's get in each other's way. Set OPENBLAS_NUM_THREADS=1 in the environment."
        )
    if len(found.devices) > found.num_cores and found.backend == "cpu" and "NPROC" not in found.settings:
        advice.append(
            f"{len(found.devices)} virtual devices share {found.num_cores} cores, which can hang XLA: set NPROC=8 in the environment."
        )
    if not found.cache[3]:
        advice.append(
            f"The compile cache {found.cache[0]!r} cannot be written, so every process compiles anew: set JAX_COMPILATION_CACHE_DIR."
        )
    if found.settings.get("JAX_ENABLE_X64", "").lower() in ("1", "true") and found.backend != "cpu":
        advice.append("Double precision is on; accelerators are many times slower in it, and TPUs emulate it.")
    return advice


def _seconds(action: Callable[[], Any]) -> float:
    """Median seconds of five calls after a first one."""
    import jax

    jax.block_until_ready(action())
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(action())
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _is_writable(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)
