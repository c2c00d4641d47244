"""What is claimed of flat minima, curvature being η c λ or λ over its start."""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within

SOURCE = "arXiv 2003.02218"

CLAIMS = (
    Claim(
        "C6.1/steps",
        "Below 2 the curvature stays at fixed steps: geometric mean of λ_T/λ_0 at the worst rate up to 1.5.",
        SOURCE,
        Within(0.8, 1.25),
    ),
    Claim(
        "C6.1/time",
        "Below 2 the curvature stays at fixed time: geometric mean of λ_T/λ_0 at the worst rate up to 1.5.",
        SOURCE,
        Within(0.8, 1.25),
    ),
    Claim(
        "C6.1/rate",
        "Below 2 the curvature at fixed time does not depend on the rate: exponent.",
        SOURCE,
        Within(-0.1, 0.1),
    ),
    Claim(
        "C6.2",
        "Above 2 the curvature ends at 2/η or below, to 1 %: a seed's largest η c λ, mean over seeds, at rates where every seed trains.",
        SOURCE,
        AtMost(2.02),
        "Criterion changed on 2026-11-27, before the runs at desk: it had been the largest of all runs, at most 2 without a tolerance.",
    ),
    Claim(
        "C6.2/soon",
        "A catapult is over soon, in the paper in less than 10 steps: of the first 50, those until η c λ stays below 2, mean over the "
        "rates from 2.5 to 3.5 that train.",
        SOURCE,
        AtMost(10.0),
    ),
    Claim(
        "C6.2/rate",
        "Above 2 the final curvature falls with the rate, where every seed trains: exponent.",
        SOURCE,
        AtMost(0.0),
    ),
    Claim(
        "C6.3/steps",
        "The best accuracy at fixed steps lies above 2: super- minus sub-critical.",
        SOURCE,
        AtLeast(0.0),
        "The laptop preset had 5 seeds in a first run, where accuracies in steps of 0.002 gave an infinite interval.",
    ),
    Claim(
        "C6.3/time",
        "The best accuracy at fixed time, or as good a one, lies above 2: super- minus sub-critical.",
        SOURCE,
        AtLeast(-0.01),
    ),
    Claim(
        "C6.3/loss",
        "The best test loss at fixed steps lies above 2: super- over sub-critical, geometric mean.",
        SOURCE,
        AtMost(1.0),
    ),
    Claim(
        "edge",
        "Training ends near η λ_0 = 12 with ReLU: geometric mean.",
        SOURCE,
        Within(8.0, 16.0),
        "Criterion changed on 2026-11-27, before the runs at desk: it had been an interval that holds the brackets of all seeds.",
    ),
)
