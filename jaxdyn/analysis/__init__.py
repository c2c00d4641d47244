"""From datasets to exponents, phases, spikes, verdicts and figures. Reads no files and trains nothing."""

from jaxdyn.analysis import (
    association,
    brackets,
    claims,
    crossings,
    estimates,
    figures,
    levels,
    looks,
    phases,
    scaling,
    spikes,
)
from jaxdyn.analysis.claims import Claim, Verdict
from jaxdyn.analysis.estimates import Estimate
from jaxdyn.analysis.scaling import PowerLaw

__all__ = [
    "Claim",
    "Estimate",
    "PowerLaw",
    "Verdict",
    "association",
    "brackets",
    "claims",
    "crossings",
    "estimates",
    "figures",
    "levels",
    "looks",
    "phases",
    "scaling",
    "spikes",
]
