"""What does the exact empirical tangent kernel cost, next to a gradient and next to neural-tangents?

Rows, each checked against a rival or an explicit Jacobian before it is timed:

* `mlp`: 64-1024-1024-1 tanh, n = 256. One full-batch gradient; neural-tangents on the same JAX at its best (`vmap_axes=0`, the
  faster of its two implementations that still run).
* `blocks`: 784-W-W-10 ReLU, n = 64, the whole [n, n, 10, 10] kernel. neural-tangents' structured derivatives on the JAX they were
  made for (0.4.25), in a process of its own, timed in turn with ours.
* `cnn`: three 3×3 convolutions of 32 channels, global average pooling, 1 and 10 outputs, on 32×32×3, n = 64. With 10 outputs
  neural-tangents' products of vectors want more than 24 GB, so only its Jacobians run.
* `probe`: `NTKNorm` every 10 steps of a training with n = 256 and width 1024, against the same training without it.
* flax modules: a CNN, a residual network with layer norm, a ViT block; error against the Jacobian and the route of each leaf.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from benchmarks import harness
from benchmarks.peers import Peer, Unavailable
from jaxdyn.models._neural_tangents import neural_tangents

ROUNDS = 7
IMPLEMENTATIONS = ("JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS")


def main(*, quick: bool = False, path: Path | None = None) -> None:
    """Run the benchmark."""
    rounds = 1 if quick else ROUNDS
    table = [mlp(32 if quick else 1024, 8 if quick else 256, rounds)]
    table += [blocks(width, 8 if quick else 64, rounds) for width in ([8] if quick else [128, 512])]
    size = (8, 4) if quick else (32, 64)
    table += [cnn(*size, 1, IMPLEMENTATIONS, rounds), cnn(*size, 10, IMPLEMENTATIONS[:1], rounds)]
    table += [probe(16 if quick else 1024, rounds)]
    routes = [modules(name, module, shape) for name, module, shape in MODULES]
    target = harness.write("ntk", [*table, *routes], path, question=__doc__.splitlines()[0])
    harness.show(
        "exact empirical tangent kernels",
        ["work", "ours ms", "rival", "rival ms", "rival / ours", "relative difference"],
        [
            [one["work"], f"{1e3 * one['seconds']:.2f}", name, *_against(one, rival)]
            for one in table
            for name, rival in one["rivals"].items()
        ],
    )
    for one in routes:
        print(
            f"\n{one['work']}: largest relative error against the Jacobian in float64 {one['error']:.1e}\n{one['plan']}"
        )
    print(target)


def mlp(width: int, n: int, rounds: int, implementations: tuple[str, ...] = IMPLEMENTATIONS) -> dict[str, Any]:
    """The trace kernel against one gradient and neural-tangents."""
    model = jd.models.mlp((64, width, width, 1), activation=jnp.tanh)
    x, y = jax.random.normal(jax.random.key(0), (n, 64)), jnp.ones((n, 1))
    params = model.init(jax.random.key(1))
    ours = jax.jit(lambda p, x: jd.geometry.ntk(model.apply, p, x))
    gradient = jax.jit(jax.grad(lambda p, x: jd.losses.mse(model.apply(p, x), y)))
    actions = {"ours": lambda: ours(params, x), "one gradient": lambda: gradient(params, x)}
    return _race(f"ntk, MLP 64-{width}-{width}-1, n = {n}", actions, model.apply, params, x, rounds, implementations)


def cnn(channels: int, n: int, k: int, implementations: tuple[str, ...], rounds: int) -> dict[str, Any]:
    """The trace kernel of a convolutional network with global average pooling."""
    module = Pooled(channels, k)
    x = jax.random.normal(jax.random.key(0), (n, 32, 32, 3))
    params = jax.jit(module.init)(jax.random.key(1), x)
    ours = jax.jit(lambda p, x: jd.geometry.ntk(module.apply, p, x))
    gradient = jax.jit(jax.grad(lambda p, x: jnp.sum(module.apply(p, x) ** 2)))
    actions = {"ours": lambda: ours(params, x), "one gradient": lambda: gradient(params, x)}
    work = f"ntk, CNN of {channels} channels with GAP, 32×32×3, n = {n}, k = {k}"
    return _race(work, actions, module.apply, params, x, rounds, implementations)


def _race(
    work: str,
    actions: dict[str, Callable[[], Any]],
    apply: Any,
    params: Any,
    x: Any,
    rounds: int,
    names: tuple[str, ...],
) -> dict[str, Any]:
    """Ours and the rest in turn, then ours and each of neural-tangents' implementations, which take long, at most three rounds."""
    times = harness.interleave(actions, rounds)
    result = _row(work, times)
    expected = np.asarray(actions["ours"]())
    for name in names:
        nt = neural_tangents()
        kernel = nt.empirical_ntk_fn(apply, trace_axes=(-1,), vmap_axes=0, implementation=nt.NtkImplementation[name])
        compiled = jax.jit(lambda p, x, kernel=kernel: kernel(x, None, p))
        results = []

        def call(compiled: Any = compiled, results: list[Any] = results) -> Any:
            results.append(compiled(params, x))
            return results[-1]

        rival = harness.interleave({"ours": actions["ours"], name: call}, min(rounds, 3))
        error = _difference(np.asarray(results[0]), expected)
        assert error < 1e-3, (name, error)
        result["rivals"][f"neural-tangents {name}, same JAX"] = {
            "seconds": rival[name]["median"],
            "ratio": harness.ratio(rival, name, "ours"),
            "difference": error,
        }
    return result


