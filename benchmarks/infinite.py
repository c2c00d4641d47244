"""Do infinite-width kernels and their predictions cost more here than in neural-tangents?

A 784-∞-∞-1 ReLU network, n training and 500 test inputs, float32. Kernel: `model.kernel` against `stax`'s `kernel_fn` on the same JAX.
Prediction: gradient flow of the test outputs to time t (`theory.linearized`, one decomposition included) against
`nt.predict.gradient_descent_mse_ensemble` (`diag_reg=0`). Errors are against the same formulas in float64 numpy.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdyn as jd
from benchmarks import harness
from jaxdyn.models._neural_tangents import neural_tangents

ROUNDS, DIM, TESTS, TIME = 5, 784, 500, 1e4


def main(*, quick: bool = False, path: Path | None = None) -> None:
    """Run the benchmark."""
    table = [row(n, 1 if quick else ROUNDS) for n in ([60] if quick else [1000, 4000])]
    target = harness.write("infinite", table, path, question=__doc__.splitlines()[0])
    harness.show(
        "infinite-width kernel and prediction, ReLU, d = 784",
        ["n", "what", "ours s", "neural-tangents s", "neural-tangents / ours", "our error", "its error"],
        [
            [
                str(one["n"]),
                what,
                f"{one[what]['ours']:.3f}",
                f"{one[what]['theirs']:.3f}",
                f"{one[what]['ratio']:.2f}",
                f"{one[what]['our_error']:.0e}",
                f"{one[what]['their_error']:.0e}",
            ]
            for one in table
            for what in ("kernel", "prediction")
        ],
    )
    print(target)


def row(n: int, rounds: int) -> dict[str, Any]:
    """Time one size."""
    nt = neural_tangents()
    x = jax.random.normal(jax.random.key(0), (n, DIM))
    x_test = jax.random.normal(jax.random.key(1), (TESTS, DIM))
    y = jnp.sign(x[:, :1])
    model = jd.models.mlp((DIM, 1, 1, 1), activation=jax.nn.relu)  # the widths do not matter
    layers = [nt.stax.Dense(1, W_std=1.0, b_std=None), nt.stax.Relu()]
    kernel_fn = nt.stax.serial(*layers, *layers, layers[0])[2]
    own = jax.jit(lambda x: model.kernel(x).ntk)
    stax = jax.jit(lambda x: kernel_fn(x, None, "ntk"))

    def predict(x: Any, x_test: Any) -> Any:
        system = jd.theory.linearized.decompose(model.kernel(x).ntk)
        return jd.theory.linearized.test_outputs(
            system,
            jnp.zeros_like(y),
            y,
            jd.theory.linearized.flow(TIME),
            loss=jd.losses.half_mean,
            cross=model.kernel(x_test, x).ntk,
            f0_test=jnp.zeros((TESTS, 1)),
        )

    ours = jax.jit(predict)

    def theirs() -> Any:
        return nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, y)(x_test=x_test, get="ntk", t=TIME)

    expected = _numpy(x, x_test, y)
    times = harness.interleave(
        {
            "own kernel": lambda: own(x),
            "stax kernel": lambda: stax(x),
            "own prediction": lambda: ours(x, x_test),
            "nt prediction": theirs,
        },
        rounds,
    )
    kernels = (np.asarray(own(x)), np.asarray(stax(x)))
    predictions = (np.asarray(ours(x, x_test)), np.asarray(theirs()))
    result: dict[str, Any] = {"n": n, "times": times}
    for what, first, second, found, truth in (
        ("kernel", "own kernel", "stax kernel", kernels, expected[0]),
        ("prediction", "own prediction", "nt prediction", predictions, expected[1]),
    ):
        errors = [float(np.max(np.abs(one - truth)) / np.max(np.abs(truth))) for one in found]
        assert max(errors) < 1e-2, (what, errors)
        result[what] = {
            "ours": times[first]["median"],
            "theirs": times[second]["median"],
            "ratio": harness.ratio(times, second, first),
            "our_error": errors[0],
            "their_error": errors[1],
        }
    return result


def _numpy(x: Any, x_test: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and prediction in float64, from the arc-cosine formulas."""
    both = np.concatenate([np.asarray(x), np.asarray(x_test)]).astype(np.float64)
    n = len(x)
    variance, covariance = np.sum(both**2, axis=1) / DIM, both @ both[:n].T / DIM
    tangent = covariance
    for _ in range(2):
        scale = np.sqrt(np.outer(variance, variance[:n]))
        angle = np.arccos(np.clip(covariance / scale, -1.0, 1.0))
        slope = (np.pi - angle) / (2 * np.pi)
        covariance = scale * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        tangent = covariance + slope * tangent
        variance = variance / 2
    values, vectors = np.linalg.eigh(tangent[:n])
    weights = -np.expm1(-TIME * values / n) / values
    return tangent[:n], tangent[n:] @ (vectors @ (weights[:, None] * (vectors.T @ np.asarray(y, np.float64))))
