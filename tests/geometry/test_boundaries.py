"""What is told per example refuses one and the same functions and inputs, whatever it computes of them."""

import jax
import jax.numpy as jnp
import pytest

from jaxdyn import geometry, losses, probes, theory
from jaxdyn.dynamics.record import Snapshot

KEY = jax.random.key(0)
X, W = jax.random.normal(KEY, (6, 3)), {"w": jax.random.normal(jax.random.key(1), (3, 1))}


def single(apply):
    return lambda x: apply(W, x)


ENTRIES = {
    "ntk": lambda apply, x: geometry.ntk(apply, W, x),
    "ntk of two sets": lambda apply, x: geometry.ntk(apply, W, X, x),
    "ntk_blocks": lambda apply, x: geometry.ntk_blocks(apply, W, x),
    "ntk_plan": lambda apply, x: geometry.ntk_plan(apply, W, x),
    "agop": lambda apply, x: geometry.agop(single(apply), x),
    "agop in blocks": lambda apply, x: geometry.agop(single(apply), x, memory=60),
    "agop_factor": lambda apply, x: geometry.agop_factor(single(apply), x),
    "layer_agop": lambda apply, x: geometry.layer_agop(apply, W, x, layer="w"),
    "function_hessian_norm": lambda apply, x: geometry.function_hessian_norm(apply, W, x, key=KEY),
    "function_hessian_spectra": lambda apply, x: geometry.function_hessian_spectra(apply, W, x, key=KEY),
    "function_hessian_supremum": lambda apply, x: geometry.function_hessian_supremum(apply, W, x, radius=1.0, key=KEY),
    "mixed_difference": lambda apply, x: geometry.multilinear.mixed_difference(apply, W, x, W, blocks=["w"]),
    "block_remainder": lambda apply, x: geometry.multilinear.block_remainder(apply, W, x, W, only="w"),
    "quadratic_update": lambda apply, x: theory.catapult.quadratic_update(
        apply, W, x, x[:, :1], learning_rate=0.1, loss=losses.half_sum
    ),
}

FUNCTIONS = {
    "batch statistics": (lambda w, x: jnp.tanh((x - x.mean(0, keepdims=True)) @ w["w"]), "interact"),
    "one output without an axis": (lambda w, x: (x @ w["w"])[:, 0], r"\[:, None\]"),
    "complex": (lambda w, x: (x @ w["w"]) * (1 + 1j), "real outputs.*complex64"),
    "classes": (lambda w, x: jnp.argmax(x @ w["w"], 1)[:, None], "real outputs.*int32"),
    "two results": (lambda w, x: (x @ w["w"], x), "real outputs.*tuple"),
    "no output": (lambda w, x: (x @ w["w"])[:, :0], r"outputs \[n, k\]"),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_refuses_the_same_functions(entry):
    for apply, words in FUNCTIONS.values():
        with pytest.raises(ValueError, match=words):
            ENTRIES[entry](apply, X)


def test_the_hessian_at_one_example_refuses_the_same_functions():
    for apply, words in FUNCTIONS.values():
        with pytest.raises(ValueError, match=words):
            geometry.operators.function_hessian(apply, W, X[0])


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_needs_an_example(entry):
    with pytest.raises(ValueError, match="at least one example"):
        ENTRIES[entry](lambda w, x: x @ w["w"], X[:0])


NOTHING = {
    "cosine": lambda: geometry.cosine(jnp.ones((0, 0)), jnp.ones((0, 0))),
    "pearson": lambda: geometry.pearson(jnp.ones((0, 0)), jnp.ones((0, 0))),
    "factor_cosine": lambda: geometry.factor_cosine(jnp.ones((0, 3)), jnp.ones((2, 3))),
    "as_matrix": lambda: geometry.as_matrix(jnp.ones((0, 0, 2, 2))),
    "kernel_norm": lambda: geometry.kernel_norm(jnp.ones((0, 0))),
}


@pytest.mark.parametrize("entry", NOTHING)
def test_nothing_is_refused_with_its_shape(entry):
    with pytest.raises(ValueError, match=r"ha(s|ve) .*\(\d.*\)"):
        NOTHING[entry]()


PROBES = {
    "FunctionHessianNorm": lambda x: probes.FunctionHessianNorm(x),
    "LinearizationGap": lambda x: probes.LinearizationGap(x),
    "Multilinearity": lambda x: probes.Multilinearity(x, KEY, 1.0, steps=1, blocks=("w",)),
    "NTKMatrix": lambda x: probes.NTKMatrix(x),
    "NTKNorm": lambda x: probes.NTKNorm(x),
    "AGOP": lambda x: probes.AGOP(x),
    "BallCurvature": lambda x: probes.BallCurvature(x, KEY, 1.0, steps=1),
    "Conditioning": lambda x: probes.Conditioning(x),
}


@pytest.mark.parametrize("name", PROBES)
def test_probes_need_an_example_and_real_outputs(name):
    real, split = (lambda w, x: x @ w["w"]), (lambda w, x: (x @ w["w"]) * (1 + 1j))
    for apply, x, words in ((real, X[:0], "one example"), (split, X, "real outputs")):
        seen, probe = (
            Snapshot(0, W, W, None, (X, X[:, :1]), jnp.zeros(()), (), apply, apply, losses.half_mean),
            PROBES[name](x),
        )
        memory = (lambda probe=probe, seen=seen: (probe.start(seen),)) if hasattr(probe, "start") else tuple
        with pytest.raises(ValueError, match=words):
            jax.eval_shape(lambda probe=probe, seen=seen, memory=memory: probe(seen, *memory()))
