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
# # Networks, their linear and their quadratic models
#
# Below the critical learning rate 2/(c λ_max(K)) a wide network follows its linear model. Above it the linear model diverges; the network
# makes a *catapult*, a spike of the loss after which its kernel is smaller, and so does its quadratic model f + ∇f·δ + ½ δᵀHδ, whose
# Hessian never changes. This notebook runs the three side by side, looks where the spike lives, and compares test losses. It takes
# about a minute on a CPU.

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
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures

# %% [markdown]
# ## Three models from one initialisation
#
# What is trained is a choice of function seen from the anchor: `expand=jd.exact`, `jd.linear` or `jd.quadratic`. Rates are in units of
# 1/(c λ_max(K_0)), so that 2 is critical. `TopDirection` decomposes the loss in the eigenvectors of the *current* kernel at every step.

# %%
task = jd.tasks.digits(classes=(3, 8), n=64, n_test=200)
model = jd.models.two_layer_relu(64, 512)
c = jd.losses.mse.c(64, 1)


def run(expand, rate, seed):
    key = jax.random.key(seed)
    params0 = model.init(key)
    lr = rate / 2 * jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
    record = jd.record(
        jd.every(1),
        loss=jd.probes.Loss(),
        test=jd.probes.TestLoss(),
        top=jd.probes.TopDirection(lr * c),
    )
    return jd.Training(model, task, optax.sgd(lr), steps=60, key=key, params0=params0, expand=expand, record=record)


EXPANSIONS = {"full": jd.exact, "linear": jd.linear, "quadratic": jd.quadratic}
RATES = np.array([0.6, 1.2, 1.8, 2.3, 2.8, 3.3])
ds = jd.sweep(run, loop={"expand": EXPANSIONS}, vmap={"rate": RATES, "seed": np.arange(4)}).load()
phase = jd.analysis.phases.classify(ds.loss, curvature=ds.top_eigenvalue.isel(mode=0), diverged_at=ds.diverged_at)
phase.isel(seed=0).to_pandas()

# %%
with figures.style():
    page, axes = figures.figure(1, 3, size=(3.6, 3.0))
    for place, rate in zip(axes.flat, (1.8, 2.3, 2.8), strict=True):
        shown = ds.loss.sel(rate=rate).isel(seed=0)
        figures.curves(place, shown.where(shown < 1e4), hue="expand")
        place.set_yscale("log")
        place.set_title(f"training loss, η c λ_max(K_0) = {rate}")
page

# %% [markdown]
# ## Where the spike lives
#
# P≤s projects on the s top eigenvectors of the kernel at that step. On these 64 images the two largest eigenvalues are close, so that both
# pass 2/(ηc) together: the first direction alone misses the spike, the first two hold nearly all of it, and the rest of the loss keeps
# falling. A second, slower spike may follow where an eigenvalue is left just above 2/(ηc). The kernel's norm ends below it.

# %%
cumulative = ds.top_loss.sel(expand="full").cumsum("mode")
with figures.style():
    page, axes = figures.figure(1, 3, size=(3.6, 3.0))
    for place, rate in zip(axes.flat[:2], (2.3, 2.8), strict=True):
        here = cumulative.sel(rate=rate).isel(seed=0)
        for label, line in {
            "whole loss": here.isel(mode=-1),
            "in P≤1": here.isel(mode=0),
            "in P≤2": here.isel(mode=1),
            "outside P≤2": here.isel(mode=-1) - here.isel(mode=1),
        }.items():
            place.plot(line.step, line.clip(1e-4), label=label, lw=2.5 if label == "whole loss" else 1.3)
        place.set_yscale("log")
        place.set_title(f"network, η c λ_max(K_0) = {rate}")
        place.set_xlabel("step")
        place.legend()
    relative = ds.top_eigenvalue.sel(expand="full").isel(mode=0)
    relative = relative / relative.isel(step=0) * ds.rate
    figures.curves(axes.flat[2], relative.transpose("rate", "seed", "step"), hue="rate", over="seed")
    axes.flat[2].axhline(2.0, color=figures.GREY, ls="--")
    axes.flat[2].set_title("η c λ_max(K_t)")
page

# %% [markdown]
# ## Test loss against rate
#
# The best test loss along the run. For the linear model no simulation is needed: one eigendecomposition of the kernel serves all rates
# and steps, and here checks the simulated one.

# %%
best = ds.test.where(np.isfinite(ds.test)).min("step").mean("seed")
print(best.transpose("expand", "rate").to_pandas().round(3))

params0 = model.init(jax.random.key(0))
kernel = jd.geometry.ntk(model.apply, params0, task.x)
cross = jd.geometry.ntk(model.apply, params0, task.x_test, task.x)
critical = float(jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse))
linearized = jd.theory.linearized
outputs = linearized.test_outputs(
    linearized.decompose(kernel),
    model.apply(params0, task.x),
    task.y,
    linearized.descent(RATES[:3, None] / 2 * critical, np.arange(61)[None, :]),  # 3 rates × 61 steps at once
    loss=jd.losses.mse,
    cross=cross,
    f0_test=model.apply(params0, task.x_test),
)
closed = ((np.asarray(outputs) - np.asarray(task.y_test)) ** 2).mean(axis=(2, 3))
simulated = ds.test.sel(expand="linear").isel(seed=0, rate=slice(3)).transpose("rate", "step").values
print("closed form against simulation: largest relative difference", float(np.abs(closed / simulated - 1).max()))

# %%
with figures.style():
    page, axes = figures.figure(1, 1, size=(5, 3.6))
    members = ds.test.where(np.isfinite(ds.test)).min("step")
    figures.curves(axes.flat[0], members.transpose("expand", "seed", "rate"), x="rate", hue="expand", over="seed")
    axes.flat[0].axvline(2.0, color=figures.GREY, ls="--")
    axes.flat[0].set_yscale("log")
    axes.flat[0].set_xlabel("η c λ_max(K_0)")
    axes.flat[0].set_title("best test loss in 60 steps")
page

# %% [markdown]
# ## Where next
#
# - `jaxdyn run subspace` and `jaxdyn run generalization`: the claims with their criteria, on more networks, data and seeds.
# - `expand=jd.taylor(3)` for the cubic model; `jd.models.frozen_gates` for this network's quadratic model at the price of the network.
# - `jd.theory.catapult`: the exact maps behind the spike.
