"""Do minibatch steps of an ensemble run at half the machine's matmul rate, and what does it cost to watch the full loss?

y = x_1 x_2 in 50 dimensions, n = 1000, two-layer ReLU networks of width 512, eight seeds, plain SGD in a sweep, with nothing recorded but
the first loss. Flops are 2 × the multiplications of the two products with the first weights, forward and backward; the rest of a step
(readout, activation, choice of the batch, update) is overhead. Beside it, the same steps with the loss of all training examples at every
step, which is what counting spikes costs. The rate of the machine is that of one product 2048³ a device, in turn with the sweeps; the aim
is half of it at b ≥ 32.

The steps are held against a NumPy loop over the same batches before anything is timed. This process has one CPU device a core, as `jaxdyn
run` has.
"""

import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from benchmarks import harness
from benchmarks.ensemble.programmes import Sweep

RATE, SIZE = 1e-3, 2048


def main(quick: bool = False, path: Path | None = None) -> None:
    """Run, print, write."""
    n, dim, width, seeds, rounds = (64, 6, 16, 2, 1) if quick else (1000, 50, 512, 8, 9)
    sizes = {4: 20} if quick else {8: 4000, 32: 2000, 250: 400, 1000: 100}
    task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=dim, n=n, n_test=0)
    rows = [_one(task, width, seeds, size, steps, rounds) for size, steps in sizes.items()]
    table = [
        [
            str(row["batch_size"]),
            f"{1e6 * row['step_seconds']:.1f}",
            f"{row['of_matmul_rate']:.0%}",
            f"{1e6 * row['watched_seconds']:.1f}",
            str(row["members_at_a_time"]),
        ]
        for row in rows
    ]
    columns = ["batch size", "µs a member step", "of matmul rate", "µs with the full loss", "at a time"]
    harness.show("Minibatch steps of an ensemble", columns, table)
    print(harness.write("spikes", rows, path, devices=jax.local_device_count()))


def _one(task: Any, width: int, seeds: int, size: int, steps: int, rounds: int) -> dict[str, Any]:
    n, dim = task.x.shape
    model = jd.models.mlp((dim, width, 1), activation=jax.nn.relu)

    def training(seed: Any, steps: int, at: Any) -> jd.Training:
        sampler = jd.full_batch if size == n else jd.minibatch(size)
        record = jd.record(at, loss=jd.probes.Loss())
        return jd.Training(
            model, task, optax.sgd(RATE), steps=steps, key=jax.random.key(seed), sampler=sampler, record=record
        )

    _agree(training(0, 10, jd.every(1)))
    axes = {"seed": np.arange(seeds)}
    bare = Sweep(lambda seed: training(seed, steps, jd.at([0])), axes)
    watched = Sweep(lambda seed: training(seed, steps, jd.every(1)), axes)
    times = harness.interleave({"bare": bare, "watched": watched, "matmul": _products()}, rounds)
    flops, devices = 4.0 * size * dim * width, jax.local_device_count()
    rate = [2.0 * SIZE**3 * devices / one for one in times["matmul"]["all"]]
    shares = [flops * seeds * steps / one / fast for one, fast in zip(times["bare"]["all"], rate, strict=True)]
    return {
        "batch_size": size,
        "steps": steps,
        "members": seeds,
        "members_at_a_time": bare.chunk,
        "step_seconds": times["bare"]["median"] / seeds / steps,
        "watched_seconds": times["watched"]["median"] / seeds / steps,
        "flops": flops,
        "matmul_gflops_a_second": statistics.median(rate) / 1e9,
        "of_matmul_rate": statistics.median(shares),
        "compile_seconds": bare.compile_seconds,
        "times": times,
    }


def _products() -> Any:
    """One large product on every device at once."""
    product = jax.jit(lambda x: x @ x)
    matrices = [jax.device_put(jnp.full((SIZE, SIZE), 1 / SIZE), device) for device in jax.local_devices()]
    return lambda: [product(matrix) for matrix in matrices]


def _agree(training: jd.Training) -> None:
    """The losses of a few steps are those of a NumPy loop in double precision over the same batches."""
    x, y = np.asarray(training.task.x, float), np.asarray(training.task.y, float)[:, 0]
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, float), training.model.init(training.key))
    first, second = weights["dense_0"]["weight"], weights["dense_1"]["weight"][:, 0]
    dim, width = first.shape
    key = jd.dynamics.batch_key(training.key)
    losses = []

    def forward(inputs: np.ndarray) -> Any:
        hidden = np.maximum(inputs @ first / np.sqrt(dim), 0)
        return hidden, hidden @ second / np.sqrt(width)

    for step in range(training.steps + 1):
        losses.append(np.mean((forward(x)[1] - y) ** 2))
        batch, target = (np.asarray(one, float) for one in training.sampler(training.task, key, step))
        hidden, output = forward(batch)
        back = 2 / len(batch) * (output - target[:, 0]) / np.sqrt(width)
        inner = (back[:, None] * second[None, :]) * (hidden > 0) / np.sqrt(dim)
        first, second = first - RATE * batch.T @ inner, second - RATE * hidden.T @ back
    np.testing.assert_allclose(jd.train(training).values["loss"], losses, rtol=1e-4)
