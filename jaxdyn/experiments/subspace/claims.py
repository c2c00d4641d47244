"""What is claimed of the top eigenspace in a catapult; the cases are network and model.

Each number is judged at the rate with the worst mean over initialisations, C2.1/rest and C1.6/positive at the worst member. At 0.9 a tenth
of the peak is elsewhere, which for a peak of ten times the start still is about the start itself.
"""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within

PAPER, SGD_PAPER = "arXiv 2205.11787", "arXiv 2306.04815"
MEMBER = "The worst member since the first laptop run, which left numbers that most members attain exactly without an interval."
RATE = "The worst rate is that of the worst mean since the first laptop run; it was that of the end of an interval."

CLAIMS = (
    Claim(
        "C1.6",
        "P_{≤1}L, the loss in the top direction, is almost all of the loss at the peak: its share.",
        f"{PAPER}, figures 6 and 7",
        AtLeast(0.9),
        RATE,
    ),
    Claim("C2.1/top", "P_{≤s}L is nearly all of the loss at the peak: its share.", SGD_PAPER, AtLeast(0.9), RATE),
    Claim(
        "C2.1/rest",
        "The complement does not spike, which would double it: max_t P_{>s}L over its start.",
        SGD_PAPER,
        AtMost(2.0),
        MEMBER,
    ),
    Claim(
        "C1.6/positive",
        "p1ᵀR_f p1 and p1ᵀR_K p1 are positive where the loss is half its peak or more: share of the steps.",
        f"{PAPER}, app. 19.3",
        AtLeast(0.95),
        MEMBER,
    ),
    Claim(
        "C1.6/scale",
        "p1ᵀR_f p1 scales with the loss in p1: exponent of its positive values, from 2 L_0 to the peak.",
        f"{PAPER}, app. 19.3",
        Within(0.75, 1.25),
    ),
    Claim(
        "C1.2/norm", "The kernel norm ends below 2/(ηc): ηcλ_1 at the end.", f"{PAPER}, theorem 1", AtMost(2.0), RATE
    ),
)
