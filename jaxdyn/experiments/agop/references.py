"""What the `agop` experiment learns and the AGOPs it compares with: known for polynomials, that of reference networks for real images.

Every reference is trained on all images but one fold of them, the test images of the students included, so that it knows more than any
student does; its error on the fold that it has not seen says how strong it is, the agreement of the references how well the AGOP is
known.

Scaling and optimizer were chosen on the held-out error of the references alone, before any student was trained: standard scaling with
Adam errs on 0.7 % of the images, NTK scaling on 1.0 %, NTK scaling with weight decay on 4 to 12 %. With decay the references agree better
(cosines of 0.92 to 0.96, against 0.66): the AGOP of a good classifier of these images is not well determined by them.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd

WIDTH, RATE, BATCH = 512, 1e-3, 128


def monomial(config: Any, name: str) -> jd.Task:
    """The task rank-r."""
    rank, n = int(name.removeprefix("rank-")), config.num_train
    return jd.tasks.polynomial(jax.random.key(0), degree=rank, dim=dimension(rank, n), n=n, n_test=config.num_test)


def dimension(rank: int, n: int) -> int:
    """The largest d, at least the rank, with at most 1.28 n monomials of that degree."""
    return max(d for d in range(rank, n) if d == rank or math.comb(d + rank - 1, rank) <= 1.28 * n)


def known(config: Any, task: jd.Task) -> Any:
    """The AGOP of a known target, once for each reference."""
    found = jd.geometry.agop(task.target, task.x_test)
    return jnp.broadcast_to(found[None], (config.references, *found.shape))


def parity(config: Any) -> jd.Task:
    """Digits, even (+1) against odd (−1): `num_train` images to learn from, at most `num_test` of the others to be judged by."""
    num_test = min(config.num_test, 1797 - config.num_train)
    drawn = jd.tasks.digits(classes=tuple(range(10)), n=config.num_train, n_test=num_test)

    def label(y: Any) -> Any:
        return jnp.where(jnp.argmax(y, axis=1) % 2 == 0, 1.0, -1.0)[:, None]

    return jd.tasks.from_arrays(drawn.x, label(drawn.y), x_test=drawn.x_test, y_test=label(drawn.y_test))


def truths(config: Any) -> tuple[Any, dict[str, str]]:
    """AGOPs of the references at the students' test images, and what they are worth.

    Args:
        config: sizes; `references` and `reference_steps` among them.

    Returns:
        [reference, d, d], and the attributes `reference_error` (on the fold left out) and `reference_agreement` (cosine of each with the
        mean of the others, each scaled to norm 1), JSON lists.
    """
    student = parity(config)
    x = jnp.concatenate([student.x, student.x_test])
    y = jnp.concatenate([student.y, student.y_test])
    num = config.references
    held = len(x) // num
    folds = jnp.asarray(np.random.default_rng(0).permutation(len(x))[: held * num].reshape(num, held))
    model = jd.models.mlp((x.shape[1], WIDTH, WIDTH, 1), activation=jax.nn.relu, scaling=jd.models.standard)
    looked_at = jnp.asarray(student.x_test)

    def one(fold: Any) -> jd.Training:
        out = folds[fold]
        kept = jnp.take(folds, (fold + 1 + jnp.arange(num - 1)) % num, axis=0).reshape(-1)
        task = jd.tasks.from_arrays(x[kept], y[kept], x_test=x[out], y_test=y[out])
        record = jd.record(
            jd.at([config.reference_steps]), dim="end", accuracy=jd.probes.Accuracy(), agop=jd.probes.AGOP(looked_at)
        )
        key = jax.random.fold_in(jax.random.key(1), fold)
        batches = jd.minibatch(min(BATCH, held * (num - 1)))
        return jd.Training(
            model, task, optax.adam(RATE), steps=config.reference_steps, key=key, sampler=batches, record=record
        )

    found = jd.sweep(one, vmap={"fold": np.arange(num)}).isel(end=0)
    agops = found["agop"].transpose("fold", ...).values.astype(float)
    units = agops / np.linalg.norm(agops, axis=(1, 2), keepdims=True)
    others = (units.sum(axis=0)[None] - units) / (num - 1)
    cosines = np.sum(units * others, axis=(1, 2)) / np.linalg.norm(others, axis=(1, 2))
    described = {
        "reference_error": json.dumps((1 - found["accuracy"].values.astype(float)).tolist()),
        "reference_agreement": json.dumps(cosines.tolist()),
    }
    return jnp.asarray(agops, x.dtype), described


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Alignment:
    """AGOP alignment with each of several references, [reference]."""

    x: Any  # inputs [n, d]
    to: Any  # AGOPs [reference, d, d]

    dims: ClassVar[tuple[str, ...]] = ("reference",)

    def __call__(self, snapshot: jd.Snapshot) -> Any:
        """One AGOP of the network, and a cosine for each reference."""
        found = jd.geometry.agop(lambda x: snapshot.apply(snapshot.params, x), self.x)
        return jax.vmap(lambda aim: jd.geometry.cosine(found, aim))(self.to)
