"""Published phenomena, one module each: `Config`, `PRESETS`, `run`, `claims`, `figure`, on the public API alone."""

from jaxdyn.experiments import breaking, dag, pl, rates, width

__all__ = ["breaking", "dag", "pl", "rates", "width"]
