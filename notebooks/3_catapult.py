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
# # The catapult phase
#
# Gradient descent with a learning rate above the critical one, η_crit = 2/(c λ_max(K_0)), does not have to diverge: the loss first rises by
# orders of magnitude, the kernel shrinks, and then the loss falls to zero at a flatter place. Quadratic models do this for
# η_rel = η c λ_max(K_0) between 2 and 4; networks do something similar. This notebook draws the phase diagram, follows one run
# through the catapult, and holds it against its exact map. It takes half a minute on a CPU.

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

# %% [markdown]
# ## A phase diagram
#
# Two classes of real digits, a two-layer ReLU network and its quadratic model (the same network with its gates frozen at the anchor). Each
# run asks for its own critical rate; rates and seeds are traced, so that all runs of a model are one compiled call.

# %%
task = jd.tasks.digits(classes=(3, 8), n=32)
WIDTH = 256


def run(expand, ratio, seed):
    key = jax.random.key(seed)
    model = jd.models.two_layer_relu(64, WIDTH)
    params0 = model.init(key)
    critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
    return jd.Training(
        model,
        task,
        optax.sgd(ratio * critical),
        steps=200,
        key=key,
        params0=params0,
        expand=expand,
        record=jd.record(jd.every(1), loss=jd.probes.Loss(), ntk=jd.probes.NTKNorm(task.x)),
    )


MODELS = {"quadratic model": jd.models.frozen_gates_on(task.x), "network": jd.exact, "linear model": jd.linear}
ds = jd.sweep(run, loop={"expand": MODELS}, vmap={"ratio": np.linspace(0.2, 2.8, 27), "seed": np.arange(4)})
phase = jd.analysis.phases.classify(ds.loss, curvature=ds.ntk, diverged_at=ds.diverged_at)

# %%
relative = phase.assign_coords(ratio=2 * phase.ratio)  # η_rel = 2 η/η_crit
with figures.style():
    page, axes = figures.figure(1, 1, size=(7, 2.8))
    figures.phase_diagram(axes[0, 0], relative, x="ratio", y="expand", over="seed", lines=(2.0, 4.0))
    axes[0, 0].set_xlabel("η_rel = η c λ_max(K_0); dashed: 2 and 4")
page

# %% [markdown]
# The linear model has no catapult. Where exactly the others end depends on the data; with one example, or with two classes in one
# dimension, the lines are exact in the limit of wide models (`jaxdyn run catapult` measures them).
#
# ## Evidence
#
# A phase is a summary. What it was read from: how high the loss rose, when it came back, and whether the run ended at a curvature
# below 2/η.

# %%
c = jd.losses.mse.c(32, 1)
lr = 2 * ds.ratio / (c * ds.ntk.isel(step=0, drop=True))  # what each run was given
rows = jd.analysis.phases.evidence(ds.loss, curvature=ds.ntk, lr=lr, c=c, diverged_at=ds.diverged_at)
shown = rows.sel(expand="quadratic model", seed=0, drop=True).sel(
    ratio=[0.5, 0.9, 1.2, 1.5, 1.8, 2.4], method="nearest"
)
shown[["phase", "rise", "peak_step", "return_step", "relative_rate", "final_relative_rate"]].to_dataframe().round(3)

# %% [markdown]
# ## One run through the catapult, and its exact map
#
# With one example the quadratic model is two numbers, the output g and the kernel λ, and a step of gradient descent is an exact map
# of them:
#
# g' − y = [1 − ηλ + a η² (g − y) g] (g − y),  λ' = λ + a η² (g − y)² λ − 4 a η (g − y) g,  a = ‖x‖²/(md).

# %%
WIDE = 4096
example = jd.tasks.from_arrays(jnp.ones((1, 4)), jnp.ones((1, 1)))
model = jd.models.two_layer_relu(4, WIDE)
params0 = model.init(jax.random.key(0))
unit = jd.theory.critical_learning_rate(model.apply, params0, example, loss=jd.losses.half_sum) / 2
record = jd.record(jd.every(1), g=jd.probes.Outputs(), ntk=jd.probes.NTKNorm(example.x))


def single(rate, expand):
    return jd.train(
        jd.Training(
            model,
            example,
            optax.sgd(rate * unit),
            steps=40,
            key=jax.random.key(0),
            params0=params0,
            loss=jd.losses.half_sum,
            expand=expand,
            record=record,
        )
    ).values


rates = jnp.array([1.5, 2.4, 3.2])
simulated, network = (
    jax.jit(jax.vmap(lambda rate, expand=expand: single(rate, expand)))(rates)
    for expand in (jd.models.frozen_gates, jd.exact)
)
start = jd.theory.catapult.Example(simulated["g"][:, 0, 0, 0], simulated["ntk"][:, 0])
step = jd.theory.catapult.example_map(rates * unit, coupling=1 / WIDE, y=1.0, c=1.0)
exact = jd.theory.catapult.trajectory(step, start, steps=40)
deviation = jnp.abs(exact.output - simulated["g"][:, :, 0, 0].T).max(axis=0) / jnp.abs(exact.output).max(axis=0)
print("largest deviation over largest output, single precision:", np.asarray(deviation))

# %%
with figures.style():
    page, axes = figures.figure(1, 2, size=(4.2, 3.2))
    for i, color in enumerate(figures.COLORS[:3]):
        label = f"η_rel = {float(rates[i]):g}"
        axes[0, 0].plot((exact.output[:, i] - 1) ** 2 / 2, color=color, label=label)
        axes[0, 0].plot((simulated["g"][i, :, 0, 0] - 1) ** 2 / 2, "o", color=color, ms=3)
        axes[0, 0].plot((network["g"][i, :, 0, 0] - 1) ** 2 / 2, ":", color=color)
        axes[0, 1].plot(rates[i] * exact.kernel[:, i] / exact.kernel[0, i], color=color, label=label)
        axes[0, 1].plot(rates[i] * simulated["ntk"][i] / simulated["ntk"][i, 0], "o", color=color, ms=3)
        axes[0, 1].plot(rates[i] * network["ntk"][i] / network["ntk"][i, 0], ":", color=color)
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylim(1e-6, None)
    axes[0, 0].set_title("loss: map (line), simulation (dots), network (dotted)")
    axes[0, 1].axhline(2.0, color="black", ls="--", lw=1)
    axes[0, 1].set_title("η λ_t; below 2 the minimum is stable")
    for place in axes[0]:
        place.set_xlabel("step")
        place.legend()
page

# %% [markdown]
# In double precision the two agree to 1e-12. The peak is proportional to the width: at η_rel = 3 the map alone gives

# %%
widths = np.array([500, 4000, 32000, 256000])
start = jd.theory.catapult.Example(jnp.full(4, 0.5), jnp.ones(4))
found = jd.theory.catapult.outcome(3.0, start, coupling=1 / widths, y=1.0, c=1.0, steps=100)
print("peak loss over width:", np.asarray(found.peak / widths).round(4))
print("final η λ:", np.asarray(3 * found.kernel).round(3))

# %% [markdown]
# ## Where next
#
# - `jaxdyn run catapult`: every claim on phases, boundaries, peaks and final curvature, quadratic models beside networks, with verdicts.
# - `jaxdyn run flatness`: large rates end in flat minima; curvature and test accuracy against the rate.
# - `jd.ensemble.maximal_learning_rate(run, vmap=…)`: the largest rate at which your network trains.
