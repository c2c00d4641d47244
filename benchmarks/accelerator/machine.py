"""What the machine is, and the ceilings that its speed is measured against."""

import os
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks.accelerator import PRECISIONS
from benchmarks.accelerator.section import Row, Setting, attempts
from jaxdyn.results.provenance import versions as packages


def versions(setting: Setting) -> Iterator[Row]:
    """Versions, devices, settings."""
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    yield {"what": "device", "value": device.device_kind, "environment": harness.environment()}
    yield {"what": "devices JAX sees", "value": jax.device_count()}
    yield {"what": "memory it may take, GB", "value": stats.get("bytes_limit", 0) / 1e9}
    yield from ({"what": name, "value": version} for name, version in packages().items())
    for name in ("XLA_FLAGS", "JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        yield {"what": name, "value": os.environ.get(name, "")}
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
        yield {"what": "nvidia-smi", "value": subprocess.run(query, capture_output=True, text=True).stdout.strip()}


def ceilings(setting: Setting) -> Iterator[Row]:
    """Rate and accuracy of products in every precision, and the bandwidth of a copy."""
    size, small, rounds = (256, 64, 3) if setting.tiny else (4096, 1024, 20)
    cases: dict[str, Callable[[], Row]] = {
        f"float32, {name}": partial(product, name, "float32", size, small, rounds) for name in PRECISIONS
    }
    cases["bfloat16"] = partial(product, "default", "bfloat16", size, small, rounds)
    yield from attempts(cases)
    yield from attempts({"copy": partial(copy, 2**20 if setting.tiny else 2**28, rounds)})


def product(precision: str, dtype: str, size: int, small: int, rounds: int) -> Row:
    """Rate of products size³, and their error against float64 at a smaller size; why, where the backend refuses."""
    try:
        error = product_error(precision, dtype, small)
    except Exception as refusal:
        return {"refused": f"{type(refusal).__name__}: {str(refusal)[:160]}"}
    rate = harness.matmul_rate(size, rounds, precision=precision, dtype=dtype)
    return {"TFLOP/s": rate / 1e12, "relative error": error}


def product_error(precision: str, dtype: str, size: int) -> float:
    """‖found − exact‖ / ‖exact‖ of a product of two matrices that this type holds exactly."""
    a, b = jax.random.normal(jax.random.key(1), (2, size, size)).astype(dtype)
    found = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))(a, b)
    exact = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
    return float(np.linalg.norm(np.asarray(found, np.float64) - exact) / np.linalg.norm(exact))


def copy(length: int, rounds: int) -> Row:
    """Bytes a second, read and written, of adding one to a long vector."""
    x = jnp.zeros(length) + jax.random.normal(jax.random.key(0))
    add: Any = jax.jit(lambda x: x + 1)
    harness.seconds(lambda: add(x))
    seconds = statistics.median(harness.seconds(lambda: add(x)) for _ in range(rounds))
    return {"TB/s": 8 * length / seconds / 1e12}
