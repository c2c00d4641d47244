"""Is what the accelerator computes in float32 what the host computes in float64?

The references are explicit: Jacobians, dense Hessians, loops of gradient descent, the exact map of the catapult phase, the arc-cosine
kernel. The error of each check is relative to the largest value; TF32 products would miss most tolerances.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from benchmarks.accelerator.section import Row, Setting, attempts


def checks(setting: Setting) -> Iterator[Row]:
    """A row for each check: its error, its tolerance, whether it is met."""
    tiny = setting.tiny
    yield from attempts(
        {
            "ntk": partial(kernel, *((16, 8) if tiny else (512, 64))),
            "ntk_blocks": partial(kernel_blocks, *((16, 6) if tiny else (256, 32))),
            "top Hessian eigenvalues": partial(eigenvalues, 8 if tiny else 24),
            "catapults on the exact map": partial(catapults, 300 if tiny else 4096),
            "padded widths": partial(padded_widths, (5, 16) if tiny else (64, 100, 256, 500)),
            "minibatches": partial(minibatches, 16 if tiny else 256),
            "infinite kernels": partial(infinite_kernels, 6 if tiny else 128),
        }
    )


@contextmanager
def on_host() -> Iterator[None]:
    """In double precision on the host."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        yield


def exact(tree: Any) -> Any:
    """Arrays as float64 in the host's memory."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def judged(found: Any, expected: Any, tolerance: float) -> Row:
    """A row that compares: largest difference over largest value."""
    expected = np.asarray(expected, np.float64)
    error = float(np.max(np.abs(np.asarray(found, np.float64) - expected)) / np.max(np.abs(expected)))
    return {"relative error": error, "tolerance": tolerance, "ok": bool(error <= tolerance)}


def jacobian(apply: Any, params: Any, x: Any) -> np.ndarray:
    """∂f/∂w in float64 on the host, [n, k, p]."""
    params, x = exact(params), exact(x)
    with on_host():
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        return np.asarray(jax.jit(jax.jacrev(lambda w: apply(unravel(w), x)))(flat))


def kernel(width: int, n: int) -> Row:
    """The trace kernel of an MLP with one output."""
    model, x, params = _network(width, n, 1)
    j = jacobian(model.apply, params, x)
    return judged(jax.jit(lambda p: jd.geometry.ntk(model.apply, p, x))(params), j[:, 0] @ j[:, 0].T, 1e-5)


def kernel_blocks(width: int, n: int) -> Row:
    """The whole kernel of an MLP with three outputs."""
    model, x, params = _network(width, n, 3)
    j = jacobian(model.apply, params, x)
    found = jax.jit(lambda p: jd.geometry.ntk_blocks(model.apply, p, x))(params)
    return judged(found, np.einsum("iap,jbp->ijab", j, j, optimize=True), 1e-5)


def eigenvalues(width: int) -> Row:
    """The three largest eigenvalues of the loss Hessian, and their flags."""
    model, x, params = _network(width, 32, 1)
    y = jnp.sign(x[:, :1])

    def top(params: Any) -> Any:
        hessian = jd.geometry.operators.loss_hessian(model.apply, params, x, y, loss=jd.losses.mse)
        return jd.geometry.spectrum.top(hessian, dim=hessian.dim, num=3, key=jax.random.key(2))

    found = jax.jit(top)(params)
    params, x, y = exact((params, x, y))
    with on_host():
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        dense = jax.jit(jax.hessian(lambda w: _mean_square(model.apply, unravel(w), x, y)))(flat)
        expected = np.linalg.eigvalsh(np.asarray(dense))[::-1][:3]
    row = judged(found.values, expected, 1e-4)
    return row | {"ok": row["ok"] and bool(np.all(found.converged))}


def catapults(width: int) -> Row:
    """Outputs of a quadratic model with one example, at rates below, in and high in the catapult phase; all scaled by their peaks."""
    dim, steps, y = 5, 100, 0.7
    model = jd.models.two_layer_relu(dim, width)
    task = jd.tasks.from_arrays(jax.random.normal(jax.random.key(5), (1, dim)), jnp.full((1, 1), y))
    params0 = model.init(jax.random.key(1))
    j = jacobian(model.apply, params0, task.x)[0, 0]
    rates = np.asarray(np.array([1.0, 2.2, 3.0, 3.8]) / (j @ j), np.float32)

    def run(rate: Any) -> jd.Training:
        record = jd.record(jd.every(1), f=jd.probes.Outputs())
        return jd.Training(
            model, task, optax.sgd(rate), steps=steps, key=jax.random.key(0), params0=params0, loss=jd.losses.half_sum,
            expand=jd.models.frozen_gates, record=record,
        )  # fmt: skip

    found = jd.sweep(run, vmap={"rate": rates}).f.values.reshape(len(rates), steps + 1)
    with on_host():
        coupling = float(np.sum(exact(task.x) ** 2) / (width * dim))
        step = jd.theory.catapult.example_map(
            rates.astype(np.float64), coupling=coupling, y=y, c=jd.losses.half_sum.c(1, 1)
        )
        f0 = float(model.apply(exact(params0), exact(task.x))[0, 0])
        start = jd.theory.catapult.Example(np.full(len(rates), f0), np.full(len(rates), j @ j))
        expected = np.asarray(jd.theory.catapult.trajectory(step, start, steps=steps).output).T
    peaks = np.max(np.abs(expected), axis=1, keepdims=True)
    assert peaks[-1, 0] > 2 * abs(f0 - y), "no catapult"
    return judged(found / peaks, expected / peaks, 2e-3)


def padded_widths(widths: Sequence[int]) -> Row:
    """Losses of networks that run padded together, against each alone and unpadded."""
    n, steps, rate = 32, 20, 0.2
    x = jax.random.normal(jax.random.key(0), (n, 8))
    task = jd.tasks.from_arrays(x, jnp.sign(x[:, :1] * x[:, 1:2]))

    def network(width: Any) -> jd.Model:
        return jd.models.mlp((8, width, width, 1), activation=jnp.tanh)

    def run(width: Any) -> jd.Training:
        record = jd.record(jd.every(1), loss=jd.probes.Loss())
        return jd.Training(network(width), task, optax.sgd(rate), steps=steps, key=jax.random.key(3), record=record)

    found = jd.sweep(run, vmap={"width": jd.widths(widths)}).loss.values
    expected = []
    for width in widths:
        model = network(width)
        expected.append(descent(model.apply, model.init(jax.random.key(3)), [(task.x, task.y)] * (steps + 1), rate))
    return judged(found, expected, 1e-4)


def minibatches(width: int) -> Row:
    """Losses of the batches of two epochs; every example comes once an epoch."""
    n, batch, rate = 24, 8, 0.1
    model, x, params0 = _network(width, n, 1)
    task = jd.tasks.from_arrays(x, jnp.sign(x[:, :1]))
    key, steps = jax.random.key(4), 2 * n // batch
    sampler = jd.minibatch(batch)

    def run(rate: Any) -> jd.Training:
        record = jd.record(jd.every(1), loss=jd.probes.BatchLoss())
        return jd.Training(
            model, task, optax.sgd(rate), steps=steps, key=key, params0=params0, sampler=sampler, record=record
        )

    found = jd.sweep(run, vmap={"rate": np.array([rate], np.float32)}).loss.values[0]
    stream = jd.dynamics.batch_key(key)
    draw = jax.jit(lambda t: sampler(task, stream, t))
    batches = [exact(draw(t)) for t in range(steps + 1)]
    seen = np.concatenate([rows for rows, _ in batches[: n // batch]])
    is_epoch = np.array_equal(np.sort(seen, axis=0), np.sort(exact(task.x), axis=0))
    row = judged(found, descent(model.apply, params0, batches, rate), 1e-4)
    return row | {"ok": row["ok"] and is_epoch}


def infinite_kernels(n: int) -> Row:
    """The tangent kernel of infinitely wide ReLU networks of two hidden layers, against the arc-cosine kernel."""
    x = jax.random.normal(jax.random.key(6), (n, 16))
    found = jax.jit(lambda x: jd.models.mlp((16, 1, 1, 1), activation=jax.nn.relu).kernel(x).ntk)(x)
    covariance = exact(x) @ exact(x).T / 16
    tangent = covariance
    for _ in range(2):
        scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        angle = np.arccos(np.clip(covariance / scale, -1, 1))
        covariance = scale * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        tangent = covariance + tangent * (np.pi - angle) / (2 * np.pi)
    return judged(found, tangent, 1e-3)  # the angle of an example with itself has half the digits


def descent(apply: Any, params: Any, batches: Sequence[tuple[Any, Any]], rate: float) -> np.ndarray:
    """The mean square loss before each step of gradient descent, in float64 on the host."""
    params, batches = exact(params), exact(list(batches))
    losses = []
    with on_host():
        slope = jax.jit(jax.value_and_grad(lambda p, x, y: _mean_square(apply, p, x, y)))
        for x, y in batches:
            value, grads = slope(params, x, y)
            losses.append(float(value))
            params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
    return np.asarray(losses)


def _mean_square(apply: Any, params: Any, x: Any, y: Any) -> Any:
    return jnp.mean(jnp.sum((apply(params, x) - y) ** 2, axis=1))


def _network(width: int, n: int, outputs: int) -> tuple[jd.Model, Any, Mapping[str, Any]]:
    model = jd.models.mlp((8, width, width, outputs), activation=jnp.tanh)
    return model, jax.random.normal(jax.random.key(0), (n, 8)), model.init(jax.random.key(1))
