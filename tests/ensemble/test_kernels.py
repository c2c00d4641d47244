"""What a training step asks of an accelerator, read off the advance of a sweep lowered for CUDA (StableHLO, no device needed).

Full batch and minibatches of a vmapped ensemble: nothing grows with the members, nothing calls the host or a library, and the only
loops are those of the legs and the steps; the loop over chunks turns once where all members fit into one. Each count has a control that
shows what it would see. Kernels are counted in the optimised HLO of the CPU, as fusions and products: a proxy.
"""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd
from jaxdyn.ensemble.deciding.axes import parse
from jaxdyn.ensemble.deciding.plan import decide

TASK = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=64, n=128)
SAMPLERS = {"full batch": jd.tasks.full_batch, "minibatch": jd.minibatch(32)}
RECORDS = {
    "nothing": (),
    "losses": jd.record(jd.every(1), loss=jd.probes.Loss()),
    "outputs": jd.record(jd.every(10), outputs=jd.probes.Outputs()),
}


def _programme(members, sampler, record=(), chunk=None):
    model = jd.models.mlp((64, 256, 256, 1), activation=jnp.tanh)

    def run(seed):
        return jd.Training(
            model, TASK, optax.sgd(0.1), steps=160, key=jax.random.key(seed), sampler=SAMPLERS[sampler], record=record
        )

    axes = parse(run, None, {"seed": np.arange(members)})
    plan = decide(run, axes, None, chunk=chunk or members)
    return plan.programme(plan.cells[0])


def _lowered(*arguments, **settings):
    """StableHLO of the advance for CUDA."""
    _, advance = _programme(*arguments, **settings).traced
    return advance.lower(lowering_platforms=("cuda",)).as_text()


def _operations(text):
    """How often each operation occurs."""
    return collections.Counter(re.findall(r"stablehlo\.([a-z_]+)", text))


def _turns(text):
    """For each loop how often it turns at most, as its condition tells; None where it depends on what is handed in."""
    found = []
    for condition in re.findall(r"stablehlo\.while.*?\bcond \{(.*?)stablehlo\.return", text, re.DOTALL):
        limits = re.findall(r"constant dense<(\d+)>", condition)
        found.append(int(limits[0]) if limits else None)
    return found


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_grows_with_the_members_and_nobody_but_the_device_is_called(sampler, record):
    few, many = (_lowered(members, sampler, RECORDS[record]) for members in (4, 64))
    assert _operations(few) == _operations(many)
    assert _operations(many)["dot_general"] >= 6  # it is the training
    assert _operations(many)["custom_call"] == 0
    assert "callback" not in many


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_members_that_fit_into_one_chunk_are_not_looped_over(sampler):
    members, legs, strides, steps = _turns(_lowered(64, sampler))
    assert (members, legs, strides, steps) == (1, 1, None, 160)
    assert _turns(_lowered(64, sampler, chunk=4)) == [16 // jax.local_device_count(), 1, None, 160]  # the control


def test_steps_between_records_are_a_loop_of_known_length():
    """A device that has to ask whether there are more steps waits for the host each time."""
    every_ten = jd.record(jd.every(10), loss=jd.probes.Loss())
    assert _turns(_lowered(64, "full batch", every_ten))[-2:] == [None, 10]
    irregular = jd.record(jd.at([3, 7]), loss=jd.probes.Loss())
    assert _turns(_lowered(64, "full batch", irregular)) == [1, 1, None]


def test_a_probe_that_calls_a_library_or_the_host_is_seen():
    def largest(snapshot):
        return jnp.linalg.eigvalsh(snapshot.params["dense_1"]["weight"])[-1]

    def called(snapshot):
        return jax.pure_callback(
            lambda v: v, jax.ShapeDtypeStruct((), jnp.float32), snapshot.batch_loss, vmap_method="expand_dims"
        )

    text = _lowered(4, "full batch", jd.record(jd.every(10), value=largest))
    assert _operations(text)["custom_call"] > 0
    assert "cusolver" in text
    with pytest.raises(ValueError, match="platform"):  # a call of the host wants the device that it comes from
        _lowered(4, "full batch", jd.record(jd.every(10), value=called))


@pytest.mark.parametrize(("sampler", "most"), [("full batch", 25), ("minibatch", 40)])
def test_a_step_of_the_whole_ensemble_is_a_few_kernels(sampler, most):
    """Random bits have loops of their own on a CPU, which are not counted; the test above finds none on a GPU."""
    text = _programme(64, sampler).compiled[1].as_text()
    steps = re.findall(r" while\(.*body=%([\w.\-]+)", text)
    bodies = [re.search(rf"^%{re.escape(name)} \(.*?^\}}", text, re.DOTALL | re.MULTILINE)[0] for name in steps]
    (step,) = [body for body in bodies if body.count(" dot(") + body.count('custom_call_target="__onednn$matmul"')]
    kernels = len(re.findall(r" (?:fusion|dot|custom-call|convolution)\(", step))
    print(f"{sampler}: {kernels} kernels a step")
    assert 6 <= kernels <= most
