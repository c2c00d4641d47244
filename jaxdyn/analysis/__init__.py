"""From datasets to exponents, phases, spikes, verdicts and figures. Reads no files and trains nothing."""

from jaxdyn.analysis import association, brackets, claims, crossings, figures, phases, scaling, spikes
from jaxdyn.analysis.claims import Verdict
from jaxdyn.analysis.scaling import PowerLaw

__all__ = [
    "PowerLaw",
    "Verdict",
    "association",
    "brackets",
    "claims",
    "crossings",
    "figures",
    "phases",
    "scaling",
    "spikes",
]
