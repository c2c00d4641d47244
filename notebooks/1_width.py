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
# # Wide networks become linear
#
# A network with m hidden units moves its weights by O(1) in total, so each weight by O(1/√m); its tangent kernel then hardly changes,
# and training follows a *linear* model. How fast, on real images, and what does the quadratic model add? This notebook
# trains ensembles of networks of several widths at once, beside their Taylor models, and compares them with the
# infinite-width kernel. It takes under a minute on a CPU.

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
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures

# %% [markdown]
# ## One sweep, in a few lines
#
# `run` is a plain function of the axes that returns a description of a training. Widths and seeds are vmapped: all
# members of all widths train in one compiled programme.

# %%
task = jd.tasks.digits(classes=(3, 8), n=64, n_test=64)


def run(width, seed):
    model = jd.models.mlp((64, width, width, 1), activation=jnp.tanh)
    return jd.Training(
        model,
        task,
        optax.sgd(0.1),
        steps=100,
        key=jax.random.key(seed),
        record=jd.record(jd.log_spaced(12), loss=jd.probes.Loss(), change=jd.probes.KernelChange(task.x)),
    )


ds = jd.sweep(run, vmap={"width": jd.widths([16, 32, 64, 128, 256]), "seed": jnp.arange(8)})
ds

# %% [markdown]
# The kernel moves while the loss falls; wider networks learn the same with less of it.

# %%
with figures.style():
    page, axes = figures.figure(1, 2)
    for place, array, title in zip(axes.flat, (ds.loss, ds.change), ("training loss", "kernel change"), strict=True):
        figures.curves(place, array, x="step", over="seed", hue="width")
        place.set_xscale("symlog")
        place.set_title(title)
    axes.flat[0].set_yscale("log")
page

# %% [markdown]
# ## The exponent, with its interval
#
# Theory says m^(−1/2). The 95 % interval comes from resampling seeds.

# %%
fit = jd.analysis.scaling.power_law(ds.change.isel(step=-1), "width", over="seed")
print(fit)

with figures.style():
    page, axes = figures.figure(1, 1)
    figures.power_law(axes.flat[0], ds.change.isel(step=-1), "width", over="seed", fit=fit)
    axes.flat[0].set_title("kernel change at the end of training")
page

# %% [markdown]
# ## The whole experiment
#
# `jaxdyn run width` runs this with linear and quadratic models trained beside every network, from the same weights, and with the
# infinite-width kernel. Here is its smallest preset. Each claim has a criterion that was fixed before any run, and the
# verdict is computed from the data.

# %%
experiment = jd.experiments.load("width")
config = experiment.presets[os.environ.get("JAXDYN_NOTEBOOK_PRESET", "ci")]
result = experiment.run(config)
experiment.figure(result)

# %%
for verdict in experiment.verdicts(result):
    print(f"{verdict.id}: {verdict.verdict}. {verdict.statement}")
    print(f"    {verdict.estimate:.3g} [{verdict.low:.3g}, {verdict.high:.3g}], criterion: {verdict.criterion}")

# %% [markdown]
# ## Where next
#
# - More width: `experiment.presets["paper"]` goes to 8192 units, for a GPU.
# - Your own network: `jd.models.from_nnx(factory)` or `jd.models.from_linen(module, x)`.
# - Your own observable: any function of a `jd.Snapshot`, such as `lambda s: jnp.abs(s.params["dense_0"]["weight"]).max()`.