def blocks(width: int, n: int, rounds: int) -> dict[str, Any]:
    """The whole kernel against neural-tangents' structured derivatives in their own process."""
    model = jd.models.mlp((784, width, width, 10), activation=jax.nn.relu)
    x, params = jax.random.normal(jax.random.key(0), (n, 784)), model.init(jax.random.key(1))
    ours = jax.jit(lambda p, x: jd.geometry.ntk_blocks(model.apply, p, x))
    expected = np.asarray(ours(params, x))
    work, name = (
        f"ntk_blocks, MLP 784-{width}-{width}-10, n = {n}",
        "neural-tangents STRUCTURED_DERIVATIVES, JAX 0.4.25",
    )
    try:
        peer = Peer("nt", "neural_tangents_worker.py")
    except Unavailable as reason:
        times = harness.interleave({"ours": lambda: ours(params, x)}, rounds)
        return {**_row(work, times), "unavailable": {name: str(reason)}}
    with tempfile.TemporaryDirectory() as folder:
        arrays = {f"w{i}": np.asarray(params[f"dense_{i}"]["weight"]) for i in range(3)}
        np.savez(f"{folder}/in.npz", x=np.asarray(x), **arrays)
        peer.ask(load=f"{folder}/in.npz")
        error = _difference(np.load(f"{folder}/in.npz.kernel.npy"), expected)
    assert error < 1e-3, error
    repeats = 10
    own, other = [], []
    for _ in range(rounds):
        own.append(harness.seconds(lambda: [ours(params, x) for _ in range(repeats)][-1]) / repeats)
        other.append(peer.ask(repeats=repeats)["seconds"])
    versions = peer.versions
    peer.close()
    rival = {
        "seconds": statistics.median(other),
        "ratio": statistics.median(b / a for a, b in zip(own, other, strict=True)),
        "difference": error,
        "versions": versions,
    }
    return {"work": work, "seconds": statistics.median(own), "rivals": {name: rival}}


