"""What is claimed of spikes; the cases are network and descent (and, of C2.3b, the raise).

A seed's number is the mean over its spikes; intervals are over seeds, those without a spike left out. Above and below 0 mean by 1e-6.
"""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim

SOURCE = "arXiv 2306.04815"
ABOVE = 1e-6
BATCHES = "After a toy run in which more than half of the batches of 8 were super-critical, laptop took batches of 64 in place of 16."

CLAIMS = (
    Claim(
        "C2.1",
        "The peak of a spike lies in P≤5, the span of the five leading eigenvectors: share.",
        SOURCE,
        AtLeast(0.9),
    ),
    Claim(
        "C2.1b",
        "P>5 does not grow in a spike: its part at the peak over that of the record before, geometric mean; 2 is what makes a spike.",
        SOURCE,
        AtMost(2.0),
    ),
    Claim(
        "C2.2",
        "The loss jumps by a tenth more often on super-critical batches: probability there minus probability on others.",
        SOURCE,
        AtLeast(ABOVE),
        BATCHES,
    ),
    Claim(
        "C2.2b",
        "Super-critical batches are more frequent from before a spike to its peak: their share minus that of the run.",
        SOURCE,
        AtLeast(ABOVE),
        BATCHES,
    ),
    Claim(
        "C2.2c", "λ_max(K) falls across a spike of stochastic descent: change of its logarithm.", SOURCE, AtMost(-ABOVE)
    ),
    Claim(
        "C2.3", "λ_max(K) falls across a spike of gradient descent: change of its logarithm.", SOURCE, AtMost(-ABOVE)
    ),
    Claim(
        "C2.3b",
        "λ_max(K) at a raise is below that at the raise before: logarithm of the ratio.",
        SOURCE,
        AtMost(-ABOVE),
    ),
)
