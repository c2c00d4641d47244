"""What is claimed of test losses below and above the critical rate; the cases are panels."""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within

PAPER, CATAPULT = "arXiv 2205.11787, figures 2 and 4", "arXiv 2003.02218, figure 3"
RATIO = "best test loss at super-critical over that at sub-critical rates."

CLAIMS = (
    Claim(
        "C1.7/*/same",
        "Below critical, network and quadratic model have nearly the linear model's test loss: ratio at the rate of the worst mean.",
        PAPER,
        Within(0.9, 1.1),
    ),
    Claim("C1.7/*/network", f"Above critical the network generalises better: {RATIO}", PAPER, AtMost(1.0)),
    Claim("C1.7/*/quadratic", f"Above critical the quadratic model generalises better: {RATIO}", PAPER, AtMost(1.0)),
    Claim("C1.7/*/linear", f"Above critical the linear model does not: {RATIO}", PAPER, AtLeast(1.0)),
    Claim("C6.3", "The network's best test accuracy is reached above critical: difference.", CATAPULT, AtLeast(0.0)),
)