def probe(width: int, rounds: int) -> dict[str, Any]:
    """What a training pays for `NTKNorm` at every tenth step."""
    n, steps = 256, 100
    x = jax.random.normal(jax.random.key(0), (n, 64))
    task = jd.tasks.from_arrays(x, x[:, :1] * x[:, 1:2])
    model = jd.models.mlp((64, width, width, 1), activation=jnp.tanh)

    def run(**probes: Any) -> Callable[[], Any]:
        def values(task: Any) -> Any:
            record = jd.record(jd.every(10), loss=jd.probes.Loss(), **{k: p(task.x) for k, p in probes.items()})
            training = jd.Training(model, task, optax.sgd(0.1), steps=steps, key=jax.random.key(1), record=record)
            return jd.train(training).values

        compiled = jax.jit(values)
        return lambda: compiled(task)

    actions = {"ours": run(norm=jd.probes.NTKNorm), "without": run()}
    np.testing.assert_allclose(actions["ours"]()["loss"], actions["without"]()["loss"], rtol=1e-4)
    times = harness.interleave(actions, rounds)
    work = f"training of width {width}, n = {n}, 100 steps, `NTKNorm` every 10"
    return {**_row(work, times), "overhead": 1 / harness.ratio(times, "without", "ours") - 1}


class Pooled(nn.Module):
    """Three convolutions, global average pooling, a linear readout."""

    channels: int
    outputs: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Outputs."""
        for _ in range(3):
            x = nn.tanh(nn.Conv(self.channels, (3, 3))(x))
        return nn.Dense(self.outputs)(x.mean((1, 2)))


class Residual(nn.Module):
    """Dense residual blocks with layer norm."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Outputs."""
        h = nn.Dense(32)(x)
        for _ in range(2):
            h = h + nn.Dense(32)(nn.relu(nn.LayerNorm()(h)))
        return nn.Dense(3)(nn.LayerNorm()(h))


class Attention(nn.Module):
    """A ViT block on 4×4 patches of a 16×16 image."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Outputs."""
        tokens = nn.Conv(16, (4, 4), strides=4)(x).reshape(x.shape[0], -1, 16)
        tokens = tokens + self.param("position", nn.initializers.normal(), (1, tokens.shape[1], 16))
        h = nn.LayerNorm()(tokens)
        tokens = tokens + nn.MultiHeadDotProductAttention(2)(h, h)
        tokens = tokens + nn.Dense(16)(nn.gelu(nn.Dense(32)(nn.LayerNorm()(tokens))))
        return nn.Dense(3)(tokens.mean(1))


MODULES = [
    ("flax CNN", Pooled(4, 3), (6, 8, 8, 3)),
    ("flax residual network with layer norm", Residual(), (6, 10)),
    ("flax ViT block", Attention(), (6, 16, 16, 3)),
]


def modules(name: str, module: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    """Exactness in float64, and the route of each leaf."""
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), shape, jnp.float64)
        params = jax.tree.map(lambda w: w.astype(jnp.float64), jax.jit(module.init)(jax.random.key(1), x))
        jacobian = jax.jit(jax.jacobian(module.apply))(params, x)
        rows = jnp.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(jacobian)], axis=2)
        expected = np.asarray(jnp.einsum("iap,jbp->ijab", rows, rows))
        found = np.asarray(jax.jit(lambda p, x: jd.geometry.ntk_blocks(module.apply, p, x))(params, x))
        error = _difference(found, expected)
        assert error < 1e-10, (name, error)
        return {"work": name, "error": error, "plan": str(jd.geometry.ntk_plan(module.apply, params, x))}


def _row(work: str, times: dict[str, dict[str, Any]]) -> dict[str, Any]:
    rivals = {
        name: {"seconds": times[name]["median"], "ratio": harness.ratio(times, name, "ours"), "difference": None}
        for name in times
        if name != "ours"
    }
    return {"work": work, "seconds": times["ours"]["median"], "times": times, "rivals": rivals}


def _against(one: dict[str, Any], rival: dict[str, Any]) -> list[str]:
    difference = "" if rival["difference"] is None else f"{rival['difference']:.0e}"
    return [f"{1e3 * rival['seconds']:.2f}", f"{rival['ratio']:.2f}", difference]


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))
