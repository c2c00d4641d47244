"""Is an ensemble trained as fast as by hand-written JAX, by PyTorch, and as the products allow? Are kernels and phase diagrams cheap?

The rivals, each in a process of its own on the same device, are those of `benchmarks.ensemble.training`: the same networks, data, weights,
float32 products; losses agree before anything is timed. A rival's ratio is its time over ours.
"""

import os
import statistics
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import jaxdyn as jd
from benchmarks import catapult, harness, ntk
from benchmarks.accelerator.section import Row, Setting, attempts
from benchmarks.ensemble import training
from benchmarks.ensemble.programmes import Sweep, in_turn, ratio
from benchmarks.peers import Peer, Unavailable

SIZES = ((256, 64, 400), (64, 1024, 400), (4096, 8, 60))
"""Width, members, steps."""

WORKERS = {"jax": "jax_training_worker.py", "torch": "torch_training_worker.py"}
GOALS = {"jax": "≥ 1", "torch": "≥ 1.5"}


def table(setting: Setting) -> Iterator[Row]:
    """The rows of each size: ours against the matmul ceiling, then a row a rival; kernel and phase diagram."""
    with jax.default_matmul_precision("highest"):
        ceiling = harness.matmul_rate(256 if setting.tiny else 8192, 3 if setting.tiny else 10)
        peers: dict[str, Peer] = {}
        for name, script in WORKERS.items():
            try:
                peers[name] = Peer("own", script, platforms=None)
            except Unavailable as reason:
                yield {"what": f"no rival {name}", "error": str(reason).strip().splitlines()[-1]}
        for size in ((8, 4, 20),) if setting.tiny else SIZES:
            yield from rows(*size, peers, ceiling, setting)
        for peer in peers.values():
            peer.close()
        yield from attempts({"ntk": lambda: kernel(setting.tiny), "phase diagram": lambda: phases(setting.tiny)})


def rows(
    width: int, members: int, steps: int, peers: dict[str, Peer], ceiling: float, setting: Setting
) -> Iterator[Row]:
    """All rows of one size."""
    what = f"{members} members of 64-{width}-{width}-1"
    model, task = training.dense(width)

    def run(seed: Any) -> jd.Training:
        record = jd.record(jd.every(training.EVERY), loss=jd.probes.Loss())
        return jd.Training(model, task, optax.sgd(training.RATE), steps=steps, key=jax.random.key(seed), record=record)

    ours = Sweep(run, {"seed": np.arange(members)})
    expected = ours()["loss"][:, :-1]
    seconds = statistics.median(harness.seconds(ours) for _ in range(2 if setting.tiny else 7))
    flops = training.step_flops("dense", width) * members * steps
    yield {
        "what": what,
        "ms a step": 1e3 * seconds / steps,
        "TFLOP/s": flops / seconds / 1e12,
        "of the float32 ceiling": flops / seconds / ceiling,
        "compile s": ours.compile_seconds,
        "members at a time": ours.chunk,
    }
    path = setting.folder / f"start-{os.getpid()}-{width}.npz"
    training.save_start(path, "dense", model, task, members)
    options = {"family": "dense", "steps": steps, "every": training.EVERY, "rate": training.RATE}
    for name, peer in list(peers.items()):
        on = {"device": "cpu" if jax.default_backend() == "cpu" else "cuda"} if name == "torch" else {}
        try:
            for rival in peer.ask(load=str(path), **options, **on)["rivals"]:
                if not rival.endswith("loop"):
                    yield from attempts({f"{what}, {rival}": lambda rival=rival, peer=peer, name=name: race(
                        rival, peer, name, ours, expected, path, 1 if setting.tiny else 5
                    )})  # fmt: skip
        except Unavailable as reason:
            del peers[name]
            yield {"what": f"{what}, {name}", "error": str(reason).strip().splitlines()[-1]}
    with suppress(OSError):
        path.unlink()


def race(rival: str, peer: Peer, name: str, ours: Sweep, expected: Any, path: Path, rounds: int) -> Row:
    """One rival's time over ours, in turn."""

    def theirs() -> Any:
        return peer.ask(run=rival)

    if "error" in (first := theirs()):
        return {"refused": first["error"]}
    np.testing.assert_allclose(np.load(f"{path}.{rival}.npy"), expected, rtol=5e-3)
    theirs()
    times = in_turn({"ours": ours}, {rival: theirs}, rounds)
    return {"rival / ours": ratio(times, rival, "ours"), "goal": GOALS[name], "times": times}


def kernel(tiny: bool) -> Row:
    """The exact tangent kernel against one gradient."""
    found = ntk.mlp(*((16, 8, 1) if tiny else (1024, 2048, 7)), implementations=())
    (gradient,) = found["rivals"].values()
    return {"ms": 1e3 * found["seconds"], "ours / one gradient": 1 / gradient["ratio"], "goal": "≤ 1.5"}


def phases(tiny: bool) -> Row:
    """A phase diagram of the quadratic model, compilation included."""
    width, n, steps = (128, 16, 60) if tiny else (4096, 128, 200)
    task = jd.tasks.digits(classes=(3, 8), n=n, n_test=0)
    found = catapult.diagram("quadratic", task, width, steps, seeds=4 if tiny else 8)
    return {"s": found["seconds"], "compile s": found["compiling"], "goal": "< 30 s"}
