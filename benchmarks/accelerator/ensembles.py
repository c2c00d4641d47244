"""Is an ensemble trained as fast as by hand-written JAX, by PyTorch, and as the products allow? Are kernels and phase diagrams cheap?

The rivals, each in a process of its own on the same device, are those of `benchmarks.ensemble.training`: the same networks, data, weights,
float32 products; losses agree before anything is timed. Parameters are on the device when the clocks start. A rival's ratio is its
time over ours.
"""

import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
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
    """For each size ours against the matmul ceiling and plain JAX; kernel and phase diagram; PyTorch, last what compiles for long."""
    with jax.default_matmul_precision("highest"):
        ceiling = harness.matmul_rate(256 if setting.tiny else 4096, 3 if setting.tiny else 20)
        peers: dict[str, Peer] = {}
        for name, script in WORKERS.items():
            try:
                peers[name] = Peer("own", script, platforms=None)
            except Unavailable as reason:
                yield {"what": f"no rival {name}", "error": str(reason).strip().splitlines()[-1]}
        cases = []
        for size in ((8, 4, 20),) if setting.tiny else SIZES:
            case = Case(*size, setting)
            cases.append(case)
            yield case.row(ceiling)
            yield from case.races(peers, lambda rival: rival == "JAX vmap")
        yield from attempts({"ntk": lambda: kernel(setting.tiny), "phase diagram": lambda: phases(setting.tiny)})
        for kind in ("torch vmap", "torch compile"):
            for case in cases:
                yield from case.races(peers, lambda rival, kind=kind: rival.startswith(kind))
        for peer in peers.values():
            peer.close()


class Case:
    """One size: our sweep, compiled and run once, and the file with which its rivals start."""

    def __init__(self, width: int, members: int, steps: int, setting: Setting) -> None:
        self.what = f"{members} members of 64-{width}-{width}-1"
        self.steps, self.rounds = steps, 1 if setting.tiny else 5
        self.flops = training.step_flops("dense", width) * members * steps
        model, task = training.dense(width)

        def run(seed: Any) -> jd.Training:
            record = jd.record(jd.every(training.EVERY), loss=jd.probes.Loss())
            return jd.Training(
                model, task, optax.sgd(training.RATE), steps=steps, key=jax.random.key(seed), record=record
            )

        self.ours = Sweep(run, {"seed": np.arange(members)})
        (setting.folder / f"ensembles-{width}.hlo").write_text(self.ours.programme.compiled[1].as_text())
        self.expected = self.ours()["loss"][:, :-1]
        self.path = setting.folder / f"start-{os.getpid()}-{width}.npz"
        training.save_start(self.path, "dense", model, task, members)

    def row(self, ceiling: float) -> Row:
        """Our time, as a share of what the products allow."""
        times = [self.ours.timed() for _ in range(self.rounds)]
        seconds = statistics.median(one["seconds"] for one in times)
        return {
            "what": self.what,
            "ms a step": 1e3 * seconds / self.steps,
            "TFLOP/s": self.flops / seconds / 1e12,
            "of the float32 ceiling": self.flops / seconds / ceiling,
            "ms of the prologue": 1e3 * statistics.median(one["prologue"] for one in times),
            "compile s": self.ours.compile_seconds,
            "members at a time": self.ours.chunk,
        }

    def races(self, peers: dict[str, Peer], is_wanted: Callable[[str], bool]) -> Iterator[Row]:
        """A row for each rival that is wanted; a worker that has ended leaves `peers`."""
        on_device = "cpu" if jax.default_backend() == "cpu" else "cuda"
        for name, peer in list(peers.items()):
            load: dict[str, Any] = {
                "family": "dense",
                "steps": self.steps,
                "every": training.EVERY,
                "rate": training.RATE,
            }
            load |= {"device": on_device} if name == "torch" else {}
            try:
                rivals = [rival for rival in peer.ask(load=str(self.path), **load)["rivals"] if is_wanted(rival)]
            except (Unavailable, OSError) as reason:
                del peers[name]
                yield {"what": f"{self.what}, {name}", "error": str(reason).strip()[-300:]}
                continue
            yield from attempts({f"{self.what}, {rival}": partial(self.race, name, rival, peer) for rival in rivals})

    def race(self, name: str, rival: str, peer: Peer) -> Row:
        """One rival's time over ours, in turn."""

        def theirs() -> Any:
            return peer.ask(run=rival)

        try:
            first = theirs()
        except (Unavailable, OSError) as reason:
            first = {"error": str(reason)[-300:]}
        if "error" in first:
            return {"refused": first["error"]}
        np.testing.assert_allclose(np.load(f"{self.path}.{rival}.npy"), self.expected, rtol=5e-3)
        times = in_turn({}, {"ours": self.ours.timed, rival: theirs}, self.rounds)
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
