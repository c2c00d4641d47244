"""Published phenomena, one module each: `Config`, `PRESETS`, `run`, `claims`, `figure`, on the public API alone."""

from jaxdyn.experiments import (
    agop,
    breaking,
    catapult,
    dag,
    flatness,
    generalization,
    mediation,
    optimizers,
    pl,
    rates,
    rfm,
    spikes,
    subspace,
    width,
)

__all__ = [
    "agop",
    "breaking",
    "catapult",
    "dag",
    "flatness",
    "generalization",
    "mediation",
    "optimizers",
    "pl",
    "rates",
    "rfm",
    "spikes",
    "subspace",
    "width",
]
