"""What is claimed of the catapult phase; the cases are families of models, and rates or sizes.

Boundaries are brackets of neighbouring rates of the grid, all seeds together. A number without an interval is the worst of all seeds. At
η_rel = 3.5, and for networks, the paper says only "seems"; boundaries of networks are reported whatever they are.
"""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within

ZHU, LEWKOWYCZ = "arXiv 2205.11787", "arXiv 2003.02218"
TWO, FOUR = Within(0.95 * 2.0, 1.05 * 2.0), Within(0.95 * 4.0, 1.05 * 4.0)
FALL = (
    "After a first ci run a fall means 3 %, was 5 %, and the grid is coarser above 3; after a first laptop run, where λ drifted by 3 % at "
    "1.85 in one of eight seeds, the clusters have m = 4096, had 1024."
)

CLAIMS = (
    Claim("C1.1", "Lazy at η_rel ≤ 1.8: share of runs, worst seed.", f"{ZHU}; {LEWKOWYCZ} (uv)", AtLeast(1.0)),
    Claim(
        "C1.1b", "Below 2 the relative change of λ falls like 1/m: exponent.", f"{ZHU}; {LEWKOWYCZ} (uv)", AtMost(-0.6)
    ),
    Claim(
        "C1.2", "Catapult, ending in η c λ < 2, at 2.2 ≤ η_rel ≤ 3.8: share of runs, worst seed.", ZHU, AtLeast(0.95)
    ),
    Claim("C1.2/boundary", "The lazy phase ends at η_rel = 2.", ZHU, TWO),
    Claim("C1.3", "Divergent at 4.2 ≤ η_rel ≤ 6: share of runs, worst seed.", ZHU, AtLeast(0.95)),
    Claim("C1.3/boundary", "Training ends at η_rel = 4.", ZHU, FOUR),
    Claim(
        "C1.4/gamma",
        "The peak of the general model at η_rel = 3 is ∝ γ^-2: exponent.",
        f"{ZHU}, figure 8",
        Within(-2.2, -1.8),
    ),
    Claim("C1.4/kernel", "The final λ falls with the rate: exponent over [2.2, 3.6].", f"{ZHU}, figure 8", AtMost(0.0)),
    Claim("C1.4/peak", "The peak grows with the rate: exponent over [2.2, 3.6].", f"{ZHU}, figure 8", AtLeast(0.0)),
    Claim(
        "C1.4/size",
        "Final λ over initial λ does not depend on m or γ: exponent.",
        f"{ZHU}, figure 8",
        Within(-0.1, 0.1),
    ),
    Claim(
        "C1.5/kernel",
        "Network and quadratic model have nearly the same final λ_1: ratio.",
        f"{ZHU}, figures 3 and 5",
        Within(0.8, 1.25),
    ),
    Claim(
        "C1.5/peak",
        "Network and quadratic model have nearly the same peak loss: ratio.",
        f"{ZHU}, figures 3 and 5",
        Within(0.8, 1.25),
    ),
    Claim("C1.5/λ_1", "λ_1 falls from η = 2/(c λ_1) on: η c λ_1 there.", f"{ZHU}, theorem 3", TWO, FALL),
    Claim("C1.5/λ_2", "λ_2 falls from η = 2/(c λ_2) on: η c λ_2 there.", f"{ZHU}, theorem 3", TWO, FALL),
    Claim(
        "C1.8",
        "The quadratic models, whose Hessian is fixed, catapult: share of their runs with 2.2 ≤ η_rel ≤ 3.8, worst seed.",
        ZHU,
        AtLeast(0.95),
    ),
    Claim("C6.4", "The peak at η_rel = 3 is ∝ m: exponent.", LEWKOWYCZ, Within(0.9, 1.1)),
    Claim(
        "map",
        "The exact map holds through the catapult, η_rel ≤ 3.8: largest error over the largest value.",
        ZHU,
        AtMost(1e-12),
    ),
)
