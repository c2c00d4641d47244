"""Ensembles as one writes them by hand in JAX: a jitted `lax.scan`, called member by member, or vmapped.

It runs in this project's own environment, in a process of its own with JAX's default of one CPU device. Requests are those of
`torch_training_worker.py`, and `"conv"` takes the convolution of XLA (`lax.conv_general_dilated`).
"""

import json
import os
import sys
import time

os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_default_matmul_precision", "highest")
STATE = {}


def dense(params, x):
    """Two hidden tanh layers in NTK scaling."""
    for weight in params[:-1]:
        x = jnp.tanh(x @ weight * weight.shape[0] ** -0.5)
    return x @ params[-1] * params[-1].shape[0] ** -0.5


def convolutional(params, x):
    """Two 3×3 ReLU layers and a readout of all positions, in NTK scaling."""
    for weight in params[:-1]:
        fan_in = weight.shape[0] * weight.shape[1] * weight.shape[2]
        z = jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(z * fan_in**-0.5)
    return x.reshape(x.shape[0], -1) @ params[-1] * params[-1].shape[0] ** -0.5


def load(path, family, steps, every, rate):
    """Data and weights, and one compiled training for each rival."""
    arrays = np.load(path)
    x, y = jnp.asarray(arrays["x"]), jnp.asarray(arrays["y"])
    params = [jnp.asarray(arrays[f"w{i}"]) for i in range(3)]
    network = {"dense": dense, "conv": convolutional}[family]

    def member(params, x, y):
        def loss(params):
            return jnp.mean(jnp.sum((network(params, x) - y) ** 2, axis=1))

        def step(params, _):
            value, grads = jax.value_and_grad(loss)(params)
            return [p - rate * g for p, g in zip(params, grads, strict=True)], value

        return jax.lax.scan(step, params, None, length=steps)[1][::every]

    one, all_at_once = jax.jit(member), jax.jit(jax.vmap(member, in_axes=(0, None, None)))
    members = []

    def loop():
        if not members:  # in the first call, which is not counted
            members.extend([p[i] for p in params] for i in range(params[0].shape[0]))
        return np.stack([np.asarray(one(own, x, y)) for own in members])

    STATE["path"] = path
    STATE["JAX loop"] = loop
    if family == "dense":
        STATE["JAX vmap"] = lambda: np.asarray(all_at_once(params, x, y))
    return {"rivals": [name for name in ("JAX loop", "JAX vmap") if name in STATE]}


def run(name):
    """Train once."""
    began = time.perf_counter()
    losses = STATE[name]()
    seconds = time.perf_counter() - began
    np.save(f"{STATE['path']}.{name}.npy", losses)
    return {"seconds": seconds}


def matmul():
    """One product."""
    if "square" not in STATE:
        product, a = jax.jit(lambda a: a @ a), jax.random.normal(jax.random.key(0), (2048, 2048))
        STATE["square"] = lambda: product(a).block_until_ready()
        STATE["square"]()
    began = time.perf_counter()
    STATE["square"]()
    return {"seconds": time.perf_counter() - began}


for line in sys.stdin:
    request = json.loads(line)
    if "load" in request:
        answer = load(request.pop("load"), **request)
    elif "run" in request:
        answer = run(request["run"])
    elif "matmul" in request:
        answer = matmul()
    else:
        answer = {"jax": jax.__version__, "devices": jax.device_count(), "python": sys.version.split()[0]}
    print(json.dumps(answer), flush=True)
