"""One row for each member of an open family; `test_conformance` puts every row through the same checks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
from flax import nnx
from hypothesis import strategies as st

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


def _assembly() -> Any:
    num = jd.models.Width(maximum=6, active=jnp.asarray(4))
    return jd.models.assembly(jd.models.mlp((3, 4, 2), activation=jnp.cos, bias=0.1), num)


def _recursive_assembly() -> Any:
    inner = jd.models.assembly(jd.models.mlp((3, 1), activation=jnp.tanh, output=jnp.sin), 5, output=jnp.tanh)
    return jd.models.assembly(inner, 4, weights=jd.models.frozen(jd.models.signs), shares=jd.models.dominated(1.0))


def _shared_assembly() -> Any:
    return jd.models.assembly(
        jd.models.mlp((3, 4, 1), activation=jnp.tanh), 5, members=jd.models.shared, weights=jd.models.signs
    )


def _graph() -> Any:
    return jd.models.graphs.graph(([0, 1, 2, 0, 3, 4, 2, 3], [3, 3, 4, 4, 5, 5, 6, 6]))


def _masked() -> Any:
    return jd.models.masked_dag(jd.models.graphs.Masks.of(_graph()), activation=jnp.cos)


def _blocks(width: Any) -> Any:
    parents = {"h1": ["x"], "h2": ["x", "h1"], "y": ["h1", "h2"]}
    return jd.models.block_dag(parents, widths={"x": 3, "h1": width, "h2": 6, "y": 2}, activation=jnp.cos)


def _two_layer_padded() -> Any:
    return jd.models.two_layer_relu(3, jd.models.Width(maximum=8, active=jnp.asarray(5)))


def _general_quadratic() -> Any:
    return jd.models.general_quadratic(
        3,
        gamma=0.3,
        feature=lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True),
        curvature=lambda x, w: x * w[None, :],
    )


def _top_part(task: Any) -> Any:
    probe = jd.probes.SubspaceLoss(2)
    return lambda snapshot: probe(snapshot)["top"]


def _top_direction(task: Any) -> Any:
    probe = jd.probes.TopDirection(0.1)
    return lambda snapshot: probe(snapshot, probe.start(snapshot))[0]["loss"]


def _part(probe: Any, name: str) -> Any:
    return lambda snapshot: probe(snapshot)[name]


def _smallest(task: Any) -> Any:
    probe = jd.probes.Conditioning(task.x[:4])
    return lambda snapshot: probe(snapshot)[""]


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
    ModelCase("assembly_padded", _assembly, (3,), 2),
    ModelCase("assembly_recursive", _recursive_assembly, (3,), 1),
    ModelCase("assembly_shared", _shared_assembly, (3,), 1),
    ModelCase(
        "dag_gathered",
        lambda: jd.models.dag(_graph(), activation=jnp.cos, product=jd.models.graphs.gathered),
        (3,),
        2,
    ),
    ModelCase(
        "dag_dense", lambda: jd.models.dag(_graph(), activation=jnp.cos, product=jd.models.graphs.dense), (3,), 2
    ),
    ModelCase("dag_masked", _masked, (3,), 2),
    ModelCase("block_dag", lambda: _blocks(5), (3,), 2),
    ModelCase("block_dag_padded", lambda: _blocks(jd.models.Width(maximum=8, active=jnp.asarray(5))), (3,), 2),
    ModelCase("two_layer_relu", _two_layer_padded, (3,), 1),
    ModelCase("uv", lambda: jd.models.uv(6), (1,), 1),
    ModelCase("general_quadratic", _general_quadratic, (3,), 1),
    ModelCase("pure_quadratic", lambda: jd.models.pure_quadratic(5, gamma=0.4), (3,), 1),
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
    ProbeCase(
        "BallCurvature",
        lambda task: _part(jd.probes.BallCurvature(task.x[:2], jax.random.key(0), 0.5, 3), "curvature"),
        (3, 2, 2),
    ),
    ProbeCase(
        "Multilinearity",
        lambda task: _part(
            jd.probes.Multilinearity(task.x, jax.random.key(0), 0.5, 3, ("dense_0", "dense_1")), "mixed"
        ),
        (),
    ),
    ProbeCase("Conditioning", _smallest, ()),
    ProbeCase("PLRatio", lambda task: jd.probes.PLRatio(), ()),
    ProbeCase("PathLength", lambda task: jd.probes.PathLength(), ()),
    ProbeCase("SubspaceLoss", _top_part, ()),
    ProbeCase("TopDirection", _top_direction, (16,)),
    ProbeCase("BatchCriticalRate", lambda task: jd.probes.BatchCriticalRate(), ()),
    ProbeCase("AGOP", lambda task: jd.probes.AGOP(), (3, 3)),
    ProbeCase("AGOP_layer", lambda task: jd.probes.AGOP(layer="dense_1/weight"), (16, 16)),
    ProbeCase("AGOPAlignment", lambda task: jd.probes.AGOPAlignment(task.x, to=jnp.eye(3)), ()),
    ProbeCase("AGOPAlignment_factor", lambda task: jd.probes.AGOPAlignment(task.x, factor=jnp.eye(2, 3)), ()),
    ProbeCase("FeatureAnsatz", lambda task: jd.probes.FeatureAnsatz("dense_1/weight"), ()),
]


@st.composite
def edge_lists(draw: Any, most: int = 9) -> Any:
    """Random acyclic edges in a random numbering, every vertex connected."""
    num = draw(st.integers(2, most))
    pairs = [(u, v) for v in range(num) for u in range(v)]
    chosen = set(draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=len(pairs), unique=True)))
    used = {vertex for pair in chosen for vertex in pair}
    chosen |= {(v - 1, v) if v else (0, 1) for v in range(num) if v not in used}
    names = draw(st.permutations(range(num)))
    edges = draw(st.permutations(sorted(chosen)))
    return [names[u] for u, _ in edges], [names[v] for _, v in edges]
