"""Published phenomena, one module each: `Config`, `PRESETS`, `run`, `claims`, `figure`, on the public API alone."""

from jaxdyn.experiments import dag, width

__all__ = ["dag", "width"]
