"""From datasets to exponents, phases, spikes, verdicts and figures; numpy, xarray and matplotlib only, and no files read."""

from jaxdyn.analysis import claims, figures, phases, scaling, spikes
from jaxdyn.analysis.claims import Verdict
from jaxdyn.analysis.scaling import PowerLaw

__all__ = ["PowerLaw", "Verdict", "claims", "figures", "phases", "scaling", "spikes"]
