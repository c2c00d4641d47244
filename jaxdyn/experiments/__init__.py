"""Published phenomena, one module each: `Config`, `PRESETS`, `run`, `claims`, `figure`, on the public API alone."""

from jaxdyn.experiments import (
    breaking,
    catapult,
    dag,
    flatness,
    generalization,
    mediation,
    optimizers,
    pl,
    rfm,
    subspace,
    width,
)

__all__ = [
    "breaking",
    "catapult",
    "dag",
    "flatness",
    "generalization",
    "mediation",
    "optimizers",
    "pl",
    "rfm",
    "subspace",
    "width",
]
