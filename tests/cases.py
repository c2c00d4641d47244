"""One row for each member of an open family; `test_conformance` puts every row through the same checks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
from flax import nnx

import jaxdyn as jd


class ModelCase(NamedTuple):
    name: str
    make: Callable[[], Any]
    shape: tuple[int, ...]
    outputs: int


class ProbeCase(NamedTuple):
    name: str
    make: Callable[[Any], Any]
    shape: tuple[int, ...]


def _linen() -> Any:
    module = linen.Sequential([linen.Dense(6), jnp.tanh, linen.Dense(2)])
    return jd.models.from_linen(module, jnp.ones((1, 3)))


def _nnx() -> Any:
    return jd.models.from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))


def _padded() -> Any:
    width = jd.models.Width(maximum=8, active=jnp.asarray(5))
    return jd.models.mlp((3, width, width, 2), activation=jnp.cos)


def _convolution() -> Any:
    width = jd.models.Width(maximum=6, active=jnp.asarray(4))
    return jd.models.conv((4, 3, 2), (width,), 1, activation=jnp.cos, pool=jd.models.global_average)


def _top_part(task: Any) -> Any:
    probe = jd.probes.SubspaceLoss(2)
    return lambda snapshot: probe(snapshot)["top"]


MODELS = [
    ModelCase("mlp", lambda: jd.models.mlp((3, 8, 2), activation=jnp.tanh), (3,), 2),
    ModelCase("mlp_linear", lambda: jd.models.mlp((3, 1), activation=jnp.tanh), (3,), 1),
    ModelCase("mlp_deep_bias", lambda: jd.models.mlp((3, 8, 4, 2), activation=jax.nn.relu, bias=0.1), (3,), 2),
    ModelCase(
        "mlp_standard",
        lambda: jd.models.mlp((3, 8, 1), activation=jnp.tanh, scaling=jd.models.standard, bias=0.1),
        (3,),
        1,
    ),
    ModelCase(
        "mlp_mup", lambda: jd.models.mlp((3, 8, 8, 1), activation=jnp.tanh, scaling=jd.models.maximal_update), (3,), 1
    ),
    ModelCase("mlp_nonlinear_output", lambda: jd.models.mlp((3, 8, 1), activation=jnp.tanh, output=jnp.tanh), (3,), 1),
    ModelCase("mlp_images", lambda: jd.models.mlp((12, 4, 1), activation=jnp.tanh), (2, 2, 3), 1),
    ModelCase("mlp_padded", _padded, (3,), 2),
    ModelCase(
        "conv_flat",
        lambda: jd.models.conv((4, 4, 2), (5, 3), 2, activation=jnp.tanh, pool=jd.models.flatten, bias=0.1),
        (32,),
        2,
    ),
    ModelCase("conv_average", _convolution, (4, 3, 2), 1),
    ModelCase(
        "wide_resnet",
        lambda: jd.models.wide_resnet((4, 4, 1), 2, widen=1, channels=2, normalise=jd.models.group_norm(2)),
        (4, 4, 1),
        2,
    ),
    ModelCase("vit", lambda: jd.models.vit((4, 4, 2), 1, patch=2, width=4, heads=2, depth=1, expansion=2), (32,), 1),
    ModelCase("linen", _linen, (3,), 2),
    ModelCase("nnx", _nnx, (3,), 2),
]

EXPANSIONS = [
    ("exact", jd.exact),
    ("linear", jd.linear),
    ("quadratic", jd.quadratic),
    ("taylor_0", jd.taylor(0)),
    ("taylor_3", jd.taylor(3)),
]

PROBES = [
    ProbeCase("Loss", lambda task: jd.probes.Loss(), ()),
    ProbeCase("BatchLoss", lambda task: jd.probes.BatchLoss(), ()),
    ProbeCase("TestLoss", lambda task: jd.probes.TestLoss(), ()),
    ProbeCase("Accuracy", lambda task: jd.probes.Accuracy(), ()),
    ProbeCase("Outputs", lambda task: jd.probes.Outputs(), (8, 2)),
    ProbeCase("Outputs_test", lambda task: jd.probes.Outputs(task.x_test), (5, 2)),
    ProbeCase("Displacement", lambda task: jd.probes.Displacement(), ()),
    ProbeCase("LinearizationGap", lambda task: jd.probes.LinearizationGap(), ()),
    ProbeCase("NTKMatrix", lambda task: jd.probes.NTKMatrix(task.x), (8, 8)),
    ProbeCase("NTKNorm", lambda task: jd.probes.NTKNorm(task.x), ()),
    ProbeCase("KernelChange", lambda task: jd.probes.KernelChange(task.x), ()),
    ProbeCase("KernelDistance", lambda task: jd.probes.KernelDistance(task.x, to=jnp.eye(8)), ()),
    ProbeCase("Sharpness", lambda task: jd.probes.Sharpness(), ()),
    ProbeCase("HessianSpectrum", lambda task: jd.probes.HessianSpectrum(3), (3,)),
    ProbeCase(
        "HessianSpectrum_bottom",
        lambda task: jd.probes.HessianSpectrum(2, task.x_test, task.y_test, end=jd.geometry.spectrum.bottom),
        (2,),
    ),
    ProbeCase("FunctionHessianNorm", lambda task: jd.probes.FunctionHessianNorm(task.x[:3]), (3, 2)),
    ProbeCase("SubspaceLoss", _top_part, ()),
    ProbeCase("BatchCriticalRate", lambda task: jd.probes.BatchCriticalRate(), ()),
    ProbeCase("AGOP", lambda task: jd.probes.AGOP(), (3, 3)),
    ProbeCase("AGOP_layer", lambda task: jd.probes.AGOP(layer="dense_1/weight"), (16, 16)),
    ProbeCase("AGOPAlignment", lambda task: jd.probes.AGOPAlignment(task.x, to=jnp.eye(3)), ()),
    ProbeCase("AGOPAlignment_factor", lambda task: jd.probes.AGOPAlignment(task.x, factor=jnp.eye(2, 3)), ()),
    ProbeCase("FeatureAnsatz", lambda task: jd.probes.FeatureAnsatz("dense_1/weight"), ()),
]
