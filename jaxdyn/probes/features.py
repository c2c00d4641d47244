"""What the network has learned to look at: average gradient outer products along a run.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815 (alignment); Radhakrishnan et al., arXiv 2212.13881 (feature ansatz).
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax

from jaxdyn import geometry
from jaxdyn.dynamics.record import Snapshot


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class AGOP:
    """Average gradient outer product of the trained function, [d, d]: mean over examples, sum over outputs.

    Attributes:
        x: inputs [n, *d]; the training inputs when None.
        layer: path of a weight such as `"dense_1/weight"`: the AGOP with respect to the input of that layer; of the network's
            own input when None.
    """

    x: Any = None
    layer: Any = field(default=None, metadata={"static": True})
    dims: ClassVar[tuple[str, ...]] = ("feature", "feature_")

    def __call__(self, snapshot: Snapshot) -> Any:
        x = snapshot.task.x if self.x is None else self.x
        if self.layer is not None:
            return geometry.layer_agop(snapshot.apply, snapshot.params, x, layer=self.layer)
        return geometry.agop(lambda inputs: snapshot.apply(snapshot.params, inputs), x)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class AGOPAlignment:
    """AGOP alignment: the uncentred cosine of the network's AGOP and a given one, a scalar in [0, 1].

    Attributes:
        x: inputs [n, *d] at which the gradients are averaged.
        to: the AGOP compared with, [d, d], such as `geometry.agop(task.target, x)`.
        factor: in its place where d × d is too large, F [r, d] with G = FᵀF, such as `geometry.agop_factor(task.target, x)`;
            no d × d matrix is formed then (unless n k > d makes that the smaller way).
    """

    x: Any
    to: Any = None
    factor: Any = None
    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        if (self.to is None) == (self.factor is None):
            raise ValueError("AGOPAlignment compares with one AGOP: give either `to`, [d, d], or its `factor`, [r, d].")

        def trained(inputs: Any) -> Any:
            return snapshot.apply(snapshot.params, inputs)

        if self.to is not None:
            return geometry.cosine(geometry.agop(trained, self.x), self.to)
        return geometry.factor_cosine(geometry.agop_factor(trained, self.x), self.factor)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class FeatureAnsatz:
    """How well the neural feature ansatz holds at a layer: centred Pearson correlation of W Wᵀ with a power of its AGOP, a scalar.

    Attributes:
        layer: path of the layer's weight, such as `"dense_1/weight"`.
        x: inputs [n, *d]; the training inputs when None.
        exponent: the power of the AGOP; ½ in the ansatz as first stated.
        num_output_axes: trailing axes of the weight that are outputs, as in `geometry.neural_feature_matrix`.
    """

    layer: Any = field(metadata={"static": True})
    x: Any = None
    exponent: float = field(default=0.5, metadata={"static": True})
    num_output_axes: int = field(default=1, metadata={"static": True})
    dims: ClassVar[tuple[str, ...]] = ()

    def __call__(self, snapshot: Snapshot) -> Any:
        x = snapshot.task.x if self.x is None else self.x
        features = geometry.neural_feature_matrix(
            snapshot.params, layer=self.layer, num_output_axes=self.num_output_axes
        )
        gradients = geometry.layer_agop(snapshot.apply, snapshot.params, x, layer=self.layer)
        return geometry.pearson(features, geometry.matrix_power(gradients, self.exponent))
