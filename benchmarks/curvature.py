"""Are our eigenvalues right, and what do they cost next to scipy, PyTorch's tools and LOBPCG?

* `hessian`: the four largest eigenvalues of the loss Hessian of a 784-512-512-10 tanh network, n = 256, after 50 steps of
  gradient descent; truth by ARPACK at machine precision on the same product. In turn: ours cold (a block wide enough for
  multiple eigenvalues), ours with `block=2`, ours warm one step later, scipy's `eigsh` at its default tolerance and at ours.
  Beside them `lobpcg_standard`, PyHessian, hessian-eigenthings and curvlinops (PyTorch, an environment of their own), at
  defaults and at a better setting.
* `agop`: the AGOP of a 784-512-512-1 network, n = 10 000, next to one gradient over the same data.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse.linalg import lobpcg_standard
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import LinearOperator, eigsh

import jaxdyn as jd
from benchmarks import harness
from benchmarks.peers import Peer, Unavailable

ROUNDS = 5
TORCH = [
    ("PyHessian", {}),
    ("PyHessian", {"maxIter": 1000, "tol": 1e-5}),
    ("hessian-eigenthings", {}),
    ("hessian-eigenthings", {"max_iter": 100, "which": "LA"}),
    ("hessian-eigenthings", {"max_iter": 100, "which": "LA", "reorthogonalize": True}),
    ("curvlinops", {"tol": 1e-3}),
]


def main(*, quick: bool = False, path: Path | None = None) -> None:
    """Run the benchmark."""
    rounds = 1 if quick else ROUNDS
    problem = Problem(24 if quick else 784, 8 if quick else 512, 16 if quick else 256)
    table = [*hessian(problem, rounds), *torch_peers(problem)]
    features = agop(*((20, 16, 64) if quick else (784, 512, 10_000)), rounds)
    target = harness.write("curvature", [*table, features], path, question=__doc__.splitlines()[0])
    harness.show(
        f"top-4 eigenvalues of a loss Hessian, p = {problem.size}; truth {_four(problem.truth)}",
        ["method", "seconds", "/ eigsh", "values", "largest error", "says it converged", "products"],
        [
            [
                one["method"],
                f"{one['seconds']:.2f}",
                f"{one['ratio']:.2f}",
                _four(one["values"]),
                f"{one['error']:.0e}",
                one["converged"],
                str(one["products"] or ""),
            ]
            for one in table
            if "values" in one
        ],
    )
    for one in table:
        if "unavailable" in one:
            print(f"{one['method']}: not available, {one['unavailable']}")
    print(f"{features['work']}: {features['seconds']:.2f} s, {features['ratio']:.2f} × one gradient over the same data")
    print(target)


class Problem:
    """The Hessian, its product, and the truth."""

    def __init__(self, dim: int, width: int, n: int) -> None:
        x = jax.random.normal(jax.random.key(0), (n, dim))
        self.task = jd.tasks.from_arrays(x, jax.nn.one_hot(jax.random.randint(jax.random.key(1), (n,), 0, 10), 10))
        self.model = jd.models.mlp((dim, width, width, 10), activation=jnp.tanh, scaling=jd.models.standard)
        start, self.unravel = ravel_pytree(self.model.init(jax.random.key(2)))
        gradient = jax.jit(jax.grad(self.loss))
        for _ in range(50):
            start = start - 0.01 * gradient(start)
        self.now, self.later, self.size = start, start - 0.01 * gradient(start), start.size
        self.product = jax.jit(lambda w, v: self.hessian(w)(v))
        self.truth, _ = self.arpack(self.now, 0.0)
        self.truth_later, _ = self.arpack(self.later, 0.0)

    def loss(self, w: Any) -> Any:
        """The loss at flat parameters."""
        return jd.losses.mse(self.model.apply(self.unravel(w), self.task.x), self.task.y)

    def hessian(self, w: Any) -> Any:
        """Our operator."""
        task = self.task
        return jd.geometry.operators.loss_hessian(self.model.apply, self.unravel(w), task.x, task.y, loss=jd.losses.mse)

    def arpack(self, w: Any, tolerance: float) -> tuple[np.ndarray, int]:
        """Values by scipy, largest first, and the products spent."""
        calls = []

        def matvec(v: np.ndarray) -> np.ndarray:
            calls.append(1)
            return np.asarray(self.product(w, jnp.asarray(v, jnp.float32)))

        operator = LinearOperator((w.size, w.size), matvec=matvec, dtype=np.float32)
        start = np.asarray(jax.random.normal(jax.random.key(3), (w.size,)))
        values = eigsh(operator, k=4, which="LA", tol=tolerance, v0=start, return_eigenvectors=False)
        return np.sort(values)[::-1], len(calls)


def hessian(problem: Problem, rounds: int) -> list[dict[str, Any]]:
    """Ours and scipy in turn; LOBPCG once."""
    spent: dict[str, tuple[Any, str, int]] = {}
    spectrum = jd.geometry.spectrum

    def ours(name: str, w: Any, guess: Any = None, **options: Any) -> Any:
        def solve(w: Any, guess: Any) -> Any:
            operator = problem.hessian(w)
            return spectrum.top(operator, dim=operator.dim, num=4, key=jax.random.key(4), guess=guess, **options)

        compiled = jax.jit(solve)

        def action() -> Any:
            found = jax.block_until_ready(compiled(w, guess))
            spent[name] = (np.asarray(found.values), f"{int(found.converged.sum())} of 4", int(found.num_matvecs))
            return found

        return action

    def scipy(name: str, tolerance: float) -> Any:
        def action() -> None:
            values, products = problem.arpack(problem.now, tolerance)
            spent[name] = (values, "yes", products)

        return action

    cold = ours("jaxdyn, cold", problem.now)
    actions = {
        "scipy eigsh, default tolerance": scipy("scipy eigsh, default tolerance", 0.0),
        "scipy eigsh, tol=1e-3": scipy("scipy eigsh, tol=1e-3", 1e-3),
        "jaxdyn, cold": cold,
        "jaxdyn, cold, block=2": ours("jaxdyn, cold, block=2", problem.now, block=2),
        "jaxdyn, warm after one step": ours("jaxdyn, warm after one step", problem.later, cold()),
    }
    times = harness.interleave(actions, rounds)
    table = []
    for name in actions:
        truth = problem.truth_later if "warm" in name else problem.truth
        row = _row(name, times[name]["median"], truth, *spent[name])
        row["ratio"] = harness.ratio(times, name, "scipy eigsh, default tolerance")
        row["ratio_at_our_tolerance"] = harness.ratio(times, name, "scipy eigsh, tol=1e-3")
        if name.startswith("jaxdyn"):
            assert row["error"] < 1e-3, row
        table.append(row)
    reference = times["scipy eigsh, default tolerance"]["median"]
    return [*table, _lobpcg(problem, reference)]


def _lobpcg(problem: Problem, reference: float) -> dict[str, Any]:
    start = jax.random.normal(jax.random.key(5), (problem.size, 4))
    products = jax.jit(lambda w, block: jax.vmap(problem.hessian(w), in_axes=1, out_axes=1)(block))
    began = time.perf_counter()
    values, _, iterations = lobpcg_standard(lambda block: products(problem.now, block), start, m=100, tol=1e-6)
    seconds = time.perf_counter() - began
    row = _row("jax lobpcg_standard, m=100, tol=1e-6", seconds, problem.truth, np.asarray(values), "says nothing", None)
    return {**row, "ratio": seconds / reference, "iterations": int(iterations)}


def torch_peers(problem: Problem) -> list[dict[str, Any]]:
    """PyTorch's tools on the same network; each twice, the second time counted."""
    try:
        peer = Peer("torch", "torch_worker.py")
    except Unavailable as reason:
        return [{"method": "PyHessian, hessian-eigenthings, curvlinops", "unavailable": str(reason)}]
    params = problem.unravel(problem.now)
    arrays = {f"w{i}": np.asarray(params[f"dense_{i}"]["weight"]) for i in range(3)}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/in.npz", x=np.asarray(problem.task.x), y=np.asarray(problem.task.y), **arrays)
        loss = peer.ask(load=f"{folder}/in.npz")["loss"]
    np.testing.assert_allclose(loss, problem.loss(problem.now), rtol=1e-4)
    table = []
    for method, options in TORCH:
        peer.ask(method=method, options=options)
        began = time.perf_counter()
        problem.arpack(problem.now, 0.0)
        reference = time.perf_counter() - began
        found = peer.ask(method=method, options=options)
        said = "says nothing" if found["converged"] is None else f"{sum(found['converged'])} of 4"
        name = method + "".join(f", {key}={value}" for key, value in options.items())
        values = np.sort(np.asarray(found["values"]))[::-1] if method == "curvlinops" else np.asarray(found["values"])
        row = _row(name, found["seconds"], problem.truth, values, said, None)
        table.append({**row, "ratio": found["seconds"] / reference, "versions": peer.versions})
    peer.close()
    return table


