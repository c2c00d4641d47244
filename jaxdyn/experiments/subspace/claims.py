"""What is claimed of the top eigenspace in a catapult; the cases are network and model.

A number with an interval is the mean, of P_{>s}L the geometric mean, over initialisations at the rate where it is worst. At 0.9 a tenth
of the peak is elsewhere, which for a peak of ten times the start still is about the start itself.
"""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within

PAPER, SGD_PAPER = "arXiv 2205.11787", "arXiv 2306.04815"
RATE = "After the first laptop run the rate of the worst mean; it had been that of the worst end of an interval."
MEMBER = "After the first laptop run the worst member; most attain 1 exactly, which had left an interval without ends."

CLAIMS = (
    Claim(
        "C1.6",
        "P_{≤1}L, the loss in p1, is almost all of the loss at the step of the peak: its share.",
        f"{PAPER}, figures 6 and 7",
        AtLeast(0.9),
        RATE,
    ),
    Claim(
        "C2.1/top",
        "P_{≤s}L is nearly all of the loss at the step of the peak: its share.",
        SGD_PAPER,
        AtLeast(0.9),
        RATE,
    ),
    Claim(
        "C2.1/rest",
        "The complement does not spike, which is to double: max_t P_{>s}L over its start, geometric mean.",
        SGD_PAPER,
        AtMost(2.0),
        "Criterion changed on 2026-11-27, before the runs at desk: it had been the worst member, without an interval.",
    ),
    Claim(
        "C1.6/positive",
        "p1ᵀR_f p1 and p1ᵀR_K p1 are positive when the loss is large: share of the steps from half the peak or more, worst member.",
        f"{PAPER}, app. 19.3",
        AtLeast(0.95),
        MEMBER,
    ),
    Claim(
        "C1.6/scale",
        "p1ᵀR_f p1 scales with the loss: exponent of its positive values in P_{≤1}L, from 2 L_0 to the peak.",
        f"{PAPER}, app. 19.3",
        Within(0.75, 1.25),
        RATE,
    ),
    Claim(
        "C1.2/norm", "The kernel norm ends below 2/(η c): η c λ_1 at the end.", f"{PAPER}, theorem 1", AtMost(2.0), RATE
    ),
)
