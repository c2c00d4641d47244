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
# # Spikes of the loss, and features
#
# At learning rates just below 2/(c λ_max(K)) the training loss of stochastic gradient descent spikes: some batches have a larger λ_max
# than the whole training set, and on them the rate is super-critical. Spikes lie in the leading eigenspace of the tangent kernel, and
# runs with more of them end with input gradients closer to those of the truth: a higher *AGOP alignment*. This notebook finds spikes,
# looks inside one, and compares batch sizes, on y = x_1 x_2. It takes about half a minute on a CPU.

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
from jaxdyn.analysis import figures, spikes

# %% [markdown]
# ## One rate, several batch sizes
#
# A cheap probe at every step, dearer ones seldom. The rate is 0.9 of the critical one, the same for all batch sizes. The truth is known,
# so its AGOP is.

# %%
task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=20, n=256)  # y = x_1 x_2
truth = jd.geometry.agop(task.target, task.x_test)
model = jd.models.mlp((20, 256, 1), activation=jax.nn.relu)


def run(batch_size, seed):
    key = jax.random.key(seed)
    params0 = model.init(key)
    critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
    return jd.Training(
        model,
        task,
        optax.sgd(0.9 * critical),
        steps=600,
        key=key,
        params0=params0,
        sampler=jd.minibatch(batch_size),
        record=(
            jd.record(jd.every(1), loss=jd.probes.Loss()),
            jd.record(
                jd.every(50),
                dim="probe_step",
                alignment=jd.probes.AGOPAlignment(task.x_test, to=truth),
                test_loss=jd.probes.TestLoss(),
            ),
        ),
    )


ds = jd.sweep(run, loop={"batch_size": [256, 32, 8]}, vmap={"seed": np.arange(8)})
ds

# %% [markdown]
# ## What a spike is
#
# The papers give no rule. Here is ours, with its four numbers: above twice the least loss of the last 30 records, and above 0.02; over
# once the loss is back under 1.1 times that least loss. Counts depend on the rule, so count over a grid of rules too.

# %%
RULE = {"factor": 2.0, "window": 30, "floor": 0.02, "rearm": 1.1}
counts = spikes.count(ds.loss, **RULE, steps_per_epoch=256 / ds.batch_size)
counts.mean("seed").to_pandas().round(3)

# %%
grid = spikes.sensitivity(ds.loss, factor=[1.5, 2, 4], window=[15, 60], floor=[0.02], rearm=[1.1])
grid.mean("seed").isel(floor=0, rearm=0).stack(rule=["factor", "window"]).to_pandas()

# %%
with figures.style():
    page, axes = figures.figure(3, 1, size=(8, 1.9))
    for place, size in zip(axes.flat, ds.batch_size.values, strict=True):
        loss = ds.loss.sel(batch_size=size, seed=0)
        starts = spikes.find(loss, **RULE)
        place.plot(loss.step, loss, color=figures.COLORS[6], lw=0.9)
        place.plot(loss.step[starts], loss[starts], "v", color=figures.COLORS[1], ms=5, mew=0)
        place.set_yscale("log")
        place.set_title(f"training loss, batch size {size}; a spike starts at each mark")
    axes.flat[-1].set_xlabel("step")
page

# %% [markdown]
# ## Alignment and test loss

# %%
with figures.style():
    page, axes = figures.figure(1, 2, size=(4.2, 3))
    for place, name in zip(axes.flat, ("alignment", "test_loss"), strict=True):
        figures.curves(place, ds[name], x="probe_step", hue="batch_size", over="seed")
        place.set_title(f"{name.replace('_', ' ')}, median and 80 % of 8 seeds")
    axes.flat[1].set_yscale("log")
page

# %% [markdown]
# ## Inside a catapult
#
# Gradient descent with its rate raised above the critical one each time the loss has come down. The loss splits into the part in the
# leading eigenspace of the *current* kernel and the rest; λ_max(K) falls across each spike, so that the next one needs a larger rate.


# %%
def catapulted(seed):
    key = jax.random.key(seed)
    params0 = model.init(key)
    critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
    descent = jd.dynamics.catapults(
        0.9 * critical, apply=model.apply, x=task.x, loss=jd.losses.mse, ratio=1.4, level=0.2, num=2
    )
    x, y = task.x[:64], task.y[:64]
    return jd.Training(
        model,
        task,
        descent,
        steps=300,
        key=key,
        params0=params0,
        record=(
            jd.record(
                jd.every(1),
                loss=jd.probes.Loss(),
                split=jd.probes.SubspaceLoss(5, x, y),
                ntk=jd.probes.NTKNorm(x),
                rate=lambda snapshot: snapshot.optimizer_state.rate,
            ),
            jd.record(jd.every(10), dim="probe_step", alignment=jd.probes.AGOPAlignment(task.x_test, to=truth)),
        ),
    )


one = jd.sweep(catapulted, vmap={"seed": np.arange(2)})
apart = {name: one[name].rename(step="record") for name in ("split_top", "split_rest", "ntk")}
table = spikes.annotate(
    one.loss, **RULE, top=apart["split_top"], rest=apart["split_rest"], curvature=apart["ntk"]
).to_dataframe()
table[["seed", "start", "peak", "top_share", "curvature_before", "curvature_after"]].round(3)

# %%
with figures.style():
    page, axes = figures.figure(4, 1, size=(8, 1.8))
    first = one.isel(seed=0)
    starts = first.step[spikes.find(first.loss, **RULE)].values
    for name, label in (("loss", "loss"), ("split_top", "in P≤5 (64 examples)"), ("split_rest", "in P>5")):
        axes[0, 0].plot(first.step, first[name], lw=1.0, label=label)
    axes[0, 0].set_yscale("log")
    axes[0, 0].legend()
    for place, name, title in zip(
        axes[1:, 0],
        ("ntk", "rate", "alignment"),
        ("λ_max(K) (64 examples)", "learning rate", "AGOP alignment"),
        strict=True,
    ):
        place.plot(first[first[name].dims[0]], first[name], color=figures.COLORS[3])
        place.set_title(title)
    for place in axes.flat:
        for step in starts:
            place.axvline(step, color=figures.GREY, lw=0.6, ls=":")
        place.set_xlim(0, 300)
    axes[-1, 0].set_xlabel("step")
page

# %% [markdown]
# ## Where next
#
# - `jaxdyn run agop`: batch size and number of catapults against spikes, alignment and test loss, at equal steps, equal epochs and equal
#   training loss, on polynomials and on real images, with intervals and verdicts.
# - `jaxdyn run spikes`: how much of a spike lies in the leading eigenspace, what super-critical batches do, and λ_max(K) across spikes.
# - Other optimizers: `optimizer=` takes any optax transformation.
