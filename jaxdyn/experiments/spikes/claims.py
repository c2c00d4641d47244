"""What is claimed of spikes; the cases are descents, batch sizes or numbers of raises.

A seed's number is the mean over its spikes or steps; intervals are over seeds. Above and below 0 mean by 1e-6. C2.1, C2.1b, C2.2, C2.2c and
C2.3 have the criteria they had before the experiment was designed anew on 2026-11-27; after that one was changed, as its note says.
"""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within

SOURCE = "arXiv 2306.04815"
RISES, FALLS = AtLeast(1e-6), AtMost(-1e-6)
ANEW = "Designed anew on 2026-11-27, before its first run: few spiked, or nearly all batches were super-critical."

CLAIMS = (
    Claim(
        "C2.1",
        "The peak of a spike lies in P≤5, the span of the five leading eigenvectors: share.",
        SOURCE,
        AtLeast(0.9),
        ANEW,
    ),
    Claim(
        "C2.1b",
        "P>5 does not grow in a spike: its part at the peak over that of the record before, geometric mean; 2 is what makes a spike.",
        SOURCE,
        AtMost(2.0),
        ANEW,
    ),
    Claim(
        "C2.2",
        "The loss jumps by a tenth more often on super-critical batches: probability there minus probability on others.",
        SOURCE,
        RISES,
        ANEW,
    ),
    Claim(
        "C2.2/placebo",
        "It is the batch that does it: that difference minus its placebo, the batches' rates shuffled among steps close in time.",
        SOURCE,
        RISES,
        ANEW,
    ),
    Claim(
        "C2.2/dose",
        "The loss grows more, the more super-critical the batch: slope of its log growth in a step on η/η_crit(X_b), at about one time.",
        SOURCE,
        RISES,
        ANEW,
    ),
    Claim(
        "C2.2/batch",
        "So does the loss of the batch itself: slope of its log growth in its step, likewise.",
        SOURCE,
        RISES,
        ANEW,
    ),
    Claim(
        "C2.2/share",
        "Design: super-critical batches are neither rare nor the rule: share of all batches.",
        "jaxdyn",
        Within(0.1, 0.3),
        ANEW,
    ),
    Claim(
        "C2.2/events",
        "Design: every bin of η/η_crit(X_b) has its events: steps in the emptiest.",
        "jaxdyn",
        AtLeast(200),
        ANEW,
    ),
    Claim(
        "C2.2c", "λ_max(K) falls across a spike of stochastic descent: change of its logarithm.", SOURCE, FALLS, ANEW
    ),
    Claim("C2.3", "λ_max(K) falls across a spike of gradient descent: change of its logarithm.", SOURCE, FALLS, ANEW),
    Claim(
        "C2.3b", "λ_max(K) at a raise is below that at the raise before: logarithm of the ratio.", SOURCE, FALLS, ANEW
    ),
    Claim(
        "C2.5/catapult",
        "Design: a forced raise makes a catapult: the largest loss after the last raise over the loss at it, geometric mean.",
        "jaxdyn",
        AtLeast(2.0),
        f"{ANEW} After a run of ci in place of a count of spikes, of which catapults in close succession make one.",
    ),
    Claim(
        "C2.5/alignment",
        "One more forced catapult raises the AGOP alignment at equal training loss: difference.",
        SOURCE,
        RISES,
        ANEW,
    ),
    Claim(
        "C2.5/test",
        "One more forced catapult lowers the test loss at equal training loss: difference of logarithms.",
        SOURCE,
        FALLS,
        ANEW,
    ),
)
