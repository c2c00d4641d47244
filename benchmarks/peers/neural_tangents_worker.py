"""neural-tangents 0.6.5 with its structured derivatives, on the JAX it was made for. Runs in the `nt` environment."""

import json
import sys
import time
import types

placeholder = types.ModuleType("neural_tangents.experimental")  # TensorFlow, for one function nobody needs here
placeholder.empirical_ntk_fn_tf = None
sys.modules[placeholder.__name__] = placeholder

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import neural_tangents as nt  # noqa: E402
import numpy as np  # noqa: E402

STATE = {}


def network(params, x):
    """A ReLU network in NTK scaling."""
    for weight in params[:-1]:
        x = jax.nn.relu(x @ weight / np.sqrt(weight.shape[0]))
    return x @ params[-1] / np.sqrt(params[-1].shape[0])


def load(path):
    """Take inputs and weights, compile, and save the kernel for comparison."""
    arrays = np.load(path)
    x = jnp.asarray(arrays["x"])
    params = [jnp.asarray(arrays[f"w{i}"]) for i in range(len(arrays.files) - 1)]
    kernel = nt.empirical_ntk_fn(
        network, trace_axes=(), vmap_axes=0, implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES
    )
    compiled = jax.jit(lambda p, x: kernel(x, None, p))
    STATE["call"] = lambda: compiled(params, x)
    began = time.perf_counter()
    result = np.asarray(STATE["call"]())
    np.save(path + ".kernel.npy", result)
    return {"first": time.perf_counter() - began}


def once(repeats):
    """Mean seconds of one call."""
    began = time.perf_counter()
    for _ in range(repeats):
        STATE["call"]().block_until_ready()
    return {"seconds": (time.perf_counter() - began) / repeats}


for line in sys.stdin:
    request = json.loads(line)
    if "load" in request:
        answer = load(request["load"])
    elif "repeats" in request:
        answer = once(request["repeats"])
    else:
        answer = {"jax": jax.__version__, "neural_tangents": nt.__version__, "python": sys.version.split()[0]}
    print(json.dumps(answer), flush=True)
