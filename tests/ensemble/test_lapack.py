"""Decompositions in vmapped members: the same numbers, one matrix a call, and no programme that hangs."""

import math
import os
import re
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.ensemble.compiling.lapack import _RANKS, one_at_a_time

MATRICES = np.random.default_rng(0).normal(size=(3, 5, 5))


def _symmetric(a):
    return a @ a.T + jnp.eye(5)


DECOMPOSITIONS = {
    "eigh": lambda a: jnp.linalg.eigh(_symmetric(a)).eigenvalues,
    "eig": lambda a: jnp.sort(jnp.abs(jnp.linalg.eigvals(a))),
    "svd": lambda a: jnp.linalg.svd(a, compute_uv=False),
    "qr": lambda a: jnp.abs(jnp.linalg.qr(a).R),
    "cholesky": lambda a: jnp.linalg.cholesky(_symmetric(a)),
    "solve": lambda a: jnp.linalg.solve(a, jnp.ones(5)),
    "positive solve": lambda a: jax.scipy.linalg.solve(_symmetric(a), jnp.ones(5), assume_a="pos"),
    "triangular solve": lambda a: jax.scipy.linalg.solve_triangular(a + 9 * jnp.eye(5), jnp.ones((5, 5)), lower=True),
    "tridiagonal solve": lambda a: jax.lax.linalg.tridiagonal_solve(a[0], 9 + a[1], a[2], a),
    "batched": lambda a: jnp.linalg.eigvalsh(jnp.asarray([[_symmetric(a)] * 3, [_symmetric(2 * a)] * 3])),
}
SURROUNDINGS = {
    "alone": lambda f: f,
    "jit": jax.jit,
    "scan": lambda f: lambda a: jax.lax.scan(lambda c, i: (c + i * f(a), c.sum()), 0 * f(a), jnp.arange(3.0))[0],
    "while": lambda f: lambda a: jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, f(a)), (0, 0 * f(a)))[1],
    "cond": lambda f: lambda a: jax.lax.cond(a[0, 0] > 0, f, lambda a: -f(a), a),
    "remat": jax.checkpoint,
}


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("decomposition", DECOMPOSITIONS)
def test_members_get_what_each_gets_alone_and_no_call_takes_several_matrices(decomposition, surrounding, x64):
    function = SURROUNDINGS[surrounding](DECOMPOSITIONS[decomposition])
    closed = jax.make_jaxpr(function)(MATRICES[0])
    together = jax.jit(jax.vmap(lambda a: one_at_a_time(closed)(closed.consts, [a])[0]))
    np.testing.assert_allclose(together(MATRICES), [function(a) for a in MATRICES], rtol=1e-9, atol=1e-12)
    assert _most_matrices(jax.jit(jax.vmap(function)), MATRICES) >= 3
    assert _most_matrices(together, MATRICES) == 1


def _most_matrices(function, argument):
    """How many matrices a call of LAPACK receives, at most, as its last operand tells: [batch axes, 5, 5]."""
    calls = [line for line in function.lower(argument).as_text().splitlines() if "@lapack_" in line]
    operands = [re.findall(r"tensor<([0-9x]*?)5x5xf64>", line.rsplit(" : ", 1)[1].split("->")[0])[-1] for line in calls]
    assert operands
    return max(math.prod(int(size) for size in one.split("x") if size) for one in operands)


def test_every_primitive_of_linear_algebra_that_jax_has_is_known():
    from jax._src import core
    from jax._src.lax import linalg

    there = {value.name for value in vars(linalg).values() if isinstance(value, core.Primitive)}
    assert there - set(_RANKS) <= {"lu_pivots_to_permutation"}  # no LAPACK


def test_a_function_without_decompositions_is_left_as_it_is():
    closed = jax.make_jaxpr(lambda a: jnp.tanh(a) @ a)(MATRICES[0])
    again = jax.make_jaxpr(lambda a: one_at_a_time(closed)([], [a])[0])(MATRICES[0])
    assert str(again.jaxpr) == str(closed.jaxpr)


def test_sixteen_decompositions_in_vmapped_members_do_not_hang_two_threads():
    script = textwrap.dedent(
        """
        import jax, jax.numpy as jnp, numpy as np, optax
        import jaxdyn as jd
        jd.ensemble.use_cores(2)
        task = jd.tasks.polynomial(jax.random.key(0), degree=1, dim=5, n=24)
        def largest(scale):
            return lambda s: jnp.linalg.eigvalsh(scale * s.task.x @ s.task.x.T + s.params["dense_0"]["weight"][0, 0])[-1]
        def run(seed):
            record = jd.record(jd.every(1), **{f"e{i}": largest(1.0 + i) for i in range(16)})
            model = jd.models.mlp((5, 8, 1), activation=jnp.tanh)
            return jd.Training(model, task, optax.sgd(0.1), steps=200, key=jax.random.key(seed), record=record)
        ds = jd.sweep(run, vmap={"seed": np.arange(24)})
        assert ds.attrs["members_at_a_time"][0] > 1 and bool(ds.done.all())
        """
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "NPROC")}
    subprocess.run(
        [sys.executable, "-c", script], env={**environment, "PYTHONPATH": os.getcwd()}, check=True, timeout=120
    )
