"""What is claimed of curvature and accuracy against the learning rate."""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within

SOURCE = "arXiv 2003.02218"
SEEDS = "8 seeds since a first run with 5, whose accuracies in steps of 0.002 left an interval infinite."
KEPT = "Below 2 the curvature stays: λ_T/λ_0 for η_rel ≤ 1.5, geometric mean at the worst rate, at fixed"

CLAIMS = (
    Claim("C6.1/steps", f"{KEPT} steps.", SOURCE, Within(0.8, 1.25)),
    Claim("C6.1/time", f"{KEPT} time.", SOURCE, Within(0.8, 1.25)),
    Claim(
        "C6.1/rate",
        "Below 2 the curvature at fixed time does not depend on the rate: exponent.",
        SOURCE,
        Within(-0.1, 0.1),
    ),
    Claim("C6.2", "Above 2 the curvature ends below 2/η: largest η c λ of all runs that train.", SOURCE, AtMost(2.0)),
    Claim(
        "C6.2/soon",
        "A catapult is over soon, η_rel from 2.5 to 3.5: steps until η c λ stays below 2, of the first 50; the paper has less than 10.",
        SOURCE,
        AtMost(10.0),
    ),
    Claim("C6.2/rate", "Above 2 the final curvature falls with the rate: exponent.", SOURCE, AtMost(0.0)),
    Claim(
        "C6.3/steps",
        "The best accuracy at fixed steps lies above 2: super- minus sub-critical.",
        SOURCE,
        AtLeast(0.0),
        SEEDS,
    ),
    Claim(
        "C6.3/time",
        "At fixed time it, or as good a one, does: super- minus sub-critical.",
        SOURCE,
        AtLeast(-0.01),
        SEEDS,
    ),
    Claim(
        "C6.3/loss", "The best test loss at fixed steps lies above 2: super- over sub-critical.", SOURCE, AtMost(1.0)
    ),
    Claim("edge", "Training ends near η λ_0 = 12: brackets of all seeds.", SOURCE, Within(8.0, 16.0)),
)
