"""Published phenomena, one module each: `Config`, `PRESETS`, `run`, `claims`, `figure`, on the public API alone."""

from jaxdyn.experiments import agop, breaking, dag, pl, spikes, width

__all__ = ["agop", "breaking", "dag", "pl", "spikes", "width"]
