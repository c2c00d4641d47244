# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Networks on graphs, and what breaks their linearity
#
# A network on a directed acyclic graph, f_v = σ(in(v)^(-1/2) Σ w_uv f_u), becomes linear in its weights as its smallest in-degree m grows:
# the norm of the Hessian of f falls like m^(-1/2), on any graph. Fixed bottlenecks and nonlinear outputs break it. This notebook draws a
# graph, measures the slope, and breaks it. It takes about a minute on a CPU.

# %%
# Installs jaxdyn where it is missing (Colab). Colab's own JAX is kept when jaxdyn supports it.
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys

SOURCE = os.environ.get("JAXDYN_SOURCE", "jaxdyn")  # a package name, a path, or "jaxdyn @ git+https://…"
HAS_GPU = shutil.which("nvidia-smi") is not None

if importlib.util.find_spec("jaxdyn") is None:
    found = importlib.metadata.version("jax") if importlib.util.find_spec("jax") else "0"
    is_supported = tuple(int(part) for part in found.split(".")[:3]) >= (0, 10, 2)
    build = [SOURCE, f"jax=={found}"] if is_supported else [SOURCE, "jax[cuda12]>=0.10.2" if HAS_GPU else "jax>=0.10.2"]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *build], check=True)

import jax

if HAS_GPU and jax.default_backend() == "cpu":
    raise SystemExit("A GPU is present, but JAX runs on the CPU: restart the runtime, or install jax[cuda12].")
print(jax.__version__, jax.devices())

# %matplotlib inline

# %%
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures
from jaxdyn.models import graphs

# %% [markdown]
# ## A random graph
#
# Three layers of 24 neurons over 4 inputs; each neuron draws 6 to 18 parents from *all* earlier layers.

# %%
graph = graphs.random_layered((4, 24, 24, 24, 1), law=graphs.uniform(6), seed=0)
print(graph.num_vertices, "vertices,", len(graph.sources), "edges, smallest in-degree", graph.min_in_degree)
with figures.style():
    page = figures.graph(graph)
page

# %%
model = jd.models.dag(graph, activation=jnp.tanh)
x = jax.random.normal(jax.random.key(0), (5, 4))
params = model.init(jax.random.key(1))
print(model.apply(params, x).shape, {name: leaf["weight"].shape for name, leaf in params.items()})

# %% [markdown]
# ## The slope
#
# Graphs of *blocks* of neurons take padded widths, so that widths and seeds train, or are measured, in one compiled call. Four networks:
# a graph with skips, the same behind a softplus, a fully connected network, and one with a bottleneck of one neuron.

# %%
SKIPS = {"h1": ["x"], "h2": ["x", "h1"], "y": ["h1", "h2"]}
task = jd.tasks.from_arrays(jax.random.normal(jax.random.key(2), (4, 5)), jnp.ones((4, 1)))


def skips(width, **options):
    widths = {"x": 5, "h1": width, "h2": width, "y": 1}
    return jd.models.block_dag(SKIPS, widths=widths, activation=jnp.tanh, **options)


NETWORKS = {
    "skips": skips,
    "skips, softplus output": lambda width: skips(width, output=jax.nn.softplus),
    "fully connected": lambda width: jd.models.mlp((5, width, width, 1), activation=jnp.tanh),
    "bottleneck of one": lambda width: jd.models.mlp((5, width, 1, width, 1), activation=jnp.tanh),
}


def run(network, width, seed):
    record = jd.record(jd.at([0]), hessian=jd.probes.FunctionHessianNorm(task.x))
    return jd.Training(network(width), task, optax.sgd(0.1), steps=0, key=jax.random.key(seed), record=record)


ds = jd.sweep(run, loop={"network": NETWORKS}, vmap={"width": jd.widths([16, 32, 64, 128, 256]), "seed": np.arange(8)})
norms = ds.hessian.isel(step=0).mean(["example", "output"])
norms.mean("seed").to_pandas().round(3)

# %%
with figures.style():
    page, axes = figures.figure(1, 1, size=(6, 4.5))
    for name in NETWORKS:
        array = norms.sel(network=name)
        fit = jd.analysis.scaling.power_law(array, "width", over="seed")
        print(f"{name:24} {fit.exponent:.2f} [{fit.low:.2f}, {fit.high:.2f}]")
        figures.power_law(axes.flat[0], array, "width", over="seed", fit=fit, label=name)
    axes.flat[0].set_title("‖H_f‖ at initialisation, mean of 4 inputs")
page

# %% [markdown]
# ## The infinite-width kernel of a graph
#
# Blocks are weighted by their shares of the incoming width; wide networks approach it.

# %%
limit = skips(4096).kernel(task.x).ntk
for width in (64, 256, 1024):
    network = skips(width)
    found = jd.geometry.ntk(network.apply, network.init(jax.random.key(0)), task.x)
    print(width, float(jnp.linalg.norm(found - limit) / jnp.linalg.norm(limit)))

# %% [markdown]
# ## Where next
#
# - `jaxdyn run dag`, `jaxdyn run breaking`, `jaxdyn run pl`: every claim with its criterion and a verdict, on more graphs and networks.
# - Your own graph: `jd.models.dag((sources, targets), activation=…)`, a scipy.sparse matrix, or a networkx.DiGraph.
