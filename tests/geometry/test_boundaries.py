"""What is told per example refuses one and the same functions and inputs, whatever it computes of them."""

import jax
import jax.numpy as jnp
import pytest

from jaxdyn import geometry

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


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_needs_an_example(entry):
    with pytest.raises(ValueError, match="at least one example"):
        ENTRIES[entry](lambda w, x: x @ w["w"], X[:0])
