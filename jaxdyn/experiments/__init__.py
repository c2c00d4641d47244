"""Published phenomena, one module each: `Config`, `PRESETS`, `run`, `claims`, `figure`, on the public API alone."""

from jaxdyn.experiments import breaking, dag, generalization, mediation, optimizers, pl, rfm, subspace, width

__all__ = ["breaking", "dag", "generalization", "mediation", "optimizers", "pl", "rfm", "subspace", "width"]
