"""What does training a quadratic model cost in steps of its network, and a linear model without simulating it?

* `jd.quadratic` beside the network: 100 full-batch steps inside `jd.train`, compiled, float32, 128 examples, networks 64-1024-1 and
  64-512-512-1. The count of XLA for a step bounds the ratio by 3.0 for smooth activations where the anchor's part is done before the
  steps (9 products for 3 of the network in a hidden layer), less for a ReLU; the aims are at most 3.6 in time and 3 in compilation.
* neural-tangents' `taylor_expand(…, degree=2)` in the same loop, given its anchor as an argument.
* `models.frozen_gates`: the quadratic model of a two-layer ReLU network, at d = 1 and d = 64; the aim is at most 1.2.
* `theory.linearized`: losses of 16 rates at 500 steps from one decomposition, against simulating all of them; the aim is 1000 × faster.

Values and gradients agree before anything is timed. Each rival alternates with the network alone.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from benchmarks import harness
from jaxdyn.ensemble.compiling import hoist

NETWORKS = {"64-1024-1": (64, 1024, 1), "64-512-512-1": (64, 512, 512, 1)}
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}


def main(quick: bool = False, path: Path | None = None) -> None:
    """Run, print, write."""
    n, steps, rounds = (8, 5, 2) if quick else (128, 100, 11)
    networks = {"64-16-16-1": (64, 16, 16, 1)} if quick else NETWORKS
    rows = [
        _expansions(f"{name} {activation}", sizes, activation, n, steps, rounds)
        for name, sizes in networks.items()
        for activation in (("tanh",) if quick else ACTIVATIONS)
    ]
    rows += [_gates(dim, 16 if quick else 5000, n, steps, rounds) for dim in (1, 64)]
    harness.show(
        f"Training in steps of the network: {n} examples, full batch",
        ["what", "network ms", "quadratic", "flops", "compile", "neural-tangents", "frozen gates"],
        [
            [row["what"], f"{1e3 * row['network_seconds']:.3f}", *(_cell(row, name) for name in _COLUMNS)]
            for row in rows
        ],
    )
    rows.append(grid := _grid(quick, rounds))
    print(
        f"theory.linearized, {grid['rates']} rates × {grid['steps']} steps: {1e3 * grid['closed_seconds']:.2f} ms, "
        f"{grid['simulated_over_closed']:.0f} times faster than simulating (with its decomposition "
        f"{grid['simulated_over_whole']:.0f} times)"
    )
    print(harness.write("quadratic", rows, path, load_average=os.getloadavg()))


_RIVALS = ("quadratic", "flops", "compile", "taylor_expand", "gates")
_COLUMNS = tuple(f"{name}_over_network" for name in _RIVALS)


def _cell(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.2f}" if name in row else ""


def _expansions(what: str, sizes: tuple[int, ...], activation: str, n: int, steps: int, rounds: int) -> dict[str, Any]:
    from jaxdyn.models._neural_tangents import neural_tangents

    nt = neural_tangents()
    model = jd.models.mlp(sizes, activation=ACTIVATIONS[activation])
    x = jax.random.normal(jax.random.key(1), (n, sizes[0]))
    task, params0 = jd.tasks.from_arrays(x, jnp.sign(x[:, :1])), model.init(jax.random.key(0))

    def peer(apply: Any, params0: Any) -> Any:
        return nt.taylor_expand(apply, params0, 2)

    expansions = {"network": jd.exact, "quadratic": jd.quadratic, "taylor_expand": peer}
    away = jax.tree.map(lambda leaf: 1.03 * leaf, params0)
    _agree(model, params0, away, task, (jd.quadratic, peer))
    runs = {name: _compiled(model, task, params0, expand, steps) for name, expand in expansions.items()}
    times = {
        name: harness.interleave({"network": runs["network"][0], name: runs[name][0]}, rounds)
        for name in ("quadratic", "taylor_expand")
    }
    flops = {name: _step_flops(model, task, params0, expansions[name]) for name in ("network", "quadratic")}
    return {
        "what": what,
        "examples": n,
        "steps": steps,
        "network_seconds": times["quadratic"]["network"]["median"] / steps,
        **{f"{name}_over_network": harness.ratio(pair, name, "network") for name, pair in times.items()},
        "flops_over_network": flops["quadratic"] / flops["network"],
        "compile_over_network": runs["quadratic"][1] / runs["network"][1],
        "compile_seconds": {name: seconds for name, (_, seconds) in runs.items()},
        "times": times,
    }


def _gates(dim: int, width: int, n: int, steps: int, rounds: int) -> dict[str, Any]:
    model = jd.models.two_layer_relu(dim, width)
    x = jax.random.normal(jax.random.key(1), (n, dim))
    task, params0 = jd.tasks.from_arrays(x, jnp.sign(x[:, :1])), model.init(jax.random.key(0))
    away = jax.tree.map(lambda leaf: leaf + 0.03, params0)
    _agree(model, params0, away, task, (jd.models.frozen_gates, jd.quadratic))
    expansions = {"network": jd.exact, "gates": jd.models.frozen_gates}
    runs = {name: _compiled(model, task, params0, expand, steps) for name, expand in expansions.items()}
    times = harness.interleave({name: action for name, (action, _) in runs.items()}, rounds)
    return {
        "what": f"two layers, d = {dim}, m = {width}",
        "examples": n,
        "steps": steps,
        "network_seconds": times["network"]["median"] / steps,
        "gates_over_network": harness.ratio(times, "gates", "network"),
        "times": {"gates": times},
    }


def _compiled(model: Any, task: Any, params0: Any, expand: Any, steps: int) -> tuple[Callable[[], Any], float]:
    """A run as an action, and the seconds its compilation took (tracing included)."""
    ends = jd.record(jd.at([0, steps]), loss=jd.probes.Loss())

    def losses(params0: Any, task: Any) -> Any:
        training = jd.Training(
            model,
            task,
            optax.sgd(0.05),
            steps=steps,
            key=jax.random.key(0),
            params0=params0,
            expand=expand,
            record=ends,
        )
        return jd.train(training).values["loss"]

    found: list[Any] = []
    seconds = harness.seconds(lambda: found.append(jax.jit(losses).lower(params0, task).compile()))
    return lambda: found[0](params0, task), seconds


def _step_flops(model: Any, task: Any, params0: Any, expand: Any) -> float:
    """XLA's count for the loss and the gradient of one step, the anchor's part and the data being arguments."""
    apply = expand(model.apply, params0)
    apply = apply.on(task.x) if hasattr(apply, "on") else apply

    def loss(params: Any) -> Any:
        return jd.losses.mse(apply(params, task.x), task.y)

    with jax.default_matmul_precision("highest"):
        traced = jax.make_jaxpr(jax.value_and_grad(loss))(params0)
    return float(hoist.lower(hoist.hoist(traced)).compile().cost_analysis()["flops"])


def _agree(model: Any, params0: Any, params: Any, task: Any, expansions: tuple[Any, ...]) -> None:
    """Two expansions give the same values and gradients."""

    def found(expand: Any) -> Any:
        apply = expand(model.apply, params0)
        return jax.jit(jax.value_and_grad(lambda p: jd.losses.mse(apply(p, task.x), task.y)))(params)

    with jax.default_matmul_precision("highest"):
        (value, slope), (other, expected) = (found(expand) for expand in expansions)
    np.testing.assert_allclose(value, other, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * float(np.max(np.abs(b))))


def _grid(quick: bool, rounds: int) -> dict[str, Any]:
    """The linear model of 64-512-512-1 (tanh, 128 examples) over rates and steps, below the critical rate."""
    width, n, num_rates, steps = (16, 8, 3, 20) if quick else (512, 128, 16, 500)
    model = jd.models.mlp((64, width, width, 1), activation=jnp.tanh)
    x = jax.random.normal(jax.random.key(1), (n, 64))
    task, params0 = jd.tasks.from_arrays(x, jnp.sign(x[:, :1])), model.init(jax.random.key(0))
    kernel, f0 = jd.geometry.ntk(model.apply, params0, x), model.apply(params0, x)
    critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
    rates = critical * jnp.linspace(0.1, 0.9, num_rates)

    def simulated(rates: Any, params0: Any, task: Any) -> Any:
        def one(rate: Any) -> Any:
            record = jd.record(jd.every(1), loss=jd.probes.BatchLoss())
            training = jd.Training(
                model, task, optax.sgd(rate), steps=steps, key=jax.random.key(0), params0=params0, expand=jd.linear, record=record
            )  # fmt: skip
            return jd.train(training).values["loss"]

        return jax.lax.map(one, rates)

    def closed(system: Any, rates: Any) -> Any:
        evolution = jd.theory.linearized.descent(rates[:, None], jnp.arange(steps + 1)[None, :])
        return jd.theory.linearized.train_loss(system, f0, task.y, evolution, loss=jd.losses.mse)

    system = jax.jit(jd.theory.linearized.decompose)(kernel)
    fast, whole = jax.jit(closed), jax.jit(lambda k, r: closed(jd.theory.linearized.decompose(k), r))
    slow = jax.jit(simulated)
    np.testing.assert_allclose(fast(system, rates), slow(rates, params0, task), rtol=0.02, atol=1e-4)
    times = harness.interleave({"closed": lambda: fast(system, rates), "whole": lambda: whole(kernel, rates)}, rounds)
    taken = harness.interleave({"simulated": lambda: slow(rates, params0, task)}, min(rounds, 3))
    seconds = taken["simulated"]["median"]
    return {
        "what": "theory.linearized",
        "rates": num_rates,
        "steps": steps,
        "simulated_seconds": seconds,
        "closed_seconds": times["closed"]["median"],
        "simulated_over_closed": seconds / times["closed"]["median"],
        "simulated_over_whole": seconds / times["whole"]["median"],
        "times": times | taken,
    }
