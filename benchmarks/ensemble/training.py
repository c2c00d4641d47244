"""Rows (a), (b), (e): full-batch gradient descent of an ensemble against PyTorch, hand-written JAX and the machine's matmul rate.

Dense networks have two hidden tanh layers (d = 64, n = 128), convolutional ones two 3×3 ReLU layers and a readout of every position
(16×16×3, n = 64); NTK scaling, mean squared error, float32, the loss recorded every ten steps (for the rivals it comes free with the
gradient). All start from the same weights, and all losses agree before anything is timed.

Flops are 2 × the multiplications of forward and backward pass of one step, without the gradient of the inputs of the first layer, without
activations, update and recording.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from benchmarks.ensemble.overheads import timed
from benchmarks.ensemble.programmes import Sweep, fixed_strategies, in_turn, quickest, ratio, workers

EVERY, RATE = 10, 0.1
DENSE = {"examples": 128, "dim": 64}
CONV = {"examples": 64, "shape": (16, 16, 3)}
MATMUL = 2 * 2048**3  # flops of the product that the rate is measured with
SIZES = [("dense", 64, 64, 200), ("dense", 256, 64, 60), ("dense", 1024, 8, 60), ("conv", 32, 8, 20)]
TOY = [("dense", 8, 4, 20), ("conv", 2, 2, 20)]


def rows(*, quick: bool, rounds: int) -> list[dict[str, Any]]:
    """All rows."""
    return [timed(row, *size, rounds=rounds, quick=quick) for size in (TOY if quick else SIZES)]


def row(family: str, width: int, members: int, steps: int, *, rounds: int, quick: bool) -> dict[str, Any]:
    """One size of one family."""
    model, task = dense(width) if family == "dense" else _conv(width)

    def run(seed: Any) -> jd.Training:
        record = jd.record(jd.every(EVERY), loss=jd.probes.Loss())
        return jd.Training(model, task, optax.sgd(RATE), steps=steps, key=jax.random.key(seed), record=record)

    ours = {"sweep": Sweep(run, {"seed": np.arange(members)})} | fixed_strategies(run, members, quick=quick)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "start.npz"
        save_start(path, family, model, task, members)
        theirs, said, peers = workers(path, family=family, steps=steps, every=EVERY, rate=RATE)
        dear = {"JAX loop"} if family == "conv" else set()  # minutes: once is enough
        expected = ours["sweep"]()["loss"][:, :-1]
        once: dict[str, float] = {}
        for name, ask in theirs.items():
            if name in dear:
                continue
            once[name] = ask()["seconds"]
            if name != "matmul":
                np.testing.assert_allclose(np.load(f"{path}.{name}.npy"), expected, rtol=5e-3, err_msg=name)
        for name, other in ours.items():
            np.testing.assert_allclose(other()["loss"][:, :-1], expected, rtol=5e-3, err_msg=name)
        steady = {name: ask for name, ask in theirs.items() if name not in dear}
        times = in_turn(ours, steady, rounds)
        products = [theirs["matmul"]()["seconds"] for _ in range(max(0, 20 - rounds))] + times["matmul"]
        in_scan = _lax_in_scan(peers[0], path, family, members, steps) if dear else None
        for peer in peers:
            peer.close()

    flops = step_flops(family, width) * members * steps
    seconds = statistics.median(times["sweep"])
    found = {
        "row": f"{family} m={width} E={members}",
        "steps": steps,
        "sweep_seconds": seconds,
        "compile_seconds": ours["sweep"].compile_seconds,
        "gflops_a_second": flops / seconds / 1e9,
        "matmul_gflops_a_second": MATMUL / statistics.median(products) / 1e9,
        "of_matmul_rate": flops / seconds / (MATMUL / statistics.median(products)),
        "members_at_a_time": ours["sweep"].chunk,
        "workers": said,
        "median_seconds": {name: statistics.median(one) for name, one in times.items()},
        "times": times,
    }
    for key, label in (("torch", "torch"), ("jax", "JAX")):
        names = [name for name in steady if name.startswith(label)]
        if names:
            rival = quickest(times, names)
            found[f"{key}_over_sweep"] = ratio(times, rival, "sweep")
            found[f"{key}_rival"] = rival
    if in_scan is not None:
        found["jax_over_sweep"] = in_scan / (seconds / members / steps)
        found["jax_rival"] = "lax.conv in a scan, one member, two steps"
    best = quickest(times, [name for name in ours if name != "sweep"])
    found["best_fixed"] = f"{best} ({ours[best].chunk})"
    found["sweep_over_best_fixed"] = ratio(times, "sweep", best)
    return found


def step_flops(family: str, width: int) -> float:
    """Flops of one step of one member."""
    if family == "dense":
        n, d = DENSE["examples"], DENSE["dim"]
        return 2.0 * n * (2 * d * width + 3 * width * width + 3 * width)
    height, breadth, depth = CONV["shape"]
    positions = CONV["examples"] * height * breadth
    return 2.0 * positions * (2 * 9 * depth * width + 3 * 9 * width * width + 3 * width)


def save_start(path: Path, family: str, model: jd.Model, task: jd.Task, members: int) -> None:
    """Data and the members' first weights, for rivals in other processes."""
    weights = jax.vmap(lambda seed: model.init(jax.random.key(seed)))(jnp.arange(members))
    leaves = {f"w{i}": np.asarray(layer["weight"]) for i, layer in enumerate(weights.values())}
    x = np.asarray(task.x).reshape(-1, *(CONV["shape"] if family == "conv" else (DENSE["dim"],)))
    np.savez(path, x=x, y=np.asarray(task.y), **leaves)


def dense(width: int) -> tuple[jd.Model, jd.Task]:
    """Network and task of the dense rows."""
    task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=DENSE["dim"], n=DENSE["examples"])
    return jd.models.mlp((DENSE["dim"], width, width, 1), activation=jnp.tanh), task


def _conv(channels: int) -> tuple[jd.Model, jd.Task]:
    x = jax.random.normal(jax.random.key(0), (CONV["examples"], *CONV["shape"]))
    task = jd.tasks.from_arrays(x, jnp.sign(x[:, 0, 0, :1] * x[:, 0, 1, :1]))
    pool = jd.models.flatten
    return jd.models.conv(CONV["shape"], (channels, channels), 1, activation=jax.nn.relu, pool=pool), task


def _lax_in_scan(peer: Any, path: Path, family: str, members: int, steps: int) -> float:
    """Seconds of a step of one member with XLA's convolution inside a compiled loop."""
    one = path.with_name("one.npz")
    with np.load(path) as arrays:
        np.savez(one, **{name: value[:1] if name.startswith("w") else value for name, value in arrays.items()})
    peer.ask(load=str(one), family=family, steps=2, every=1, rate=RATE)
    peer.ask(run="JAX loop")
    return peer.ask(run="JAX loop")["seconds"] / 2
