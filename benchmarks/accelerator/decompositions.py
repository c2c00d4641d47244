"""What do decompositions of many small kernels cost, beside the largest eigenvalue of each by Lanczos?"""

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import jaxdyn as jd
from benchmarks import harness
from benchmarks.accelerator.section import Row, Setting, attempts

SIZES = ((128, 64), (256, 64), (512, 16))
"""Rows of a kernel, and how many of them at once."""


def costs(setting: Setting) -> Iterator[Row]:
    """Milliseconds for the whole batch: eigenvalues, eigenvectors, QR, and the largest eigenvalue by Lanczos with its error."""
    rounds = 1 if setting.tiny else 5
    for n, batch in ((16, 2),) if setting.tiny else SIZES:
        features = jax.random.normal(jax.random.key(n), (batch, n, 2 * n)) * jnp.arange(1, 2 * n + 1) ** -1.0
        kernels = jnp.matmul(features, features.mT, precision="highest")
        exact = jax.jit(jax.vmap(jnp.linalg.eigvalsh))
        largest = jax.jit(jax.vmap(_largest))
        actions: dict[str, Callable[[Any], Any]] = {
            "eigvalsh": exact,
            "eigh": jax.jit(jax.vmap(jnp.linalg.eigh)),
            "qr": jax.jit(jax.vmap(jnp.linalg.qr)),
            "largest by Lanczos": largest,
        }
        cases = {
            f"{batch} × {n}², {name}": partial(_timed, action, kernels, rounds) for name, action in actions.items()
        }
        yield from attempts(cases)
        top = exact(kernels)[:, -1]
        error = float(jnp.max(jnp.abs(largest(kernels) / top - 1)))
        yield {"what": f"{batch} × {n}², error of Lanczos", "relative error": error, "ok": error < 1e-4}


def _largest(kernel: Any) -> Any:
    def product(v: Any) -> Any:
        return jnp.matmul(kernel, v, precision="highest")

    return jd.geometry.spectrum.top(product, dim=kernel.shape[0], num=1, key=jax.random.key(0)).values[0]


def _timed(action: Callable[[Any], Any], kernels: Any, rounds: int) -> Row:
    first = harness.seconds(lambda: action(kernels))
    return {
        "ms": 1e3 * statistics.median(harness.seconds(lambda: action(kernels)) for _ in range(rounds)),
        "first s": first,
    }