def agop(dim: int, width: int, n: int, rounds: int) -> dict[str, Any]:
    """The AGOP against a gradient."""
    model = jd.models.mlp((dim, width, width, 1), activation=jnp.tanh)
    x, params = jax.random.normal(jax.random.key(0), (n, dim)), model.init(jax.random.key(1))
    y = jnp.ones((n, 1))
    ours = jax.jit(lambda p, x: jd.geometry.agop(lambda inputs: model.apply(p, inputs), x))
    gradient = jax.jit(jax.grad(lambda p, x: jd.losses.mse(model.apply(p, x), y)))
    rows = np.asarray(jax.jit(jax.vmap(jax.grad(lambda one: model.apply(params, one[None])[0, 0])))(x))
    np.testing.assert_allclose(ours(params, x), rows.T @ rows / n, rtol=1e-3, atol=1e-7)
    times = harness.interleave({"ours": lambda: ours(params, x), "gradient": lambda: gradient(params, x)}, rounds)
    return {
        "work": f"AGOP of a {dim}-{width}-{width}-1 network, n = {n}",
        "seconds": times["ours"]["median"],
        "ratio": 1 / harness.ratio(times, "gradient", "ours"),
        "times": times,
    }


def _row(
    name: str, seconds: float, truth: np.ndarray, values: np.ndarray, converged: str, products: int | None
) -> dict[str, Any]:
    error = float(np.max(np.abs(np.asarray(values) - truth) / np.abs(truth)))
    return {
        "method": name,
        "seconds": seconds,
        "values": [float(value) for value in values],
        "error": error,
        "converged": converged,
        "products": products,
    }


def _four(values: Any) -> str:
    return " ".join(f"{value:.4f}" for value in values)
