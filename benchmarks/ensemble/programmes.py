"""Sweeps as programmes that can be run again and again: what a benchmark times of them, compilation apart."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxdyn as jd
from benchmarks import harness
from benchmarks.peers import Peer, Unavailable
from jaxdyn.ensemble.deciding import cost


class Sweep:
    """A sweep of one cell, compiled once; calling it runs all members from the anchor to the end.

    Args:
        run: the function of the axes.
        vmap: the axes.
        chunk: members vmapped at a time; the planner's choice when None.
    """

    def __init__(self, run: Callable[..., jd.Training], vmap: Mapping[str, Any], chunk: int | None = None) -> None:
        with _chosen(chunk):
            plan = jd.ensemble.plan(run, vmap=vmap)
        (self.cell,) = plan.cells
        self.chunk = self.cell.placement.chunk
        self.programme = plan.programme(self.cell)
        began = time.perf_counter()
        _ = self.programme.compiled
        self.compile_seconds = time.perf_counter() - began

    def __call__(self) -> dict[str, np.ndarray]:
        """Prologue, all pieces, and what was recorded brought to the host, `{variable: [r, t, …]}`."""
        return self.trained(*self.programme.start(self.cell.arguments))

    def timed(self) -> dict[str, float]:
        """Seconds of a training whose parameters are there, and of the prologue that made them."""
        began = time.perf_counter()
        state, carried = jax.block_until_ready(self.programme.start(self.cell.arguments))
        initialised = time.perf_counter()
        self.trained(state, carried)
        return {"seconds": time.perf_counter() - initialised, "prologue": initialised - began}

    def trained(self, state: Any, carried: Any) -> dict[str, np.ndarray]:
        """All pieces from a state on."""
        taken: dict[str, list[np.ndarray]] = {}
        for times in self.programme.pieces:
            state, values = self.programme.go_on(carried, state, times)
            for position, yields in enumerate(self.programme.variables):
                for name in yields:
                    rows = np.asarray(values[name])[: self.cell.num_members, times.rows(position)]
                    taken.setdefault(name, []).append(rows)
        return {name: np.concatenate(parts, axis=1) for name, parts in taken.items()}


@contextmanager
def _chosen(chunk: int | None) -> Any:
    automatic = cost.members_together
    if chunk is not None:
        cost.members_together = lambda *_: chunk
    try:
        yield
    finally:
        cost.members_together = automatic


def fixed_strategies(run: Callable[..., jd.Training], members: int, *, quick: bool) -> dict[str, Sweep]:
    """In sequence, in chunks of eight, and all that lie on a device vmapped at once; at toy size the first alone."""
    here = -(-members // jax.local_device_count())
    chunks = {"sequence": 1, "chunks": min(8, max(2, here // 2)), "vmap": here}
    if quick:
        chunks = {"sequence": 1}
    return {name: Sweep(run, {"seed": np.arange(members)}, chunk) for name, chunk in chunks.items()}


def workers(path: Path, **load: Any) -> tuple[dict[str, Callable[[], dict[str, float]]], dict[str, Any], list[Peer]]:
    """Rivals in processes of their own, their inputs loaded.

    Returns:
        `{rival: action}`, what the workers said of themselves (or why there is none), and the processes.
    """
    rivals: dict[str, Callable[[], dict[str, float]]] = {}
    said: dict[str, Any] = {}
    peers = []
    for name, environment, script in (
        ("jax", "own", "jax_training_worker.py"),
        ("torch", "torch", "torch_training_worker.py"),
    ):
        try:
            peer = Peer(environment, script)
        except Unavailable as reason:
            said[name] = str(reason)
            continue
        peers.append(peer)
        said[name] = peer.versions
        for rival in peer.ask(load=str(path), **load)["rivals"]:
            rivals[rival] = lambda peer=peer, rival=rival: peer.ask(run=rival)
    rivals["matmul"] = lambda: peers[0].ask(matmul=True)
    return rivals, said, peers


def in_turn(
    ours: Mapping[str, Callable[[], Any]], theirs: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of every rival, one call of each a round; workers time themselves. Everything was called once before."""
    taken: dict[str, list[float]] = {name: [] for name in (*ours, *theirs)}
    for _ in range(rounds):
        for name, action in ours.items():
            taken[name].append(harness.seconds(action))
        for name, ask in theirs.items():
            taken[name].append(ask()["seconds"])
    return taken


def ratio(times: Mapping[str, Sequence[float]], over: str, under: str) -> float:
    """Median over rounds of time(over) / time(under)."""
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))


def quickest(times: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    """The rival with the smallest median."""
    return min(names, key=lambda name: statistics.median(times[name]))
